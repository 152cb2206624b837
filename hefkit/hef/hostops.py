"""Operations that HailoRT runs on the host after the chip: NMS, box decoding, softmax, argmax.

An operation replaces the vstreams of the layers that it consumes. Read in HailoRT 4.23: hef.cpp
(create_ops_metadata and what it calls) and net_flow/ops.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hefkit.errors import ModelError
from hefkit.hef.hostnms import Nms, read_nms
from hefkit.hef.message import Message
from hefkit.hef.streams import Layer, Numbers, VStream, checked_name, finite

ORDERS = {  # hailo_format_order_t, which ProtoHEFFormatOrder repeats; 0: the operation's own
    1: "NHWC", 2: "NHCW", 3: "FCR", 4: "F8CR", 5: "NHW", 6: "NC", 7: "BAYER_RGB", 8: "12_BIT_BAYER_RGB", 10: "RGB888",
    11: "NCHW", 12: "YUY2", 13: "NV12", 14: "NV21", 15: "HAILO_YYUV", 16: "HAILO_YYVU",
}  # fmt: skip
TYPES = {1: "uint8", 2: "uint16", 3: "float32"}  # hailo_format_type_t; 0: the operation's own
ARGMAX, SOFTMAX = 0, 1


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
        raise ModelError(f"pad {pad.number('index')} of an operation is connected to no output of the chip")
    return layer


def _logits(op: Message, inputs: list[Layer]) -> VStream:
    kind, pads = op.message("logits_op").number("logits_type"), op.messages("output_pads")
    if len(inputs) != 1 or len(pads) != 1 or kind not in (ARGMAX, SOFTMAX) or not inputs[0].vstreams:
        raise ModelError(f"the operation {op.text('name')} is no argmax or softmax of one input")
    pad, source, layer = pads[0], inputs[0].vstreams[0], inputs[0]
    name, (height, width, features) = checked_name(pad.text("name")), layer.shape
    order, dtype = layer.order, "float32"
    if kind == ARGMAX:
        order, dtype, features = "NC" if layer.order == "NC" else "NHW", source.dtype, 1
    order = ORDERS.get(pad.number("format_order"), order)
    dtype = TYPES.get(pad.number("format_type"), dtype)
    shape = {"NC": (features,), "NHW": (height, width)}.get(order, (height, width, features))
    return VStream(name, (), shape, dtype, order, *_logits_quantisation(pad, source, features))


def _logits_quantisation(pad: Message, source: VStream, features: int) -> tuple[Numbers, Numbers]:
    """The pad's own where the file has it, else its input's."""
    if "numeric_info" in pad:
        own = pad.message("numeric_info")
        return finite(own.real("qp_scale"), source.name), finite(own.real("qp_zp"), source.name)
    if isinstance(source.scale, tuple) and len(source.scale) != features:
        return None, None
    return source.scale, source.zero_point
