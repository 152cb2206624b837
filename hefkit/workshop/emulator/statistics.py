"""Smallest and largest value of each channel of a network's tensors, streamed over the calibration set.

Everything is reduced inside the graph, so each picture gives two numbers a channel, and the memory does not grow with
the set. Several pictures are computed at once, each on one core.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hefkit.workshop.network.cut import tensor_types
from hefkit.workshop.network.operators import opset
from hefkit.workshop.network.session import in_parallel, open_session, run_session

Feed = Mapping[str, np.ndarray]


@dataclass
class Extremes:
    """The range of one tensor over the set; both arrays are (C,) float32, C = 1 for a tensor of one axis."""

    low: np.ndarray
    high: np.ndarray

    def by_channel(self, channels: int) -> Extremes:
        """The same for a layer of `channels` channels; if the tensor has another number, all get its whole range."""
        if len(self.low) == channels:
            return self
        return Extremes(np.full(channels, self.low.min()), np.full(channels, self.high.max()))

    @property
    def largest(self) -> np.ndarray:
        """(C,) the largest magnitude."""
        return np.maximum(np.abs(self.low), np.abs(self.high))


def extremes(model: onnx.ModelProto, tensors: Sequence[str], feeds: Iterable[Feed]) -> dict[str, Extremes]:
    """Range of each channel (axis 1) of each tensor, over all feeds; at least one feed."""
    shapes = {name: shape for name, (_, shape) in tensor_types(model, tensors).items()}
    names = [f"{t}/{s}" for t in tensors for s in ("min", "max")]
    session = open_session(_with_reductions(model, shapes), threads=1, lean=True)
    totals: list[np.ndarray] = []
    for values in in_parallel(lambda feed: run_session(session, names, feed), feeds):
        flat = [v.reshape(-1) for v in values]
        if totals:
            merge = (np.minimum, np.maximum)
            flat = [merge[i % 2](total, value) for i, (total, value) in enumerate(zip(totals, flat, strict=True))]
        totals = flat
    return {name: Extremes(*totals[2 * t : 2 * t + 2]) for t, name in enumerate(tensors)}


def _with_reductions(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> onnx.ModelProto:
    """The model with two small outputs a tensor in place of its own outputs, each right behind its tensor."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:], copy.graph.node[:]

    def reduce(names: Iterable[str]) -> None:
        for name in names:
            if name in shapes:
                axes = [a for a in range(len(shapes[name])) if a != 1]
                for suffix, op in (("min", "ReduceMin"), ("max", "ReduceMax")):
                    _append_reduction(copy, op, name, f"{name}/{suffix}", axes, opset(model))

    reduce(v.name for v in model.graph.input)
    for node in model.graph.node:
        copy.graph.node.append(node)
        reduce(node.output)
    return copy


def _append_reduction(model: onnx.ModelProto, op: str, source: str, result: str, axes: list[int], version: int) -> None:
    if version < 18:
        model.graph.node.append(helper.make_node(op, [source], [result], axes=axes, keepdims=0))
    else:  # from opset 18 on the axes are an input
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(axes, np.int64), f"{result}/axes"))
        model.graph.node.append(helper.make_node(op, [source, f"{result}/axes"], [result], keepdims=0))
    model.graph.output.append(helper.make_tensor_value_info(result, TensorProto.FLOAT, None))
