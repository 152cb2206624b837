"""What a model expects and returns: `InputSpec`, `HeadSpec`, `ModelSpec`; `to_json` gives the JSON beside the model.

`hefkit.spec_file` reads that JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

FORMAT = 1
KINDS = ("hef", "emulated")
FITS = ("letterbox", "stretch")
FAMILIES = ("dfl", "ltrb")
ACTIVATIONS = ("none", "sigmoid")
CODE_DTYPES = {"uint8": 255, "uint16": 65535}  # dtype -> largest code
MAX_NAME_LENGTH = 200


@dataclass(frozen=True)
class InputSpec:
    """How a picture becomes the input tensor (1, H, W, 3) uint8 RGB."""

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
    """The output of a HEF that decodes boxes itself; its head has no raw outputs.

    Attributes:
        stream: name of the one output.
        boxes_only: the output holds the boxes of all anchors, before NMS, instead of detections by class.
        shape: of the output, flat (classes * (1 + 5 * max_per_class),) or (1, anchors, 4 + classes).
        max_per_class: largest number of detections of one class; 0 where hefkit does the NMS.
        score_threshold, iou_threshold: those in the file; None where it has none.
        adjustable: HailoRT computes the NMS on the host, so the thresholds may be set; else the chip does.
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
    """Everything that must travel with a model; `to_json` is the file."""

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
    """One printable name for each class; without a name in `given` it is `class0`, `class1` ..."""
    return {i: given.get(i) or f"class{i}" for i in range(num_classes)}
