"""Non-maximum suppression through OpenCV, from version 4.6 on.

`cv2.dnn.NMSBoxes` wants x, y, width, height, and NaN never matches anything in it: callers filter first.
"""

from __future__ import annotations

import cv2
import numpy as np

FAR = 1e6  # pixels; no box of a picture lies out there
TINY = 1e-12  # square pixels; below, OpenCV's own epsilon decides
FEW = 4096  # boxes that are cheaper compared at once than in two steps


def nms(xyxy: np.ndarray, class_id: np.ndarray | None, iou: float, limit: int | None = None) -> np.ndarray:
    """Indices of the boxes that survive, in the order given.

    Args:
        xyxy: (n, 4) float32 corners, best first; any unit.
        class_id: (n,) int, boxes of different classes never suppress each other; None: all do.
        iou: a box is suppressed by a better one that overlaps it by more than this.
        limit: the first so many survivors are enough.
    """
    size = len(xyxy) if limit is None else max(8 * limit, FEW)
    while True:
        # worse boxes never suppress better ones: the survivors of a beginning begin all survivors
        kept = _survivors(xyxy[:size], None if class_id is None else class_id[:size], iou)
        if size >= len(xyxy) or (limit is not None and len(kept) >= limit):
            return kept[:limit]
        size *= 4


def _survivors(xyxy: np.ndarray, class_id: np.ndarray | None, iou: float) -> np.ndarray:
    n = len(xyxy)
    # one absurd box must not cost the others the precision of their place
    boxes = np.clip(xyxy.astype(np.float64), -FAR, FAR)
    span = np.ceil(boxes.max(initial=0.0) - boxes.min(initial=0.0)) + 1.0
    boxes[:, 2:] -= boxes[:, :2]
    # OpenCV calls the overlap of two empty boxes 1, wherever they lie; an empty box overlaps nothing
    solid = np.flatnonzero((boxes[:, 2:] > 0).all(axis=1) & (boxes[:, 2] * boxes[:, 3] > TINY))
    if len(solid) < 2:
        return np.arange(n)
    if class_id is not None:
        # in float64 an offset of whole spans keeps classes apart and costs no precision
        boxes[:, 0] += class_id * span
    # the order is ours (ties by class, then anchor), so OpenCV gets ranks for scores; float32 holds
    # every whole number up to 2**24
    ranks = np.arange(len(solid), 0, -1, dtype=np.float32)
    # (OpenCV's stubs know only lists; arrays are what it takes without a copy)
    survivors = cv2.dnn.NMSBoxes(boxes[solid], ranks, 0.0, iou)  # type: ignore[arg-type]
    kept = solid[np.asarray(survivors, np.int64).reshape(-1)]
    if len(solid) == n:
        return kept
    return np.sort(np.concatenate([kept, np.setdiff1d(np.arange(n), solid)]))
