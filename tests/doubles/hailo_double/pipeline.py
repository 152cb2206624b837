"""libhailort's asynchronous pipeline: frames in order through one chip, callbacks from one thread of their own.

After HailoRT 4.23: net_flow/pipeline/{infer_model,async_infer_runner}.cpp and bindings/python/src/infer_model_api.cpp.
A failure ends the pipeline for good. Inputs are read when the chip gets to them, not when they are submitted.
"""

from __future__ import annotations

import queue
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from hailo_double import control

TIMEOUT, INVALID_OPERATION, NOT_FOUND, STREAM_ABORT, QUEUE_IS_FULL = 4, 6, 61, 63, 82
Compute = Callable[[np.ndarray], list[np.ndarray]]


class Status(Exception):
    """args[0] is the number; the layer above turns it into the exception that the real API raises."""


@dataclass
class Frame:
    """One picture: memory of the user, and its content when it was handed over."""

    picture: np.ndarray
    outputs: list[np.ndarray]
    checksum: int = 0


@dataclass
class Job:
    """Frames with one callback."""

    frames: list[Frame]
    callback: Callable[[int], None]
    left: int = 0
    status: int = 0
    done: threading.Event = field(default_factory=threading.Event)  # the callback has returned


class Pipeline:
    """Accepts jobs until something fails."""

    def __init__(self, compute: Compute, queue_size: int) -> None:
        self.queue_size = queue_size
        self.status = 0
        self._compute = compute
        self._frames: deque[tuple[Job, Frame]] = deque()
        self._room = threading.Condition()
        self._callbacks: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run_chip, name="double: chip", daemon=True),
            threading.Thread(target=self._run_callbacks, name="double: callbacks", daemon=True),
        ]
        self._computed = 0
        self._closed = False
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """How many frames are not done."""
        return len(self._frames)

    def wait_ready(self, timeout_s: float, count: int) -> None:
        """Wait until `count` more frames fit; a failed pipeline counts as ready, as in libhailort."""
        if control.settings.not_ready > 0:
            control.settings.not_ready -= 1
            time.sleep(timeout_s)
            raise Status(TIMEOUT)
        with self._room:
            ready = self._room.wait_for(
                lambda: self.status != 0 or len(self._frames) + count <= self.queue_size, timeout_s
            )
        if not ready:
            raise Status(TIMEOUT)

    def start(self, frames: list[Frame], sizes: tuple[int, list[int]], callback: Callable[[int], None]) -> Job:
        """Accept a job; a fault of the job ends the pipeline."""
        job = Job(frames, callback, left=len(frames))
        try:
            for frame in frames:
                self._take(job, frame, sizes)
        except Status:
            self.shut_down(STREAM_ABORT)
            raise
        return job

    def _take(self, job: Job, frame: Frame, sizes: tuple[int, list[int]]) -> None:
        with self._room:
            if self.status:
                raise Status(self.status)
            if frame.picture is None or any(output is None for output in frame.outputs):
                raise Status(NOT_FOUND)
            if (frame.picture.nbytes, [output.nbytes for output in frame.outputs]) != sizes:
                raise Status(INVALID_OPERATION)
            if len(self._frames) >= self.queue_size:
                raise Status(QUEUE_IS_FULL)
            for _, other in self._frames:
                if any(mine is theirs for mine in frame.outputs for theirs in other.outputs):
                    control.violation("an output buffer is in two frames at once")
            frame.checksum = zlib.crc32(frame.picture)
            self._frames.append((job, frame))
            self._room.notify_all()

    def _run_chip(self) -> None:
        while True:
            with self._room:
                self._room.wait_for(lambda: self._frames or self._closed)
                if self._closed:
                    return
                job, frame = self._frames[0]
            hang = control.settings.hang_after
            if hang is not None and self._computed >= hang:
                with self._room:
                    self._room.wait_for(lambda: self.status != 0 or self._closed)
                continue
            self._finish(job, frame)

    def _finish(self, job: Job, frame: Frame) -> None:
        time.sleep(control.settings.service_ms / 1000)
        failed = control.fault("job")
        results = [] if failed else self._compute(frame.picture)
        with self._room:  # (an aborted frame belongs to the user again)
            if self._frames and zlib.crc32(frame.picture) != frame.checksum:
                control.violation("an input was changed while its frame was in flight")
        self._computed += 1
        if failed:
            self._fail(failed)
            return
        with self._room:
            if self.status or not self._frames:
                return
            self._frames.popleft()
            for output, result in zip(frame.outputs, results, strict=True):
                output.reshape(-1)[:] = result.reshape(-1)
            job.left -= 1
            if not job.left:
                self._callbacks.put(job)
            self._room.notify_all()

    def _fail(self, status: int) -> None:
        """The first frame's job gets this status, the later jobs get `flood`."""
        with self._room:
            self.status = status
            first = self._frames[0][0] if self._frames else None
        flood = status if control.settings.flood is None else control.settings.flood
        self._abort(flood, {id(first): status})

    def shut_down(self, status: int) -> None:
        """End every frame with a status; the callbacks have run when this returns."""
        with self._room:
            self.status = self.status or status
        for job in self._abort(status, {}):
            if threading.current_thread() not in self._threads:
                job.done.wait(5)

    def _abort(self, status: int, special: dict[int, int]) -> list[Job]:
        with self._room:
            jobs = list(dict.fromkeys(map(lambda pair: _Same(pair[0]), self._frames)))
            self._frames.clear()
            self._room.notify_all()
        for same in jobs:
            same.job.status = special.get(id(same.job), status)
            self._callbacks.put(same.job)
        return [same.job for same in jobs]

    def _run_callbacks(self) -> None:
        while (job := self._callbacks.get()) is not None:
            try:
                job.callback(job.status)
            except BaseException as exc:  # noqa: BLE001 (the real HailoRT ends the process here)
                control.violation(f"a callback raised {type(exc).__name__}: {exc}")
                continue
            job.done.set()

    def close(self) -> None:
        """End both threads."""
        if self.waiting and not self.status and control.settings.hang_after is None:
            control.violation(f"the configured model was left with {self.waiting} frames in flight")
        self.shut_down(STREAM_ABORT)
        with self._room:
            self._closed = True
            self._room.notify_all()
        self._callbacks.put(None)
        for thread in self._threads:
            thread.join(5)


@dataclass(frozen=True)
class _Same:
    """Jobs by identity, for a set that keeps its order."""

    job: Job

    def __hash__(self) -> int:
        return id(self.job)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.job is self.job
