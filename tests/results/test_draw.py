"""Annotated pictures: every box and word visible, inside the picture, on any background, at any size."""

from __future__ import annotations

import colorsys
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hefkit.detect.detections import Detections
from hefkit.results import draw
from hefkit.results.draw import annotate, class_colour, ink_on, luminance


def detections(*rows: tuple[int, float, tuple[float, float, float, float]]) -> Detections:
    """Detections of (class, score, xyxy)."""
    return Detections(
        np.array([r[2] for r in rows], np.float32).reshape(-1, 4),
        np.array([r[1] for r in rows], np.float32),
        np.array([r[0] for r in rows], np.int64),
    )


def grey(height: int, width: int, level: int = 128) -> np.ndarray:
    """A flat picture."""
    return np.full((height, width, 3), level, np.uint8)


@pytest.fixture
def labels(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int, int, int]]:
    """Every text that is drawn: (text, left, top, right, bottom)."""
    drawn = []
    original = draw.Text.draw

    def spy(self: draw.Text, image: np.ndarray, left: int, top: int, colour: draw.BGR) -> None:
        drawn.append((self.text, left, top, left + self.width, top + self.height))
        original(self, image, left, top, colour)

    monkeypatch.setattr(draw.Text, "draw", spy)
    return drawn


def test_the_photograph_is_not_changed() -> None:
    """A new picture of the same size comes back."""
    image = grey(90, 120)

    drawn = annotate(image, detections((0, 0.9, (10, 20, 60, 80))), {0: "cat"}, stamp="INT8 emulation")

    assert (image == 128).all() and drawn.shape == image.shape and (drawn != image).any()


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_box_shows_on_any_background(level: int) -> None:
    """The line has its class's colour, and something next to it differs from the wall behind."""
    drawn = annotate(grey(300, 300, level), detections((1, 0.9, (100, 100, 200, 220))), {1: "x"}, hide_labels=True)

    assert tuple(drawn[160, 100].tolist()) == class_colour(1)
    assert tuple(drawn[100, 150].tolist()) == tuple(drawn[219, 150].tolist()) == class_colour(1)
    assert (drawn[120:200, 110:190] == level).all(), "the object itself is not painted over"


@pytest.mark.parametrize("width", [1, 3, 9])
def test_line_width_is_kept(width: int) -> None:
    """`--line-width` counts the coloured pixels of the line."""
    drawn = annotate(grey(300, 300), detections((1, 0.9, (100, 100, 200, 220))), {}, line_width=width, hide_labels=True)

    assert (drawn[160, :150] == class_colour(1)).all(axis=1).sum() == width


