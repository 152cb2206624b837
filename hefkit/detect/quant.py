"""Codes and real values: real = (code - zero_point) * scale, in float32, as HailoRT computes it.

The formula is from hailort/include/hailo/quantization.hpp of HailoRT 4.23. Quantising rounds half to even and
saturates, as ONNX QuantizeLinear and HailoRT do.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def dequantize(codes: np.ndarray, scale: float | Sequence[float], zero_point: float | Sequence[float]) -> np.ndarray:
    """Codes (..., C) of any unsigned type -> float32 (..., C); scale and zero point: one number, or C."""
    zero = np.asarray(zero_point, np.float32)
    return (codes.astype(np.float32) - zero) * np.asarray(scale, np.float32)


def quantize(real: np.ndarray, scale: float, zero_point: int, dtype: str) -> np.ndarray:
    """Real values -> uint8 or uint16 codes, rounded half to even and saturated."""
    codes = np.rint(np.asarray(real, np.float32) / np.float32(scale)) + np.float32(zero_point)
    return np.clip(codes, 0, np.iinfo(dtype).max).astype(dtype)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Logistic function in float32, without overflow warnings at either end."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e)).astype(np.float32)
