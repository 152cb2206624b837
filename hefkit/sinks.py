"""What becomes of detections: JSON lines, annotated pictures, crops; all of them appear at once or not at all."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np

from hefkit.detections import Detections
from hefkit.draw import annotate
from hefkit.errors import DataError
from hefkit.files import Staging, explained
from hefkit.runfolder import CROPS, DETECTIONS, RECORD, Plan, write_record
from hefkit.sources import Item

EMULATION_STAMP = "INT8 emulation"
MAX_FOLDER_NAME = 60


@dataclass(frozen=True)
class Wanted:
    """What a run writes beside its JSON lines."""

    images: bool = True
    crops: bool = False
    line_width: int | None = None  # pixels; None: by the size of the picture
    hide_labels: bool = False


def json_line(
    source: str,
    frame: int | None,
    size_wh: tuple[int, int],
    engine: str,
    detections: Detections,
    names: Mapping[int, str],
) -> str:
    """One line of `detections.jsonl`, without the line end; boxes in pixels, best first, ASCII only."""
    # boxes are float32: four decimals hold all that a picture of 8192 pixels can tell
    rows = [
        f'{{"class_id": {class_id}, "class": {json.dumps(names[class_id])}, "score": {score:.6f}, '
        f'"xyxy": [{x1:.4f}, {y1:.4f}, {x2:.4f}, {y2:.4f}]}}'
        for (x1, y1, x2, y2), score, class_id in zip(
            (detections.xyxy + 0.0).tolist(), detections.score.tolist(), detections.class_id.tolist(), strict=True
        )
    ]
    return (
        f'{{"source": {json.dumps(source)}, "frame": {json.dumps(frame)}, "width": {size_wh[0]}, '
        f'"height": {size_wh[1]}, "engine": {json.dumps(engine)}, "detections": [{", ".join(rows)}]}}'
    )


class Outputs:
    """The files of one run: written below a hidden folder as they come, put in place by `commit`.

    Without a commit, after an error or Ctrl-C, everything that was there before is still there.
    """

    def __init__(
        self, plan: Plan, items: Sequence[Item], engine: str, names: Mapping[int, str], wanted: Wanted
    ) -> None:
        self.plan = plan
        self.items = items
        self.engine = engine
        self.names = names
        self.wanted = wanted
        self._stamp = EMULATION_STAMP if engine == "emulated" else None
        self._class_folders = class_folders(names)
        self._written: list[str] = []
        self._close = contextlib.ExitStack()
        self._stage: Staging
        self._lines: IO[str]

    def __enter__(self) -> Outputs:
        with contextlib.ExitStack() as stack:
            self._stage = stack.enter_context(Staging(self.plan.folder))
            with explained(self.plan.folder):
                self._lines = stack.enter_context(open(self._stage.path / DETECTIONS, "x", encoding="ascii"))
            self._close = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        with explained(self.plan.folder):
            self._close.close()

    def write(self, index: int, image_bgr: np.ndarray, detections: Detections) -> None:
        """Everything about one picture, (h, w, 3) uint8 BGR, `items[index]`."""
        height, width = image_bgr.shape[:2]
        with explained(self.plan.folder):
            line = json_line(self.items[index].source, None, (width, height), self.engine, detections, self.names)
            self._lines.write(line + "\n")
            if self.wanted.images:
                self._write_picture(self.plan.pictures[index].as_posix(), image_bgr, detections)
            if self.wanted.crops:
                self._write_crops(self.plan.stems[index], image_bgr, detections)

    def commit(self, facts: dict[str, Any]) -> None:
        """Put every file in its place; `facts` about the run go into `run.json`."""
        with explained(self.plan.folder):
            self._lines.close()
            write_record(self._stage.path / RECORD, self.plan, self._written, self.wanted.crops, facts)
        self._stage.commit(last=DETECTIONS)

    def _write_picture(self, name: str, image_bgr: np.ndarray, detections: Detections) -> None:
        drawn = annotate(
            image_bgr,
            detections,
            self.names,
            line_width=self.wanted.line_width,
            hide_labels=self.wanted.hide_labels,
            stamp=self._stamp,
        )
        _write_image(self._stage.path / name, drawn)
        self._written.append(name)

    def _write_crops(self, stem: str, image_bgr: np.ndarray, detections: Detections) -> None:
        """`crops/CLASS/STEM-N.jpg`; N counts the picture's detections from 1, best first."""
        for number, (box, class_id) in enumerate(zip(detections.xyxy, detections.class_id.tolist(), strict=True), 1):
            folder = self._stage.path / CROPS / self._class_folders[class_id]
            _write_image(folder / f"{stem}-{number}.jpg", crop(image_bgr, box))


def crop(image_bgr: np.ndarray, xyxy: np.ndarray) -> np.ndarray:
    """Every pixel that a box touches, at least one, however thin the box: (h, w, 3) uint8, a view."""
    height, width = image_bgr.shape[:2]
    x1, y1 = (int(min(max(np.floor(v), 0), limit - 1)) for v, limit in zip(xyxy[:2], (width, height), strict=True))
    x2, y2 = (int(min(max(np.ceil(v), 1), limit)) for v, limit in zip(xyxy[2:], (width, height), strict=True))
    return image_bgr[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)]


def class_folders(names: Mapping[int, str]) -> dict[int, str]:
    """A safe and different folder name for every class: names come from models and may hold anything."""
    folders: dict[int, str] = {}
    taken = set()
    for class_id, name in sorted(names.items()):
        safe = re.sub(r"[^\w-]+", "_", name)[:MAX_FOLDER_NAME].strip("_")
        if not safe or safe.casefold() in taken:
            safe = f"{safe or 'class'}-{class_id}"
        while safe.casefold() in taken:
            safe += "_"
        taken.add(safe.casefold())
        folders[class_id] = safe
    return folders


def _write_image(path: Path, image_bgr: np.ndarray) -> None:
    """Encode by suffix and write; OpenCV's own writer would keep a full disk to itself."""
    encoded, data = cv2.imencode(path.suffix, image_bgr)
    if not encoded:
        raise DataError(f"OpenCV cannot encode a picture of {image_bgr.shape[1]}x{image_bgr.shape[0]} as {path.suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.tobytes())
