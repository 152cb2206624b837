"""What the graph does to the colours of its input before the first operator that mixes pixels.

YOLOs are exported for RGB pictures of 0 to 1, and hefkit, the calibration set and the chip's normalization make such
pictures. A graph that divides by 255 or reverses the channels itself takes other pictures. The check of the cut cannot
see that, because both networks get the same picture. So we compute the affine map of the graph's own preprocessing,

    channels of a tensor = matrix (channels, 3) x (red, green, blue) + offset (channels,)

over every operator that works on each pixel alone: Mul and Div, BatchNormalization, a 1x1 convolution, Gather, Slice,
Split, Concat and others. Example: a Gather by [2, 1, 0] gives the matrix [[0 0 1] [0 1 0] [1 0 0]].
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from hefkit.errors import ModelError
from hefkit.workshop.network.graph import SHAPE_ONLY, Graph
from hefkit.workshop.network.pixelops import RULES, TOLERANCE, Colours, Step

MIN_SCALE = 1 / 32  # 1/255 is far below it; 1/std of a picture of 0..1 is above 1
CURE = "expected RGB of 0 to 1, as YOLOs are exported; export again without preprocessing in the graph"
# a 1x1 convolution in front of one of these is a layer of the network, not preprocessing
ACTIVATIONS = frozenset(
    ("Relu", "LeakyRelu", "PRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Elu", "Gelu", "Softplus", "Mish")
) | {"Clip"}


def check_input_map(path: Path, model: onnx.ModelProto, image: str) -> str | None:
    """Refuse a network that takes other pictures than RGB of 0 to 1; returns a warning, or None.

    A network that shifts and scales pictures of 0 to 1 (mean and deviation) is accepted with a warning.

    Raises:
        ModelError: it scales by 1/255, reverses or mixes the colours, or inverts them.
    """
    normalises = None
    for found in _reached(Graph(model), image):
        if fault := _fault(found):
            what, takes = fault
            raise ModelError(f"{path} {what} itself ({found.node!r}), so it takes {takes}; {CURE}")
        if not _is_identity(found):
            normalises = found.node
    if normalises is None:
        return None
    return (
        f"the network shifts and scales its input itself ({normalises!r}); hefkit keeps that and gives the network "
        "pictures of 0 to 1"
    )


def _fault(found: Colours) -> tuple[str, str] | None:
    """(what the graph does, what pictures it takes); None for a scale and an offset of each colour."""
    strong = np.abs(found.matrix) > TOLERANCE * np.abs(found.matrix).max(initial=0)
    if (strong.sum(axis=1) != 1).any():
        return "mixes the colours of its input", "no RGB pictures"
    order, gains = strong.argmax(axis=1), found.matrix[strong]
    reversed_ = len(order) == 3 and order.tolist() != [0, 1, 2]
    small = np.abs(gains).max() < MIN_SCALE
    if (gains < 0).any():
        return "inverts its input", "negatives"
    colours = "reverses the colours" if order.tolist() == [2, 1, 0] else "changes the order of the colours"
    kind = "BGR pictures" if order.tolist() == [2, 1, 0] else "pictures of other colours"
    if small:
        by = f"scales its input by 1/{1 / np.abs(gains).max():.0f}"
        return (f"{colours} and {by}", f"{kind} of 0 to 255") if reversed_ else (by, "pictures of 0 to 255")
    return (f"{colours} of its input", kind) if reversed_ else None


def _is_identity(found: Colours) -> bool:
    return bool(
        np.allclose(found.matrix.max(axis=1, initial=0), 1, atol=TOLERANCE)
        and np.allclose(found.offset, 0, atol=TOLERANCE)
    )


def _reached(graph: Graph, image: str) -> list[Colours]:
    """The map at each tensor that is read by an operator outside the preprocessing."""
    known = {image: Colours(np.eye(3), np.zeros(3))}
    reached = []
    for index in graph.alive:
        node = graph.nodes[index]
        read = [name for name in node.input if name in known]
        if not read or node.op_type in SHAPE_ONLY:
            continue
        rule = RULES.get(node.op_type)
        results = rule(Step(graph, node, known)) if rule else None
        if results is not None and all(len(result.offset) for result in results):
            known.update(zip(node.output, results, strict=False))
            continue
        activated = node.op_type in ACTIVATIONS or (node.op_type == "Mul" and len(read) > 1)
        reached += [(known[name].before if activated else None) or known[name] for name in read]
    return reached
