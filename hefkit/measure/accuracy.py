"""Agreement of two models box by box, and the noise of their output tensors.

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
from hefkit.measure.draws import share_interval
from hefkit.spec import HeadSpec

IOU = 0.5  # from this on two boxes match


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
    return [(i, j) for i, j, _ in overlapping_boxes(reference, found, iou)]


def overlapping_boxes(reference: Detections, found: Detections, iou: float = IOU) -> list[tuple[int, int, float]]:
    """The pairs of `match_boxes`, each with its IoU."""
    overlap = box_iou(found.xyxy, reference.xyxy)
    overlap[found.class_id[:, None] != reference.class_id[None]] = 0.0
    pairs = []
    for row in np.argsort(-found.score, kind="stable"):
        if not len(reference):
            break
        column = int(overlap[row].argmax())
        if overlap[row, column] >= iou:
            pairs.append((column, int(row), float(overlap[row, column])))
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
    _height_ratio: list[float] = field(default_factory=list)
    _score_shift: list[float] = field(default_factory=list)
    _shared: list[tuple[int, int]] = field(default_factory=list)  # of each picture: boxes of both that match, all boxes

    def add(self, reference: Detections, found: Detections) -> None:
        """Add an image: the detections of the float model and of the quantised model, in the same pixels."""
        self.images += 1
        self.boxes_float += len(reference)
        self.boxes_quantized += len(found)
        pairs = overlapping_boxes(reference, found, self.iou)
        self._shared.append((2 * len(pairs), len(reference) + len(found)))
        for i, j, overlap in pairs:
            a, b = reference.xyxy[i], found.xyxy[j]
            self.matched += 1
            self._iou.append(overlap)
            self._width_ratio.append(float((b[2] - b[0]) / max(float(a[2] - a[0]), 1e-6)))
            self._height_ratio.append(float((b[3] - b[1]) / max(float(a[3] - a[1]), 1e-6)))
            self._score_shift.append(float(found.score[j] - reference.score[i]))

    @property
    def recall(self) -> float | None:
        """Share of the float model's boxes that the quantised model finds; None if there are none."""
        return self.matched / self.boxes_float if self.boxes_float else None

    @property
    def precision(self) -> float | None:
        """Share of the quantised model's boxes that the float model finds; None if there are none."""
        return self.matched / self.boxes_quantized if self.boxes_quantized else None

    @property
    def f1(self) -> float | None:
        """Share of the boxes of both models that the other model finds too; None if there are none."""
        boxes = self.boxes_float + self.boxes_quantized
        return 2 * self.matched / boxes if boxes else None

    @property
    def ious(self) -> list[float]:
        """IoU of every matched pair."""
        return self._iou

    @property
    def width_ratios(self) -> list[float]:
        """Width found / width of the reference, of every matched pair."""
        return self._width_ratio

    def figures(self) -> dict[str, Any]:
        """The figures that validate_hef.py prints, with the spread of box sizes; null where nothing was matched."""
        return {
            "images": self.images,
            "boxes_reference": self.boxes_float,
            "boxes": self.boxes_quantized,
            "matched": self.matched,
            "recall": _rounded(self.recall),
            "precision": _rounded(self.precision),
            "mean_iou": _rounded(float(np.mean(self._iou))) if self._iou else None,
            "score_shift": _median(self._score_shift),
            "width_ratio": _spread(self._width_ratio),
            "height_ratio": _spread(self._height_ratio),
        }

    def to_json(self) -> dict[str, Any]:
        """The figures; medians over the matched boxes, null if there are none; of f1 also the 95 % interval."""
        interval = share_interval([part for part, _ in self._shared], [whole for _, whole in self._shared])
        return {
            "images": self.images,
            "conf": self.conf,
            "iou": self.iou,
            "boxes_float": self.boxes_float,
            "boxes_quantized": self.boxes_quantized,
            "recall": _rounded(self.recall),
            "precision": _rounded(self.precision),
            "f1": _rounded(self.f1),
            "f1_interval": None if interval is None else [round(bound, 4) for bound in interval],
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


def _area(xyxy: np.ndarray) -> np.ndarray:
    """(n, 4) -> (n,) float64 square pixels."""
    sides = np.clip(xyxy[:, 2:].astype(np.float64) - xyxy[:, :2], 0, None)
    return sides.prod(axis=1)


def _median(values: Iterable[float]) -> float | None:
    items = list(values)
    return _rounded(float(np.median(items))) if items else None


def _spread(values: list[float]) -> dict[str, float | None]:
    low, middle, high = np.percentile(values, [5, 50, 95]).tolist() if values else (None, None, None)
    return {"median": _rounded(middle), "p5": _rounded(low), "p95": _rounded(high)}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
