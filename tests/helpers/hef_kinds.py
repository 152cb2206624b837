"""Whole HEFs of every kind, for tests of the reader; HailoRT 4.23 would open each of them.

    KINDS["NMS on the chip"]()        the protobuf message; hef_file() puts it into a container

tiny_hef builds the messages; this module combines them as the compiler does for one kind of network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.helpers.tiny_hef import (
    HAILO8L,
    NET_FLOW,
    PER_FEATURE,
    PERIPH,
    YOLO_ORDER,
    core,
    edge,
    f64,
    field,
    group,
    hef,
    info,
    input_layer,
    net_flow_group,
    nms_op,
    yolo_hef,
    yolo_layers,
)

FLOW = (PERIPH, NET_FLOW)
PADS = [(i + 1, 11 + i) for i in range(6)]  # pad of the chip -> pad of the operation
INPUTS = [dst for _, dst in PADS]
IMAGE = f64(1, 480) + f64(2, 640)
ANCHORS = b"\x1e\x3e\x3b"  # three of them, in pixels, packed


def decoders(number: int, *rows: dict[int, int | bytes]) -> bytes:
    """Bounding box decoders: `number` is that of the list, a row has the fields of one."""
    return b"".join(field(number, b"".join(field(n, value) for n, value in row.items())) for row in rows)


YOLOV8 = IMAGE + decoders(4, *({1: s, 2: 2 * i + 1, 3: 2 * i + 2} for i, s in enumerate((8, 16, 32))))
YOLOV5_ROWS = [{2: ANCHORS, 3: ANCHORS, 4: 8 << i // 2, 5: i + 1} for i in range(6)]
YOLOV5SEG = IMAGE + decoders(3, *YOLOV5_ROWS[:5]) + field(4, field(1, 32) + field(3, YOLO_ORDER[-1]))
DETAILS = {  # number in the oneof -> its message, wired to the toy YOLO's six outputs
    7: IMAGE + decoders(4, *YOLOV5_ROWS),
    8: IMAGE + decoders(3, *({1: s, 2: 2 * i + 1, 3: 2 * i + 2, 4: 2 * i + 1} for i, s in enumerate((8, 16, 32)))),
    9: IMAGE + decoders(9, {3: 1, 4: 2}, {3: 3, 4: 4}),
    10: b"",
    11: YOLOV5SEG,
    12: YOLOV8,
}


def one_output_hef(layer: bytes, name: str = "net/out", **kwargs: Sequence[int]) -> bytes:
    """A network with one picture as input and one layer as output."""
    return hef(group([input_layer(), edge(layer)], [name]), **kwargs)  # type: ignore[arg-type]


def nms_hef(member: int = 12, details: bytes | None = None, *, classes: int = 2, more: bytes = b"") -> bytes:
    """Raw heads, followed by an NMS on the host."""
    op = nms_op(member, DETAILS[member] if details is None else details, INPUTS, classes=classes, more=more)
    return hef(net_flow_group(yolo_layers(), [op], PADS, ["net/nms"]), extensions=FLOW)


def partial_hef(net_flow: bool = False, *, nms: bool = False, bitmaps: tuple[int, int] = (3, 1)) -> bytes:
    """A Hailo-8L HEF of two layouts: the first in the file has 7 classes, the second 2.

    With `net_flow` the layouts are partial core ops, and the legacy messages hold only the name, as HailoRT wants it;
    with `nms` an NMS follows on the host.
    """
    layers = [yolo_layers(classes=7), yolo_layers(classes=2)]
    order = ["net/nms"] if nms else YOLO_ORDER
    if not net_flow:
        layouts = [group(part, YOLO_ORDER) for part in layers]
        return hef(b"".join(field(7, layout(part, bits)) for part, bits in zip(layouts, bitmaps, strict=True)),
                   arch=HAILO8L)  # fmt: skip
    cores = b"".join(field(7, layout(core(part), bits)) for part, bits in zip(layers, bitmaps, strict=True))
    outline = field(1, field(1, "net")) + b"".join(field(4, name) for name in order)
    legacy = field(7, layout(field(1, field(1, "net")), bitmaps[0]))
    ops = field(8, field(4, cores)) + (field(8, nms_op(12, YOLOV8, INPUTS)) if nms else b"")
    wiring = b"".join(field(9, field(1, src) + field(2, dst)) for src, dst in PADS)
    return hef(outline + legacy + ops + wiring, arch=HAILO8L, extensions=FLOW)


def layout(network: bytes, bitmap: int) -> bytes:
    """PartialNetworkGroup or PartialCoreOp."""
    return field(1, network) + field(2, field(1, bitmap))


def mux(*leaves: bytes, count: int | None = None, name: str = "net/mux") -> bytes:
    """EdgeLayerMux; leaves are Edge messages."""
    base = field(7, 0) + field(12, 1) + field(13, b"")
    parts = b"".join(field(5, leaf) for leaf in leaves)
    return field(1, name) + field(2, base) + field(3, field(1, len(leaves) if count is None else count)) + parts


def mux_hef() -> bytes:
    """A mux that joins a layer and another mux."""
    inner = mux(field(1, info("net/b", 4, 4, 2)), field(1, info("net/c", 2, 2, 2)), name="net/inner")
    layer = edge(mux(field(1, info("net/a", 8, 8, 2)), field(2, inner)), kind=1)
    return hef(group([input_layer(), layer], ["net/c", "net/b", "net/a"]))


def planes_hef(fmt: int = 0, features: Sequence[int] = (1, 2), data_bytes: Sequence[int] = (1, 1)) -> bytes:
    """A picture in planes: NV12 (format 0), NV21 (1) or I420 (2)."""
    sizes = zip(features, data_bytes, strict=True)
    planes = [info(f"net/p{i}", 64 >> min(i, 1), 64 >> min(i, 1), c, data_bytes=size, names=[f"p{i}"])
              for i, (c, size) in enumerate(sizes)]  # fmt: skip
    layer = field(1, "net/planes") + field(2, fmt) + b"".join(field(3, field(1, plane)) for plane in planes)
    layer += field(4, 64) + field(5, 64) + field(6, 3)
    return hef(group([edge(layer, output=False, kind=2), edge(info("net/out", 8, 8, 2))], ["net/out"]))


def per_feature_input() -> bytes:
    """An input with a scale for each of its three features, all equal as HailoRT requires."""
    return edge(info("net/input", 64, 64, 3, scales=(1, 1, 1), zero_points=(0, 0, 0)), output=False)


def per_feature_hef(layer: bytes, *, extension: bool = True) -> bytes:
    """A network with one scale and zero point for each feature."""
    extensions = (PERIPH, PER_FEATURE) if extension else (PERIPH,)
    return hef(group([per_feature_input(), edge(layer)], ["net/out"]), extensions=extensions)


def chip_nms(more: bytes = b"", name: str = "net/out") -> bytes:
    """A layer with NMS on the chip: 80 classes, 20 boxes in each of 3 chunks."""
    nms = field(2, 80) + field(3, 20) + field(7, 3) + more
    return info(name, 1, 1, 1, fmt=6, more_base=field(11, field(1, nms)))


def fused_hef(original: str = "net/whole", fmt: int = 6, order: Sequence[str] = ("net/whole",)) -> bytes:
    """Two NMS layers on the chip, each with some of the classes, fused on the host."""
    parts = [edge(chip_nms(field(5, 1) + field(6, field(3, original)), f"net/part{i}")) for i in range(2)]
    inner = info("net/whole", 1, 1, 1, fmt=fmt, names=["out"])
    whole = field(1, inner) + field(3, field(2, 160) + field(3, 20) + field(7, 1))
    fused = field(5, field(1, 1) + b"".join(field(2, n) for n in order) + field(3, whole))
    return hef(group([input_layer(), *parts], []) + fused)


def logits_hef(kind: int, pad: bytes = b"", **layer: int) -> bytes:
    """Argmax (0) or softmax (1) on the host; `pad` is added to the operation's output pad."""
    op = field(2, field(1, 11)) + field(3, field(2, "net/logits") + pad) + field(6, field(1, kind))
    layers = [input_layer(), edge(info("net/out", 8, 8, 4, **layer), pad=1)]  # type: ignore[arg-type]
    return hef(net_flow_group(layers, [op], [(1, 11)], ["net/logits"]), extensions=FLOW)


