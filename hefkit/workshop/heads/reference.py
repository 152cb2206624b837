"""Find the tensors with the predictions of all anchors: the reference that the cut network is compared with.

Exports end in raw predictions, a top-k or an NMS. Above a top-k or NMS there is one tensor with the boxes and scores of
every anchor, or a pair of tensors. They are recognised by their shape and by the heads that they are computed from.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from hefkit.errors import ModelError
from hefkit.workshop.heads.refusal import UNCUT
from hefkit.workshop.heads.tail import Head, run_tail
from hefkit.workshop.network.file import OnnxFile
from hefkit.workshop.network.graph import Graph
from hefkit.workshop.network.operators import is_foreign

# operators that choose among anchors: the tensors below them are detections, not predictions of all anchors
SELECTING = frozenset({"TopK", "NonMaxSuppression", "ReduceMax", "ArgMax", "NonZero", "GatherElements", "GatherND"})
MAX_FETCHED = 8  # tensors in one run, which bounds the memory for their values


def find_raw(
    file: OnnxFile, graph: Graph, pairs: Sequence[tuple[Head, Head]], all_heads: Sequence[str]
) -> tuple[str, ...]:
    """Name of the tensor (1, 4 + classes, N) or (1, N, 4 + classes), or of the pair boxes, scores.

    It is the last such tensor before a top-k or NMS, with all that the graph does to boxes and scores.
    A column of objectness (YOLOv6: ones) may be between boxes and scores.

    Args:
        pairs: (box, cls) of every scale; predictions must depend on all of them and on no other head.
        all_heads: tensors of all head Convs of the graph.

    Raises:
        ModelError: there is none.
    """
    heads = [head for pair in pairs for head in pair]
    bit = {name: 1 << i for i, name in enumerate(dict.fromkeys([*(h.tensor_name for h in heads), *all_heads]))}
    boxes = sum(bit[box.tensor_name] for box, _ in pairs)
    classes = sum(bit[cls.tensor_name] for _, cls in pairs)
    masks = graph.propagate(bit, lambda i, mask: 0 if _selects(graph.nodes[i]) else graph.by_value(i, mask))
    through_sigmoid = _behind_sigmoid(graph, masks)

    anchors = sum(box.shape[0] * box.shape[1] for box, _ in pairs)
    num_classes = pairs[0][1].shape[2]
    finder = _Finder(graph, heads, anchors)
    # LeYOLO concatenates box and class channels first and splits them later: then each depends on both
    chosen = _behind_choice(graph, masks)
    own = {t: m for t, m in masks.items() if m and not m & ~(boxes | classes) and t not in chosen}
    scored = {t for t in own if through_sigmoid.get(t, 0) & classes == classes}
    combined = finder.last([t for t in scored if own[t] & boxes == boxes], (4 + num_classes, 5 + num_classes))
    if combined:
        return (combined,)
    box_tensor = finder.last([t for t, m in own.items() if m & boxes == boxes and not through_sigmoid.get(t)], (4,))
    score_tensor = finder.last(list(scored), (num_classes,))
    if box_tensor and score_tensor:
        return (box_tensor, score_tensor)
    unused = [graph.nodes[graph.producer[t]].name for t in all_heads if t not in finder.feeds]
    left_out = f" (these end Convs were left out: {', '.join(unused)})" if unused else ""
    raise ModelError(
        f"{file.path} has heads for {num_classes} classes, but below them no tensor with the boxes and scores of all "
        f"{anchors} anchors{left_out}, so that a cut cannot be proven; expected a whole detector; {UNCUT}"
    )


def _selects(node: onnx.NodeProto) -> bool:
    """Whether the outputs are no longer predictions of all anchors, or onnxruntime cannot compute them."""
    return node.op_type in SELECTING or is_foreign(node)


def _behind_choice(graph: Graph, masks: dict[str, int]) -> dict[str, int]:
    """Tensors computed from a choice among classes or anchors: a best score, a class number."""

    def rule(index: int, mask: int) -> int:
        chooses = _selects(graph.nodes[index]) and any(masks.get(name) for name in graph.inputs[index])
        return graph.by_value(index, 1 if chooses else mask)

    return graph.propagate({}, rule)


def _behind_sigmoid(graph: Graph, masks: dict[str, int]) -> dict[str, int]:
    """Tensor -> bit mask of the heads whose values pass a Sigmoid on the way to it."""

    def rule(index: int, mask: int) -> int:
        node = graph.nodes[index]
        entering = masks.get(node.input[0], 0) if node.op_type == "Sigmoid" else 0
        return graph.by_value(index, mask | entering)

    return graph.propagate({}, rule)


class _Finder:
    """Finds tensors below the heads by their shape, by running the tail on zeros."""

    def __init__(self, graph: Graph, heads: Sequence[Head], anchors: int) -> None:
        self.graph = graph
        self.feeds = {h.tensor_name: np.zeros(h.nchw, h.dtype) for h in heads}
        self.anchors = anchors

    def last(self, candidates: Sequence[str], channels: Sequence[int]) -> str | None:
        """The lowest candidate of shape (1, channels, anchors) or (1, anchors, channels)."""
        wanted = {shape for c in channels for shape in ((1, c, self.anchors), (1, self.anchors, c))}
        below = [t for t in candidates if t not in self.feeds]
        order = sorted(below, key=self.graph.producer.__getitem__, reverse=True)
        for start in range(0, len(order), MAX_FETCHED):
            some = order[start : start + MAX_FETCHED]
            values = run_tail(self.graph.model, self.feeds, some)
            for name in some:
                if values[name].shape in wanted:
                    return name
        return None
