"""Non-maximum suppression in numpy: exact, and without a loop over the boxes.

Greedy NMS gives one unique set. We guess it with a grid, then verify the guess exactly; a wrong guess costs time,
never correctness.

Unique: boxes are taken best first. A box is suppressed by a better box that was kept and overlaps it. So the kept boxes
are the only set with two properties: no two of them overlap, and each other box overlaps a better box of the set.
Example: A is better than B, B than C; A overlaps B, B overlaps C. A suppresses B. C is kept, because B was not kept.

Guess: a detector returns a dozen similar boxes for one object. Boxes whose corners lie in the same cells of a grid are
taken as similar, and the best box of each cell is the guessed suppressor of the others. Only these best boxes are
compared pair by pair.

Verify: each box is compared with its suppressor. The boxes that do not overlap it join the pairwise comparison, and the
step is repeated until there are none.
"""

from __future__ import annotations

import numpy as np

FIRST_CHUNK = 1024  # boxes, best first, that are looked at before the rest; often enough for `limit`
PAIRWISE_MAX = 48  # boxes; up to so many, comparing all pairs is faster than the grid
SIZE_SAMPLE = 25  # boxes, best first, whose median width gives the size of a cell
CELLS_PER_WIDTH = 2  # cells; more: more cells for one object; fewer: two objects share a cell
CORNER_HASH = np.array([1.0, 67.0, 613.0, 1999.0])  # factors of the corners' cells in the hash of a box
CLASS_HASH = 2819.0  # factor of the class in it
TO_INTEGER = 1.5 * 2.0**52  # added to an integral float64: its low bits are then the integer; huge ones become any bits
SORT_BY_CLASS_MIN = 64  # boxes; from so many on, sorting by class saves comparisons
PAIRS_AT_ONCE = 1 << 15  # pairs; their arrays take 2 MB
TIE_MARGIN = 1 + 1e-12  # factor; an overlap equal to the threshold must not suppress, however products are rounded


def nms(xyxy: np.ndarray, class_id: np.ndarray | None, iou: float, limit: int | None = None) -> np.ndarray:
    """Indices of the boxes that are kept, ascending.

    Args:
        xyxy: (n, 4) float32 corners, best first; any unit, finite.
        class_id: (n,) int64 from 0; boxes of different classes do not suppress each other. None: one class.
        iou: a box is suppressed by a better one that overlaps it by more than this; an empty box overlaps nothing.
        limit: return at most so many, the best ones.
    """
    size = len(xyxy) if limit is None else max(3 * limit, FIRST_CHUNK)
    while True:
        # a worse box never suppresses a better one, so the boxes kept of a first chunk are the first ones kept of all
        kept = _kept(_prepared(xyxy[:size], 0 if class_id is None else class_id[:size], iou))
        if size >= len(xyxy) or (limit is not None and len(kept) >= limit):
            return kept[:limit]
        size *= 4


def _prepared(xyxy: np.ndarray, class_id: np.ndarray | int, iou: float) -> np.ndarray:
    """(n, 4) corners -> (6, n) float64: -left, -top, right, bottom, share, class.

    With two signs changed, the corners of the intersection of two boxes are the minimum of both boxes' corners.
    `share` is area * iou / (1 + iou). A box is suppressed where common > iou * (area + other area - common), which is
    the same as common > share + other share.
    """
    boxes = np.empty((6, len(xyxy)))
    boxes[:4] = xyxy.T
    np.negative(boxes[:2], out=boxes[:2])
    width, height = boxes[:2] + boxes[2:4]
    share = boxes[4]
    np.multiply(width, height, out=share)
    np.maximum(share, 0, out=share)
    share *= iou / (1 + iou) * TIE_MARGIN
    boxes[5] = class_id
    return boxes


