"""The weighted layers of a network in one form, and the largest weights that read each tensor.

A weight is brought into the order (output, input of its group, ...), for every kind of layer. A layer knows the tensor
that it reads: the nearest rounded tensor (or the picture) above it, through nodes that only move codes.

Example: a ConvTranspose of 4 to 6 channels in 2 groups holds its weight as (4, 3, k, k), here (6, 2, k, k).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from hefkit.workshop.emulator.plan import RoundingPlan, RoundingPoint, constant_array
from hefkit.workshop.network.graph import attribute

# nodes that move values within a channel: a scale for each channel passes through them
CHANNEL_WISE = frozenset({"MaxPool", "Resize", "Upsample", "Identity", "Pad", "Dropout", "Cast"})


@dataclass(frozen=True)
class Layer:
    """A convolution or matrix product with constant weights. O output channels, I input channels."""

    point: RoundingPoint
    node: onnx.NodeProto
    weight: np.ndarray  # (O, I / groups, ...) float32
    bias: np.ndarray  # (O,) float32
    groups: int  # of the convolution
    activation: str  # "none", "relu", "leaky_relu", "relu6", "sigmoid", or "curve"
    source: str  # the rounded tensor or the picture that it reads
    factor: float  # the product of the numbers that the nodes between source and layer multiply with
    shape: tuple[int, ...]  # of the weight in the node

    @property
    def depthwise(self) -> bool:
        """Whether every output channel reads one input channel."""
        return self.groups > 1 and self.weight.shape[1] == 1

    @property
    def by_channel(self) -> bool:
        """Whether the channels of its tensors lie along axis 1; those of a MatMul lie along the last axis."""
        return self.node.op_type != "MatMul"

    @property
    def input_peak(self) -> np.ndarray:
        """(I,) the largest |weight| that reads each input channel."""
        peaks = np.abs(self.weight).reshape(*self.weight.shape[:2], -1).max(axis=2)
        return peaks.reshape(self.groups, -1, self.weight.shape[1]).max(axis=1).reshape(-1)

    def restored(self, values: np.ndarray) -> np.ndarray:
        """An array of the shape of `weight` -> the order in which the node has its weight."""
        if self.node.op_type == "ConvTranspose":
            outputs, inputs, *kernel = values.shape
            split = values.reshape(self.groups, outputs // self.groups, inputs, *kernel).swapaxes(1, 2)
            return np.ascontiguousarray(split.reshape(self.groups * inputs, outputs // self.groups, *kernel))
        if _is_output_first(self.node):
            return values
        return np.ascontiguousarray(values.T) if values.ndim == 2 else values.reshape(self.shape)


def find_layers(plan: RoundingPlan) -> dict[str, Layer]:
    """Rounded tensor -> its layer, for every rounding point that multiplies with a constant."""
    return {p.tensor: _layer(plan, p) for p in plan.points if p.weight is not None}


def reader_peak(plan: RoundingPlan, layers: dict[str, Layer], tensor: str) -> np.ndarray | None:
    """(C,) the largest |weight| that reads each channel of a tensor.

    None where a reader cannot take a factor of the channel into its weights, or where the tensor is an output.
    """
    by_node = {layer.point.node: layer for layer in layers.values()}
    peaks: list[np.ndarray] = []
    todo = [tensor]
    while todo:
        name = todo.pop()
        if name in plan.graph.output_names:
            return None
        for index in plan.graph.consumers.get(name, ()):
            layer = by_node.get(index)
            if layer is not None and layer.by_channel and layer.node.input[0] == name:
                peaks.append(layer.input_peak)
            elif plan.is_moving(plan.graph.nodes[index]) and plan.graph.nodes[index].op_type in CHANNEL_WISE:
                todo += plan.graph.nodes[index].output[:1]
            else:
                return None
    if not peaks or len({len(p) for p in peaks}) > 1:
        return None
    return np.max(peaks, axis=0)


def source_of(plan: RoundingPlan, tensor: str) -> tuple[str, float]:
    """The rounded tensor or picture whose codes a tensor holds, and the number that it was multiplied with."""
    factor = 1.0
    while tensor not in plan.by_tensor and tensor not in plan.images:
        index = plan.graph.producer.get(tensor)
        if index is None:
            break
        node = plan.graph.nodes[index]
        if node.op_type in ("Mul", "Div"):
            number = float(constant_array(plan, node.input[1]).reshape(-1)[0])
            factor *= number if node.op_type == "Mul" else 1 / number
        tensor = next((i for i in node.input if i in plan.dynamic), node.input[0])
    return tensor, factor


def give_constant(piece: onnx.ModelProto, node: onnx.NodeProto, slot: int, value: np.ndarray) -> None:
    """Give `node` a constant of its own; others may share the one it had."""
    name = f"{node.output[0]}/hefkit.{slot}"
    tensor = numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name)
    for old in piece.graph.initializer:
        if old.name == name:
            old.CopyFrom(tensor)
            return
    piece.graph.initializer.append(tensor)
    while len(node.input) <= slot:
        node.input.append("")
    node.input[slot] = name


def _layer(plan: RoundingPlan, point: RoundingPoint) -> Layer:
    node = plan.graph.nodes[point.node]
    groups = attribute(node, "group", 1)
    assert point.weight is not None
    stored = constant_array(plan, point.weight)
    weight = _output_first(node, stored, groups)
    has_bias = node.op_type != "MatMul" and len(node.input) > 2 and node.input[2]
    bias = constant_array(plan, node.input[2]).reshape(-1) if has_bias else np.zeros(len(weight), np.float32)
    bias = np.broadcast_to(bias, (len(weight),)).astype(np.float32)
    source, factor = source_of(plan, next(i for i in node.input if i in plan.dynamic))
    return Layer(point, node, weight, bias, groups, _activation(plan, point), source, factor, stored.shape)


def _activation(plan: RoundingPlan, point: RoundingPoint) -> str:
    """What lies between the sum and the rounded tensor."""
    if point.tensor == point.inner:
        return "none"
    between = plan.graph.above([point.tensor], stop_at=[point.inner])
    nodes = [plan.graph.nodes[i] for i in between if any(o in plan.dynamic for o in plan.graph.nodes[i].output)]
    if len(nodes) != 1:
        return "none" if not nodes else "curve"
    [node] = nodes
    if node.op_type == "Clip":
        bounds = [plan.graph.constant(i) for i in node.input[1:] if i]
        values = [float(b.reshape(-1)[0]) for b in bounds if b is not None]
        return "relu6" if values == [0.0, 6.0] else "curve"
    return {"Relu": "relu", "LeakyRelu": "leaky_relu", "Sigmoid": "sigmoid"}.get(node.op_type, "curve")


def _output_first(node: onnx.NodeProto, weight: np.ndarray, groups: int) -> np.ndarray:
    """Any weight -> (O, I / groups, ...)."""
    if node.op_type == "ConvTranspose":  # (I, O / groups, ...)
        inputs, outputs, *kernel = weight.shape
        split = weight.reshape(groups, inputs // groups, outputs, *kernel).swapaxes(1, 2)
        return np.ascontiguousarray(split.reshape(groups * outputs, inputs // groups, *kernel))
    if _is_output_first(node):
        return weight
    if weight.ndim == 2:
        return np.ascontiguousarray(weight.T)
    return weight.reshape(1, 1, -1)  # a stack of matrices: one scale for all of it


def _is_output_first(node: onnx.NodeProto) -> bool:
    return node.op_type == "Conv" or (node.op_type == "Gemm" and bool(attribute(node, "transB", 0)))
