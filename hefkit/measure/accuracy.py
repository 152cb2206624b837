"""How good boxes are: agreement of two models, and average precision against labels.

numpy only, so workstation and Pi compute the same figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hefkit.detect.decode import Decoder, DecodeSettings
from hefkit.detect.detections import Detections
from hefkit.detect.quant import dequantize, sigmoid
from hefkit.spec import HeadSpec

IOU = 0.5  # from which two boxes match
# average precision, as COCO defines it (cocodataset/cocoapi, PythonAPI/pycocotools/cocoeval.py)
IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
AREAS = {  # square pixels of the photograph; a box of exactly 32 x 32 is small and medium
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}


def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, 4) and (m, 4) xyxy -> (n, m) float64 intersection over union; 0 where both are empty."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    union = _area(a)[:, None] + _area(b)[None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def match_boxes(reference: Detections, found: Detections, iou: float = IOU) -> list[tuple[int, int]]:
    """Match two sets of boxes: pairs (index in reference, index in found) of one class with IoU >= iou.

    Found boxes choose, best score first: each takes the free reference box that it overlaps most.
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
    """How many boxes of a float model its quantised model also finds, summed over images."""

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
        """Add an image: the detections of the float model and of the quantised model, in the same pixels."""
        self.images += 1
        self.boxes_float += len(reference)
        self.boxes_quantized += len(found)
        for i, j in match_boxes(reference, found, self.iou):
            a, b = reference.xyxy[i], found.xyxy[j]
            self.matched += 1
            self._iou.append(float(box_iou(a[None], b[None])[0, 0]))
            self._width_ratio.append(float((b[2] - b[0]) / max(float(a[2] - a[0]), 1e-6)))
            self._score_shift.append(float(found.score[j] - reference.score[i]))

    @property
    def recall(self) -> float | None:
        """Share of the float model's boxes that the quantised model finds; None if there are none."""
        return self.matched / self.boxes_float if self.boxes_float else None

    @property
    def precision(self) -> float | None:
        """Share of the quantised model's boxes that the float model finds; None if there are none."""
        return self.matched / self.boxes_quantized if self.boxes_quantized else None

    def to_json(self) -> dict[str, Any]:
        """The figures; medians over the matched boxes, null if there are none."""
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


def compare_heads(
    pictures: Iterable[tuple[Sequence[np.ndarray], Sequence[np.ndarray]]],
    exact: HeadSpec,
    quantized: HeadSpec,
    *,
    in_sample: bool,
) -> dict[str, Any]:
    """A quantised model against its float model: agreement of the boxes, and the noise of every output tensor.

    Args:
        pictures: for each picture the float model's head tensors and the quantised model's, (H, W, C) each, in the
            order of the specs.
        exact: of the float model: float32 logits.
        quantized: of the quantised model: codes, or float32 that is dequantised already.
        in_sample: the pictures took part in the calibration, so the figures are optimistic.

    Returns:
        The spec's `quality` object.
    """
    settings = DecodeSettings()
    decoders = Decoder(exact, settings), Decoder(quantized, settings)
    agreement, noise = Agreement(settings.conf), [SignalToNoise() for _ in quantized.outputs]
    for reference, found in pictures:
        agreement.add(decoders[0](reference), decoders[1](found))
        for meter, a, b, output in zip(noise, reference, found, quantized.outputs, strict=True):
            a = sigmoid(a) if output.activation == "sigmoid" else a
            meter.add(a, dequantize(b, output.scale, output.zero_point))
    outputs = [
        {"role": o.role, "stride": o.stride, "snr_db": None if n.decibel is None else round(n.decibel, 2)}
        for o, n in zip(quantized.outputs, noise, strict=True)
    ]
    return {**agreement.to_json(), "in_sample": in_sample, "outputs": outputs}


MISS, HIT, IGNORED = 0, 1, -1  # verdicts on a detection


