"""Scales and zero points of tensors, by hand and as properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hefkit.workshop.emulator.scales import (
    ACTIVATIONS,
    CURVE,
    LEVELS,
    TensorCodes,
    activation,
    equalised_scales,
    input_range,
    output_range,
    plain_scales,
)

ENDS = st.floats(-1e4, 1e4, width=32)
BITS = st.sampled_from([8, 15])


@pytest.mark.parametrize(
    ("low", "high", "scale", "zero_point"),
    [
        (-3, 9, 9 / 191, 64),  # 63.75
        (-1, 2, 2 / 170, 85),  # 85 exactly
        (-20.32, 234.68, 234.68 / 234, 21),  # 20.32
        (-191.04, 63.96, 63.96 / 63, 192),  # 191.04
        (2, 10, 10 / 255, 0),  # widened to zero
        (-616.749, -184.259, 616.749 / 255, 255),
        (0, 0, 1 / 255, 0),  # always zero
        (-254.9, 0.1, 254.9 / 254, 254),  # what is positive keeps one code
    ],
)
def test_ranges_by_hand(low: float, high: float, scale: float, zero_point: int) -> None:
    """The zero point goes up, the upper end stays."""
    found = output_range(low, high)

    assert found.zero_point == zero_point
    assert found.scale == pytest.approx(scale, rel=1e-12)


@given(ENDS, ENDS, BITS)
def test_every_range(first: float, second: float, bits: int) -> None:
    """Zero is a code, both ends are inside, the upper one is the last code, the lower one moves out a little."""
    low, high = min(first, second), max(first, second)
    assume(max(high, 0) - min(low, 0) > 1e-20)
    found = output_range(low, high, bits)
    lowest, highest = found.span

    assert 0 <= found.zero_point <= LEVELS[bits] and found.scale > 0
    slack = 1e-5 * found.scale
    assert lowest <= min(low, 0) + slack and highest >= max(high, 0) - slack
    if high > 0 and found.zero_point < LEVELS[bits] - 1:
        assert highest == pytest.approx(high, rel=1e-9)
        assert lowest >= min(low, 0) - (high - min(low, 0)) / (LEVELS[bits] - found.zero_point) - slack


def test_inputs() -> None:
    """The picture itself with a normalization line, the measured range without; 15 bits of the same range."""
    assert input_range(3, 200, normalised=True) == TensorCodes(1.0, 0)
    assert input_range(0, 0.7124244, normalised=False).scale == pytest.approx(0.0027938213)
    assert input_range(0, 0.7124244, normalised=False, bits=15).scale == pytest.approx(2.1742131e-05)


def test_activations() -> None:
    """SiLU and what nobody has measured are curves: several slopes, one scale."""
    assert activation("silu") is activation("hardswish") is CURVE
    assert activation("relu") is ACTIVATIONS["relu"] and activation("relu").homogeneous
    assert not activation("relu6").homogeneous
    assert activation("sigmoid").fixed_range == (0.0, 1.0)


def test_equalisation_by_hand() -> None:
    """The example of the docstring, and a channel that its own weights decide."""
    ones = np.array([1.0, 0.6])
    assert equalised_scales([1, 0.1], ones, [10, 4], [1, 2]).tolist() == [1.0, 0.5]
    assert equalised_scales([1, 0.1], [1, 0.3], [10, 4], [1, 2]).tolist() == [1.0, 0.4]
    # few values, small weights: as fine as the sums are
    assert equalised_scales([1, 0.1], [1, 0.3], [10, 1], [1, 2]).tolist() == [1.0, 0.3]


def test_equalisation_without_values() -> None:
    """Channels that are always zero, or that nothing reads, still get positive scales."""
    zeros, ones = np.zeros(3), np.ones(3)
    assert (equalised_scales(zeros, ones, ones, ones) > 0).all()
    assert equalised_scales(ones, ones, ones, zeros).tolist() == [1, 1, 1]
    assert equalised_scales([1, 0, 0], zeros, [1, 0, 0], ones).tolist() == [1, 1, 1]


@given(st.integers(0, 10_000), st.integers(1, 40), st.floats(1e-3, 1e3))
def test_every_equalisation(seed: int, channels: int, factor: float) -> None:
    """No channel clips, the reader's largest weight does not grow, and the choice knows no units."""
    rng = np.random.default_rng(seed)
    plain = rng.uniform(0.01, 1, channels) * (rng.random(channels) > 0.2)
    plain[0] = 0.5
    accumulated = np.maximum(plain, rng.uniform(0, 2, channels))
    weight, reader = rng.uniform(0, 5, channels), rng.uniform(0.01, 1, channels)
    found = equalised_scales(plain, accumulated, weight, reader)

    assert (found >= plain).all() and (found > 0).all()
    assert (found * reader).max() <= (plain * reader).max() * (1 + 1e-9)
    # all channels' weights fit the K that the widest channel of them needs at its own scale
    assert (weight / found).max() <= (weight * reader).max() / (plain * reader).max() * (1 + 1e-9)
    np.testing.assert_allclose(equalised_scales(plain, accumulated, factor * weight, reader), found, rtol=1e-9)
    np.testing.assert_allclose(equalised_scales(plain, accumulated, weight, factor * reader), found, rtol=1e-9)
    scaled = equalised_scales(factor * plain, factor * accumulated, weight, reader)
    np.testing.assert_allclose(scaled, factor * found, rtol=1e-9)


def test_plain_scales() -> None:
    """Behind ReLU high / 255; with values below zero all channels share the zero point of the tensor."""
    scales, zero_point = plain_scales(np.zeros(2), np.array([2.55, 0.51]))
    assert (zero_point, scales.tolist()) == (0, pytest.approx([0.01, 0.002]))
    scales, zero_point = plain_scales(np.array([-1.0, -0.5]), np.array([2.0, 0.1]))
    assert (zero_point, scales.tolist()) == (85, pytest.approx([2 / 170, 0.5 / 85]))
