"""How every tensor and every weight of a network is stored: the arithmetic of one layer, carried through the graph.

The scales go from the picture down: a layer's weights are rounded in units of what it reads and writes. The first
walk shows which layers need more space in the accumulator; the layers before them get wider scales in the second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from hefkit.workshop.emulator.arithmetic import (
    FloatLayer,
    LayerNumbers,
    layer_numbers,
    layer_output,
    without_static_channels,
)
from hefkit.workshop.emulator.layers import Layer, find_layers, reader_peak
from hefkit.workshop.emulator.plan import RoundingPlan
from hefkit.workshop.emulator.scales import LEVELS, TensorCodes, activation, output_range
from hefkit.workshop.emulator.statistics import Extremes


@dataclass(frozen=True)
class Groups:
    """`quantization_groups`: output channels that share one weight scale, instead of all of the layer."""

    count: int
    by_range: bool = False  # sorted by the channels' ranges; else split in order. What the compiler does is not known


@dataclass(frozen=True)
class Storage:
    """What is stored in 15 bits, or with several weight scales. A layer is named by the tensor that it writes."""

    wide_outputs: frozenset[str] = frozenset()  # tensors in 15 bits, written by layers of 8-bit weights
    wide_layers: frozenset[str] = frozenset()  # layers in 15 bits, weights and output (a16_w16)
    groups: Mapping[str, Groups] = field(default_factory=dict)


@dataclass(frozen=True)
class Rounding:
    """The result: codes of every rounded tensor, numbers of every weighted layer."""

    codes: dict[str, TensorCodes]
    numbers: dict[str, LayerNumbers]


class Rounder:
    """Chooses the codes of a network.

    Args:
        std: (3,) of the script's normalization: the picture's codes are multiplied by 1 / std.
        probabilities: class tensors; their range is 0..1, not the measured one.
    """

    def __init__(
        self, plan: RoundingPlan, extremes: Mapping[str, Extremes], std: Sequence[float], probabilities: Sequence[str]
    ) -> None:
        self.plan, self.layers = plan, find_layers(plan)
        self._extremes, self._probabilities = extremes, set(probabilities)
        self._std = np.asarray(std, np.float64)
        self._peaks = {t: reader_peak(plan, self.layers, t) for t, layer in self.layers.items() if layer.by_channel}

    def choose(self, storage: Storage) -> Rounding:
        """Codes and weights of the whole network."""
        raised: dict[str, float] = {}
        first = self._walk(storage, raised)
        for tensor, numbers in first.numbers.items():
            writer = self.layers[tensor].source
            if numbers.input_raise > 1 and self._can_be_raised(writer):
                raised[writer] = max(raised.get(writer, 1.0), numbers.input_raise)
        return self._walk(storage, raised) if raised else first

    def float_layer(self, tensor: str) -> FloatLayer:
        """A layer as the arithmetic takes it."""
        layer = self.layers[tensor]
        channels = len(layer.weight)
        output = self._extremes[tensor].by_channel(channels)
        found = FloatLayer(
            weight=layer.weight,
            bias=layer.bias,
            preactivation=self._extremes[layer.point.inner].by_channel(channels).largest,
            low=output.low,
            high=output.high,
            activation=layer.activation,
            groups=layer.groups,
            reader_peak=self._peaks.get(tensor),
        )
        return without_static_channels(found) if layer.node.op_type == "Conv" else found

    def plain_codes(self, tensor: str, bits: int) -> TensorCodes:
        """One scale from the range seen; 0..1 for class probabilities."""
        if tensor in self._probabilities:
            return output_range(0.0, 1.0, bits)
        seen = self._extremes[tensor]
        return output_range(float(seen.low.min()), float(seen.high.max()), bits)

    def _can_be_raised(self, tensor: str) -> bool:
        return tensor in self.layers and activation(self.layers[tensor].activation).fixed_range is None

    def _walk(self, storage: Storage, raised: Mapping[str, float]) -> Rounding:
        result = Rounding({}, {})
        wide = storage.wide_outputs | storage.wide_layers
        for point in self.plan.points:
            tensor = point.tensor
            if tensor not in self.layers:
                result.codes[tensor] = self.plain_codes(tensor, 15 if tensor in wide else 8)
                continue
            known = replace(self.float_layer(tensor), raised=raised.get(tensor, 1.0))
            bits = 15 if tensor in storage.wide_layers else 8
            scale = self._input_scale(self.layers[tensor], result.codes, bits)
            if tensor in self._probabilities:
                output = self.plain_codes(tensor, 15 if tensor in wide else 8)
            else:
                output = layer_output(known, scale, 15 if tensor in wide else 8)
            groups = _weight_groups(known, output, storage.groups.get(tensor))
            result.numbers[tensor] = layer_numbers(known, scale, bits, output=output, weight_groups=groups)
            result.codes[tensor] = output
        return result

    def _input_scale(self, layer: Layer, codes: Mapping[str, TensorCodes], bits: int) -> float | np.ndarray:
        """S_in; a 15-bit layer reads the range of an 8-bit tensor in 15 bits."""
        if layer.source in codes:
            read = codes[layer.source]
            scale, levels = read.scale, LEVELS[read.bits]
        elif layer.source in self.plan.images:
            same = float(np.ptp(self._std)) == 0 or layer.weight.shape[1] * layer.groups != len(self._std)
            scale, levels = (1 / float(self._std.min()) if same else 1 / self._std), LEVELS[8]
        else:
            return 1.0
        return scale * abs(layer.factor) * (levels / LEVELS[bits])


def _weight_groups(layer: FloatLayer, output: TensorCodes, groups: Groups | None) -> np.ndarray | None:
    """(O,) the group of each output channel."""
    if groups is None or groups.count < 2:
        return None
    channels = len(layer.weight)
    place = np.arange(channels)
    if groups.by_range:
        peak = np.abs(layer.weight).reshape(channels, -1).max(axis=1) / np.asarray(output.scale)
        place[np.argsort(peak, kind="stable")] = np.arange(channels)
    return place * min(groups.count, channels) // channels
