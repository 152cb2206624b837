"""ONNX models behind the Engine protocol: a float YOLO, cut on the fly, or an INT8 emulation of the chip."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

from hefkit.detect.engine import CpuSlots, EngineOptions
from hefkit.errors import ModelError
from hefkit.names import model_names, wrong_count
from hefkit.spec import InputSpec, ModelSpec
from hefkit.spec_file import read_spec
from hefkit.text import log
from hefkit.workshop.heads.discover import discover
from hefkit.workshop.heads.proof import heads_to_hwc, to_network_input
from hefkit.workshop.network.cut import cut, image_inputs, shape_of
from hefkit.workshop.network.file import is_emulated, make_static, metadata, read_model
from hefkit.workshop.network.session import open_session, run_session

FORMAT = "1"  # of emulated models: metadata hefkit.format
INPUT = "images"


class _OnnxEngine(CpuSlots):
    """The common part: one session, one picture at a time, because the graphs have batch 1."""

    kind = ""

    def __init__(self, spec: ModelSpec, session: ort.InferenceSession, batch_size: int) -> None:
        super().__init__(batch_size, spec.input.size)
        self.spec = spec
        self._session: ort.InferenceSession | None = session
        self._input = session.get_inputs()[0].name
        self._outputs = [o.name for o in session.get_outputs()]

    def infer(self, batch: np.ndarray) -> list[list[np.ndarray]]:
        """(N, H, W, 3) uint8 RGB -> for each picture the tensors of `spec.head.outputs`, (H, W, C) each."""
        if self._session is None:
            raise ValueError("this engine is closed")
        expected = (*self.spec.input.size, 3)
        if batch.ndim != 4 or batch.shape[1:] != expected or batch.dtype != np.uint8:
            raise ValueError(f"expected (N, {', '.join(map(str, expected))}) uint8, got {batch.shape} {batch.dtype}")
        return [self._one(self._session, batch[i : i + 1]) for i in range(len(batch))]

    @abstractmethod
    def _one(self, session: ort.InferenceSession, picture: np.ndarray) -> list[np.ndarray]:
        """(1, H, W, 3) uint8 RGB -> the head tensors, (H, W, C) each, in the order of the spec."""

    def close(self) -> None:
        """Free the model; calling it twice is allowed."""
        super().close()
        self._session = None

    def __enter__(self) -> _OnnxEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class FloatEngine(_OnnxEngine):
    """The float network up to its heads, on the CPU; outputs are float32 logits."""

    kind = "float"

    def __init__(self, path: Path, model: onnx.ModelProto, sha256: str, options: EngineOptions) -> None:
        file = make_static(path, model, sha256)
        layout = discover(file)
        head = layout.to_head_spec()
        spec = ModelSpec(
            kind="float",
            input=InputSpec(size=file.size),
            head=head,
            names=file.names,
            source={"file": file.file, "sha256": sha256},
        )
        if options.names is None and (wrong := wrong_count(file.names, head.num_classes, "the ONNX")):
            log.warning("%s; --names gives them", wrong)
        self._dtype = file.dtype
        super().__init__(_named(spec, options), open_session(cut(file.model, layout.tensors)), options.batch_size)

    def _one(self, session: ort.InferenceSession, picture: np.ndarray) -> list[np.ndarray]:
        feed = {self._input: to_network_input(picture, self._dtype)}
        return heads_to_hwc(run_session(session, self._outputs, feed))


class EmulatedEngine(_OnnxEngine):
    """The INT8 emulation that `compile_to_hef.py --emulate` wrote; outputs are codes, as from the chip."""

    kind = "emulated"

    def __init__(self, path: Path, model: onnx.ModelProto, options: EngineOptions) -> None:
        spec = _spec_beside(path, model)
        _check_tensors(path, model, spec)
        super().__init__(_named(spec, options), open_session(model), options.batch_size)

    def _one(self, session: ort.InferenceSession, picture: np.ndarray) -> list[np.ndarray]:
        return [t[0] for t in run_session(session, self._outputs, {self._input: np.ascontiguousarray(picture)})]


def open_onnx(path: Path, options: EngineOptions | None = None) -> FloatEngine | EmulatedEngine:
    """Open an emulated model, by its metadata, or a float YOLO.

    The pictures of a batch are computed one by one.

    Raises:
        UsageError: names for classes that the model does not have.
        ModelError: not a detector, dynamic size, or an emulation whose spec is missing or of another model.
    """
    model, sha256 = read_model(path)
    options = options or EngineOptions()
    if is_emulated(model):
        return EmulatedEngine(path, model, options)
    return FloatEngine(path, model, sha256, options)


def spec_path(path: Path) -> Path:
    """NAME.emulated.onnx -> NAME.emulated.json."""
    return path.with_suffix(".json")


def _named(spec: ModelSpec, options: EngineOptions) -> ModelSpec:
    """The spec with the names of `options`, checked by `options.check`."""
    spec = replace(spec, names=model_names(options.names, spec))
    if options.check is not None:
        options.check(spec)
    return spec


def _spec_beside(path: Path, model: onnx.ModelProto) -> ModelSpec:
    """The spec of an emulated model; it must be the one that the model was written with."""
    spec_file, notes = spec_path(path), metadata(model)
    if notes.get("hefkit.format") != FORMAT:
        raise ModelError(
            f"{path} is an emulated model of format {notes.get('hefkit.format')!r}, this hefkit reads {FORMAT!r}; "
            "compile it again"
        )
    spec = read_spec(spec_file)
    digest = hashlib.sha256(spec_file.read_bytes()).hexdigest()
    if notes.get("hefkit.spec_sha256") != digest:
        raise ModelError(
            f"the spec {spec_file} and the model {path} do not belong together; expected the pair that one "
            "compilation wrote; copy both files again, or compile again"
        )
    if spec.kind != "emulated":
        raise ModelError(f"the spec {spec_file} is for a {spec.kind}; expected one for an emulated model")
    return spec


def _check_tensors(path: Path, model: onnx.ModelProto, spec: ModelSpec) -> None:
    """The graph's inputs and outputs must be those of the spec."""
    wanted = [((1, *spec.input.size, 3), "uint8"), *(((1, *o.shape), o.dtype) for o in spec.head.outputs)]
    tensors = [*image_inputs(model), *model.graph.output]
    if len(tensors) != len(wanted):
        raise ModelError(
            f"{path} has {len(tensors)} inputs and outputs, its spec names {len(wanted)}; compile the model again"
        )
    for value, (shape, dtype) in zip(tensors, wanted, strict=True):
        found = (shape_of(value), _dtype_name(value))
        if found != (shape, dtype):
            raise ModelError(
                f"tensor {value.name!r} of {path} is {found[1]} {list(found[0])}, its spec says {dtype} {list(shape)}; "
                "compile the model again"
            )
    if tensors[0].name != INPUT:
        raise ModelError(f"the input of {path} is called {tensors[0].name!r}, expected {INPUT!r}; compile again")


def _dtype_name(value: onnx.ValueInfoProto) -> str:
    return str(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
