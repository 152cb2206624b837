"""From statistics to scale and zero point: the search for the range that loses least."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hefkit.spec import CODE_DTYPES

STEPS = 48  # candidates for each end of a range
SMALLEST = 0.05  # of the range seen; less would clip what the picture consists of
ROUNDS = 2  # the two ends are searched in turn


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
