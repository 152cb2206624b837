"""Labels of a YOLO dataset: the text file of a picture -> boxes in pixels of the picture.

A line is one object: `class cx cy w h`, or `class x1 y1 x2 y2 x3 y3 ...`, the outline of a segmentation, whose bounding
box is used. All numbers but the class are shares of the picture, 0 to 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hefkit.detect.detections import Detections
from hefkit.errors import DataError
from hefkit.files import read_start
from hefkit.pictures.datayaml import is_data_yaml, read_data_yaml
from hefkit.pictures.sources import Item, photographs
from hefkit.text import one_line

SLACK = 0.01  # share of the picture; boxes that cross its edge by less are clipped, because labelling tools write them
MAX_BYTES = 16 << 20
MAX_NAMED = 3  # files in a note


def labelled_pictures(data: str, split: str) -> tuple[list[Item], dict[int, str] | None]:
    """The pictures of one split of a data.yaml, and its class names; None where it has none.

    Raises:
        DataError: it is not a dataset file, has no such split, or the split has no pictures.
        ToolchainError: PyYAML is missing.
    """
    if not is_data_yaml(data):
        raise DataError(f"--data {data} is not a dataset file; expected a data.yaml with train:, val: and names:")
    described = read_data_yaml(data)
    if split not in described.splits:
        raise DataError(f"{data} has no split {split}; it has {', '.join(described.splits)}; choose another --split")
    names = described.described.get("names")
    pairs = list(names.items() if isinstance(names, dict) else enumerate(names) if isinstance(names, list) else ())
    known = {int(i): str(name) for i, name in pairs if str(i).isdigit()}
    return photographs(described.items(split), data), known or None


def label_path(picture: Path) -> Path:
    """The label file of a picture: .../images/... -> .../labels/... (the last `images`); else beside the picture."""
    parts = list(picture.parts)
    places = [i for i, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
    return Path(*parts).with_suffix(".txt")


def read_labels(path: Path, size_wh: tuple[int, int], num_classes: int) -> Detections:
    """The objects of one picture, with score 1; no objects if the file is empty or missing, as in YOLO datasets.

    Args:
        path: the label file.
        size_wh: of the upright picture, in pixels.
        num_classes: classes are 0 to num_classes - 1.

    Raises:
        DataError: a wrong line, with its number.
    """
    text = _text(path)
    return Detections.empty() if text is None else _boxes(_rows(path, _lines(text), num_classes), size_wh)


def labels_in(raw: bytes, path: Path, size_wh: tuple[int, int], num_classes: int) -> Detections:
    """`read_labels` for the bytes of a label file that lies elsewhere; `path` is its name in messages."""
    return _boxes(_rows(path, _lines(_decoded(raw, path)), num_classes), size_wh)


class LabelFiles:
    """Reads the label files of a dataset as trainers write them, and counts what is unusual in them.

    A wrong line is left out, and the other lines of its file count; `read_labels` refuses such a file.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.boxes = 0
        self._seen: set[Path] = set()
        self._odd: dict[str, list[str]] = {}  # what -> where

    def of(self, picture: Path, size_wh: tuple[int, int]) -> Detections:
        """The objects of one picture; a file that is asked for again is not counted again."""
        path = label_path(picture)
        odd: dict[str, list[str]] = {}
        found = self._read(path, size_wh, odd)
        if path not in self._seen:
            self._seen.add(path)
            self.boxes += len(found)
            for what, where in odd.items():
                self._odd.setdefault(what, []).extend(where)
        return found

    def notes(self) -> list[str]:
        """One line for each kind of oddity: how often, and the first places."""
        lines = []
        for what, where in self._odd.items():
            more = f" and {len(where) - MAX_NAMED} more" if len(where) > MAX_NAMED else ""
            lines.append(f"{what}: {len(where)} ({'; '.join(where[:MAX_NAMED])}{more})")
        return lines

    def _read(self, path: Path, size_wh: tuple[int, int], odd: dict[str, list[str]]) -> Detections:
        name = one_line(path.name, 80)
        try:
            text = _text(path)
        except DataError as exc:
            odd["label files that cannot be read, taken as pictures without objects"] = [one_line(exc)]
            return Detections.empty()
        if text is None:
            odd["pictures without a label file, taken as pictures without objects"] = [name]
            return Detections.empty()
        lines = _lines(text)
        rows: list[tuple[float, ...]] = []
        repeated = sum(1 for line in text.splitlines() if line.strip()) - len(lines)
        if repeated:
            odd["repeated lines in label files, each taken once"] = [name] * repeated
        if not lines:
            odd["empty label files, taken as pictures without objects"] = [name]
        if any(len(line.split()) > 5 for line in lines):
            odd["label files with outlines, of which the bounding boxes are taken"] = [name]
        for line, number in lines.items():
            try:
                rows += _rows(path, {line: number}, self.num_classes)
            except DataError as exc:
                odd.setdefault("wrong lines in label files, left out", []).append(one_line(exc, 200))
        return _boxes(iter(rows), size_wh)


