"""Non-maximum suppression: many classes at once in numpy, crowds through OpenCV (4.6 to 5).

Boxes of different classes never meet, so numpy settles the best box of every class in one go. That pays
while many classes still have boxes; each round costs the same few calls. What is left then, and everything
where classes are few or do not count, goes to `cv2.dnn.NMSBoxes`, which compares box by box in C++. Both
are the same greedy algorithm; overlaps within 1e-6 of the threshold may be decided either way, because
OpenCV rounds them to float32.
"""

from __future__ import annotations

import cv2
import numpy as np

FAR = 1e6  # pixels; no box of a picture lies out there
TINY = 1e-12  # square pixels; below, OpenCV's own epsilon decides
FEW = 4096  # boxes that are cheaper compared at once than in two steps
FEW_CLASSES = 6  # with fewer left, a round in numpy costs more than the boxes it settles cost in OpenCV


def nms(xyxy: np.ndarray, class_id: np.ndarray | None, iou: float, limit: int | None = None) -> np.ndarray:
    """Indices of the boxes that survive, in the order given.

    Args:
        xyxy: (n, 4) float32 corners, best first; any unit, no NaN.
        class_id: (n,) int64 from 0, boxes of different classes never suppress each other; None: all do.
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
    """Ascending indices of the boxes that survive all n."""
    boxes = np.empty((5, len(xyxy)))  # x1, y1, x2, y2, area: in float64 an offset costs no precision
    # one absurd box must not cost the others the precision of their place
    np.minimum(xyxy.T, FAR, out=boxes[:4])
    np.maximum(boxes[:4], -FAR, out=boxes[:4])
    width, height = boxes[2:4] - boxes[:2]
    np.multiply(width, height, out=boxes[4])
    # OpenCV calls the overlap of two empty boxes 1, wherever they lie; an empty box overlaps nothing
    solid = (width > 0) & (boxes[4] > TINY)  # (width and area tell the height)
    left = np.flatnonzero(solid)
    kept = []
    if len(left) < len(solid):
        kept.append(np.flatnonzero(~solid))
        boxes = boxes.take(left, axis=1)
        class_id = None if class_id is None else class_id.take(left)
    if class_id is not None and len(left):
        heads, undecided = _class_by_class(boxes, class_id, iou)
        if heads:
            kept += [left[head] for head in heads]
            left, boxes, class_id = left[undecided], boxes.take(undecided, axis=1), class_id.take(undecided)
    kept.append(left if len(left) < 2 else left[_in_opencv(boxes, class_id, iou)])
    return np.sort(np.concatenate(kept))


def _class_by_class(boxes: np.ndarray, class_id: np.ndarray, iou: float) -> tuple[list[np.ndarray], np.ndarray]:
    """Settle the best box of every class and what it suppresses, again and again, while classes are many.

    Args:
        boxes: (5, n) float64 x1, y1, x2, y2, area, best first.
        class_id: (n,) integers from 0.

    Returns:
        Indices of survivors, one array a round, and the ascending indices of the undecided.
    """
    survivors = []
    left = np.arange(len(class_id))
    first_of = np.empty(int(class_id.max()) + 1, np.int64)
    while len(left):
        place = np.arange(len(left))
        first_of[class_id[::-1]] = place[::-1]  # of equal indices the last write stays: the best box
        best = first_of[class_id]
        heads = np.flatnonzero(best == place)
        if len(heads) < FEW_CLASSES:
            break
        survivors.append(left[heads])
        stays = ~_overlap(boxes, boxes.take(best, axis=1), iou)
        stays[heads] = False
        keep = np.flatnonzero(stays)
        left, boxes, class_id = left.take(keep), boxes.take(keep, axis=1), class_id.take(keep)
    return survivors, left


def _overlap(a: np.ndarray, b: np.ndarray, iou: float) -> np.ndarray:
    """Whether boxes (5, n) and (5, n) overlap by more than `iou`, pair by pair."""
    sides = np.minimum(a[2:4], b[2:4])
    sides -= np.maximum(a[:2], b[:2])
    np.maximum(sides, 0, out=sides)
    common = sides[0] * sides[1]
    return common > iou * (a[4] + b[4] - common)


def _in_opencv(boxes: np.ndarray, class_id: np.ndarray | None, iou: float) -> np.ndarray:
    """Positions of the survivors among (5, n) boxes that all have an area."""
    rows = np.empty((boxes.shape[1], 4))
    rows[:, :2] = boxes[:2].T
    if class_id is not None:
        # whole spans keep the classes apart
        rows[:, 0] += class_id * np.ceil(boxes[2].max() - boxes[0].min() + 1.0)
    np.subtract(boxes[2:4].T, boxes[:2].T, out=rows[:, 2:])
    xywh = rows.tolist()  # lists of numbers cross into C++ faster than rows of an array
    # the order is ours (ties by class, then anchor), so OpenCV gets ranks for scores; float32 holds
    # every whole number up to 2**24
    ranks = np.arange(len(xywh), 0, -1, dtype=np.float32)
    survivors = cv2.dnn.NMSBoxes(xywh, ranks, 0.0, iou)  # type: ignore[arg-type]
    return np.asarray(survivors, np.int64).reshape(-1)
