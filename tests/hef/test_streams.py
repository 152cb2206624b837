"""Boundary layers of a HEF as virtual streams: formats, shapes, types, quantisation, mux, planes, NMS on the chip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from hefkit.errors import ModelError
from tests.conftest import AsHef
from tests.helpers.hef_kinds import chip_nms, fused_hef, mux, mux_hef, one_output_hef, per_feature_hef, planes_hef
from tests.helpers.tiny_hef import PER_FEATURE, PERIPH, edge, f64, field, group, hef, hef_file, info, input_layer


def one_output(layer: bytes, name: str = "net/out", **kwargs: Any) -> bytes:
    """A file with one input and this output."""
    return hef_file(one_output_hef(layer, name, **kwargs))


FORMATS = [
    # compiler's number, order on the host, shape of an 8x4x3 layer
    (0, "NHWC", (8, 4, 3)),
    (13, "NHWC", (8, 4, 3)),
    (1, "NHWC", (8, 4, 3)),
    (2, "NC", (3,)),
    (3, "FCR", (8, 4, 3)),
    (4, "BAYER_RGB", (8, 4, 3)),
    (5, "NHW", (8, 4)),
    (7, "F8CR", (8, 4, 3)),
    (8, "NHWC", (8, 4, 3)),
    (11, "YUY2", (8, 4, 3)),
    (14, "NV12", (8, 4, 3)),
    (15, "NV21", (8, 4, 3)),
    (16, "I420", (8, 4, 3)),
]


@pytest.mark.parametrize(("number", "order", "shape"), FORMATS)
def test_formats(as_hef: AsHef, number: int, order: str, shape: tuple[int, ...]) -> None:
    """Device order -> host order (hailort_defaults.cpp), and what the shape then means."""
    (stream,) = as_hef(one_output(info("net/out", 8, 4, 3, fmt=number))).groups[0].outputs

    assert (stream.order, stream.shape) == (order, shape)


def test_sixteen_bits_scales_and_names(as_hef: AsHef) -> None:
    """data_bytes 2; float32 scale and zero point; all original names."""
    layer = info("net/out", 8, 4, 3, data_bytes=2, scale=0.1, zero_point=7, names=["/a/Conv", "/a/Sigmoid"])
    (stream,) = as_hef(one_output(layer)).groups[0].outputs

    assert stream.dtype == "uint16"
    assert (stream.scale, stream.zero_point) == (float(np.float32(0.1)), 7.0)
    assert stream.original_names == ("/a/Conv", "/a/Sigmoid")


@pytest.mark.parametrize(
    ("net", "layer", "fmt", "shape"),
    [
        (False, False, 0, (8, 4, 3)),
        (False, True, 0, (4, 8, 3)),
        (True, False, 0, (4, 8, 3)),
        (True, True, 0, (4, 8, 3)),  # not twice
        (True, True, 2, (3,)),  # NC has no height and width
    ],
)
def test_transposed_layers(as_hef: AsHef, net: bool, layer: bool, fmt: int, shape: tuple[int, ...]) -> None:
    """Height and width are stored swapped where the chip works on the transposed image."""
    out = edge(info("net/out", 8, 4, 3, fmt=fmt, transposed=layer))
    found = as_hef(hef_file(hef(group([input_layer(), out], ["net/out"], transposed=net))))

    assert found.groups[0].outputs[0].shape == shape


def test_transposed_leaves_of_a_mux(as_hef: AsHef) -> None:
    """Each layer under a mux says for itself whether it is transposed."""
    layer = mux(field(1, info("net/a", 8, 4, 3, transposed=True)), field(1, info("net/b", 8, 4, 3)))
    found = as_hef(hef_file(hef(group([input_layer(), edge(layer, kind=1)], ["net/a", "net/b"]))))

    assert [stream.shape for stream in found.groups[0].outputs] == [(4, 8, 3), (8, 4, 3)]


VECTORS: dict[str, Any] = {"scales": (0.5, 0.25, 2), "zero_points": (1, 2, 3)}


def test_scales_per_feature(as_hef: AsHef) -> None:
    """Lists of exactly C, and only with the extension."""
    out = info("net/out", 8, 8, 3, **VECTORS)
    vectors = as_hef(hef_file(per_feature_hef(out))).groups[0]
    scalars = as_hef(hef_file(per_feature_hef(out, extension=False))).groups[0]

    assert (vectors.outputs[0].scale, vectors.outputs[0].zero_point) == ((0.5, 0.25, 2.0), (1.0, 2.0, 3.0))
    assert vectors.inputs[0].to_json()["scale"] == [1.0, 1.0, 1.0]
    assert (scalars.outputs[0].scale, scalars.outputs[0].zero_point) == (0.5, 3.0)


def test_scales_per_feature_of_a_vector(as_hef: AsHef) -> None:
    """NC has as many as any other order; so has a transposed layer."""
    for extra in ({"fmt": 2}, {"transposed": True}):
        found = as_hef(hef_file(per_feature_hef(info("net/out", 1, 1, 3, **VECTORS, **extra))))
        assert found.groups[0].outputs[0].to_json()["zero_point"] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("features", "scales", "zero_points"),
    [(3, (1, 1), (0, 0)), (3, (1, 1, 1), (0, 0)), (2, (1, 1, 1), (0, 0, 0)), (3, (), ())],
    ids=["too few", "fewer zero points", "too many", "none"],
)
def test_scales_per_feature_that_do_not_match(
    as_hef: AsHef, features: int, scales: Sequence[float], zero_points: Sequence[float]
) -> None:
    """HailoRT: "Invalid quantization infos vector in HEF!"."""
    out = info("net/out", 8, 8, features, scales=scales, zero_points=zero_points)

    with pytest.raises(ModelError, match="features"):
        as_hef(hef_file(per_feature_hef(out)))


INPUTS_PER_FEATURE: list[tuple[str, Sequence[float], Sequence[float], str | None]] = [
    ("different scales", (1, 1, 2), (0, 0, 0), "different scales"),
    ("different zero points", (1, 1, 1), (0, 0, 1), "different scales"),
    ("equal as float32", (1, 1 + 1e-12, 1), (0, 0, 0), None),  # what HailoRT compares
    ("more than needed", (1, 1, 1, 7), (0, 0, 0, 7), None),  # HailoRT never looks there
    ("fewer than needed", (1, 1), (0, 0), "2 scales"),  # HailoRT reads behind the end
]


@pytest.mark.parametrize(
    ("scales", "zero_points", "words"),
    [row[1:] for row in INPUTS_PER_FEATURE],
    ids=[row[0] for row in INPUTS_PER_FEATURE],
)
def test_input_features_must_have_one_scale(
    as_hef: AsHef, scales: Sequence[float], zero_points: Sequence[float], words: str | None
) -> None:
    """The chip takes one scale for a picture."""
    image = edge(info("net/input", 8, 8, 3, scales=scales, zero_points=zero_points), output=False)
    out = edge(info("net/out", 8, 8, 1, scales=(1,), zero_points=(0,)))
    data = hef_file(hef(group([image, out], ["net/out"]), extensions=(PERIPH, PER_FEATURE)))

    if words is None:
        assert len(as_hef(data).groups[0].inputs[0].to_json()["scale"]) == 3
        return
    with pytest.raises(ModelError, match=words):
        as_hef(data)


def test_every_leaf_of_a_mux_is_an_output(as_hef: AsHef) -> None:
    """Also of a mux in a mux."""
    found = as_hef(hef_file(mux_hef()))

    assert [(s.name, s.shape[0]) for s in found.groups[0].outputs] == [("net/c", 2), ("net/b", 4), ("net/a", 8)]


def test_a_mux_of_more_than_is_there_is_refused(as_hef: AsHef) -> None:
    """An absurd count costs nothing."""
    layer = edge(mux(field(1, info("net/a", 8, 8, 2)), count=4_000_000_000), kind=1)

    with pytest.raises(ModelError, match="joins 4000000000"):
        as_hef(hef_file(hef(group([input_layer(), layer], ["net/a"]))))


def test_a_mux_of_something_else_is_refused(as_hef: AsHef) -> None:
    """Only layers and muxes can be joined."""
    with pytest.raises(ModelError, match="is not a layer"):
        as_hef(hef_file(hef(group([input_layer(), edge(mux(field(3, b"")), kind=1)], ["net/a"]))))


@pytest.mark.parametrize(
    ("fmt", "order", "features"), [(0, "NV12", (1, 2)), (1, "NV21", (1, 2)), (2, "I420", (1, 1, 1))]
)
def test_picture_in_planes(as_hef: AsHef, fmt: int, order: str, features: Sequence[int]) -> None:
    """A YUV input is one vstream of its planes; HailoRT gives it no quantisation."""
    found = as_hef(hef_file(planes_hef(fmt, features, [1] * len(features))))

    (stream,) = found.groups[0].inputs
    assert (stream.name, stream.order, stream.shape, stream.dtype) == ("net/planes", order, (64, 64, 3), "uint8")
    assert (stream.scale, stream.zero_point) == (None, None)
    assert stream.original_names == tuple(f"p{i}" for i in range(len(features)))


@pytest.mark.parametrize(("fmt", "data_bytes"), [(3, (1, 1)), (0, (1, 2))], ids=["unknown format", "two types"])
def test_planes_that_do_not_fit(as_hef: AsHef, fmt: int, data_bytes: Sequence[int]) -> None:
    """A fourth format, or planes of different types."""
    with pytest.raises(ModelError, match="planes of net/planes"):
        as_hef(hef_file(planes_hef(fmt, data_bytes=data_bytes)))


def test_nms_on_the_chip(as_hef: AsHef) -> None:
    """Boxes a class times chunks; float32 on the host."""
    found = as_hef(one_output(chip_nms())).groups[0]
    (stream,) = found.outputs

    assert (stream.order, stream.shape, stream.dtype) == ("HAILO_NMS_BY_CLASS", (80, 5, 60), "float32")
    assert (stream.scale, stream.zero_point, found.nms) == (1.0, 0.0, None)


def test_nms_on_the_chip_of_old_files(as_hef: AsHef) -> None:
    """Chunks are a later invention: none means one."""
    layer = info("net/out", 1, 1, 1, fmt=6, more_base=field(11, field(1, field(2, 80) + field(3, 20))))

    assert as_hef(one_output(layer)).groups[0].outputs[0].shape == (80, 5, 20)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_nms_on_the_chip_has_two_scales(as_hef: AsHef, count: int) -> None:
    """One for boxes, one for scores, where the file stores vectors."""
    numbers = b"".join(f64(5, 0) + f64(6, 1) for _ in range(count))
    data = hef_file(per_feature_hef(chip_nms() + field(3, numbers)))

    if count == 2:
        assert as_hef(data).groups[0].outputs[0].scale == 1.0
        return
    with pytest.raises(ModelError, match="two scales"):
        as_hef(data)


def test_parts_of_a_fused_nms_are_one_output(as_hef: AsHef) -> None:
    """Two layers on the chip, each with some classes, fused on the host."""
    (stream,) = as_hef(hef_file(fused_hef())).groups[0].outputs

    assert (stream.name, stream.shape, stream.original_names) == ("net/whole", (160, 5, 20), ("out",))


@pytest.mark.parametrize("wrong", [fused_hef("net/other"), fused_hef(fmt=0)], ids=["name", "format"])
def test_a_fused_nms_that_is_not_there(as_hef: AsHef, wrong: bytes) -> None:
    """Its parts name it, and it must be an NMS."""
    with pytest.raises(ModelError, match="that the file does not have"):
        as_hef(hef_file(wrong))


WRONG_LAYERS = [
    ("unknown format", info("net/out", 8, 8, 4, fmt=9), "format 9"),
    ("four bytes a value", info("net/out", 8, 8, 4, data_bytes=4), "4 bytes"),
    ("no bytes a value", info("net/out", 8, 8, 4, data_bytes=0), "0 bytes"),
    ("name of 128 bytes", info("n" * 128, 8, 8, 4), "longer than 127"),
    ("name of 64 letters in 128 bytes", info("\u00e9" * 64, 8, 8, 4), "longer than 127"),
    ("sys_index 256", info("net/out", 8, 8, 4, more_base=field(8, 256)), "sys_index"),
    ("engine 256", info("net/out", 8, 8, 4, more_base=field(16, 256)), "engine_id"),
    ("bytes 65536", info("net/out", 8, 8, 4, more_base=field(9, 65536)), "core_bytes"),
    ("buffers 65536", info("net/out", 8, 8, 4, more_base=field(10, 65536)), "core_buffers"),
    ("argmax on the host", info("net/out", 8, 8, 4, more_base=field(14, 1)), "argmax"),
    ("no buffer", field(1, "net/out") + field(2, field(7, 0) + field(12, 1)), "no buffer"),
    ("scale that is no number", info("net/out", 8, 8, 4, scale=float("nan")), "nan"),
    ("infinite zero point", info("net/out", 8, 8, 4, zero_point=float("inf")), "inf"),
    ("name that is no UTF-8", info("net/out", 8, 8, 4) + field(5, b"\xff\xfe"), "UTF-8"),
]  # fmt: skip


@pytest.mark.parametrize(("layer", "words"), [row[1:] for row in WRONG_LAYERS], ids=[row[0] for row in WRONG_LAYERS])
def test_wrong_layers_are_refused(as_hef: AsHef, layer: bytes, words: str) -> None:
    """As HailoRT does, or where it would crash."""
    with pytest.raises(ModelError, match=words) as caught:
        as_hef(one_output(layer))

    assert "\n" not in str(caught.value)


def test_accepted_at_the_limits(as_hef: AsHef) -> None:
    """The twin of the refusals: 127 bytes of name, the largest numbers that fit."""
    name = "n" * 127
    more = field(8, 255) + field(16, 255) + field(9, 65535) + field(10, 65535)

    assert as_hef(one_output(info(name, 8, 8, 4, more_base=more), name)).groups[0].outputs[0].name == name


def test_unknown_kinds_of_layers_are_refused(as_hef: AsHef) -> None:
    """Neither a layer, a mux nor planes; a connection that HailoRT 4.23 does not know."""
    for layer, words in (
        (field(1, 1) + field(2, 3), "unknown type 3"),
        (edge(info("a", 1, 1, 1), connection=4), "unknown type 4"),
    ):
        with pytest.raises(ModelError, match=words):
            as_hef(hef_file(hef(group([layer], ["a"]))))


def test_layers_inside_the_chip_are_no_streams(as_hef: AsHef) -> None:
    """Connections between contexts, to DDR and to a cache are passed over, whatever their format."""
    inner = [edge(info(f"net/inner{c}", 8, 8, 8, fmt=99), connection=c) for c in (1, 2, 3)]
    found = as_hef(hef_file(hef(group([input_layer(), edge(info("net/out", 8, 8, 4)), *inner], ["net/out"])))).groups[0]

    assert ([s.name for s in found.inputs], [s.name for s in found.outputs]) == (["net/input"], ["net/out"])
