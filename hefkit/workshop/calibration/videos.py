"""Frames of videos as pictures to choose from: spread over the video, read in one pass."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import cv2
import numpy as np

from hefkit.detect.preprocess import letterbox
from hefkit.pictures.sources import Item
from hefkit.pictures.video import VideoFacts, open_video
from hefkit.spec import InputSpec
from hefkit.text import counted, log

CANDIDATES = 3000  # frames of a video to choose from; one second of 30 differs little within itself
NO_FRAME = "the video ends before this frame, or is damaged there"


@dataclass(frozen=True)
class VideoFrame(Item):
    """One frame of a video; `source` is `NAME frame N`."""

    number: int  # from 0


def frames_of(source: str) -> list[Item]:
    """At most CANDIDATES frames of a video, the same distance apart.

    Raises:
        DataError: OpenCV cannot read it.
    """
    facts = open_video(Path(source), source)
    count = _count(facts)
    numbers = np.unique(np.linspace(0, count - 1, min(count, CANDIDATES)).round().astype(int)).tolist()
    log.info("%s: %s, %s to choose from", source, counted(count, "frame"), counted(len(numbers), "frame"))
    relative = PurePosixPath(Path(source).name)
    return [VideoFrame(Path(source), f"{source} frame {number}", relative, number) for number in numbers]


def _count(facts: VideoFacts) -> int:
    """Frames of a video; counted where the header does not say."""
    if facts.frames is not None:
        return facts.frames
    capture = cv2.VideoCapture(str(facts.path))
    count = 0
    while capture.grab():
        count += 1
    capture.release()
    return max(count, 1)


def read_frames(path: str, numbers: Sequence[int]) -> Iterator[tuple[int, np.ndarray | None]]:
    """(number, (h, w, 3) uint8 BGR) of these frames, ascending; None where the video ends before or is damaged."""
    capture = cv2.VideoCapture(path)
    try:
        at = -1  # the frame that was grabbed last
        for number in sorted(numbers):
            while at < number and capture.grab():
                at += 1
            got, picture = capture.retrieve() if at == number else (False, None)
            yield number, picture if got else None
    finally:
        capture.release()


class Frames:
    """The video frames of the set: letterboxed in one pass over each video, and kept on the disk until `take`."""

    def __init__(self, spec: InputSpec, folder: Path) -> None:
        self._spec, self._folder = spec, folder
        self._size_wh: dict[str, tuple[int, int]] = {}  # source of a frame -> size of the video
        self._sha256: dict[Path, str] = {}
        self._shape: tuple[int, ...] = ()  # of all tensors

    def fetch(self, items: Iterable[Item]) -> None:
        """Read those of the items that are frames."""
        wanted: dict[Path, dict[int, str]] = {}
        for item in items:
            if isinstance(item, VideoFrame):
                wanted.setdefault(item.path, {})[item.number] = item.source
        for path, sources in wanted.items():
            if path not in self._sha256:
                with open(path, "rb") as file:
                    self._sha256[path] = _sha256(file)
            for number, picture in read_frames(str(path), list(sources)):
                if picture is not None:
                    source = sources[number]
                    self._size_wh[source] = picture.shape[1], picture.shape[0]
                    tensor = letterbox(picture, self._spec)[0]
                    self._shape = tensor.shape
                    # not as .npy: its header is parsed, and Python 3.11 fails where two threads parse at once
                    self._file(source).write_bytes(tensor.tobytes())

    def take(self, frame: VideoFrame) -> tuple[np.ndarray, tuple[int, int], str] | None:
        """(tensor, width and height, sha256 of the video) of a fetched frame; None where there is no such frame."""
        if frame.source not in self._size_wh:
            return None
        tensor = np.frombuffer(self._file(frame.source).read_bytes(), np.uint8).reshape(self._shape)
        self._file(frame.source).unlink()
        return tensor, self._size_wh[frame.source], self._sha256[frame.path]

    def _file(self, source: str) -> Path:
        return self._folder / f"frame-{hashlib.sha256(os.fsencode(source)).hexdigest()}.raw"


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
