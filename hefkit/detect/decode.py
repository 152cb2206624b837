"""Raw head tensors -> detections in pixels of the input.

The class threshold is converted to a code, so that only the few anchors that reach it are dequantised. Boxes follow
YOLO: the anchor point of a cell is its centre, (x + 0.5, y + 0.5) * stride. A DFL side is the expectation of
softmax(bins) * stride; the sides are left, top, right, bottom, with reg_max bins each.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hefkit.detect.detections import Detections
from hefkit.detect.nms import nms
from hefkit.detect.readers import BoxReader, ScoreReader, scores_of
from hefkit.spec import HeadSpec

MAX_CANDIDATES = 30_000  # scores that enter NMS, the best ones
ZERO = np.float32(0)
SCORE_FACTOR = np.int64(-(1 << 32))  # of a score's bits in a sort key: the best score gives the lowest key


@dataclass(frozen=True)
class DecodeSettings:
    """What counts as a detection; the defaults are those of ultralytics."""

    conf: float = 0.25
    iou: float = 0.7
    max_det: int = 300
    classes: tuple[int, ...] | None = None
    agnostic_nms: bool = False
    multi_label: bool = False


class Candidates(NamedTuple):
    """n scores that may become detections, as parallel arrays."""

    anchor: np.ndarray  # (n,) int64, counted over all scales
    class_id: np.ndarray  # (n,) int64
    score: np.ndarray  # (n,) float32

    def only(self, index: np.ndarray) -> Candidates:
        """A selection by index array."""
        return Candidates(self.anchor.take(index), self.class_id.take(index), self.score.take(index))


class Decoder:
    """Decodes the outputs of one head. Tables are made once; nothing is kept from one call to the next.

    A call takes the six (or 2 * strides) tensors in the order of `head.outputs`, each (H, W, C) with the dtype of its
    OutputSpec, and returns `Detections` in pixels of the input, best first. It is a chain of public steps:
    `candidates`, `boxes_at`, `best_first`, `survivors`.
    """

    def __init__(self, head: HeadSpec, settings: DecodeSettings) -> None:
        self.head = head
        self.settings = settings
        self._boxes = BoxReader(head)
        self._scores = ScoreReader(head.outputs[1::2], settings.conf)
        self._expected = [(spec.shape, np.dtype(spec.dtype)) for spec in head.outputs]
        self._wanted: np.ndarray | None = None
        if settings.classes is not None:
            self._wanted = np.isin(np.arange(head.num_classes), settings.classes)

    def __call__(self, outputs: Sequence[np.ndarray]) -> Detections:
        """(H, W, C) tensors -> Detections, xyxy in pixels of the input (not clipped)."""
        if [(tensor.shape, tensor.dtype) for tensor in outputs] != self._expected:
            check_outputs(outputs, self.head)
        found = self.candidates(outputs)
        if not len(found.score):
            return Detections.empty()
        xyxy = self.boxes_at(outputs, found.anchor)
        if not (self._boxes.always_finite or np.isfinite(xyxy).all()):
            finite = np.flatnonzero(np.isfinite(xyxy).all(axis=1))
            xyxy, found = xyxy[finite], found.only(finite)
        order = best_first(found)
        xyxy, found = xyxy.take(order, axis=0), found.only(order)
        keep = self.survivors(xyxy, found)
        return Detections(xyxy.take(keep, axis=0), found.score.take(keep), found.class_id.take(keep))

    def candidates(self, outputs: Sequence[np.ndarray]) -> Candidates:
        """Every (anchor, class, score) with score >= conf, by anchor, then class; at most the best MAX_CANDIDATES."""
        position, score = self._scores.at_least(outputs[1::2])
        anchor, class_id = np.divmod(position, self.head.num_classes)
        found = Candidates(anchor, class_id, score)
        if not (self.settings.multi_label or self.head.nms_free):
            found = _best_of_each(found)
        if self._wanted is not None:
            found = found.only(self._wanted.take(found.class_id).nonzero()[0])
        return found if len(found.score) <= MAX_CANDIDATES else found.only(_best_of_flood(found))

    def boxes_at(self, outputs: Sequence[np.ndarray], anchor: np.ndarray) -> np.ndarray:
        """(n,) ascending anchors over all scales -> (n, 4) float32 boxes.

        An anchor with several classes is decoded several times: there are few, and finding them would cost more.
        """
        return self._boxes.at(outputs[0::2], anchor)

    def survivors(self, xyxy: np.ndarray, found: Candidates) -> np.ndarray:
        """Boxes and candidates, best first -> indices of the detections, best first, at most max_det."""
        limit = self.settings.max_det
        if self.head.nms_free:
            return _top(found.anchor, limit)
        return nms(xyxy, None if self.settings.agnostic_nms else found.class_id, self.settings.iou, limit)


def best_first(found: Candidates) -> np.ndarray:
    """Indices that sort candidates, given in order of anchor, by score (best first), then class, then anchor.

    All three fit into one int64, and sorting one number is several times faster than sorting by three keys. A score is
    not negative, so its float32 bits rise with it; they take 31 bits. The other 32 hold the class and the place in the
    list, which rises with the anchor and takes 15.
    """
    place_bits = len(found.score).bit_length()
    pattern = (found.score + ZERO).view(np.int32)  # (-0.0 becomes 0.0)
    key = np.multiply(pattern, SCORE_FACTOR, dtype=np.int64)
    key += found.class_id << place_bits
    key += np.arange(len(key))
    key.sort()
    key &= (1 << place_bits) - 1
    return key


def _top(anchor: np.ndarray, limit: int) -> np.ndarray:
    """As in an NMS-free export: indices of the best `limit` candidates that lie in the best `limit` anchors."""
    if len(anchor) > limit:
        _, first_seen = np.unique(anchor, return_index=True)
        best_anchors = anchor[np.sort(first_seen)[:limit]]
        return np.flatnonzero(np.isin(anchor, best_anchors))[:limit]
    return np.arange(len(anchor))


def _best_of_flood(found: Candidates) -> np.ndarray:
    """Ascending indices of the best MAX_CANDIDATES; equal scores by class, then anchor."""
    rank = len(found.score) - MAX_CANDIDATES
    lowest = np.partition(found.score, rank)[rank]
    sure, tied = np.flatnonzero(found.score > lowest), np.flatnonzero(found.score == lowest)
    tied = tied[np.argsort(found.class_id[tied], kind="stable")][: MAX_CANDIDATES - len(sure)]
    return np.sort(np.concatenate([sure, tied]))


def decode_all(outputs: Sequence[np.ndarray], head: HeadSpec) -> tuple[np.ndarray, np.ndarray]:
    """All anchors, without threshold: (N, 4) float32 xyxy in pixels of the input, (N, classes) float32 scores."""
    check_outputs(outputs, head)
    reader = _box_reader(head)
    boxes = reader.at(outputs[0::2], np.arange(reader.first_anchor[-1]))
    scores = [
        scores_of(cls.reshape(-1, head.num_classes), spec)
        for cls, spec in zip(outputs[1::2], head.outputs[1::2], strict=True)
    ]
    return boxes, np.concatenate(scores)


@functools.lru_cache(maxsize=4)  # of the two models of a comparison
def _box_reader(head: HeadSpec) -> BoxReader:
    return BoxReader(head)


def check_outputs(outputs: Sequence[np.ndarray], head: HeadSpec) -> None:
    """Raise ValueError unless number, shapes and dtypes are those of the head."""
    if len(outputs) != len(head.outputs):
        raise ValueError(f"expected {len(head.outputs)} output tensors, got {len(outputs)}")
    for tensor, spec in zip(outputs, head.outputs, strict=True):
        if tensor.shape != spec.shape or tensor.dtype != np.dtype(spec.dtype):
            raise ValueError(
                f"{spec.role} stride {spec.stride}: expected {spec.shape} {spec.dtype}, "
                f"got {tensor.shape} {tensor.dtype}"
            )


def _best_of_each(found: Candidates) -> Candidates:
    """The best candidate of every anchor; among equal scores the lowest class."""
    first = _first_of_run(found.anchor)
    if first.all():
        return found
    starts = first.nonzero()[0]
    best = np.maximum.reduceat(found.score, starts)
    run = np.cumsum(first) - 1
    winners = (found.score == best.take(run)).nonzero()[0]
    return found.only(winners[_first_of_run(found.anchor.take(winners))])


def _first_of_run(values: np.ndarray) -> np.ndarray:
    """(n,) bool: which values differ from the one before."""
    first = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=first[1:])
    return first
