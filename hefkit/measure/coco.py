"""Average precision as COCO defines it, of detections against labels (cocodataset/cocoapi, cocoeval.py), in numpy.

The area under precision over recall, at 101 recalls and ten IoU thresholds from 0.50 to 0.95, of the best `max_det`
detections of each class and picture. A picture adds about 28 bytes a detection, so a Pi can hold thousands of pictures.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from hefkit.detect.detections import Detections
from hefkit.measure.accuracy import box_iou

IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
AREAS = {  # square pixels of the photograph; a box of exactly 32 x 32 counts as small and as medium
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}
MAX_DET = 300  # ultralytics' limit; COCO's own is 100
CONFS = np.linspace(0, 1, 1000)  # where F1 is computed, as ultralytics does
MISS, HIT, IGNORED = 0, 1, -1  # verdicts on a detection
_BITS = 1 << np.arange(len(IOUS))
_FOUND = np.dtype(
    [
        ("score", np.float32),
        ("picture", np.int32),
        ("class_id", np.int32),
        ("hit", np.uint16, len(AREAS)),  # bit i: a HIT at IOUS[i]; one column an area
        ("ignored", np.uint16, len(AREAS)),
    ]
)
_LABEL = np.dtype([("picture", np.int32), ("class_id", np.int32), ("counts", bool, len(AREAS))])


class BestF1(NamedTuple):
    """The confidence with the best F1, a mean over the classes with labels, at IoU 0.5."""

    conf: float
    f1: float
    precision: float
    recall: float


class AveragePrecision:
    """Collects labels and detections picture by picture.

    Detect with a low score threshold (0.001): detections below it are missing here.
    """

    def __init__(self, num_classes: int, max_det: int = MAX_DET) -> None:
        self.num_classes = num_classes
        self.max_det = max_det
        self.images = 0
        self._found: list[np.ndarray] = [np.zeros(0, _FOUND)]
        self._labels: list[np.ndarray] = [np.zeros(0, _LABEL)]

    def add(self, truth: Detections, found: Detections) -> None:
        """Add a picture: its labels (their scores are ignored) and its detections, in pixels of the photograph."""
        for class_id in np.unique(np.concatenate([truth.class_id, found.class_id])).tolist():
            labels = truth[truth.class_id == class_id].xyxy
            hits = found[found.class_id == class_id]
            hits = hits[np.argsort(-hits.score, kind="stable")[: self.max_det]]
            self._add_class(class_id, labels, hits)
        self.images += 1

    def _add_class(self, class_id: int, labels: np.ndarray, hits: Detections) -> None:
        rows, marks = np.zeros(len(hits), _FOUND), np.zeros(len(labels), _LABEL)
        rows["score"], rows["picture"], rows["class_id"] = hits.score, self.images, class_id
        marks["picture"], marks["class_id"] = self.images, class_id
        overlap, sizes, own = box_iou(hits.xyxy, labels), _area(labels), _area(hits.xyxy)
        for index, (low, high) in enumerate(AREAS.values()):
            other = (sizes < low) | (sizes > high)
            verdict = _verdicts(overlap, other)
            verdict[(verdict == MISS) & ((own < low) | (own > high))] = IGNORED
            rows["hit"][:, index] = _BITS @ (verdict == HIT)
            rows["ignored"][:, index] = _BITS @ (verdict == IGNORED)
            marks["counts"][:, index] = ~other
        self._found.append(rows)
        self._labels.append(marks)

    @property
    def found(self) -> np.ndarray:
        """All detections, one record each, in the order of the pictures."""
        self._found = [np.concatenate(self._found)]
        return self._found[0]

    @property
    def labels(self) -> np.ndarray:
        """All labels, one record each."""
        self._labels = [np.concatenate(self._labels)]
        return self._labels[0]

    def label_counts(self, area: str = "all") -> np.ndarray:
        """(classes,) number of labels of this size."""
        counts = self.labels["counts"][:, list(AREAS).index(area)]
        return np.bincount(self.labels["class_id"][counts], minlength=self.num_classes)[: self.num_classes]

    def ranked(self, class_id: int) -> np.ndarray:
        """The detections of a class, best score first."""
        mine = self.found[self.found["class_id"] == class_id]
        return mine[np.argsort(-mine["score"], kind="stable")]

    def by_class(self, area: str = "all") -> np.ndarray:
        """(classes, 10) AP at each IoU of IOUS; NaN for a class without labels of this size."""
        index, counts = list(AREAS).index(area), self.label_counts(area)
        rows = [self._precisions(class_id, index, int(counts[class_id])) for class_id in range(self.num_classes)]
        return np.stack([row.mean(axis=1) for row in rows])

    def curve(self, class_id: int) -> np.ndarray | None:
        """(101,) precision at each recall of RECALLS, at IoU 0.5; None for a class without labels."""
        count = int(self.label_counts()[class_id])
        return self._precisions(class_id, 0, count)[0] if count else None

    def _precisions(self, class_id: int, area: int, labels: int) -> np.ndarray:
        """(10, 101) best precision at each recall or a higher one; NaN without labels."""
        if not labels:
            return np.full((len(IOUS), len(RECALLS)), np.nan)
        mine = self.ranked(class_id)
        hit, ignored = mine["hit"][:, area].copy(), mine["ignored"][:, area].copy()
        # one IoU at a time: thousands of pictures have a million detections
        return np.stack([_precision_at_recalls(hit & bit > 0, ignored & bit > 0, labels) for bit in _BITS])

    def f1_curve(self) -> np.ndarray:
        """(3, 1000) F1, precision and recall at each confidence of CONFS: means over the classes with labels."""
        counts = self.label_counts()
        rows = []
        for class_id in np.flatnonzero(counts).tolist():
            mine = self.ranked(class_id)
            kept = np.searchsorted(-mine["score"], -CONFS, side="right")  # detections with score >= conf
            hits = np.concatenate([[0], np.cumsum(mine["hit"][:, 0] & 1)])[kept]
            precision, recall = hits / np.maximum(kept, 1), hits / counts[class_id]
            f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
            rows.append(np.stack([f1, precision, recall]))
        return np.mean(rows, axis=0) if rows else np.zeros((3, len(CONFS)))

    def best_f1(self) -> BestF1 | None:
        """The confidence with the best F1; None without labels. Of equal ones the middle of the first plateau."""
        if not self.label_counts().any():
            return None
        f1, precision, recall = self.f1_curve()
        first = int(f1.argmax())
        last = first + int(np.argmin(np.append(f1[first:] == f1[first], False))) - 1
        at = (first + last) // 2
        return BestF1(*(round(float(v), 6) for v in (CONFS[at], f1[at], precision[at], recall[at])))

    def figures(self, names: dict[int, str] | None = None) -> dict[str, Any]:
        """The contract's keys; means over the classes with labels, null where no class has labels."""
        table, counts, best = self.by_class(), self.label_counts(), self.best_f1()
        per_class = [
            {
                "class_id": i,
                "class": (names or {}).get(i, f"class{i}"),
                "labels": int(counts[i]),
                "ap50": _mean(table[i, :1]),
                "ap50_95": _mean(table[i]),
            }
            for i in range(self.num_classes)
        ]
        return {
            "map50": _mean(table[:, 0]),
            "map50_95": _mean(table),
            "map50_95_by_size": {area: _mean(self.by_class(area)) for area in list(AREAS)[1:]},
            "per_class": per_class,
            "best_f1": None if best is None else best._asdict(),
        }


