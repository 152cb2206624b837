"""The NMS operations of a HEF: what HailoRT decodes and suppresses on the host after the chip.

Read in HailoRT 4.23: hef.cpp (the create_*_op_metadata functions) and net_flow/ops (validate_params,
get_output_vstream_info).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hefkit.errors import ModelError
from hefkit.hef.message import Message
from hefkit.hef.streams import NMS_BY_CLASS, Layer, VStream, checked_name, finite, nms_stream

# member of the oneof in NmsOp -> our word
KINDS = {
    "yolo_nms_op": "yolov5",
    "yolox_nms_op": "yolox",
    "ssd_nms_op": "ssd",
    "iou_op": "iou",
    "yolo_seg_op": "yolov5seg",
    "yolov8_nms_op": "yolov8",
}
BOXES_ONLY = {"yolov5": 5, "yolov8": 4}  # kinds that can leave NMS to the user -> values before the classes
PADS_OF_DECODERS = {  # where a decoder says which of the chip's outputs it reads
    "yolov5": ("pad_index",),
    "yolox": ("reg_pad_index", "cls_pad_index", "obj_pad_index"),
    "ssd": ("reg_pad_index", "cls_pad_index"),
    "iou": (),
    "yolov5seg": ("pad_index",),
    "yolov8": ("reg_pad_index", "cls_pad_index"),
}
ANCHORS = ("yolov5", "yolov5seg")  # kinds whose decoders list widths and heights


@dataclass(frozen=True)
class Nms:
    """What the NMS of a HEF does."""

    kind: str  # of KINDS
    classes: int
    score_threshold: float
    iou_threshold: float
    max_per_class: int
    image_size: tuple[float, float] | None  # (H, W)
    boxes_only: bool  # decodes boxes and leaves the NMS itself to the user
    background: int | None  # the class that is left out of the results
    strides: tuple[int, ...]  # where the operation names them

    def to_json(self) -> dict[str, Any]:
        """The object of the contract."""
        return {
            "kind": self.kind,
            "classes": self.classes,
            "score_threshold": self.score_threshold,
            "iou_threshold": self.iou_threshold,
            "max_per_class": self.max_per_class,
            "image_size": None if self.image_size is None else list(self.image_size),
            "bbox_decoding_only": self.boxes_only,
            "background_removal_index": self.background,
        }


def read_nms(op: Message, inputs: list[Layer], pads: dict[int, Layer]) -> tuple[Nms, VStream]:
    """An operation with an `nms_op` -> what it does, and its one output.

    Args:
        op: the message.
        inputs: the layers that it consumes.
        pads: every output layer of the chip by its pad index.

    Raises:
        ModelError: HailoRT would not open it, or crash.
    """
    values, outputs = op.message("nms_op"), op.messages("output_pads")
    member = next((member for member in KINDS if member in values), None)
    if member is None or not outputs:
        raise ModelError(f"the NMS {op.text('name')} is of an unknown kind or has no output")
    kind, parts, name = KINDS[member], values.message(member), checked_name(outputs[0].text("name"))
    decoders = parts.messages("bbox_decoders")
    _check_decoders(kind, decoders, inputs, pads)
    if kind == "yolov5seg":
        _check_prototypes(parts.message("proto_info").text("proto_layer"), inputs)
    nms = _described(kind, values, parts, name)
    if nms.boxes_only:
        shape = (1, _proposals(kind, decoders, inputs, pads), _values_before_classes(kind) + nms.classes)
        return nms, VStream(name, (), shape, "float32", "NHWC", 1.0, 0.0)
    shown = nms.classes if nms.background is None else max(nms.classes - 1, 0)
    order = "HAILO_NMS_WITH_BYTE_MASK" if kind == "yolov5seg" else NMS_BY_CLASS
    return nms, nms_stream(name, (), shown, nms.max_per_class, order)


def _described(kind: str, values: Message, parts: Message, name: str) -> Nms:
    decoders = parts.messages("bbox_decoders")
    return Nms(
        kind=kind,
        classes=values.number("classes"),
        score_threshold=finite(values.real("nms_score_th"), name),
        iou_threshold=finite(values.real("nms_iou_th"), name),
        max_per_class=values.number("max_proposals_per_class"),
        image_size=None if kind == "iou" else (_whole(parts, "image_height", name), _whole(parts, "image_width", name)),
        boxes_only=bool(values.number("bbox_decoding_only")),
        background=values.number("background_removal_index") if values.number("background_removal") else None,
        strides=tuple(sorted({decoder.number("stride") for decoder in decoders if "stride" in decoder})),
    )


def _whole(parts: Message, key: str, name: str) -> float:
    """Image sizes are stored as doubles, but are whole numbers of pixels."""
    value = finite(parts.real(key), name)
    return int(value) if value == int(value) else value


def _check_decoders(kind: str, decoders: list[Message], inputs: list[Layer], pads: dict[int, Layer]) -> None:
    """Refuse decoders of tensors that the operation does not get, or that do not belong together."""
    names = {layer.name for layer in inputs}
    for decoder in decoders:
        indices = [decoder.number(key) for key in PADS_OF_DECODERS[kind]]
        missing = next((i for i in indices if i not in pads), None)
        if missing is not None:
            raise ModelError(f"the NMS reads pad {missing}, which is no output of the chip")
        if kind in ANCHORS:
            _check_anchors(decoder)
        else:
            _check_together(kind, [pads[i] for i in indices], names)


def _check_anchors(decoder: Message) -> None:
    if decoder.count("h") != decoder.count("w"):
        raise ModelError(f"the NMS has anchors with {decoder.count('h')} heights and {decoder.count('w')} widths")


def _check_together(kind: str, layers: list[Layer], names: set[str]) -> None:
    """Boxes, classes and perhaps objectness of one stride."""
    stranger = next((layer.name for layer in layers if layer.name not in names), None)
    if stranger is not None:
        raise ModelError(f"the NMS decodes {stranger}, which is no input of it")
    if len({layer.shape[:2] if kind == "ssd" else layer.form for layer in layers}) > 1:
        raise ModelError(f"the NMS joins {' and '.join(layer.name for layer in layers)}, which differ in form")
    if kind == "yolov8" and layers[0].shape[2] % 4:
        raise ModelError(f"the NMS takes boxes from {layers[0].name}, which has {layers[0].shape[2]} channels")


def _check_prototypes(name: str, inputs: list[Layer]) -> None:
    if all(layer.name != name for layer in inputs):
        raise ModelError(f"the NMS makes masks from {name or 'a layer without a name'}, which is no input of it")


def _values_before_classes(kind: str) -> int:
    if kind not in BOXES_ONLY:
        raise ModelError(f"an NMS of the kind {kind} cannot leave the NMS to others")
    return BOXES_ONLY[kind]


def _proposals(kind: str, decoders: list[Message], inputs: list[Layer], pads: dict[int, Layer]) -> int:
    """Boxes of all layers: cells for YOLOv8, whose layers come in pairs; cells times anchors for YOLOv5."""
    cells = {layer.name: layer.shape[0] * layer.shape[1] for layer in inputs}
    if kind != "yolov5":
        return sum(cells.values()) // 2
    anchors = {pads[decoder.number("pad_index")].name: decoder.count("h") for decoder in reversed(decoders)}
    missing = next((name for name in cells if name not in anchors), None)
    if missing is not None:
        raise ModelError(f"the NMS has no anchors for {missing}")
    return sum(number * anchors[name] for name, number in cells.items())
