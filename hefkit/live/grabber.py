"""Reads a camera on a thread of its own: keeps only the newest frame, and opens a camera that fails again.

grabber = Grabber(open_camera, controls, stats)   # waits for the first frame, or raises the reason why none came
for frame in grabber.frames(): ...                # each time the newest frame, none twice
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Generator

from hefkit.cameras.camera import Camera, Shot
from hefkit.errors import DeviceError, HefkitError
from hefkit.live.state import Controls, LiveStats
from hefkit.pictures.frames import Frame
from hefkit.text import log, one_line

FIRST_FRAME_S = 20.0  # time for a camera to warm up, or for a stream to send its key frame
PAUSES_S = (0.2, 0.5, 1.0, 2.0)  # before each attempt to open the camera again; the last one repeats
WAKE_S = 0.1  # how soon a stop or the end of a pause is noticed


class Grabber:
    """Owns the thread that opens, reads, reopens and closes a camera.

    Args:
        open_camera: returns a Camera or raises a HefkitError; called again after every failure.
        controls: `stop` ends the thread; while `paused`, no frame is handed out.
        stats: counts dropped frames and knows the camera's state.
        ends: the source is a file, so its end is not a failure.
        fps: frames a second at which a file is played; None: as fast as it can be read.
        lossless: no frame may be dropped, so the source waits for the detector.

    Raises:
        HefkitError: the camera could not be opened, or no frame came within FIRST_FRAME_S.
    """

    def __init__(
        self,
        open_camera: Callable[[], Camera],
        controls: Controls,
        stats: LiveStats,
        *,
        ends: bool = False,
        fps: float | None = None,
        lossless: bool = False,
    ) -> None:
        self._open_camera, self._controls, self._stats = open_camera, controls, stats
        self._ends, self._fps, self._lossless = ends, fps, lossless
        self._changed = threading.Condition()
        self._newest: Frame | None = None
        self._grabbed = 0
        self._ended = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="grabber", daemon=True)
        self._thread.start()
        try:
            self._wait_for_first()
        except BaseException:  # the caller has no grabber to close, and Python aborts if it ends during OpenCV's read
            self.close()
            raise

    def frames(self) -> Generator[Frame, None, None]:
        """Yield the newest frame each time, until the source ends or `stop` is set; dropped frames are numbered too."""
        while (frame := self._take()) is not None:
            yield frame

    def close(self, timeout_s: float = 2.0) -> bool:
        """Stop the thread, which closes the camera; returns whether it has ended."""
        self._controls.stop.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _take(self) -> Frame | None:
        while not self._controls.stop.is_set():
            if self._controls.paused:
                self._controls.wait_while_paused(WAKE_S)
                continue
            with self._changed:
                if self._newest is None and not self._ended:
                    self._changed.wait(WAKE_S)
                if self._newest is not None:
                    frame, self._newest = self._newest, None
                    self._changed.notify_all()
                    return frame
                if self._ended:
                    break
        if self._error is not None:
            raise self._error
        return None

    def _wait_for_first(self) -> None:
        with self._changed:
            arrived = self._changed.wait_for(lambda: self._newest is not None or self._ended, FIRST_FRAME_S)
        if self._error is not None:
            raise self._error
        if not arrived:
            raise DeviceError(
                f"no picture came within {FIRST_FRAME_S:.0f} s; expected a camera or stream that delivers; "
                "is it in use by another program?"
            )

    # --- on the thread ---

    def _work(self) -> None:
        try:
            camera: Camera | None = self._open_camera()
            while camera is not None:
                self._stats.camera("open")
                self._read_all(camera)
                camera = None if self._ends else self._reopened(camera.name)
        except BaseException as exc:  # noqa: BLE001 (raised again by frames(), on the caller's thread)
            self._error = exc
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _read_all(self, camera: Camera) -> None:
        """Read until the camera gives no frame, or `stop` is set; then close it."""
        with contextlib.closing(camera):
            begun, count = time.monotonic(), 0
            while not self._controls.stop.is_set() and self._read_one(camera):
                count += 1
                if self._fps:
                    self._controls.stop.wait(max(begun + count / self._fps - time.monotonic(), 0))

    def _read_one(self, camera: Camera) -> bool:
        """Read and publish the next frame; False when there is none."""
        start = time.perf_counter()
        shot = camera.read()
        if shot is not None:
            self._publish(shot, camera.name, time.perf_counter() - start)
        return shot is not None

    def _publish(self, shot: Shot, name: str, read_s: float) -> None:
        captured = time.monotonic()
        with self._changed:
            while self._lossless and self._newest is not None and not self._controls.stop.is_set():
                self._changed.wait(WAKE_S)
            if self._newest is not None and not self._controls.paused and not self._controls.stop.is_set():
                self._stats.dropped()
            self._newest = Frame(self._grabbed, name, self._grabbed, shot.picture, read_s, captured, shot.small)
            self._grabbed += 1
            self._changed.notify_all()

    def _reopened(self, name: str) -> Camera | None:
        """Open the camera until it delivers a frame; None when `stop` is set. Logs the loss and the return only."""
        lost = time.monotonic()
        self._stats.camera("lost")
        if not self._controls.stop.is_set():
            log.warning("%s delivers no more frames; opening it again until it does", one_line(name))
        pauses = itertools.chain(PAUSES_S, itertools.repeat(PAUSES_S[-1]))
        while not self._controls.stop.wait(next(pauses)):
            try:
                camera = self._open_camera()
                if self._read_one(camera):
                    log.warning("%s is back after %.1f s", one_line(name), time.monotonic() - lost)
                    self._stats.camera("open", reconnected=True)
                    return camera
                camera.close()
            except HefkitError as exc:
                self._stats.camera(one_line(exc))
        return None
