"""Operators that work on each pixel alone: how they change the colours of a picture. Used by `inputmap`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import helper

from hefkit.workshop.network.graph import Graph

TOLERANCE = 1e-3  # of matrix and offset


@dataclass(frozen=True)
class Colours:
    """The channels of a tensor at each pixel: matrix x (red, green, blue) + offset."""

    matrix: np.ndarray  # (channels, 3) float64
    offset: np.ndarray  # (channels,)
    axis: int | None = 1  # of the channels; None where the one channel has no axis
    rank: int = 4
    node: str = ""  # the first that changed something
    before: Colours | None = None  # in front of the last 1x1 convolution or normalisation

    def rows(self, matrix: np.ndarray, offset: np.ndarray, node: onnx.NodeProto, *, layer: bool = False) -> Colours:
        """Other values in the same place."""
        before = (self.before or self) if layer else self.before
        return replace(self, matrix=matrix, offset=offset, node=self.node or node.name, before=before)

    def picked(self, indices: np.ndarray, node: onnx.NodeProto) -> Colours:
        """Some of the channels, in this order."""
        same = np.array_equal(indices, np.arange(len(self.offset)))
        return self if same else self.rows(self.matrix[indices], self.offset[indices], node)


@dataclass(frozen=True)
class Step:
    """One operator that reads a known tensor."""

    graph: Graph
    node: onnx.NodeProto
    known: dict[str, Colours]

    @property
    def first(self) -> Colours | None:
        """The colours in its first input; None if they are not known."""
        return self.known.get(self.node.input[0])

    def constant(self, slot: int) -> np.ndarray | None:
        """The value of a constant input; None for another one."""
        return self.graph.constant(self.node.input[slot]) if len(self.node.input) > slot else None

    def setting(self, name: str, default: Any) -> Any:
        """The value of an attribute of the node."""
        found = next((a for a in self.node.attribute if a.name == name), None)
        return default if found is None else helper.get_attribute_value(found)

    def whole_numbers(self, name: str, slot: int) -> list[int] | None:
        """Numbers that are an attribute in older opsets and a constant input in newer ones."""
        value = self.setting(name, None)
        if value is not None:
            return [int(v) for v in value]
        array = self.constant(slot)
        return None if array is None else [int(v) for v in array.ravel()]


Result = list[Colours] | None  # None: not a part of the preprocessing


def _same(step: Step) -> Result:
    return None if step.first is None else [step.first]


def _arithmetic(step: Step) -> Result:
    """Add, Sub, Mul, Div with a constant for all channels or one for each."""
    left, right = (step.known.get(name) for name in step.node.input[:2])
    found = left or right
    if found is None or (left is not None and right is not None):
        return None
    value = _by_channel(step.constant(1 if left is not None else 0), found)
    kind = step.node.op_type
    if value is None or (kind == "Div" and (left is None or (value == 0).any())):
        return None
    if kind in ("Mul", "Div"):
        factor = value if kind == "Mul" else 1 / value
        return [found.rows(found.matrix * factor[:, None], found.offset * factor, step.node)]
    if kind == "Sub" and left is None:
        return [found.rows(-found.matrix, value - found.offset, step.node)]
    return [found.rows(found.matrix, found.offset + (value if kind == "Add" else -value), step.node)]


def _by_channel(value: np.ndarray | None, found: Colours) -> np.ndarray | None:
    """A constant as one number a channel; None where it differs within a picture."""
    channels = len(found.offset)
    if value is None or not np.isfinite(value).all():
        return None
    if value.size == 1:
        return np.full(channels, float(value.reshape(-1)[0]))
    shape = (1,) * (found.rank - value.ndim) + value.shape
    if found.axis is None or len(shape) != found.rank or value.size != shape[found.axis] or value.size != channels:
        return None
    return value.reshape(-1).astype(np.float64)


def _negative(step: Step) -> Result:
    return None if step.first is None else [step.first.rows(-step.first.matrix, -step.first.offset, step.node)]


def _batch_normalization(step: Step) -> Result:
    found, values = step.first, [step.constant(slot) for slot in (1, 2, 3, 4)]
    if found is None or found.axis != 1 or any(v is None or v.size != len(found.offset) for v in values):
        return None
    scale, shift, mean, variance = (np.asarray(v, np.float64).reshape(-1) for v in values)
    gain = scale / np.sqrt(variance + step.setting("epsilon", 1e-5))
    return [found.rows(found.matrix * gain[:, None], (found.offset - mean) * gain + shift, step.node, layer=True)]


def _convolution(step: Step) -> Result:
    """A 1x1 convolution to at most three channels."""
    found, weight = step.first, step.constant(1)
    if found is None or found.axis != 1 or weight is None or weight.shape[2:] != (1, 1) or weight.shape[0] > 3:
        return None
    if any(s != 1 for s in step.setting("strides", [1])) or any(step.setting("pads", [0])):
        return None
    group = step.setting("group", 1)
    per_output, outputs = weight.shape[1], weight.shape[0] // group
    mix = np.zeros((weight.shape[0], len(found.offset)))
    for row in range(weight.shape[0]):
        start = row // outputs * per_output
        mix[row, start : start + per_output] = weight[row, :, 0, 0]
    bias = step.constant(2) if len(step.node.input) > 2 and step.node.input[2] else np.zeros(len(mix))
    if bias is None:
        return None
    return [found.rows(mix @ found.matrix, mix @ found.offset + bias, step.node, layer=True)]


def _matrix_product(step: Step) -> Result:
    """MatMul of pixels, channels last, with a constant matrix."""
    found, weight = step.first, step.constant(1)
    if found is None or found.axis != found.rank - 1 or weight is None or weight.ndim != 2 or weight.shape[1] > 3:
        return None
    mix = weight.T.astype(np.float64)
    return [found.rows(mix @ found.matrix, mix @ found.offset, step.node, layer=True)]


def _gather(step: Step) -> Result:
    found, indices = step.first, step.constant(1)
    if found is None or indices is None or step.setting("axis", 0) % found.rank != found.axis or indices.ndim > 1:
        return None
    picked = found.picked(indices.reshape(-1) % len(found.offset), step.node)
    return [picked if indices.ndim else replace(picked, axis=None, rank=found.rank - 1)]


def _slice(step: Step) -> Result:
    found = step.first
    starts, ends = step.whole_numbers("starts", 1), step.whole_numbers("ends", 2)
    if found is None or starts is None or ends is None:
        return None
    axes = step.whole_numbers("axes", 3) or list(range(len(starts)))
    steps = step.whole_numbers("steps", 4) or [1] * len(starts)
    if [axis % found.rank for axis in axes] != [found.axis]:
        return None
    end = None if ends[0] < -len(found.offset) else ends[0]
    return [found.picked(np.arange(len(found.offset))[slice(starts[0], end, steps[0])], step.node)]


def _split(step: Step) -> Result:
    found = step.first
    if found is None or step.setting("axis", 0) % found.rank != found.axis:
        return None
    count, channels = len(step.node.output), len(found.offset)
    sizes = step.whole_numbers("split", 1) or [math.ceil(channels / count)] * count
    ends = np.minimum(np.cumsum(sizes), channels)
    parts = [np.arange(end - min(size, end), end) for size, end in zip(sizes, ends, strict=True)]
    return [replace(found, matrix=found.matrix[part], offset=found.offset[part]) for part in parts]


def _concat(step: Step) -> Result:
    parts = [step.known.get(name) for name in step.node.input]
    found = [part for part in parts if part is not None]
    axis = step.setting("axis", 0) % found[0].rank
    if len(found) < len(parts) or any(part.axis != axis for part in found):
        return None
    matrix, offset = np.concatenate([p.matrix for p in found]), np.concatenate([p.offset for p in found])
    changed = next((part.node for part in found if part.node), step.node.name)
    return [replace(found[0], matrix=matrix, offset=offset, node=changed)]


def _transpose(step: Step) -> Result:
    found = step.first
    if found is None:
        return None
    order = list(step.setting("perm", list(range(found.rank))[::-1]))
    return [replace(found, axis=None if found.axis is None else order.index(found.axis))]


def _unsqueeze(step: Step) -> Result:
    found, axes = step.first, step.whole_numbers("axes", 1)
    if found is None or found.axis is not None or axes is None or len(axes) != 1:
        return None
    return [replace(found, axis=axes[0] % (found.rank + 1), rank=found.rank + 1)]


def _clip(step: Step) -> Result:
    """A clip whose limits lie outside the tensor's range for pictures of 0 to 1 changes nothing; else None."""
    found = step.first
    if found is None:
        return None
    if step.node.op_type == "Relu":
        low, high = 0.0, math.inf
    else:
        limits = [step.setting(name, None) for name in ("min", "max")]
        given = [step.constant(slot) for slot in (1, 2)]
        low, high = (
            float(constant.reshape(-1)[0]) if constant is not None else default if limit is None else float(limit)
            for limit, constant, default in zip(limits, given, (-math.inf, math.inf), strict=True)
        )
    least = found.offset + np.minimum(found.matrix, 0).sum(axis=1)
    most = found.offset + np.maximum(found.matrix, 0).sum(axis=1)
    return [found] if (least >= low - TOLERANCE).all() and (most <= high + TOLERANCE).all() else None


RULES: dict[str, Callable[[Step], Result]] = {
    **dict.fromkeys(("Identity", "Cast", "Dropout"), _same),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _arithmetic),
    **dict.fromkeys(("Clip", "Relu"), _clip),
    "Neg": _negative,
    "BatchNormalization": _batch_normalization,
    "Conv": _convolution,
    "MatMul": _matrix_product,
    "Gather": _gather,
    "Slice": _slice,
    "Split": _split,
    "Concat": _concat,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
