"""Refuse networks that bring their own division by 255: hefkit, the calibration and the chip would do it again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from hefkit.errors import ModelError
from hefkit.workshop.network.graph import Graph

PASSED = ("Identity", "Cast", "Transpose", "Clip", "Gather", "Concat", "Split", "Slice")
LEAST_SCALE = 1 / 32  # 1/255 is far below; 1/std of a picture of 0..1 is above 1


def refuse_preprocessing(path: Path, model: onnx.ModelProto, image: str) -> None:
    """Follow the picture to its first layer, and see by how much it is scaled on the way.

    Raises:
        ModelError: by so little that the network takes 0..255 and not the 0..1 of an exported YOLO.
    """
    graph = Graph(model)
    todo, seen = [(image, 1.0)], {image}
    while todo:
        tensor, scale = todo.pop()
        for node in graph.readers(tensor):
            factor = _factor(graph, node, tensor)
            if factor is None:
                continue
            if scale * factor < LEAST_SCALE:
                raise ModelError(
                    f"{path} scales its input by 1/{1 / (scale * factor):.0f} itself ({node.name!r}), so it takes "
                    "pictures of 0 to 255; expected 0 to 1, as YOLOs are exported; hefkit and the chip do that "
                    "scaling; export again without preprocessing in the graph"
                )
            todo += [(out, scale * factor) for out in node.output if out not in seen]
            seen.update(node.output)


def _factor(graph: Graph, node: onnx.NodeProto, tensor: str) -> float | None:
    """What a node multiplies the picture by; None for the first layer, where the walk ends."""
    if node.op_type in (*PASSED, "Add", "Sub"):
        return 1.0
    if node.op_type not in ("Mul", "Div") or (node.op_type == "Div" and node.input[0] != tensor):
        return None
    other = next((graph.constant(name) for name in node.input if name != tensor), None)
    if other is None or other.size not in (1, 3) or not np.all(np.isfinite(other) & (other != 0)):
        return None
    size = float(np.abs(other).max())
    return size if node.op_type == "Mul" else 1 / size
