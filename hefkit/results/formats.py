"""Detections as text files: JSON lines, CSV, COCO and YOLO labels, written picture by picture in constant memory."""

from __future__ import annotations

import csv
import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hefkit.detect.detections import Detections
from hefkit.results.folder import COCO, CSV, FILES, JSONL, LABELS, TXT


@dataclass(frozen=True)
class ImageInfo:
    """What text formats say about a picture."""

    source: str  # SOURCE as given, joined with the relative path
    relative: str  # below SOURCE
    stem: str  # different for every picture of a run
    frame: int | None  # of a video, from 0
    width: int  # pixels, as displayed
    height: int
    engine: str  # "hailort" | "emulated" | "float"


class Writer(ABC):
    """Writes one format: `add` every picture in order, `close` at the end."""

    @abstractmethod
    def add(self, image: ImageInfo, found: Detections) -> None:
        """Append one picture; boxes in its pixels, best first."""

    @abstractmethod
    def close(self) -> None:
        """Complete and close the files; calling it twice is allowed."""


def json_line(image: ImageInfo, found: Detections, names: Mapping[int, str]) -> str:
    """One line of `detections.jsonl`, without the line end; ASCII only."""
    # boxes are float32: four decimals are exact enough for a picture of 8192 pixels
    rows = [
        f'{{"class_id": {class_id}, "class": {json.dumps(names[class_id])}, "score": {score:.6f}, '
        f'"xyxy": [{x1:.4f}, {y1:.4f}, {x2:.4f}, {y2:.4f}]}}'
        for class_id, score, (x1, y1, x2, y2) in _rows(found)
    ]
    return (
        f'{{"source": {json.dumps(image.source)}, "frame": {json.dumps(image.frame)}, "width": {image.width}, '
        f'"height": {image.height}, "engine": {json.dumps(image.engine)}, "detections": [{", ".join(rows)}]}}'
    )


class JsonLinesWriter(Writer):
    """`detections.jsonl`: one object per picture."""

    def __init__(self, folder: Path, names: Mapping[int, str]) -> None:
        self._names = names
        self._file = open(folder / FILES[JSONL], "x", encoding="ascii")  # noqa: SIM115

    def add(self, image: ImageInfo, found: Detections) -> None:
        """Append one line."""
        self._file.write(json_line(image, found, self._names) + "\n")

    def close(self) -> None:
        """Flush and close."""
        self._file.close()


class CsvWriter(Writer):
    """`detections.csv`: one row per detection; a picture without detections has no row."""

    def __init__(self, folder: Path, names: Mapping[int, str]) -> None:
        self._names = names
        # file names need not be UTF-8; surrogateescape writes their original bytes
        self._file = open(folder / FILES[CSV], "x", encoding="utf-8", errors="surrogateescape", newline="")  # noqa: SIM115
        self._rows = csv.writer(self._file, lineterminator="\n")
        self._rows.writerow(["source", "frame", "class_id", "class", "score", "x1", "y1", "x2", "y2"])

    def add(self, image: ImageInfo, found: Detections) -> None:
        """Append the rows of one picture."""
        frame = "" if image.frame is None else image.frame
        self._rows.writerows(
            [image.source, frame, class_id, self._names[class_id], f"{score:.6f}", *(f"{v:.4f}" for v in box)]
            for class_id, score, box in _rows(found)
        )

    def close(self) -> None:
        """Flush and close."""
        self._file.close()


class CocoWriter(Writer):
    """`coco.json`: images, annotations with scores, categories; `image_id` from 1, `category_id` = class_id.

    Images and annotations come together, but are two lists: the annotations are kept in a second file until `close`.
    """

    def __init__(self, folder: Path, names: Mapping[int, str]) -> None:
        self._waiting = folder / ".coco-annotations"
        self._file = open(folder / FILES[COCO], "x+", encoding="ascii")  # noqa: SIM115
        self._annotations = open(self._waiting, "x+", encoding="ascii")  # noqa: SIM115
        self._images = self._count = 0
        categories = [{"id": class_id, "name": name} for class_id, name in sorted(names.items())]
        self._file.write(f'{{"categories": {json.dumps(categories)},\n"images": [')

    def add(self, image: ImageInfo, found: Detections) -> None:
        """Append one image and its annotations."""
        entry: dict[str, Any] = {"id": self._images + 1, "file_name": image.relative, "source": image.source}
        entry |= {"frame": image.frame, "width": image.width, "height": image.height}
        self._file.write((",\n" if self._images else "\n") + json.dumps(entry))
        self._images += 1
        for class_id, score, (x1, y1, x2, y2) in _rows(found):
            width, height = x2 - x1, y2 - y1
            self._annotations.write(
                (",\n" if self._count else "\n") + f'{{"id": {self._count + 1}, "image_id": {self._images}, '
                f'"category_id": {class_id}, "bbox": [{x1:.4f}, {y1:.4f}, {width:.4f}, {height:.4f}], '
                f'"area": {width * height:.4f}, "iscrowd": 0, "score": {score:.6f}}}'
            )
            self._count += 1

    def close(self) -> None:
        """Append the annotations to the images."""
        if self._annotations.closed:
            return
        self._annotations.seek(0)
        self._file.write('],\n"annotations": [')
        shutil.copyfileobj(self._annotations, self._file)
        self._file.write("]}\n")
        self._file.close()
        self._annotations.close()
        self._waiting.unlink()


class YoloWriter(Writer):
    """`labels/STEM.txt`: a line `class cx cy w h score` per detection, normalised to 0..1; empty without detections."""

    def __init__(self, folder: Path, names: Mapping[int, str]) -> None:
        self._folder = folder / LABELS
        self._folder.mkdir()

    def add(self, image: ImageInfo, found: Detections) -> None:
        """Write one file."""
        lines = [
            f"{class_id} {(x1 + x2) / 2 / image.width:.6f} {(y1 + y2) / 2 / image.height:.6f} "
            f"{(x2 - x1) / image.width:.6f} {(y2 - y1) / image.height:.6f} {score:.6f}\n"
            for class_id, score, (x1, y1, x2, y2) in _rows(found)
        ]
        (self._folder / f"{image.stem}.txt").write_text("".join(lines), encoding="ascii")

    def close(self) -> None:
        """Do nothing: every file is closed already."""


WRITERS: Mapping[str, Callable[[Path, Mapping[int, str]], Writer]] = {
    JSONL: JsonLinesWriter,
    CSV: CsvWriter,
    COCO: CocoWriter,
    TXT: YoloWriter,
}


def _rows(found: Detections) -> list[tuple[int, float, list[float]]]:
    """(class, score, [x1, y1, x2, y2]) of every detection; adding 0.0 turns -0.0 into 0.0."""
    boxes = (found.xyxy + 0.0).tolist()
    return list(zip(found.class_id.tolist(), found.score.tolist(), boxes, strict=True))
