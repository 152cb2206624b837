"""Open a model: a HEF on the chip, an emulated ONNX or a float ONNX. The only module that knows all three."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from hefkit.detect.engine import Engine, EngineOptions
from hefkit.errors import DataError, DeviceError, ModelError, ToolchainError
from hefkit.staging.journal import settle


def check_model_file(model: Path) -> None:
    """Refuse (exit 4) a path that cannot be a model, before any package is imported."""
    if model.suffix.lower() in (".pt", ".pth"):
        raise ModelError(f"{model} is a PyTorch checkpoint; expected a .onnx or a .hef file; export it to ONNX first")
    if model.suffix.lower() not in (".onnx", ".hef"):
        raise ModelError(f"{model} is not a model file (.onnx, .hef); the order is MODEL SOURCE")
    settle(model.parent)  # model and spec of a killed run must belong together
    if not model.is_file():
        raise ModelError(f"the model {model} does not exist; check the path")


def open_engine(model: Path, options: EngineOptions | None = None) -> Engine:
    """Open a HEF, an emulated or a float ONNX.

    Args:
        model: a HEF, best with its spec beside it; an emulated ONNX, which must have its spec beside it; or any float
            YOLO ONNX, which is cut on the fly.

    Raises:
        UsageError: names for classes that the model does not have.
        ModelError: the file does not exist or is not a detector, or its spec is missing or does not fit.
        ToolchainError: onnx or onnxruntime is not installed, or the package that needs them.
        DeviceError: a HEF, but the chip or HailoRT is missing or fails.
    """
    check_model_file(model)
    options = options or EngineOptions()
    if model.suffix.lower() == ".hef":
        from hefkit.hailo.runtime import open_hef

        return open_hef(model, options)
    from hefkit.cli import need

    try:
        import hefkit.workshop  # noqa: F401  (before onnxruntime, which it sets up)
    except ModuleNotFoundError as exc:
        raise ToolchainError(
            f"{model} is an ONNX, and the package that runs it (hefkit/workshop) is missing; expected a .hef on a "
            "machine that only detects; to run an ONNX copy all of hefkit"
        ) from exc
    need("onnx", "onnxruntime")
    from hefkit.workshop.engine import open_onnx

    return open_onnx(model, options)


@contextlib.contextmanager
def model_first(model: Path, options: EngineOptions) -> Iterator[None]:
    """Errors of the model (exit 4) come before those of data (3) and packages (5) that the block raises.

    Only opening the model shows whether it is good. That takes seconds, so it is done only after an error in the block.
    """
    try:
        yield
    except (DataError, ToolchainError):
        with contextlib.suppress(ToolchainError, DeviceError, ImportError):
            open_engine(model, options).close()
        raise
