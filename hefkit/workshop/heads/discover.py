"""Find the raw YOLO heads of an ONNX by the structure of its graph, never by the names in it.

A head Conv is one with no Conv below it on the way to the outputs; the DFL projection (1x1, fixed weights
0..reg_max-1, behind a Softmax) does not count. Grouped by spatial size they make pairs of a box and a class
Conv. Which is which is not guessed from channel counts (64 classes beside reg_max 16 are equal): the values of
a class Conv enter a Sigmoid, those of a DFL box Conv a Softmax, those of a direct-distance box Conv neither.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from hefkit.errors import ModelError
from hefkit.spec import HeadSpec, OutputSpec
from hefkit.workshop.heads import refusal as notheads
from hefkit.workshop.heads.reference import find_raw, is_foreign
from hefkit.workshop.heads.tail import Fate, Head, dye, role_of
from hefkit.workshop.network.cut import tensor_types
from hefkit.workshop.network.file import OnnxFile
from hefkit.workshop.network.graph import SHAPE_ONLY, Graph, attribute

MAX_HEADS = 64  # more Convs without a Conv below them than any detector has
SIDES = "height and width must be multiples of the largest stride, 32 or for some models 64; choose others"
LAYOUT_OPS = ("Reshape", "Transpose", "Identity", "Cast", "Squeeze", "Unsqueeze")


@dataclass(frozen=True)
class HeadConv:
    """One end node of the network."""

    role: str  # "box" | "cls"
    stride: int
    shape: tuple[int, int, int]  # (H, W, C)
    node_name: str
    tensor_name: str
    dtype: str = "float32"  # or "float16"; mixed precision may mix them


@dataclass(frozen=True)
class HeadLayout:
    """What `discover` found."""

    family: str  # "dfl": 4 * reg_max channels of bin logits; "ltrb": 4 distances
    num_classes: int
    reg_max: int  # 1 for "ltrb"
    strides: tuple[int, ...]  # ascending
    nms_free: bool
    convs: tuple[HeadConv, ...]  # box, cls, box, cls ... by ascending stride
    raw: tuple[str, ...]  # the tensor (or the two, boxes and scores) with the predictions of all anchors
    half: bool  # something between picture and predictions computes in float16

    @property
    def tensors(self) -> tuple[str, ...]:
        """Tensors to cut at, in contract order."""
        return tuple(conv.tensor_name for conv in self.convs)

    @property
    def end_nodes(self) -> tuple[str, ...]:
        """Names of the end nodes, in contract order."""
        return tuple(conv.node_name for conv in self.convs)

    def to_head_spec(self) -> HeadSpec:
        """The spec of the cut network's own outputs: float32 logits."""
        outputs = tuple(
            OutputSpec(role=c.role, stride=c.stride, shape=c.shape, onnx_node=c.node_name, dtype="float32")
            for c in self.convs
        )
        return HeadSpec(self.family, self.num_classes, self.reg_max, self.strides, self.nms_free, outputs)


def discover(file: OnnxFile, end_nodes: Sequence[str] | None = None) -> HeadLayout:
    """Find box and class Convs, strides, family and class count.

    Args:
        file: a checked ONNX.
        end_nodes: names of the head Convs in any order, where the search finds too many or none.

    Raises:
        ModelError: not a detector that hefkit decodes; the message says what was seen.
    """
    graph = Graph(file.model)
    notheads.refuse_quantised(file, graph)
    found = head_convs(graph)
    chosen = _named(graph, found, end_nodes) if end_nodes is not None else found
    if len(chosen) > MAX_HEADS:
        raise ModelError(f"{file.path} ends in {len(chosen)} Convs; expected a few pairs of box and class Convs")
    heads = _measure(file, graph, chosen)
    fates = dye(graph, heads)
    pairs = _pairs(heads, fates)
    if pairs is None and end_nodes is not None:
        raise notheads.unpaired(heads, fates)
    if pairs is None:
        raise notheads.refusal(file, graph, heads, fates)
    reg_max = _reg_max(file, pairs, dict(zip(heads, fates, strict=True)))
    strides = [_stride(file, box.shape) for box, _ in pairs]
    convs = tuple(
        HeadConv(role, stride, head.shape, head.node_name, head.tensor_name, head.dtype.name)
        for stride, pair in zip(strides, pairs, strict=True)
        for role, head in zip(("box", "cls"), pair, strict=True)
    )
    return HeadLayout(
        family="dfl" if reg_max > 1 else "ltrb",
        num_classes=pairs[0][1].shape[2],
        reg_max=reg_max,
        strides=tuple(strides),
        nms_free=is_nms_free(graph, [c.tensor_name for c in convs]),
        convs=convs,
        raw=find_raw(file, graph, pairs, [graph.nodes[i].output[0] for i in found]),
        half=_computes_in_half(graph),
    )


def head_convs(graph: Graph) -> list[int]:
    """Nodes: Convs that reach an output and have no Conv below them, the DFL projection not counted."""
    projections = {i for i in graph.alive if _is_dfl_projection(graph, i)}
    kinds = ("Conv", "ConvTranspose")
    convs = {i for i in graph.alive if graph.nodes[i].op_type in kinds and i not in projections}
    blocked: set[str] = set()  # tensors with a Conv below
    heads = []
    for index in reversed(graph.alive):
        covered = any(out in blocked for out in graph.nodes[index].output)
        if index in convs and not covered:
            heads.append(index)
        if (covered or index in convs) and graph.by_value(index, 1):
            blocked.update(graph.inputs[index])
    return heads[::-1]


