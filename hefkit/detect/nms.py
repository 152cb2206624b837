"""Non-maximum suppression in numpy: exact, and without a loop over the boxes.

Best first, a box is suppressed by a better survivor that overlaps it. So the survivors are the only set in which
no two overlap and outside of which every box is overlapped by a better one inside; whoever guesses that set can
prove it cheaply. The guess: a detector returns a dozen boxes for one object, all of a kind, so the best of those
whose corners share the cells of a grid stands in for the others, and only the stand-ins are compared pair by pair.
Then every box is compared with its own stand-in or whoever suppressed that one; those that do not overlap it join
the stand-ins, and all is done again, until there are none. Nothing rests on the guess but the time.
"""

from __future__ import annotations

import numpy as np

FEW = 4096  # boxes that are cheaper settled at once than in two steps
HANDFUL = 48  # boxes that are cheaper compared pair by pair than put into cells
SAMPLE = 25  # boxes, the best, of which one is the middling one
CELLS = 2  # to the side of a middling box: finer, and one object has more stand-ins; coarser, two objects share one
SPREAD = np.array([1.0, 67.0, 613.0, 1999.0])  # what a step of each corner adds to the number of a cell
CLASS = 2819.0  # and what a step of the class adds
FRACTION = 1.5 * 2.0**52  # added to a whole float64, it leaves the number in the low bits; absurd ones leave any bits
MANY = 64  # boxes that are worth putting in order of class before they are compared
PAIRS = 1 << 15  # compared at once: 2 MB
ROUNDING = 1 + 1e-12  # an overlap equal to the threshold does not suppress, whichever way the product is rounded


def nms(xyxy: np.ndarray, class_id: np.ndarray | None, iou: float, limit: int | None = None) -> np.ndarray:
    """Indices of the boxes that survive, in the order given.

    Args:
        xyxy: (n, 4) float32 corners, best first; any unit, finite.
        class_id: (n,) int64 from 0, boxes of different classes never suppress each other; None: all do.
        iou: a box is suppressed by a better one that overlaps it by more than this; an empty box overlaps nothing.
        limit: the first so many survivors are enough.
    """
    size = len(xyxy) if limit is None else max(8 * limit, FEW)
    while True:
        # worse boxes never suppress better ones: the survivors of a beginning begin all survivors
        kept = _survivors(_prepared(xyxy[:size], 0 if class_id is None else class_id[:size], iou))
        if size >= len(xyxy) or (limit is not None and len(kept) >= limit):
            return kept[:limit]
        size *= 4


def _prepared(xyxy: np.ndarray, class_id: np.ndarray | int, iou: float) -> np.ndarray:
    """(n, 4) corners -> (6, n) float64 -left, -top, right, bottom, share, class.

    With two signs turned, the corners of what two boxes have in common are the minimum of both. A box is
    suppressed where common > iou * (area + other - common), which is common > share + other share.
    """
    boxes = np.empty((6, len(xyxy)))
    boxes[:4] = xyxy.T
    np.negative(boxes[:2], out=boxes[:2])
    width, height = boxes[:2] + boxes[2:4]
    share = boxes[4]
    np.multiply(width, height, out=share)
    np.maximum(share, 0, out=share)
    share *= iou / (1 + iou) * ROUNDING
    boxes[5] = class_id
    return boxes


def _survivors(boxes: np.ndarray) -> np.ndarray:
    """Ascending indices of the boxes that survive all (6, n)."""
    place = np.arange(boxes.shape[1])
    if len(place) <= HANDFUL:
        return place[_settle(boxes, place, place.copy()) == place]
    # stand_in: who speaks for a box; a better one of its class that overlaps it, or itself
    stand_in = _best_of_cell(boxes, place)
    members = place[stand_in == place]
    proven = False
    while True:
        deeper = _settle(boxes, members, stand_in).take(stand_in)
        alive = members[deeper.take(members) == members]
        if proven and (deeper == stand_in).all():
            return alive
        stand_in = deeper
        free = place[~_overlap(boxes, boxes.take(stand_in, axis=1))]
        free = free[stand_in.take(free) != free]
        if not len(free):
            return alive
        members = np.sort(np.concatenate([alive, free]))
        proven = True  # of all but the members, as long as those alive stay so


def _best_of_cell(boxes: np.ndarray, place: np.ndarray) -> np.ndarray:
    """(n,) index of the best box whose corners lie in the same cells; different cells may share a number."""
    widths = sorted((boxes[0, :SAMPLE] + boxes[2, :SAMPLE]).tolist())
    middling = widths[len(widths) // 2]
    cells = boxes[:4] * (CELLS / middling if middling > 0 else 1.0)
    np.rint(cells, out=cells)
    number = SPREAD @ cells
    number += boxes[5] * CLASS
    number += FRACTION
    number = number.view(np.int64)
    size = 1 << max(13, (8 * len(place)).bit_length())
    number &= size - 1
    best = np.empty(size, np.int64)
    best[number[::-1]] = place[::-1]  # of equal indices the last write stays: the best box
    return best.take(number)


def _settle(boxes: np.ndarray, members: np.ndarray, stand_in: np.ndarray) -> np.ndarray:
    """Greedy suppression among members (m,) of (6, n) boxes: the stand-in of each is who suppresses it, or itself.

    In a ring, every box meets the half of all that follows it; or, where they are many and in order of class, the few
    of its own. Returns `stand_in`.
    """
    count = len(members)
    reach = count // 2
    if count > MANY:
        members = members.take(boxes[5].take(members).argsort(kind="stable"))
        reach = min(reach, _longest_run(boxes[5].take(members)) - 1)
    by = list(range(count))
    if reach:
        ring = boxes.take(np.concatenate([members, members[:reach]]), axis=1)
        # [:, d, i]: box i + 1 + d
        followers = np.ndarray((6, reach, count), np.float64, ring, 8, (ring.strides[0], 8, 8))
        step = max(64, PAIRS // reach)
        for start in range(0, count, step):
            some = slice(start, min(start + step, count))
            _suppress(_overlap(ring[:, None, some], followers[:, :, some]), start, by)
    stand_in[members] = members.take(by)
    return stand_in


def _suppress(found: np.ndarray, start: int, by: list[int]) -> None:
    """Note in `by` who suppresses whom; found (reach, i): overlaps box start + i the one 1 + reach places on?

    Box by box, first with those round the corner of the ring, which are better, then with those that it may suppress:
    so it is settled whether a box stands before it suppresses any.
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
    """How many neighbours of (m,) are equal at most."""
    starts = np.concatenate([[0], (values[1:] != values[:-1]).nonzero()[0] + 1, [len(values)]])
    return int(np.diff(starts).max())


def _overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether boxes (6, ...) and (6, ...) are of one class and overlap by more than the threshold."""
    corners = np.minimum(a[:4], b[:4])
    width, height = corners[:2] + corners[2:]
    np.maximum(width, 0, out=width)  # two negative sides would make a positive area
    width *= height
    found = width > a[4] + b[4]
    found &= a[5] == b[5]
    return found
