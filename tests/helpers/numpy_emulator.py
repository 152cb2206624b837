"""A second emulation in plain numpy: the expected result for the emulated ONNX of a `tiny_yolo`.

`NumpyEmulation` has the methods of `Net`, so `backbone()` and `heads()` build it like any other toy; but where `Net`
adds nodes, it computes arrays. The places where it rounds are written by hand: after a convolution with its activation,
after an Add, after a Concat, and nowhere else. From the emulated model it takes only numbers: weight codes, steps and
bias of the k-th layer, scale and zero point of the k-th rounding point. Both lists must be used up exactly. How many
codes there are, and what the chip computes for a sigmoid, is written here a second time.

Every layer gets the input codes of the emulated model (`found`). Otherwise one sum that rounds to the other side, which
another order of summing can cause, would change all later layers, and the comparison would measure how a toy with
random weights amplifies noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from tests.helpers.onnx_net import backbone, heads

WEIGHTED = ("Conv", "ConvTranspose")
LARGEST = {"uint8": 255, "uint16": 32767}  # "16 bit" has 15
# the chip's sigmoid right of zero: where its straight pieces end, and how steep they are; it is flat behind
ENDS = (0.0, 0.9916401505470276, 1.9061697721481323, 3.0992729663848877, 5.537334442138672)
SLOPES = (0.2341219186782837, 0.15622302889823914, 0.07317875325679779, 0.016277799382805824)


@dataclass(frozen=True)
class Rounding:
    """One QuantizeLinear: its numbers and the name of its output."""

    scale: np.ndarray  # () float32, or (C,) where every channel has its own
    zero_point: int
    largest: int
    codes: str

    @property
    def step(self) -> np.ndarray:
        """() or (C, 1, 1), for tensors (C, H, W)."""
        return self.scale.reshape(-1, 1, 1) if self.scale.ndim else self.scale


@dataclass(frozen=True)
class Layer:
    """One weighted node: integer codes, the code of zero, steps that broadcast with the codes, a float bias."""

    codes: np.ndarray
    zero_point: int
    step: np.ndarray
    bias: np.ndarray | None

    @property
    def real(self) -> np.ndarray:
        """The weight that the codes stand for, float32."""
        return (self.codes.astype(np.float32) - np.float32(self.zero_point)) * self.step

    def add_bias(self, sums: np.ndarray) -> np.ndarray:
        """Sums (O, H, W) with the bias."""
        return sums if self.bias is None else sums + self.bias[:, None, None]


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Every initializer of a model."""
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def roundings(model: onnx.ModelProto) -> list[Rounding]:
    """The rounding points of an emulated model, in the order of the graph."""
    values = constants(model)
    found = []
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            scale, zero = values[node.input[1]], values[node.input[2]]
            assert scale.dtype == np.float32 and zero.shape == scale.shape and np.unique(zero).size == 1
            found.append(Rounding(scale, int(zero.flat[0]), LARGEST[zero.dtype.name], node.output[0]))
    return found


def layers(model: onnx.ModelProto) -> list[Layer]:
    """The weighted layers of an emulated model, in the order of the graph."""
    values = constants(model)
    producer = {node.output[0]: node for node in model.graph.node}
    found = []
    for node in model.graph.node:
        if node.op_type in WEIGHTED:
            weight, step = producer[node.input[1]], np.float32(1)
            while weight.op_type == "Mul":
                step = step * values[weight.input[1]]
                weight = producer[weight.input[0]]
            assert weight.op_type == "DequantizeLinear"
            codes, scale, zero = (values[name] for name in weight.input)
            assert scale.ndim == zero.ndim == 0 and codes.dtype == zero.dtype
            bias = values[node.input[2]] if len(node.input) > 2 else None
            found.append(Layer(codes, int(zero), np.asarray(step * scale, np.float32), bias))
    return found


