"""Boxes that HailoRT decoded -> detections: layout, order, thresholds, classes, damage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hefkit.detect.decode import DecodeSettings
from hefkit.detect.detector import make_decoder
from hefkit.detect.hailo_nms import NmsDecoder
from hefkit.errors import DeviceError, ModelError
from hefkit.spec import HeadSpec, InputSpec, ModelSpec, NmsSpec
from tests.helpers.heads import make_head, make_spec

SIZE = (100, 200)  # (H, W)
CLASSES, MOST, ANCHORS = 3, 4, 5
Row = tuple[float, float, float, float, float]


def spec(boxes_only: bool = False) -> ModelSpec:
    """Three classes, at most four boxes each."""
    shape = (1, ANCHORS, 4 + CLASSES) if boxes_only else (CLASSES * (1 + 5 * MOST),)
    nms = NmsSpec("net/nms", boxes_only, shape, 0 if boxes_only else MOST, 0.2, 0.7, not boxes_only, SIZE)
    head = HeadSpec("nms", CLASSES, 1, (8,), nms_free=False, outputs=())
    return ModelSpec("hef", InputSpec(SIZE), head, {i: f"class{i}" for i in range(CLASSES)}, nms=nms)


def buffer(*classes: Sequence[Row]) -> np.ndarray:
    """For each class a count and its rows; then old values of an earlier picture."""
    flat = [value for rows in classes for value in (float(len(rows)), *(v for row in rows for v in row))]
    rest = CLASSES * (1 + 5 * MOST) - len(flat)
    return np.array(flat + [77.0] * rest, np.float32)


def decoded(output: np.ndarray, **settings: object) -> list[tuple[int, float, tuple[float, ...]]]:
    """(class, score, xyxy) of every detection."""
    found = NmsDecoder(spec(output.ndim == 3), DecodeSettings(**settings))([output])  # type: ignore[arg-type]
    return [
        (int(c), round(float(s), 5), tuple(round(float(v), 3) for v in box))
        for c, s, box in zip(found.class_id, found.score, found.xyxy, strict=True)
    ]


A: Row = (0.1, 0.2, 0.5, 0.6, 0.9)  # y first: 20..60 x 40..120 -> (40, 10, 120, 50)
B: Row = (0.0, 0.0, 1.0, 1.0, 0.5)
C: Row = (-0.125, -0.25, 0.25, 0.5, 0.7)


def test_y_comes_first_and_pixels_are_the_input_s() -> None:
    """Normalised y_min, x_min, y_max, x_max -> left, top, right, bottom in pixels; boxes beyond the edge stay there."""
    assert decoded(buffer([A], [], [C])) == [
        (0, 0.9, (40.0, 10.0, 120.0, 50.0)),
        (2, 0.7, (-50.0, -12.5, 100.0, 25.0)),
    ]


def test_nothing_found() -> None:
    """Three counts of zero."""
    assert decoded(buffer([], [], [])) == []


def test_order_is_score_then_class_then_place() -> None:
    """The output is ordered by class, the detections by score."""
    low, high = (*A[:4], 0.25), (*B[:4], 0.25)

    assert [(c, s) for c, s, _ in decoded(buffer([low], [A, high, low], [high]))] == [
        (1, 0.9), (0, 0.25), (1, 0.25), (1, 0.25), (2, 0.25)
    ]  # fmt: skip
    assert [box for c, _, box in decoded(buffer([], [high, low], []))] == [(0, 0, 200, 100), (40, 10, 120, 50)]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        pytest.param({}, [(0, 0.9), (2, 0.7), (1, 0.5)], id="all"),
        pytest.param({"conf": 0.7}, [(0, 0.9), (2, 0.7)], id="from the threshold on"),
        pytest.param({"conf": 0.71}, [(0, 0.9)], id="below it no more"),
        pytest.param({"classes": (1, 2)}, [(2, 0.7), (1, 0.5)], id="some classes"),
        pytest.param({"max_det": 2}, [(0, 0.9), (2, 0.7)], id="the best"),
    ],
)
def test_settings(settings: dict[str, object], expected: list[tuple[int, float]]) -> None:
    """Settings that HailoRT does not have are applied here."""
    assert [(c, s) for c, s, _ in decoded(buffer([A], [B], [C]), **settings)] == expected


def test_boxes_of_a_class_are_not_compared_again() -> None:
    """HailoRT computed NMS within a class; NMS across classes is computed here, on request."""
    twice = buffer([A, (*A[:4], 0.4)], [(*A[:4], 0.3)], [])

    assert len(decoded(twice, iou=0.1)) == 3
    assert decoded(twice, iou=0.5, agnostic_nms=True) == [(0, 0.9, (40.0, 10.0, 120.0, 50.0))]


@pytest.mark.parametrize(
    "count", [np.nan, -1, MOST + 1, 1e9, np.inf], ids=["NaN", "negative", "too many", "absurd", "infinite"]
)
def test_damaged_counts_are_told(count: float) -> None:
    """A damaged buffer is refused, and nothing is read beyond its end."""
    output = buffer([], [], [])
    output[1] = count

    with pytest.raises(DeviceError, match="output is damaged: it counts"):
        decoded(output)


def test_boxes_that_are_no_numbers_are_left_out() -> None:
    """They are dropped, as with raw heads."""
    assert len(decoded(buffer([A, (np.nan, *A[1:])], [(*A[:4], np.nan)], []))) == 1


def test_results_are_copies() -> None:
    """The detections do not change when the slot is used again."""
    output = buffer([A], [], [])
    found = NmsDecoder(spec(), DecodeSettings())([output])

    assert not any(np.shares_memory(part, output) for part in (found.xyxy, found.score, found.class_id))


@pytest.mark.parametrize("bad", [np.zeros(5, np.float32), np.zeros(63, np.uint8)], ids=["size", "dtype"])
def test_another_buffer_is_a_bug(bad: np.ndarray) -> None:
    """A wrong shape is a bug of the engine: ValueError."""
    with pytest.raises(ValueError, match=r"expected \(63,\) float32"):
        decoded(bad)


@given(
    st.lists(
        st.lists(st.tuples(*[st.floats(-1, 2, width=32)] * 4, st.floats(0, 1, width=32)), max_size=MOST),
        min_size=CLASSES,
        max_size=CLASSES,
    )
)
def test_every_row_arrives_once(classes: list[list[Row]]) -> None:
    """The same as a plain loop over classes and rows."""
    expected = sorted(
        (-row[4], class_id, place) for class_id, rows in enumerate(classes) for place, row in enumerate(rows)
    )
    height, width = SIZE

    found = NmsDecoder(spec(), DecodeSettings(conf=0.0))([buffer(*classes)])

    assert found.class_id.tolist() == [class_id for _, class_id, _ in expected]
    for box, (_, class_id, place) in zip(found.xyxy, expected, strict=True):
        y1, x1, y2, x2, _ = classes[class_id][place]
        np.testing.assert_allclose(box, [x1 * width, y1 * height, x2 * width, y2 * height], rtol=1e-6, atol=1e-5)


# --- bbox_decoding_only ----------------------------------------------------------------------------------------------


def anchors(*rows: tuple[Sequence[float], Sequence[float]]) -> np.ndarray:
    """(1, anchors, 4 + classes): boxes and scores; the rest is background."""
    table = np.zeros((1, ANCHORS, 4 + CLASSES), np.float32)
    for i, (box, scores) in enumerate(rows):
        table[0, i] = [*box, *scores]
    return table


def test_best_class_or_all() -> None:
    """The best class per anchor, unless --multi-label."""
    output = anchors((A[:4], (0.3, 0.9, 0.3)), (C[:4], (0.5, 0.5, 0.1)))

    assert [(c, s) for c, s, _ in decoded(output)] == [(1, 0.9), (0, 0.5)]
    assert [(c, s) for c, s, _ in decoded(output, multi_label=True)] == [
        (1, 0.9),
        (0, 0.5),
        (1, 0.5),
        (0, 0.3),
        (2, 0.3),
    ]


def test_nms_is_ours() -> None:
    """Of two equal boxes of one class the better one is kept."""
    output = anchors((A[:4], (0.3, 0, 0)), (A[:4], (0.9, 0, 0)), (A[:4], (0, 0.8, 0)))

    assert [(c, s) for c, s, _ in decoded(output)] == [(0, 0.9), (1, 0.8)]
    assert [(c, s) for c, s, _ in decoded(output, agnostic_nms=True)] == [(0, 0.9)]
    assert [(c, s) for c, s, _ in decoded(output, classes=(1,))] == [(1, 0.8)]


@pytest.mark.parametrize("score", [-4.0, 1.2], ids=["far below 0", "above 1"])
def test_logits_are_told(score: float) -> None:
    """HailoRT applies no sigmoid to such outputs."""
    with pytest.raises(ModelError, match="are not probabilities"):
        decoded(anchors((A[:4], (score, 0, 0))))


def test_the_decoder_of_a_model() -> None:
    """`make_decoder` returns a decoder for raw heads and for decoded boxes; both are called in the same way."""
    raw = make_spec(make_head((64, 64)))
    tensors = [np.zeros(o.shape, o.dtype) for o in raw.head.outputs]

    assert len(make_decoder(raw, DecodeSettings())(tensors)) == 0
    assert len(make_decoder(spec(), DecodeSettings())([buffer([A], [], [])])) == 1
    assert (
        len(make_decoder(replace(raw, nms=spec().nms, head=spec().head), DecodeSettings())([buffer([A], [], [])])) == 1
    )
