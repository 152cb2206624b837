"""An ONNX file -> a checked model with a fixed image input, named nodes and its class names.

`read_model` checks the file as it is; `make_static` prepares the model for the search of its heads. Most refusals of a
file are in this module; those of its image input are in `image`.
"""

from __future__ import annotations

import ast
import hashlib
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx import TensorProto
from onnx.external_data_helper import load_external_data_for_model, uses_external_data

from hefkit.errors import ModelError
from hefkit.spec import MAX_NAME_LENGTH
from hefkit.text import log, one_line
from hefkit.workshop.network.fold import dense_weights, fold_constants, slices_for_sequences
from hefkit.workshop.network.graph import name_nodes, sort_nodes
from hefkit.workshop.network.image import DTYPES, find_image_input, fix_size
from hefkit.workshop.network.inputmap import check_input_map
from hefkit.workshop.network.limits import check_nodes, check_size, check_types, check_work
from hefkit.workshop.network.operators import check_runtime_operators, name_plugins, opset

OPSETS = range(11, 23)  # ONNX operator sets that we read
MAX_BYTES = 2 << 30  # bytes; protobuf's own limit
MAX_NAMES_TEXT = 1 << 20  # characters
MAX_CLASSES = 65536

# first bytes -> what the file is instead
LOOKS_LIKE = (
    (b"\x01HEF", "a HEF, already compiled for a Hailo chip"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x89PNG", "a PNG picture"),
    (b"GIF8", "a GIF picture"),
    (b"PK\x03\x04", "a ZIP archive, such as a PyTorch checkpoint"),
    (b"\x80\x02", "a Python pickle, such as an old PyTorch checkpoint"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x89HDF", "an HDF5 file, such as a Keras model"),
    (b"%PDF", "a PDF"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
    (b"<", "an HTML or XML text"),
    (b"{", "a JSON text"),
)


@dataclass(frozen=True)
class OnnxFile:
    """A checked ONNX: batch 1, three channels, fixed size, every node with a unique name."""

    path: Path
    model: onnx.ModelProto
    input_name: str
    size: tuple[int, int]  # (H, W) in pixels
    dtype: str  # of the input: "float32" | "float16"
    names: dict[int, str]  # class names from the metadata; may be empty or incomplete
    sha256: str  # of the file's bytes
    warnings: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """The file name without its folder."""
        return self.path.name


def load_onnx(path: Path, imgsz: tuple[int, int] | None = None) -> OnnxFile:
    """Open, check and make static; the file itself is not changed.

    Args:
        path: an exported YOLO.
        imgsz: (H, W) for an export with dynamic size; must agree with a fixed one.

    Raises:
        ModelError: it is not a network with one float image of fixed size as its input.
    """
    model, sha256 = read_model(path)
    if is_emulated(model):
        raise ModelError(
            f"{path} is hefkit's own emulated model, whose heads are quantised already; expected the float ONNX "
            "that it was made from; the spec beside it names that file"
        )
    return make_static(path, model, sha256, imgsz)


def read_model(path: Path) -> tuple[onnx.ModelProto, str]:
    """Parse and check the file itself; (model, sha256 of its bytes). Raises ModelError."""
    data = _read_bytes(path)
    _refuse_other_formats(path, data)
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as exc:
        raise ModelError(
            f"{path} is damaged or not an ONNX: it does not parse; expected a complete export; copy or export it again"
        ) from exc
    if not model.graph.node or not model.opset_import:
        raise ModelError(f"{path} holds no network; expected an exported YOLO; export it again")
    _check_versions(path, model)
    check_nodes(path, model)
    _load_external(path, model)
    if model.functions:
        try:
            model = onnx.inliner.inline_local_functions(model)
        except (RuntimeError, ValueError) as exc:  # it has no error of its own
            raise ModelError(f"{path} has functions that cannot be inlined: {one_line(exc)}; export again") from exc
    check_types(path, model)
    sort_nodes(model)
    name_plugins(model)
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as exc:
        raise ModelError(f"{path} is not a valid ONNX: {one_line(exc)}; export it again") from exc
    return model, hashlib.sha256(data).hexdigest()


def make_static(path: Path, model: onnx.ModelProto, sha256: str, imgsz: tuple[int, int] | None = None) -> OnnxFile:
    """Fix the input size of a parsed float model, name its nodes, fold constants and read its class names.

    `model` is changed. Raises ModelError.
    """
    dense_weights(model)
    image = find_image_input(path, model)
    size = fix_size(path, image, imgsz)
    check_size(path, size)
    _clear_shapes(model)
    warnings: list[str] = []
    if renamed := name_nodes(model):
        warnings.append(f"{len(renamed)} nodes had no name of their own; hefkit gave them names such as {renamed[0]}")
    check_runtime_operators(path, model, warnings)
    _refuse_bfloat16(path, model)
    check_work(path, model)
    fold_constants(model)
    slices_for_sequences(model)
    if normalises := check_input_map(path, model, image.name):
        warnings.append(normalises)
    names = _class_names(model, warnings)
    for text in warnings:
        log.warning("%s", text)
    return OnnxFile(
        path, model, image.name, size, DTYPES[image.type.tensor_type.elem_type], names, sha256, tuple(warnings)
    )


def metadata(model: onnx.ModelProto) -> dict[str, str]:
    """metadata_props as a dict."""
    return {p.key: p.value for p in model.metadata_props}


def is_emulated(model: onnx.ModelProto) -> bool:
    """Is this an INT8 emulation that hefkit wrote?"""
    return metadata(model).get("hefkit.kind") == "emulated"


def _read_bytes(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise ModelError(f"{path} is a folder; expected an .onnx file")
        if not path.is_file() or size > MAX_BYTES:
            raise ModelError(f"{path} is not a file of at most {MAX_BYTES >> 30} GiB; expected an .onnx file")
        data = path.read_bytes()
    except (OSError, ValueError) as exc:  # ValueError: a null byte in the name
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise ModelError(f"cannot read the model {path}: {reason}; expected an .onnx file; check the path") from exc
    if not data:
        raise ModelError(f"{path} is empty; expected an ONNX; export or copy it again")
    return data


def _refuse_other_formats(path: Path, data: bytes) -> None:
    if path.suffix.lower() == ".har" or data[257:262] == b"ustar":
        raise ModelError(
            f"{path} looks like a HAR of Hailo's compiler; expected the ONNX that it was made from; give both: "
            f"compile_to_hef.py MODEL.onnx --har {path.name}"
        )
    for magic, words in LOOKS_LIKE:
        if data.startswith(magic):
            raise ModelError(f"{path} looks like {words}; expected an ONNX; export the trained model to ONNX first")
    if data[4:8] == b"TFL3":
        raise ModelError(f"{path} looks like a TensorFlow Lite model; expected an ONNX; export to ONNX instead")


def _check_versions(path: Path, model: onnx.ModelProto) -> None:
    version = opset(model)
    if version not in OPSETS:
        raise ModelError(
            f"{path} uses ONNX opset {version or 'none'}; expected {OPSETS[0]} to {OPSETS[-1]}; "
            "export it again, for example with opset=12"
        )
    if not 3 <= model.ir_version <= onnx.IR_VERSION:
        raise ModelError(
            f"{path} has IR version {model.ir_version}; expected 3 to {onnx.IR_VERSION}; "
            "export it again with an older opset or upgrade the onnx package"
        )


def _load_external(path: Path, model: onnx.ModelProto) -> None:
    """Read weights from a file beside the ONNX into the model."""
    constants = (a.t for node in model.graph.node for a in node.attribute if a.type == onnx.AttributeProto.TENSOR)
    if not any(uses_external_data(t) for t in (*model.graph.initializer, *constants)):
        return
    try:
        load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as exc:
        raise ModelError(
            f"{path} keeps its weights in a second file that is missing or damaged: {one_line(exc)}; "
            "copy that file to the same folder, or export into one file"
        ) from exc


def _clear_shapes(model: onnx.ModelProto) -> None:
    """Remove the shapes that the file notes for its dynamic batch or size; onnxruntime infers its own."""
    del model.graph.value_info[:]
    for output in model.graph.output:
        for dim in output.type.tensor_type.shape.dim:
            dim.Clear()


def _refuse_bfloat16(path: Path, model: onnx.ModelProto) -> None:
    """Raise ModelError: onnxruntime cannot compute bfloat16 on the CPU."""
    if any(t.data_type == TensorProto.BFLOAT16 for t in model.graph.initializer):
        raise ModelError(f"{path} has bfloat16 weights; expected float32 or float16; export it again in float32")


def _class_names(model: onnx.ModelProto, warnings: list[str]) -> dict[int, str]:
    """`names` of the metadata, the repr of a Python dict or list; junk gives {} and a warning."""
    text = metadata(model).get("names", "")
    if not text:
        return {}
    try:
        value = ast.literal_eval(text) if len(text) <= MAX_NAMES_TEXT else None
        if not isinstance(value, dict | list | tuple):
            raise ValueError(f"{type(value)} holds no names")
        items = value.items() if isinstance(value, dict) else enumerate(value)
        names = {_class_id(key): one_line(name, MAX_NAME_LENGTH) for key, name in items}
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        warnings.append("the class names in the ONNX metadata cannot be read; classes are called class0, class1, ...")
        return {}
    return {key: name for key, name in names.items() if name}


def _class_id(key: object) -> int:
    if isinstance(key, bool) or not isinstance(key, int) or not 0 <= key < MAX_CLASSES:
        raise ValueError(f"{key!r} is not a class number")
    return key
