"""What USB and network cameras share: single reads may fail, a capture may stall, and closing may hang."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from hefkit.cameras import opencv
from hefkit.cameras.opencv import MAX_FAILED_READS, CvCamera
from tests.helpers.overdue import join_overdue

FIRST = np.zeros((4, 6, 3), np.uint8)


class Capture:
    """A cv2.VideoCapture that plays a list: a number is a picture of that shade, None a failure, a call is made."""

    def __init__(self, *script: int | Callable[[], int | None] | None) -> None:
        self.script = list(script)
        self.reads = 0
        self.close: Callable[[], None] = lambda: None

    def read(self) -> tuple[bool, np.ndarray | None]:
        self.reads += 1
        step = self.script.pop(0) if self.script else None
        shade = step() if callable(step) else step
        return (False, None) if shade is None else (True, np.full((4, 6, 3), shade, np.uint8))

    def release(self) -> None:
        self.close()


def camera(capture: Capture, **options: Any) -> CvCamera:
    """A camera whose first frame was FIRST."""
    return CvCamera(capture, "cam", FIRST, **options)  # type: ignore[arg-type]


def test_the_frame_that_was_read_first_comes_first() -> None:
    """It is handed out, not thrown away."""
    cam = camera(Capture(1, 2))

    shots = [cam.read() for _ in range(3)]

    assert [shot.picture[0, 0, 0] for shot in shots if shot] == [0, 1, 2]


@pytest.mark.parametrize("failures", [1, MAX_FAILED_READS - 1])
def test_failed_reads_are_retried(failures: int) -> None:
    """Damaged pictures, one or a row of them."""
    cam = camera(Capture(*[None] * failures, 7))
    cam.read()

    shot = cam.read()

    assert shot is not None and shot.picture[0, 0, 0] == 7


def test_the_end_of_a_stream() -> None:
    """A stream that is over fails at once, every time: so many tries, and no more."""
    capture = Capture(*[None] * MAX_FAILED_READS, 7)
    cam = camera(capture)
    cam.read()

    assert cam.read() is None and capture.reads == MAX_FAILED_READS


def test_a_read_that_ran_into_its_limit_is_not_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure that took long was a time limit; another one would double it."""
    clock = [0.0]
    monkeypatch.setattr(opencv, "time", SimpleNamespace(monotonic=lambda: sum(clock)))
    capture = Capture(lambda: clock.append(opencv.RETRY_S + 0.01), 7)  # type: ignore[arg-type, return-value]
    cam = camera(capture)
    cam.read()

    assert cam.read() is None and capture.reads == 1


def test_a_frame_at_the_limit_does_not_hide_a_stall() -> None:
    """At the limit FFmpeg returns a frame that its decoder held back; the stream has stalled nevertheless."""

    def late() -> int:
        time.sleep(0.1)
        return 9

    cam = camera(Capture(late), stall_s=0.1)
    cam.read()

    assert cam.read() is None


def test_closing_never_raises_and_never_waits_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error, and a driver that hangs."""
    monkeypatch.setattr(opencv, "CLOSE_S", 0.05)
    capture, come = Capture(), threading.Event()

    def failing() -> None:
        raise cv2.error("no")

    capture.close = failing
    camera(capture).close()
    capture.close = lambda: come.wait(30) and None  # type: ignore[func-returns-value]
    camera(capture).close()
    come.set()
    join_overdue()
