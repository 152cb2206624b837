"""Frames through a detector, four stages in parallel: read | letterbox and submit | result and decode | the caller.

    with contextlib.closing(detect(frames, detector)) as results:
        for result in results:  # in the order of the frames
            ...

`detect` is for files. The live detector uses `Pipeline` directly, because it must not wait for a frame for ever. All
queues are bounded, so memory does not grow with the source, and no frame is lost. The first error in any thread stops
all of them and is raised in the caller. Leaving the loop early, by an error or Ctrl-C, waits for the batches in the
engine and ends the threads.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from hefkit.detect.channel import Channel, Closed
from hefkit.detect.detections import Detections
from hefkit.detect.detector import Detector, Timings
from hefkit.detect.engine import Slot
from hefkit.detect.preprocess import Transform
from hefkit.pictures.frames import HELD_BYTES, Frame

RESULTS_AHEAD = 4  # results that may wait for the caller
SUBMIT_EARLY = 0.3  # share of a batch's time; a frame is taken so long before the engine is free, to prepare it
SMOOTHING = 0.2  # weight of the latest batch in the moving average of a batch's time
MAX_UNREADABLE_PER_SLOT = 8  # frames per place in a batch; at so many a batch is submitted although it is not full


class Result(NamedTuple):
    """One frame and its detections; None and None for a frame that could not be read."""

    frame: Frame
    detections: Detections | None  # in pixels of the picture
    timings: Timings | None


@dataclass
class _Batch:
    """The frames of one slot in their order, with the unreadable ones between them."""

    slot: Slot
    frames: list[Frame] = field(default_factory=list)
    transforms: list[Transform] = field(default_factory=list)  # of the readable ones
    prepare_s: list[float] = field(default_factory=list)
    picture_bytes: int = 0
    submitted: float = 0.0


def detect(frames: Generator[Frame, None, None], detector: Detector) -> Generator[Result, None, None]:
    """Yield the detections of every frame, in order; see `Pipeline` for arguments and errors."""
    with contextlib.closing(Pipeline(frames, detector)) as pipeline:
        while (result := pipeline.take()) is not None:
            yield result
            del result  # its picture may be large, and the next one is decoded meanwhile


class Pipeline:
    """Two threads and three queues between the source and the caller.

    Args:
        frames: read and closed by the first thread.
        detector: its engine must not be used elsewhere meanwhile.
        depth: batches in flight at a time; None: as many as the engine has slots. Fewer batches give younger results.
        ahead: results that may wait for the caller.
        young: take a frame only shortly before the engine is free, so that a camera gives a newer one.
    """

    def __init__(
        self,
        frames: Generator[Frame, None, None],
        detector: Detector,
        depth: int | None = None,
        ahead: int = RESULTS_AHEAD,
        *,
        young: bool = False,
    ) -> None:
        self._frames, self._detector, self._engine = frames, detector, detector.engine
        slots = self._engine.slots[:depth]
        self._free: Channel[Slot] = Channel(len(slots))
        self._flying: Channel[_Batch] = Channel(len(slots))
        self._results: Channel[Result] = Channel(ahead)
        self._undone: deque[Callable[[], None]] = deque()  # `done` of the frames that were read, in order
        self._taken = False  # whether the caller has the first of them now
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._young, self._stopped = young, threading.Event()
        self._service_s = self._expected_free = 0.0  # time of a batch; when the engine is expected to be free
        for slot in slots:
            self._free.put(slot)
        self._threads = [
            threading.Thread(target=self._feed, name="feeder", daemon=True),
            threading.Thread(target=self._collect, name="collector", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def take(self, timeout_s: float | None = None) -> Result | None:
        """The next result, or None when the source has ended. Calls `done` of the frame of the result before.

        Raises:
            TimeoutError: there was none in time; call again.
            Exception: the first error of the source, the engine or the decoder.
        """
        if self._taken:
            self._free_pictures(1)
            self._taken = False
        try:
            result = self._results.get(timeout_s)
        except Closed:
            if self._error is not None:
                raise self._error from None
            return None
        self._taken = True
        return result

    def close(self, timeout_s: float | None = None) -> bool:
        """Stop reading and submitting, and wait for the batches in the engine. Calling it twice is allowed.

        Returns:
            Whether both threads have ended; always True without a time limit.
        """
        self._abandon()
        until = None if timeout_s is None else time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(None if until is None else max(until - time.monotonic(), 0))
        return not any(thread.is_alive() for thread in self._threads)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._error = self._error or error
        self._abandon()

    def _abandon(self) -> None:
        self._stopped.set()
        self._free.abandon()
        self._results.abandon()
        self._free_pictures()

    def _free_pictures(self, most: int | None = None) -> None:
        """Call `done` of the `most` oldest frames, by default of all: the source may wait before its next read."""
        with self._lock:
            count = len(self._undone) if most is None else min(most, len(self._undone))
            calls = [self._undone.popleft() for _ in range(count)]
        for done in calls:
            done()

    # --- source -> engine ---

    def _feed(self) -> None:
        try:
            with contextlib.closing(self._frames):
                self._feed_all()
        except Closed:
            pass
        except BaseException as exc:  # noqa: BLE001 (raised again in the caller's thread)
            self._fail(exc)
        finally:
            self._flying.end()

    def _feed_all(self) -> None:
        batch = None
        while True:
            # first the slot, then the frame: a frame must not grow old waiting for a slot
            batch = batch or _Batch(self._free.get())
            if self._young:
                self._wait_until_nearly_free()
            if not self._add_next(batch):
                break
            full = len(batch.transforms) == len(batch.slot.inputs) or batch.picture_bytes > HELD_BYTES
            if full or len(batch.frames) >= MAX_UNREADABLE_PER_SLOT * len(batch.slot.inputs):
                self._launch(batch)
                batch = None
        if batch.frames:
            self._launch(batch)

    def _wait_until_nearly_free(self) -> None:
        """Sleep until SUBMIT_EARLY of a batch's time before the engine is free."""
        spare_s = self._expected_free - SUBMIT_EARLY * self._service_s - time.perf_counter()
        if spare_s > 0:
            self._stopped.wait(spare_s)

    def _add_next(self, batch: _Batch) -> bool:
        """Read a frame and letterbox it into the batch; False at the end of the source."""
        frame = next(self._frames, None)
        if frame is None:
            return False
        with self._lock:
            self._undone.append(frame.done)
        if self._stopped.is_set():
            self._free_pictures()
            raise Closed
        batch.frames.append(frame)
        if isinstance(frame.picture, np.ndarray):
            start = time.perf_counter()
            tensor = batch.slot.inputs[len(batch.transforms)]
            batch.transforms.append(self._detector.prepare(frame.picture, tensor, frame.small))
            batch.prepare_s.append(time.perf_counter() - start)
            batch.picture_bytes += frame.picture.nbytes
        return True

    def _launch(self, batch: _Batch) -> None:
        batch.submitted = time.perf_counter()
        if batch.transforms:
            self._engine.submit(batch.slot, len(batch.transforms))
        self._flying.put(batch)

    # --- engine -> caller ---

    def _collect(self) -> None:
        try:
            self._collect_all()
        except Closed:
            pass
        except BaseException as exc:  # noqa: BLE001 (raised again in the caller's thread)
            self._fail(exc)
        finally:
            self._drain()
            self._results.end()

    def _collect_all(self) -> None:
        done = 0.0
        for batch in self._flying:
            outputs = self._engine.result(batch.slot) if batch.transforms else []
            # a batch occupies the engine from its submission or from the end of the batch before it, if that is later
            begun, done = max(done, batch.submitted), time.perf_counter()
            self._service_s += (done - begun - self._service_s) * (SMOOTHING if self._service_s else 1.0)
            self._expected_free = done + self._service_s
            results = self._decoded(batch, outputs, (done - begun) / max(len(outputs), 1))
            self._free.put(batch.slot)
            del batch  # no picture is kept here, because the next one may be decoded meanwhile
            while results:
                self._results.put(results.pop(0))

    def _decoded(self, batch: _Batch, outputs: list[list[np.ndarray]], infer_s: float) -> list[Result]:
        results, readable = [], iter(zip(outputs, batch.transforms, batch.prepare_s, strict=True))
        for frame in batch.frames:
            if not isinstance(frame.picture, np.ndarray):
                results.append(Result(frame, None, None))
                continue
            tensors, transform, prepare_s = next(readable)
            start = time.perf_counter()
            found = self._detector.finish(tensors, transform)
            results.append(Result(frame, found, Timings(prepare_s, infer_s, time.perf_counter() - start)))
        return results

    def _drain(self) -> None:
        """Wait for the batches in the engine: a chip still writes into their memory."""
        for batch in self._flying:
            if batch.transforms:
                with contextlib.suppress(Exception):  # only the first error is raised
                    self._engine.result(batch.slot)