class NumpyEmulation:
    """One picture through a toy's structure; tensors are (C, H, W) float32 under a name, as in `Net`."""

    def __init__(
        self,
        emulated: onnx.ModelProto,
        picture: np.ndarray,  # (H, W, 3) uint8
        found: Mapping[str, np.ndarray],  # rounding point -> codes of the emulated model, (1, C, H, W)
        mean: Sequence[float] = (0, 0, 0),
        std: Sequence[float] = (255, 255, 255),
        logits: bool = False,
    ) -> None:
        self.layers, self.roundings = layers(emulated), roundings(emulated)
        self.logits = logits
        self._found = found
        self._ends = 0
        self.codes: dict[str, np.ndarray] = {}  # name in the emulated model -> (C, H, W)
        self.arrays: dict[str, np.ndarray] = {}
        self.channels: dict[str, int] = {}
        normal = (picture.astype(np.float32) - np.float32(mean)) / np.float32(std)
        self.arrays["images"] = normal.transpose(2, 0, 1)

    def run(self, strides: Sequence[int], width: int, box_channels: int, classes: int) -> list[np.ndarray]:
        """Codes of the outputs, (H, W, C) each, box and cls of every stride; fills `codes` for every rounding point."""
        pairs = heads(self, backbone(self, strides, width), box_channels, classes)  # type: ignore[arg-type]
        outputs = {}
        for box, cls in pairs:  # the class tensors' sigmoids are at the end of the graph
            outputs[box] = self.arrays[box]
            outputs[cls] = self.arrays[cls] if self.logits else self._round(chip_sigmoid(self.arrays[cls]))
        assert not self.layers and not self.roundings, "the emulated model has more layers or rounding points"
        return [outputs[name].transpose(1, 2, 0) for pair in pairs for name in pair]

    # --- the methods of Net ---

    def conv(self, x: str, out: int, k: int = 1, stride: int = 1, groups: int = 1) -> str:
        """A Conv without activation ends a head: a box and a class tensor in turn. `block` makes the other Convs."""
        y = self._layer(x, out, k, stride, groups)
        self._ends += 1
        is_class = self._ends % 2 == 0
        return y if is_class and not self.logits else self._new(self._round(self.arrays[y]))

    def _layer(self, x: str, out: int, k: int, stride: int, groups: int) -> str:
        layer = self.layers.pop(0)
        assert layer.codes.shape == (out, self.channels[x] // groups, k, k)
        return self._new(layer.add_bias(convolve(self.arrays[x], layer.real, stride, k // 2, groups)))

    def silu(self, x: str) -> str:
        value = self.arrays[x]
        return self._new(self._real(value * _sigmoid(value)))

    def block(self, x: str, out: int, k: int = 3, stride: int = 1, groups: int = 1) -> str:
        return self.silu(self._layer(x, out, k, stride, groups))

    def add(self, a: str, b: str) -> str:
        return self._new(self._real(self.arrays[a] + self.arrays[b]))

    def concat(self, *parts: str, axis: int = 1) -> str:
        assert axis == 1
        return self._new(self._real(np.concatenate([self.arrays[p] for p in parts])))

    def split(self, x: str, sizes: Sequence[int], axis: int) -> list[str]:
        assert axis == 1
        return [self._new(part) for part in np.split(self.arrays[x], np.cumsum(sizes)[:-1])]

    def op(self, kind: str, x: str, **attributes: object) -> str:
        """The only other operation of the backbone: max pooling 3x3, stride 1."""
        assert (kind, attributes["kernel_shape"], attributes["pads"]) == ("MaxPool", [3, 3], [1, 1, 1, 1])
        padded = np.pad(self.arrays[x], ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
        return self._new(np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2)).max(axis=(3, 4)))

    def upsample(self, x: str) -> str:
        return self._new(self.arrays[x].repeat(2, axis=1).repeat(2, axis=2))

    def rename(self, tensor: str, name: str) -> str:
        self.arrays[name] = self.arrays[tensor]
        return name

    def known(self, tensor: str, channels: int) -> str:
        self.channels[tensor] = channels
        return tensor

    # --- rounding ---

    def _round(self, value: np.ndarray) -> np.ndarray:
        point = self.roundings.pop(0)
        codes = np.rint(value.astype(np.float32) / point.step) + point.zero_point
        self.codes[point.codes] = np.clip(codes, 0, point.largest)
        self._last = point
        return self._found[point.codes][0]

    def _real(self, value: np.ndarray) -> np.ndarray:
        codes = self._round(value)
        return (codes.astype(np.float32) - np.float32(self._last.zero_point)) * self._last.step

    def _new(self, value: np.ndarray) -> str:
        name = f"n{len(self.arrays)}"
        self.arrays[name] = value
        self.channels[name] = len(value)
        return name


class TransposedEmulation(NumpyEmulation):
    """For toys whose upsampling is a ConvTranspose of 2x2, stride 2."""

    def upsample(self, x: str) -> str:
        layer, value = self.layers.pop(0), self.arrays[x].astype(np.float64)
        assert layer.codes.shape == (self.channels[x], self.channels[x], 2, 2)
        height, width = value.shape[1:]
        y = np.empty((self.channels[x], 2 * height, 2 * width))
        for dy in (0, 1):
            for dx in (0, 1):
                y[:, dy::2, dx::2] = np.einsum("io,ihw->ohw", layer.real[:, :, dy, dx], value)
        return self._new(self._real(layer.add_bias(y).astype(np.float32)))


class ReluEmulation(NumpyEmulation):
    """For toys with ReLU in place of SiLU."""

    def silu(self, x: str) -> str:
        return self._new(self._real(np.maximum(self.arrays[x], 0)))


def convolve(x: np.ndarray, weight: np.ndarray, stride: int, pad: int, groups: int) -> np.ndarray:
    """(I, H, W) with (O, I / groups, k, k) -> (O, H', W') float32, summed in float64."""
    out, _, k, _ = weight.shape
    padded = np.pad(x.astype(np.float64), ((0, 0), (pad, pad), (pad, pad)))
    height, width = ((side + 2 * pad - k) // stride + 1 for side in x.shape[1:])
    table = weight.astype(np.float64).reshape(groups, out // groups, -1, k, k)
    total = np.zeros((groups, out // groups, height, width))
    for dy in range(k):
        for dx in range(k):
            seen = padded[:, dy : dy + stride * height : stride, dx : dx + stride * width : stride]
            total += np.einsum("goi,gihw->gohw", table[..., dy, dx], seen.reshape(groups, -1, height, width))
    return total.reshape(out, height, width).astype(np.float32)


def chip_sigmoid(x: np.ndarray) -> np.ndarray:
    """Nine straight pieces, point-symmetric about (0, 0.5); a little above 1 and below 0 outside, which no code is."""
    rise = np.cumsum([0.0, *np.multiply(SLOPES, np.diff(ENDS))])
    ends, rise = np.concatenate([-np.flip(ENDS), ENDS]), np.concatenate([-np.flip(rise), rise])
    return (0.5 + np.interp(x.astype(np.float64), ends, rise)).astype(np.float32)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return (1 / (1 + np.exp(-x.astype(np.float64)))).astype(np.float32)
