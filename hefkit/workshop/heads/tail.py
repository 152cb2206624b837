"""The lower half of a detector: what happens to the head tensors below their Convs.

`dye` is how roles are found without reading the decode arithmetic: every head tensor is filled with a
number of its own, then the graph is asked in which Sigmoid and which Softmax that number arrives. Whatever
only moves values (Reshape, Transpose, Concat, Split, Slice, Gather, Cast ... of any opset) lets dye through.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from hefkit.workshop.network.cut import extract, zero_feed
from hefkit.workshop.network.graph import Graph, attribute
from hefkit.workshop.network.session import open_session, run_session


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
class Fate:
    """Where the values of one head Conv arrive unchanged."""

    sigmoid: int = 0  # how many of its values enter a Sigmoid
    softmax: int = 0  # how many of its values enter a Softmax
    bins: int = 0  # length of the axis of that Softmax


def run_tail(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray], fetch: Sequence[str]) -> dict[str, np.ndarray]:
    """Compute tensors from given head tensors (1, C, H, W); what else the graph needs comes from a black image."""
    wanted = [name for name in dict.fromkeys(fetch) if name not in feeds]
    found = {name: feeds[name] for name in fetch if name in feeds}
    if wanted:
        piece = extract(model, wanted, feeds)
        given = zero_feed(piece) | {v.name: feeds[v.name] for v in piece.graph.input if v.name in feeds}
        found |= dict(zip(wanted, run_session(open_session(piece), wanted, given), strict=True))
    return found


def dye(graph: Graph, heads: Sequence[Head]) -> list[Fate]:
    """Trace every head Conv to the Sigmoids and Softmaxes below it; one Fate a head."""
    gates = [n for n in graph.below([head.tensor_name for head in heads], graph.by_value) if _is_gate(n, graph)]
    fates = [Fate() for _ in heads]
    if not gates:
        return fates
    # negative, so that a ReLU or a clip does not let it through; small, so that float16 holds it exactly
    feeds = {h.tensor_name: np.full(h.nchw, -(i + 1), h.dtype) for i, h in enumerate(heads)}
    arrived = run_tail(graph.model, feeds, [node.input[0] for node in gates])
    opset = next(o.version for o in graph.model.opset_import if o.domain in ("", "ai.onnx"))
    for node in gates:
        values = arrived[node.input[0]]
        for i, fate in enumerate(fates):
            count = int((values == -(i + 1)).sum())
            if count and node.op_type == "Sigmoid":
                fate.sigmoid += count
            elif count:
                fate.softmax += count
                fate.bins = _softmax_length(node, values.shape, opset)
    return fates


def _is_gate(node: onnx.NodeProto, graph: Graph) -> bool:
    """A Softmax, or a Sigmoid that is not half of a SiLU, x * sigmoid(x)."""
    if node.op_type == "Sigmoid":
        return not any({node.input[0], node.output[0]} <= set(reader.input) for reader in graph.readers(node.output[0]))
    return node.op_type == "Softmax"


def role_of(head: Head, fate: Fate) -> str | None:
    """'cls', 'box' or None: a Conv that is neither."""
    size = int(np.prod(head.shape))
    # all of its values, though perhaps more than once
    if fate.sigmoid and fate.sigmoid % size == 0 and not fate.softmax:
        return "cls"
    if fate.sigmoid:
        return None
    if fate.softmax and fate.softmax % size == 0 and head.shape[2] == 4 * fate.bins:
        return "box"
    return "box" if head.shape[2] == 4 and not fate.softmax else None


def _softmax_length(node: onnx.NodeProto, shape: tuple[int, ...], opset: int) -> int:
    """Entries that are normalised together: one axis, or before opset 13 everything from that axis on."""
    axis = attribute(node, "axis", -1 if opset >= 13 else 1) % len(shape)
    return shape[axis] if opset >= 13 else int(np.prod(shape[axis:]))
