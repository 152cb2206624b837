"""Cut a piece out of an ONNX graph: everything that chosen tensors are computed from, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from hefkit import __version__
from hefkit.errors import ModelError
from hefkit.workshop.network.graph import Graph
from hefkit.workshop.network.session import open_session, run_session

PRODUCER = "hefkit.cut"
SHAPE_LIKE = 1024  # elements; constants up to that size may be the shape of a Reshape or the sizes of a Resize


def cut(model: onnx.ModelProto, output_tensors: Sequence[str]) -> onnx.ModelProto:
    """The part of `model` above the given tensors, with these as its outputs, in this order.

    The inputs, the opset and the IR version stay; every output has its type and full shape. The result
    shares no data with `model`.

    Args:
        model: checked, its input of fixed size.
        output_tensors: names of tensors (not of nodes) of the main graph.

    Raises:
        ModelError: an empty, repeated or unknown name, or a network that onnxruntime cannot run.
    """
    types = tensor_types(model, output_tensors)
    piece = extract(model, output_tensors)
    outputs = [helper.make_tensor_value_info(name, *types[name]) for name in output_tensors]
    del piece.graph.output[:]
    piece.graph.output.extend(outputs)
    return piece


def tensor_types(model: onnx.ModelProto, tensors: Sequence[str]) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Tensor -> (ONNX element type, shape), by inference or, where a shape is computed, by running a black image."""
    skeleton = extract(model, tensors, weights=False)
    types = _inferred(skeleton)
    if types is None:
        arrays = run_session(open_session(extract(model, tensors)), tensors, zero_feed(model))
        types = [(helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for a in arrays]
    return dict(zip(tensors, types, strict=True))


def extract(
    model: onnx.ModelProto,
    output_tensors: Sequence[str],
    inputs: Mapping[str, np.ndarray] | None = None,
    *,
    weights: bool = True,
) -> onnx.ModelProto:
    """`cut` without output types; with `inputs`, the piece between those tensors and the outputs.

    Args:
        inputs: tensors that become inputs of the piece -> an array of their shape and dtype; inputs of the
            model stay inputs where the piece needs them.
        weights: False leaves large initializers out and declares them as inputs: enough to infer shapes.
    """
    _check_names(output_tensors)
    graph = Graph(model)
    inputs = inputs or {}
    known = {*graph.producer, *(v.name for v in model.graph.input)}
    unknown = [name for name in (*output_tensors, *inputs) if name not in known]
    if unknown:
        raise ModelError(f"the graph has no tensor {', '.join(map(repr, unknown))}; expected the output of a node")
    kept = sorted(graph.above(output_tensors, stop_at=inputs))
    needed = {name for index in kept for name in graph.inputs[index]} | set(output_tensors)
    piece = onnx.ModelProto(
        ir_version=model.ir_version,
        opset_import=model.opset_import,
        metadata_props=model.metadata_props,
        producer_name=PRODUCER,
        producer_version=__version__,
    )
    piece.graph.name = model.graph.name or "cut"
    piece.graph.node.extend(graph.nodes[index] for index in kept)
    # a piece that starts at the image keeps that input even if no node reads it
    images = set() if inputs else {v.name for v in image_inputs(model)}
    keep = (images | needed) - set(inputs)
    piece.graph.input.extend(v for v in model.graph.input if v.name in keep)
    piece.graph.input.extend(
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for name, a in inputs.items()
    )
    _take_weights(model, piece, needed, weights)
    # no type yet: onnx and onnxruntime infer it
    piece.graph.output.extend(onnx.ValueInfoProto(name=name) for name in output_tensors)
    return piece


def _take_weights(model: onnx.ModelProto, piece: onnx.ModelProto, needed: set[str], large: bool) -> None:
    """Copy the needed initializers; without `large` the big ones become inputs of their shape."""
    inputs = {v.name for v in piece.graph.input}  # up to IR 3 every initializer is listed there as well
    for tensor in model.graph.initializer:
        if tensor.name not in needed:
            continue
        if large or math.prod(tensor.dims) <= SHAPE_LIKE:
            piece.graph.initializer.append(tensor)
        elif tensor.name not in inputs:
            piece.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))


def image_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Inputs that are not weights: up to IR version 3 every initializer is listed as an input, too."""
    weights = {t.name for t in model.graph.initializer}
    return [v for v in model.graph.input if v.name not in weights]


def shape_of(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """The shape of a typed tensor; dynamic dimensions count as 0."""
    return tuple(d.dim_value for d in value.type.tensor_type.shape.dim)


def zero_feed(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """A black image for every input of a model with fixed shapes."""
    return {
        v.name: np.zeros(shape_of(v), helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type))
        for v in image_inputs(model)
    }


def _check_names(names: Sequence[str]) -> None:
    if isinstance(names, str) or not names:
        raise ModelError("nothing to cut out: expected a list of tensor names")
    if any(not name for name in names):
        raise ModelError("cannot cut at a tensor without a name")
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise ModelError(f"cannot cut twice at {', '.join(map(repr, twice))}; expected every tensor once")


def _inferred(piece: onnx.ModelProto) -> list[tuple[int, tuple[int, ...]]] | None:
    """(dtype, shape) of every output by ONNX shape inference; None if one is not fully known."""
    try:
        outputs = onnx.shape_inference.infer_shapes(piece, data_prop=True).graph.output
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        return None  # shape inference only saves time; the caller asks onnxruntime instead
    types = [(v.type.tensor_type.elem_type, shape_of(v)) for v in outputs]
    known = all(dtype != TensorProto.UNDEFINED and shape and min(shape) > 0 for dtype, shape in types)
    return types if known else None
