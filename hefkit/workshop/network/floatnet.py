"""The cut network in the form that the emulator reads: float32 throughout, class scores after the sigmoid."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, version_converter

from hefkit.errors import ModelError
from hefkit.workshop.network.graph import Graph
from hefkit.workshop.network.operators import opset

MIN_OPSET = 13  # the first whose DequantizeLinear has a scale per channel
SIGMOID = "_probability"  # appended to the name of a class tensor
# what an emulated model appends to a tensor's name, behind a slash
EMULATION_SUFFIXES = ("codes", "rounded", "scale", "zero_point", "bias", "weight", "highest", "bounded", "offset")


def to_float32(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every float16 weight, constant, input, output and cast is float32."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value in (*copy.graph.input, *copy.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for tensor in copy.graph.initializer:
        _widen(tensor)
    for node in copy.graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                _widen(attribute.t)
            elif node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
    del copy.graph.value_info[:]
    _bypass_casts(copy)
    return copy


def _bypass_casts(model: onnx.ModelProto) -> None:
    """Remove casts between float16 and float32, which do nothing now.

    Between a Conv and its activation such a cast would make the emulation round twice.
    """
    try:
        inferred = onnx.shape_inference.infer_shapes(model).graph
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        return  # without types the casts stay, and the emulation rounds more often than the chip
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    floats = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    floats |= {t.name for t in model.graph.initializer if t.data_type == TensorProto.FLOAT}
    outputs = {v.name for v in model.graph.output}
    instead: dict[str, str] = {}
    kept = []
    for node in model.graph.node:
        for slot, name in enumerate(node.input):
            node.input[slot] = instead.get(name, name)
        idle = node.op_type == "Cast" and node.input[0] in floats and node.output[0] in floats
        if idle and node.output[0] not in outputs:
            instead[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _widen(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT16:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))


def upgrade_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, converted to opset MIN_OPSET where it was older.

    Convert after the cut: onnx cannot convert an embedded NMS.

    Raises:
        ModelError: an operation that onnx cannot convert.
    """
    if opset(model) >= MIN_OPSET:
        return model
    try:
        return version_converter.convert_version(model, MIN_OPSET)
    except (RuntimeError, ValueError, version_converter.ConvertError) as exc:
        raise ModelError(
            f"the network cannot be converted from ONNX opset {opset(model)} to {MIN_OPSET}: {exc}; "
            f"export it again with opset={MIN_OPSET} or newer"
        ) from exc


def fold_batch_norm(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every BatchNormalization behind a Conv is part of its weights and bias, as on the chip.

    A BatchNormalization stays if other nodes read the Conv too, or if its numbers are not constant.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = Graph(copy)
    folded: set[str] = set()  # what the removed nodes wrote
    for node in copy.graph.node:
        if node.op_type != "BatchNormalization" or len(graph.readers(node.input[0])) != 1:
            continue
        conv = graph.nodes[graph.producer[node.input[0]]] if node.input[0] in graph.producer else None
        values = [graph.constant(i) for i in node.input[1:5]]
        if conv is None or conv.op_type != "Conv" or any(v is None for v in values):
            continue
        if any(a.name == "training_mode" and a.i for a in node.attribute):
            continue
        weight, bias = graph.constant(conv.input[1]), graph.constant(conv.input[2]) if len(conv.input) > 2 else None
        if weight is None or node.input[0] in graph.output_names:
            continue
        scale, shift, mean, variance = (np.asarray(v, np.float64) for v in values)
        epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
        gain = scale / np.sqrt(variance + epsilon)
        offset = shift + ((0.0 if bias is None else bias.astype(np.float64)) - mean) * gain
        inputs = [conv.input[0], f"{node.output[0]}/folded_weight", f"{node.output[0]}/folded_bias"]
        new = (weight * gain.reshape(-1, *[1] * (weight.ndim - 1)), offset)
        for name, value in zip(inputs[1:], new, strict=True):
            copy.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
        del conv.input[:]
        conv.input.extend(inputs)
        folded.add(node.output[0])
        conv.output[0] = node.output[0]
    kept = [n for n in copy.graph.node if not (n.op_type == "BatchNormalization" and n.output[0] in folded)]
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in kept]
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy


def with_sigmoids(model: onnx.ModelProto, class_tensors: Sequence[str]) -> onnx.ModelProto:
    """A copy whose class outputs end in a Sigmoid; `NAME` is then called `NAME_probability`."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for output in copy.graph.output:
        if output.name in class_tensors:
            name = output.name + SIGMOID
            copy.graph.node.append(helper.make_node("Sigmoid", [output.name], [name], name=name))
            output.name = name
    return copy


def rename_reserved(model: onnx.ModelProto, reserved: Collection[str]) -> dict[str, str]:
    """Rename tensors whose name an emulated model uses for a tensor of its own; returns old name -> new name.

    An export with a node before its first layer may have an inner tensor `images`. `model` is changed.

    Args:
        reserved: names of the emulated model's input and outputs; names that begin with `input/` are reserved as well.
    """
    names = {name for node in model.graph.node for name in (*node.input, *node.output) if name}
    made = {f"{name}/{suffix}" for name in names for suffix in EMULATION_SUFFIXES} | {
        f"{name}/weight_{suffix}"
        for name in names
        for suffix in ("codes", "scale", "zero_point", "steps", "times0", "times1", "kernel_scale0", "kernel_scale1")
    }
    renamed = {}
    for name in sorted(n for n in names if n in reserved or n in made or n.startswith("input/")):
        new = f"network.{name}"
        while new in names:
            new += "_"
        renamed[name] = new
        names.add(new)
    for node in model.graph.node:
        for field in (node.input, node.output):
            field[:] = [renamed.get(name, name) for name in field]
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        value.name = renamed.get(value.name, value.name)
    return renamed
