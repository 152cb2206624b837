"""Reads an unpacked quantised archive (HAR) of Hailo's compiler: what it was given, and what it made of it.

A folder holds hn.json (the layers), fpo.npz (float weights after folding), ho.npz (scales, statistics) and q.npz (the
integers for the chip). Weights are turned into ONNX's layout, (outputs, inputs / groups, height, width), inputs of a
dense layer in the archive's order: height, width, channel.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hefkit.errors import DataError
from hefkit.workshop.emulator.arithmetic import FloatLayer, without_static_channels
from hefkit.workshop.emulator.scales import TensorCodes, input_range

WEIGHTED = ("conv", "dw", "dense")
CONVOLUTIONS = ("conv", "dw")
MOVING = ("maxpool", "output_layer")  # their codes are their input's
ACTIVATIONS = {"linear": "none", None: "none", "leaky": "leaky_relu"}  # the compiler's word -> ours, where they differ
WEIGHT_BITS = {8: 8, 15: 15}


class Unreadable(Exception):
    """A layer that this reader does not understand; the text says what it met."""


@dataclass(frozen=True)
class Layer:
    """One layer of an archive. Values are read when asked for, and raise `Unreadable` where they are missing."""

    archive: Archive
    name: str  # with its scope: jet_classifier/conv1
    entry: dict[str, Any]  # of hn.json

    @property
    def kind(self) -> str:
        """The compiler's word: conv, dw, dense, maxpool, input_layer ..."""
        return str(self.entry.get("type"))

    @property
    def inputs(self) -> list[str]:
        """Names of the layers that it reads."""
        return list(self.entry.get("input", ()))

    @property
    def moves_codes(self) -> bool:
        """Are its output codes and scales those of its input?"""
        return self.kind in MOVING

    @property
    def widens(self) -> bool:
        """Is it the layer that the compiler inserts where 8-bit codes meet a 16-bit layer?"""
        return self.kind == "activation" and "precision_change" in self.name.rpartition("/")[2]

    def value(self, key: str, file: str = "ho") -> np.ndarray:
        """An array of the archive, such as `conv_op/mac_shift`."""
        found = self.archive.arrays(file).get(f"{self.name}/{key}:0")
        if found is None:
            raise Unreadable(f"{file}.npz has no {key}")
        return np.asarray(found)

    @cached_property
    def bits(self) -> int:
        """Of its weights."""
        bits = int(self.value("conv_op/weight_bits"))
        if bits not in WEIGHT_BITS:
            raise Unreadable(f"weights of {bits} bits")
        return bits

    @property
    def output_bits(self) -> int:
        """Of its output."""
        return int(self.value("act_op/output_bits:0"))

    @property
    def activation(self) -> str:
        """In the words of hefkit.workshop.emulator.scales."""
        word = self.entry.get("params", {}).get("activation")
        return str(ACTIVATIONS.get(word, word))

    @property
    def groups(self) -> int:
        """Of the convolution; every channel is its own in a depthwise one."""
        if self.kind == "dw":
            return max(self.value("kernel", "fpo").shape[-2:])
        return int(self.entry.get("params", {}).get("groups", 1))

    def onnx_layout(self, kernel: np.ndarray) -> np.ndarray:
        """(H, W, I, O), depthwise (H, W, C, 1) or (H, W, 1, C), dense (I, O) -> (O, I, H, W), dense (O, I)."""
        if self.kind == "dense":
            return kernel.reshape(kernel.shape[-2:]).T
        if kernel.ndim != 4:
            raise Unreadable(f"a kernel of shape {kernel.shape}")
        if self.kind == "dw":
            return kernel.transpose(2, 3, 0, 1).reshape(-1, 1, *kernel.shape[:2])
        return kernel.transpose(3, 2, 0, 1)

    @property
    def float_layer(self) -> FloatLayer:
        """The layer before quantisation, channels that never leave zero removed as the compiler does it."""
        low, high = self.value("stats/output_0/min"), self.value("stats/output_0/max")
        peaks = np.abs(self.value("stats/preact/min")), np.abs(self.value("stats/preact/max"))
        weight, bias = self.onnx_layout(self.value("kernel", "fpo")), self.value("bias", "fpo").reshape(-1)
        layer = FloatLayer(weight, bias, np.maximum(*peaks), low, high, self.activation, self.groups)
        if not all(v.shape == bias.shape for v in (low, high, layer.preactivation)) or len(weight) != len(bias):
            raise Unreadable("statistics and weights of different channel counts")
        return without_static_channels(layer) if self.kind in CONVOLUTIONS else layer

    @property
    def optimised(self) -> FloatLayer:
        """The same with the weights that the archive says were quantised, which its optimiser may have changed."""
        known = self.float_layer
        weight, bias = self.onnx_layout(self.value("kernel")), self.value("bias").reshape(-1)
        if weight.shape != known.weight.shape or bias.shape != known.bias.shape:
            raise Unreadable("weights whose shape the optimiser changed")
        return replace(known, weight=weight, bias=bias)

    @property
    def codes(self) -> np.ndarray:
        """Weight codes for the chip."""
        return self.onnx_layout(self.value("kernel", "q"))

    @property
    def kernel_scale(self) -> np.ndarray:
        """Of the weight codes, broadcasting with them."""
        codes, scale = self.codes, self.value("conv_op/kernel_scale").astype(np.float64)
        outputs, inputs = codes.shape[:2]
        tail = (1,) * (codes.ndim - 2)
        if scale.size == outputs * inputs:
            by_output = scale.reshape(outputs, 1) if self.kind == "dw" else scale.reshape(inputs, outputs).T
        elif scale.size in (1, outputs):
            by_output = np.broadcast_to(scale.reshape(-1, 1), (outputs, 1))
        else:
            raise Unreadable(f"kernel scales of shape {scale.shape}")
        return by_output.reshape(*by_output.shape, *tail)

    @property
    def input_scale(self) -> np.ndarray:
        """(I,) S_in."""
        return self.value("conv_op/input_scale:0").astype(np.float64).reshape(-1)

    @property
    def output(self) -> TensorCodes:
        """S_out by channel, zero point and bits."""
        scale = self.value("layer_params/output_scales").astype(np.float64).reshape(-1)
        zero_points = np.unique(self.value("layer_params/output_zero_points"))
        if len(zero_points) != 1:
            raise Unreadable("zero points that differ by channel")
        return TensorCodes(scale, int(zero_points[0]), self.output_bits)

    @property
    def span(self) -> float:
        """Width of the output range that the archive states."""
        low, high = self.value("limvals_out", "q")
        return float(high) - float(low)


