"""A SIMULATED chip for benchmarks: it keeps time as a chip would and computes nothing.

Never used by the toolkit itself: its detections are always the same made-up ones.
"""

from __future__ import annotations

import time
from types import TracebackType

import numpy as np
from bench_decode import SIDE, own_tensors

from hefkit.spec import InputSpec, ModelSpec


class SimulatedSlot:
    """Input and output memory of one picture."""

    def __init__(self, tensors: list[np.ndarray]) -> None:
        self.inputs = np.zeros((1, SIDE, SIDE, 3), np.uint8)
        self.outputs = [np.empty_like(t) for t in tensors]
        self.due = 0.0


class SimulatedChip:
    """Every picture takes `service_s`, one after the other; what comes while it is busy waits, at most `depth`.

    Like a real one it keeps its own time: whether anybody is there to take a result does not slow it down, but time
    in which it has nothing to do is lost. A result is copied into the slot, as HailoRT does.
    """

    kind = "simulated"

    def __init__(self, service_s: float, depth: int, classes: int, objects: int) -> None:
        head, self._tensors = own_tensors(classes, objects)
        names = {i: f"class{i}" for i in range(classes)}
        self.spec = ModelSpec("simulated", InputSpec((SIDE, SIDE)), head, names)
        self.slots = [SimulatedSlot(self._tensors) for _ in range(depth)]
        self._service_s = service_s
        self._busy_until = 0.0

    def submit(self, slot: SimulatedSlot, count: int) -> None:
        """Queue one picture."""
        assert count == 1
        self._busy_until = max(self._busy_until, time.perf_counter()) + self._service_s
        slot.due = self._busy_until

    def result(self, slot: SimulatedSlot) -> list[list[np.ndarray]]:
        """Wait until the picture's time is over."""
        while (left := slot.due - time.perf_counter()) > 0:
            time.sleep(left)
        for mine, made_up in zip(slot.outputs, self._tensors, strict=True):
            np.copyto(mine, made_up)
        return [slot.outputs]

    def infer(self, batch: np.ndarray) -> list[list[np.ndarray]]:
        """One picture after the other."""
        results = []
        for _ in batch:
            self.submit(self.slots[0], 1)
            results += self.result(self.slots[0])
        return results

    def close(self) -> None:
        """Nothing to free."""

    def __enter__(self) -> SimulatedChip:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
