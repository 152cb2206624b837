"""Random samples of the pictures, with replacement and seeded: the base of every bootstrap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

CONFIDENCE = 0.95
DRAWS = 1000


def draw_weights(images: int, draws: int, seed: int) -> np.ndarray:
    """(draws, images) how often each picture was drawn; each row sums to the number of pictures."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(images, np.full(images, 1 / images), size=draws).astype(np.float32)


def share_interval(parts: Sequence[int], wholes: Sequence[int], seed: int = 0) -> tuple[float, float] | None:
    """The 95 % interval of sum(parts) / sum(wholes), one entry a picture; None where all wholes are 0."""
    if not sum(wholes):
        return None
    weights = draw_weights(len(wholes), DRAWS, seed).astype(np.float64)
    part, whole = weights @ np.asarray(parts), weights @ np.asarray(wholes)
    known = whole > 0
    return middle(part[known] / whole[known])


def middle(values: np.ndarray) -> tuple[float, float]:
    """The bounds between which CONFIDENCE of the values lie."""
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)
