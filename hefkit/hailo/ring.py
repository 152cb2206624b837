"""A ring of slots: batches in flight through HailoRT, each in buffers that are used again and again.

    slots = [HailoSlot(configured_model, "net/input", (640, 640), outputs, batch_size=1) for _ in range(4)]
    ring = Ring(configured_model, slots, platform.errors)
    slots[0].inputs[0] = picture
    ring.submit(slots[0], 1)  # slot 0 is in flight: do not touch its arrays
    [tensors] = ring.result(slots[0])

Rules of the asynchronous API (HailoRT 4.23; docs/hailort-assumptions.md): before every start wait for space for all its
frames. A start that fails ends the model. HailoRT reads the inputs until the job is done. HailoRT calls the callback
in a thread of its own, so ours only passes the result on. HailoRT's package is not imported here: the ring is given
its objects.
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
from hefkit.hailo.codes import TIMEOUT, failure, is_abort, release_frames, status_of
from hefkit.text import log

ANSWER_S = 10.0  # a chip that takes longer hangs
SPACE_POLL_MS = 500  # one wait for space; after each we look whether the run has failed
CAUSE_S = 1.0  # a failure may arrive this long after the aborts that follow from it
IN_FLIGHT = 8  # pictures; hides the jitter of our threads, even at a few milliseconds each
SPARE_SLOTS = 2  # not in flight: one is filled, one is decoded


def slot_count(queue_size: int, batch_size: int) -> int:
    """Slots that keep the chip busy: as many batches as HailoRT takes, at most IN_FLIGHT pictures, plus the spare ones.

    A queue of 8 pictures and batches of 1 give 8 + 2 slots; a queue of 16 and batches of 8 give 2 + 2.
    """
    wanted = max(2, -(-IN_FLIGHT // batch_size))
    return max(1, min(queue_size // batch_size, wanted)) + SPARE_SLOTS


def page_aligned(shape: tuple[int, ...]) -> np.ndarray:
    """Zeroed uint8 array that begins at a memory page (16 KiB on a Pi 5).

    So HailoRT does not copy its first bytes for the DMA. The array keeps the pages alive.
    """
    size = math.prod(shape)
    return np.frombuffer(mmap.mmap(-1, max(size, 1)), np.uint8)[:size].reshape(shape)


def checked_buffer(array: np.ndarray, shape: tuple[int, ...], dtype: str, name: str) -> np.ndarray:
    """The array itself; ValueError (a bug of ours) where HailoRT would misread its memory."""
    if array.shape != shape or array.dtype != np.dtype(dtype):
        raise ValueError(f"{name}: expected {shape} {dtype}, got {array.shape} {array.dtype}")
    if not array.flags.c_contiguous or not array.flags.writeable:
        raise ValueError(f"{name}: expected contiguous and writeable memory")
    return array


class HailoSlot:
    """The buffers of one batch, and the bindings that tell HailoRT where they are.

    Args:
        model: HailoRT's configured model.
        input_name, size_hw: the input; its pictures are uint8 RGB of this height and width.
        outputs: name -> shape and dtype of one picture's output.
        batch_size: pictures in the slot.
    """

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
                input_buffers={input_name: checked_buffer(picture, (*size_hw, 3), "uint8", input_name)},
                output_buffers={name: checked_buffer(array, *outputs[name], name) for name, array in arrays.items()},
            )
            for picture, arrays in zip(self.inputs, self.outputs, strict=True)
        ]
        self.done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self.count = 0  # pictures in flight
        self.callback: Callable[..., None] | None = None


class Ring:
    """All slots of one configured model; closing the ring frees the model.

    One thread submits, another one asks for results. After the first failure every call raises that failure.
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
        """Start `slot.inputs[:count]`; returns as soon as HailoRT has accepted it."""
        assert isinstance(slot, HailoSlot)
        if not 1 <= count <= len(slot.inputs):
            raise ValueError(f"expected 1 to {len(slot.inputs)} pictures, got {count}")
        if slot.count:
            raise ValueError("this slot is in flight already")
        self._wait_for_space(count)
        try:
            self._last_job = self._model.run_async(slot.bindings[:count], callback=slot.callback)
        except self._errors as exc:
            self._raise(exc, "start a batch")
        slot.count = count

    def result(self, slot: Slot) -> list[dict[str, np.ndarray]]:
        """Wait for a submitted slot: for each picture its outputs by name, valid until the next submit."""
        assert isinstance(slot, HailoSlot)
        if not slot.count:
            raise ValueError("this slot was not submitted")
        try:
            # a failed model gives its jobs back at once, or never
            exc = slot.done.get(timeout=ANSWER_S if self._failure is None else CAUSE_S)
        except queue.Empty:
            self._raise(_no_answer(), "")
        count, slot.count = slot.count, 0
        if exc is not None:
            self._raise(exc, "compute a batch")
        return slot.outputs[:count]

    def close(self) -> None:
        """Wait for the last job, then free the model; a second call does nothing."""
        model, self._model = self._model, None
        if model is None:
            return
        job, self._last_job = self._last_job, None
        try:
            if job is not None:
                # a failed model has given its jobs back already; a model that hangs never will
                job.wait(int(1000 * (ANSWER_S if self._failure is None else CAUSE_S)))
        except self._errors as exc:
            if self._failure is None:
                log.warning("%s", failure(exc, "finish its last batch"))
        finally:
            self._failure = self._failure or DeviceError("the engine is closed")
            self._free(model)

    def _free(self, model: Any) -> None:
        """Free HailoRT's objects in the order of their ownership: bindings, then the model."""
        for slot in self.slots:
            assert isinstance(slot, HailoSlot)
            slot.bindings.clear()
        release_frames(self._failure)
        with contextlib.suppress(*self._errors):  # a failed model may fail again here
            model.__exit__(None, None, None)

    def _wait_for_space(self, count: int) -> None:
        deadline = time.monotonic() + ANSWER_S
        while True:
            if self._failure is not None:
                raise self._failure
            try:
                self._model.wait_for_async_ready(timeout_ms=SPACE_POLL_MS, frames_count=count)
                return
            except self._errors as exc:
                if status_of(exc) != TIMEOUT:
                    self._raise(exc, "make space for a batch")
                if time.monotonic() > deadline:
                    self._raise(exc, f"make space for a batch within {ANSWER_S:.0f} s")

    def _callback(self, slot: HailoSlot) -> Callable[..., None]:
        """The function that HailoRT calls with `completion_info=`; an exception from it would end the process."""

        def on_done(completion_info: Any) -> None:
            exc: BaseException | None
            try:
                exc = completion_info.exception
                if exc is not None:
                    self._record(exc, "compute a batch", wait=False)
            except BaseException as own:  # noqa: BLE001 (`result` raises it in our own thread)
                exc = own
            slot.done.put(exc)

        return on_done

    def _raise(self, exc: BaseException, doing: str) -> NoReturn:
        ours = self._record(exc, doing)
        raise ours from ours.__cause__

    def _record(self, exc: BaseException, doing: str, *, wait: bool = True) -> HefkitError:
        """Record a failure and return the one to report: the first that is not only an abort after another failure."""
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
            self._cause_known.wait(CAUSE_S)
        return self._failure


def _no_answer() -> DeviceError:
    return DeviceError(
        f"the chip did not answer within {ANSWER_S:.0f} s; read the kernel's log (dmesg | grep -i hailo), check "
        "flat cable, power supply and cooling, and switch the machine off and on again"
    )
