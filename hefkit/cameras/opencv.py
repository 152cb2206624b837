"""What USB and network cameras share: an open cv2.VideoCapture that never waits for ever and may stumble."""

from __future__ import annotations

import contextlib
import os
import time

import cv2
import numpy as np

from hefkit.cameras.camera import Shot
from hefkit.cameras.deadline import within
from hefkit.pictures.video import MAX_FPS

STALL_S = 3.0  # without a frame a camera is lost
CLOSE_S = 2.0
STUMBLES = 30  # reads in a row that may fail at once: a damaged JPEG, packets before the first key frame
STUMBLE_S = 1.0  # a failure that took longer is no stumble

# a V4L2 device that sends nothing: OpenCV waits 10 s by itself; read when a device first makes it wait (4.6 to 5)
os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", f"{STALL_S:.0f}")


class CvCamera:
    """A camera that OpenCV reads.

    Args:
        capture: open, with a limit of `stall_s` to its own waits.
        first: the frame that proved it delivers.
    """

    def __init__(self, capture: cv2.VideoCapture, name: str, first: np.ndarray, stall_s: float = STALL_S) -> None:
        self.name = name
        self._capture, self._first, self._stall_s = capture, [first], stall_s
        fps = capture.get(cv2.CAP_PROP_FPS)
        self.fps: float | None = fps if 0 < fps <= MAX_FPS else None  # as the camera says, if it does

    def read(self) -> Shot | None:
        """The next frame, (h, w, 3) uint8 BGR; None when it has ended, stalled or was unplugged."""
        if self._first:
            return Shot(self._first.pop())
        begun = time.monotonic()
        picture = read_patiently(self._capture)
        # FFmpeg ends a wait in vain with a frame that its decoder had kept, and the next one is waited for as long
        stalled = time.monotonic() - begun >= self._stall_s
        return None if picture is None or stalled else Shot(picture)

    def close(self) -> None:
        """Give the device or the connection back, in time or from a thread that is left behind."""
        release(self._capture, self.name)


def read_patiently(capture: cv2.VideoCapture, seconds: float = STUMBLE_S) -> np.ndarray | None:
    """The next frame, past damaged ones; None after STUMBLES of them, or when `seconds` are over."""
    begun = time.monotonic()
    for _ in range(STUMBLES):
        got, picture = capture.read()
        if got and picture is not None:
            return picture
        if time.monotonic() - begun > seconds:
            break
    return None


def release(capture: cv2.VideoCapture, name: str) -> None:
    """Close a capture; a driver that does not let go is left to itself. Never raises."""
    with contextlib.suppress(Exception):
        within(CLOSE_S, f"{name} closing", capture.release)


def quiet_opencv() -> None:
    """Leave OpenCV's warnings out: they repeat our one line in other words. OPENCV_LOG_LEVEL brings them back."""
    if "OPENCV_LOG_LEVEL" in os.environ:
        return
    if hasattr(cv2, "setLogLevel"):  # 4.x
        cv2.setLogLevel(2)  # errors
    else:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
