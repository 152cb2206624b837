"""Scale and zero point from what was seen, and weights as signed codes with one scale a channel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import helper

from hefkit.detect.quant import dequantize, quantize
from hefkit.workshop.emulator.codes import (
    Quantization,
    from_range,
    output_axis,
    quantize_weight,
    search,
    squared_error,
)

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


@pytest.mark.parametrize("zero_point", [0, 1, 2, 254])
def test_squared_error_with_a_zero_point(zero_point: int) -> None:
    """Four bins on [-2, 2]: centres -1.5, -0.5, 0.5, 1.5. The step is 1; codes reach from -zero_point to 255 - it.

    Half way, codes are even: -2, 0, 0, 2, each off by 0.5. Zero point 0: both negative centres are clipped at 0 and off
    by 1.5 and 0.5; zero point 1: the first is clipped at -1, off by 0.5. 254: the last is clipped at 1, off by 0.5.
    """
    histogram = np.array([1.0, 2.0, 4.0, 8.0])
    off = [1.5 if zero_point == 0 else 0.5, 0.5, 0.5, 0.5]

    error = squared_error(Quantization(1.0, zero_point), -2.0, 2.0, histogram)

    assert error == sum(count * o**2 for count, o in zip(histogram, off, strict=True))


def test_squared_error_is_clipped_at_both_ends() -> None:
    """Step 0.001, zero point 100: codes reach from -0.1 to 0.155."""
    error = squared_error(Quantization(0.001, 100), -2.0, 2.0, np.array([1.0, 2.0, 4.0, 8.0]))

    assert error == pytest.approx(1.4**2 + 2 * 0.4**2 + 4 * 0.345**2 + 8 * 1.345**2)


# --- weights ----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.sampled_from([8, 16]), st.sampled_from([0, 1]))
@settings(max_examples=100, deadline=None)
def test_every_channel_has_its_own_levels(seed: int, bits: int, axis: int) -> None:
    """Codes are symmetric, the largest magnitude takes the last one, and no weight is off by more than half a step."""
    rng = np.random.default_rng(seed)
    weight = (rng.normal(0, 1, (3, 5, 2, 2)) * rng.uniform(1e-3, 1e3, (3, 5, 1, 1))).astype(np.float32)
    found = quantize_weight(weight, axis, bits)

    last = 2 ** (bits - 1) - 1
    assert found.codes.dtype == np.dtype(f"int{bits}") and found.codes.shape == weight.shape
    assert found.scale.shape == (weight.shape[axis],) and found.scale.dtype == np.float32
    channels = np.moveaxis(found.codes, axis, 0).reshape(weight.shape[axis], -1).astype(int)
    assert (np.abs(channels).max(axis=1) == last).all()
    errors = np.moveaxis(np.abs(found.real().astype(np.float64) - weight), axis, 0).reshape(weight.shape[axis], -1)
    # half a step, and what float32 loses in a division and a product: with 16 bit that is no longer nothing
    lost = (
        2 * np.finfo(np.float32).eps * np.abs(np.moveaxis(weight, axis, 0)).reshape(weight.shape[axis], -1).max(axis=1)
    )
    assert (errors.max(axis=1) <= found.scale.astype(np.float64) * 0.5 + lost).all()


def test_codes_by_hand() -> None:
    """Peaks 1.27 and 2.54: steps of 0.01 and 0.02."""
    weight = np.float32([[1.27, -0.5, 0.004], [0.02, -2.54, 0.05]])
    found = quantize_weight(weight, 0)

    np.testing.assert_allclose(found.scale, [0.01, 0.02], rtol=1e-6)
    assert found.codes[0].tolist() == [127, -50, 0]
    assert found.codes[1].tolist()[:2] == [1, -127]


def test_a_channel_of_zeros() -> None:
    """A pruned channel gets scale 1 and codes 0, not a division by zero."""
    found = quantize_weight(np.float32([[0, 0], [1, -1]]), 0)

    assert found.scale[0] == 1 and not found.codes[0].any()
    np.testing.assert_allclose(found.real(), [[0, 0], [1, -1]])


def test_scaling_costs_no_precision() -> None:
    """A gain goes into the scales; the codes stay."""
    weight = np.random.default_rng(0).normal(0, 1, (4, 3, 1, 1)).astype(np.float32)
    found = quantize_weight(weight, 0)
    gain = np.array([0.5, 1, 2, 1.25])

    scaled = found.scaled(gain)

    assert np.array_equal(scaled.codes, found.codes)
    np.testing.assert_allclose(scaled.real(), found.real() * gain[:, None, None, None], rtol=1e-6)


AXES = {
    "Conv": ("Conv", {}, (8, 4, 3, 3), 0),
    "depthwise Conv": ("Conv", {"group": 8}, (8, 1, 3, 3), 0),
    "ConvTranspose": ("ConvTranspose", {}, (4, 8, 2, 2), 1),
    "grouped ConvTranspose": ("ConvTranspose", {"group": 4}, (4, 2, 2, 2), None),
    "Gemm": ("Gemm", {}, (4, 8), 1),
    "transposed Gemm": ("Gemm", {"transB": 1}, (8, 4), 0),
    "MatMul": ("MatMul", {}, (4, 8), 1),
}


@pytest.mark.parametrize("op, attributes, shape, expected", AXES.values(), ids=AXES.keys())
def test_output_axis(op: str, attributes: dict[str, int], shape: tuple[int, ...], expected: int | None) -> None:
    """Which axis of a weight counts output channels."""
    node = helper.make_node(op, ["x", "w"], ["y"], **attributes)

    assert output_axis(node, np.zeros(shape, np.float32)) == expected
