"""Video files through OpenCV: read the frames of one, write annotated frames into one."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from hefkit.errors import DataError, HefkitError, UsageError
from hefkit.pictures.frames import Frame
from hefkit.pictures.kinds import cut_off
from hefkit.signals import run_process
from hefkit.text import log, one_line

DEFAULT_FPS = 30.0  # frames a second, if a file does not say
MAX_FPS = 1000.0  # frames a second; a header that says more is wrong
H264, MPEG4 = "avc1", "mp4v"  # browsers play only the first; every OpenCV can write the second
PROBE_S = 30.0  # for the attempt to write H.264, import of OpenCV included
# writes three frames and reads them back
_PROBE = """
import sys, cv2, numpy as np
path, code = sys.argv[1:]
writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*code), 25, (64, 64))
for level in (0, 99, 200):
    writer.write(np.full((64, 64, 3), level, np.uint8))
writer.release()
sys.exit(cv2.VideoCapture(path).get(cv2.CAP_PROP_FRAME_COUNT) != 3)
"""

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


@functools.cache
def codec() -> str:
    """H.264 where this machine's OpenCV can write it, else MPEG-4; logged once.

    It is tried in a process of its own: where an encoder is missing, OpenCV and FFmpeg print their own errors.
    """
    with tempfile.TemporaryDirectory(prefix="hefkit-codec-") as folder:
        film = Path(folder) / "probe.mp4"
        command = [sys.executable, "-c", _PROBE, str(film), H264]
        try:
            works = run_process(command, PROBE_S, cwd=folder).returncode == 0
        except (OSError, subprocess.TimeoutExpired):
            works = False
        by_x264 = works and film.exists() and b"x264" in film.read_bytes()  # it writes its name into its videos
    if works:
        log.info("videos are written in H.264, by %s", "libx264" if by_x264 else "the encoder of OpenCV's FFmpeg")
        return H264
    log.info(
        "videos are written in MPEG-4, which browsers do not play: this OpenCV has no encoder for H.264; that of "
        "Debian and Raspberry Pi OS (python3-opencv) has one"
    )
    return MPEG4


class VideoWriter:
    """Writes an .mp4 of annotated frames, with the rate and size of the source, in H.264 where this machine can."""

    def __init__(self, path: Path, fps: float, size_wh: tuple[int, int]) -> None:
        self.path = path
        self._size_wh, self._frames = size_wh, 0
        code = cv2.VideoWriter_fourcc(*codec())  # type: ignore[attr-defined]
        self._writer = cv2.VideoWriter(opencv_path(path), code, fps, size_wh)
        if not self._writer.isOpened():
            raise DataError(f"OpenCV cannot write a video of {size_wh[0]}x{size_wh[1]} at {fps:g} frames a second")

    def write(self, image_bgr: np.ndarray) -> None:
        """Append a frame, (h, w, 3) uint8 BGR; a frame of another size is scaled."""
        if (image_bgr.shape[1], image_bgr.shape[0]) != self._size_wh:
            image_bgr = cv2.resize(image_bgr, self._size_wh, interpolation=cv2.INTER_AREA)
        self._writer.write(image_bgr)
        self._frames += 1

    def close(self) -> None:
        """Finish the file; calling it twice is allowed."""
        self._writer.release()

    def check(self) -> None:
        """Raise DataError if the finished file lacks frames: OpenCV does not report a full disk."""
        capture = cv2.VideoCapture(opencv_path(self.path))
        written = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        if written < self._frames:
            raise DataError(
                f"the video has {written} of {self._frames} frames; is the disk full? free some space and run again"
            )
