"""Level 1's bias correction: rounding shifts the sums of a layer on average, and its bias is changed to undo that.

The float network and its quantised copy walk through the graph side by side, layer by layer, on a few calibration
pictures. At each layer the mean of the float sums minus the mean of the quantised ones, channel by channel, is added
to the bias. Every layer reads inputs that the layers before it have already corrected: correcting all layers from one
run would count an error again at each layer below.

It is inferred, not measured, that the compiler compares means in this order: no archive of level 1 has been seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx

from hefkit.workshop.emulator.arithmetic import LayerNumbers, bias_numbers
from hefkit.workshop.emulator.layers import Layer, give_constant
from hefkit.workshop.emulator.plan import RoundingPlan, RoundingPoint
from hefkit.workshop.emulator.rounding import Rounding
from hefkit.workshop.emulator.scales import LEVELS, TensorCodes, along_channels
from hefkit.workshop.emulator.statistics import Feed
from hefkit.workshop.network.cut import extract, tensor_types
from hefkit.workshop.network.session import open_session, run_session

MEMORY = 700 << 20  # bytes that the pictures' tensors may take together
MAX_PICTURES = 24


def corrected(
    plan: RoundingPlan, rounding: Rounding, layers: Mapping[str, Layer], feeds: Sequence[Feed]
) -> dict[str, LayerNumbers]:
    """The numbers of every layer with its bias corrected; codes and scales stay.

    Args:
        feeds: pictures, as the float network takes them; `picture_budget` says how many fit.
    """
    return _Walk(plan, rounding, layers, feeds).run()


def picture_budget(plan: RoundingPlan) -> int:
    """How many pictures fit into MEMORY: each needs float values and codes of all tensors that are alive together."""
    segments = [_boundary(plan, p) for p in plan.points]
    last_use = _last_use(segments)
    shapes = tensor_types(plan.model, [p.tensor for p in plan.points])
    live = peak = 0
    for index, point in enumerate(plan.points):
        live += 6 * int(np.prod(shapes[point.tensor][1]))
        # twice the new tensor: it exists before and behind its activation
        peak = max(peak, live + 8 * int(np.prod(shapes[point.tensor][1])))
        for name in segments[index]:
            if last_use.get(name) == index and name in shapes:
                live -= 6 * int(np.prod(shapes[name][1]))
    return int(np.clip(MEMORY // max(peak, 1), 1, MAX_PICTURES))


def round_to_codes(values: np.ndarray, codes: TensorCodes) -> np.ndarray:
    """Real values -> codes, of the shape of `values`; scales by channel count along axis 1."""
    scale = along_channels(codes.scale, values.ndim)
    found = np.rint(values / scale) + codes.zero_point
    return np.clip(found, 0, LEVELS[codes.bits]).astype(np.uint8 if codes.bits == 8 else np.uint16)


def real_values(stored: np.ndarray, codes: TensorCodes) -> np.ndarray:
    """Codes -> real values, float32."""
    scale = along_channels(codes.scale, stored.ndim)
    return ((stored.astype(np.float32) - codes.zero_point) * scale).astype(np.float32)


def _boundary(plan: RoundingPlan, point: RoundingPoint) -> list[str]:
    """Rounded tensors and pictures that one layer reads, directly or through nodes that move values."""
    stops = {*plan.by_tensor, *plan.images} - {point.tensor}
    nodes = plan.graph.above([point.tensor], stop_at=stops)
    names = {name for index in nodes for name in plan.graph.inputs[index]}
    return sorted(names & stops)


def _last_use(segments: Sequence[Sequence[str]]) -> dict[str, int]:
    return {name: index for index, names in enumerate(segments) for name in names}


class _Walk:
    def __init__(
        self, plan: RoundingPlan, rounding: Rounding, layers: Mapping[str, Layer], feeds: Sequence[Feed]
    ) -> None:
        self.plan, self.rounding, self.layers = plan, rounding, layers
        self.pictures = range(len(feeds))
        self.floats: dict[str, list[np.ndarray]] = {n: [f[n] for f in feeds] for n in plan.images}
        self.codes: dict[str, list[np.ndarray]] = {}
        self.result: dict[str, LayerNumbers] = {}

    def run(self) -> dict[str, LayerNumbers]:
        segments = [_boundary(self.plan, p) for p in self.plan.points]
        last_use = _last_use(segments)
        for index, (point, names) in enumerate(zip(self.plan.points, segments, strict=True)):
            self._layer(point, names)
            for name in names:
                if last_use[name] == index and name not in self.plan.images:
                    del self.floats[name], self.codes[name]
        return self.result

    def _layer(self, point: RoundingPoint, names: Sequence[str]) -> None:
        outputs = list(dict.fromkeys([point.tensor, point.inner]))
        examples = {name: self.floats[name][0] for name in names}
        piece = extract(self.plan.model, outputs, examples)
        session = open_session(piece)
        exact = [run_session(session, outputs, {n: self.floats[n][i] for n in names}) for i in self.pictures]
        if point.tensor in self.layers:
            self._correct(point, names, piece, [e[-1] for e in exact])
            session = open_session(piece)
        self.floats[point.tensor] = [e[0] for e in exact]
        self.codes[point.tensor] = [
            round_to_codes(
                run_session(session, [point.tensor], self._quantized_feed(names, i))[0],
                self.rounding.codes[point.tensor],
            )
            for i in self.pictures
        ]

    def _quantized_feed(self, names: Sequence[str], picture: int) -> dict[str, np.ndarray]:
        return {
            name: self.floats[name][picture]
            if name in self.plan.images
            else real_values(self.codes[name][picture], self.rounding.codes[name])
            for name in names
        }

    def _correct(
        self, point: RoundingPoint, names: Sequence[str], piece: onnx.ModelProto, exact: Sequence[np.ndarray]
    ) -> None:
        """Put the quantised weight and the corrected bias of one layer into `piece`, and keep its numbers."""
        layer, numbers = self.layers[point.tensor], self.rounding.numbers[point.tensor]
        node = next(n for n in piece.graph.node if n.output[0] == point.inner)
        give_constant(piece, node, 1, layer.restored(numbers.weight))
        if node.op_type != "MatMul":
            give_constant(piece, node, 2, numbers.bias)
            session = open_session(piece)
            found = (run_session(session, [point.inner], self._quantized_feed(names, i))[0] for i in self.pictures)
            shift = np.mean([_means(e) - _means(f) for e, f in zip(exact, found, strict=True)], axis=0)
            bias = (numbers.bias + shift).astype(np.float32)
            bits = 8 if numbers.codes.dtype == np.int8 else 15
            codes, factor = bias_numbers(bias, numbers.accumulator_scale, numbers.mac_shift, bits)
            numbers = replace(numbers, bias_codes=codes, bias_factor=factor)
            give_constant(piece, node, 2, numbers.bias)
        self.result[point.tensor] = numbers


def _means(values: np.ndarray) -> np.ndarray:
    """(C,) the mean of each channel (axis 1)."""
    return np.asarray(values.mean(axis=tuple(a for a in range(values.ndim) if a != 1), dtype=np.float64))