def genai_hef() -> bytes:
    """Two network groups with a cache between their runs, and a tokenizer beside them."""
    cache = edge(info("net/cache", 8, 8, 8), connection=3)
    groups = [group([input_layer(), edge(info("net/out", 1, 1, 8, fmt=2)), cache], ["net/out"], name=name)
              for name in ("llm__tbt", "llm__prefill")]  # fmt: skip
    resource = field(7, field(1, 100) + field(2, 20) + field(3, "tokenizer.json"))
    return hef(*groups, extensions=(PERIPH, 31)) + resource


KINDS: dict[str, Callable[[], bytes]] = {
    "raw heads": yolo_hef,
    "16 bit": lambda: yolo_hef(data_bytes=2),
    "two groups": lambda: hef(*(group(yolo_layers(), YOLO_ORDER, name=name) for name in ("first", "second"))),
    "Hailo-8L": partial_hef,
    "Hailo-8L, net flow": lambda: partial_hef(True),
    "Hailo-8L, NMS": lambda: partial_hef(True, nms=True),
    "per feature": lambda: per_feature_hef(info("net/out", 8, 8, 3, scales=(0.5, 0.25, 2), zero_points=(1, 2, 3))),
    "transposed": lambda: hef(group(yolo_layers(), YOLO_ORDER, transposed=True)),
    "mux": mux_hef,
    "planes": planes_hef,
    "NMS on the chip": lambda: one_output_hef(chip_nms()),
    "fused NMS on the chip": fused_hef,
    "argmax": lambda: logits_hef(0),
    "softmax": lambda: logits_hef(1),
    "boxes of YOLOv8": lambda: nms_hef(more=field(13, 1)),
    "boxes of YOLOv5": lambda: nms_hef(7, more=field(13, 1)),
    **{f"NMS {member}": lambda member=member: nms_hef(member) for member in DETAILS},  # type: ignore[misc]
    "GenAI": genai_hef,
}  # fmt: skip