class AveragePrecision:
    """COCO's average precision: the area under precision over recall, of detections against labels.

    It uses 101 recalls, ten IoU thresholds from 0.50 to 0.95, and the best `max_det` detections of each class and
    image. Detect with a low score threshold (0.001): detections below it are missing here.
    """

    def __init__(self, num_classes: int, max_det: int = 100) -> None:
        self.num_classes = num_classes
        self.max_det = max_det
        self.images = 0
        self._labels = np.zeros((num_classes, len(AREAS)), int)
        self._found: dict[tuple[int, int], list[tuple[np.ndarray, np.ndarray]]] = {}

    def add(self, truth: Detections, found: Detections) -> None:
        """Add an image: its labels (their scores are ignored) and its detections, in pixels of the photograph."""
        self.images += 1
        for class_id in np.unique(np.concatenate([truth.class_id, found.class_id])).tolist():
            labels = truth[truth.class_id == class_id].xyxy
            hits = found[found.class_id == class_id]
            hits = hits[np.argsort(-hits.score, kind="stable")[: self.max_det]]
            overlap, sizes, own = box_iou(hits.xyxy, labels), _area(labels), _area(hits.xyxy)
            for index, (low, high) in enumerate(AREAS.values()):
                other = (sizes < low) | (sizes > high)
                verdict = _verdicts(overlap, other)
                verdict[(verdict == MISS) & ((own < low) | (own > high))] = IGNORED
                self._labels[class_id, index] += int((~other).sum())
                self._found.setdefault((class_id, index), []).append((hits.score, verdict))

    def by_class(self, area: str = "all") -> np.ndarray:
        """(classes, 10) AP at each IoU of IOUS; NaN for a class without labels of this size."""
        index = list(AREAS).index(area)
        rows = [self._curve(class_id, index) for class_id in range(self.num_classes)]
        return np.stack(rows)

    def to_json(self) -> dict[str, Any]:
        """The means over the classes with labels; null if no class has labels."""
        table = self.by_class()
        sizes = {f"map50_95_{area}": _mean(self.by_class(area)) for area in list(AREAS)[1:]}
        return {
            "images": self.images,
            "labels": int(self._labels[:, 0].sum()),
            "map50": _mean(table[:, 0]),
            "map75": _mean(table[:, 5]),
            "map50_95": _mean(table),
            **sizes,
            "map50_small": _mean(self.by_class("small")[:, 0]),
            "map50_by_class": [_mean(row[:1]) for row in table],
        }

    def _curve(self, class_id: int, area: int) -> np.ndarray:
        labels, parts = int(self._labels[class_id, area]), self._found.get((class_id, area), [])
        if not labels:
            return np.full(len(IOUS), np.nan)
        score = np.concatenate([score for score, _ in parts])
        verdict = np.concatenate([verdict for _, verdict in parts], axis=1)
        return _precision(verdict[:, np.argsort(-score, kind="stable")], labels)


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


def _precision(verdict: np.ndarray, labels: int) -> np.ndarray:
    """(10, detections), best first -> (10,) mean over RECALLS of the best precision at that recall or a higher one."""
    hits, misses = np.cumsum(verdict == HIT, axis=1), np.cumsum(verdict == MISS, axis=1)
    recall = hits / labels
    precision = hits / np.maximum(hits + misses, 1)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    envelope = np.pad(envelope, ((0, 0), (0, 1)))  # 0 beyond the highest recall
    places = [np.searchsorted(row, RECALLS) for row in recall]
    return np.array([row[place].mean() for row, place in zip(envelope, places, strict=True)])


def _area(xyxy: np.ndarray) -> np.ndarray:
    """(n, 4) -> (n,) float64 square pixels."""
    sides = np.clip(xyxy[:, 2:].astype(np.float64) - xyxy[:, :2], 0, None)
    return sides.prod(axis=1)


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return _rounded(float(known.mean())) if len(known) else None


class SignalToNoise:
    """Signal-to-noise ratio of one tensor over any number of images, in decibel."""

    def __init__(self) -> None:
        self.signal = self.noise = 0.0

    def add(self, exact: np.ndarray, found: np.ndarray) -> None:
        """Add an image: two float arrays of one shape."""
        exact = exact.astype(np.float64)
        self.signal += float((exact**2).sum())
        self.noise += float(((found - exact) ** 2).sum())

    @property
    def decibel(self) -> float | None:
        """None if all signal or all noise is zero."""
        return 10 * float(np.log10(self.signal / self.noise)) if self.signal > 0 and self.noise > 0 else None


def _median(values: Iterable[float]) -> float | None:
    items = list(values)
    return _rounded(float(np.median(items))) if items else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
