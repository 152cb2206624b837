"""Agreement of two sets of boxes and average precision, against plain loops and numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hefkit.detect.detections import Detections
from hefkit.measure.accuracy import AREAS, IOUS, Agreement, AveragePrecision, SignalToNoise, box_iou, match_boxes

Box = tuple[float, float, float, float]

# corners on a coarse grid, so that equal, touching, empty and inverted boxes all come up
corner = st.integers(0, 8).map(float)
boxes = st.lists(st.tuples(corner, corner, corner, corner), max_size=6)
rows = st.lists(
    st.tuples(corner, corner, corner, corner, st.integers(0, 2), st.sampled_from([0.1, 0.4, 0.5, 0.9])), max_size=6
)


def detections(*found: tuple[float, ...]) -> Detections:
    """(x1, y1, x2, y2, class, score) each."""
    table = np.array(found, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 5], table[:, 4].astype(np.int64))


def plain_iou(a: Box, b: Box) -> float:
    """Intersection over union by the book; inverted boxes count as empty."""
    areas = [max(x[2] - x[0], 0) * max(x[3] - x[1], 0) for x in (a, b)]
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    union = areas[0] + areas[1] - shared
    return shared / union if union > 0 else 0.0


def plain_match(reference: Detections, found: Detections, iou: float) -> list[tuple[int, int]]:
    """The rule in two loops: by score, each takes the free reference box of its class that it overlaps most."""
    taken: set[int] = set()
    pairs = []
    for j in sorted(range(len(found)), key=lambda j: -found.score[j]):
        best, best_iou = None, -1.0
        for i in range(len(reference)):
            if i in taken or reference.class_id[i] != found.class_id[j]:
                continue
            overlap = plain_iou(tuple(reference.xyxy[i].tolist()), tuple(found.xyxy[j].tolist()))
            if overlap > best_iou:
                best, best_iou = i, overlap
        if best is not None and best_iou >= iou:
            taken.add(best)
            pairs.append((best, j))
    return pairs


@given(boxes, boxes)
@settings(max_examples=100, deadline=None)
def test_iou_equals_plain_loops(a: list[Box], b: list[Box]) -> None:
    """Any two lists of boxes, empty and inverted ones among them."""
    found = box_iou(np.array(a, np.float32).reshape(-1, 4), np.array(b, np.float32).reshape(-1, 4))

    assert found.shape == (len(a), len(b))
    expected = np.array([[plain_iou(x, y) for y in b] for x in a]).reshape(len(a), len(b))
    np.testing.assert_allclose(found, expected, atol=1e-12)


@given(rows, rows, st.sampled_from([0.3, 0.5, 0.75]))
@settings(max_examples=150, deadline=None)
def test_matching_equals_plain_loops(a: list[tuple[float, ...]], b: list[tuple[float, ...]], iou: float) -> None:
    """Same pairs, in the same order; each box at most once, and both of one class."""
    reference, found = detections(*a), detections(*b)

    pairs = match_boxes(reference, found, iou)

    assert pairs == plain_match(reference, found, iou)
    for side in zip(*pairs, strict=True):
        assert len(set(side)) == len(side)
    assert all(reference.class_id[i] == found.class_id[j] for i, j in pairs)


def test_iou_by_hand() -> None:
    """Two squares of 4 that share half: 8 / (16 + 16 - 8); one inside the other: 4 / 16; apart: 0."""
    square = np.array([[0, 0, 4, 4]], np.float32)
    others = np.array([[2, 0, 6, 4], [1, 1, 3, 3], [4, 0, 8, 4], [0, 0, 4, 4]], np.float32)

    assert box_iou(square, others).tolist() == [[8 / 24, 4 / 16, 0.0, 1.0]]


MATCHES = {
    "nothing found": ([(0, 0, 4, 4, 0, 0.9)], [], []),
    "nothing to find": ([], [(0, 0, 4, 4, 0, 0.9)], []),
    "another class": ([(0, 0, 4, 4, 0, 0.9)], [(0, 0, 4, 4, 1, 0.9)], []),
    "exactly the threshold": ([(0, 0, 4, 4, 0, 0.9)], [(0, 0, 4, 2, 0, 0.9)], [(0, 0)]),
    "two found for one: the better score gets it": (
        [(0, 0, 4, 4, 0, 0.9)],
        [(0, 0, 4, 4, 0, 0.3), (0, 0, 4, 3, 0, 0.8)],
        [(0, 1)],
    ),
    "a taken box leaves the next best": (
        [(0, 0, 4, 4, 0, 0.9), (0, 0, 4, 3, 0, 0.8)],
        [(0, 0, 4, 4, 0, 0.9), (0, 0, 4, 4, 0, 0.8)],
        [(0, 0), (1, 1)],
    ),
}


@pytest.mark.parametrize("a, b, expected", MATCHES.values(), ids=MATCHES.keys())
def test_matching_by_hand(
    a: list[tuple[float, ...]], b: list[tuple[float, ...]], expected: list[tuple[int, int]]
) -> None:
    """Pairs (reference, found) at IoU 0.5."""
    assert match_boxes(detections(*a), detections(*b)) == expected


def test_agreement_sums_over_images() -> None:
    """Three float boxes, two found, one of them matched: recall 1/3, precision 1/2; medians of the matched one."""
    agreement = Agreement(conf=0.25)
    # IoU 12 / 16, width 3 of 4, score 0.1 lower
    agreement.add(detections((0, 0, 4, 4, 0, 0.9), (8, 8, 9, 9, 1, 0.5)), detections((0, 0, 3, 4, 0, 0.8)))
    agreement.add(detections((0, 0, 4, 4, 0, 0.9)), detections((20, 20, 24, 24, 0, 0.9)))

    assert agreement.to_json() == {
        "images": 2, "conf": 0.25, "iou": 0.5, "boxes_float": 3, "boxes_quantized": 2, "recall": 0.3333,
        "precision": 0.5, "median_iou": 0.75, "median_width_ratio": 0.75, "median_score_shift": -0.1,
    }  # fmt: skip


def test_agreement_without_boxes_is_unknown() -> None:
    """Recall and precision without boxes are null, not 0 or 1."""
    agreement = Agreement(conf=0.25)
    agreement.add(Detections.empty(), Detections.empty())

    assert (agreement.recall, agreement.precision) == (None, None)
    assert {k for k, v in agreement.to_json().items() if v is None} == {
        "recall", "precision", "median_iou", "median_width_ratio", "median_score_shift"
    }  # fmt: skip


def test_signal_to_noise() -> None:
    """Signal 3^2 + 4^2 = 25, noise 0.5^2 = 0.25: a hundred to one, 20 dB; twice the same stays 20 dB."""
    meter = SignalToNoise()
    for _ in range(2):
        meter.add(np.float32([3, 4]), np.float32([3.5, 4]))

    assert meter.decibel is not None and math.isclose(meter.decibel, 20.0)


@pytest.mark.parametrize("exact, found", [([0, 0], [1, 0]), ([1, 2], [1, 2])], ids=["no signal", "no noise"])
def test_signal_to_noise_may_be_unknown(exact: list[float], found: list[float]) -> None:
    """Infinite ratios are null in JSON, which has no infinity."""
    meter = SignalToNoise()
    meter.add(np.float32(exact), np.float32(found))

    assert meter.decibel is None


# --- average precision ------------------------------------------------------------------------------------------------

SQUARE = (0, 0, 40, 40, 0, 1.0)  # of the size that COCO calls medium
APART = (100, 0, 140, 40, 0, 1.0)
HALF = 51 / 101  # of the recalls 0, 0.01 ... 1 those up to 0.5

PRECISIONS: dict[str, tuple[list[tuple[float, ...]], list[tuple[float, ...]], float, float]] = {
    # labels, found, AP at IoU 0.5, mean over 0.50 .. 0.95
    "found": ([SQUARE], [(0, 0, 40, 40, 0, 0.3)], 1.0, 1.0),
    "one of two": ([SQUARE, APART], [(0, 0, 40, 40, 0, 0.3)], HALF, HALF),
    "nothing found": ([SQUARE], [], 0.0, 0.0),
    "a miss with a better score: precision 1/2": (
        [SQUARE], [(100, 0, 140, 40, 0, 0.9), (0, 0, 40, 40, 0, 0.8)], 0.5, 0.5,
    ),
    "a miss with a lower score costs nothing": ([SQUARE], [(100, 0, 140, 40, 0, 0.1), (0, 0, 40, 40, 0, 0.8)], 1, 1),
    "found twice: the second is a miss": (
        [SQUARE, APART], [(0, 0, 40, 40, 0, 0.9), (0, 0, 40, 40, 0, 0.8), (100, 0, 140, 40, 0, 0.7)],
        (51 * 1 + 50 * 2 / 3) / 101, (51 * 1 + 50 * 2 / 3) / 101,
    ),
    "IoU 0.75 counts at six of ten thresholds": ([SQUARE], [(0, 0, 40, 30, 0, 0.9)], 1.0, 0.6),
    "another class": ([SQUARE], [(0, 0, 40, 40, 1, 0.9)], 0.0, 0.0),
    "an image without labels: all are misses": ([], [(0, 0, 40, 40, 0, 0.9)], math.nan, math.nan),
}  # fmt: skip


@pytest.mark.parametrize("labels, found, at_half, mean", PRECISIONS.values(), ids=PRECISIONS.keys())
def test_precision_by_hand(
    labels: list[tuple[float, ...]], found: list[tuple[float, ...]], at_half: float, mean: float
) -> None:
    """Class 0 of two classes, in one image."""
    meter = AveragePrecision(2)
    meter.add(detections(*labels), detections(*found))

    row = meter.by_class()[0]

    np.testing.assert_allclose([row[0], row.mean()], [at_half, mean], rtol=1e-12)


def test_precision_runs_over_all_images() -> None:
    """A hit with 0.6 in one image, a miss with 0.9 in the next: together precision 1/2, which no image alone has."""
    meter = AveragePrecision(1)
    meter.add(detections(SQUARE), detections((0, 0, 40, 40, 0, 0.6)))
    meter.add(Detections.empty(), detections((0, 0, 40, 40, 0, 0.9)))

    assert meter.to_json()["map50"] == 0.5
    assert (meter.to_json()["images"], meter.to_json()["labels"]) == (2, 1)


def test_sizes_are_measured_apart() -> None:
    """A small label found, a medium one missed, no large one; a hit of another size is no miss."""
    meter = AveragePrecision(1)
    meter.add(
        detections((200, 200, 210, 210, 0, 1), SQUARE),
        detections((200, 200, 210, 210, 0, 0.5), (300, 0, 340, 40, 0, 0.9)),
    )

    figures = meter.to_json()

    assert (figures["map50_95_small"], figures["map50_small"]) == (1.0, 1.0)
    assert figures["map50_95_medium"] == 0.0 and figures["map50_95_large"] is None


def test_classes_without_labels_do_not_count() -> None:
    """The mean is over the classes with labels; a class without labels is unknown, not 0."""
    meter = AveragePrecision(3)
    meter.add(detections(SQUARE, (100, 0, 140, 40, 2, 1)), detections((0, 0, 40, 40, 0, 0.9), (0, 0, 40, 40, 1, 0.9)))

    figures = meter.to_json()

    assert figures["map50_by_class"] == [1.0, None, 0.0]
    assert figures["map50"] == figures["map50_95"] == 0.5


def test_only_the_best_detections_of_a_class_count() -> None:
    """max_det 1: the hit with the lower score is cut off."""
    meter = AveragePrecision(1, max_det=1)
    meter.add(detections(SQUARE), detections((0, 0, 40, 40, 0, 0.5), (100, 0, 140, 40, 0, 0.6)))

    assert meter.to_json()["map50"] == 0.0


def test_no_image_at_all() -> None:
    """Every figure is null, and the table has its shape."""
    meter = AveragePrecision(2)

    assert {key for key, value in meter.to_json().items() if value is None} >= {"map50", "map50_95", "map50_small"}
    assert meter.by_class().shape == (2, 10)


def plain_precision(
    images: list[tuple[Detections, Detections]], class_id: int, threshold: float, low: float, high: float
) -> float:
    """AP in loops, one class, one threshold, one range of sizes: the definition, read line by line."""
    judged: list[tuple[float, bool]] = []  # score, hit
    labels = 0
    for truth, found in images:
        boxes = [tuple(b) for b, c in zip(truth.xyxy.tolist(), truth.class_id, strict=True) if c == class_id]
        sizes = [(b[2] - b[0]) * (b[3] - b[1]) for b in boxes]
        counts = [low <= size <= high for size in sizes]
        labels += sum(counts)
        free = set(range(len(boxes)))
        mine = [
            (s, tuple(b))
            for s, b, c in zip(found.score, found.xyxy.tolist(), found.class_id, strict=True)
            if c == class_id
        ]
        for score, box in sorted(mine, key=lambda pair: -pair[0]):
            near = [i for i in free if plain_iou(boxes[i], box) >= threshold]
            right = [i for i in near if counts[i]] or near
            if right:
                best = max(right, key=lambda i: (plain_iou(boxes[i], box), i))
                free.discard(best)
                if counts[best]:
                    judged.append((float(score), True))
            elif low <= (box[2] - box[0]) * (box[3] - box[1]) <= high:
                judged.append((float(score), False))
    if not labels:
        return math.nan
    judged.sort(key=lambda pair: -pair[0])
    curve = [
        (sum(hit for _, hit in judged[:n]) / labels, sum(hit for _, hit in judged[:n]) / n)
        for n in range(1, len(judged) + 1)
    ]
    return sum(max((p for r, p in curve if r >= step), default=0.0) for step in np.linspace(0, 1, 101)) / 101


side = st.integers(0, 6).map(lambda v: v * 16.0)
some_boxes = st.lists(
    st.tuples(side, side, side, side, st.integers(0, 1), st.sampled_from([0.1, 0.4, 0.5, 0.9])).map(
        lambda t: (t[0], t[1], t[0] + 16 + t[2], t[1] + 16 + t[3], t[4], t[5])
    ),
    max_size=5,
)


@given(st.lists(st.tuples(some_boxes, some_boxes), min_size=1, max_size=4))
@settings(max_examples=60)
def test_precision_equals_plain_loops(rows: list[tuple[list[tuple[float, ...]], list[tuple[float, ...]]]]) -> None:
    """Random boxes on a grid, so that equal overlaps, equal scores and sizes on a border all come up."""
    images = [(detections(*truth), detections(*found)) for truth, found in rows]
    meter = AveragePrecision(2)
    for truth, found in images:
        meter.add(truth, found)

    for area, (low, high) in AREAS.items():
        expected = [[plain_precision(images, c, float(t), low, high) for t in IOUS] for c in (0, 1)]
        np.testing.assert_allclose(meter.by_class(area), expected, atol=1e-12)
