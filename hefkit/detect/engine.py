"""One protocol for every way to run a model, and the one door to them.

An engine takes uint8 pictures and returns tensors; nothing downstream can tell a chip from an emulator but by
`kind`. It owns a few slots, each with the memory of one batch: fill `slot.inputs`, `submit` it, fill the next one
while the first is computed, ask for its `result`, use it again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from hefkit.errors import DataError, DeviceError, ModelError, ToolchainError
from hefkit.spec import ModelSpec

if TYPE_CHECKING:  # a missing model is told of before a missing numpy
    import numpy as np


@dataclass(frozen=True)
class EngineOptions:
    """What must be known before a model is opened.

    Attributes:
        names: class names that replace those of the model; classes that they leave out get numbers.
        batch_size: pictures that a slot holds.
        conf, iou: thresholds for models with NMS inside, which HailoRT takes before it configures the chip;
            other engines leave them to the decoder.
        check: is told the model before a chip is opened; refuses what does not fit it.
    """

    names: Mapping[int, str] | None = None
    batch_size: int = 1
    conf: float = 0.25
    iou: float = 0.7
    check: Callable[[ModelSpec], object] | None = None


class Slot(Protocol):
    """The memory of one batch on its way through an engine; the engine owns it and uses it again and again."""

    inputs: np.ndarray  # (batch_size, H, W, 3) uint8 RGB, C-contiguous; to be filled from the front


class Engine(Protocol):
    """What the pipeline needs from a chip, an emulator or a float model.

    One thread submits, one thread (the same or another) asks for results, in the order of submission; `close` when
    both have ended.
    """

    kind: str  # "hailort" | "emulated" | "float": printed in every result
    spec: ModelSpec
    slots: Sequence[Slot]  # as many batches as are worth having in flight

    def submit(self, slot: Slot, count: int) -> None:
        """Start `slot.inputs[:count]`; returns as soon as it is taken, and until `result` the slot is not touched.

        Raises:
            DeviceError: the chip does not take it in time, or failed earlier.
        """

    def result(self, slot: Slot) -> list[list[np.ndarray]]:
        """Wait for a submitted slot: for each of its `count` pictures the tensors of `spec.head.outputs`.

        Each is (H, W, C); they may be views, which are good until the slot is submitted again.

        Raises:
            DeviceError: the chip failed or does not answer.
        """

    def infer(self, batch: np.ndarray) -> list[list[np.ndarray]]:
        """(N, H, W, 3) uint8 RGB -> the same for each picture, at once; for callers without a pipeline."""

    def close(self) -> None:
        """Free the model; calling it twice is allowed."""

    def __enter__(self) -> Engine: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def check_model_file(model: Path) -> None:
    """Refuse (exit 4) a path that cannot be a model, before any package is imported."""
    if model.suffix.lower() in (".pt", ".pth"):
        raise ModelError(f"{model} is a PyTorch checkpoint; expected a .onnx or a .hef file; export it to ONNX first")
    if model.suffix.lower() not in (".onnx", ".hef"):
        raise ModelError(f"{model} is no model; expected a .onnx or a .hef file, and the source behind it")
    if not model.is_file():
        raise ModelError(f"the model {model} does not exist; check the path")


def open_engine(model: Path, options: EngineOptions | None = None) -> Engine:
    """Open a model by what it is: a HEF, an emulated or a float ONNX.

    Args:
        model: a HEF, best with its spec beside it; an emulated ONNX, which must have its spec beside it; or any float
            YOLO ONNX, which is cut on the fly.

    Raises:
        UsageError: names for classes that the model does not have.
        ModelError: no such file, not a detector, spec missing or contradicting the model.
        ToolchainError: onnx or onnxruntime is not installed, or the rooms that need them.
        DeviceError: a HEF, and the chip or HailoRT is missing or fails.
    """
    check_model_file(model)
    options = options or EngineOptions()
    if model.suffix.lower() == ".hef":
        from hefkit.hailo.runtime import open_hef

        return open_hef(model, options)
    from hefkit.cli import need

    try:
        import hefkit.workshop  # noqa: F401  (before onnxruntime: it says what that one may do)
    except ModuleNotFoundError as exc:
        raise ToolchainError(
            f"{model} is an ONNX, and the rooms that run it (hefkit/workshop) are not here; expected a .hef on a "
            "machine that only detects; copy the whole of hefkit to run an ONNX"
        ) from exc
    need("onnx", "onnxruntime")
    from hefkit.workshop.engine import open_onnx

    return open_onnx(model, options)


@contextlib.contextmanager
def model_first(model: Path, options: EngineOptions) -> Iterator[None]:
    """Within the block data (exit 3) and packages (5) are only complained of once the model (4) is known to be good.

    To know that a model is good it must be opened, which takes seconds: it is done where there is a complaint.
    """
    try:
        yield
    except (DataError, ToolchainError):
        with contextlib.suppress(ToolchainError, DeviceError, ImportError):
            open_engine(model, options).close()
        raise
