"""COCO's average precision, against plain loops, numbers worked out by hand, and COCO's own code."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hefkit.detect.detections import Detections
from hefkit.measure.bootstrap import paired_interval, weighted_map50
from hefkit.measure.coco import AREAS, IOUS, AveragePrecision
from hefkit.measure.draws import draw_weights
from tests.helpers.boxes import detections, plain_iou

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

    assert meter.figures()["map50"] == 0.5
    assert (meter.images, len(meter.labels)) == (2, 1)


def test_sizes_are_measured_apart() -> None:
    """A small label found, a medium one missed, no large one; a hit of another size is no miss."""
    meter = AveragePrecision(1)
    meter.add(
        detections((200, 200, 210, 210, 0, 1), SQUARE),
        detections((200, 200, 210, 210, 0, 0.5), (300, 0, 340, 40, 0, 0.9)),
    )

    figures = meter.figures()

    assert figures["map50_95_by_size"] == {"small": 1.0, "medium": 0.0, "large": None}


def test_classes_without_labels_do_not_count() -> None:
    """The mean is over the classes with labels; a class without labels is unknown, not 0."""
    meter = AveragePrecision(3)
    meter.add(detections(SQUARE, (100, 0, 140, 40, 2, 1)), detections((0, 0, 40, 40, 0, 0.9), (0, 0, 40, 40, 1, 0.9)))

    figures = meter.figures({0: "a", 2: "c"})

    assert [(row["class"], row["labels"], row["ap50"]) for row in figures["per_class"]] == [
        ("a", 1, 1.0), ("class1", 0, None), ("c", 1, 0.0)
    ]  # fmt: skip
    assert figures["map50"] == figures["map50_95"] == 0.5


def test_only_the_best_detections_of_a_class_count() -> None:
    """max_det 1: the hit with the lower score is cut off."""
    meter = AveragePrecision(1, max_det=1)
    meter.add(detections(SQUARE), detections((0, 0, 40, 40, 0, 0.5), (100, 0, 140, 40, 0, 0.6)))

    assert meter.figures()["map50"] == 0.0


def test_no_image_at_all() -> None:
    """Every figure is null, and the table has its shape."""
    meter = AveragePrecision(2)

    figures = meter.figures()

    assert [figures["map50"], figures["map50_95"], figures["best_f1"]] == [None, None, None]
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
    hits = np.cumsum([hit for _, hit in judged])
    recall, precision = hits / labels, hits / np.arange(1, len(judged) + 1)
    steps = np.linspace(0, 1, 101)[:, None]
    return float(np.where(recall >= steps, precision, 0).max(axis=1, initial=0).mean())


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


# --- the confidence with the best F1 ---------------------------------------------------------------------------------


def test_best_f1_by_hand() -> None:
    """Two labels; hits at 0.9 and 0.5, a miss at 0.3: above 0.3 both are found and nothing is wrong."""
    meter = AveragePrecision(1)
    meter.add(
        detections(SQUARE, APART),
        detections((0, 0, 40, 40, 0, 0.9), (100, 0, 140, 40, 0, 0.5), (300, 0, 340, 40, 0, 0.3)),
    )

    best = meter.best_f1()

    assert best is not None and 0.3 < best.conf <= 0.5
    assert (best.f1, best.precision, best.recall) == (1.0, 1.0, 1.0)


# --- how sure it is --------------------------------------------------------------------------------------------------


def repeated(images: list[tuple[Detections, Detections]], weights: np.ndarray) -> AveragePrecision:
    """The meter where every picture was really added as often as its weight says."""
    meter = AveragePrecision(2)
    for (truth, found), times in zip(images, weights.astype(int), strict=True):
        for _ in range(times):
            meter.add(truth, found)
    return meter


def some_pictures(seed: int, count: int, quality: float) -> list[tuple[Detections, Detections]]:
    """Pictures with labels of two classes; a share `quality` of them is found, among random misses."""
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        places = rng.uniform(0, 500, (6, 2)).astype(np.float32)
        truth = Detections(np.hstack([places, places + 50]), np.ones(6, np.float32), np.arange(6) % 2)
        kept = rng.random(6) < quality
        wrong = rng.uniform(0, 500, (4, 2)).astype(np.float32)
        xyxy = np.concatenate([truth.xyxy[kept] + 2, np.hstack([wrong, wrong + 30])])
        found = Detections(xyxy, rng.random(len(xyxy)).astype(np.float32), rng.integers(0, 2, len(xyxy)))
        found.class_id[: kept.sum()] = truth.class_id[kept]
        images.append((truth, found))
    return images


def test_weights_are_repeated_pictures() -> None:
    """The arithmetic of a draw gives what adding the drawn pictures again and again gives."""
    images = some_pictures(0, 12, 0.8)
    weights = draw_weights(12, 20, seed=3)
    expected = [repeated(images, row).figures()["map50"] for row in weights]

    found = weighted_map50(repeated(images, np.ones(12)), weights.T)

    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_the_interval_holds_the_share_and_narrows_with_the_pictures() -> None:
    """The share itself lies inside; ten times the pictures give a narrower interval; the same seed the same one."""
    widths = []
    for count in (20, 200):
        exact = repeated(some_pictures(1, count, 0.9), np.ones(count))
        ours = repeated(some_pictures(1, count, 0.7), np.ones(count))
        interval = paired_interval(exact, ours)
        assert interval is not None
        if count == 20:
            assert interval == paired_interval(exact, ours)
        assert interval[0] < ours.figures()["map50"] / exact.figures()["map50"] < interval[1]
        widths.append(interval[1] - interval[0])

    assert widths[1] < widths[0] / 2


def test_equal_models_keep_everything_for_sure() -> None:
    """Paired draws: a model compared with itself has the interval 1 to 1."""
    meter = repeated(some_pictures(2, 15, 0.8), np.ones(15))

    assert paired_interval(meter, meter) == (1.0, 1.0)


def test_nothing_found_is_unknown() -> None:
    """A reference that finds nothing has no share to keep."""
    meter = AveragePrecision(2)
    meter.add(detections(SQUARE), Detections.empty())

    assert paired_interval(meter, meter) is None