def test_lines_and_letters_grow_with_the_picture(labels: list[tuple[str, int, int, int, int]]) -> None:
    """A picture of ten times the side gets lines and letters of several times the size."""
    small, large = grey(400, 400), grey(4000, 4000)
    lines = []
    for image in (small, large):
        side = image.shape[0]
        drawn = annotate(image, detections((1, 0.9, (0.3 * side, 0.3 * side, 0.8 * side, 0.8 * side))), {1: "cat"})
        lines.append((drawn[side // 2] == class_colour(1)).all(axis=1).sum())
    heights = [bottom - top for _, _, top, _, bottom in labels]

    assert lines[1] >= 4 * lines[0] and heights[1] >= 4 * heights[0]


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    n=st.integers(0, 12),
    stamp=st.sampled_from([None, "INT8 emulation"]),
    line_width=st.sampled_from([None, 1, 40]),
    name=st.text(max_size=60),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_picture_any_boxes_any_names(
    height: int, width: int, n: int, stamp: str | None, line_width: int | None, name: str, seed: int
) -> None:
    """From one pixel up, boxes at, on and beyond the edges, names of any text: a picture comes back."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-0.2, 1.2, (n, 4)) * np.array([width, height] * 2)
    found = Detections(corners.astype(np.float32), rng.random(n).astype(np.float32), rng.integers(0, 9, n))

    drawn = annotate(grey(height, width), found, dict.fromkeys(range(9), name), line_width=line_width, stamp=stamp)

    assert drawn.shape == (height, width, 3) and drawn.dtype == np.uint8


@pytest.mark.parametrize(
    "box",
    [(0, 0, 50, 50), (250, 0, 300, 50), (0, 150, 50, 200), (250, 150, 300, 200), (0, 0, 300, 200), (-9, -9, 400, 300)],
    ids=str,
)
def test_labels_stay_inside(box: tuple[float, ...], labels: list[tuple[str, int, int, int, int]]) -> None:
    """A box in a corner, or as large as the picture, has its whole label in the picture."""
    annotate(grey(200, 300), detections((0, 0.876, box)), {0: "a rather long name"})  # type: ignore[arg-type]

    [(text, left, top, right, bottom)] = labels
    assert text == "a rather long name 0.88"
    assert left >= 0 and top >= 0 and right <= 300 and bottom <= 200


def test_the_ink_stays_in_its_box() -> None:
    """Letters of every height, accents of OpenCV's font included, do not leave the label's background."""
    for scale in (0.3, 0.5, 1.0, 2.7):
        text = draw.Text.measure("|gjpqyA(0.87)", scale)
        image = grey(text.height + 40, text.width + 40)
        text.draw(image, 20, 20, (255, 255, 255))
        image[20 : 20 + text.height, 20 : 20 + text.width] = 128

        assert (image == 128).all()


def test_labels_avoid_each_other(labels: list[tuple[str, int, int, int, int]]) -> None:
    """Boxes that share a corner get labels in different places."""
    boxes = [(100, 100, 200 + 30 * i, 200 + 30 * i) for i in range(4)]

    annotate(grey(480, 640), detections(*[(0, 0.9 - 0.1 * i, b) for i, b in enumerate(boxes)]), {0: "person"})

    for i, (_, *a) in enumerate(labels):
        for _, *b in labels[:i]:
            assert min(a[2], b[2]) <= max(a[0], b[0]) or min(a[3], b[3]) <= max(a[1], b[1])


def test_labels_avoid_the_stamp(labels: list[tuple[str, int, int, int, int]]) -> None:
    """An object in the stamp's corner has its label elsewhere, and the stamp is drawn last."""
    annotate(grey(200, 300), detections((0, 0.9, (0, 197, 200, 200))), {0: "cat"}, stamp="INT8 emulation")

    (label, *a), (stamp, *b) = labels
    assert (label, stamp) == ("cat 0.90", "INT8 emulation")
    assert a[0] >= b[2] or a[3] <= b[1]


def test_hidden_labels(labels: list[tuple[str, int, int, int, int]]) -> None:
    """`--hide-labels` leaves the boxes, and the stamp of an emulation."""
    annotate(grey(200, 300), detections((0, 0.9, (9, 9, 90, 90))), {0: "cat"}, hide_labels=True, stamp="INT8 emulation")

    assert [text for text, *_ in labels] == ["INT8 emulation"]


@pytest.mark.parametrize(
    ("side", "words"),
    [(4000, "INT8 emulation"), (300, "INT8 emulation"), (120, "INT8 emulation"), (32, "INT8"), (8, None)],
)
def test_the_stamp_fits(side: int, words: str | None, labels: list[tuple[str, int, int, int, int]]) -> None:
    """The stamp is as large as the picture asks for; a thumbnail gets its first word, a dot nothing."""
    drawn = annotate(grey(side, side), Detections.empty(), {}, stamp="INT8 emulation")

    assert [text for text, *_ in labels] == ([words] if words else [])
    if words:
        _, left, top, right, bottom = labels[0]
        patch = drawn[top:bottom, left:right]
        assert bottom <= side and right <= side
        assert patch.min() == 0 and patch.max() >= 200, "light letters on a dark box"


def test_colours_are_stable_and_apart() -> None:
    """A class has one colour everywhere; the first 80 are all different, and neighbours clearly so."""
    colours = [class_colour(i) for i in range(80)]
    hues = [colorsys.rgb_to_hsv(*[c / 255 for c in colour[::-1]])[0] for colour in colours]

    assert colours == [class_colour(i) for i in range(80)] and len(set(colours)) == 80
    for a, b in itertools.pairwise(hues):
        assert min(abs(a - b), 1 - abs(a - b)) > 0.2


def test_letters_have_contrast() -> None:
    """Black or white on any class's colour has a contrast of at least 4.5 to 1 (WCAG AA)."""
    for colour in [class_colour(i) for i in range(1000)] + [draw.BLACK, draw.WHITE]:
        dark, light = sorted([luminance(colour), luminance(ink_on(colour))])

        assert (light + 0.05) / (dark + 0.05) > 4.5


def test_many_boxes_are_drawn_in_reasonable_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Far more boxes than a label looks at: it avoids so many labels and objects and no more, and all are drawn."""
    monkeypatch.setattr(draw, "MAX_OBJECTS", 100)
    monkeypatch.setattr(draw, "MAX_PLACED", 50)
    looked_at, place = [], draw._place

    def spy(box: Sequence[int], text: draw.Text, taken: np.ndarray, small: np.ndarray, shape: tuple[int, ...]) -> Any:
        looked_at.append((len(taken), len(small)))
        return place(box, text, taken, small, shape)

    monkeypatch.setattr(draw, "_place", spy)
    corner = np.stack(np.divmod(np.arange(400), 20), axis=1) * 50 + 10
    boxes = np.concatenate([corner, corner + 30], axis=1).astype(np.float32)
    found = Detections(boxes, np.linspace(1, 0.1, 400, dtype=np.float32), np.arange(400) % 80)

    drawn = annotate(grey(1020, 1020), found, {})

    assert np.max(looked_at, axis=0).tolist() == [50, 100]
    for x, y in corner:
        assert (drawn[y : y + 30, [x, x + 29]] != 128).any(axis=2).all(), (
            "the left and the right line, or a label on it"
        )


@pytest.mark.parametrize("count", [1, 6, 40, 300])
def test_a_label_never_covers_a_small_object(count: int) -> None:
    """Without labels, the pixels of every small box are the same; objects with room around them have a label."""
    rng = np.random.default_rng(count)
    corners = rng.uniform([0, 0], [620, 460], (count, 2))
    boxes = np.hstack([corners, corners + rng.uniform(8, 24, (count, 2))]).astype(np.float32)
    found = Detections(boxes, np.linspace(0.9, 0.3, count, dtype=np.float32), np.zeros(count, np.int64))
    background = rng.integers(0, 256, (480, 640, 3), np.uint8)

    labelled = annotate(background, found, {0: "drone"})
    plain = annotate(background, found, {0: "drone"}, hide_labels=True)

    changed = (labelled != plain).any(axis=2)
    for x1, y1, x2, y2 in np.rint(boxes).astype(int).tolist():
        assert not changed[max(y1 - 1, 0) : y2 + 1, max(x1 - 1, 0) : x2 + 1].any()
    assert changed.any()


def test_a_label_may_lie_in_a_large_object() -> None:
    """A box as large as the picture has its label inside, as before."""
    found = Detections(np.array([[0, 0, 640, 480]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int64))
    background = np.full((480, 640, 3), 128, np.uint8)
    differs = annotate(background, found, {0: "drone"}) != annotate(background, found, {0: "drone"}, hide_labels=True)
    assert differs.any()


def test_only_letters_that_may_be_drawn_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV 5 takes milliseconds for the first text of a size, so a size for nothing made ten labels 20 ms slower."""
    scales: list[float] = []
    measure = draw.cv2.getTextSize

    def spy(text: str, font: int, scale: float, thickness: int) -> Any:
        scales.append(scale)
        return measure(text, font, scale, thickness)

    monkeypatch.setattr(draw.cv2, "getTextSize", spy)
    draw.Text.measure.cache_clear()
    boxes = [(100, 100 * i, 400, 100 * i + 60) for i in range(1, 9)]

    annotate(grey(1080, 1920), detections(*[(i, 0.9 - i / 100, box) for i, box in enumerate(boxes)]), {})

    assert scales and set(scales) == {1500 * 0.0007}
