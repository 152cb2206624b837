"""Weights as the chip stores them: signed codes with one scale per output channel, -127..127."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from hefkit.workshop.network.graph import attribute

LARGEST = {8: 127, 16: 32767}  # bits -> largest code; symmetric, so 255 or 65,535 levels
CODE_DTYPE = {8: np.int8, 16: np.int16}


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
