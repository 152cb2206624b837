"""Write annotated frames into an .mp4: by PyAV where it is installed, else by OpenCV.

PyAV's H.264 comes in fragments of one second that are synced to the disk: a video that is cut off by a kill or a power
cut can be played up to its last fragment. OpenCV's videos can only be played when they are complete.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from hefkit.errors import DataError
from hefkit.pictures.video import opencv_path
from hefkit.signals import run_process
from hefkit.text import log

FRAGMENTS, H264, MPEG4 = "fragments", "avc1", "mp4v"  # PyAV's H.264; what OpenCV calls H.264 and MPEG-4
ENCODER = "libx264"
FRAGMENT_S = 1.0  # between two key frames; at most this is lost when a recording is cut off
SYNC_S = 1.0  # between two syncs of the file to the disk
# superfast: 1.6 times the work of MPEG-4 for half of its bytes; zerolatency: no frame waits in the encoder
X264 = {"preset": "superfast", "tune": "zerolatency", "crf": "23", "threads": "2"}
MOVFLAGS = "frag_keyframe+empty_moov+default_base_moof"
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


@functools.cache
def codec() -> str:
    """How this machine writes videos: FRAGMENTS, H264 or MPEG4; logged once.

    OpenCV's H.264 is tried in a process of its own: where an encoder is missing, OpenCV and FFmpeg print their own
    errors.
    """
    if _pyav() is not None:
        log.info("videos are written in H.264, by %s through PyAV; a video that is cut off can be played", ENCODER)
        return FRAGMENTS
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
        "videos are written in MPEG-4, which browsers do not play: PyAV is not installed (on the Pi: sudo "
        "apt install python3-av; elsewhere: python3 -m pip install av) and this OpenCV has no encoder for H.264"
    )
    return MPEG4


class VideoWriter:
    """Writes an .mp4 of annotated frames, with the rate and size of the source, in H.264 where this machine can.

    Raises:
        DataError: it cannot be written.
    """

    def __init__(self, path: Path, fps: float, size_wh: tuple[int, int]) -> None:
        self.path = path
        self._size_wh, self._frames = size_wh, 0
        if min(size_wh) < 2:
            raise DataError(
                f"a video of {size_wh[0]}x{size_wh[1]} cannot be written; expected sides of 2 pixels or more"
            )
        name, kind = opencv_path(path), codec()
        self.fragmented = kind == FRAGMENTS  # it can be played at any time
        try:
            self._writer = _Fragments(path, fps, size_wh) if self.fragmented else _whole(name, kind, fps, size_wh)
        except OSError as exc:
            raise DataError(
                f"a video of {size_wh[0]}x{size_wh[1]} at {fps:g} frames a second cannot be written: {exc.strerror}"
            ) from exc

    def write(self, image_bgr: np.ndarray) -> None:
        """Append a frame, (h, w, 3) uint8 BGR; a frame of another size is scaled. Raises OSError on a full disk."""
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


def _whole(name: str, kind: str, fps: float, size_wh: tuple[int, int]) -> Any:
    """OpenCV's writer."""
    code = cv2.VideoWriter_fourcc(*kind)  # type: ignore[attr-defined]
    writer = cv2.VideoWriter(name, code, fps, size_wh)
    if not writer.isOpened():
        raise DataError(f"OpenCV cannot write a video of {size_wh[0]}x{size_wh[1]} at {fps:g} frames a second")
    return writer


def _pyav() -> Any:
    """PyAV, if it is installed and has the encoder; else None."""
    try:
        import av

        av.codec.Codec(ENCODER, "w")
    except (ImportError, ValueError):
        return None
    return av


class _Fragments:
    """PyAV's writer of H.264, with the methods of cv2.VideoWriter that are used here."""

    def __init__(self, path: Path, fps: float, size_wh: tuple[int, int]) -> None:
        av = _pyav()
        self._frame = av.VideoFrame.from_ndarray
        self._even = size_wh[0] & ~1, size_wh[1] & ~1  # H.264 with half the colour resolution needs even sides
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115 (closed by release)
        self._synced = time.monotonic()
        options = {"movflags": MOVFLAGS, "flush_packets": "1"}
        self._container = av.open(self._file, "w", format="mp4", options=options)
        rate = Fraction(fps).limit_denominator(1001)
        self._stream = self._container.add_stream(ENCODER, rate=rate, options=dict(X264))
        self._stream.width, self._stream.height = self._even
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.gop_size = max(round(fps * FRAGMENT_S), 1)

    def write(self, image_bgr: np.ndarray) -> None:
        width, height = self._even
        frame = self._frame(np.ascontiguousarray(image_bgr[:height, :width]), format="bgr24")
        for packet in self._stream.encode(frame):
            self._container.mux(packet)
        if time.monotonic() - self._synced >= SYNC_S:
            os.fsync(self._file.fileno())  # macOS has no fdatasync
            self._synced = time.monotonic()

    def release(self) -> None:
        if self._file.closed:
            return
        try:
            for packet in self._stream.encode():
                self._container.mux(packet)
            self._container.close()
        finally:
            self._file.close()
