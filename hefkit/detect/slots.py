"""Slots for engines that compute on the CPU: `submit` and `result` on top of a plain `infer`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from hefkit.detect.engine import Slot

CPU_SLOTS = 3  # one is computed, one waits, one is filled


class CpuSlot:
    """One batch and, once it is submitted, what will come of it."""

    def __init__(self, batch_size: int, size_hw: tuple[int, int]) -> None:
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
