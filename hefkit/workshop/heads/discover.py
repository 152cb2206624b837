"""Find the YOLO heads of an ONNX by the structure of its graph, never by names.

A head Conv has no other Conv between it and the outputs; the DFL projection (1x1, fixed weights 0..reg_max-1, behind a
Softmax) does not count. Head Convs of the same height and width are a pair: one for boxes, one for classes. Channel
counts do not show which is which (64 classes and reg_max 16 both give 64), so we follow the values. The values of a
class Conv enter a Sigmoid, those of a DFL box Conv enter a Softmax, those of a box Conv without DFL enter neither.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto, helper

from hefkit.errors import ModelError
from hefkit.spec import HeadSpec, OutputSpec
from hefkit.workshop.heads.reference import find_raw
from hefkit.workshop.heads.refusal import is_cut, refusal, refuse_quantised, unpaired
from hefkit.workshop.heads.tail import Destinations, Head, Role, is_nms_free, role_of, trace_heads
from hefkit.workshop.network.cut import tensor_types
from hefkit.workshop.network.file import OnnxFile
from hefkit.workshop.network.graph import Graph, attribute

MAX_HEADS = 64  # head Convs; more than any detector has
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
    raw: tuple[str, ...]  # the tensor, or the two (boxes, scores), with the predictions of all anchors
    half: bool  # some nodes compute in float16

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
        end_nodes: names of the head Convs in any order; the search then only checks them.

    Raises:
        ModelError: not a detector that hefkit decodes; the message says what the graph is.
    """
    graph = Graph(file.model)
    refuse_quantised(file, graph)
    found = _head_convs(graph)
    chosen = _named(graph, found, end_nodes) if end_nodes is not None else found
    if len(chosen) > MAX_HEADS:
        raise ModelError(f"{file.path} ends in {len(chosen)} Convs; expected a few pairs of box and class Convs")
    heads = _measure(file, graph, chosen)
    destinations = trace_heads(graph, heads)
    roles = [role_of(head, where) for head, where in zip(heads, destinations, strict=True)]
    pairs = _pairs(heads, roles)
    if pairs is None and end_nodes is not None and not is_cut(graph, heads):
        raise unpaired(heads, roles)
    if pairs is None:
        raise refusal(file, graph, heads, roles)
    reg_max = _reg_max(file, pairs, dict(zip(heads, destinations, strict=True)))
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


def _head_convs(graph: Graph) -> list[int]:
    """Indices of Convs that reach an output and have no Conv below them, except the DFL projection."""
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
    """A 1x1 Conv to one channel, behind a Softmax; operators between them may only rearrange values."""
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
        if len(shape) != 4:  # a 1-d Conv, of an audio branch for example
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


def _pairs(heads: Sequence[Head], roles: Sequence[Role]) -> list[tuple[Head, Head]] | None:
    """(box, cls) of every scale, the finest first; None if the heads do not pair up."""
    scales: dict[tuple[int, int], dict[str, Head]] = {}
    for head, role in zip(heads, roles, strict=True):
        scale = scales.setdefault(head.shape[:2], {})
        if role is None or role in scale:
            return None
        scale[role] = head
    if not scales or any(set(scale) != {"box", "cls"} for scale in scales.values()):
        return None
    pairs = [(scales[size]["box"], scales[size]["cls"]) for size in sorted(scales, reverse=True)]
    # all scales must have the same channels
    return pairs if len({(box.shape[2], cls.shape[2]) for box, cls in pairs}) == 1 else None


def _reg_max(file: OnnxFile, pairs: Sequence[tuple[Head, Head]], destinations: dict[Head, Destinations]) -> int:
    lengths = {destinations[box].bins or 1 for box, _ in pairs}
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
    """Whether a node reads a float16 weight or casts to float16."""
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
                f"--end-nodes: {name!r} is not a head Conv: another Conv or no output lies below it; "
                f"expected some of: {known}"
            )
        chosen.append(index)
    return chosen


def _unknown(graph: Graph, name: str) -> str:
    """The error text for a name that no node has: the name of a tensor, or a misspelling."""
    if name in graph.producer:
        node = graph.nodes[graph.producer[name]]
        return f"{name!r} is a tensor; expected the node that makes it: {node.name!r}"
    convs = [n.name for n in graph.nodes if n.op_type == "Conv"]
    near = difflib.get_close_matches(name, convs, n=3)
    hint = f"did you mean {', '.join(near)}" if near else "see the names in Netron"
    return f"the model has no node {name!r}; expected the name of a Conv; {hint}"
