"""One protocol for every way to run a model, and a base class for engines on the CPU.

An engine takes uint8 pictures and returns tensors. A chip, an emulator and a float model differ only in `kind`. An
engine owns a few slots, each with the memory of one batch: fill `slot.inputs`, `submit` the slot, fill the next slot
while the first is computed, ask for the `result` of the first, use it again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from hefkit.spec import ModelSpec

if TYPE_CHECKING:  # a missing model is reported before a missing numpy
    import numpy as np


@dataclass(frozen=True)
class EngineOptions:
    """What must be known before a model is opened.

    Attributes:
        names: class names that replace those of the model; class 3 without a name is called `class3`.
        batch_size: pictures per slot.
        conf, iou: thresholds for models with NMS inside: HailoRT needs them before it configures the chip. Other
            engines ignore them; there the decoder applies them.
        check: called with the spec before a chip is opened; raises if the options do not fit the model.
    """

    names: Mapping[int, str] | None = None
    batch_size: int = 1
    conf: float = 0.25
    iou: float = 0.7
    check: Callable[[ModelSpec], object] | None = None


class Slot(Protocol):
    """The memory of one batch in an engine; the engine owns it, and it is used again and again."""

    inputs: np.ndarray  # (batch_size, H, W, 3) uint8 RGB, C-contiguous; filled from the front


class Engine(Protocol):
    """What the pipeline needs from a chip, an emulator or a float model.

    One thread submits. One thread, the same or another, asks for results in the order of submission. Call `close`
    after both have ended.
    """

    kind: str  # "hailort" | "emulated" | "float": printed in every result
    spec: ModelSpec
    slots: Sequence[Slot]  # one for each batch that may be submitted at the same time

    def submit(self, slot: Slot, count: int) -> None:
        """Start `slot.inputs[:count]` and return; the slot must not be changed until `result`.

        Raises:
            DeviceError: the chip did not accept it in time, or failed earlier.
        """

    def result(self, slot: Slot) -> list[list[np.ndarray]]:
        """Wait for a submitted slot; return for each of its `count` pictures the tensors of `spec.head.outputs`.

        Each is (H, W, C); they may be views that are valid until the slot is submitted again.

        Raises:
            DeviceError: the chip failed or does not answer.
        """

    def infer(self, batch: np.ndarray) -> list[list[np.ndarray]]:
        """(N, H, W, 3) uint8 RGB -> for each picture its tensors, without slots; for callers without a pipeline."""

    def close(self) -> None:
        """Free the model; calling it twice is allowed."""

    def __enter__(self) -> Engine: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...


CPU_SLOTS = 3  # batches: one is computed, one waits, one is filled


class CpuSlot:
    """One batch, and its pending result after submission."""

    def __init__(self, batch_size: int, size_hw: tuple[int, int]) -> None:
        import numpy as np  # late: this module is imported before numpy is known to be installed

        self.inputs = np.zeros((batch_size, *size_hw, 3), np.uint8)
        self.pending: Future[list[list[np.ndarray]]] | None = None


class CpuSlots(ABC):
    """A base class of engines: one worker thread that runs the batches in the order of submission."""

    def __init__(self, batch_size: int, size_hw: tuple[int, int]) -> None:
        self.slots: Sequence[Slot] = [CpuSlot(batch_size, size_hw) for _ in range(CPU_SLOTS)]
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")

    @abstractmethod
    def infer(self, batch: np.ndarray) -> list[list[np.ndarray]]:
        """(N, H, W, 3) uint8 RGB -> for each picture its tensors."""

    def submit(self, slot: Slot, count: int) -> None:
        """Start `slot.inputs[:count]`; returns at once."""
        assert isinstance(slot, CpuSlot)
        if not 1 <= count <= len(slot.inputs):
            raise ValueError(f"expected 1 to {len(slot.inputs)} pictures, got {count}")
        slot.pending = self._worker.submit(self.infer, slot.inputs[:count])

    def result(self, slot: Slot) -> list[list[np.ndarray]]:
        """Wait for a submitted slot; raises what `infer` raised."""
        assert isinstance(slot, CpuSlot)
        if slot.pending is None:
            raise ValueError("this slot was not submitted")
        pending, slot.pending = slot.pending, None
        return pending.result()

    def close(self) -> None:
        """End the worker; calling it twice is allowed."""
        self._worker.shutdown(cancel_futures=True)
