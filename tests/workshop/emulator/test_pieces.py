"""The sigmoid in nine pieces."""

from __future__ import annotations

import numpy as np

from hefkit.workshop.emulator.pieces import SIGMOID, coded

X = np.linspace(-20, 20, 400_001)


def test_how_far_it_is_off() -> None:
    """At most 0.0063, 1.6 codes; 0.96 codes rms where it bends; 0 and 1 outside."""
    error = SIGMOID(X) - 1 / (1 + np.exp(-X))

    assert 0.0062 < np.abs(error).max() < 0.0063
    assert 0.95 < 255 * np.sqrt((error[np.abs(X) < 5.537] ** 2).mean()) < 0.96
    assert (SIGMOID(X[X < -5.54]) == 0).all() and (SIGMOID(X[X > 5.54]) == 1).all()


def test_its_shape() -> None:
    """Mirrored at (0, 0.5), rising, and without jumps but the two at the ends."""
    y = SIGMOID(X)
    breaks = SIGMOID.breaks
    jumps = np.abs(SIGMOID(np.nextafter(breaks, -9)) - SIGMOID(breaks))

    np.testing.assert_allclose(y + SIGMOID(-X), 1, atol=1e-12)
    assert len(SIGMOID.slopes) == 9 and SIGMOID(np.zeros(1)).tolist() == [0.5]
    assert jumps[1:-1].max() < 1e-6 and 0.002 < jumps[0] < 0.0021


def test_integers() -> None:
    """The coded pieces compute the same as the real ones, to the rounding of a mantissa and an offset."""
    step, scale = 3.455e-4, 1 / 255
    pieces = coded(SIGMOID, step, scale, 0)
    sums = np.arange(-32767, 32768, 7)
    n = np.searchsorted(pieces.breaks, sums, side="right")
    codes = (pieces.mantissas[n] * 2.0 ** -(pieces.exponents[n] + 10) * sums * 8 + pieces.offsets[n]) / 8

    mantissas = pieces.mantissas[pieces.mantissas != 0]
    assert mantissas.min() >= 512 and mantissas.max() <= 1024 and (pieces.exponents >= 1).all()
    inside = np.abs(sums * step) < 5.5
    assert np.abs(codes - SIGMOID(sums * step) * 255)[inside].max() < 0.2
    assert pieces.breaks.tolist() == (-pieces.breaks[::-1]).tolist()
