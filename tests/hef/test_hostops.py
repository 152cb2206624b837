"""What HailoRT computes on the host after the chip: NMS of six kinds, box decoding, argmax, softmax."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from hefkit.errors import ModelError
from tests.conftest import AsHef
from tests.helpers.hef_kinds import (
    ANCHORS,
    DETAILS,
    FLOW,
    IMAGE,
    INPUTS,
    PADS,
    YOLOV5_ROWS,
    YOLOV8,
    chip_nms,
    decoders,
    logits_hef,
    nms_hef,
)
from tests.helpers.tiny_hef import (
    YOLO_ORDER,
    edge,
    f32,
    f64,
    field,
    group,
    hef,
    hef_file,
    info,
    input_layer,
    net_flow_group,
    nms_op,
    yolo_layers,
)

NMS: list[tuple[int, str, list[int] | None, str, tuple[int, ...]]] = [
    # number in the oneof, kind, image size, order, strides
    (7, "yolov5", [480, 640], "HAILO_NMS_BY_CLASS", (8, 16, 32)),
    (8, "yolox", [480, 640], "HAILO_NMS_BY_CLASS", (8, 16, 32)),
    (9, "ssd", [480, 640], "HAILO_NMS_BY_CLASS", ()),
    (10, "iou", None, "HAILO_NMS_BY_CLASS", ()),
    (11, "yolov5seg", [480, 640], "HAILO_NMS_WITH_BYTE_MASK", (8, 16, 32)),
    (12, "yolov8", [480, 640], "HAILO_NMS_BY_CLASS", (8, 16, 32)),
]


@pytest.mark.parametrize(("member", "kind", "size", "order", "strides"), NMS, ids=[row[1] for row in NMS])
def test_nms_kinds(
    as_hef: AsHef, member: int, kind: str, size: list[int] | None, order: str, strides: tuple[int, ...]
) -> None:
    """Kind, thresholds, classes, boxes, image; one output in place of the six layers."""
    found = as_hef(hef_file(nms_hef(member))).groups[0]

    result = found.to_json()
    assert result["nms"] == {
        "kind": kind,
        "classes": 2,
        "score_threshold": 0.25,
        "iou_threshold": 0.75,
        "max_per_class": 10,
        "image_size": size,
        "bbox_decoding_only": False,
        "background_removal_index": None,
    }
    (stream,) = result["outputs"]
    assert (stream["name"], stream["shape"], stream["order"]) == ("net/nms", [2, 5, 10], order)
    assert (stream["dtype"], stream["scale"], stream["zero_point"]) == ("float32", 1, 0)
    assert found.nms is not None and found.nms.strides == strides


def test_background_class_is_no_class_of_the_output(as_hef: AsHef) -> None:
    """The operation counts it, the vstream does not (nms_post_process.cpp)."""
    found = as_hef(hef_file(nms_hef(9, classes=3, more=field(5, 1) + field(6, 2)))).groups[0]

    assert found.nms is not None and (found.nms.classes, found.nms.background) == (3, 2)
    assert found.outputs[0].shape == (2, 5, 10)


@pytest.mark.parametrize(
    ("member", "shape"),
    [
        (12, (1, 64 + 16 + 4, 4 + 2)),  # a box a cell: layers come in pairs
        (7, (1, 3 * 2 * (64 + 16 + 4), 5 + 2)),  # three anchors in each of six layers
    ],
    ids=["yolov8", "yolov5"],
)
def test_boxes_without_nms(as_hef: AsHef, member: int, shape: tuple[int, ...]) -> None:
    """`bbox_decoding_only`: boxes, objectness where there is one, and classes of every proposal."""
    found = as_hef(hef_file(nms_hef(member, more=field(13, 1)))).groups[0]

    assert found.nms is not None and found.nms.boxes_only
    (stream,) = found.outputs
    assert (stream.shape, stream.order, stream.dtype, stream.scale) == (shape, "NHWC", "float32", 1.0)


@pytest.mark.parametrize("member", [8, 9, 10, 11])
def test_other_kinds_always_suppress(as_hef: AsHef, member: int) -> None:
    """HailoRT decodes boxes alone for YOLOv5 and YOLOv8 only."""
    with pytest.raises(ModelError, match="cannot leave the NMS"):
        as_hef(hef_file(nms_hef(member, more=field(13, 1))))


def test_nms_of_a_part_of_the_outputs(as_hef: AsHef) -> None:
    """What the operation does not consume stays a raw output."""
    data = flow([nms_op(12, IMAGE + decoders(4, {1: 8, 2: 1, 3: 2}), [11, 12])], order=[*YOLO_ORDER[2:], "net/nms"])

    assert [stream.name for stream in as_hef(data).groups[0].outputs] == [*YOLO_ORDER[2:], "net/nms"]


def test_of_two_operations_the_last_is_told(as_hef: AsHef) -> None:
    """As `hailortcli parse-hef` does; both outputs are there."""
    first = nms_op(12, IMAGE + decoders(4, {1: 8, 2: 1, 3: 2}), [11, 12], name="net/first")
    last = nms_op(12, IMAGE + decoders(4, {1: 16, 2: 3, 3: 4}), [13, 14], classes=7, name="net/last")

    found = as_hef(flow([first, last], order=[*YOLO_ORDER, "net/last", "net/first"])).groups[0]

    assert found.nms is not None and found.nms.classes == 7
    assert [stream.name for stream in found.outputs] == [*YOLO_ORDER[4:], "net/last", "net/first"]


def test_iou_of_boxes_from_the_chip(as_hef: AsHef) -> None:
    """NMS on the chip leaves overlapping boxes to the host."""
    layers = [input_layer(), edge(chip_nms(), pad=1)]
    op = nms_op(10, b"", [11], classes=80, name="net/nms")

    found = as_hef(hef_file(hef(net_flow_group(layers, [op], [(1, 11)], ["net/nms"]), extensions=FLOW))).groups[0]

    assert found.nms is not None and (found.nms.kind, found.nms.image_size) == ("iou", None)
    assert found.outputs[0].shape == (80, 5, 10)


def test_the_last_kind_wins(as_hef: AsHef) -> None:
    """A oneof that is set twice."""
    both = nms_hef(12, more=field(7, DETAILS[7]))

    found = as_hef(hef_file(both)).groups[0]

    assert found.nms is not None and found.nms.kind == "yolov5"


def test_image_sizes_that_are_no_whole_numbers(as_hef: AsHef) -> None:
    """Doubles in the file; shown as they are."""
    found = as_hef(hef_file(nms_hef(9, f64(1, 320.5) + f64(2, 640)))).groups[0]

    assert found.nms is not None and found.nms.to_json()["image_size"] == [320.5, 640]


def test_without_net_flow_operations_are_ignored(as_hef: AsHef) -> None:
    """The extension decides, not the presence of the messages."""
    raw = group(yolo_layers(), YOLO_ORDER)
    op = field(8, nms_op(12, YOLOV8, INPUTS))

    found = as_hef(hef_file(hef(raw + op))).groups[0]

    assert found.nms is None and len(found.outputs) == 6


def test_nms_of_transposed_layers(as_hef: AsHef) -> None:
    """Proposals are counted on what the host sees: as many."""
    layers = [input_layer(), *(edge(info(f"net/{role}", 8, 4, c, transposed=True), pad=i + 1)
                               for i, (role, c) in enumerate((("box", 64), ("cls", 2))))]  # fmt: skip
    op = nms_op(12, IMAGE + decoders(4, {1: 8, 2: 1, 3: 2}), [11, 12], more=field(13, 1))
    proto = hef(net_flow_group(layers, [op], [(1, 11), (2, 12)], ["net/nms"]), extensions=FLOW)

    assert as_hef(hef_file(proto)).groups[0].outputs[0].shape == (1, 32, 6)


# --- argmax and softmax -----------------------------------------------------------------------------------------------

LOGITS: list[tuple[str, int, bytes, dict[str, int], tuple[int, ...], str, str]] = [
    # what, kind, fields of the pad, layer, shape, order, dtype
    ("argmax", 0, b"", {}, (8, 8), "NHW", "uint8"),
    ("argmax of NHCW", 0, b"", {"fmt": 1}, (8, 8), "NHW", "uint8"),
    ("argmax of 16 bits", 0, b"", {"data_bytes": 2}, (8, 8), "NHW", "uint16"),
    ("argmax of a vector", 0, b"", {"fmt": 2}, (1,), "NC", "uint8"),
    ("argmax, format given", 0, field(3, 5) + field(8, 2), {}, (8, 8), "NHW", "uint16"),
    ("softmax", 1, b"", {}, (8, 8, 4), "NHWC", "float32"),
    ("softmax of NHCW", 1, b"", {"fmt": 1}, (8, 8, 4), "NHWC", "float32"),
    ("softmax of a vector", 1, b"", {"fmt": 2}, (4,), "NC", "float32"),
    ("softmax, format given", 1, field(3, 6) + field(8, 3), {}, (4,), "NC", "float32"),
]


@pytest.mark.parametrize(("kind", "pad", "layer", "shape", "order", "dtype"), [row[1:] for row in LOGITS],
                         ids=[row[0] for row in LOGITS])  # fmt: skip
def test_argmax_and_softmax(
    as_hef: AsHef, kind: int, pad: bytes, layer: dict[str, Any], shape: tuple[int, ...], order: str, dtype: str
) -> None:
    """Their output takes the layer's place; its format is the operation's own where the pad leaves it open."""
    (stream,) = as_hef(hef_file(logits_hef(kind, pad, **layer))).groups[0].outputs

    assert (stream.name, stream.shape, stream.order, stream.dtype) == ("net/logits", shape, order, dtype)


@pytest.mark.parametrize("kind", [0, 1])
def test_quantisation_of_argmax_and_softmax(as_hef: AsHef, kind: int) -> None:
    """That of the layer which they read, as HailoRT reports it, even where the pad has its own."""
    inherited = as_hef(hef_file(logits_hef(kind))).groups[0].outputs[0]
    own = as_hef(hef_file(logits_hef(kind, field(5, f32(1, 4) + f32(2, 0.25))))).groups[0].outputs[0]

    assert (inherited.scale, inherited.zero_point) == (0.5, 3.0)
    assert (own.scale, own.zero_point) == (0.5, 3.0)


# --- refusals ---------------------------------------------------------------------------------------------------------


def flow(ops: list[bytes], edges: Sequence[tuple[int, int]] = PADS, order: Sequence[str] = ()) -> bytes:
    """A net-flow file with these operations."""
    names = order or [*YOLO_ORDER, "net/nms"]
    return hef_file(hef(net_flow_group(yolo_layers(), ops, edges, names), extensions=FLOW))


def v8(**row: int) -> bytes:
    """A YOLOv8 with one decoder; keys are `f1` for field 1."""
    return flow([nms_op(12, IMAGE + decoders(4, {int(k[1:]): v for k, v in row.items()}), [11, 12, 13, 14])])


WRONG_OPS = [
    ("input not connected", flow([nms_op(12, YOLOV8, [99])]), "is not connected to an output"),
    ("connected to nothing", flow([nms_op(12, YOLOV8, [11])], [(77, 11)]), "is not connected to an output"),
    ("no kind", flow([nms_op(14, b"", INPUTS)]), "unknown kind"),
    ("no operation", flow([field(1, "empty")]), "unknown kind"),
    ("no output", flow([field(5, field(12, YOLOV8))]), "no output"),
    ("output name of 128 bytes", flow([nms_op(12, YOLOV8, INPUTS, name="n" * 128)]), "longer than 127"),
    ("decoder of a pad that is not there", v8(f1=8, f2=99, f3=2), "pad 99"),
    ("decoder of no input", v8(f1=8, f2=5, f3=6), "net/box32, which is not one of its inputs"),
    ("boxes and classes of two sizes", v8(f1=8, f2=1, f3=4), "differ in form"),
    ("boxes of two channels", v8(f1=8, f2=2, f3=1), "2 channels"),
    ("YOLOv5 of a pad that is not there", flow([nms_op(7, decoders(4, {5: 9}), INPUTS)]), "pad 9"),
    ("more heights than widths", flow([nms_op(7, decoders(4, {2: ANCHORS, 3: b"\x01", 5: 1}), INPUTS)]), "3 heights"),
    ("no anchors for a layer", flow([nms_op(7, decoders(4, *YOLOV5_ROWS[:5]), INPUTS, more=field(13, 1))]), "cls32"),
    ("threshold that is no number", flow([nms_op(12, YOLOV8, INPUTS, more=f64(1, float("nan")))]), "nan"),
    ("image of infinite size", flow([nms_op(9, f64(1, float("inf")), INPUTS)]), "inf"),
    ("argmax of two", flow([field(2, field(1, 11)) + field(2, field(1, 12)) + field(6, b"")]), "argmax"),
    ("argmax of nothing", flow([field(3, field(2, "net/nms")) + field(6, b"")]), "argmax"),
    ("argmax without output", flow([field(2, field(1, 11)) + field(6, b"")]), "argmax"),
    ("neither argmax nor softmax", hef_file(logits_hef(2)), "argmax"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "words"), [row[1:] for row in WRONG_OPS], ids=[row[0] for row in WRONG_OPS])
def test_wrong_operations_are_refused(as_hef: AsHef, data: bytes, words: str) -> None:
    """HailoRT refuses most of these; at the others it crashes."""
    with pytest.raises(ModelError, match=words) as caught:
        as_hef(data)

    assert "\n" not in str(caught.value)
