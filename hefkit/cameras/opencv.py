"""A camera read through cv2.VideoCapture (USB, network): every wait has a limit, single failed reads are retried."""

from __future__ import annotations

import contextlib
import os
import time

import cv2
import numpy as np

from hefkit.cameras.camera import Shot
from hefkit.cameras.deadline import within
from hefkit.pictures.quiet import quiet_codecs

STALL_S = 3.0  # a camera that sends no frame for so long is lost
CLOSE_S = 2.0
MAX_FAILED_READS = 30  # in a row, each failing at once: damaged JPEGs, packets before the first key frame
RETRY_S = 1.0  # no retry after so long: then a read failed because of a time limit

# OpenCV's own limit is 10 s; it reads this when a V4L2 device first makes it wait (OpenCV 4.6 to 5)
os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", f"{STALL_S:.0f}")


class CvCamera:
    """A camera that OpenCV reads.

    Args:
        capture: open, and each of its reads ends after `stall_s`.
        first: the frame that was read when it was opened; `read` returns it first.
    """

    def __init__(self, capture: cv2.VideoCapture, name: str, first: np.ndarray, stall_s: float = STALL_S) -> None:
        self.name = name
        self._capture, self._first, self._stall_s = capture, [first], stall_s

    def read(self) -> Shot | None:
        """The next frame, (h, w, 3) uint8 BGR; None when it has ended, stalled or was unplugged."""
        if self._first:
            return Shot(self._first.pop())
        begun = time.monotonic()
        picture = read_with_retries(self._capture)
        # when FFmpeg's time limit ends a read, it may still return a frame that its decoder held back
        stalled = time.monotonic() - begun >= self._stall_s
        return None if picture is None or stalled else Shot(picture)

    def close(self) -> None:
        """Close the device or the connection; a call that hangs goes on in a thread of its own."""
        release(self._capture, self.name)


def read_with_retries(capture: cv2.VideoCapture, seconds: float = RETRY_S) -> np.ndarray | None:
    """The next frame; None after MAX_FAILED_READS failed reads, or when one has failed and `seconds` are over."""
    begun = time.monotonic()
    for _ in range(MAX_FAILED_READS):
        with quiet_codecs():  # OpenCV's V4L2 decodes MJPEG with libjpeg
            got, picture = capture.read()
        if got and picture is not None:
            return picture
        if time.monotonic() - begun > seconds:
            break
    return None


def release(capture: cv2.VideoCapture, name: str) -> None:
    """Close a capture; a call that hangs goes on in a thread of its own. Never raises."""
    with contextlib.suppress(Exception):
        within(CLOSE_S, f"{name} closing", capture.release)
