"""The cut network in the form that the emulator reads: float32 throughout, class scores after the sigmoid."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, version_converter

from hefkit.errors import ModelError

OLDEST_OPSET = 13  # Dequantize with a scale per channel; onnxruntime inserts such nodes by itself, too
SIGMOID = "_probability"  # appended to the name of a class tensor


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
    """Casts between float16 and float32 have become idle; between a Conv and its activation they would part the two."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model).graph
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        return  # without types they stay, and the emulation rounds more often than the chip
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


def modernised(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with opset OLDEST_OPSET where it was older; convert after the cut, embedded NMS does not convert.

    Raises:
        ModelError: an operation that onnx cannot convert.
    """
    if opset(model) >= OLDEST_OPSET:
        return model
    try:
        return version_converter.convert_version(model, OLDEST_OPSET)
    except (RuntimeError, ValueError, version_converter.ConvertError) as exc:
        raise ModelError(
            f"the network cannot be converted from ONNX opset {opset(model)} to {OLDEST_OPSET}: {exc}; "
            f"export it again with opset={OLDEST_OPSET} or newer"
        ) from exc


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


# what an emulated model adds behind a tensor's name
MADE = ("codes", "rounded", "scale", "zero_point", "bias", "weight")


def set_apart(model: onnx.ModelProto, reserved: Collection[str]) -> dict[str, str]:
    """Rename tensors that are called like something that an emulated model adds; old name -> new name.

    An export with a node in front has an inner tensor `images`, for example. `model` is changed.

    Args:
        reserved: names of its input and outputs; everything below `input/` is reserved as well.
    """
    names = {name for node in model.graph.node for name in (*node.input, *node.output) if name}
    made = {f"{name}/{suffix}" for name in names for suffix in MADE} | {
        f"{name}/weight_{suffix}" for name in names for suffix in ("codes", "scale", "zero_point")
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


def opset(model: onnx.ModelProto) -> int:
    """The version of the standard operators."""
    return next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
