"""The cut network in the form that the emulator reads: float32 throughout, class scores after the sigmoid."""

from __future__ import annotations

from collections.abc import Sequence

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
    return copy


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


def opset(model: onnx.ModelProto) -> int:
    """The version of the standard operators."""
    return next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
