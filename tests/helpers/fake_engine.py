"""An engine without a model: it returns the tensors it was given, and remembers what it was fed."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

import numpy as np

from hefkit.detect.engine import CpuSlots
from hefkit.spec import ModelSpec
from tests.helpers.heads import make_head, make_spec


class FakeEngine(CpuSlots):
    """Behaves like any engine to the detector; `tensors` may be a function of the picture it was fed."""

    def __init__(
        self,
        spec: ModelSpec,
        tensors: list[np.ndarray] | Callable[[np.ndarray], list[np.ndarray]],
        kind: str = "float",
        batch_size: int = 1,
    ) -> None:
        super().__init__(batch_size, spec.input.size)
        self.spec = spec
        self.kind = kind
        self.fed: list[np.ndarray] = []
        self.tensors = tensors

    def infer(self, batch: np.ndarray) -> list[list[np.ndarray]]:
        self.fed += list(batch.copy())
        return [self.tensors(picture) if callable(self.tensors) else self.tensors for picture in batch]

    def __enter__(self) -> FakeEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def engine_that_finds(
    *boxes: tuple[int, float, tuple[float, float, float, float]],
    size_hw: tuple[int, int] = (64, 64),
    classes: int = 3,
    kind: str = "float",
    fit: str = "letterbox",
    batch_size: int = 1,
) -> FakeEngine:
    """An engine that sees (class, score, xyxy in pixels of the input) in every picture.

    One stride of 8 and direct distances: a box is told by the cell that holds its centre.
    """
    from dataclasses import replace

    head = make_head(size_hw, (8,), classes, 1, "float32")
    box, cls = np.zeros(head.outputs[0].shape, np.float32), np.zeros(head.outputs[1].shape, np.float32)
    for class_id, score, (x1, y1, x2, y2) in boxes:
        x, y = int((x1 + x2) / 16), int((y1 + y2) / 16)
        centre_x, centre_y = 8 * x + 4, 8 * y + 4
        box[y, x] = np.array([centre_x - x1, centre_y - y1, x2 - centre_x, y2 - centre_y]) / 8
        cls[y, x, class_id] = score
    spec = make_spec(head, size_hw, kind)
    return FakeEngine(replace(spec, input=replace(spec.input, fit=fit)), [box, cls], kind, batch_size)
