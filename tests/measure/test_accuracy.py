"""Agreement of two sets of boxes, against plain loops and numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hefkit.detect.detections import Detections
from hefkit.measure.accuracy import Agreement, SignalToNoise, box_iou, match_boxes
from tests.helpers.boxes import Box, detections, plain_iou

# corners on a coarse grid, so that equal, touching, empty and inverted boxes all come up
corner = st.integers(0, 8).map(float)
boxes = st.lists(st.tuples(corner, corner, corner, corner), max_size=6)
rows = st.lists(
    st.tuples(corner, corner, corner, corner, st.integers(0, 2), st.sampled_from([0.1, 0.4, 0.5, 0.9])), max_size=6
)


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
    """Three float boxes, two found, one of them matched: recall 1/3, precision 1/2; medians of the matched one.

    f1 is 2 * 1 / (3 + 2). Of two drawn pictures both may be the first, with 2 / 3, or both the second, with 0.
    """
    agreement = Agreement(conf=0.25)
    # IoU 12 / 16, width 3 of 4, score 0.1 lower
    agreement.add(detections((0, 0, 4, 4, 0, 0.9), (8, 8, 9, 9, 1, 0.5)), detections((0, 0, 3, 4, 0, 0.8)))
    agreement.add(detections((0, 0, 4, 4, 0, 0.9)), detections((20, 20, 24, 24, 0, 0.9)))

    assert agreement.to_json() == {
        "images": 2, "conf": 0.25, "iou": 0.5, "boxes_float": 3, "boxes_quantized": 2, "recall": 0.3333,
        "precision": 0.5, "f1": 0.4, "f1_interval": [0.0, 0.6667], "median_iou": 0.75, "median_width_ratio": 0.75,
        "median_score_shift": -0.1,
    }  # fmt: skip


def test_agreement_knows_both_sides_of_a_box() -> None:
    """Three boxes, as wide as they should be and 0.8, 1.0 and 1.2 times as high: percentiles of these three."""
    agreement = Agreement(conf=0.25)
    for height in (8.0, 10.0, 12.0):
        agreement.add(detections((0, 0, 10, 10, 0, 0.9)), detections((0, 0, 10, height, 0, 0.8)))

    figures = agreement.figures()

    assert figures["width_ratio"] == {"median": 1.0, "p5": 1.0, "p95": 1.0}
    assert figures["height_ratio"] == {"median": 1.0, "p5": 0.82, "p95": 1.18}
    assert figures["mean_iou"] == round((0.8 + 1 + 10 / 12) / 3, 4)


def test_agreement_without_boxes_is_unknown() -> None:
    """Recall and precision without boxes are null, not 0 or 1."""
    agreement = Agreement(conf=0.25)
    agreement.add(Detections.empty(), Detections.empty())

    assert (agreement.recall, agreement.precision) == (None, None)
    assert {k for k, v in agreement.to_json().items() if v is None} == {
        "recall", "precision", "f1", "f1_interval", "median_iou", "median_width_ratio", "median_score_shift"
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
