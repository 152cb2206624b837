"""Operations that HailoRT runs on the host after the chip: NMS, box decoding, softmax, argmax.

An operation replaces the vstreams of the layers that it reads. Read in HailoRT 4.23: hef.cpp
(create_ops_metadata and what it calls) and net_flow/ops.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hefkit.errors import ModelError
from hefkit.hef.streams import NMS_BY_CLASS, Layer, Numbers, VStream, checked_name, finite, nms_stream
from hefkit.hef.wire import Message

ORDERS = {  # hailo_format_order_t, which ProtoHEFFormatOrder repeats; 0: the operation's own
    1: "NHWC", 2: "NHCW", 3: "FCR", 4: "F8CR", 5: "NHW", 6: "NC", 7: "BAYER_RGB", 8: "12_BIT_BAYER_RGB", 10: "RGB888",
    11: "NCHW", 12: "YUY2", 13: "NV12", 14: "NV21", 15: "HAILO_YYUV", 16: "HAILO_YYVU",
}  # fmt: skip
TYPES = {1: "uint8", 2: "uint16", 3: "float32"}  # hailo_format_type_t; 0: the operation's own
ARGMAX, SOFTMAX = 0, 1
KINDS = {  # member of the oneof in NmsOp -> our word
    "yolo_nms_op": "yolov5", "yolox_nms_op": "yolox", "ssd_nms_op": "ssd", "iou_op": "iou",
    "yolo_seg_op": "yolov5seg", "yolov8_nms_op": "yolov8",
}  # fmt: skip
BOXES_ONLY = {"yolov5": 5, "yolov8": 4}  # kinds that can leave NMS to the user -> values before the classes
PADS_OF_DECODERS = {  # where a decoder names the outputs of the chip that it reads; checked for these kinds only
    "yolov5": ("pad_index",),
    "yolov8": ("reg_pad_index", "cls_pad_index"),
}


@dataclass
class HostOps:
    """The operations of a group: their vstreams, and the layers that these replace."""

    vstreams: list[VStream] = field(default_factory=list)
    consumed: set[str] = field(default_factory=set)
    nms: Nms | None = None


def read_ops(group: Message, layers: list[Layer]) -> HostOps:
    """All operations except the chip's own; every input must be connected to a layer."""
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
            ops.nms, stream = read_nms(op, inputs, pads)
            ops.vstreams.append(stream)
        elif "logits_op" in op:
            ops.vstreams.append(_logits(op, inputs))
        else:
            raise ModelError(f"the operation {op.text('name')} is of an unknown kind")
    return ops


def _wired(pad: Message, edges: dict[int, int], pads: dict[int, Layer]) -> Layer:
    layer = pads.get(edges.get(pad.number("index"), -1))
    if layer is None:
        raise ModelError(f"pad {pad.number('index')} of an operation is not connected to an output of the chip")
    return layer


def _logits(op: Message, inputs: list[Layer]) -> VStream:
    kind, pads = op.message("logits_op").number("logits_type"), op.messages("output_pads")
    if len(inputs) != 1 or len(pads) != 1 or kind not in (ARGMAX, SOFTMAX) or not inputs[0].vstreams:
        raise ModelError(f"the operation {op.text('name')} is not an argmax or softmax of one input")
    pad, source, layer = pads[0], inputs[0].vstreams[0], inputs[0]
    name, (height, width, features) = checked_name(pad.text("name")), layer.shape
    order, dtype = layer.order, "float32"
    if kind == ARGMAX:
        order, dtype, features = "NC" if layer.order == "NC" else "NHW", source.dtype, 1
    order = ORDERS.get(pad.number("format_order"), order)
    dtype = TYPES.get(pad.number("format_type"), dtype)
    shape = {"NC": (features,), "NHW": (height, width)}.get(order, (height, width, features))
    return VStream(name, (), shape, dtype, order, *_logits_quantisation(source, features))


def _logits_quantisation(source: VStream, features: int) -> tuple[Numbers, Numbers]:
    """Scale and zero point of the input, as HailoRT reports them, even if the output pad has others."""
    if isinstance(source.scale, tuple) and len(source.scale) != features:
        return None, None
    return source.scale, source.zero_point


@dataclass(frozen=True)
class Nms:
    """What the NMS of a HEF does."""

    kind: str  # of KINDS
    classes: int
    score_threshold: float
    iou_threshold: float
    max_per_class: int
    image_size: tuple[float, float] | None  # (H, W)
    boxes_only: bool  # it decodes boxes; the NMS is not done
    background: int | None  # a class that is not in the results
    strides: tuple[int, ...]  # empty where the operation does not name them

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
    """What an operation with an `nms_op` does, and its one output.

    Args:
        op: the message.
        inputs: the layers that it reads.
        pads: every output layer of the chip by its pad index.

    Raises:
        ModelError: HailoRT would refuse it, or crash.
    """
    values, outputs = op.message("nms_op"), op.messages("output_pads")
    member = next((member for member in KINDS if member in values), None)
    if member is None or not outputs:
        raise ModelError(f"the NMS {op.text('name')} is of an unknown kind or has no output")
    kind, parts, name = KINDS[member], values.message(member), checked_name(outputs[0].text("name"))
    decoders = parts.messages("bbox_decoders")
    _check_decoders(kind, decoders, inputs, pads)
    nms = _described(kind, values, parts, name)
    if nms.boxes_only:
        if kind not in BOXES_ONLY:
            raise ModelError(f"an NMS of the kind {kind} cannot leave the NMS to the user")
        shape = (1, _proposals(kind, decoders, inputs, pads), BOXES_ONLY[kind] + nms.classes)
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
    """Refuse decoders that crash HailoRT: their tensors do not exist, or do not belong together."""
    names = {layer.name for layer in inputs}
    for decoder in decoders:
        indices = [decoder.number(key) for key in PADS_OF_DECODERS.get(kind, ())]
        missing = next((i for i in indices if i not in pads), None)
        if missing is not None:
            raise ModelError(f"the NMS reads pad {missing}, which is not an output of the chip")
        if kind == "yolov5" and decoder.count("h") != decoder.count("w"):
            raise ModelError(f"the NMS has anchors with {decoder.count('h')} heights and {decoder.count('w')} widths")
        if kind == "yolov8":
            _check_pair([pads[i] for i in indices], names)


def _check_pair(layers: list[Layer], names: set[str]) -> None:
    """Refuse box and class tensors of one stride that do not belong together."""
    other = next((layer.name for layer in layers if layer.name not in names), None)
    if other is not None:
        raise ModelError(f"the NMS decodes {other}, which is not one of its inputs")
    if len({layer.form for layer in layers}) > 1:
        raise ModelError(f"the NMS joins {' and '.join(layer.name for layer in layers)}, which differ in form")
    if layers[0].shape[2] % 4:
        raise ModelError(f"the NMS takes boxes from {layers[0].name}, which has {layers[0].shape[2]} channels")


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
