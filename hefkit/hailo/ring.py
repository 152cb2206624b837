"""Batches in flight through a configured model of HailoRT: slots with memory of their own, used again and again.

Rules of the asynchronous API (HailoRT 4.23; docs/hailort-assumptions.md): ask for room before every start, for as
many frames as follow; a start that fails ends the model; the callback runs in a thread of HailoRT's and does nothing
but pass the word on; inputs are read until the job is done. This room knows no name of HailoRT's package; it is
given the objects.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from hefkit.detect.engine import Slot
from hefkit.errors import DeviceError, HefkitError
from hefkit.hailo.codes import TIMEOUT, failure, is_abort, let_go, status_of
from hefkit.text import log

DEADLINE_S = 10.0  # without an answer for so long the chip hangs
READY_MS = 500  # one wait for room; between two it is looked whether the run has failed
AFTERMATH_S = 1.0  # how long the cause may come after what follows from it
IN_FLIGHT = 8  # pictures; hides the jitter of our threads, even at a few milliseconds each
MARGIN = 2  # slots besides those in flight: one is filled, one is decoded


def slot_count(queue_size: int, batch_size: int) -> int:
    """Slots that keep the chip busy: as many batches as HailoRT takes, bounded, and a margin."""
    wanted = max(2, -(-IN_FLIGHT // batch_size))
    return max(1, min(queue_size // batch_size, wanted)) + MARGIN


class HailoSlot:
    """One batch: its pictures, the outputs of each, and the bindings that tell HailoRT where they are."""

    def __init__(
        self, model: Any, input_name: str, size_hw: tuple[int, int], outputs: Mapping[str, tuple[tuple[int, ...], str]],
        batch_size: int,
    ) -> None:  # fmt: skip
        self.inputs = page_aligned((batch_size, *size_hw, 3))
        self.outputs = [
            {name: np.empty(shape, dtype) for name, (shape, dtype) in outputs.items()} for _ in range(batch_size)
        ]
        self.bindings = [
            model.create_bindings(
                input_buffers={input_name: checked(picture, (*size_hw, 3), "uint8", input_name)},
                output_buffers={name: checked(array, *outputs[name], name) for name, array in arrays.items()},
            )
            for picture, arrays in zip(self.inputs, self.outputs, strict=True)
        ]
        self.done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self.count = 0  # pictures in flight
        self.callback: Callable[..., None] | None = None


class Ring:
    """All slots of one configured model, which is closed with it.

    One thread submits, one asks for results. The first failure ends it; every later call raises that failure.
    """

    def __init__(self, model: Any, slots: Sequence[HailoSlot], errors: tuple[type[BaseException], ...]) -> None:
        self.slots: Sequence[Slot] = slots
        self._model, self._errors = model, errors
        self._last_job: Any = None
        self._lock = threading.Lock()
        self._failure: HefkitError | None = None
        self._failure_is_abort = False
        self._cause_known = threading.Event()
        for slot in slots:
            slot.callback = self._callback(slot)

    def submit(self, slot: Slot, count: int) -> None:
        """Start `slot.inputs[:count]`; returns as soon as HailoRT has taken it."""
        assert isinstance(slot, HailoSlot)
        if not 1 <= count <= len(slot.inputs):
            raise ValueError(f"expected 1 to {len(slot.inputs)} pictures, got {count}")
        if slot.count:
            raise ValueError("this slot is in flight already")
        self._wait_for_room(count)
        try:
            self._last_job = self._model.run_async(slot.bindings[:count], callback=slot.callback)
        except self._errors as exc:
            self._raise(exc, "start a batch")
        slot.count = count

    def result(self, slot: Slot) -> list[dict[str, np.ndarray]]:
        """Wait for a submitted slot: for each picture its outputs by name, good until the next submit."""
        assert isinstance(slot, HailoSlot)
        if not slot.count:
            raise ValueError("this slot was not submitted")
        try:
            # what a dead model still holds comes back at once, or never
            exc = slot.done.get(timeout=DEADLINE_S if self._failure is None else AFTERMATH_S)
        except queue.Empty:
            self._raise(_no_answer(), "")
        count, slot.count = slot.count, 0
        if exc is not None:
            self._raise(exc, "compute a batch")
        return slot.outputs[:count]

    def close(self) -> None:
        """Wait for the last job and free the model; calling it twice is allowed."""
        model, self._model = self._model, None
        if model is None:
            return
        job, self._last_job = self._last_job, None
        try:
            if job is not None:
                # what a dead model held has come back already; of one that hangs nothing will
                job.wait(int(1000 * (DEADLINE_S if self._failure is None else AFTERMATH_S)))
        except self._errors as exc:
            if self._failure is None:
                log.warning("%s", failure(exc, "finish its last batch"))
        finally:
            self._failure = self._failure or DeviceError("the engine is closed")
            self._free(model)

    def _free(self, model: Any) -> None:
        """HailoRT's objects go in the order of their ownership: bindings, then the model."""
        for slot in self.slots:
            assert isinstance(slot, HailoSlot)
            slot.bindings.clear()
        let_go(self._failure)
        with contextlib.suppress(*self._errors):  # freeing what is broken may fail; the cause was told
            model.__exit__(None, None, None)

    def _wait_for_room(self, count: int) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while True:
            if self._failure is not None:
                raise self._failure
            try:
                self._model.wait_for_async_ready(timeout_ms=READY_MS, frames_count=count)
                return
            except self._errors as exc:
                if status_of(exc) != TIMEOUT:
                    self._raise(exc, "make room for a batch")
                if time.monotonic() > deadline:
                    self._raise(exc, f"make room for a batch within {DEADLINE_S:.0f} s")

    def _callback(self, slot: HailoSlot) -> Callable[..., None]:
        """What HailoRT calls with `completion_info=`; an exception out of it would end the process."""

        def on_done(completion_info: Any) -> None:
            exc: BaseException | None
            try:
                exc = completion_info.exception
                if exc is not None:
                    self._fail(exc, "compute a batch", wait=False)
            except BaseException as own:  # noqa: BLE001 (told by `result`, in our own thread)
                exc = own
            slot.done.put(exc)

        return on_done

    def _raise(self, exc: BaseException, doing: str) -> NoReturn:
        ours = self._fail(exc, doing)
        raise ours from ours.__cause__

    def _fail(self, exc: BaseException, doing: str, *, wait: bool = True) -> HefkitError:
        """Note a failure; returns the one to report: the first that is not the mere consequence of another."""
        abort = is_abort(exc)
        ours = exc if isinstance(exc, HefkitError) else failure(exc, doing)
        if ours is not exc:
            ours.__cause__ = exc
        with self._lock:
            if self._failure is None or (self._failure_is_abort and not abort):
                self._failure, self._failure_is_abort = ours, abort
        if not abort:
            self._cause_known.set()
        elif wait:
            self._cause_known.wait(AFTERMATH_S)
        return self._failure


def _no_answer() -> DeviceError:
    return DeviceError(
        f"the chip did not answer within {DEADLINE_S:.0f} s; look into the kernel's log (dmesg | grep -i hailo), check "
        "flat cable, power supply and cooling, and switch the machine off and on again"
    )


def page_aligned(shape: tuple[int, ...]) -> np.ndarray:
    """Zeroed uint8 that begins at a page (16 KiB on a Pi 5): the DMA need not copy its head.

    The array keeps the pages alive.
    """
    size = math.prod(shape)
    return np.frombuffer(mmap.mmap(-1, max(size, 1)), np.uint8)[:size].reshape(shape)


def checked(array: np.ndarray, shape: tuple[int, ...], dtype: str, name: str) -> np.ndarray:
    """The array itself; ValueError (a bug of ours) where HailoRT would misread it."""
    if array.shape != shape or array.dtype != np.dtype(dtype):
        raise ValueError(f"{name}: expected {shape} {dtype}, got {array.shape} {array.dtype}")
    if not array.flags.c_contiguous or not array.flags.writeable:
        raise ValueError(f"{name}: expected contiguous and writeable memory")
    return array
