"""Scales and zero points of the tensors between layers, as Hailo's compiler chooses them at level 0.

    S, zp    real = (code - zp) * S, codes 0..255 (8 bits) or 0..32767 ("16 bit" in a model script is 15)
    range    smallest and largest value over the calibration pictures, nothing clipped, zero always inside
    equalisation   a channel has a scale of its own where the function behind the layer is homogeneous
                   (f(a * x) = a * f(x) for a > 0) and the layer that reads the channel takes the factor back

Marks: [M] measured in archives of SDK 3.33 (hailo8, level 0), [I] inferred, not seen there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

LEVELS = {8: 255, 15: 32767}  # bits -> largest code of a tensor
SAME = 1e-5  # zero points that differ by less are float32 noise, so they are not rounded up
SMALLEST = 1e-30  # a narrower range belongs to a tensor that is always zero


@dataclass(frozen=True)
class Activation:
    """The facts that the rules need about the function between the accumulator and the output."""

    one_slope: bool  # linear where it is not zero: the output factor gets a 10-bit mantissa
    homogeneous: bool  # the same pieces serve channels of different scales: equalisation is possible
    fixed_range: tuple[float, float] | None = None  # used in place of the measured range


ACTIVATIONS = {
    "none": Activation(one_slope=True, homogeneous=True),  # [M] one_slope; [I] equalised when not an output
    "relu": Activation(one_slope=True, homogeneous=True),  # [M]
    "leaky_relu": Activation(one_slope=False, homogeneous=True),  # [I]
    "relu6": Activation(one_slope=True, homogeneous=False),  # [I]
    "sigmoid": Activation(one_slope=False, homogeneous=False, fixed_range=(0.0, 1.0)),  # [M] as the network's output
}
CURVE = Activation(one_slope=False, homogeneous=False)  # [I] SiLU and every other function


@dataclass(frozen=True)
class TensorCodes:
    """How a tensor is stored: real = (code - zero_point) * scale, codes 0..LEVELS[bits]."""

    scale: float | np.ndarray  # one number, or (C,) float64 by channel
    zero_point: int  # one number for all channels [M]
    bits: int = 8

    def raised(self, factor: float) -> TensorCodes:
        """The codes with every scale `factor` times as large: space for the accumulator of the next layer."""
        return TensorCodes(self.scale * factor, self.zero_point, self.bits)

    @property
    def span(self) -> tuple[float, float]:
        """The smallest and the largest value that any channel can hold."""
        largest = float(np.max(self.scale))
        return -self.zero_point * largest, (LEVELS[self.bits] - self.zero_point) * largest


def along_channels(scale: float | np.ndarray, ndim: int) -> np.ndarray:
    """A scale, or one a channel, as float32 that broadcasts with a tensor of `ndim` axes, channels along axis 1."""
    found = np.asarray(scale, np.float32)
    return found.reshape(-1, *[1] * (ndim - 2)) if found.ndim else found


def activation(name: str) -> Activation:
    """The properties of an activation; names that are not in ACTIVATIONS are curves of several slopes [I]."""
    return ACTIVATIONS.get(name, CURVE)


def output_range(low: float, high: float, bits: int = 8) -> TensorCodes:
    """The codes of a tensor with values low..high and one scale [M].

    The range is widened to hold zero. The zero point is rounded up and the upper end is kept, so the lower end
    moves out: -3..9 gives 63.75, so 64, and the scale 9 / (255 - 64) = 0.047120 reaches down to -3.0157.
    """
    levels = LEVELS[bits]
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    if high - low < SMALLEST:
        return TensorCodes(1.0 / levels, 0, bits)  # always zero [I]
    zero_point = zero_point_up(low, high, levels)
    return TensorCodes(step(low, high, levels, zero_point), zero_point, bits)


def zero_point_up(low: float, high: float, levels: int) -> int:
    """The code of zero in the range low <= 0 <= high, rounded up [M].

    Where the range has a positive part, that part keeps at least one code [I].
    """
    if high <= 0:
        return levels
    return min(math.ceil(-low / (high - low) * levels - SAME), levels - 1)


def step(low: float, high: float, levels: int, zero_point: int) -> float:
    """The scale with which both ends fit; the upper end decides, because the zero point is rounded up."""
    upper = high / (levels - zero_point) if high > 0 else 0.0
    return max(upper, -low / zero_point) if zero_point else upper


def input_range(low: float, high: float, *, normalised: bool, bits: int = 8) -> TensorCodes:
    """The codes of the network's input.

    With a normalization line in the script the input is the picture itself: 0..255, scale 1 [M]. Without one it is
    the measured range [M]. A 16-bit layer behind it reads the same range in 15 bits [M]; the stream stays uint8.
    """
    return output_range(0.0, 255.0, bits) if normalised else output_range(low, high, bits)


def equalised_scales(
    plain: np.ndarray, accumulated: np.ndarray, weight_peak: np.ndarray, reader_peak: np.ndarray
) -> np.ndarray:
    """Output scales by channel of a layer whose readers take the factor back [M].

    A finer scale rounds a channel's values less, but makes its weights larger in units of S_out, and all weights of
    the layer share one K. A coarser scale does the same to the reader's weights. The rule never makes the largest
    reader weight `limit` larger than plain scales do, and within it chooses the smallest weights:

        limit         max over channels of plain * reader_peak
        weight_limit  the smallest value that max |w| * S_in / S_out may be held to without passing `limit`
        floor         the largest scale that every channel may have without passing `limit`
        S_out = max(plain, weight_peak / weight_limit, min(floor, accumulated))

    The rule gives every channel of all ten equalised layers in three archives, to 4e-7. If several layers read a
    channel, the largest `reader_peak` counts; a depthwise reader counts like any other [I].

    Example: plain [1, 0.1], accumulated [1, 0.6], weight_peak [10, 4], reader_peak [1, 2]. limit = max(1, 0.2) = 1,
    weight_limit = max(10 * 1, 4 * 2) / 1 = 10, floor = 1 / 2. The first channel keeps 1; the second is raised from
    0.1 to max(0.4, 0.5) = 0.5, and its reader's weights, 2 * 0.5, just reach the limit.

    Args:
        plain: (C,) range of each channel's output / levels; zero for a channel that is always zero.
        accumulated: (C,) largest |pre-activation| / levels.
        weight_peak: (C,) largest |weight * S_in|.
        reader_peak: (C,) largest |weight| with which the next layer reads the channel.

    Returns:
        (C,) float64 S_out, positive.
    """
    plain, accumulated, weight_peak, reader_peak = (
        np.asarray(v, np.float64) for v in (plain, accumulated, weight_peak, reader_peak)
    )
    limit = float((plain * reader_peak).max())
    scales = plain
    if limit > 0:
        floor = limit / reader_peak.max()
        weight_limit = (weight_peak * reader_peak).max() / limit
        scales = np.maximum(plain, np.minimum(floor, accumulated))
        if weight_limit > 0:
            scales = np.maximum(scales, weight_peak / weight_limit)
    largest = float(scales.max())
    return np.where(scales > 0, scales, largest if largest > 0 else 1.0)


def plain_scales(low: np.ndarray, high: np.ndarray, bits: int = 8) -> tuple[np.ndarray, int]:
    """The scale that each channel would need by itself, with the zero point that the whole tensor has.

    Behind ReLU that is high / levels [M]; with values below zero no equalised layer has been seen [I].

    Args:
        low, high: (C,) smallest and largest output of each channel.
    """
    low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    levels = LEVELS[bits]
    zero_point = output_range(float(low.min()), float(high.max()), bits).zero_point
    upper = high / (levels - zero_point) if zero_point < levels else np.zeros_like(high)
    lower = -low / zero_point if zero_point else np.zeros_like(low)
    return np.maximum(upper, lower), zero_point
