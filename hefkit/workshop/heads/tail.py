"""The tail of a detector: the part of the graph below its head Convs. Run it, and find where each head's values arrive.

`trace_heads` finds the role of a head without reading the decode arithmetic. It fills every head tensor with its own
number (-1, -2, ...), runs the tail, and counts that number at the input of every Sigmoid and Softmax. Operators that
only move values (Reshape, Transpose, Concat, Split, Slice, Gather, Cast) do not change the number.

Example: a head of 64 channels and 80x80 cells is filled with -1. If 409,600 values -1 enter a Softmax over 16 values
and none enters a Sigmoid, it is a box Conv with reg_max 16.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx

from hefkit.workshop.network.cut import extract, zero_feed
from hefkit.workshop.network.graph import SHAPE_ONLY, Graph, attribute
from hefkit.workshop.network.operators import is_foreign, opset
from hefkit.workshop.network.session import open_session, run_session

Role = Literal["box", "cls"] | None
# their first input has the values; their other inputs only choose among these
GATHERING = frozenset({"Gather", "GatherElements", "GatherND", "Slice", "TopK"})


@dataclass(frozen=True)
class Head:
    """One Conv with no other Conv below it."""

    node_name: str
    tensor_name: str
    shape: tuple[int, int, int]  # (H, W, C)
    dtype: np.dtype

    @property
    def nchw(self) -> tuple[int, int, int, int]:
        """The shape that the graph itself uses."""
        height, width, channels = self.shape
        return (1, channels, height, width)


@dataclass
class Destinations:
    """Where the values of one head Conv arrive unchanged."""

    sigmoid: int = 0  # how many of its values enter a Sigmoid
    softmax: int = 0  # how many of its values enter a Softmax
    bins: int = 0  # length of the axis of that Softmax


def run_tail(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray], fetch: Sequence[str]) -> dict[str, np.ndarray]:
    """Compute tensors from given head tensors (1, C, H, W); other inputs of the tail come from a black image."""
    wanted = [name for name in dict.fromkeys(fetch) if name not in feeds]
    found = {name: feeds[name] for name in fetch if name in feeds}
    if wanted:
        piece = extract(model, wanted, feeds)
        given = zero_feed(piece) | {v.name: feeds[v.name] for v in piece.graph.input if v.name in feeds}
        found |= dict(zip(wanted, run_session(open_session(piece), wanted, given), strict=True))
    return found


def trace_heads(graph: Graph, heads: Sequence[Head]) -> list[Destinations]:
    """Trace every head Conv to the Sigmoids and Softmaxes below it; one result a head, in the same order."""
    gates = [n for n in graph.below([head.tensor_name for head in heads], graph.by_value) if _is_gate(n, graph)]
    destinations = [Destinations() for _ in heads]
    if not gates:
        return destinations
    # negative, so that a ReLU or a clip changes it; small, so that float16 holds it exactly
    feeds = {h.tensor_name: np.full(h.nchw, -(i + 1), h.dtype) for i, h in enumerate(heads)}
    arrived = run_tail(graph.model, feeds, [node.input[0] for node in gates])
    version = opset(graph.model)
    for node in gates:
        values = arrived[node.input[0]]
        for i, found in enumerate(destinations):
            count = int((values == -(i + 1)).sum())
            if count and node.op_type == "Sigmoid":
                found.sigmoid += count
            elif count:
                found.softmax += count
                found.bins = _softmax_length(node, values.shape, version)
    return destinations


def _is_gate(node: onnx.NodeProto, graph: Graph) -> bool:
    """A Softmax, or a Sigmoid that is not half of a SiLU, x * sigmoid(x)."""
    if node.op_type == "Sigmoid":
        return not any({node.input[0], node.output[0]} <= set(reader.input) for reader in graph.readers(node.output[0]))
    return node.op_type == "Softmax"


def role_of(head: Head, found: Destinations) -> Role:
    """The role of a head Conv, "box" or "cls"; None if it is neither."""
    size = int(np.prod(head.shape))
    # all of its values, once or several times
    if found.sigmoid and found.sigmoid % size == 0 and not found.softmax:
        return "cls"
    if found.sigmoid:
        return None
    if found.softmax and found.softmax % size == 0 and head.shape[2] == 4 * found.bins:
        return "box"
    return "box" if head.shape[2] == 4 and not found.softmax else None


def _softmax_length(node: onnx.NodeProto, shape: tuple[int, ...], version: int) -> int:
    """How many values a Softmax normalises together: one axis, before opset 13 all axes from that one on."""
    axis = attribute(node, "axis", -1 if version >= 13 else 1) % len(shape)
    return shape[axis] if version >= 13 else int(np.prod(shape[axis:]))


def is_nms_free(graph: Graph, tensors: Sequence[str]) -> bool:
    """Whether the detector needs no NMS: its tail ends in a top-k that gives class numbers, and has no NMS.

    A top-k may also choose candidates for an NMS in a plugin or in the application. Then the scores of all classes
    leave the graph and no class number does. A class number is computed from the indices of a TopK or an ArgMax.

    Args:
        tensors: the head tensors.
    """
    below = graph.below(tensors, graph.by_value)
    if not any(node.op_type == "TopK" for node in below) or any(_is_nms(node) for node in below):
        return False
    numbers = {node.output[1] for node in below if node.op_type == "TopK"}
    numbers |= {node.output[0] for node in below if node.op_type == "ArgMax"}
    for index in graph.alive:
        node = graph.nodes[index]
        taken = node.input[:1] if node.op_type in GATHERING else graph.inputs[index]
        if node.op_type not in SHAPE_ONLY and any(name in numbers for name in taken):
            numbers.update(node.output)
    return any(name in numbers for name in graph.output_names)


def _is_nms(node: onnx.NodeProto) -> bool:
    """ONNX's NMS, that of a plugin (EfficientNMS_TRT, BatchedNMSDynamic_TRT ...), or an unknown operator."""
    name = node.op_type.lower()
    return "nms" in name or "nonmaxsuppression" in name or is_foreign(node)