def _kept(boxes: np.ndarray) -> np.ndarray:
    """Ascending indices of the boxes of (6, n) that are kept."""
    index = np.arange(boxes.shape[1])
    if len(index) <= PAIRWISE_MAX:
        return index[_compare_pairs(boxes, index, index.copy()) == index]
    # suppressor[i]: a better box that is believed to overlap box i; i itself where there is none
    suppressor = _guess(boxes, index)
    candidates = index[suppressor == index]
    verified = False  # whether each box that is not a candidate overlaps its suppressor
    while True:
        # a suppressor may be suppressed by a better box: then that one replaces it
        updated = _compare_pairs(boxes, candidates, suppressor).take(suppressor)
        kept = candidates[updated.take(candidates) == candidates]
        if verified and (updated == suppressor).all():
            return kept
        suppressor = updated
        missed = index[~_overlap(boxes, boxes.take(suppressor, axis=1))]
        missed = missed[suppressor.take(missed) != missed]
        if not len(missed):
            return kept
        candidates = np.sort(np.concatenate([kept, missed]))
        verified = True


def _guess(boxes: np.ndarray, index: np.ndarray) -> np.ndarray:
    """(n,) index of the best box whose corners lie in the same cells; different cells may have the same hash."""
    widths = sorted((boxes[0, :SIZE_SAMPLE] + boxes[2, :SIZE_SAMPLE]).tolist())
    median = widths[len(widths) // 2]
    cells = boxes[:4] * (CELLS_PER_WIDTH / median if median > 0 else 1.0)
    np.rint(cells, out=cells)
    code = CORNER_HASH @ cells
    code += boxes[5] * CLASS_HASH
    code += TO_INTEGER
    code = code.view(np.int64)
    size = 1 << max(13, (8 * len(index)).bit_length())
    code &= size - 1
    best = np.empty(size, np.int64)
    best[code[::-1]] = index[::-1]  # for equal codes the last write stays: the best box
    return best.take(code)


def _compare_pairs(boxes: np.ndarray, candidates: np.ndarray, suppressor: np.ndarray) -> np.ndarray:
    """Greedy NMS among candidates (m,) of (6, n) boxes; updates and returns `suppressor`.

    The candidates stand in a ring, and each is compared with the half of the ring that follows it, so every pair is
    compared once. Many candidates are first sorted by class, and then compared only within the longest run of a class.
    """
    count = len(candidates)
    reach = count // 2
    if count > SORT_BY_CLASS_MIN:
        candidates = candidates.take(boxes[5].take(candidates).argsort(kind="stable"))
        reach = min(reach, _longest_run(boxes[5].take(candidates)) - 1)
    by = list(range(count))  # the suppressor of each, as a place in the ring
    if reach:
        ring = boxes.take(np.concatenate([candidates, candidates[:reach]]), axis=1)
        # [:, d, i]: box i + 1 + d
        followers = np.ndarray((6, reach, count), np.float64, ring, 8, (ring.strides[0], 8, 8))
        step = max(64, PAIRS_AT_ONCE // reach)
        for start in range(0, count, step):
            some = slice(start, min(start + step, count))
            _suppress(_overlap(ring[:, None, some], followers[:, :, some]), start, by)
    suppressor[candidates] = candidates.take(by)
    return suppressor


def _suppress(found: np.ndarray, start: int, by: list[int]) -> None:
    """Write into `by` which box suppresses which.

    found[d, i] says whether boxes start + i and start + i + 1 + d overlap. Box by box, the pairs across the end of the
    ring come first: there the other box is better. So it is known whether a box is kept before it suppresses others.
    """
    reach, count = len(found), len(by)
    for pair in found[::-1].T.reshape(-1).nonzero()[0].tolist():
        worse, before = divmod(pair, reach)
        worse += start
        better = worse + reach - before
        if better < count:
            better, worse = worse, better
        else:
            better -= count
        if by[better] == better and by[worse] == worse:
            by[worse] = better


def _longest_run(values: np.ndarray) -> int:
    """The length of the longest run of equal values in (m,)."""
    starts = np.concatenate([[0], (values[1:] != values[:-1]).nonzero()[0] + 1, [len(values)]])
    return int(np.diff(starts).max())


def _overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether boxes (6, ...) and (6, ...) are of one class and overlap by more than the threshold."""
    corners = np.minimum(a[:4], b[:4])
    width, height = corners[:2] + corners[2:]
    np.maximum(width, 0, out=width)  # two negative sides would give a positive area
    width *= height
    found = width > a[4] + b[4]
    found &= a[5] == b[5]
    return found
