"""Raw head tensors -> detections in pixels of the input.

The class threshold is moved into the quantised domain, so that only anchors that survive it are ever
dequantised. Box sides follow YOLO: the anchor point of a cell is its centre, (x + 0.5, y + 0.5) * stride;
a DFL side is the expectation of softmax(bins) * stride; order left, top, right, bottom, reg_max bins each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hefkit.detections import Detections
from hefkit.nms import nms
from hefkit.quant import dequantize, sigmoid
from hefkit.spec import CODE_DTYPES, HeadSpec, OutputSpec

MAX_CANDIDATES = 30_000


@dataclass(frozen=True)
class DecodeSettings:
    """What counts as a detection; the defaults are ultralytics' own."""

    conf: float = 0.25
    iou: float = 0.7
    max_det: int = 300
    classes: tuple[int, ...] | None = None
    agnostic_nms: bool = False
    multi_label: bool = False


class Decoder:
    """Decodes the outputs of one head again and again; tables are made once.

    Call it with the six (or 2 * strides) tensors in `head.outputs` order, each (H, W, C) of the dtype
    its OutputSpec names; get `Detections` in pixels of the input, best first.
    """

    def __init__(self, head: HeadSpec, settings: DecodeSettings) -> None:
        self.head = head
        self.settings = settings
        pairs = list(zip(head.outputs[0::2], head.outputs[1::2], strict=True))
        self._boxes = [_BoxReader(box, head) for box, _ in pairs]
        self._scores = [_ScoreReader(cls, settings.conf) for _, cls in pairs]
        cells = [box.shape[0] * box.shape[1] for box, _ in pairs]
        self._first_anchor = np.concatenate([[0], np.cumsum(cells)])

    def __call__(self, outputs: Sequence[np.ndarray]) -> Detections:
        """(H, W, C) tensors -> Detections, xyxy in pixels of the input (not clipped)."""
        check_outputs(outputs, self.head)
        anchor, class_id, score = self._candidates(outputs)
        if not len(anchor):
            return Detections.empty()
        order = np.lexsort((anchor, class_id, -score))[:MAX_CANDIDATES]
        anchor, class_id, score = anchor[order], class_id[order], score[order]
        xyxy = self._boxes_at(outputs, anchor)
        finite = np.isfinite(xyxy).all(axis=1)
        if not finite.all():
            anchor, xyxy, class_id, score = anchor[finite], xyxy[finite], class_id[finite], score[finite]
        keep = self._keep(xyxy, anchor, class_id)
        return Detections(xyxy[keep], score[keep], class_id[keep])

    def _candidates(self, outputs: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every (anchor, class, score) with score >= conf that may become a detection."""
        best_class_only = not (self.settings.multi_label or self.head.nms_free)
        found = []
        for reader, tensor, first in zip(self._scores, outputs[1::2], self._first_anchor, strict=False):
            anchor, class_id, score = reader.at_least(tensor)
            if best_class_only and len(anchor) > 1:
                best = _best_of_each(anchor, score)
                anchor, class_id, score = anchor[best], class_id[best], score[best]
            found.append((anchor + first, class_id, score))
        anchor, class_id, score = (np.concatenate(column) for column in zip(*found, strict=True))
        if self.settings.classes is not None and len(anchor):
            wanted = np.isin(class_id, self.settings.classes)
            anchor, class_id, score = anchor[wanted], class_id[wanted], score[wanted]
        return anchor, class_id, score

    def _boxes_at(self, outputs: Sequence[np.ndarray], anchor: np.ndarray) -> np.ndarray:
        """(n,) anchors over all scales -> (n, 4) float32 boxes; a cell is decoded once, however often asked."""
        xyxy = np.empty((len(anchor), 4), np.float32)
        scale_of = np.searchsorted(self._first_anchor, anchor, side="right") - 1
        for i, reader in enumerate(self._boxes):
            here = np.flatnonzero(scale_of == i)
            if len(here):
                cells, inverse = np.unique(anchor[here] - self._first_anchor[i], return_inverse=True)
                xyxy[here] = reader.at(outputs[2 * i], cells)[inverse]
        return xyxy

    def _keep(self, xyxy: np.ndarray, anchor: np.ndarray, class_id: np.ndarray) -> np.ndarray:
        """Indices of the detections, best first, at most max_det."""
        limit = self.settings.max_det
        if self.head.nms_free:
            # as exported: the best `limit` anchors, then the best `limit` (anchor, class) of those
            _, first_seen = np.unique(anchor, return_index=True)
            best_anchors = anchor[np.sort(first_seen)[:limit]]
            return np.flatnonzero(np.isin(anchor, best_anchors))[:limit]
        return nms(xyxy, None if self.settings.agnostic_nms else class_id, self.settings.iou, limit)


def decode_all(outputs: Sequence[np.ndarray], head: HeadSpec) -> tuple[np.ndarray, np.ndarray]:
    """Every anchor: (N, 4) float32 xyxy in pixels of the input and (N, classes) float32 scores."""
    check_outputs(outputs, head)
    boxes, scores = [], []
    for box, cls, box_spec, cls_spec in zip(
        outputs[0::2], outputs[1::2], head.outputs[0::2], head.outputs[1::2], strict=True
    ):
        boxes.append(_BoxReader(box_spec, head).at(box, np.arange(box.shape[0] * box.shape[1])))
        scores.append(_score(cls.reshape(-1, head.num_classes), cls_spec))
    return np.concatenate(boxes), np.concatenate(scores)


def check_outputs(outputs: Sequence[np.ndarray], head: HeadSpec) -> None:
    """Raise ValueError unless number, shapes and dtypes are those of the head: decoding junk helps nobody."""
    if len(outputs) != len(head.outputs):
        raise ValueError(f"expected {len(head.outputs)} output tensors, got {len(outputs)}")
    for tensor, spec in zip(outputs, head.outputs, strict=True):
        if tensor.shape != spec.shape or tensor.dtype != np.dtype(spec.dtype):
            raise ValueError(
                f"{spec.role} stride {spec.stride}: expected {spec.shape} {spec.dtype}, "
                f"got {tensor.shape} {tensor.dtype}"
            )


def _score(values: np.ndarray, spec: OutputSpec) -> np.ndarray:
    """Class codes or floats (..., C) -> float32 scores."""
    real = values if spec.dtype == "float32" else dequantize(values, spec.scale, spec.zero_point)
    return real if spec.activation == "sigmoid" else sigmoid(real)


def _best_of_each(anchor: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Indices of the best entry of every run of equal anchors; of equal scores the first (lowest class)."""
    starts = np.flatnonzero(np.r_[True, anchor[1:] != anchor[:-1]])
    if len(starts) == len(anchor):
        return starts
    best = np.repeat(np.maximum.reduceat(score, starts), np.diff(np.r_[starts, len(anchor)]))
    winners = np.flatnonzero(score == best)
    return winners[np.r_[True, anchor[winners][1:] != anchor[winners][:-1]]]


class _ScoreReader:
    """Finds the scores of one class tensor that reach `conf`."""

    def __init__(self, spec: OutputSpec, conf: float) -> None:
        self.spec = spec
        self.conf = np.float32(conf)
        self.table: np.ndarray | None = None
        if spec.dtype == "float32":
            # a hair below the threshold, in p for the flat top of the curve and in x for the rest: the
            # exact comparison follows on the few that pass
            self.least = conf if spec.activation == "sigmoid" else _logit(max(conf - 1e-6, 0.0)) - 1e-3
            return
        codes = np.arange(CODE_DTYPES[spec.dtype] + 1)[:, None]
        # (codes, 1) where the tensor has one scale, (codes, C) where it has one a feature
        self.table = _score(np.broadcast_to(codes, (len(codes), np.size(spec.scale))), spec)
        # scores rise with the code: the number of codes below conf is the first code that reaches it
        self.first_code = (self.table < self.conf).sum(axis=0)

    def at_least(self, tensor: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(H, W, C) -> cell (n,), class (n,) and score (n,), in order of cell, then class."""
        classes = self.spec.shape[2]
        flat = tensor.reshape(-1)
        hit = self._hits(tensor.reshape(-1, classes))
        cell, class_id = np.divmod(hit, classes)
        if self.table is not None:
            column = class_id if self.table.shape[1] > 1 else 0
            return cell, class_id, self.table[flat[hit], column]
        score = _score(flat[hit], self.spec)
        exact = score >= self.conf
        return cell[exact], class_id[exact], score[exact]

    def _hits(self, rows: np.ndarray) -> np.ndarray:
        """Flat indices of the entries that may reach the threshold; NaN never does."""
        if self.table is None:
            return np.flatnonzero(rows >= np.float32(self.least))
        if len(self.first_code) > 1:
            return np.flatnonzero(rows >= self.first_code)
        first = int(self.first_code[0])
        if first >= len(self.table):
            return np.zeros(0, np.int64)
        return _true_positions(rows.reshape(-1) >= rows.dtype.type(first))


def _true_positions(mask: np.ndarray) -> np.ndarray:
    """np.flatnonzero for a long and nearly empty mask: eight entries at a time."""
    whole = len(mask) & ~7
    blocks = np.flatnonzero(mask[:whole].view(np.uint64))
    inside = np.nonzero(mask[:whole].reshape(-1, 8)[blocks])
    hits = blocks[inside[0]] * 8 + inside[1]
    return hits if whole == len(mask) else np.concatenate([hits, whole + np.flatnonzero(mask[whole:])])


class _BoxReader:
    """Boxes of chosen cells of one box tensor."""

    def __init__(self, spec: OutputSpec, head: HeadSpec) -> None:
        self.spec = spec
        self.reg_max = head.reg_max
        self.bins = np.arange(head.reg_max, dtype=np.float32)
        self.exp_table: np.ndarray | None = None
        if self.reg_max > 1 and spec.dtype == "uint8" and np.size(spec.scale) == 1 == np.size(spec.zero_point):
            # softmax needs only differences to the largest bin, and in codes there are 256 of them
            self.exp_table = np.exp(-np.arange(256, dtype=np.float32) * np.asarray(spec.scale, np.float32))

    def at(self, tensor: np.ndarray, cells: np.ndarray) -> np.ndarray:
        """Cells (n,) in row order -> (n, 4) float32 xyxy in pixels of the input; NaN where the tensor has no number."""
        rows = tensor.reshape(-1, self.spec.shape[2])[cells]
        with np.errstate(over="ignore", invalid="ignore"):  # a float model may return anything; callers drop it
            sides = self._sides(rows) * np.float32(self.spec.stride)
        y, x = np.divmod(cells, self.spec.shape[1])
        centre = (np.stack([x, y], axis=1).astype(np.float32) + np.float32(0.5)) * np.float32(self.spec.stride)
        return np.concatenate([centre - sides[:, :2], centre + sides[:, 2:]], axis=1)

    def _sides(self, rows: np.ndarray) -> np.ndarray:
        """(n, 4 * reg_max) codes or floats -> (n, 4) float32 distances in cells."""
        if self.exp_table is not None:
            bins = rows.reshape(-1, 4, self.reg_max)
            e = self.exp_table[bins.max(axis=-1, keepdims=True) - bins]
            return (e @ self.bins) / e.sum(axis=-1)
        real = rows if rows.dtype == np.float32 else dequantize(rows, self.spec.scale, self.spec.zero_point)
        if self.reg_max == 1:
            return real
        real = real.reshape(-1, 4, self.reg_max)
        e = np.exp(real - real.max(axis=-1, keepdims=True))
        return (e @ self.bins) / e.sum(axis=-1)


def _logit(p: float) -> float:
    with np.errstate(divide="ignore"):
        return float(np.log(p) - np.log1p(-p))
