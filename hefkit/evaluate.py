"""Do two sets of boxes agree? numpy only, so that the same figures come out on the desk and on the Pi."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hefkit.detections import Detections

IOU = 0.5


def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, 4) and (m, 4) xyxy -> (n, m) float64 intersection over union; 0 where both are empty."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = [np.clip(x[:, 2:] - x[:, :2], 0, None).prod(axis=1) for x in (a, b)]
    union = areas[0][:, None] + areas[1][None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def match(reference: Detections, found: Detections, iou: float = IOU) -> list[tuple[int, int]]:
    """Pairs (index in reference, index in found): same class, IoU >= iou, each box once.

    Found boxes choose in order of score, each the reference box that it overlaps most.
    """
    overlap = box_iou(found.xyxy, reference.xyxy)
    overlap[found.class_id[:, None] != reference.class_id[None]] = 0.0
    pairs = []
    for row in np.argsort(-found.score, kind="stable"):
        if not len(reference):
            break
        column = int(overlap[row].argmax())
        if overlap[row, column] >= iou:
            pairs.append((column, int(row)))
            overlap[:, column] = 0.0
    return pairs


@dataclass
class Agreement:
    """How much of a float model's result a quantised one keeps, summed over images."""

    conf: float
    iou: float = IOU
    images: int = 0
    boxes_float: int = 0
    boxes_quantized: int = 0
    matched: int = 0
    _iou: list[float] = field(default_factory=list)
    _width_ratio: list[float] = field(default_factory=list)
    _score_shift: list[float] = field(default_factory=list)

    def add(self, reference: Detections, found: Detections) -> None:
        """One image: the float model's detections and the quantised one's, in the same pixels."""
        self.images += 1
        self.boxes_float += len(reference)
        self.boxes_quantized += len(found)
        for i, j in match(reference, found, self.iou):
            a, b = reference.xyxy[i], found.xyxy[j]
            self.matched += 1
            self._iou.append(float(box_iou(a[None], b[None])[0, 0]))
            self._width_ratio.append(float((b[2] - b[0]) / max(float(a[2] - a[0]), 1e-6)))
            self._score_shift.append(float(found.score[j] - reference.score[i]))

    @property
    def recall(self) -> float | None:
        """Share of the float boxes that the quantised model found; None without any."""
        return self.matched / self.boxes_float if self.boxes_float else None

    @property
    def precision(self) -> float | None:
        """Share of the quantised model's boxes that the float model has; None without any."""
        return self.matched / self.boxes_quantized if self.boxes_quantized else None

    def to_json(self) -> dict[str, Any]:
        """The figures; medians over the matched boxes, null where there are none."""
        return {
            "images": self.images,
            "conf": self.conf,
            "iou": self.iou,
            "boxes_float": self.boxes_float,
            "boxes_quantized": self.boxes_quantized,
            "recall": _rounded(self.recall),
            "precision": _rounded(self.precision),
            "median_iou": _median(self._iou),
            "median_width_ratio": _median(self._width_ratio),
            "median_score_shift": _median(self._score_shift),
        }


class SignalToNoise:
    """Signal-to-noise ratio of one tensor, in decibel, over any number of images."""

    def __init__(self) -> None:
        self.signal = self.noise = 0.0

    def add(self, exact: np.ndarray, found: np.ndarray) -> None:
        """Two float arrays of one shape."""
        exact = exact.astype(np.float64)
        self.signal += float((exact**2).sum())
        self.noise += float(((found - exact) ** 2).sum())

    @property
    def decibel(self) -> float | None:
        """None where there was no signal or no noise at all."""
        return 10 * float(np.log10(self.signal / self.noise)) if self.signal > 0 and self.noise > 0 else None


def _median(values: Iterable[float]) -> float | None:
    items = list(values)
    return _rounded(float(np.median(items))) if items else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
