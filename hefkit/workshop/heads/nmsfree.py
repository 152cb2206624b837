"""Was a detector trained one-to-one, so that nothing need suppress its boxes? Read off the tail of its graph."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from hefkit.workshop.heads.reference import is_foreign
from hefkit.workshop.network.graph import SHAPE_ONLY, Graph

# only what these take values from counts, not the indices that they take them by
GATHERING = frozenset({"Gather", "GatherElements", "GatherND", "Slice", "TopK"})


def is_nms_free(graph: Graph, tensors: Sequence[str]) -> bool:
    """A top-k tail that ends in detections, without any NMS, was trained one-to-one; anything else needs NMS.

    A top-k alone may just pick candidates for an NMS elsewhere, in a plugin or in the application: then the scores of
    all classes leave the graph, and no class number. A class number is what the indices of a TopK or an ArgMax become.

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
    """ONNX's own, one of a plugin (EfficientNMS_TRT, BatchedNMSDynamic_TRT ...), or something unknown."""
    name = node.op_type.lower()
    return "nms" in name or "nonmaxsuppression" in name or is_foreign(node)
