"""Bias correction: change the scale and bias of every layer so that rounding does not shift its results on average.

The float network and its quantised copy walk through the graph side by side, layer by layer, on a few
calibration pictures. At each convolution the quantised result q is compared with the float one f, channel by
channel; a and b of a line f = a * q + b go into the channel's weight scale and its bias, both of which the chip
has. Every layer sees inputs that the layers before it have already corrected. (Correcting all
layers from one run would count every upstream error again at each layer below, and explode.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import numpy_helper

from hefkit.detect.quant import dequantize, quantize
from hefkit.workshop.emulator.codes import Quantization, QuantizedWeight, output_axis, quantize_weight
from hefkit.workshop.emulator.plan import RoundingPlan, RoundingPoint, constant_array
from hefkit.workshop.network.cut import extract, tensor_types
from hefkit.workshop.network.session import open_session, run_session

MEMORY = 640 << 20  # bytes that the pictures' tensors may take together
MOST_PICTURES = 24
GAIN_LIMITS = (0.5, 2.0)
TINY = 1e-12


@dataclass
class Corrected:
    """Weights and biases of every weighted layer, keyed by the layer's rounded tensor."""

    weights: dict[str, QuantizedWeight] = field(default_factory=dict)
    biases: dict[str, np.ndarray] = field(default_factory=dict)  # (O,) float32
    pictures: int = 0


def correct(
    plan: RoundingPlan,
    ranges: Mapping[str, Quantization],
    wide_weights: Iterable[str],
    feeds: Sequence[Mapping[str, np.ndarray]],
) -> Corrected:
    """Quantise every weight and correct every layer.

    Args:
        ranges: rounded tensor -> how it is stored.
        wide_weights: rounded tensors whose layer has 16-bit weights.
        feeds: pictures, as the float network takes them; `picture_budget` says how many fit.
    """
    return _Walk(plan, ranges, set(wide_weights), feeds).run()


def picture_budget(plan: RoundingPlan) -> int:
    """How many pictures may be walked at once within MEMORY: float values and codes of the widest front."""
    segments = [_boundary(plan, p) for p in plan.points]
    last_use = _last_use(segments)
    shapes = tensor_types(plan.model, [p.tensor for p in plan.points])
    live = peak = 0
    for index, point in enumerate(plan.points):
        live += 5 * int(np.prod(shapes[point.tensor][1]))
        # twice the new tensor: it exists before and behind its activation
        peak = max(peak, live + 8 * int(np.prod(shapes[point.tensor][1])))
        for name in segments[index]:
            if last_use.get(name) == index and name in shapes:
                live -= 5 * int(np.prod(shapes[name][1]))
    return int(np.clip(MEMORY // max(peak, 1), 1, MOST_PICTURES))


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
        self,
        plan: RoundingPlan,
        ranges: Mapping[str, Quantization],
        wide: set[str],
        feeds: Sequence[Mapping[str, np.ndarray]],
    ) -> None:
        self.plan, self.ranges, self.wide = plan, ranges, wide
        self.pictures = range(len(feeds))
        self.floats: dict[str, list[np.ndarray]] = {n: [f[n] for f in feeds] for n in plan.images}
        self.codes: dict[str, list[np.ndarray]] = {}
        self.result = Corrected(pictures=len(feeds))

    def run(self) -> Corrected:
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
        if point.weight is not None:
            self._correct(point, names, piece, [e[-1] for e in exact])
            session = open_session(piece)
        self.floats[point.tensor] = [e[0] for e in exact]
        self.codes[point.tensor] = [
            self._encode(point.tensor, run_session(session, [point.tensor], self._quantized_feed(names, i))[0])
            for i in self.pictures
        ]

    def _quantized_feed(self, names: Sequence[str], picture: int) -> dict[str, np.ndarray]:
        feed = {}
        for name in names:
            if name in self.plan.images:
                feed[name] = self.floats[name][picture]
            else:
                q = self.ranges[name]
                feed[name] = dequantize(self.codes[name][picture], q.scale, q.zero_point)
        return feed

    def _encode(self, tensor: str, values: np.ndarray) -> np.ndarray:
        q = self.ranges[tensor]
        return quantize(values, q.scale, q.zero_point, q.dtype)

    def _correct(
        self, point: RoundingPoint, names: Sequence[str], piece: onnx.ModelProto, exact: Sequence[np.ndarray]
    ) -> None:
        """Put the quantised, corrected weight and bias of one layer into `piece`, and keep them."""
        node = next(n for n in piece.graph.node if n.output[0] == point.inner)
        assert point.weight is not None
        weight = constant_array(self.plan, point.weight)
        axis = output_axis(node, weight)
        bits = 16 if point.tensor in self.wide else 8
        quantized = quantize_weight(weight, axis if axis is not None else 0, bits)
        _replace(piece, node, 1, quantized.real())
        if axis is not None and node.op_type in ("Conv", "ConvTranspose"):
            bias = constant_array(self.plan, node.input[2]) if len(node.input) > 2 and node.input[2] else None
            session = open_session(piece)
            found = (run_session(session, [point.inner], self._quantized_feed(names, i))[0] for i in self.pictures)
            gain, shift = _line(exact, found)
            quantized = quantized.scaled(gain)
            corrected = (shift if bias is None else gain * bias + shift).astype(np.float32)
            _replace(piece, node, 1, quantized.real())
            _replace(piece, node, 2, corrected)
            self.result.biases[point.tensor] = corrected
        self.result.weights[point.tensor] = quantized


def _line(exact: Iterable[np.ndarray], found: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(gain, shift) of each channel (axis 1) that bring `found` back to `exact`."""
    total = np.zeros(5)
    count = 0
    for f, q in zip(exact, found, strict=True):
        f, q = (np.moveaxis(a, 1, 0).reshape(a.shape[1], -1).astype(np.float64) for a in (f, q))
        count += f.shape[1]
        total = total + np.stack([f.sum(1), q.sum(1), (q * q).sum(1), (f * q).sum(1), (f * f).sum(1)], axis=1)
    f_mean, q_mean, q_square, product, f_square = (total / count).T
    variance = q_square - q_mean**2
    covariance = product - f_mean * q_mean
    # the least-squares slope is covariance / variance: best on average, but it pulls the rare strong answers, the
    # detections, towards the background; equal spread, sqrt(f_variance / variance), takes the noise for signal and
    # finds objects that are not there. The geometric mean of the two is in between.
    f_variance = np.maximum(f_square - f_mean**2, TINY)
    spread = np.sqrt(f_variance / np.maximum(variance, TINY))
    correlation = np.clip(covariance / np.sqrt(np.maximum(variance, TINY) * f_variance), 0.0, 1.0)
    slope = spread * np.sqrt(correlation)
    gain = np.where(variance > TINY, np.clip(slope, *GAIN_LIMITS), 1.0)
    return gain, f_mean - gain * q_mean


def _replace(piece: onnx.ModelProto, node: onnx.NodeProto, slot: int, value: np.ndarray) -> None:
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