def _is_dfl_projection(graph: Graph, index: int) -> bool:
    """A 1x1 Conv to one channel, behind a Softmax and whatever only rearranges."""
    node = graph.nodes[index]
    if node.op_type != "Conv":
        return False
    name = node.input[0]
    while name in graph.producer and graph.nodes[graph.producer[name]].op_type in LAYOUT_OPS:
        name = graph.nodes[graph.producer[name]].input[0]
    if name not in graph.producer or graph.nodes[graph.producer[name]].op_type != "Softmax":
        return False
    weight = graph.constant(node.input[1])
    if weight is None or weight.shape != (1, weight.size, 1, 1):
        return False
    if not np.array_equal(weight.ravel(), np.arange(weight.size)):
        raise ModelError(
            f"the DFL projection {node.name!r} has weights other than 0..{weight.size - 1}; "
            "expected the fixed weights of YOLO; this head is not supported"
        )
    return True


def _measure(file: OnnxFile, graph: Graph, indices: Sequence[int]) -> list[Head]:
    """Shapes and dtypes of head Convs."""
    names = [graph.nodes[i].output[0] for i in indices]
    if not names:
        return []
    try:
        types = tensor_types(graph.model, names)
    except ModelError as exc:
        raise ModelError(
            f"{file.path} cannot compute an image of {file.size[0]}x{file.size[1]}: {exc}; {SIDES}"
        ) from exc
    heads = []
    for index, name in zip(indices, names, strict=True):
        dtype, shape = types[name]
        if len(shape) != 4:  # a 1-d Conv of some audio branch is no head
            continue
        _, channels, height, width = shape
        if not (0 < height <= file.size[0] and 0 < width <= file.size[1]):
            raise ModelError(
                f"{file.path} ends in a Conv of {height}x{width} for an image of {file.size[0]}x{file.size[1]}; "
                "expected the coarser grids of a detector; this model is not supported"
            )
        size = (height, width, channels)
        heads.append(Head(graph.nodes[index].name, name, size, helper.tensor_dtype_to_np_dtype(dtype)))
    return heads


def _pairs(heads: Sequence[Head], fates: Sequence[Fate]) -> list[tuple[Head, Head]] | None:
    """(box, cls) of every scale, the finest first; None where the heads are anything else."""
    scales: dict[tuple[int, int], dict[str, Head]] = {}
    for head, fate in zip(heads, fates, strict=True):
        role = role_of(head, fate)
        scale = scales.setdefault(head.shape[:2], {})
        if role is None or role in scale:
            return None
        scale[role] = head
    if not scales or any(set(scale) != {"box", "cls"} for scale in scales.values()):
        return None
    pairs = [(scales[size]["box"], scales[size]["cls"]) for size in sorted(scales, reverse=True)]
    # one kind of head on every scale
    return pairs if len({(box.shape[2], cls.shape[2]) for box, cls in pairs}) == 1 else None


def _reg_max(file: OnnxFile, pairs: Sequence[tuple[Head, Head]], fates: dict[Head, Fate]) -> int:
    lengths = {fates[box].bins or 1 for box, _ in pairs}
    if len(lengths) != 1:
        raise ModelError(f"{file.path} mixes box heads with and without DFL; expected one kind; this is not supported")
    return lengths.pop()


def _stride(file: OnnxFile, shape: tuple[int, int, int]) -> int:
    """Input size / head size, which must be whole and equal in both directions."""
    (height, width), (rows, columns) = file.size, shape[:2]
    if height % rows or width % columns or height // rows != width // columns:
        raise ModelError(
            f"{file.path} turns {height}x{width} into a head of {rows}x{columns}; expected both sides divided by one "
            f"stride; {SIDES}"
        )
    return height // rows


def _computes_in_half(graph: Graph) -> bool:
    """Does anything read a float16 weight, or cast to float16?"""
    half = {name for name, t in graph.initializer.items() if t.data_type == TensorProto.FLOAT16}
    nodes = [graph.nodes[index] for index in graph.alive]
    return any(
        half.intersection(n.input) or (n.op_type == "Cast" and attribute(n, "to", 0) == TensorProto.FLOAT16)
        for n in nodes
    )


def _named(graph: Graph, found: Sequence[int], names: Sequence[str]) -> list[int]:
    """The nodes that --end-nodes names; each must be a head Conv."""
    index_of = {node.name: i for i, node in enumerate(graph.nodes)}
    chosen = []
    for name in names:
        if name not in index_of:
            raise ModelError(f"--end-nodes: {_unknown(graph, name)}")
        index = index_of[name]
        if index in chosen:
            raise ModelError(f"--end-nodes names {name!r} twice; expected every head Conv once")
        if graph.nodes[index].op_type != "Conv":
            raise ModelError(f"--end-nodes: {name!r} is a {graph.nodes[index].op_type}; expected the name of a Conv")
        if index not in found:
            known = ", ".join(graph.nodes[i].name for i in found)
            raise ModelError(
                f"--end-nodes: {name!r} is no head, another Conv or no output lies below it; expected some of: {known}"
            )
        chosen.append(index)
    return chosen


def _unknown(graph: Graph, name: str) -> str:
    """No node of that name: was it a tensor, or a misspelling?"""
    if name in graph.producer:
        node = graph.nodes[graph.producer[name]]
        return f"{name!r} is a tensor; expected the node that makes it: {node.name!r}"
    convs = [n.name for n in graph.nodes if n.op_type == "Conv"]
    near = difflib.get_close_matches(name, convs, n=3)
    hint = f"did you mean {', '.join(near)}" if near else "see the names in Netron"
    return f"the model has no node {name!r}; expected the name of a Conv; {hint}"


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