def _text(path: Path) -> str | None:
    """The text of a label file; None if there is none."""
    try:
        return _decoded(read_start(path, MAX_BYTES + 1), path)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise _not_readable(path, exc) from exc


def _decoded(raw: bytes, path: Path) -> str:
    if len(raw) > MAX_BYTES:
        raise DataError(f"{path} is not a label file: it has more than {MAX_BYTES >> 20} MB")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise _not_readable(path, exc) from exc


def _not_readable(path: Path, exc: Exception) -> DataError:
    return DataError(f"cannot read the labels {path}: {one_line(exc, 100)}; expected a text file")


def _lines(text: str) -> dict[str, int]:
    """Line -> number of the first such line; a repeated line is one object, and empty lines do not count."""
    lines: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            lines.setdefault(line.strip(), number)
    return lines


def _rows(path: Path, lines: dict[str, int], num_classes: int) -> Iterator[tuple[float, ...]]:
    return (_object(path, number, line.split(), num_classes) for line, number in lines.items())


def _boxes(rows: Iterator[tuple[float, ...]], size_wh: tuple[int, int]) -> Detections:
    """(class, left, top, right, bottom) in shares -> boxes in pixels, with score 1."""
    table = np.array(list(rows))
    if not len(table):
        return Detections.empty()
    xyxy = np.clip(table[:, 1:], 0, 1) * np.array([*size_wh, *size_wh])
    return Detections(xyxy.astype(np.float32), np.ones(len(table), np.float32), table[:, 0].astype(np.int64))


def _object(path: Path, number: int, words: list[str], num_classes: int) -> tuple[float, ...]:
    """(class, left, top, right, bottom), the sides as shares."""
    try:
        class_id, *shares = map(float, words)
    except ValueError:
        class_id, shares = 0.5, []
    outline = len(shares) >= 6 and len(shares) % 2 == 0
    if not class_id.is_integer() or not (len(shares) == 4 or outline):
        raise DataError(f"{path}, line {number}: {one_line(' '.join(words), 60)!r}; expected `class cx cy w h`")
    if not 0 <= class_id < num_classes:
        raise DataError(
            f"{path}, line {number}: class {class_id:.0f}; expected one of the model's {num_classes} classes, from 0"
        )
    values = np.array(shares)
    if not np.isfinite(values).all() or values.min() < -SLACK or values.max() > 1 + SLACK:
        raise DataError(f"{path}, line {number}: a value outside 0 to 1; expected shares of the picture, not pixels")
    if outline:
        return class_id, *values.reshape(-1, 2).min(axis=0), *values.reshape(-1, 2).max(axis=0)
    return class_id, *(values[:2] - values[2:] / 2), *(values[:2] + values[2:] / 2)
