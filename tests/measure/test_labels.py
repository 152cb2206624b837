"""Labels of a YOLO dataset: where they are, what a line means, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hefkit.errors import DataError
from hefkit.measure.labels import MAX_BYTES, LabelFiles, label_path, read_labels

SIZE = (640, 480)


@pytest.mark.parametrize(
    "picture, expected",
    [
        ("data/images/val/a.jpg", "data/labels/val/a.txt"),
        ("data/val/images/a.b.png", "data/val/labels/a.b.txt"),
        ("images/old/images/a.jpg", "images/old/labels/a.txt"),
        ("data/pictures/a.jpg", "data/pictures/a.txt"),
        ("images.jpg", "images.txt"),
    ],
)
def test_place(picture: str, expected: str) -> None:
    """The last folder called images becomes labels, as ultralytics has it."""
    assert label_path(Path(picture)) == Path(expected)


LINES = {
    "a box": ("1 0.5 0.5 0.25 0.5", [(1, 240, 120, 400, 360)]),
    "two, an empty line between, no line end": (
        "0 0.5 0.5 1 1\n\n1 0.25 0.25 0.5 0.5", [(0, 0, 0, 640, 480), (1, 0, 0, 320, 240)],
    ),
    "the same line twice is one object": ("0 0.5 0.5 1 1\n0 0.5 0.5 1 1\n", [(0, 0, 0, 640, 480)]),
    "an outline": ("0 0.25 0.5 0.5 0.25 0.75 0.5", [(0, 160, 120, 480, 240)]),
    "over the edge by a little": ("0 0.5 0.5 1.005 1", [(0, 0, 0, 640, 480)]),
    "over every edge by as much as is allowed": ("0 -0.01 -0.01 1.01 1.01", [(0, 0, 0, 316.8, 237.6)]),
    "Windows line ends and a byte order mark": ("\ufeff0 0.5 0.5 1 1\r\n", [(0, 0, 0, 640, 480)]),
    "a class written 1.0": ("1.0 0.5 0.5 1 1", [(1, 0, 0, 640, 480)]),
    "nothing": ("\n", []),
}  # fmt: skip


@pytest.mark.parametrize("text, expected", LINES.values(), ids=LINES.keys())
def test_lines(text: str, expected: list[tuple[float, ...]], tmp_path: Path) -> None:
    """Class and corners in pixels of a 640 x 480 picture."""
    file = tmp_path / "a.txt"
    file.write_text(text, encoding="utf-8", newline="")

    found = read_labels(file, SIZE, 2)

    rows = np.column_stack([found.class_id, found.xyxy])
    np.testing.assert_allclose(rows, np.array(expected).reshape(-1, 5), atol=1e-3)
    assert (found.score == 1).all()


def test_no_file_means_no_objects(tmp_path: Path) -> None:
    """YOLO datasets leave the file out where there is nothing to label."""
    assert len(read_labels(tmp_path / "missing.txt", SIZE, 2)) == 0


REFUSED = {
    "pixels instead of shares": ("0 320 240 100 100", "outside 0 to 1"),
    "negative": ("0 -0.5 0.5 0.1 0.1", "outside 0 to 1"),
    "not a number": ("0 0.5 nan 0.1 0.1", "outside 0 to 1"),
    "too few": ("0 0.5 0.5 0.1", "expected `class cx cy w h`"),
    "an outline with half a point": ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "expected `class cx cy w h`"),
    "a class of its own": ("0.5 0.5 0.5 0.1 0.1", "expected `class cx cy w h`"),
    "infinite class": ("inf 0.5 0.5 0.1 0.1", "expected `class cx cy w h`"),
    "words": ("drone 0.5 0.5 0.1 0.1", "expected `class cx cy w h`"),
    "a class below 0": ("-1 0.5 0.5 0.1 0.1", "line 1: class -1; expected one of the model's 2 classes, from 0"),
    "beyond the right edge": ("0 1.011 0.5 0.1 0.1", "outside 0 to 1; expected shares of the picture, not pixels"),
    "beyond the left edge": ("0 -0.011 0.5 0.1 0.1", "outside 0 to 1; expected shares of the picture, not pixels"),
    "an unknown class": ("0 0.5 0.5 0.1 0.1\n\n2 0.5 0.5 0.1 0.1", "line 3: class 2; expected one of the model's 2"),
}


@pytest.mark.parametrize("text, reason", REFUSED.values(), ids=REFUSED.keys())
def test_refused(text: str, reason: str, tmp_path: Path) -> None:
    """The error names the file, the line and what was expected."""
    file = tmp_path / "a.txt"
    file.write_text(text)

    with pytest.raises(DataError) as caught:
        read_labels(file, SIZE, 2)

    assert reason in str(caught.value) and str(file) in str(caught.value)


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    """A picture that was given the wrong suffix."""
    (tmp_path / "a.txt").write_bytes(b"\xff\xd8\xff\xe0")

    with pytest.raises(DataError, match="expected a text file"):
        read_labels(tmp_path / "a.txt", SIZE, 2)


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    """16 MB are read, one byte more is not: a label file has a few hundred lines."""
    file = tmp_path / "a.txt"
    line = "0 0.5 0.5 1 1"
    file.write_text(line + " " * (MAX_BYTES - len(line)))
    assert len(read_labels(file, SIZE, 1)) == 1

    file.write_text(line + " " * (MAX_BYTES - len(line) + 1))
    with pytest.raises(DataError, match=r"a\.txt is not a label file: it has more than 16 MB"):
        read_labels(file, SIZE, 1)


box = st.tuples(st.integers(0, 600), st.integers(0, 440), st.integers(1, 40), st.integers(1, 40))


@given(st.lists(box, max_size=5, unique=True))
@settings(max_examples=50)
def test_what_was_written_is_read(tmp_path_factory: pytest.TempPathFactory, boxes: list[tuple[int, ...]]) -> None:
    """Six decimals bring whole pixels back to within a thousandth."""
    file = tmp_path_factory.mktemp("labels") / "a.txt"
    rows = [((x + w / 2) / 640, (y + h / 2) / 480, w / 640, h / 480) for x, y, w, h in boxes]
    file.write_text("".join("0 " + " ".join(f"{v:.6f}" for v in row) + "\n" for row in rows))

    found = read_labels(file, SIZE, 1).xyxy

    np.testing.assert_allclose(
        found, np.array([(x, y, x + w, y + h) for x, y, w, h in boxes]).reshape(-1, 4), atol=2e-3
    )


def test_files_as_trainers_write_them(tmp_path: Path) -> None:
    """Outlines, repeated and wrong lines, empty and missing files: each is counted and named, and the rest counts."""
    files = {
        "outline": "0 0.25 0.5 0.5 0.25 0.75 0.5\n",
        "repeated": "0 0.5 0.5 1 1\n0 0.5 0.5 1 1\n",
        "class": "7 0.5 0.5 0.1 0.1\n1 0.5 0.5 1 1\n",
        "pixels": "0 320 240 100 100\n",
        "empty": "\n",
    }
    for name, text in files.items():
        (tmp_path / f"{name}.txt").write_text(text)
    labels = LabelFiles(2)

    for _ in range(2):  # a second model on the same pictures
        counts = {name: len(labels.of(tmp_path / f"{name}.jpg", SIZE)) for name in [*files, "missing"]}

    assert counts == {"outline": 1, "repeated": 1, "class": 1, "pixels": 0, "empty": 0, "missing": 0}
    assert labels.boxes == 3
    notes = {note.partition(":")[0]: note.partition(": ")[2] for note in labels.notes()}
    assert notes["label files with outlines, of which the bounding boxes are taken"] == "1 (outline.txt)"
    assert notes["repeated lines in label files, each taken once"] == "1 (repeated.txt)"
    assert notes["empty label files, taken as pictures without objects"] == "1 (empty.txt)"
    assert notes["pictures without a label file, taken as pictures without objects"] == "1 (missing.txt)"
    wrong = notes["wrong lines in label files, left out"]
    assert wrong.startswith("2 (") and "class 7; expected one of the model's 2 classes" in wrong
    assert "pixels.txt, line 1" in wrong


def test_notes_stay_short(tmp_path: Path) -> None:
    """Of many pictures without labels three are named."""
    labels = LabelFiles(1)
    for i in range(9):
        labels.of(tmp_path / f"{i}.jpg", SIZE)

    assert labels.notes()[0].endswith(": 9 (0.txt; 1.txt; 2.txt and 6 more)")
