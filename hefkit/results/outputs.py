"""All files of one run: text formats, annotated pictures or a video, crops. They appear together or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from hefkit.detect.detections import Detections
from hefkit.errors import DataError
from hefkit.files import explained
from hefkit.names import class_folders
from hefkit.pictures.find import RECORD
from hefkit.pictures.frames import Frame
from hefkit.pictures.header import LARGE_PIXELS
from hefkit.pictures.memory import GB, available_memory
from hefkit.pictures.video import VideoFacts
from hefkit.pictures.writer import VideoWriter
from hefkit.results.draw import draw_on
from hefkit.results.folder import CROPS, FILES, RunPlan, write_record
from hefkit.results.formats import WRITERS, ImageInfo, Writer
from hefkit.staging.stage import Staging
from hefkit.text import log, one_line

EMULATION_STAMP = "INT8 emulation"
WEBP = (cv2.IMWRITE_WEBP_QUALITY, 90)  # OpenCV's default is lossless: four times the time, seven times the memory
ENCODING, ENCODING_OTHERS = {".bmp": 6}, 2  # bytes a pixel while a picture is encoded
MAX_SIDE = {".jpg": 65500, ".jpeg": 65500, ".webp": 16383}  # pixels; limits of libjpeg and of the format


class NotEncoded(Exception):
    """A picture cannot be encoded; `str()` says why, without its name."""


@dataclass(frozen=True)
class Style:
    """The style of annotated pictures."""

    line_width: int | None = None  # pixels; None: chosen by the size of the picture
    hide_labels: bool = False


class Outputs:
    """The files of one run: written into a hidden folder, and put in place by `commit`.

    Without `commit`, after an error or Ctrl-C, the run folder is unchanged.
    """

    def __init__(
        self,
        plan: RunPlan,
        engine: str,
        names: Mapping[int, str],
        style: Style | None = None,
        video: VideoFacts | None = None,
    ) -> None:
        self.plan = plan
        self.engine = engine
        self.names = names
        self.style = style or Style()
        self._video = video
        self._stamp = EMULATION_STAMP if engine == "emulated" else None
        self._class_folders = class_folders(names)
        self._written = [FILES[name] for name in plan.options.formats if name in FILES]
        self._close = contextlib.ExitStack()
        self._stage: Staging
        self._writers: list[Writer] = []
        self._film: VideoWriter | None = None

    def __enter__(self) -> Outputs:
        with contextlib.ExitStack() as stack:
            self._stage = stack.enter_context(Staging(self.plan.folder))
            with explained(self.plan.folder):
                for name in self.plan.options.formats:
                    self._writers.append(WRITERS[name](self._stage.path, self.names))
                    stack.callback(self._writers[-1].close)
                if self.plan.options.video and self._video is not None:
                    self._film = self._open_film(self._video)
                    stack.callback(self._film.close)
            self._close = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        with explained(self.plan.folder):
            self._close.close()

    def write(self, frame: Frame, found: Detections) -> None:
        """Write everything about one readable frame; boxes in pixels of its picture, which is drawn into."""
        assert isinstance(frame.picture, np.ndarray)
        # all frames of a video share one item
        index, ending = (frame.index, "") if frame.number is None else (0, f"_{frame.number:06d}")
        item, stem = self.plan.items[index], self.plan.stems[index] + ending
        height, width = frame.picture.shape[:2]
        image = ImageInfo(frame.source, item.relative.as_posix(), stem, frame.number, width, height, self.engine)
        with explained(self.plan.folder):
            for writer in self._writers:
                writer.add(image, found)
            if self.plan.options.crops:
                self._write_crops(stem, frame.picture, found)
            if self._film is not None:
                self._draw_on(frame.picture, found)
                self._film.write(frame.picture)
            elif self.plan.options.images:
                self._draw_on(frame.picture, found)
                self._write_picture(self.plan.pictures[index].as_posix(), frame)

    def commit(self, facts: dict[str, Any]) -> None:
        """Put all files in place; `facts` about the run go into `run.json`."""
        with explained(self.plan.folder):
            for writer in self._writers:
                writer.close()
            if self._film is not None:
                self._film.close()
                self._film.check()
        with self._stage.locked():  # the record lists what lies in the folder now, other runs' files included
            write_record(self._stage.path / RECORD, self.plan, self._written, facts)
            self._stage.commit(last=FILES.get(self.plan.options.formats[0], RECORD))

    def _open_film(self, video: VideoFacts) -> VideoWriter:
        name = self.plan.pictures[0].as_posix()
        self._written.append(name)
        (self._stage.path / name).parent.mkdir(parents=True, exist_ok=True)
        return VideoWriter(self._stage.path / name, video.fps, video.size_wh)

    def _draw_on(self, image_bgr: np.ndarray, found: Detections) -> None:
        draw_on(
            image_bgr,
            found,
            self.names,
            line_width=self.style.line_width,
            hide_labels=self.style.hide_labels,
            stamp=self._stamp,
        )

    def _write_picture(self, name: str, frame: Frame) -> None:
        assert isinstance(frame.picture, np.ndarray)
        try:
            _write_image(self._stage.path / name, frame.picture)
        except NotEncoded as exc:
            log.warning("%s: no annotated picture, its detections are written: %s", one_line(frame.source), exc)
        else:
            self._written.append(name)

    def _write_crops(self, stem: str, image_bgr: np.ndarray, found: Detections) -> None:
        """Write `crops/CLASS/STEM-N.jpg`; N counts the detections of the picture from 1, best first."""
        for number, (box, class_id) in enumerate(zip(found.xyxy, found.class_id.tolist(), strict=True), 1):
            folder = self._stage.path / CROPS / self._class_folders[class_id]
            try:
                _write_image(folder / f"{stem}-{number}.jpg", crop(image_bgr, box))
            except NotEncoded as exc:
                log.warning("%s-%d.jpg: no crop: %s", one_line(stem), number, exc)


def crop(image_bgr: np.ndarray, xyxy: np.ndarray) -> np.ndarray:
    """Every pixel that a box touches, at least one: (h, w, 3) uint8, a view."""
    height, width = image_bgr.shape[:2]
    x1, y1 = (int(min(max(np.floor(v), 0), limit - 1)) for v, limit in zip(xyxy[:2], (width, height), strict=True))
    x2, y2 = (int(min(max(np.ceil(v), 1), limit)) for v, limit in zip(xyxy[2:], (width, height), strict=True))
    return image_bgr[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)]


def _write_image(path: Path, image_bgr: np.ndarray) -> None:
    """Encode by suffix and write. `cv2.imwrite` is not used because it does not report a full disk."""
    suffix, (height, width) = path.suffix.lower(), image_bgr.shape[:2]
    _check_encoder(suffix, width, height)
    encoded, data = cv2.imencode(suffix, image_bgr, *((WEBP,) if suffix == ".webp" else ()))
    if not encoded:
        raise DataError(f"OpenCV cannot encode a picture of {width}x{height} as {suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.data)


def _check_encoder(suffix: str, width: int, height: int) -> None:
    """Raise NotEncoded for a picture that is too large for its kind of file, or for the free memory."""
    longest = MAX_SIDE.get(suffix)
    if longest is not None and max(width, height) > longest:
        raise NotEncoded(f"{width} x {height} pixels; a {suffix} has at most {longest} a side; convert it to PNG")
    if width * height <= LARGE_PIXELS:
        return
    if suffix == ".webp":
        raise NotEncoded(f"a WebP of {width} x {height} pixels takes minutes or fails; convert it to JPEG or PNG")
    need, free = ENCODING.get(suffix, ENCODING_OTHERS) * width * height, available_memory()
    if free is not None and need > free:
        raise NotEncoded(
            f"a {suffix} of {width} x {height} pixels needs {need / GB:.1f} GB of memory, and {free / GB:.1f} GB are "
            "free; scale it down, or convert it to JPEG"
        )
