"""What the range of a tensor's values says: probabilities behind a sigmoid, logits, or neither."""

from __future__ import annotations

from hefkit.hef.streams import VStream

TOLERANCE = 0.02  # how far the codes of a probability may reach beyond its ends, by rounding
DOUBLED = 2.0  # upper end after an overflow: the compiler doubles the scale (2/255)
LARGEST = {"uint8": 255, "uint16": 32767}  # largest code that the compiler uses: its "16 bit" are 15
LOGITS_REACH = -1.0  # the values of logits begin below this: those of the background are far below 0


def is_probability(low: float, high: float) -> bool:
    """Whether all values of a tensor are probabilities, from the least and the greatest that it holds or can hold.

    The compiler gives a sigmoid the range 0 to 1 (scale 1/255). Older releases give it the measured range (scale
    0.00343: 0 to 0.875). After an overflow the range is doubled (2/255). 15-bit codes have the scale 1/32767.

        is_probability(0, 0.875), is_probability(0, 2)      True
        is_probability(-8, 8), is_probability(0, 1.5)       False
    """
    return low >= -TOLERANCE and (high <= 1 + TOLERANCE or abs(high - DOUBLED) <= TOLERANCE)


def activation_of(low: float, high: float) -> tuple[str, str]:
    """What has been applied to a class tensor whose codes span this range, and why.

    Returns:
        ("sigmoid", reason), ("none", reason) for logits, or ("", reason) where the range fits neither.
    """
    span = f"values from {low:.3g} to {high:.3g}"
    if is_probability(low, high):
        return "sigmoid", f"{span}, which are probabilities"
    if low <= LOGITS_REACH:
        return "none", f"{span}, which are logits"
    return "", f"{span}, which are neither probabilities nor logits"


def value_range(stream: VStream) -> tuple[float, float]:
    """The least and the greatest value that the codes of a stream with a scale can stand for."""
    most = LARGEST[stream.dtype]
    scales, zeros = (v if isinstance(v, tuple) else (v or 0.0,) for v in (stream.scale, stream.zero_point))
    count = max(len(scales), len(zeros))
    pairs = list(zip(_repeated(scales, count), _repeated(zeros, count), strict=True))
    return min((0 - zero) * scale for scale, zero in pairs), max((most - zero) * scale for scale, zero in pairs)


def _repeated(values: tuple[float, ...], count: int) -> tuple[float, ...]:
    return values if len(values) == count else values * count
