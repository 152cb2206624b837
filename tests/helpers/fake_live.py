"""Results of a live run, and a camera without hardware."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from hefkit.cameras.camera import Shot
from hefkit.detect.detections import Detections
from hefkit.detect.detector import Timings
from hefkit.live.state import LiveResult
from hefkit.pictures.frames import Frame

NAMES = {0: "drone", 1: "bird"}
FOUND = Detections(np.array([[8, 8, 24, 20]], np.float32), np.array([0.75], np.float32), np.array([1]))


def live_result(
    number: int = 0,
    *,
    found: Detections = FOUND,
    captured: float | None = None,
    wall: float = 1_764_042_000.25,
    size_wh: tuple[int, int] = (64, 48),
    engine: str = "float",
    **more: Any,
) -> LiveResult:
    """A result with one bird in the frame."""
    picture = np.full((size_wh[1], size_wh[0], 3), number % 256, np.uint8)
    when = time.monotonic() if captured is None else captured
    frame = Frame(number, "cam", number, picture, 0.001, when)
    timings = Timings(0.001, 0.02, 0.002)
    return LiveResult(frame, found, timings, engine, NAMES, wall, 0.025, **more)


class FakeCamera:
    """Returns `count` frames at `fps` a second, then None."""

    def __init__(self, count: int = 10**9, fps: float | None = None, size_hw: tuple[int, int] = (64, 64)) -> None:
        self.name = "cam"
        self.count, self.fps, self.size_hw = count, fps, size_hw
        self.given = 0
        self.closed = False

    def read(self) -> Shot | None:
        if self.fps:
            time.sleep(1 / self.fps)
        if self.given == self.count:
            return None
        self.given += 1
        return Shot(np.full((*self.size_hw, 3), self.given % 256, np.uint8))

    def close(self) -> None:
        self.closed = True
