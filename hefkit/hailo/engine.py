"""A HEF on an open chip, behind the Engine protocol. It does not import HailoRT's package: it is given the chip."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from hefkit.detect.engine import EngineOptions, Slot
from hefkit.errors import DeviceError, ModelError
from hefkit.hailo.codes import INVALID_OPERATION, status_of, translated_errors
from hefkit.hailo.ring import HailoSlot, Ring, slot_count
from hefkit.hailo.system import DeviceFacts
from hefkit.spec import ModelSpec

FLUSH_MS = 100  # a batch that is not full waits this long for more pictures


class OpenChip(Protocol):
    """What the engine needs of a chip. The engine closes it."""

    vdevice: Any
    facts: DeviceFacts
    errors: tuple[type[BaseException], ...]
    dtypes: dict[str, Any]  # dtype -> HailoRT's FormatType

    def temperature_c(self) -> float | None:
        """Degrees Celsius."""

    def close(self) -> None:
        """Release it."""


class HailoEngine:
    """A HEF on the chip. Its outputs are the codes of the chip, or float32 where HailoRT decodes the boxes."""

    kind = "hailort"

    def __init__(self, chip: OpenChip, path: Path, spec: ModelSpec, contexts: int, options: EngineOptions) -> None:
        self.spec = spec
        self.facts = chip.facts
        self._chip: OpenChip | None = chip
        self._errors = chip.errors
        self._names = list(_output_layout(spec))
        with translated_errors(self._errors, f"load {path}"):
            self._model = chip.vdevice.create_infer_model(str(path))
        try:
            with translated_errors(self._errors, f"prepare {path}"):
                input_name = self._set_up(path, options, chip.dtypes)
                self._ring = self._configure(input_name, contexts, options.batch_size)
        except BaseException:
            self._model = None  # before the chip is released
            raise
        self.slots: Sequence[Slot] = self._ring.slots

    def _set_up(self, path: Path, options: EngineOptions, dtypes: dict[str, Any]) -> str:
        """Set what must be set before `configure()`: formats, batch, thresholds. Returns the input's name."""
        [stream] = self._model.inputs
        outputs = _output_layout(self.spec)
        found = {output.name: tuple(output.shape) for output in self._model.outputs}
        if tuple(stream.shape) != (*self.spec.input.size, 3) or found != {n: s for n, (s, _) in outputs.items()}:
            raise ModelError(
                f"HailoRT and hefkit read different shapes in {path}: {found}, expected {outputs}; please report it "
                "with the output of validate_hef.py for this file"
            )
        self._model.set_batch_size(options.batch_size)
        stream.set_format_type(dtypes["uint8"])
        for name, (_, dtype) in outputs.items():
            self._model.output(name).set_format_type(dtypes[dtype])
        if self.spec.nms is not None and self.spec.nms.adjustable:
            decoded = self._model.output(self.spec.nms.stream)
            decoded.set_nms_score_threshold(options.conf)
            decoded.set_nms_iou_threshold(options.iou)
        return str(stream.name)

    def _configure(self, input_name: str, contexts: int, batch_size: int) -> Ring:
        try:
            configured = self._model.configure()
        except self._errors as exc:
            if status_of(exc) == INVALID_OPERATION and batch_size > 1:
                raise DeviceError(
                    f"HailoRT does not take batches of {batch_size} pictures of this model (status 6, "
                    "HAILO_INVALID_OPERATION); use a smaller --batch-size"
                ) from exc
            raise
        try:
            if batch_size > 1 and contexts > 1:
                # each context is loaded over PCIe again for every batch, so wait for full batches
                configured.set_scheduler_threshold(batch_size)
                configured.set_scheduler_timeout(FLUSH_MS)
            self.queue_size = int(configured.get_async_queue_size())  # pictures that HailoRT accepts at once
            count = slot_count(self.queue_size, batch_size)
            size, outputs = self.spec.input.size, _output_layout(self.spec)
            slots = [HailoSlot(configured, input_name, size, outputs, batch_size) for _ in range(count)]
            return Ring(configured, slots, self._errors)
        except BaseException:
            with contextlib.suppress(*self._errors):
                configured.__exit__(None, None, None)
            raise

    def submit(self, slot: Slot, count: int) -> None:
        """Start `slot.inputs[:count]`; returns as soon as HailoRT has accepted it."""
        self._ring.submit(slot, count)

    def result(self, slot: Slot) -> list[list[np.ndarray]]:
        """Wait for a submitted slot: for each picture its tensors, views that are valid until the next submit."""
        return [[outputs[name] for name in self._names] for outputs in self._ring.result(slot)]

    def infer(self, batch: np.ndarray) -> list[list[np.ndarray]]:
        """(N, H, W, 3) uint8 RGB -> for each picture its tensors, copies; the slots are used in turn."""
        expected = (*self.spec.input.size, 3)
        if batch.ndim != 4 or batch.shape[1:] != expected or batch.dtype != np.uint8:
            raise ValueError(f"expected (N, {', '.join(map(str, expected))}) uint8, got {batch.shape} {batch.dtype}")
        results: list[list[np.ndarray]] = []
        free, in_flight, size = deque(self.slots), deque[Slot](), len(self.slots[0].inputs)
        for start in range(0, len(batch), size):
            if not free:
                results += self._copies(in_flight, free)
            part = batch[start : start + size]
            free[0].inputs[: len(part)] = part
            self.submit(free[0], len(part))
            in_flight.append(free.popleft())
        while in_flight:
            results += self._copies(in_flight, free)
        return results

    def _copies(self, in_flight: deque[Slot], free: deque[Slot]) -> list[list[np.ndarray]]:
        slot = in_flight.popleft()
        copies = [[array.copy() for array in outputs] for outputs in self.result(slot)]
        free.append(slot)
        return copies

    def temperature_c(self) -> float | None:
        """Temperature of the chip in degrees Celsius; None where it is not known."""
        return None if self._chip is None else self._chip.temperature_c()

    def close(self) -> None:
        """Free last job, configured model, model and chip, in this order; a second call does nothing."""
        chip, self._chip = self._chip, None
        if chip is None:
            return
        try:
            self._ring.close()
        finally:
            self._model = None
            chip.close()

    def __enter__(self) -> HailoEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _output_layout(spec: ModelSpec) -> dict[str, tuple[tuple[int, ...], str]]:
    """Name -> shape and dtype, in the spec's order: raw heads in the chip's dtype, boxes always in float32."""
    if spec.nms is not None:
        return {spec.nms.stream: (spec.nms.shape, "float32")}
    return {output.stream or "": (output.shape, output.dtype) for output in spec.head.outputs}
