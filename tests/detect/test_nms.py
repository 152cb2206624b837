"""NMS gives the same result as comparing every pair, for any boxes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hefkit.detect import nms as nms_module
from hefkit.detect.nms import nms
from tests.helpers.boxes import plain_iou


def plain_nms(overlaps: list[list[float]], class_id: np.ndarray | None, iou: float) -> list[int]:
    """Every box against every kept one; `overlaps`: of each box with those before it."""
    kept: list[int] = []
    for i, before in enumerate(overlaps):
        rivals = [k for k in kept if class_id is None or class_id[k] == class_id[i]]
        if all(before[k] <= iou for k in rivals):
            kept.append(i)
    return kept


@settings(max_examples=200, deadline=None)
@given(
    n=st.integers(0, 110),
    size=st.sampled_from([5.0, 100.0, 8000.0, 400_000.0]),
    classes=st.sampled_from([1, 3, 9, 80]),
    agnostic=st.booleans(),
    iou=st.sampled_from([0.0, 0.2, 0.5, 0.7, 0.99]),
    odd=st.sampled_from(["none", "empty", "inverted", "tiny", "repeated", "whole"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_nms_equals_all_pairs(
    n: int, size: float, classes: int, agnostic: bool, iou: float, odd: str, seed: int
) -> None:
    """Random boxes, some of them empty or inverted, with and without classes."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(-size, size, (n, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.05, 1, (n, 2)) * size], axis=1).astype(np.float32)
    some = rng.random(n) < 0.3
    if odd == "empty":
        boxes[some, 2] = boxes[some, 0]
    elif odd == "inverted":
        boxes[some] = boxes[some][:, [2, 3, 0, 1]]
    elif odd == "tiny":
        boxes[some, 2:] = boxes[some, :2] + np.float32(0.01)
    elif odd == "repeated" and n:
        boxes[some] = boxes[0]
    elif odd == "whole":
        boxes = np.round(boxes)  # many share sides
    class_id = None if agnostic else rng.integers(0, classes, n)
    rows = boxes.tolist()
    kinds = [0] * n if class_id is None else class_id.tolist()
    overlaps = [
        [plain_iou(a, b) if kinds[i] == kinds[k] else 0.0 for k, b in enumerate(rows[:i])] for i, a in enumerate(rows)
    ]
    assume(not any(v > 0 and abs(v - iou) < 1e-6 for row in overlaps for v in row))

    expected = plain_nms(overlaps, class_id, iou)
    assert nms(boxes, class_id, iou).tolist() == expected
    assert nms(boxes, class_id, iou, limit=5).tolist() == expected[:5]


@pytest.mark.parametrize("spread", [20, 25, 1000])
def test_a_limit_changes_nothing_but_the_length(spread: int) -> None:
    """The first 300 survivors of 6,000 boxes are the same with and without the limit.

    Crowded: fewer than 300 survive. Less crowded: the first 4,096 boxes are not enough. Scattered: they are.
    """
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, spread, (6000, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 30, (6000, 2))], axis=1).astype(np.float32)

    assert nms(boxes, None, 0.5, limit=300).tolist() == nms(boxes, None, 0.5)[:300].tolist()


