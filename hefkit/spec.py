"""What a model expects and returns: `InputSpec`, `HeadSpec`, `ModelSpec` and the JSON beside the model.

The JSON `NAME.json` travels with `NAME.hef`, and `NAME.emulated.json` with `NAME.emulated.onnx`.
Reading it refuses, with exit code 4, everything that a decoder could trip over later.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hefkit.errors import ModelError

FORMAT = 1
KINDS = ("hef", "emulated")
FITS = ("letterbox", "stretch")
FAMILIES = ("dfl", "ltrb")
ACTIVATIONS = ("none", "sigmoid")
CODE_DTYPES = {"uint8": 255, "uint16": 65535}  # dtype -> largest code
MAX_SPEC_BYTES = 16 << 20
MAX_NAME_LENGTH = 200


@dataclass(frozen=True)
class InputSpec:
    """How a photograph becomes the input tensor (1, H, W, 3) uint8 RGB."""

    size: tuple[int, int]  # (H, W)
    fit: str = "letterbox"
    pad_value: int = 114
    color: str = "RGB"
    dtype: str = "uint8"
    layout: str = "NHWC"

    def to_json(self) -> dict[str, Any]:
        """The object of the manifest and the spec."""
        return {**asdict(self), "size": list(self.size)}


@dataclass(frozen=True)
class OutputSpec:
    """One raw head tensor (H, W, C): real = (code - zero_point) * scale, C fastest."""

    role: str  # "box" | "cls"
    stride: int
    shape: tuple[int, int, int]  # (H, W, C)
    onnx_node: str
    stream: str | None = None
    activation: str = "none"  # what has been applied already
    dtype: str = "uint8"  # "uint8" | "uint16" codes; "float32" for a float engine, never in a file
    scale: float | tuple[float, ...] = 1.0
    zero_point: float | tuple[float, ...] = 0

    def to_json(self) -> dict[str, Any]:
        """The object of `head.outputs`."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


@dataclass(frozen=True)
class HeadSpec:
    """The raw heads of a YOLO: box and class tensors, interleaved, by ascending stride."""

    family: str  # "dfl": 4 * reg_max channels of bin logits; "ltrb": 4 distances; "nms": see NmsSpec, never in a file
    num_classes: int
    reg_max: int  # 1 for "ltrb"
    strides: tuple[int, ...]
    nms_free: bool
    outputs: tuple[OutputSpec, ...]

    @property
    def box_channels(self) -> int:
        """Channels of a box tensor: 4 sides, left top right bottom, reg_max each."""
        return 4 * self.reg_max

    def to_json(self) -> dict[str, Any]:
        """The spec's `head` object."""
        return {
            "family": self.family,
            "num_classes": self.num_classes,
            "reg_max": self.reg_max,
            "strides": list(self.strides),
            "nms_free": self.nms_free,
            "outputs": [o.to_json() for o in self.outputs],
        }


@dataclass(frozen=True)
class NmsSpec:
    """What comes out of a HEF that decodes boxes itself; such a head has no raw outputs.

    Attributes:
        stream: name of the one output.
        boxes_only: the boxes of all anchors, without NMS, instead of detections by class.
        shape: of the output, flat (classes * (1 + 5 * max_per_class),) or (1, anchors, 4 + classes).
        max_per_class: detections of one class; 0 where NMS is left to us.
        score_threshold, iou_threshold: of the file; None where it does not tell.
        adjustable: HailoRT computes it on the host, so the thresholds may be set; else the chip does.
        image_size: (H, W) by which coordinates were divided.
    """

    stream: str
    boxes_only: bool
    shape: tuple[int, ...]
    max_per_class: int
    score_threshold: float | None
    iou_threshold: float | None
    adjustable: bool
    image_size: tuple[float, float]


@dataclass(frozen=True)
class ModelSpec:
    """Everything that must travel with a model; `to_json` is the file, `from_json` its check."""

    kind: str  # "hef" | "emulated"; "float" for an ONNX run as it is, never in a file
    input: InputSpec
    head: HeadSpec
    names: Mapping[int, str]
    source: Mapping[str, Any] = field(default_factory=dict)  # {"file", "sha256"} of the ONNX
    calibration: Mapping[str, Any] | None = None  # {"count", "digest"}
    target: Mapping[str, Any] = field(default_factory=dict)  # {"arch", "sdk"}
    script: str = ""
    quality: Mapping[str, Any] | None = None
    tool: str = ""
    created: str = ""
    nms: NmsSpec | None = None  # of a HEF with boxes decoded inside; never in a file

    def to_json(self) -> dict[str, Any]:
        """The JSON object of the contract."""
        return {
            "format": FORMAT,
            "kind": self.kind,
            "tool": self.tool,
            "created": self.created,
            "input": self.input.to_json(),
            "head": self.head.to_json(),
            "names": {str(k): v for k, v in sorted(self.names.items())},
            "source": dict(self.source),
            "calibration": None if self.calibration is None else dict(self.calibration),
            "target": dict(self.target),
            "script": self.script,
            "quality": None if self.quality is None else dict(self.quality),
        }


