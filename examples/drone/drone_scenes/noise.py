"""Random textures and blends; every function takes the generator that it may draw from."""

from __future__ import annotations

import cv2
import numpy as np


def fbm(
    rng: np.random.Generator, height: int, width: int, cells: tuple[float, float], octaves: int = 5, gain: float = 0.5
) -> np.ndarray:
    """(height, width) float32 in 0..1: smooth noise of several sizes, as clouds and leaves have it.

    `cells`: blobs of the coarsest size down and across.
    """
    total = np.zeros((height, width), np.float32)
    weight, weights = 1.0, 0.0
    for octave in range(octaves):
        rows, columns = (
            min(int(c * 2**octave) + 2, limit + 2) for c, limit in zip(cells, (height, width), strict=True)
        )
        grid = rng.random((rows, columns), np.float32)
        total += weight * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        weights += weight
        weight *= gain
    total /= weights
    low, high = np.percentile(total, (1, 99))
    return np.clip((total - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)


def ridge(rng: np.random.Generator, width: int, cells: float, octaves: int = 5, gain: float = 0.5) -> np.ndarray:
    """(width,) float32 in 0..1: the outline of hills or treetops."""
    return fbm(rng, 8, width, (1e-3, cells), octaves, gain)[4]


def smoothstep(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, an S between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def blend(a: np.ndarray, b: np.ndarray, t: np.ndarray | float) -> np.ndarray:
    """a where t is 0, b where it is 1; (h, w) weights spread over colours."""
    weight = t[..., None] if isinstance(t, np.ndarray) else t
    return a + (b - a) * weight