@dataclass(frozen=True)
class Archive:
    """A folder with one network."""

    folder: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    def arrays(self, file: str) -> dict[str, np.ndarray]:
        """The arrays of one npz."""
        if file not in self._files:
            self._files[file] = self._read_arrays(self.folder / f"{file}.npz")
        return self._files[file]

    @cached_property
    def _files(self) -> dict[str, dict[str, np.ndarray]]:
        return {}

    def _read_arrays(self, path: Path) -> dict[str, np.ndarray]:
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except (OSError, ValueError) as exc:
            raise DataError(f"{path} cannot be read: {exc}; expected an unpacked quantised archive") from exc

    @cached_property
    def layers(self) -> dict[str, Layer]:
        """Name -> layer, in the archive's order."""
        path = self.folder / "hn.json"
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))["layers"]
            return {name: Layer(self, name, dict(entry)) for name, entry in entries.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
            raise DataError(f"{path} cannot be read: {exc!r}; expected an unpacked quantised archive") from exc

    @cached_property
    def normalised(self) -> bool:
        """Does the script normalise, so that the input is the picture itself?"""
        script = self.folder / "script.alls"
        named = script.is_file() and "normalization(" in script.read_text(encoding="utf-8")
        return named or any(layer.kind == "normalization" for layer in self.layers.values())

    def input_codes(self, layer: Layer, bits: int = 8) -> TensorCodes:
        """What the rules say about an input layer."""
        low, high = layer.value("stats/output_0/min").min(), layer.value("stats/output_0/max").max()
        return input_range(low, high, normalised=self.normalised, bits=bits)

    def readers(self, name: str) -> Iterator[Layer]:
        """The layers that read a tensor's values, past those that only move them."""
        for layer in self.layers.values():
            if name in layer.inputs:
                if layer.moves_codes and layer.kind != "output_layer":
                    yield from self.readers(layer.name)
                else:
                    yield layer

    def writer(self, name: str) -> Layer | None:
        """The layer that has written a tensor's values, past those that only move them."""
        layer = self.layers.get(name)
        while layer is not None and layer.moves_codes:
            layer = self.layers.get(layer.inputs[0]) if layer.inputs else None
        return layer
