"""One protocol for every way to run a model, and the one door to them.

An engine takes uint8 pictures and returns raw head tensors; nothing downstream can tell a chip from an
emulator but by `kind`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from hefkit.errors import DeviceError, ModelError
from hefkit.spec import ModelSpec

if TYPE_CHECKING:  # a missing model is told of before a missing numpy
    import numpy as np


class Engine(Protocol):
    """What the detector needs from a chip, an emulator or a float model."""

    kind: str  # "hailort" | "emulated" | "float": printed in every result
    spec: ModelSpec

    def infer(self, batch: np.ndarray) -> list[list[np.ndarray]]:
        """(N, H, W, 3) uint8 RGB -> for each picture the tensors of `spec.head.outputs`, (H, W, C) each."""

    def close(self) -> None:
        """Free the model; calling it twice is allowed."""

    def __enter__(self) -> Engine: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def check_model_file(model: Path) -> None:
    """Refuse (exit 4) a path that cannot be a model, before any package is imported."""
    if model.suffix.lower() not in (".onnx", ".hef"):
        raise ModelError(f"{model} is no model; expected a .onnx or a .hef file")
    if not model.is_file():
        raise ModelError(f"the model {model} does not exist; check the path")


def open_engine(model: Path, names: Mapping[int, str] | None = None) -> Engine:
    """Open a model by what it is: emulated or float ONNX.

    Args:
        model: an emulated ONNX with its spec beside it, or any float YOLO ONNX, which is cut on the fly.
        names: class names that replace those of the model.

    Raises:
        ModelError: no such file, not a detector, spec missing or contradicting the model.
        ToolchainError: onnx or onnxruntime is not installed.
        DeviceError: a `.hef`, which needs the chip.
    """
    check_model_file(model)
    if model.suffix.lower() == ".hef":
        raise DeviceError(
            f"{model} needs a Hailo chip, and this version of hefkit has no engine for it yet; "
            "run the .emulated.onnx of the same model instead"
        )
    from hefkit.cli import need

    need("onnx", "onnxruntime")
    from hefkit.workshop.engine import open_onnx

    return open_onnx(model, names)
