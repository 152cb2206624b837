"""Open a model: a HEF on the chip, an emulated ONNX or a float ONNX. The only module that knows all three.

    open_engine(Path("best.hef"))            an engine, for the scripts
    hefkit.load("best.hef", conf=0.4)        a `Model`, for programs: docs/python-api.md

Standard library only at import: a missing model is reported before a missing numpy.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hefkit.detect.arguments import check_number, checked_frame, class_words, names_by_id
from hefkit.detect.engine import Engine, EngineOptions
from hefkit.errors import DataError, DeviceError, ModelError, ToolchainError, UsageError
from hefkit.files import near_path
from hefkit.staging.journal import settle
from hefkit.text import one_line

if TYPE_CHECKING:
    import numpy as np

    from hefkit.detect.decode import DecodeSettings
    from hefkit.detect.detections import Detections, NamedDetections
    from hefkit.detect.pipeline import Pipeline
    from hefkit.pictures.frames import Frame
    from hefkit.spec import ModelSpec

EXPORT = "yolo export model={} format=onnx imgsz=640 opset=13"  # ultralytics' command


def check_model_file(model: Path) -> Path:
    """The model file; of a folder, its only HEF. Refuses (exit 4) what is not a model, before a package is imported."""
    if model.is_dir():
        return _only_hef(model)
    if model.suffix.lower() in (".pt", ".pth"):
        raise ModelError(
            f"{model} is a PyTorch checkpoint; expected a .onnx or a .hef file; export it with: "
            f"{EXPORT.format(one_line(model))}"
        )
    if model.suffix.lower() not in (".onnx", ".hef"):
        raise ModelError(f"{model} is not a model file (.onnx, .hef){near_path(model)}; the order is MODEL SOURCE")
    settle(model.parent)  # model and spec of a killed run must belong together
    if not model.is_file():
        raise ModelError(f"the model {model} does not exist{near_path(model)}; check the path")
    return model


def _only_hef(folder: Path) -> Path:
    """The HEF in a folder such as ultralytics' `best_hailo_model`."""
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".hef" and path.is_file())
    if len(found) != 1:
        there = f"{len(found)} .hef files" if found else "no .hef file"
        raise ModelError(
            f"{folder} is a folder and is not a model file (.onnx, .hef): it has {there}; expected a model file, or a "
            "folder with exactly one .hef; the order is MODEL SOURCE"
        )
    return found[0]


def open_engine(model: Path, options: EngineOptions | None = None) -> Engine:
    """Open a HEF, an emulated or a float ONNX.

    Args:
        model: a HEF, best with its spec beside it; an emulated ONNX, which must have its spec beside it; any float
            YOLO ONNX, which is cut on the fly; or a folder with exactly one HEF.

    Raises:
        UsageError: names for classes that the model does not have.
        ModelError: the file does not exist or is not a detector, or its spec is missing or does not fit.
        ToolchainError: for an ONNX: onnx, onnxruntime or the package hefkit/workshop is missing.
        DeviceError: for a HEF: the chip or HailoRT is missing or fails.
    """
    model = check_model_file(model)
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
    """An error of the model (exit 4) replaces errors of data (3) and packages (5) that the block raises.

    Only opening the model shows whether it is good. That takes seconds, so it is done only after an error in the block.
    """
    try:
        yield
    except (DataError, ToolchainError):
        with contextlib.suppress(ToolchainError, DeviceError, ImportError):
            open_engine(model, options).close()
        raise


# --- the Python API ---------------------------------------------------------------------------------------------------


def load(
    model: str | os.PathLike[str],
    *,
    conf: float = 0.25,
    iou: float = 0.7,
    max_det: int = 300,
    classes: Sequence[int | str] | None = None,
    agnostic_nms: bool = False,
    multi_label: bool = False,
    names: Mapping[int, str] | Sequence[str] | None = None,
    batch_size: int = 1,
) -> Model:
    """Open a model for detection; close it, or use it in a `with` statement.

    Args:
        model: a .hef (on the chip), a .emulated.onnx, a float .onnx, or a folder with exactly one .hef.
        conf: minimum score, 0 to 1.
        iou: NMS threshold, 0 to 1.
        max_det: largest number of detections in a frame.
        classes: only these class ids or names; None: all.
        agnostic_nms: boxes of different classes suppress each other.
        multi_label: keep every class of an anchor, not only the best.
        names: class names instead of the model's: {0: "drone"}, or a list in the order of the ids.
        batch_size: frames that `stream` gives the chip in one batch.

    Raises:
        HefkitError: one of its subclasses, see `hefkit.errors`. A wrong argument is a UsageError.
    """
    path = Path(os.fspath(model))
    for key, value in (("conf", conf), ("iou", iou)):
        check_number(key, value, 0, 1, whole=False)
    check_number("max_det", max_det, 1, 1 << 30)
    check_number("batch_size", batch_size, 1, 63)  # HailoRT's own limit
    path = check_model_file(path)
    from hefkit.cli import need

    need("numpy", "cv2")
    from hefkit.detect.decode import DecodeSettings
    from hefkit.names import find_classes

    def settings(spec: ModelSpec) -> DecodeSettings:
        wanted = None if classes is None else find_classes(class_words(classes), spec.names)
        return DecodeSettings(conf, iou, max_det, wanted, agnostic_nms, multi_label)

    try:
        engine = open_engine(path, EngineOptions(names_by_id(names), batch_size, conf, iou, settings))
        return Model(engine, settings(engine.spec))
    except UsageError as exc:  # written for the command line
        raise UsageError(str(exc).replace("--", "", 1)) from None


