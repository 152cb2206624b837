"""Write the emulated ONNX: Quantize/Dequantize pairs exactly where the chip rounds.

Pairs of 8 bit are ONNX's own. Those of 16 bit, which ONNX has only from opset 21 on, are onnxruntime's (domain
com.microsoft), so that no network need be converted that far.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hefkit import __version__
from hefkit.workshop.emulator.codes import Quantization, QuantizedWeight
from hefkit.workshop.emulator.correction import Corrected
from hefkit.workshop.emulator.plan import RoundingPlan
from hefkit.workshop.network.cut import tensor_types

DOMAIN = "com.microsoft"
INPUT = "images"
IR_VERSION = 8  # read by every onnxruntime since 1.10
ONNX_DTYPE = {"uint8": TensorProto.UINT8, "uint16": TensorProto.UINT16}


class QdqWriter:
    """Builds one emulated model; `write()` returns it."""

    def __init__(
        self,
        plan: RoundingPlan,
        ranges: Mapping[str, Quantization],
        corrected: Corrected,
        *,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        self.plan, self.ranges, self.corrected = plan, ranges, corrected
        self.mean, self.std = mean, std
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
            self.nodes.append(node)
            for name in node.output:
                if name in self.ranges:
                    self._round(name)
        for tensor, name in outputs:
            self._add("Transpose", [_codes(tensor)], name, perm=[0, 2, 3, 1])
        return self._model(size, outputs)

    def _input(self) -> None:
        """uint8 NHWC -> the float NCHW the network was trained on: (x - mean) / std, folded into the first layer."""
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
        weight = self.corrected.weights.get(tensor)
        if weight is not None:
            node.input[1] = self._weight(tensor, weight)
        bias = self.corrected.biases.get(tensor)
        if bias is not None:
            while len(node.input) < 3:
                node.input.append("")
            node.input[2] = self._constant(f"{tensor}/bias", bias)

    def _weight(self, tensor: str, weight: QuantizedWeight) -> str:
        base = f"{tensor}/weight"
        inputs = [
            self._constant(f"{base}_codes", weight.codes),
            self._constant(f"{base}_scale", weight.scale),
            self._constant(f"{base}_zero_point", np.zeros(len(weight.scale), weight.codes.dtype)),
        ]
        self._pair("DequantizeLinear", inputs, base, wide=weight.codes.dtype == np.int16, axis=weight.axis)
        return base

    def _round(self, tensor: str) -> None:
        q = self.ranges[tensor]
        scale = self._constant(f"{tensor}/scale", np.float32(q.scale))
        zero = self._constant(f"{tensor}/zero_point", np.dtype(q.dtype).type(q.zero_point))
        wide = q.dtype == "uint16"
        self._pair("QuantizeLinear", [tensor, scale, zero], _codes(tensor), wide=wide)
        self._pair("DequantizeLinear", [_codes(tensor), scale, zero], f"{tensor}/rounded", wide=wide)
        self.renamed[tensor] = f"{tensor}/rounded"

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
        # nothing reads the Dequantize behind an output, nor a Constant that became codes
        kept = [n for n in self.nodes if used & set(n.output)]
        kept_inputs = {name for node in kept for name in node.input}
        shapes = self._output_shapes(outputs)
        graph = helper.make_graph(
            kept,
            "emulated",
            [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, [1, *size, 3])],
            [
                helper.make_tensor_value_info(name, ONNX_DTYPE[self.ranges[tensor].dtype], shapes[tensor])
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
