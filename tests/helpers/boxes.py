"""Detections from plain numbers, and intersection over union by the book."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hefkit.detect.detections import Detections

Box = tuple[float, float, float, float]


def detections(*found: tuple[float, ...]) -> Detections:
    """(x1, y1, x2, y2, class, score) each."""
    table = np.array(found, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 5], table[:, 4].astype(np.int64))


def plain_iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union by the book; inverted boxes count as empty."""
    areas = [max(x[2] - x[0], 0) * max(x[3] - x[1], 0) for x in (a, b)]
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    union = areas[0] + areas[1] - shared
    return shared / union if union > 0 else 0.0
