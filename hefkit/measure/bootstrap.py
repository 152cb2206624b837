"""How sure is the share that a quantised model keeps? A paired bootstrap over the pictures.

Both models have seen the same pictures. Each draw takes the same number of pictures at random, with replacement and the
same ones for both models, and computes mAP50 of both. The spread of the ratio is the interval. The draws are seeded,
so the same detections give the same interval.
"""

from __future__ import annotations

import numpy as np

from hefkit.measure.coco import RECALLS, AveragePrecision
from hefkit.measure.draws import draw_weights, middle

DRAWS = (200, 1000)  # fewest, most
WORK = 200_000_000  # draws x detections; bounds the time to about half a minute on a Pi
CHUNK = 4_000_000  # draws x detections computed at once; bounds the memory


def paired_interval(reference: AveragePrecision, found: AveragePrecision, seed: int = 0) -> tuple[float, float] | None:
    """The 95 % interval of mAP50(found) / mAP50(reference); None where the reference finds nothing.

    Both must have been given the same pictures in the same order.
    """
    if reference.images != found.images:
        raise ValueError(f"expected the same pictures, got {reference.images} and {found.images}")
    detections = max(len(reference.found), len(found.found), 1)
    draws = int(np.clip(WORK // detections, *DRAWS))
    weights = np.ascontiguousarray(draw_weights(reference.images, draws, seed).T)
    exact, ours = weighted_map50(reference, weights), weighted_map50(found, weights)
    known = exact > 0
    if not known.any():
        return None
    return middle(ours[known] / exact[known])


def weighted_map50(meter: AveragePrecision, weights: np.ndarray) -> np.ndarray:
    """(pictures, draws) -> (draws,) mAP50 where every picture counts as often as its weight; NaN without labels."""
    labels = meter.labels[meter.labels["counts"][:, 0]]
    draws = weights.shape[1]
    table = np.full((meter.num_classes, draws), np.nan)
    for class_id in np.unique(labels["class_id"]).tolist():
        mine = meter.ranked(class_id)
        hit = (mine["hit"][:, 0] & 1).astype(bool)
        last = int(np.flatnonzero(hit)[-1]) + 1 if hit.any() else 0  # detections after the last hit change nothing
        places = labels["picture"][labels["class_id"] == class_id]
        table[class_id] = _precision(mine["picture"][:last], hit[:last], places, weights)
    known = ~np.isnan(table)
    total = np.where(known, table, 0.0).sum(axis=0)
    return np.divide(total, known.sum(axis=0), out=np.full(draws, np.nan), where=known.any(axis=0))


def _precision(pictures: np.ndarray, hit: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(draws,) average precision of one class; `pictures` of its detections, best first, and of its labels.

    The last detection is a hit. Precision is computed at the hits only: after a hit it falls until the next one.
    """
    draws = weights.shape[1]
    result = np.full(draws, np.nan)
    ends = np.flatnonzero(hit)
    starts = np.concatenate([[0], ends[:-1] + 1])[: len(ends)]
    step = max(CHUNK // max(len(pictures), 1), 1)
    for start in range(0, draws, step):
        some = weights[:, start : start + step]
        counts = some[labels].sum(axis=0)
        every = np.cumsum(np.add.reduceat(some[pictures], starts, axis=0), axis=0, dtype=np.float64)
        hits = np.cumsum(some[pictures[ends]], axis=0, dtype=np.float64)
        envelope = np.maximum.accumulate((hits / np.maximum(every, 1))[::-1], axis=0)[::-1]
        envelope = np.pad(envelope, ((0, 1), (0, 0))).T
        known = np.flatnonzero(counts)
        # the place of the first hit that reaches a recall is the number of hits that do not
        bins = len(RECALLS) + 1
        missed = np.searchsorted(RECALLS, hits[:, known] / counts[known], side="right")
        missed = np.bincount((missed + np.arange(len(known)) * bins).ravel(), minlength=len(known) * bins)
        first = np.cumsum(missed.reshape(len(known), bins)[:, :-1], axis=1)
        result[start + known] = np.take_along_axis(envelope[known], first, axis=1).mean(axis=1)
    return result
