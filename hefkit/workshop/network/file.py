"""One ONNX on disk -> checked model with a fixed input, image size and class names; all refusals live here."""

from __future__ import annotations

import ast
import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx import TensorProto
from onnx.external_data_helper import load_external_data_for_model, uses_external_data

from hefkit.errors import ModelError
from hefkit.spec import MAX_NAME_LENGTH
from hefkit.text import one_line
from hefkit.workshop.network.cut import image_inputs, shape_of
from hefkit.workshop.network.fold import dense_weights, fold_constants, slices_for_sequences
from hefkit.workshop.network.graph import sort_nodes
from hefkit.workshop.network.scaling import refuse_preprocessing

log = logging.getLogger("hefkit")

OPSETS = range(11, 23)
PLUGINS = "TRT"
RUNTIME, RUNTIME_BLOCKED = "com.microsoft", "com.microsoft.nchwc"  # domains of onnxruntime's own operators
MAX_BYTES = 2 << 30  # protobuf's own limit
MAX_NAMES_TEXT = 1 << 20
MAX_CLASSES = 65536
DTYPES: dict[int, str] = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16"}

# first bytes -> what the file is instead; offset 0 but for TFLite
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
    names: dict[int, str]  # class names from the metadata, as far as there are any
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
        ModelError: anything that is not one float image of fixed size into one network.
    """
    model, sha256 = read_model(path)
    if is_emulated(model):
        raise ModelError(
            f"{path} is hefkit's own emulated model, whose heads are quantised already; expected the float ONNX "
            "that it was made from; it is named in the spec beside it"
        )
    return prepare(path, model, sha256, imgsz)


def read_model(path: Path) -> tuple[onnx.ModelProto, str]:
    """Parse and check the file itself; (model, sha256 of its bytes). Raises ModelError."""
    data = _read_bytes(path)
    _refuse_other_formats(path, data)
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as exc:
        raise ModelError(
            f"{path} is damaged or no ONNX: it does not parse; expected a complete export; copy or export it again"
        ) from exc
    if not model.graph.node or not model.opset_import:
        raise ModelError(f"{path} holds no network; expected an exported YOLO; export it again")
    _check_versions(path, model)
    _load_external(path, model)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    sort_nodes(model)
    _name_plugins(model)
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as exc:
        raise ModelError(f"{path} is no valid ONNX: {one_line(exc)}; export it again") from exc
    return model, hashlib.sha256(data).hexdigest()


def prepare(path: Path, model: onnx.ModelProto, sha256: str, imgsz: tuple[int, int] | None = None) -> OnnxFile:
    """Make a parsed float model static, name its nodes and read its class names. Raises ModelError."""
    dense_weights(model)
    image = _image_input(path, model)
    size = _fix_input(path, image, imgsz)
    _forget_shapes(model)
    warnings: list[str] = []
    _name_nodes(model, warnings)
    _foreign_operators(path, model, warnings)
    _refuse_bfloat16(path, model)
    fold_constants(model)
    slices_for_sequences(model)
    refuse_preprocessing(path, model, image.name)
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
            raise ModelError(f"{path} is no file of at most {MAX_BYTES >> 30} GiB, so it cannot be an ONNX")
        data = path.read_bytes()
    except (OSError, ValueError) as exc:  # ValueError: a null byte in the name
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise ModelError(f"cannot read the model {path}: {reason}; expected an .onnx file; check the path") from exc
    if not data:
        raise ModelError(f"{path} is empty; expected an ONNX; export or copy it again")
    return data


def _name_plugins(model: onnx.ModelProto) -> None:
    """Give TensorRT's plugins the domain "TRT": graphs edited for TensorRT leave it out, which no checker lets pass.

    Its NMS (EfficientNMS_TRT and others) lies below the heads, where a cut removes it.
    """
    plugins = [node for node in model.graph.node if str(node.op_type).endswith("_TRT")]  # bytes, where damaged
    for node in plugins:
        node.domain = node.domain or PLUGINS
    if any(node.domain == PLUGINS for node in plugins) and all(o.domain != PLUGINS for o in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(PLUGINS, 1))


def _refuse_other_formats(path: Path, data: bytes) -> None:
    for magic, words in LOOKS_LIKE:
        if data.startswith(magic):
            raise ModelError(f"{path} looks like {words}; expected an ONNX; export the trained model to ONNX first")
    if data[4:8] == b"TFL3":
        raise ModelError(f"{path} looks like a TensorFlow Lite model; expected an ONNX; export to ONNX instead")


def _check_versions(path: Path, model: onnx.ModelProto) -> None:
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset not in OPSETS:
        raise ModelError(
            f"{path} uses ONNX opset {opset or 'none'}; expected {OPSETS[0]} to {OPSETS[-1]}; "
            "export it again, for example with opset=12"
        )
    if not 3 <= model.ir_version <= onnx.IR_VERSION:
        raise ModelError(
            f"{path} has IR version {model.ir_version}; expected 3 to {onnx.IR_VERSION}; "
            "export it again with an older opset or upgrade the onnx package"
        )


def _load_external(path: Path, model: onnx.ModelProto) -> None:
    """Weights that lie in a file beside the ONNX become part of the model."""
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


def _image_input(path: Path, model: onnx.ModelProto) -> onnx.ValueInfoProto:
    """The one input that is no weight, checked for rank, type, channels and batch."""
    inputs = image_inputs(model)
    if len(inputs) != 1:
        seen = ", ".join(v.name for v in inputs) or "none"
        raise ModelError(f"{path} has {len(inputs)} inputs ({one_line(seen)}); expected one image; export a plain YOLO")
    image = inputs[0]
    shape, where = shape_of(image), f"the input {image.name!r} of {path}"
    if len(shape) != 4:
        raise ModelError(f"{where} has {len(shape)} dimensions; expected an image (1, 3, height, width)")
    dtype = image.type.tensor_type.elem_type
    if dtype not in DTYPES:
        name = TensorProto.DataType.Name(dtype).lower()
        raise ModelError(f"{where} is {name}; expected float32 or float16; export without preprocessing in the graph")
    _check_channels(where, shape)
    if shape[0] > 1:
        raise ModelError(f"{where} has batch {shape[0]}; expected 1; export again with batch=1")
    return image


def _check_channels(where: str, shape: tuple[int, ...]) -> None:
    channels = shape[1]
    if channels == 3 or (channels == 0 and shape[3] != 3):  # 0: dynamic
        return
    if shape[3] == 3:
        raise ModelError(f"{where} is NHWC {list(shape)}; expected (1, 3, height, width); export with channels first")
    raise ModelError(f"{where} has {channels} channel(s); expected 3, red, green and blue; train and export with RGB")


def _fix_input(path: Path, image: onnx.ValueInfoProto, imgsz: tuple[int, int] | None) -> tuple[int, int]:
    """Write batch 1, three channels and the size into the input; returns (H, W)."""
    height, width = shape_of(image)[2:]
    if imgsz is None and min(height, width) <= 0:
        raise ModelError(
            f"{path} was exported with dynamic size; expected a fixed one; "
            "give it to compile_to_hef.py with --imgsz, or export again with dynamic=False"
        )
    for fixed, wanted, what in zip((height, width), imgsz or (0, 0), ("height", "width"), strict=True):
        if fixed > 0 and wanted and fixed != wanted:
            raise ModelError(
                f"{path} has the fixed {what} {fixed}, but --imgsz asks for {wanted}; leave --imgsz out or export again"
            )
    size = imgsz or (height, width)
    dims = image.type.tensor_type.shape.dim
    for dim, value in zip(dims, (1, 3, *size), strict=True):
        dim.dim_value = value  # clears a dim_param, they share a oneof
    return size


def _forget_shapes(model: onnx.ModelProto) -> None:
    """Shapes noted for a dynamic batch or size are wrong now; onnxruntime infers its own."""
    del model.graph.value_info[:]
    for output in model.graph.output:
        for dim in output.type.tensor_type.shape.dim:
            dim.Clear()


def _name_nodes(model: onnx.ModelProto, warnings: list[str]) -> None:
    """Give nameless and doubly named nodes a unique name: the Hailo compiler finds end nodes by name."""
    taken: set[str] = set()
    changed, example = 0, ""
    for index, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"hefkit_{node.op_type}_{index}"
            changed += 1
            example = example or node.name
        taken.add(node.name)
    if changed:
        warnings.append(f"{changed} nodes had no name of their own; they are called {example} and the like")


def _foreign_operators(path: Path, model: onnx.ModelProto, warnings: list[str]) -> None:
    """What onnxruntime writes when it saves its optimised form: for itself, or even for one processor only."""
    foreign = {domain: set[str]() for domain in (RUNTIME, RUNTIME_BLOCKED)}
    for node in model.graph.node:
        foreign.get(node.domain, set()).add(node.op_type)
    advice = "give the original export, or save with onnxruntime's level ORT_ENABLE_BASIC"
    if foreign[RUNTIME_BLOCKED]:
        raise ModelError(
            f"{path} was saved by onnxruntime with all its optimisations, whose operators "
            f"({', '.join(sorted(foreign[RUNTIME_BLOCKED]))}) fit one kind of processor; expected plain ONNX; {advice}"
        )
    if foreign[RUNTIME]:
        warnings.append(
            f"{path.name} was saved by onnxruntime's optimiser with operators of its own "
            f"({', '.join(sorted(foreign[RUNTIME]))}), which Hailo's compiler is not known to read; {advice}"
        )


def _refuse_bfloat16(path: Path, model: onnx.ModelProto) -> None:
    """onnxruntime has no kernels for it on the CPU."""
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
        raise ValueError(f"{key!r} is no class number")
    return key
