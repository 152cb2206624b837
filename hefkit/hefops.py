"""Operations that HailoRT runs on the host after the chip: NMS, box decoding, softmax, argmax.

An operation replaces the vstreams of the layers that it consumes. Read in HailoRT 4.23: hef.cpp
(create_ops_metadata and what it calls) and net_flow/ops.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hefkit.errors import ModelError
from hefkit.hefstreams import Layer, VStream, checked_name, finite, nms_stream
from hefkit.hefwire import Message

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
ORDERS = {1: "NHWC", 2: "NHWC", 3: "FCR", 4: "F8CR", 5: "NHW", 6: "NC"}  # ProtoHEFFormatOrder; 0: as the input
TYPES = {1: "uint8", 2: "uint16", 3: "float32"}  # ProtoHEFFormatType; 0: the operation's own
ARGMAX, SOFTMAX = 0, 1


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
        }


@dataclass
class HostOps:
    """The operations of a group: their vstreams, and the layers that are seen only through them."""

    vstreams: list[VStream] = field(default_factory=list)
    consumed: set[str] = field(default_factory=set)
    nms: Nms | None = None


def read_ops(group: Message, layers: list[Layer]) -> HostOps:
    """All operations but the chip's own; every input must be wired to a layer."""
    pads: dict[int, Layer] = {}
    for layer in layers:
        if layer.output and layer.pad is not None:
            pads.setdefault(layer.pad, layer)
    edges: dict[int, int] = {}
    for edge in group.messages("pad_edges"):
        edges.setdefault(edge.number("dst"), edge.number("src"))
    ops = HostOps()
    for op in group.messages("ops"):
        if "core_op" in op:
            continue
        inputs = [_wired(pad, edges, pads) for pad in op.messages("input_pads")]
        ops.consumed.update(layer.name for layer in inputs)
        if "nms_op" in op:
            ops.nms, stream = _nms(op, inputs, pads)
            ops.vstreams.append(stream)
        elif "logits_op" in op:
            ops.vstreams.append(_logits(op, inputs))
        else:
            raise ModelError(f"the operation {op.text('name')} is of an unknown kind")
    return ops


def _wired(pad: Message, edges: dict[int, int], pads: dict[int, Layer]) -> Layer:
    layer = pads.get(edges.get(pad.number("index"), -1))
    if layer is None:
        raise ModelError(f"pad {pad.number('index')} of an operation is connected to no output of the chip")
    return layer


def _output_pad(op: Message) -> Message:
    pads = op.messages("output_pads")
    if not pads:
        raise ModelError(f"the operation {op.text('name')} has no output")
    return pads[0]


def _nms(op: Message, inputs: list[Layer], pads: dict[int, Layer]) -> tuple[Nms, VStream]:
    values, name = op.message("nms_op"), checked_name(_output_pad(op).text("name"))
    member = next((member for member in KINDS if member in values), None)
    if member is None:
        raise ModelError(f"the NMS {name} is of an unknown kind")
    kind, parts = KINDS[member], values.message(member)
    nms = Nms(
        kind=kind,
        classes=values.number("classes"),
        score_threshold=finite(values.real("nms_score_th"), name),
        iou_threshold=finite(values.real("nms_iou_th"), name),
        max_per_class=values.number("max_proposals_per_class"),
        image_size=None if kind == "iou" else (_whole(parts, "image_height", name), _whole(parts, "image_width", name)),
        boxes_only=bool(values.number("bbox_decoding_only")) and kind in BOXES_ONLY,
        strides=_strides(kind, parts, pads),
    )
    if nms.boxes_only:
        shape = (1, _proposals(kind, parts, inputs, pads), BOXES_ONLY[kind] + nms.classes)
        return nms, VStream(name, (), shape, "float32", "NHWC", 1.0, 0.0)
    shown = max(nms.classes - (1 if values.number("background_removal") else 0), 0)
    order = "HAILO_NMS_WITH_BYTE_MASK" if kind == "yolov5seg" else "HAILO_NMS_BY_CLASS"
    return nms, nms_stream(name, (), shown, nms.max_per_class, order)


def _whole(parts: Message, key: str, name: str) -> float:
    """Image sizes are stored as doubles, but are whole numbers of pixels."""
    value = finite(parts.real(key), name)
    return int(value) if value == int(value) else value


def _strides(kind: str, parts: Message, pads: dict[int, Layer]) -> tuple[int, ...]:
    """Of the YOLOv8 operation, ascending; its decoders name the chip's output pads."""
    if kind != "yolov8":
        return ()
    decoders = parts.messages("bbox_decoders")
    for decoder in decoders:
        for key in ("reg_pad_index", "cls_pad_index"):
            if decoder.number(key) not in pads:
                raise ModelError(f"the NMS reads pad {decoder.number(key)}, which is no output of the chip")
    return tuple(sorted({decoder.number("stride") for decoder in decoders}))


def _proposals(kind: str, parts: Message, inputs: list[Layer], pads: dict[int, Layer]) -> int:
    """Boxes of all layers: cells for YOLOv8, whose layers come in pairs; cells times anchors for YOLOv5."""
    cells = {layer.name: layer.shape[0] * layer.shape[1] for layer in inputs}
    if kind == "yolov8":
        return sum(cells.values()) // 2
    total = 0
    for decoder in parts.messages("bbox_decoders"):
        layer = pads.get(decoder.number("pad_index"))
        if layer is None:
            raise ModelError(f"the NMS reads pad {decoder.number('pad_index')}, which is no output of the chip")
        total += cells.get(layer.name, 0) * len(decoder.reals("h"))
    return total


def _logits(op: Message, inputs: list[Layer]) -> VStream:
    kind, pads = op.message("logits_op").number("logits_type"), op.messages("output_pads")
    if len(inputs) != 1 or len(pads) != 1 or kind not in (ARGMAX, SOFTMAX) or not inputs[0].vstreams:
        raise ModelError(f"the operation {op.text('name')} is no argmax or softmax of one input")
    name, source, own = checked_name(pads[0].text("name")), inputs[0].vstreams[0], pads[0].message("numeric_info")
    height, width, features = inputs[0].shape
    if kind == ARGMAX:
        default, dtype, features = "NC" if inputs[0].order == "NC" else "NHW", source.dtype, 1
        scale, zero_point = source.scale, source.zero_point
    else:
        default, dtype = inputs[0].order, "float32"
        scale, zero_point = finite(own.real("qp_scale"), name), finite(own.real("qp_zp"), name)
    order = ORDERS.get(pads[0].number("format_order"), default)
    dtype = TYPES.get(pads[0].number("format_type"), dtype)
    shape = {"NC": (features,), "NHW": (height, width)}.get(order, (height, width, features))
    return VStream(name, (), shape, dtype, order, scale, zero_point)
