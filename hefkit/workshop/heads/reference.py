"""Find the predictions of all anchors inside a graph: the reference that a cut is proven against.

Exports end in different ways: raw predictions, a top-k or an NMS. Above such a tail there is one tensor with
boxes and scores of every anchor, or a pair of tensors, and all forms of it are recognised by shape and by
what they are computed from.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from hefkit.errors import ModelError
from hefkit.workshop.heads.tail import Head, run_tail
from hefkit.workshop.network.file import OnnxFile
from hefkit.workshop.network.graph import Graph

# what chooses among anchors: below these there are detections, no predictions of all anchors
SELECTING = frozenset({"TopK", "NonMaxSuppression", "ReduceMax", "ArgMax", "NonZero", "GatherElements", "GatherND"})
COMPUTABLE = frozenset({"", "ai.onnx", "com.microsoft"})  # a plugin of some other runtime, TensorRT's NMS say, is not
AT_ONCE = 8  # tensors fetched in one run: their shapes are wanted, not all their values at the same time


def find_raw(
    file: OnnxFile, graph: Graph, pairs: Sequence[tuple[Head, Head]], everyone: Sequence[str]
) -> tuple[str, ...]:
    """Name of the tensor (1, 4 + classes, N) or (1, N, 4 + classes), or of the pair boxes, scores.

    The last such tensor before a top-k or NMS counts: whatever the graph does to boxes and scores is in it.
    A column of objectness (YOLOv6: ones) may stand between boxes and scores.

    Args:
        pairs: (box, cls) of every scale; predictions must depend on all of them and on no other head.
        everyone: tensors of all head Convs of the graph.

    Raises:
        ModelError: there is none.
    """
    heads = [head for pair in pairs for head in pair]
    bit = {name: 1 << i for i, name in enumerate(dict.fromkeys([*(h.tensor_name for h in heads), *everyone]))}
    boxes = sum(bit[box.tensor_name] for box, _ in pairs)
    classes = sum(bit[cls.tensor_name] for _, cls in pairs)
    masks = graph.spread(bit, lambda i, mask: 0 if _selects(graph.nodes[i]) else graph.by_value(i, mask))
    squashed = _behind_sigmoid(graph, masks)

    anchors = sum(box.shape[0] * box.shape[1] for box, _ in pairs)
    num_classes = pairs[0][1].shape[2]
    finder = _Finder(graph, heads, anchors)
    # LeYOLO concatenates box and class channels first and splits them later: then each depends on both
    chosen = _behind_choice(graph, masks)
    own = {t: m for t, m in masks.items() if m and not m & ~(boxes | classes) and t not in chosen}
    scored = {t for t in own if squashed.get(t, 0) & classes == classes}
    combined = finder.last([t for t in scored if own[t] & boxes == boxes], (4 + num_classes, 5 + num_classes))
    if combined:
        return (combined,)
    box_tensor = finder.last([t for t, m in own.items() if m & boxes == boxes and not squashed.get(t)], (4,))
    score_tensor = finder.last(list(scored), (num_classes,))
    if box_tensor and score_tensor:
        return (box_tensor, score_tensor)
    unused = [graph.nodes[graph.producer[t]].name for t in everyone if t not in finder.feeds]
    left_out = f" (these end Convs were left out: {', '.join(unused)})" if unused else ""
    raise ModelError(
        f"{file.path} has heads for {num_classes} classes, but below them no tensor with the boxes and scores of all "
        f"{anchors} anchors{left_out}, so that a cut cannot be proven; expected a whole detector; export it again"
    )


def _selects(node: onnx.NodeProto) -> bool:
    """Whether what comes out is no longer about all anchors, or cannot be computed here."""
    return node.op_type in SELECTING or is_foreign(node)


def is_foreign(node: onnx.NodeProto) -> bool:
    """Whether a node is a plugin, of TensorRT say, that onnxruntime cannot compute."""
    return node.domain not in COMPUTABLE


def _behind_choice(graph: Graph, masks: dict[str, int]) -> dict[str, int]:
    """Tensors with something in them that was chosen among classes or anchors: a best score, a class number."""

    def rule(index: int, mask: int) -> int:
        chooses = _selects(graph.nodes[index]) and any(masks.get(name) for name in graph.inputs[index])
        return graph.by_value(index, 1 if chooses else mask)

    return graph.spread({}, rule)


def _behind_sigmoid(graph: Graph, masks: dict[str, int]) -> dict[str, int]:
    """Tensor -> the heads whose values came through a Sigmoid on their way to it."""

    def rule(index: int, mask: int) -> int:
        node = graph.nodes[index]
        entering = masks.get(node.input[0], 0) if node.op_type == "Sigmoid" else 0
        return graph.by_value(index, mask | entering)

    return graph.spread({}, rule)


class _Finder:
    """Measures tensors below the heads by running the tail on zeros."""

    def __init__(self, graph: Graph, heads: Sequence[Head], anchors: int) -> None:
        self.graph = graph
        self.feeds = {h.tensor_name: np.zeros(h.nchw, h.dtype) for h in heads}
        self.anchors = anchors

    def last(self, candidates: Sequence[str], channels: Sequence[int]) -> str | None:
        """The lowest candidate of shape (1, channels, anchors) or (1, anchors, channels)."""
        wanted = {shape for c in channels for shape in ((1, c, self.anchors), (1, self.anchors, c))}
        below = [t for t in candidates if t not in self.feeds]
        order = sorted(below, key=self.graph.producer.__getitem__, reverse=True)
        for start in range(0, len(order), AT_ONCE):
            some = order[start : start + AT_ONCE]
            values = run_tail(self.graph.model, self.feeds, some)
            for name in some:
                if values[name].shape in wanted:
                    return name
        return None
