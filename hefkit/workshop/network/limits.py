"""Bounds of an ONNX, checked before anything is computed: a small file can claim gigabytes, and hours of work."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from hefkit.errors import ModelError
from hefkit.text import one_line
from hefkit.workshop.network.cut import extract, image_inputs, shape_of
from hefkit.workshop.network.graph import Graph

MAX_NODES = 20_000  # the largest YOLOs have 2,000, unsimplified ones 5,000
MAX_SIDE = 8192  # pixels
MAX_PIXELS = 1 << 23  # of the input; 2896 x 2896
MAX_CONSTANT_BYTES = 256 << 20  # of a tensor that does not depend on the picture
MAX_TENSOR_BYTES = 1 << 30  # of a tensor that does
NO_MODEL = "expected an exported YOLO; export it again"


def check_nodes(path: Path, model: onnx.ModelProto) -> None:
    """Refuse too many nodes, counted with every function in place of its calls.

    Raises:
        ModelError: more than MAX_NODES, or a function that calls itself.
    """
    functions = {(f.domain, f.name): f for f in model.functions}
    sizes: dict[tuple[str, str], int] = {}

    def size(nodes: Iterable[onnx.NodeProto], callers: tuple[tuple[str, str], ...]) -> int:
        total = 0
        for node in _all_nodes(nodes):
            key = (node.domain, str(node.op_type))
            if key in callers or len(callers) > 100:
                raise ModelError(f"{path} has a function that calls itself, {one_line(key[1], 60)!r}; {NO_MODEL}")
            if key in functions and key not in sizes:
                sizes[key] = size(functions[key].node, (*callers, key))
            total += sizes.get(key, 1)
            if total > MAX_NODES:
                raise ModelError(f"{path} has more than {MAX_NODES} nodes; {NO_MODEL}")
        return total

    size(model.graph.node, ())


def _all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Nodes, with those of the bodies of If, Loop and Scan."""
    todo = list(nodes)
    while todo:
        node = todo.pop()
        yield node
        for attribute in node.attribute:
            todo += attribute.g.node
            for body in attribute.graphs:
                todo += body.node


def check_types(path: Path, model: onnx.ModelProto) -> None:
    """Refuse numbers that are not ONNX element types, and shapes that no tensor has."""
    known = set(TensorProto.DataType.values())
    inputs = [(v.name, v.type.tensor_type.elem_type, [d.dim_value for d in v.type.tensor_type.shape.dim]) for v in
              (*model.graph.input, *model.graph.output)]  # fmt: skip
    constants = [a.t for node in model.graph.node for a in node.attribute if a.type == onnx.AttributeProto.TENSOR]
    weights = [(t.name, t.data_type, list(t.dims)) for t in (*model.graph.initializer, *constants)]
    for name, kind, dims in (*inputs, *weights):
        if kind not in known:
            raise ModelError(f"{path}: the tensor {one_line(name, 60)!r} has the unknown type {kind}; {NO_MODEL}")
        if any(not -1 <= dim < 1 << 31 for dim in dims):
            raise ModelError(f"{path}: the tensor {one_line(name, 60)!r} claims the shape {dims[:8]}; {NO_MODEL}")


def check_size(path: Path, size: tuple[int, int]) -> None:
    """Refuse (exit 4) an image input that no YOLO has; (H, W) in pixels."""
    if max(size) > MAX_SIDE or size[0] * size[1] > MAX_PIXELS:
        raise ModelError(
            f"{path} takes an image of {size[0]} x {size[1]} (height x width); expected at most {MAX_SIDE} a side and "
            f"{MAX_PIXELS / 1e6:.1f} million pixels; export again with a smaller imgsz"
        )


def check_work(path: Path, model: onnx.ModelProto) -> None:
    """Refuse a fixed-size model that would compute huge tensors, or that has a loop above a convolution.

    Sizes come from ONNX's shape inference, which computes no large tensor. A tensor of unknown size is not refused.

    Raises:
        ModelError: a tensor above the bounds, or a subgraph above a head.
    """
    graph = Graph(model)
    convs = [index for index in graph.alive if graph.nodes[index].op_type == "Conv"]
    for index in sorted(graph.above(name for conv in convs for name in graph.inputs[conv])):
        node = graph.nodes[index]
        if any(a.HasField("g") or a.graphs for a in node.attribute):
            raise ModelError(
                f"{path} has a {one_line(node.op_type, 20)} ({one_line(node.name, 60)!r}) with a graph inside, "
                f"above its detection heads; the chip has no such operator; {NO_MODEL}"
            )
    outputs = list(dict.fromkeys(name for index in graph.alive for name in graph.nodes[index].output if name))
    if not outputs:
        return
    skeleton = extract(model, outputs, weights=False)
    del skeleton.graph.output[:]
    try:
        inferred = onnx.shape_inference.infer_shapes(skeleton, data_prop=True).graph.value_info
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        return  # onnxruntime refuses the model
    dynamic = graph.propagate({v.name: 1 for v in image_inputs(model)})
    for value in inferred:
        limit = MAX_TENSOR_BYTES if value.name in dynamic else MAX_CONSTANT_BYTES
        if _bytes(value) > limit:
            raise ModelError(
                f"{path} computes the tensor {one_line(value.name, 60)!r} of shape {list(shape_of(value))}, more than "
                f"{limit >> 20} MiB; {NO_MODEL}"
            )


def _bytes(value: onnx.ValueInfoProto) -> int:
    kind = value.type.tensor_type.elem_type
    try:
        width = helper.tensor_dtype_to_np_dtype(kind).itemsize
    except (KeyError, TypeError):  # text, or not known
        width = 4
    return math.prod(max(side, 1) for side in shape_of(value)) * width
