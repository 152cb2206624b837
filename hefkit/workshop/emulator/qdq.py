"""Write the emulated ONNX: Quantize/Dequantize pairs exactly where the chip rounds.

Pairs of 8 bit are ONNX's own. Those of 15 bit are stored as uint16, which ONNX has only from opset 21 on; so they are
onnxruntime's (domain com.microsoft), and no network has to be converted to such an opset.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hefkit import __version__
from hefkit.workshop.emulator.arithmetic import LayerNumbers
from hefkit.workshop.emulator.layers import Layer
from hefkit.workshop.emulator.pieces import SIGMOID
from hefkit.workshop.emulator.plan import RoundingPlan
from hefkit.workshop.emulator.rounding import Rounding
from hefkit.workshop.emulator.scales import LEVELS, TensorCodes, along_channels
from hefkit.workshop.network.cut import tensor_types

DOMAIN = "com.microsoft"
INPUT = "images"
IR_VERSION = 8  # read by every onnxruntime since 1.10
STORED = {8: np.uint8, 15: np.uint16}  # bits of a tensor -> how its codes are stored


class QdqWriter:
    """Builds one emulated model; `write()` returns it."""

    def __init__(
        self,
        plan: RoundingPlan,
        layers: Mapping[str, Layer],
        rounding: Rounding,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        probabilities: Collection[str],
    ) -> None:
        self.plan, self.layers, self.rounding = plan, layers, rounding
        self.mean, self.std, self.probabilities = mean, std, set(probabilities)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.renamed: dict[str, str] = {}

    def write(self, size: tuple[int, int], outputs: Sequence[tuple[str, str]]) -> onnx.ModelProto:
        """The model: `images` uint8 (1, H, W, 3) RGB -> the outputs' codes, (1, H, W, C).

        Args:
            size: (H, W) of the input.
            outputs: (tensor of the plan, name of the output).
        """
        self._input()
        layers = {p.node: p for p in self.plan.points}
        for index in self.plan.graph.alive:
            node = onnx.NodeProto()
            node.CopyFrom(self.plan.graph.nodes[index])
            if index in layers:
                self._weights(node, layers[index].tensor)
            for slot, name in enumerate(node.input):
                node.input[slot] = self.renamed.get(name, name)
            if node.op_type == "Sigmoid" and node.output[0] in self.probabilities:
                self._sigmoid(node)
            else:
                self.nodes.append(node)
            for name in node.output:
                if name in self.rounding.codes:
                    self._round(name)
        for tensor, name in outputs:
            self._add("Transpose", [_codes(tensor)], name, perm=[0, 2, 3, 1])
        return self._model(size, outputs)

    def _input(self) -> None:
        """uint8 NHWC -> the float NCHW that the network was trained on: (x - mean) / std."""
        source = self.plan.images[0]
        if list(self.mean) == [0.0] * 3 and len(set(self.std)) == 1:
            scale = self._constant("input/scale", np.float32(1 / self.std[0]))
            zero = self._constant("input/zero_point", np.uint8(0))
            self._pair("DequantizeLinear", [INPUT, scale, zero], "input/normalized", wide=False)
        else:
            self._add("Cast", [INPUT], "input/float", to=TensorProto.FLOAT)
            self._add(
                "Sub", ["input/float", self._constant("input/mean", np.asarray(self.mean, np.float32))], "input/centred"
            )
            self._add(
                "Div",
                ["input/centred", self._constant("input/std", np.asarray(self.std, np.float32))],
                "input/normalized",
            )
        self._add("Transpose", ["input/normalized"], "input/nchw", perm=[0, 3, 1, 2])
        self.renamed[source] = "input/nchw"

    def _weights(self, node: onnx.NodeProto, tensor: str) -> None:
        numbers = self.rounding.numbers.get(tensor)
        if numbers is None:
            return
        node.input[1] = self._weight(tensor, self.layers[tensor], numbers)
        if node.op_type != "MatMul" and (numbers.bias.any() or len(node.input) > 2):
            while len(node.input) < 3:
                node.input.append("")
            node.input[2] = self._constant(f"{tensor}/bias", numbers.bias)

    def _weight(self, tensor: str, layer: Layer, numbers: LayerNumbers) -> str:
        """codes -> (codes - zero point) * scale; steps that differ by channel are multiplied in nodes of their own."""
        base = f"{tensor}/weight"
        dtype = numbers.codes.dtype
        first = numbers.kernel_scale.flat[0]
        one_step = bool((numbers.kernel_scale == first).all())
        scale = np.float32(first if one_step else 1)
        inputs = [
            self._constant(f"{base}_codes", layer.restored(numbers.codes)),
            self._constant(f"{base}_scale", scale),
            self._constant(f"{base}_zero_point", dtype.type(numbers.kernel_zero_point)),
        ]
        if one_step:
            self._pair("DequantizeLinear", inputs, base, wide=dtype == np.int16)
            return base
        self._pair("DequantizeLinear", inputs, f"{base}_steps", wide=dtype == np.int16)
        name = f"{base}_steps"
        for number, factor in enumerate(_step_factors(layer, numbers)):
            source, name = name, f"{base}_times{number}"
            self._add("Mul", [source, self._constant(f"{base}_kernel_scale{number}", factor)], name)
        return name

    def _sigmoid(self, node: onnx.NodeProto) -> None:
        """The chip's sigmoid: straight pieces, summed up from the middle; its jump of 0.002 at 5.54 is left out."""
        source, result = node.input[0], node.output[0]
        parts = []
        ends = [SIGMOID.breaks[0], *SIGMOID.breaks, SIGMOID.breaks[-1]]
        offset = float(SIGMOID(np.asarray(0.0)))
        for number, slope in enumerate(SIGMOID.slopes):
            low, high = float(ends[number]), float(ends[number + 1])
            if slope == 0 or low == high:
                continue
            part = f"{result}/piece{number}"
            bounds = [self._constant(f"{part}_{n}", np.float32(v)) for n, v in (("low", low), ("high", high))]
            self._add("Clip", [source, *bounds], f"{part}_clipped")
            self._add("Mul", [f"{part}_clipped", self._constant(f"{part}_slope", np.float32(slope))], part)
            parts.append(part)
            offset -= float(slope) * float(np.clip(0.0, low, high))
        self._add("Sum", [*parts, self._constant(f"{result}/offset", np.float32(offset))], result)

    def _round(self, tensor: str) -> None:
        q = self.rounding.codes[tensor]
        by_channel = isinstance(q.scale, np.ndarray)
        zero_point = np.full(np.shape(q.scale), q.zero_point, STORED[q.bits])
        scale = self._constant(f"{tensor}/scale", np.asarray(q.scale, np.float32))
        zero = self._constant(f"{tensor}/zero_point", zero_point)
        wide = q.bits == 15
        axis = {"axis": 1} if by_channel else {}
        source = self._bounded(tensor, q) if wide else tensor
        self._pair("QuantizeLinear", [source, scale, zero], _codes(tensor), wide=wide, **axis)
        self._pair("DequantizeLinear", [_codes(tensor), scale, zero], f"{tensor}/rounded", wide=wide, **axis)
        self.renamed[tensor] = f"{tensor}/rounded"

    def _bounded(self, tensor: str, q: TensorCodes) -> str:
        """uint16 holds codes beyond 15 bits; the chip stops at 32767."""
        # only weighted layers have scales by channel; their tensors have as many axes as their weights
        axes = self.layers[tensor].weight.ndim if tensor in self.layers else 4
        high = (LEVELS[15] - q.zero_point) * along_channels(q.scale, axes)
        self._add("Min", [tensor, self._constant(f"{tensor}/highest", high)], f"{tensor}/bounded")
        return f"{tensor}/bounded"

    def _pair(self, op: str, inputs: list[str], output: str, *, wide: bool, **attributes: Any) -> None:
        self._add(op, inputs, output, **attributes, **({"domain": DOMAIN} if wide else {}))

    def _add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))

    def _constant(self, name: str, value: np.ndarray | np.generic) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _model(self, size: tuple[int, int], outputs: Sequence[tuple[str, str]]) -> onnx.ModelProto:
        used = {name for node in self.nodes for name in node.input}
        used |= {name for _, name in outputs}
        # the Dequantize behind an output and a Constant that became codes have no reader
        kept = [n for n in self.nodes if used & set(n.output)]
        kept_inputs = {name for node in kept for name in node.input}
        shapes = self._output_shapes(outputs)
        graph = helper.make_graph(
            kept,
            "emulated",
            [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, [1, *size, 3])],
            [
                helper.make_tensor_value_info(name, _onnx_dtype(self.rounding.codes[tensor]), shapes[tensor])
                for tensor, name in outputs
            ],
            [t for t in self.plan.model.graph.initializer if t.name in kept_inputs] + self.constants,
        )
        opsets = [o for o in self.plan.model.opset_import if o.domain != DOMAIN]
        if any(n.domain == DOMAIN for n in kept):
            opsets.append(helper.make_opsetid(DOMAIN, 1))
        return helper.make_model(
            graph,
            opset_imports=opsets,
            ir_version=max(IR_VERSION, self.plan.model.ir_version),
            producer_name="hefkit",
            producer_version=__version__,
        )

    def _output_shapes(self, outputs: Sequence[tuple[str, str]]) -> dict[str, list[int]]:
        shapes = tensor_types(self.plan.model, [t for t, _ in outputs])
        return {t: [1, shape[2], shape[3], shape[1]] for t, (_, shape) in shapes.items()}


def _codes(tensor: str) -> str:
    return f"{tensor}/codes"


def _onnx_dtype(codes: TensorCodes) -> int:
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(STORED[codes.bits])))


def _step_factors(layer: Layer, numbers: LayerNumbers) -> list[np.ndarray]:
    """Arrays whose product is the weight's step: one by output and one by input channel where that is enough."""
    step = numbers.kernel_scale
    if layer.node.op_type == "Conv" and layer.groups in (1, len(layer.weight)):
        by_output, by_input = step[:, :1], step[:1] / step[:1, :1]
        return [by_output] if (by_input == 1).all() else [by_output, by_input]
    return [layer.restored(np.broadcast_to(step, numbers.codes.shape[:2] + (1,) * (numbers.codes.ndim - 2)))]