def class_names(given: Mapping[int, str], num_classes: int) -> dict[int, str]:
    """One printable name a class; the nameless are `class0`, `class1` ..."""
    return {i: given.get(i) or f"class{i}" for i in range(num_classes)}


def read_spec(path: Path) -> ModelSpec:
    """Read and check a spec file.

    Raises:
        ModelError: the file is missing, no JSON, of an unknown format, or contradicts itself.
    """
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_SPEC_BYTES + 1)
    except OSError as exc:
        raise ModelError(f"cannot read the spec {path}: {exc.strerror}; it must lie beside the model") from exc
    if len(raw) > MAX_SPEC_BYTES:
        raise ModelError(f"the spec {path} is larger than {MAX_SPEC_BYTES >> 20} MiB; this is no spec of ours")
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        raise ModelError(f"the spec {path} is not valid JSON; compile the model again") from exc
    try:
        return spec_from_json(value)
    except ModelError as exc:
        raise ModelError(f"the spec {path} cannot be used: {exc}; compile the model again") from exc
    except RecursionError as exc:  # nested just shallow enough to be parsed
        raise ModelError(f"the spec {path} is nested too deeply; compile the model again") from exc


def spec_from_json(value: Any) -> ModelSpec:
    """Check a parsed spec and build the `ModelSpec`; raises ModelError with what is wrong."""
    top = _object(value, "the file")
    if top.get("format") != FORMAT:
        raise ModelError(f"format is {top.get('format')!r}, this hefkit reads {FORMAT}")
    head = _head(top.get("head"))
    spec = ModelSpec(
        kind=_one_of(top.get("kind"), KINDS, "kind"),
        input=input_from_json(top.get("input")),
        head=head,
        names=_names(top.get("names"), head.num_classes),
        source=_object(top.get("source"), "source"),
        calibration=None if top.get("calibration") is None else _object(top["calibration"], "calibration"),
        target=_object(top.get("target"), "target"),
        script=_text(top.get("script", ""), "script", limit=1 << 20),
        quality=None if top.get("quality") is None else _object(top["quality"], "quality"),
        tool=_text(top.get("tool", ""), "tool"),
        created=_text(top.get("created", ""), "created"),
    )
    _check_geometry(spec)
    return spec


def input_from_json(value: Any) -> InputSpec:
    """The `input` object of a spec or a manifest; raises ModelError with what is wrong."""
    item = _object(value, "input")
    size = item.get("size")
    if not (isinstance(size, list) and len(size) == 2):
        raise ModelError("input.size is not [height, width]")
    for key, only in (("color", "RGB"), ("dtype", "uint8"), ("layout", "NHWC")):
        _one_of(item.get(key), (only,), f"input.{key}")
    return InputSpec(
        size=(_whole(size[0], "input.size", 1, 16384), _whole(size[1], "input.size", 1, 16384)),
        fit=_one_of(item.get("fit"), FITS, "input.fit"),
        pad_value=_whole(item.get("pad_value"), "input.pad_value", 0, 255),
    )


def _head(value: Any) -> HeadSpec:
    item = _object(value, "head")
    strides = item.get("strides")
    if not (isinstance(strides, list) and 1 <= len(strides) <= 8):
        raise ModelError("head.strides is not a list of strides")
    outputs = item.get("outputs")
    if not (isinstance(outputs, list) and len(outputs) == 2 * len(strides)):
        raise ModelError("head.outputs does not hold a box and a class tensor for every stride")
    nms_free = item.get("nms_free")
    if not isinstance(nms_free, bool):
        raise ModelError("head.nms_free is neither true nor false")
    head = HeadSpec(
        family=_one_of(item.get("family"), FAMILIES, "head.family"),
        num_classes=_whole(item.get("num_classes"), "head.num_classes", 1, 65536),
        reg_max=_whole(item.get("reg_max"), "head.reg_max", 1, 256),
        strides=tuple(_whole(s, "head.strides", 1, 4096) for s in strides),
        nms_free=nms_free,
        outputs=tuple(_output(o, f"head.outputs[{i}]") for i, o in enumerate(outputs)),
    )
    if list(head.strides) != sorted(set(head.strides)):
        raise ModelError(f"head.strides {list(head.strides)} do not ascend")
    if (head.family == "ltrb") != (head.reg_max == 1):
        expected = "1 for direct distances" if head.family == "ltrb" else "at least 2 for bins"
        raise ModelError(f"head.reg_max is {head.reg_max}, expected {expected}")
    return head


