"""Writes a small quantised archive in the form of Hailo's compiler, so that its reader is tested without theirs.

The integers come from our own arithmetic: this proves that layouts are read, not that the compiler counts this way.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hefkit.workshop.emulator.arithmetic import FloatLayer, layer_numbers
from hefkit.workshop.emulator.scales import TensorCodes
from tests.helpers.hailo_archive import ACTIVATIONS


@dataclass(frozen=True)
class ToyLayer:
    """One layer: kind and activation in the compiler's words, the kernel's shape in ONNX's layout."""

    name: str
    kind: str
    reads: str = ""
    shape: tuple[int, ...] = ()
    activation: str = "relu"
    groups: int = 1
    bits: int = 8


CHAIN = (
    ToyLayer("input_layer1", "input_layer", shape=(3,)),
    ToyLayer("conv1", "conv", "input_layer1", (8, 3, 3, 3)),
    ToyLayer("dw1", "dw", "conv1", (8, 1, 3, 3), groups=8),
    ToyLayer("maxpool1", "maxpool", "dw1"),
    ToyLayer("conv2", "conv", "maxpool1", (6, 4, 1, 1), "linear", groups=2),
    ToyLayer("conv3", "conv", "conv2", (5, 6, 1, 1), "silu"),
    ToyLayer("fc1", "dense", "conv3", (4, 20), bits=15),
    ToyLayer("fc2", "dense", "fc1", (2, 4), "sigmoid"),
    ToyLayer("output_layer1", "output_layer", "fc2"),
)


def write_archive(folder: Path, layers: Sequence[ToyLayer] = CHAIN, seed: int = 0) -> Path:
    """A folder with hn.json, fpo.npz, ho.npz and q.npz; scales by channel are random."""
    rng = np.random.default_rng(seed)
    files: dict[str, dict[str, np.ndarray]] = {"fpo": {}, "ho": {}, "q": {}}
    scales: dict[str, np.ndarray] = {}
    for layer in layers:
        if not layer.shape:
            scales[layer.name] = scales.get(layer.reads, np.ones(1))
            continue
        outputs = layer.shape[0]
        scales[layer.name] = (rng.uniform(0.01, 0.05) * rng.uniform(1, 3, outputs)).astype(np.float32)
        if layer.kind == "input_layer":
            scales[layer.name][:] = scales[layer.name][0]
            _write(files["ho"], layer.name, _range_of(scales[layer.name]))
            continue
        _write_weighted(files, layer, scales, rng)
    folder.mkdir(parents=True, exist_ok=True)
    entries = {
        f"toy/{n.name}": {
            "type": n.kind,
            "input": [f"toy/{n.reads}"] if n.reads else [],
            "params": {"activation": n.activation, "groups": n.groups if n.kind == "conv" else 1},
        }
        for n in layers
    }
    (folder / "hn.json").write_text(json.dumps({"layers": entries}))
    for name, arrays in files.items():
        np.savez(folder / f"{name}.npz", **arrays)
    return folder


def _write_weighted(
    files: dict[str, dict[str, np.ndarray]], layer: ToyLayer, scales: dict[str, np.ndarray], rng: np.random.Generator
) -> None:
    outputs = layer.shape[0]
    inputs = np.tile(scales[layer.reads], layer.shape[1] * layer.groups // len(scales[layer.reads]))
    weight = rng.normal(0, 0.3, layer.shape).astype(np.float32)
    bias = rng.normal(0, 0.2, outputs).astype(np.float32)
    scale = np.full(outputs, 1 / 255, np.float32) if layer.activation == "sigmoid" else scales[layer.name]
    function = ACTIVATIONS.get(layer.activation, layer.activation)
    known = FloatLayer(weight, bias, scale * 300, np.zeros(outputs), scale * 255, function, layer.groups)
    output = TensorCodes(scale.astype(np.float64), 0)
    found = layer_numbers(known, inputs, layer.bits, output=output)
    _write(files["fpo"], layer.name, {"kernel": _hailo_layout(layer, weight), "bias": bias})
    _write(
        files["q"],
        layer.name,
        {
            "kernel": _hailo_layout(layer, found.codes),
            "bias": found.bias_codes,
            "limvals_out": np.float32([0, 255 * scale.max()]),
        },
    )
    ratio = scale[:, None] / inputs.reshape(layer.groups, -1).repeat(outputs // layer.groups, axis=0)
    kernel_scale = found.k[:, None] * ratio
    _write(
        files["ho"],
        layer.name,
        {
            **_range_of(scale),
            "kernel": _hailo_layout(layer, weight),
            "bias": bias,
            "stats/preact/min": -scale * 300,
            "stats/preact/max": scale * 255,
            "conv_op/mac_shift": np.float32(found.mac_shift),
            "conv_op/weight_bits": np.float32(layer.bits),
            "conv_op/kernel_scale": kernel_scale if layer.kind == "dw" else kernel_scale.T,
            "conv_op/kernel_zero_point": np.float32(found.kernel_zero_point),
            "conv_op/input_scale:0": inputs,
            "conv_op/input_zero_point:0": np.float32(0),
            "bias_add_op/bias_factor_0": np.float32(found.bias_factor),
            "act_op/output_bits:0": np.float32(8),
            "layer_params/output_scales": scale[None],
            "layer_params/output_zero_points": np.zeros((1, outputs)),
        },
    )


def _range_of(scale: np.ndarray) -> dict[str, np.ndarray]:
    return {"stats/output_0/min": np.zeros_like(scale), "stats/output_0/max": scale * 255}


def _hailo_layout(layer: ToyLayer, weight: np.ndarray) -> np.ndarray:
    if layer.kind == "dense":
        return weight.T
    return weight.transpose(2, 3, 0, 1) if layer.kind == "dw" else weight.transpose(2, 3, 1, 0)


def _write(arrays: dict[str, np.ndarray], layer: str, values: dict[str, np.ndarray]) -> None:
    arrays.update({f"toy/{layer}/{key}:0": np.asarray(value) for key, value in values.items()})