class Model:
    """An opened model with its thresholds; `hefkit.load` makes it. Threads may share it: their calls take turns."""

    def __init__(self, engine: Engine, settings: DecodeSettings) -> None:
        from hefkit.detect.detector import Detector

        self._engine, self._detector = engine, Detector(engine, settings)
        self._names = dict(engine.spec.names)
        self._busy, self._closed = threading.Lock(), False
        self._pipeline: Pipeline | None = None  # of the stream that runs

    @property
    def kind(self) -> str:
        """What computes: "hailort" (the chip), "emulated" or "float" (both on the CPU)."""
        return self._engine.kind

    @property
    def spec(self) -> ModelSpec:
        """Input, heads, names and origin of the model."""
        return self._engine.spec

    @property
    def names(self) -> dict[int, str]:
        """Class id -> name; a copy."""
        return dict(self._names)

    def detect(self, frame_bgr: np.ndarray) -> NamedDetections:
        """(h, w, 3) uint8 BGR -> detections in pixels of the frame, best first; the frame is not changed.

        Raises:
            ValueError: another type or shape.
            DeviceError: the chip failed.
        """
        frame = checked_frame(frame_bgr)
        with self._turn():
            return self._named(self._detector.detect(frame)[0])

    def stream(self, frames: Iterable[np.ndarray]) -> Generator[tuple[np.ndarray, NamedDetections], None, None]:
        """Yield every frame with its detections, in order, while the next frames are read and computed.

        A thread of its own iterates over `frames` and is a few frames ahead; leaving the loop waits for its frame. Give
        every frame an array of its own: an array that is filled again changes before it is yielded. `detect` is
        refused until the loop has ended.

        Raises:
            ValueError: a frame of another type or shape.
            Exception: whatever `frames` raises.
        """
        from hefkit.detect.pipeline import Pipeline

        with self._turn():
            self._pipeline = Pipeline(_as_frames(frames), self._detector)
            try:
                while (result := self._pipeline.take()) is not None:
                    assert result.detections is not None and not isinstance(result.frame.picture, Exception)
                    yield result.frame.picture, self._named(result.detections)
            finally:
                self._pipeline.close()
                self._pipeline = None

    def close(self) -> None:
        """End a stream that runs, and free the model and the chip; a second call does nothing."""
        self._closed = True
        if (pipeline := self._pipeline) is not None:
            pipeline.close()
        self._engine.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        height, width = self.spec.input.size
        return f"<hefkit.Model {self.kind}, input {height}x{width}, {len(self._names)} classes>"

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait until no other thread uses the engine; a closed model and one in a stream are refused."""
        if self._closed:
            raise UsageError("this model is closed; expected an open one; call hefkit.load again")
        if self._pipeline is not None:
            raise UsageError("this model is in use by stream(); expected the end of that loop; load a second model")
        with self._busy:
            yield

    def _named(self, found: Detections) -> NamedDetections:
        from hefkit.detect.detections import NamedDetections

        return NamedDetections(found.xyxy, found.score, found.class_id, self._names, self.kind)


def annotate(
    frame_bgr: np.ndarray, found: Detections, *, line_width: int | None = None, hide_labels: bool = False
) -> np.ndarray:
    """A copy of the frame, (h, w, 3) uint8 BGR, with boxes and labels, and with a stamp if the model is emulated.

    Args:
        found: what `detect` or `stream` returned for this frame, or a selection of it, such as `found[:5]`.
        line_width: in pixels; None: chosen by the size of the picture.
        hide_labels: boxes only.

    Raises:
        ValueError: a frame of another type or shape.
    """
    from hefkit.detect.detections import NamedDetections
    from hefkit.results.draw import annotate as draw
    from hefkit.results.outputs import EMULATION_STAMP

    frame = checked_frame(frame_bgr)
    names, engine = (found.all_names, found.engine) if isinstance(found, NamedDetections) else ({}, "")
    stamp = EMULATION_STAMP if engine == "emulated" else None
    return draw(frame, found, names, line_width=line_width, hide_labels=hide_labels, stamp=stamp)


def _as_frames(frames: Iterable[np.ndarray]) -> Generator[Frame, None, None]:
    from hefkit.pictures.frames import Frame

    for index, frame in enumerate(frames):
        yield Frame(index, "", None, checked_frame(frame), 0.0)
