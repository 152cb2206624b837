"""Suppression equals comparing every pair, whatever the boxes look like."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hefkit import nms as nms_module
from hefkit.nms import nms
from tests.helpers.heads import plain_iou


def plain_nms(xyxy: np.ndarray, class_id: np.ndarray | None, iou: float) -> list[int]:
    """Every box against every kept one."""
    kept: list[int] = []
    for i, box in enumerate(xyxy):
        rivals = [k for k in kept if class_id is None or class_id[k] == class_id[i]]
        if all(plain_iou(tuple(map(float, xyxy[k])), tuple(map(float, box))) <= iou for k in rivals):
            kept.append(i)
    return kept


@settings(max_examples=200, deadline=None)
@given(
    n=st.integers(0, 60),
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
    """Random boxes, some of them without area or turned inside out, in classes or not."""
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
    overlaps = [plain_iou(tuple(map(float, a)), tuple(map(float, b))) for i, a in enumerate(boxes) for b in boxes[:i]]
    assume(not any(v > 0 and abs(v - iou) < 1e-6 for v in overlaps))

    assert nms(boxes, class_id, iou).tolist() == plain_nms(boxes, class_id, iou)
    assert nms(boxes, class_id, iou, limit=5).tolist() == plain_nms(boxes, class_id, iou)[:5]


@pytest.mark.parametrize("spread", [20, 1000])
def test_a_limit_changes_nothing_but_the_length(spread: int) -> None:
    """The first 300 survivors of 20,000 boxes are the same with and without the limit, crowded or scattered."""
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, spread, (20_000, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 30, (20_000, 2))], axis=1).astype(np.float32)

    assert nms(boxes, None, 0.5, limit=300).tolist() == nms(boxes, None, 0.5)[:300].tolist()


@settings(max_examples=100, deadline=None)
@given(
    objects=st.integers(1, 30),
    classes=st.sampled_from([2, 7, 20, 300]),
    iou=st.sampled_from([0.0, 0.45, 0.7, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_numpy_and_opencv_agree(objects: int, classes: int, iou: float, seed: int) -> None:
    """Crowds as detectors return them: settled in numpy to the end, in OpenCV alone, and as both share the work."""
    rng = np.random.default_rng(seed)
    one = rng.integers(0, objects, 300)
    corner, sides = rng.uniform(0, 600, (objects, 2)), rng.uniform(10, 200, (objects, 2))
    boxes = np.concatenate([corner, corner + sides], axis=1)[one] + rng.normal(0, 4, (300, 4))
    boxes, class_id = boxes.astype(np.float32), rng.integers(0, classes, objects)[one]
    assume(not any(abs(plain_iou(tuple(a), tuple(b)) - iou) < 1e-6 for a in boxes[:40] for b in boxes[:40]))

    results = []
    for few in (1, nms_module.FEW_CLASSES, 10**9):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(nms_module, "FEW_CLASSES", few)
            results.append(nms(boxes, class_id, iou).tolist())

    assert results[0] == results[1] == results[2]


def test_classes_do_not_suppress_each_other() -> None:
    """Two equal boxes: one survives within a class, both in two classes, one again when classes do not count."""
    boxes = np.array([[0, 0, 10, 10]] * 2, np.float32)

    assert nms(boxes, np.array([3, 3]), 0.7).tolist() == [0]
    assert nms(boxes, np.array([3, 4]), 0.7).tolist() == [0, 1]
    assert nms(boxes, None, 0.7).tolist() == [0]


def test_the_threshold_itself_does_not_suppress() -> None:
    """Boxes that overlap by exactly the threshold both stay: 10x10 and 10x5 inside it have IoU 0.5."""
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 5]], np.float32)

    assert nms(boxes, None, 0.5).tolist() == [0, 1]
    assert nms(boxes, None, 0.49).tolist() == [0]


def test_a_suppressed_box_suppresses_nobody() -> None:
    """Greedy, best first: the second falls to the first, so the third, which only touches the second, stays."""
    boxes = np.array([[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]], np.float32)

    assert nms(boxes, None, 0.3).tolist() == [0, 2]


@pytest.mark.parametrize("n", [0, 1])
def test_none_and_one(n: int) -> None:
    """No boxes and a single box pass through."""
    assert nms(np.zeros((n, 4), np.float32), np.zeros(n, np.int64), 0.5).tolist() == list(range(n))


def test_one_absurd_box_spoils_no_other() -> None:
    """A huge box far away does not cost the others the precision that keeps them apart."""
    boxes = np.array([[-3e37, 0, 3e37, 1], [0, 0, 10, 10], [100, 0, 110, 10], [0, 0, 10, 10]], np.float32)

    assert nms(boxes, np.array([0, 79, 79, 79]), 0.5).tolist() == [0, 1, 2]
