"""Predicts all layers of an archive from the float network and the statistics alone, as the emulator has to."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np

from hefkit.workshop.emulator.arithmetic import FloatLayer, LayerNumbers, layer_numbers, layer_output
from hefkit.workshop.emulator.scales import TensorCodes, activation
from tests.helpers.hailo_archive import WEIGHTED, Archive, Layer, Unreadable

NOT_UNDERSTOOD = (Unreadable, KeyError, ValueError, IndexError, TypeError)  # what an unknown layer can end in


class Prediction:
    """All layers from the float network and the statistics, front to back, twice.

    The first time tells which layers need more room in the accumulator than a shift gives; the layers before them
    are raised in the second. Behind a layer that is not understood the archive's own scales are taken.
    """

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.numbers: dict[str, LayerNumbers] = {}
        self.why: dict[str, str] = {}
        self._raised: dict[str, float] = {}
        self._run()
        self._raise_writers()
        if self._raised:
            self._run()

    def _run(self) -> None:
        self._codes: dict[str, TensorCodes] = {}
        for name, layer in self.archive.layers.items():
            try:
                self._codes[name] = self._written(layer)
            except NOT_UNDERSTOOD as exc:
                self.why[name] = f"not predicted: {exc}"
                with contextlib.suppress(*NOT_UNDERSTOOD):
                    self._codes[name] = layer.output

    def _written(self, layer: Layer) -> TensorCodes:
        if layer.kind == "input_layer":
            return self.archive.input_codes(layer)
        if layer.moves_codes:
            return self._read_codes(layer)
        if layer.widens:
            source = self.archive.writer(layer.inputs[0])
            return layer.output if source is None else self.archive.input_codes(source, layer.output_bits)
        if layer.kind not in WEIGHTED:
            return layer.output
        known = replace(layer.float_layer, reader_peak=self._reader_peak(layer))
        known = replace(known, raised=self._raised.get(layer.name, 1.0))
        scale = input_scale(self._read_codes(layer), known)
        output = layer_output(known, scale, layer.output_bits)
        self.numbers[layer.name] = layer_numbers(known, scale, layer.bits, output=output)
        return output

    def _read_codes(self, layer: Layer) -> TensorCodes:
        if not layer.inputs or layer.inputs[0] not in self._codes:
            raise Unreadable("the scales of its input are not known")
        return self._codes[layer.inputs[0]]

    def _reader_peak(self, layer: Layer) -> np.ndarray | None:
        """(C,) the largest weight that reads each channel, or None where not every reader can take a factor back."""
        readers = list(self.archive.readers(layer.name))
        if not readers or any(r.kind not in WEIGHTED for r in readers):
            return None
        channels = len(layer.float_layer.weight)
        return np.max([input_peak(r.float_layer, channels) for r in readers], axis=0)

    def _raise_writers(self) -> None:
        for name, numbers in self.numbers.items():
            writer = self.archive.writer(self.archive.layers[name].inputs[0])
            if writer is None or writer.kind not in WEIGHTED or numbers.input_raise == 1:
                continue
            if activation(writer.activation).fixed_range is None:
                self._raised[writer.name] = max(self._raised.get(writer.name, 1.0), numbers.input_raise)


def input_scale(codes: TensorCodes, layer: FloatLayer) -> float | np.ndarray:
    """S_in of a layer: a dense layer behind a flattened map has each channel once a place."""
    if isinstance(codes.scale, float):
        return codes.scale
    return np.tile(codes.scale, layer.weight.shape[1] * layer.groups // len(codes.scale))


def input_peak(layer: FloatLayer, channels: int) -> np.ndarray:
    """(C,) the largest |weight| on each input channel."""
    peaks = np.abs(layer.weight).reshape(*layer.weight.shape[:2], -1).max(axis=2)
    peaks = peaks.reshape(layer.groups, -1, layer.weight.shape[1]).max(axis=1).reshape(-1)
    return peaks.reshape(-1, channels).max(axis=0)