def _output(value: Any, where: str) -> OutputSpec:
    item = _object(value, where)
    shape = item.get("shape")
    if not (isinstance(shape, list) and len(shape) == 3):
        raise ModelError(f"{where}.shape is not [height, width, channels]")
    height, width, channels = (_whole(s, f"{where}.shape", 1, 1 << 20) for s in shape)
    stream = item.get("stream")
    return OutputSpec(
        role=_one_of(item.get("role"), ("box", "cls"), f"{where}.role"),
        stride=_whole(item.get("stride"), f"{where}.stride", 1, 4096),
        shape=(height, width, channels),
        onnx_node=_text(item.get("onnx_node"), f"{where}.onnx_node", limit=4096),
        stream=None if stream is None else _text(stream, f"{where}.stream", limit=4096),
        activation=_one_of(item.get("activation"), ACTIVATIONS, f"{where}.activation"),
        dtype=_one_of(item.get("dtype"), tuple(CODE_DTYPES), f"{where}.dtype"),
        scale=_numbers(item.get("scale"), f"{where}.scale", channels, positive=True),
        zero_point=_numbers(item.get("zero_point"), f"{where}.zero_point", channels, positive=False),
    )


def _check_geometry(spec: ModelSpec) -> None:
    """Every output must have the shape, role and place that the head and the input size imply."""
    height, width = spec.input.size
    head = spec.head
    for i, output in enumerate(head.outputs):
        role, stride = ("box", "cls")[i % 2], head.strides[i // 2]
        channels = head.box_channels if role == "box" else head.num_classes
        expected = (height // stride, width // stride, channels)
        if (output.role, output.stride, output.shape) != (role, stride, expected) or height % stride or width % stride:
            raise ModelError(
                f"head.outputs[{i}] is {output.role} at stride {output.stride} with shape {list(output.shape)}, "
                f"expected {role} at stride {stride} with shape {list(expected)}"
            )
        if role == "box" and output.activation != "none":
            raise ModelError(f"head.outputs[{i}] is a box tensor with an activation")


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ModelError(f"{where} is not a JSON object")
    return value


def _one_of(value: Any, allowed: tuple[str, ...], where: str) -> str:
    if value not in allowed:
        raise ModelError(f"{where} is {str(value)[:40]!r}, expected {' or '.join(allowed)}")
    return str(value)


def _whole(value: Any, where: str, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ModelError(f"{where} is {str(value)[:40]}, expected a whole number from {low} to {high}")
    return value


def _text(value: Any, where: str, limit: int = 1000) -> str:
    if not isinstance(value, str) or len(value) > limit:
        raise ModelError(f"{where} is not a text of at most {limit} characters")
    return value


def _numbers(value: Any, where: str, channels: int, *, positive: bool) -> float | tuple[float, ...]:
    """A finite number, or one for each channel."""
    items = value if isinstance(value, list) else [value]
    for item in items:
        # beyond 1e18 a product of two overflows float32; the comparison also refuses nan
        if isinstance(item, bool) or not isinstance(item, int | float) or not abs(item) <= 1e18:
            raise ModelError(f"{where} holds {str(item)[:40]}, expected a number")
        if positive and not item > 0:
            raise ModelError(f"{where} holds {item}, expected a number above 0")
    if isinstance(value, list):
        if len(value) != channels:
            raise ModelError(f"{where} holds {len(value)} numbers for {channels} channels")
        return tuple(value)
    return items[0]


def _names(value: Any, num_classes: int) -> dict[int, str]:
    item = _object(value, "names")
    names = {}
    for key, name in item.items():
        if not key.isdecimal() or len(key) > 5 or int(key) >= num_classes:
            raise ModelError(f"names has the key {key[:40]!r}, expected 0 to {num_classes - 1}")
        names[int(key)] = _text(name, f"names[{key}]", limit=MAX_NAME_LENGTH)
    if len(names) != num_classes:
        raise ModelError(f"names has {len(names)} entries for {num_classes} classes")
    return names
