"""Read the frames of a video file, through OpenCV."""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import cv2

from hefkit.errors import DataError, HefkitError, UsageError
from hefkit.pictures.frames import Frame
from hefkit.pictures.kinds import cut_off
from hefkit.text import log, one_line

DEFAULT_FPS = 30.0  # frames a second, if a file does not say
MAX_FPS = 1000.0  # frames a second; a header that says more is wrong
# silences FFmpeg on stderr; OpenCV reads it when it first opens a video
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


@dataclass(frozen=True)
class VideoFacts:
    """What the header of a video says; `frames` may be wrong."""

    path: Path
    source: str  # as given
    fps: float
    size_wh: tuple[int, int]
    frames: int | None


def open_video(path: Path, source: str) -> VideoFacts:
    """Open a video file, read its header and its first frame.

    Raises:
        DataError: OpenCV cannot read it, or it has no frame.
    """
    capture = _capture(path, source)
    fps, frames = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    got, first = capture.read()
    capture.release()
    if not got or first is None:
        raise DataError(f"{source} is damaged, or a video without frames; expected at least one frame")
    if not 0 < fps <= MAX_FPS:  # also nan
        log.warning("%s does not say its frame rate; taking %g frames a second", one_line(source), DEFAULT_FPS)
        fps = DEFAULT_FPS
    known = int(frames) if 0 < frames < 1 << 40 else None
    return VideoFacts(path, source, fps, (first.shape[1], first.shape[0]), known)


def read_video(video: VideoFacts) -> Generator[Frame, None, None]:
    """Yield every frame in order, (h, w, 3) uint8 BGR, turned as the header says."""
    capture = _capture(video.path, video.source)
    try:
        number = 0
        while True:
            start = time.perf_counter()
            got, picture = capture.read()
            if not got or picture is None:
                break
            yield Frame(number, video.source, number, picture, time.perf_counter() - start)
            number += 1
    finally:
        capture.release()
    _warn_if_cut_off(video, number)


def _warn_if_cut_off(video: VideoFacts, number: int) -> None:
    source = one_line(video.source)
    if video.frames is not None and number < video.frames:
        log.warning("%s: %d frames read, but its header says %d; it may be cut off", source, number, video.frames)
    elif why := cut_off(video.path):
        log.warning("%s: %d frames read; it was cut off while recording: %s", source, number, why)


def _capture(path: Path, source: str) -> cv2.VideoCapture:
    capture = cv2.VideoCapture(opencv_path(path, DataError))
    if not capture.isOpened():
        if why := cut_off(path):
            raise DataError(
                f"{source} cannot be read as a video: it was cut off while recording: {why}; expected a complete file; "
                "record into a .mkv, which can be read as far as it was written"
            )
        raise DataError(f"{source} cannot be read as a video; expected one that OpenCV's FFmpeg decodes; convert it")
    return capture


def opencv_path(path: Path, error: type[HefkitError] = UsageError) -> str:
    """A path as OpenCV takes it: some releases crash on bytes that are not UTF-8.

    Raises:
        UsageError: the path has such bytes; or the `error` of the caller.
    """
    text = str(path)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise error(
            f"OpenCV cannot open {one_line(path)}: the name is not UTF-8; rename the file or its folder"
        ) from None
    return text