def _precision_at_recalls(hit: np.ndarray, ignored: np.ndarray, labels: int) -> np.ndarray:
    """(detections,) bool, best first -> (101,) best precision at each recall or a higher one."""
    hits, misses = np.cumsum(hit), np.cumsum(~hit & ~ignored)
    precision = hits / np.maximum(hits + misses, 1)
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)  # 0 beyond the highest recall
    return envelope[np.searchsorted(hits / labels, RECALLS)]


def _verdicts(overlap: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(detections, labels) IoU, detections best first -> (10, detections) MISS, HIT or IGNORED at each IoU.

    Each label is matched once. Labels of another size (`other`) are matched last; a detection that matches one is
    IGNORED.
    """
    verdict = np.full((len(IOUS), len(overlap)), MISS, np.int8)
    taken = np.zeros((len(IOUS), len(other)), bool)
    for row in np.flatnonzero(overlap.max(axis=1, initial=0.0) >= IOUS[0]):
        free = ~taken & (overlap[row] >= IOUS[:, None])  # (10, labels)
        # among equal overlaps COCO takes the last; adding 2 prefers labels of the right size
        rank = np.where(free, overlap[row] + np.where(other, 0.0, 2.0), -1.0)
        best = rank.shape[1] - 1 - rank[:, ::-1].argmax(axis=1)
        at = np.flatnonzero(free.any(axis=1))
        taken[at, best[at]] = True
        verdict[at, row] = np.where(other[best[at]], IGNORED, HIT)
    return verdict


def _area(xyxy: np.ndarray) -> np.ndarray:
    """(n, 4) -> (n,) float64 square pixels."""
    return np.clip(xyxy[:, 2:].astype(np.float64) - xyxy[:, :2], 0, None).prod(axis=1)


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None
