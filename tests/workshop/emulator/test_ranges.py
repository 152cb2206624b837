"""From what was seen to scale and zero point."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hefkit.detect.quant import dequantize, quantize
from hefkit.workshop.emulator.codes import Quantization, from_range, search, squared_error

number = st.floats(-1e6, 1e6, width=32).filter(lambda x: x == 0 or abs(x) > 1e-6)
dtype = st.sampled_from(["uint8", "uint16"])


def real(q: Quantization, values: np.ndarray) -> np.ndarray:
    """Values after the way to codes and back."""
    return dequantize(quantize(values, q.scale, q.zero_point, q.dtype), q.scale, q.zero_point)


@given(number, number, dtype)
@settings(max_examples=150, deadline=None)
def test_zero_is_exact_and_the_ends_are_kept(a: float, b: float, dtype: str) -> None:
    """Whatever the range: padding's zero survives, and no value in it is off by more than a step.

    Half a step is rounding; another half because the zero point is rounded, too, which moves the ends.
    """
    low, high = min(a, b), max(a, b)
    q = from_range(low, high, dtype)

    assert 0 <= q.zero_point <= q.largest == np.iinfo(dtype).max
    assert real(q, np.zeros(1))[0] == 0.0
    values = np.linspace(low, high, 101, dtype=np.float32)
    assert (np.abs(real(q, values) - values) <= q.scale * (1 + 1e-3)).all()


RANGES = {
    # scale = (high - low) / 255, zero point = -low / scale
    "positive": ((0.0, 255.0), (1.0, 0)),
    "positive without zero": ((51.0, 255.0), (1.0, 0)),
    "negative": ((-255.0, 0.0), (1.0, 255)),
    "negative without zero": ((-255.0, -51.0), (1.0, 255)),
    "both": ((-55.0, 200.0), (1.0, 55)),
    "probability": ((0.0, 1.0), (float(np.float32(1 / 255)), 0)),
    "always zero": ((0.0, 0.0), (float(np.float32(1 / 255)), 0)),
    "constant above": ((5.1, 5.1), (float(np.float32(5.1 / 255)), 0)),
    "constant below": ((-5.1, -5.1), (float(np.float32(5.1 / 255)), 255)),
}


@pytest.mark.parametrize("span, expected", RANGES.values(), ids=RANGES.keys())
def test_ranges_by_hand(span: tuple[float, float], expected: tuple[float, int]) -> None:
    """Scale and zero point; a constant is stored exactly but for float32."""
    q = from_range(*span)

    assert (q.scale, q.zero_point, q.dtype) == (*expected, "uint8")
    if span[0] == span[1]:
        np.testing.assert_allclose(real(q, np.array([span[0]])), [span[0]], rtol=1e-6)


def test_the_scale_is_a_float32() -> None:
    """The ONNX stores float32; a scale that only float64 can hold would differ from the spec's."""
    q = from_range(-0.1, 0.7)

    assert q.scale == float(np.float32(q.scale))


@given(number, number, st.integers(0, 2**32), st.sampled_from([0.0, 0.5, 4.0]))
@settings(max_examples=40, deadline=None)
def test_the_search_is_never_worse_than_min_max(a: float, b: float, seed: int, spread: float) -> None:
    """In squared error, on the histogram it was given, even or with far outliers; zero stays exact."""
    low, high = min(a, b), max(a, b)
    assume(high - low > 1e-3)
    counts = np.random.default_rng(seed).lognormal(0, spread, 2048)

    found = search(low, high, counts)

    plain = squared_error(from_range(low, high), low, high, counts)
    assert squared_error(found, low, high, counts) <= plain * (1 + 1e-9)
    assert real(found, np.zeros(1))[0] == 0.0
    assert found.scale <= from_range(low, high).scale * (1 + 1e-6)


def test_a_lone_outlier_is_clipped() -> None:
    """Ten million values in 0..1 and one at 100.

    Kept, it makes steps of 0.39 and a squared error of 10^7 * 0.39^2 / 12 = 127,000; clipped at 20 it costs
    80^2 = 6,400, and the others 10^7 * 0.078^2 / 12 = 5,100.
    """
    values = np.linspace(0, 1, 100_000)
    histogram = 100.0 * np.histogram(values, bins=2048, range=(0, 100))[0]
    histogram[-1] = 1

    found = search(0.0, 100.0, histogram)

    assert found.scale < 0.5 * 100 / 255
    assert np.mean((real(found, values) - values) ** 2) < np.mean((real(from_range(0, 100), values) - values) ** 2)


def test_an_even_spread_is_not_clipped() -> None:
    """Where every value is as frequent as every other the whole range pays."""
    found = search(0.0, 100.0, np.ones(2048))

    assert found.scale == pytest.approx(100 / 255, rel=0.03)


@pytest.mark.parametrize(
    ("span", "histogram"),
    [((2.0, 2.0), np.ones(2048)), ((0.0, 0.0), np.zeros(2048)), ((-1.0, 3.0), np.zeros(2048))],
    ids=["constant", "always zero", "nothing counted"],
)
def test_without_anything_to_search_it_is_min_max(span: tuple[float, float], histogram: np.ndarray) -> None:
    """A constant tensor, an empty histogram."""
    assert search(*span, histogram) == from_range(*span)


def test_squared_error_by_hand() -> None:
    """Two bins on [0, 2]: centres 0.5 and 1.5. With step 1 both fall half way, to the even codes 0 and 2.

    Counts 3 and 1: 3 * 0.25 + 1 * 0.25 = 1. Clipped at 1 the second is off by 0.5 as well.
    """
    assert squared_error(Quantization(1.0, 0), 0.0, 2.0, np.array([3.0, 1.0])) == 1.0
    # step 0.001: the largest value is 0.255, so 0.5 loses 0.245 and 1.5 loses 1.245
    expected = 3 * 0.245**2 + 1.245**2
    assert squared_error(Quantization(0.001, 0), 0.0, 2.0, np.array([3.0, 1.0])) == pytest.approx(expected)
