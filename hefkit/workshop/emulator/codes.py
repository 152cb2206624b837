"""How tensors and weights are stored as codes: scale and zero point of a tensor, one scale a channel of a weight.

A tensor has unsigned codes; its range is the minimum and maximum, or the one that loses least on a histogram. A weight
has signed, symmetric codes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from hefkit.spec import CODE_DTYPES
from hefkit.workshop.network.graph import attribute

STEPS = 48  # candidates for each end of a range
SMALLEST = 0.05  # of the range seen; less would clip what the picture consists of
ROUNDS = 2  # the two ends are searched in turn
# of weights, bits -> largest code; symmetric, so 255 or 65,535 levels
LARGEST = {8: 127, 16: 32767}
CODE_DTYPE = {8: np.int8, 16: np.int16}


@dataclass(frozen=True)
class Quantization:
    """How one tensor is stored: real = (code - zero_point) * scale."""

    scale: float  # a float32 value
    zero_point: int
    dtype: str = "uint8"

    @property
    def largest(self) -> int:
        """The largest code."""
        return CODE_DTYPES[self.dtype]


def from_range(low: float, high: float, dtype: str = "uint8") -> Quantization:
    """The codes that cover [low, high] and zero, which padding needs to be exact."""
    low, high = min(low, 0.0), max(high, 0.0)
    if high - low < 1e-30:
        high = 1.0  # a tensor that is always zero
    scale = np.float32((high - low) / CODE_DTYPES[dtype])
    return Quantization(float(scale), int(np.clip(np.rint(-low / scale), 0, CODE_DTYPES[dtype])), dtype)


def search(low: float, high: float, histogram: np.ndarray) -> Quantization:
    """8-bit codes with the least squared error on a histogram over [low, high] (clipping and rounding together)."""
    if high - low < 1e-30 or not histogram.any():
        return from_range(low, high)
    bottom, top = min(low, 0.0), max(high, 0.0)
    shares = np.linspace(SMALLEST, 1.0, STEPS)
    lower = upper = 1.0

    def error(share_low: float, share_high: float) -> float:
        return squared_error(from_range(bottom * share_low, top * share_high), low, high, histogram)

    for _ in range(ROUNDS):
        if top > 0:
            upper = min(shares, key=lambda s: error(lower, s))
        if bottom < 0:
            lower = min(shares, key=lambda s: error(s, upper))
    return from_range(bottom * lower, top * upper)


def squared_error(q: Quantization, low: float, high: float, histogram: np.ndarray) -> float:
    """Sum over a histogram on [low, high] of count * (stored - exact) ** 2, clipping and rounding together."""
    centres = low + (np.arange(len(histogram)) + 0.5) * ((high - low) / len(histogram))
    codes = np.clip(np.rint(centres / q.scale) + q.zero_point, 0, q.largest)
    return float((((codes - q.zero_point) * q.scale - centres) ** 2 * histogram).sum())


@dataclass(frozen=True)
class QuantizedWeight:
    """codes * scale along `axis` is the weight."""

    codes: np.ndarray  # int8 or int16, the shape of the weight
    scale: np.ndarray  # (channels,) float32
    axis: int

    def real(self) -> np.ndarray:
        """The float32 weight that the codes stand for."""
        return (self.codes.astype(np.float32) * along(self.scale, self.axis, self.codes.ndim)).astype(np.float32)

    def scaled(self, gain: np.ndarray) -> QuantizedWeight:
        """The same codes with every output channel multiplied by `gain`: costs no precision."""
        return QuantizedWeight(self.codes, (self.scale * gain).astype(np.float32), self.axis)


def quantize_weight(weight: np.ndarray, axis: int, bits: int = 8) -> QuantizedWeight:
    """One scale a channel of `axis`, from its largest magnitude."""
    others = tuple(a for a in range(weight.ndim) if a != axis)
    peak = np.abs(weight).max(axis=others).astype(np.float32)
    scale = np.where(peak > 0, peak / np.float32(LARGEST[bits]), np.float32(1)).astype(np.float32)
    codes = np.rint(weight / along(scale, axis, weight.ndim))
    return QuantizedWeight(np.clip(codes, -LARGEST[bits], LARGEST[bits]).astype(CODE_DTYPE[bits]), scale, axis)


def along(values: np.ndarray, axis: int, ndim: int) -> np.ndarray:
    """(n,) -> shape that broadcasts along `axis` of an `ndim` array."""
    return values.reshape([-1 if a == axis else 1 for a in range(ndim)])


def output_axis(node: onnx.NodeProto, weight: np.ndarray) -> int | None:
    """The axis of a weight that counts output channels; None where several groups share it."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1 if attribute(node, "group", 1) == 1 else None
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return weight.ndim - 1  # MatMul
