"""Labels of a YOLO dataset: the text file of a picture -> boxes in pixels of the picture.

A line is one object: `class cx cy w h`, or `class x1 y1 x2 y2 x3 y3 ...`, the outline of a segmentation, whose bounding
box is used. All numbers but the class are shares of the picture, 0 to 1.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hefkit.detect.detections import Detections
from hefkit.errors import DataError
from hefkit.files import read_start
from hefkit.text import one_line

SLACK = 0.01  # share of the picture; boxes that cross its edge by less are clipped, because labelling tools write them
MAX_BYTES = 16 << 20


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
    try:
        raw = read_start(path, MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise DataError(f"{path} is not a label file: it has more than {MAX_BYTES >> 20} MB")
        text = raw.decode("utf-8-sig")
    except FileNotFoundError:
        return Detections.empty()
    except (OSError, UnicodeDecodeError) as exc:
        raise DataError(f"cannot read the labels {path}: {one_line(exc, 100)}; expected a text file") from exc
    lines: dict[str, int] = {}  # a repeated line is one object
    for number, line in enumerate(text.splitlines(), 1):
        lines.setdefault(line.strip(), number)
    rows = [_object(path, number, line.split(), num_classes) for line, number in lines.items() if line]
    if not rows:
        return Detections.empty()
    table = np.array(rows)
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
