NMS = [
    # number in the oneof, kind, image size, order
    (7, "yolov5", [480, 640], "HAILO_NMS_BY_CLASS"),
    (8, "yolox", [480, 640], "HAILO_NMS_BY_CLASS"),
    (9, "ssd", [480, 640], "HAILO_NMS_BY_CLASS"),
    (10, "iou", None, "HAILO_NMS_BY_CLASS"),
    (11, "yolov5seg", [480, 640], "HAILO_NMS_WITH_BYTE_MASK"),
    (12, "yolov8", [480, 640], "HAILO_NMS_BY_CLASS"),
]


@pytest.mark.parametrize(("member", "kind", "size", "order"), NMS, ids=[row[1] for row in NMS])
def test_nms_kinds(read: Read, member: int, kind: str, size: list[int] | None, order: str) -> None:
    """Kind, thresholds, classes, boxes, image; one output in place of the six layers."""
    details = {10: b"", 12: YOLOV8}.get(member, IMAGE)

    found = read(hef_file(nms_hef(member, details))).groups[0].to_json()

    expected = {
        "kind": kind,
        "classes": 2,
        "score_threshold": 0.25,
        "iou_threshold": 0.75,
        "max_per_class": 10,
        "image_size": size,
    }
    assert {key: found["nms"][key] for key in expected} == expected
    (stream,) = found["outputs"]
    assert (stream["name"], stream["shape"], stream["order"]) == ("net/nms", [2, 5, 10], order)
    assert (stream["dtype"], stream["scale"], stream["zero_point"]) == ("float32", 1, 0)


def test_background_class_is_no_class_of_the_output(read: Read) -> None:
    """The operation counts it, the vstream does not (nms_post_process.cpp)."""
    found = read(hef_file(nms_hef(9, IMAGE, classes=3, more=field(5, 1)))).groups[0]

    assert found.nms is not None and found.nms.classes == 3
    assert found.outputs[0].shape == (2, 5, 10)


def test_boxes_without_nms(read: Read) -> None:
    """bbox_decoding_only: 8x8 + 4x4 + 2x2 boxes of 4 + 2 values; 5 + 2, times anchors, for YOLOv5."""
    v8 = read(hef_file(nms_hef(more=field(13, 1)))).groups[0]
    anchors = b"".join(field(4, field(2, b"\x01\x02\x03") + field(3, b"\x01\x02\x03") + field(5, p)) for p in (1, 3, 5))
    v5 = read(hef_file(nms_hef(7, IMAGE + anchors, more=field(13, 1)))).groups[0]

    assert v8.nms is not None and v8.nms.boxes_only
    assert [(g.outputs[0].shape, g.outputs[0].order) for g in (v8, v5)] == [
        ((1, 84, 6), "NHWC"),
        ((1, 3 * 84, 7), "NHWC"),
    ]


def test_without_net_flow_operations_are_ignored(read: Read) -> None:
    """The extension decides, not the presence of the messages."""
    raw = group(yolo_layers(), YOLO_ORDER)
    op = field(8, nms_op(12, YOLOV8, INPUTS))

    found = read(hef_file(hef(raw + op))).groups[0]

    assert found.nms is None and len(found.outputs) == 6


@pytest.mark.parametrize(("kind", "shape", "dtype"), [(0, (8, 8), "uint8"), (1, (8, 8, 4), "float32")])
def test_argmax_and_softmax(read: Read, kind: int, shape: tuple[int, ...], dtype: str) -> None:
    """Their output takes the layer's place; its format is the operation's own where the pad leaves it open."""
    op = field(2, field(1, 11)) + field(3, field(2, "net/logits")) + field(6, field(1, kind))
    layers = [input_layer(), edge(info("net/out", 8, 8, 4), pad=1)]

    found = read(hef_file(hef(net_flow_group(layers, [op], [(1, 11)], ["net/logits"]), extensions=FLOW)))

    (stream,) = found.groups[0].outputs
    assert (stream.name, stream.shape, stream.dtype) == ("net/logits", shape, dtype)


def flow(ops: list[bytes], edges: Sequence[tuple[int, int]] = PADS, name: str = "net") -> bytes:
    """A net-flow file with these operations."""
    return hef_file(hef(net_flow_group(yolo_layers(), ops, edges, [*YOLO_ORDER, "net/nms"], name), extensions=FLOW))


WRONG_OPS = [
    ("input not connected", flow([nms_op(12, YOLOV8, [99])]), "connected to no output"),
    ("connected to nothing", flow([nms_op(12, YOLOV8, [11])], [(77, 11)]), "connected to no output"),
    ("no kind", flow([nms_op(14, b"", INPUTS)]), "unknown kind"),
    ("no operation", flow([field(1, "empty")]), "unknown kind"),
    ("no output", flow([field(5, field(12, YOLOV8))]), "no output"),
    ("decoder of a pad that is not there", flow([nms_op(12, field(4, field(2, 99)), INPUTS)]), "pad 99"),
    ("threshold that is no number", flow([nms_op(12, YOLOV8, INPUTS, more=f64(1, float("nan")))]), "nan"),
    ("image of infinite size", flow([nms_op(9, f64(1, float("inf")), INPUTS)]), "inf"),
    ("argmax of two", flow([field(2, field(1, 11)) + field(2, field(1, 12)) + field(6, b"")]), "argmax"),
    ("no part for the chip", hef_file(hef(group(yolo_layers(), YOLO_ORDER), extensions=FLOW)), "no part for the chip"),
    ("core op of another name", hef_file(hef(
        net_flow_group(yolo_layers(), [], [], YOLO_ORDER) + field(1, field(1, "other")), extensions=FLOW)), "the name"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "words"), [row[1:] for row in WRONG_OPS], ids=[row[0] for row in WRONG_OPS])
def test_wrong_operations_are_refused(read: Read, data: bytes, words: str) -> None:
    """Most of these crash or are refused in HailoRT as well."""
    with pytest.raises(ModelError, match=words):
        read(data)


def test_the_builder_knows_the_checksums(read: Read) -> None:
    """CRC-32 of its definition's check string, MD5 of nothing (RFC 1321), XXH3 of nothing: big endian in a file."""
    assert checksum(1, b"123456789") == bytes.fromhex("cbf43926")
    assert checksum(0, b"") == bytes.fromhex("d41d8cd98f00b204e9800998ecf8427e")
    assert checksum(2, b"") == bytes.fromhex("2d06800538d394c2")
