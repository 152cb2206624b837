"""A HEF on an open chip, behind the Engine protocol. Knows no name of HailoRT's package; it is given the chip."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from hefkit.detect.engine import EngineOptions, Slot
from hefkit.errors import ModelError
from hefkit.hailo.codes import telling
from hefkit.hailo.ring import HailoSlot, Ring, slot_count
from hefkit.hailo.system import DeviceFacts
from hefkit.spec import ModelSpec

FLUSH_MS = 100  # how long a batch that is not full may wait for more


class OpenChip(Protocol):
    """What the engine needs of a chip; it closes it."""

    vdevice: Any
    facts: DeviceFacts
    errors: tuple[type[BaseException], ...]
    dtypes: dict[str, Any]  # dtype -> HailoRT's FormatType

    def temperature_c(self) -> float | None:
        """Degrees Celsius."""

    def close(self) -> None:
        """Give it back."""


class HailoEngine:
    """A HEF on the chip; outputs are codes as the chip gives them, or float32 where boxes are decoded inside."""

    kind = "hailort"

    def __init__(self, chip: OpenChip, path: Path, spec: ModelSpec, contexts: int, options: EngineOptions) -> None:
        self.spec = spec
        self.facts = chip.facts
        self._chip: OpenChip | None = chip
        self._errors = chip.errors
        self._names = list(_outputs(spec))
        with telling(self._errors, f"load {path}"):
            self._model = chip.vdevice.create_infer_model(str(path))
        try:
            with telling(self._errors, f"prepare {path}"):
                input_name = self._set_up(path, options, chip.dtypes)
                self._ring = self._configure(input_name, contexts, options.batch_size)
        except BaseException:
            self._model = None  # before the chip is given back
            raise
        self.slots: Sequence[Slot] = self._ring.slots

    def _set_up(self, path: Path, options: EngineOptions, dtypes: dict[str, Any]) -> str:
        """Everything that must be set before `configure()`: formats, batch, thresholds. Returns the input's name."""
        [stream] = self._model.inputs
        outputs = _outputs(self.spec)
        found = {output.name: tuple(output.shape) for output in self._model.outputs}
        if tuple(stream.shape) != (*self.spec.input.size, 3) or found != {n: s for n, (s, _) in outputs.items()}:
            raise ModelError(
                f"HailoRT and hefkit read different shapes in {path}: {found}, expected {outputs}; please report it "
                "with what validate_hef.py prints of the file"
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
        configured = self._model.configure()
        try:
            if batch_size > 1 and contexts > 1:
                # each context is loaded over PCIe anew: worth it for a full batch
                configured.set_scheduler_threshold(batch_size)
                configured.set_scheduler_timeout(FLUSH_MS)
            self.queue_size = int(configured.get_async_queue_size())  # pictures that HailoRT takes at once
            count = slot_count(self.queue_size, batch_size)
            size, outputs = self.spec.input.size, _outputs(self.spec)
            slots = [HailoSlot(configured, input_name, size, outputs, batch_size) for _ in range(count)]
            return Ring(configured, slots, self._errors)
        except BaseException:
            with contextlib.suppress(*self._errors):
                configured.__exit__(None, None, None)
            raise

    def submit(self, slot: Slot, count: int) -> None:
        """Start `slot.inputs[:count]`; returns as soon as HailoRT has taken it."""
        self._ring.submit(slot, count)

    def result(self, slot: Slot) -> list[list[np.ndarray]]:
        """Wait for a submitted slot: for each picture its tensors, views that are good until the next submit."""
        return [[outputs[name] for name in self._names] for outputs in self._ring.result(slot)]

    def infer(self, batch: np.ndarray) -> list[list[np.ndarray]]:
        """(N, H, W, 3) uint8 RGB -> for each picture its tensors, copies; the slots are used in turn."""
        expected = (*self.spec.input.size, 3)
        if batch.ndim != 4 or batch.shape[1:] != expected or batch.dtype != np.uint8:
            raise ValueError(f"expected (N, {', '.join(map(str, expected))}) uint8, got {batch.shape} {batch.dtype}")
        results: list[list[np.ndarray]] = []
        free, flying, size = deque(self.slots), deque[Slot](), len(self.slots[0].inputs)
        for start in range(0, len(batch), size):
            if not free:
                results += self._copies(flying, free)
            part = batch[start : start + size]
            free[0].inputs[: len(part)] = part
            self.submit(free[0], len(part))
            flying.append(free.popleft())
        while flying:
            results += self._copies(flying, free)
        return results

    def _copies(self, flying: deque[Slot], free: deque[Slot]) -> list[list[np.ndarray]]:
        slot = flying.popleft()
        copies = [[array.copy() for array in outputs] for outputs in self.result(slot)]
        free.append(slot)
        return copies

    def temperature_c(self) -> float | None:
        """Of the chip, in degrees Celsius; None where it does not tell."""
        return None if self._chip is None else self._chip.temperature_c()

    def close(self) -> None:
        """Last job, configured model, model, chip, in this order; calling it twice is allowed."""
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


def _outputs(spec: ModelSpec) -> dict[str, tuple[tuple[int, ...], str]]:
    """Name -> shape and dtype, in the spec's order: raw heads as the chip gives them, boxes as HailoRT insists."""
    if spec.nms is not None:
        return {spec.nms.stream: (spec.nms.shape, "float32")}
    return {output.stream or "": (output.shape, output.dtype) for output in spec.head.outputs}