def crowd(rng: np.random.Generator, objects: int, boxes: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Boxes as a detector returns them, (n, 4) float32, several around each object; and the object of each, (n,)."""
    corner, sides = rng.uniform(0, 600, (objects, 2)), rng.uniform(10, 200, (objects, 2))
    one = rng.integers(0, objects, boxes)
    around = np.concatenate([corner, corner + sides], axis=1)[one] + rng.normal(0, spread, (boxes, 4))
    around[:, 2:] = np.maximum(around[:, 2:], around[:, :2] + 1)
    return around.astype(np.float32), one


def iou_of_each(xyxy: np.ndarray, box: np.ndarray) -> np.ndarray:
    """(n, 4) float64 and (4,) -> (n,)."""
    sides = (np.minimum(xyxy[:, 2:], box[2:]) - np.maximum(xyxy[:, :2], box[:2])).clip(0)
    common = sides.prod(axis=1)
    return common / ((xyxy[:, 2:] - xyxy[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod() - common)


def row_by_row(xyxy: np.ndarray, class_id: np.ndarray, iou: float) -> list[int]:
    """The textbook's suppression: keep the best, drop what it overlaps, again."""
    boxes, left, kept = xyxy.astype(np.float64), np.arange(len(xyxy)), []
    while len(left):
        kept.append(int(left[0]))
        gone = (iou_of_each(boxes[left], boxes[left[0]]) > iou) & (class_id[left] == class_id[left[0]])
        gone[0] = True
        left = left[~gone]
    return kept


def opencv(xyxy: np.ndarray, class_id: np.ndarray, iou: float) -> list[int]:
    """`cv2.dnn.NMSBoxes`, one call a class."""
    kept: list[int] = []
    for one in np.unique(class_id):
        index = np.flatnonzero(class_id == one)
        boxes = xyxy[index].astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        ranks = np.arange(len(index), 0, -1, dtype=np.float32)
        survivors = cv2.dnn.NMSBoxes(boxes.tolist(), ranks, 0.0, iou)  # type: ignore[arg-type]
        kept += index[np.asarray(survivors, int).reshape(-1)].tolist()
    return sorted(kept)


def is_close(xyxy: np.ndarray, iou: float) -> bool:
    """Whether two boxes overlap by the threshold, to OpenCV's float32."""
    boxes = xyxy.astype(np.float64)
    return 0 < iou < 1 and any((np.abs(iou_of_each(boxes, box) - iou) < 1e-6).any() for box in boxes)


@settings(max_examples=150, deadline=None)
@given(
    objects=st.integers(1, 60),
    boxes=st.integers(1, 400),
    spread=st.sampled_from([0.5, 4.0, 15.0]),
    classes=st.sampled_from([1, 2, 7, 20, 300]),
    iou=st.sampled_from([0.0, 0.45, 0.7, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_crowds_equal_opencv_and_the_textbook(
    objects: int, boxes: int, spread: float, classes: int, iou: float, seed: int
) -> None:
    """Several boxes around every object, few or many classes: three implementations keep the same boxes."""
    rng = np.random.default_rng(seed)
    xyxy, one = crowd(rng, objects, boxes, spread)
    class_id = rng.integers(0, classes, objects)[one]
    one_class = np.zeros_like(class_id)

    kept, agnostic = nms(xyxy, class_id, iou).tolist(), nms(xyxy, None, iou).tolist()

    assert kept == row_by_row(xyxy, class_id, iou) and agnostic == row_by_row(xyxy, one_class, iou)
    if not is_close(xyxy, iou):  # OpenCV compares in float32
        assert kept == opencv(xyxy, class_id, iou) and agnostic == opencv(xyxy, one_class, iou)


@pytest.mark.parametrize(
    "guess",
    [
        pytest.param({"CELLS_PER_WIDTH": 1e-9}, id="all in one cell"),
        pytest.param({"CELLS_PER_WIDTH": 1e9}, id="each in its own cell"),
        pytest.param({"CORNER_HASH": np.zeros(4), "CLASS_HASH": 0.0}, id="cells and classes share one number"),
        pytest.param({"CLASS_HASH": 0.0, "CELLS_PER_WIDTH": 0.5}, id="classes share their cells"),
        pytest.param({"SORT_BY_CLASS_MIN": 1}, id="always in order of class"),
        pytest.param({"SORT_BY_CLASS_MIN": 10**9}, id="never in order of class"),
        pytest.param({"PAIRS_AT_ONCE": 1}, id="pairs in small portions"),
        pytest.param({"PAIRWISE_MAX": 10**9}, id="no cells at all"),
    ],
)
@settings(max_examples=25, deadline=None)
@given(
    objects=st.integers(1, 80),
    boxes=st.integers(2, 300),
    classes=st.sampled_from([1, 3, 40]),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_wrong_guess_changes_nothing(
    guess: dict[str, object], objects: int, boxes: int, classes: int, seed: int
) -> None:
    """The kept boxes do not depend on the guessed suppressors."""
    rng = np.random.default_rng(seed)
    xyxy, one = crowd(rng, objects, boxes, spread=10)
    class_id = rng.integers(0, classes, objects)[one]
    iou = float(rng.choice([0.1, 0.5, 0.8]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nms_module, "PAIRWISE_MAX", 1)
        for name, value in guess.items():
            patch.setattr(nms_module, name, value)
        kept = nms(xyxy, class_id, iou).tolist()

    assert kept == row_by_row(xyxy, class_id, iou)


def test_a_long_chain_keeps_every_second_box() -> None:
    """Each box overlaps only its neighbours: the first is kept, the second suppressed, the third kept ...."""
    left = np.arange(5000, dtype=np.float32) * 5
    chain = np.stack([left, left * 0, left + 10, left * 0 + 10], axis=1)  # neighbours have IoU 1/3

    assert nms(chain, None, 0.3).tolist() == list(range(0, 5000, 2))
    assert nms(chain, None, 0.34).tolist() == list(range(5000))


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("place", [0.0, -1e4, 3e5])
def test_any_unit_will_do(unit: float, place: float) -> None:
    """Boxes in pixels, in shares of the picture or in any other unit, at any place."""
    xyxy, one = crowd(np.random.default_rng(4), 20, 200, 3)
    moved = ((xyxy.astype(np.float64) + place) * unit).astype(np.float32)

    assert nms(moved, one % 3, 0.6).tolist() == row_by_row(moved, one % 3, 0.6)


def test_classes_do_not_suppress_each_other() -> None:
    """Two equal boxes: one survives within a class, both in two classes, one again without classes."""
    boxes = np.array([[0, 0, 10, 10]] * 2, np.float32)

    assert nms(boxes, np.array([3, 3]), 0.7).tolist() == [0]
    assert nms(boxes, np.array([3, 4]), 0.7).tolist() == [0, 1]
    assert nms(boxes, None, 0.7).tolist() == [0]


@pytest.mark.parametrize(("height", "iou"), [(5, 0.5), (7, 0.7), (9, 0.9), (3, 0.3), (10, 1.0)])
@pytest.mark.parametrize("scale", [1, 3, 19])
def test_the_threshold_itself_does_not_suppress(height: int, iou: float, scale: int) -> None:
    """Boxes that overlap by exactly the threshold both stay: 10x10 and 10x5 inside it have IoU 0.5."""
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, height]], np.float32) * scale

    assert nms(boxes, None, iou).tolist() == [0, 1]
    assert nms(boxes, None, iou - 0.01).tolist() == [0]


def test_touching_boxes_do_not_overlap() -> None:
    """A common side or corner is no common area, at a threshold of 0 either."""
    boxes = np.array([[0, 0, 10, 10], [10, 0, 20, 10], [0, 10, 10, 20], [20, 20, 30, 30]], np.float32)

    assert nms(boxes, None, 0.0).tolist() == [0, 1, 2, 3]


def test_a_suppressed_box_suppresses_no_other() -> None:
    """Greedy, best first: the first suppresses the second, so the third, which overlaps only the second, is kept."""
    boxes = np.array([[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]], np.float32)

    assert nms(boxes, None, 0.3).tolist() == [0, 2]


@pytest.mark.parametrize("n", [0, 1])
def test_none_and_one(n: int) -> None:
    """No boxes and a single box pass through."""
    assert nms(np.zeros((n, 4), np.float32), np.zeros(n, np.int64), 0.5).tolist() == list(range(n))


def test_one_absurd_box_spoils_no_other() -> None:
    """A huge box does not reduce the precision with which the others are compared."""
    boxes = np.array([[-3e37, 0, 3e37, 1], [0, 0, 10, 10], [100, 0, 110, 10], [0, 0, 10, 10]], np.float32)

    assert nms(boxes, np.array([0, 79, 79, 79]), 0.5).tolist() == [0, 1, 2]
