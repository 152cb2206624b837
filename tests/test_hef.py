"""The HEF reader: containers, checksums, protobuf, vstreams, operations, and files that mean harm."""

from __future__ import annotations

import builtins
import random
import re
import struct
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hefkit.errors import ModelError
from hefkit.hef import Hef, read_hef
from hefkit.hefstreams import VStream
from hefkit.xxh3 import Xxh3, new_xxh3
from tests.helpers.tiny_hef import (
    HAILO8L,
    NET_FLOW,
    PER_FEATURE,
    PERIPH,
    YOLO_ORDER,
    checksum,
    context,
    core,
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
    varint,
    yolo_hef,
    yolo_layers,
)

# xxhash 4.1.0, xxh3_64 of pattern(length)
XXH3 = [
    (0, 0x2D06800538D394C2),
    (1, 0xC44BDFF4074EECDB),
    (3, 0x3698B80191E625F9),
    (4, 0x2E4AC2F1C52157FC),
    (8, 0x60E1BAA91347A1F2),
    (9, 0x9C88FC32C37B56CB),
    (16, 0x8626370B70D8AC70),
    (17, 0xAA7A5F479409A664),
    (32, 0x1ED9BB5B41379435),
    (33, 0x38FF1A94BB31AC15),
    (65, 0x5D4779001B0690F8),
    (97, 0xC80A1025FFC8C91D),
    (128, 0x040E97756280237A),
    (129, 0xF0F4DC98CE461DFD),
    (144, 0x9BFAE94463011DE1),
    (240, 0x8ACECB90BE72B9C3),
    (241, 0x82D3EBF50A3E9C42),
    (257, 0x83BEFC0D38002E1B),
    (1023, 0xFE812964EF2122C0),
    (1024, 0xE0D9A4F5E97C2B48),
    (1025, 0x378D5047C554941D),
    (1088, 0xC9E71B469DA0AD11),
    (1089, 0x808FFC1743E296F9),
    (2048, 0x6720D1BF7D983F75),
    (2049, 0x5FBCA4F9CEC0D76D),
    (100003, 0x6E8B6AA2E29A7850),
]
VERSIONS = [0, 1, 2, 3]


def pattern(length: int) -> bytes:
    """Bytes without a short period."""
    i = np.arange(length)
    return ((i * 31 + (i >> 8) * 7) % 251).astype(np.uint8).tobytes()


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], Hef]:
    """Write bytes to a file and read it as a HEF."""

    def write_and_read(data: bytes) -> Hef:
        path = tmp_path / "toy.hef"
        path.write_bytes(data)
        return read_hef(path)

    return write_and_read


Read = Callable[[bytes], Hef]


def outputs(hef: Hef) -> dict[str, VStream]:
    """Outputs of the default group by name."""
    return {stream.name: stream for stream in hef.groups[0].outputs}


def one_output(layer: bytes, name: str = "net/out", **kwargs: Any) -> bytes:
    """A file with one input and this output."""
    return hef_file(hef(group([input_layer(), edge(layer)], [name]), **kwargs))


# --- XXH3 ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "expected"), XXH3)
@pytest.mark.parametrize("piece", [None, 1000, 1024])
def test_xxh3_equals_the_real_one(length: int, expected: int, piece: int | None) -> None:
    """Every branch of the algorithm, at once and in pieces, against numbers of the xxhash package."""
    data = pattern(length)
    hasher = Xxh3()

    for start in range(0, length, piece or length or 1):
        hasher.update(data[start : start + (piece or length)])

    assert hasher.intdigest() == expected


def test_xxh3_byte_by_byte() -> None:
    """Pieces shorter than a stripe, and a digest that is asked for more than once."""
    hasher = Xxh3()
    for value in pattern(1089):
        hasher.update(bytes([value]))

    assert [hasher.intdigest(), hasher.intdigest()] == [0x808FFC1743E296F9] * 2


def test_xxh3_of_30_mb_takes_seconds() -> None:
    """As large as a real HEF, without the package."""
    data = bytes(1 << 18)
    hasher = Xxh3()
    start = time.perf_counter()
    for _ in range(120):
        hasher.update(data)
    hasher.intdigest()

    assert time.perf_counter() - start < 10


def test_without_the_package_ours_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """`xxhash` is optional."""
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "xxhash":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)

    assert isinstance(new_xxh3(), Xxh3)


def test_the_package_agrees_where_it_is_installed() -> None:
    """All lengths around the limits of the branches."""
    xxhash = pytest.importorskip("xxhash")
    for length in [*range(0, 1100, 7), 2047, 2048, 2049, 70000]:
        hasher = Xxh3()
        hasher.update(pattern(length))
        assert hasher.intdigest() == xxhash.xxh3_64(pattern(length)).intdigest(), length


# --- the samples, against what Hailo's own tool printed --------------------------------------------------------------

LINE = re.compile(r"(Input|Output) +(\S+) (\w+), ([\w ]+)\((.*)\)")


def expected_streams(text: str) -> list[tuple[str, str, str, str, tuple[int, ...]]]:
    """(direction, name, dtype, order, shape) of every vstream that `hailortcli parse-hef` printed."""
    found = []
    for line in text.partition("VStream infos:")[2].splitlines():
        if match := LINE.match(line.strip()):
            direction, name, dtype, order, shape = match.groups()
            numbers = [int(n) for n in re.findall(r"\d+", shape)]
            nms = order.startswith("HAILO NMS")
            size = (numbers[0], 5, numbers[1]) if nms else tuple(numbers)
            found.append((direction, name, dtype.lower(), order.replace(" ", "_"), size))
    return found


@pytest.mark.parametrize("name", ["y8_v2", "y8_v3", "y8_8l", "y8_nms"])
def test_good_samples_read_as_hailo_reads_them(shared: Path, name: str) -> None:
    """Architecture, group, contexts, vstreams and NMS."""
    text = (shared / f"models/hef/{name}.expected.txt").read_text()
    found = read_hef(shared / f"models/hef/{name}.hef")
    (only,) = found.groups

    assert text.splitlines()[0] == f"Architecture HEF was compiled for: {found.arch.upper()}"
    assert text.splitlines()[1] == f"Network group name: {only.name}, Single Context" and only.contexts == 1
    streams = [("Input", s) for s in only.inputs] + [("Output", s) for s in only.outputs]
    assert [(d, s.name, s.dtype, s.order, s.shape) for d, s in streams] == expected_streams(text)
    assert found.digest_ok and found.sdk == "3.31.0"
    if "Operation" not in text:
        assert only.nms is None
        return
    nms = only.nms
    assert nms is not None and nms.image_size is not None
    for line in (
        f"Op {nms.kind.upper()}",
        f"Score threshold: {nms.score_threshold:.3f}",
        f"IoU threshold: {nms.iou_threshold:.2f}",
        f"Classes: {nms.classes}",
        f"Max bboxes per class: {nms.max_per_class}",
        f"Image height: {nms.image_size[0]}",
        f"Image width: {nms.image_size[1]}",
    ):
        assert line in text


@pytest.mark.parametrize("name", ["bad_empty", "bad_text", "bad_trunc"])
def test_bad_samples_are_refused(shared: Path, name: str) -> None:
    """What Hailo's tool does not open, we do not."""
    with pytest.raises(ModelError):
        read_hef(shared / f"models/hef/{name}.hef")


def test_flipped_sample_is_readable_with_a_wrong_digest(shared: Path) -> None:
    """One digit of an original name was changed: the rest can be shown."""
    found = read_hef(shared / "models/hef/bad_flip.hef")

    assert not found.digest_ok
    assert "/model.23/cv2.1/cv2.1.2/Conv" in found.groups[0].outputs[2].original_names


# --- containers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_every_container_version(read: Read, version: int) -> None:
    """Message, and behind it weights, where the version has a place for them."""
    extra = {1: {"ccws": b"w" * 99}, 2: {"ccws": b"w" * 99}, 3: {"ccws": b"w" * 99, "padding": 41, "additional": b"x"}}

    found = read(hef_file(yolo_hef(), version, **extra.get(version, {})))

    assert (found.container_version, found.digest_ok, found.arch, found.sdk) == (version, True, "hailo8", "3.33.1")
    assert [s.name for s in found.groups[0].outputs] == list(YOLO_ORDER)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_wrong_digest_is_told_but_not_refused(read: Read, version: int) -> None:
    """The rest of the file is readable."""
    digest = bytes({0: 16, 1: 4}.get(version, 8))

    assert not read(hef_file(yolo_hef(), version, digest=digest)).digest_ok


@pytest.mark.parametrize("version", VERSIONS)
def test_a_flipped_weight_is_seen(read: Read, version: int) -> None:
    """The digest covers the last byte as well."""
    data = hef_file(yolo_hef() + (field(3, b"mapping") if version == 0 else b""), version, **(
        {} if version == 0 else {"ccws": bytes(5000)}))  # fmt: skip

    found = read(data[:-1] + bytes([data[-1] ^ 1]))

    assert not found.digest_ok


def test_sizes_are_those_of_the_reference(read: Read) -> None:
    """32, 28, 44 and 56 bytes before the message (hef-format.md)."""
    proto = yolo_hef()

    assert [len(hef_file(proto, v)) - len(proto) for v in VERSIONS] == [32, 28, 44, 56]


def with_bytes(data: bytes, at: int, new: bytes) -> bytes:
    """Some bytes of a file replaced."""
    return data[:at] + new + data[at + len(new) :]


REFUSED = [
    ("empty", b"", "0 bytes"),
    ("magic", b"\x02" + hef_file(yolo_hef())[1:], "01 48 45 46"),
    ("version 4", with_bytes(hef_file(yolo_hef()), 4, struct.pack(">I", 4)), "version is 4"),
    ("one byte more", hef_file(yolo_hef()) + b"x", "header says"),
    ("one byte less", hef_file(yolo_hef())[:-1], "header says"),
    ("header only half", hef_file(yolo_hef())[:20], "inside its header"),
    ("more padding than it pads", with_bytes(hef_file(yolo_hef(), 3), 28, struct.pack(">I", 9)), "padding"),
    ("absurd message length", with_bytes(hef_file(yolo_hef()), 8, b"\xff" * 4), "header says"),
    ("absurd weights length", with_bytes(hef_file(yolo_hef()), 20, b"\xff" * 8), "header says"),
    ("git lfs", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    ("web page", b"<!DOCTYPE html><html></html>", "HTML"),
    ("nothing in it", hef_file(b""), "outdated"),
    ("no group", hef_file(hef()), "no network"),
    ("unknown chip", hef_file(hef(group(yolo_layers(), YOLO_ORDER), arch=77)), "number 77"),
    ("unknown extension", hef_file(hef(group(yolo_layers(), YOLO_ORDER), extensions=(26, 33))), "EXTENSION_33"),
    ("extension of Hailo's tests", hef_file(hef(group(yolo_layers(), YOLO_ORDER), extensions=(26, 7))), "EXTENSION_7"),
    ("no PERIPH extension", hef_file(hef(group(yolo_layers(), YOLO_ORDER), extensions=())), "outdated"),
    ("header version 0", hef_file(hef(group(yolo_layers(), YOLO_ORDER), header_version=0)), "outdated"),
    ("no input", hef_file(hef(group(yolo_layers()[1:], YOLO_ORDER))), "no input"),
    ("no output", hef_file(hef(group([input_layer()], ["x"]))), "no output"),
    ("output without a place", hef_file(hef(group(yolo_layers(), YOLO_ORDER[:-1]))), "net/cls32"),
    ("no order at all", hef_file(hef(group(yolo_layers(), []))), "no place"),
    ("two layers of a name", hef_file(hef(group([input_layer(), *yolo_layers()], YOLO_ORDER))), "two layers"),
    ("two groups of a name", hef_file(hef(*[group(yolo_layers(), YOLO_ORDER)] * 2)), "same name"),
    ("8L without layouts", hef_file(hef(group(yolo_layers(), YOLO_ORDER), arch=HAILO8L)), "layout"),
    ("unknown format", one_output(info("net/out", 8, 8, 4, fmt=9)), "format 9"),
    ("four bytes a value", one_output(info("net/out", 8, 8, 4, data_bytes=4)), "4 bytes"),
    ("name of 128 bytes", one_output(info("n" * 128, 8, 8, 4), "n" * 128), "longer than 127"),
    ("sys_index 256", one_output(info("net/out", 8, 8, 4, more_base=field(8, 256))), "sys_index"),
    ("engine 256", one_output(info("net/out", 8, 8, 4, more_base=field(16, 256))), "engine_id"),
    ("buffers 65536", one_output(info("net/out", 8, 8, 4, more_base=field(10, 65536))), "core_buffers"),
    ("argmax on the host", one_output(info("net/out", 8, 8, 4, more_base=field(14, 1))), "argmax"),
    ("scale that is no number", one_output(info("net/out", 8, 8, 4, scale=float("nan"))), "nan"),
    ("infinite zero point", one_output(info("net/out", 8, 8, 4, zero_point=float("inf"))), "inf"),
    ("unknown connection", hef_file(hef(group([edge(info("a", 1, 1, 1), connection=4)], ["a"]))), "connection"),
    ("unknown layer type", hef_file(hef(group([field(1, 1) + field(2, 3)], ["a"]))), "unknown type 3"),
    ("name that is no UTF-8", one_output(info("net/out", 8, 8, 4) + field(5, b"\xff\xfe")), "UTF-8"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "words"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refused_in_one_sentence(read: Read, data: bytes, words: str) -> None:
    """The sentence says what is wrong."""
    with pytest.raises(ModelError, match=re.escape(words)) as caught:
        read(data)

    assert "\n" not in str(caught.value)


def test_accepted_at_the_limits(read: Read) -> None:
    """The twin of the refusals: 127 bytes of name, the largest numbers that fit."""
    name = "n" * 127
    more = field(8, 255) + field(16, 255) + field(9, 65535) + field(10, 65535)

    assert read(one_output(info(name, 8, 8, 4, more_base=more), name)).groups[0].outputs[0].name == name


def test_folder_and_missing_file(tmp_path: Path) -> None:
    """The operating system's words, in our sentence."""
    for path in (tmp_path, tmp_path / "none.hef"):
        with pytest.raises(ModelError, match="cannot read"):
            read_hef(path)


# --- protobuf --------------------------------------------------------------------------------------------------------


def spoilt(extra: bytes) -> bytes:
    """A good file with bytes behind its message's fields, digest and lengths recomputed."""
    return hef_file(yolo_hef() + extra)


def nested(depth: int) -> bytes:
    """Partial network groups within each other."""
    message = b""
    for _ in range(depth):
        message = field(7, field(1, message))
    return message


WIRE = [
    ("field number 0", b"\x00\x01", "begins no field"),
    ("wire type 6", b"\x0e", "begins no field"),
    ("field number beyond 2^29", varint((1 << 29) << 3) + b"\x00", "begins no field"),
    ("number without an end", field(1, 0)[:1] + b"\xff" * 12, "reaches beyond|does not end|stands where"),
    ("varint without an end", varint(99 << 3) + b"\xff" * 12, "does not end"),
    ("length beyond the file", varint(99 << 3 | 2) + varint(1 << 62), "are left"),
    ("length of one too many", varint(99 << 3 | 2) + b"\x02x", "are left"),
    ("double cut off", varint(99 << 3 | 1) + b"1234567", "reaches beyond"),
    ("float cut off", varint(99 << 3 | 5) + b"123", "reaches beyond"),
    ("group without an end", varint(99 << 3 | 3), "reaches beyond|does not end"),
    ("end without a group", varint(99 << 3 | 4), "never began"),
    ("end of another group", varint(99 << 3 | 3) + varint(98 << 3 | 4), "never began"),
    ("groups in groups", varint(99 << 3 | 3) * 5000, "deeper"),
    ("messages in messages", field(2, nested(200)), "deeper"),
    ("group's length beyond its message", field(2, varint(1 << 3 | 2) + b"\x7f"), "are left"),
    ("list of half a double", field(2, field(3, field(3, field(2, field(3, field(3, field(6, b"1234"))))))), "whole"),
    ("text of a megabyte", field(1, field(3, "x" * (1 << 20))), "bytes long"),
]


@pytest.mark.parametrize(("extra", "words"), [row[1:] for row in WIRE], ids=[row[0] for row in WIRE])
def test_broken_protobuf_is_refused(read: Read, extra: bytes, words: str) -> None:
    """With a right digest, so that nothing but the protobuf reader can refuse it."""
    with pytest.raises(ModelError, match=words):
        read(spoilt(extra))


LEGAL = [
    ("unknown varint", field(99, 5)),
    ("unknown message", field(99, b"anything")),
    ("unknown double and float", f64(99, 1) + f32(98, 1)),
    ("unknown group", varint(99 << 3 | 3) + field(1, 2) + field(2, b"abc") + varint(99 << 3 | 4)),
    ("groups in groups", varint(99 << 3 | 3) * 50 + varint(99 << 3 | 4) * 50),
    ("known field of another type", field(2, 7)),
    ("header once more, merged", field(1, field(2, 1234))),
    ("known field in groups of nothing", varint(1 << 3 | 3) + varint(1 << 3 | 4)),
]


@pytest.mark.parametrize("extra", [row[1] for row in LEGAL], ids=[row[0] for row in LEGAL])
def test_legal_protobuf_is_accepted(read: Read, extra: bytes) -> None:
    """The twin: what a newer compiler may add is stepped over."""
    assert read(spoilt(extra)).to_json()["groups"] == read(hef_file(yolo_hef())).to_json()["groups"]


def test_numbers_may_come_packed_or_not(read: Read) -> None:
    """Two spellings of the same list of doubles."""
    packed = info("net/out", 8, 8, 3, scales=(0.5, 0.25, 2), zero_points=(1, 2, 3))
    loose = info("net/out", 8, 8, 3)
    loose += field(3, b"".join(f64(5, z) for z in (1, 2, 3)) + b"".join(f64(6, s) for s in (0.5, 0.25, 2)))
    first, second = (
        read(hef_file(hef(group([per_feature_input(), edge(layer)], ["net/out"]), extensions=(PERIPH, PER_FEATURE))))
        for layer in (packed, loose)
    )

    assert first.groups == second.groups


def test_a_million_fields_are_refused_quickly(read: Read) -> None:
    """Unknown fields, empty groups of the schema, and long texts: each of those counts as many values."""
    for extra in (field(99, 0) * 1_000_000, field(2, b"") * 1_000_000, field(2, field(4, "x" * 400_000) * 60)):
        data = spoilt(extra)
        start = time.perf_counter()
        with pytest.raises(ModelError, match="more than"):
            read(data)
        assert time.perf_counter() - start < 20  # 2 s here; slow machines exist


def test_large_weights_are_not_read_into_memory(read: Read) -> None:
    """Version 0 keeps the weights inside the message: they are stepped over, and hashed piece by piece."""
    data = hef_file(yolo_hef() + field(3, bytes(24 << 20)), 0)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        assert read(data).digest_ok
        grown = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()

    assert grown < 4 << 20


@pytest.mark.parametrize("version", VERSIONS)
def test_cut_off_at_every_byte(tmp_path: Path, version: int) -> None:
    """Never another exception than ours, whatever is missing."""
    data = hef_file(yolo_hef(), version, **({} if version == 0 else {"ccws": b"weights"}))
    path = tmp_path / "cut.hef"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(ModelError):
            read_hef(path)


def test_message_cut_off_at_every_byte(tmp_path: Path) -> None:
    """The same with lengths and digest recomputed: what still reads is whole, the rest is refused."""
    proto = yolo_hef()
    path = tmp_path / "cut.hef"
    for length in range(len(proto)):
        path.write_bytes(hef_file(proto[:length]))
        try:
            read_hef(path)
        except ModelError:
            continue
        raise AssertionError(f"read without its last {len(proto) - length} bytes")  # the extension comes last


HYPOTHESIS = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def read_or_refuse(path: Path, data: bytes) -> None:
    """Nothing but a result or a ModelError, in a second."""
    path.write_bytes(data)
    start = time.perf_counter()
    try:
        read_hef(path).to_json()
    except ModelError as exc:
        assert "\n" not in str(exc)
    assert time.perf_counter() - start < 5


@HYPOTHESIS
@given(st.binary(max_size=300), st.sampled_from([None, *VERSIONS]))
def test_random_bytes(tmp_path: Path, data: bytes, version: int | None) -> None:
    """As a file, and as the message of a good container."""
    read_or_refuse(tmp_path / "random.hef", data if version is None else hef_file(data, version))


@HYPOTHESIS
@given(st.data())
def test_mutations_with_digest_and_lengths_recomputed(tmp_path: Path, data: st.DataObject) -> None:
    """Bytes changed, inserted or removed anywhere in a good message."""
    proto = bytearray(data.draw(st.sampled_from([yolo_hef(), nms_hef(), partial_hef()])))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(proto) - 1))
        proto[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    read_or_refuse(tmp_path / "mutated.hef", hef_file(bytes(proto)))


MUTATIONS = 500


@pytest.mark.parametrize("name", ["y8_v2", "y8_v3", "y8_8l", "y8_nms"])
def test_mutated_samples(shared: Path, tmp_path: Path, name: str) -> None:
    """Seeded: each sample's message with one to eight bytes changed, inserted or removed, digest and lengths right."""
    data = (shared / f"models/hef/{name}.hef").read_bytes()
    start = {2: 44, 3: 56}[data[7]]
    good = data[start : start + int.from_bytes(data[8:12], "big")]
    rng = random.Random(name)
    for _ in range(MUTATIONS):
        proto = bytearray(good)
        for _ in range(rng.randint(1, 8)):
            at = rng.randrange(len(proto))
            proto[at : at + rng.randint(0, 2)] = rng.randbytes(rng.randint(0, 2))
        read_or_refuse(tmp_path / "mutated.hef", hef_file(bytes(proto)))


# --- vstreams --------------------------------------------------------------------------------------------------------


def per_feature_input() -> bytes:
    """An input with a scale for each of its three features, all equal as HailoRT wants."""
    return edge(info("net/input", 64, 64, 3, scales=(1, 1, 1), zero_points=(0, 0, 0)), output=False)


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
def test_formats(read: Read, number: int, order: str, shape: tuple[int, ...]) -> None:
    """Device order -> host order (hailort_defaults.cpp), and what the shape then means."""
    (stream,) = read(one_output(info("net/out", 8, 4, 3, fmt=number))).groups[0].outputs

    assert (stream.order, stream.shape) == (order, shape)


def test_sixteen_bits_scales_and_names(read: Read) -> None:
    """data_bytes 2; float32 scale and zero point; all original names."""
    layer = info("net/out", 8, 4, 3, data_bytes=2, scale=0.1, zero_point=7, names=["/a/Conv", "/a/Sigmoid"])
    (stream,) = read(one_output(layer)).groups[0].outputs

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
def test_transposed_layers(read: Read, net: bool, layer: bool, fmt: int, shape: tuple[int, ...]) -> None:
    """Height and width are stored swapped where the chip works on the transposed image."""
    out = edge(info("net/out", 8, 4, 3, fmt=fmt, transposed=layer))
    found = read(hef_file(hef(group([input_layer(), out], ["net/out"], transposed=net))))

    assert found.groups[0].outputs[0].shape == shape


def test_scales_per_feature(read: Read) -> None:
    """Lists of exactly C, and only with the extension."""
    out = edge(info("net/out", 8, 8, 3, scales=(0.5, 0.25, 2), zero_points=(1, 2, 3)))
    layers = [per_feature_input(), out]
    vectors = read(hef_file(hef(group(layers, ["net/out"]), extensions=(PERIPH, PER_FEATURE)))).groups[0]
    scalars = read(hef_file(hef(group(layers, ["net/out"])))).groups[0]

    assert (vectors.outputs[0].scale, vectors.outputs[0].zero_point) == ((0.5, 0.25, 2.0), (1.0, 2.0, 3.0))
    assert vectors.inputs[0].to_json()["scale"] == [1.0, 1.0, 1.0]
    assert (scalars.outputs[0].scale, scalars.outputs[0].zero_point) == (0.5, 3.0)


@pytest.mark.parametrize(
    ("features", "scales", "zero_points"),
    [(3, (1, 1), (0, 0)), (3, (1, 1, 1), (0, 0)), (2, (1, 1, 1), (0, 0, 0)), (3, (), ())],
    ids=["too few", "fewer zero points", "too many", "none"],
)
def test_scales_per_feature_that_do_not_match(
    read: Read, features: int, scales: Sequence[float], zero_points: Sequence[float]
) -> None:
    """HailoRT: "Invalid quantization infos vector in HEF!"."""
    out = edge(info("net/out", 8, 8, features, scales=scales, zero_points=zero_points))

    with pytest.raises(ModelError, match="features"):
        read(hef_file(hef(group([per_feature_input(), out], ["net/out"]), extensions=(PERIPH, PER_FEATURE))))


def test_input_features_must_have_one_scale(read: Read) -> None:
    """HailoRT refuses different ones."""
    image = edge(info("net/input", 8, 8, 3, scales=(1, 1, 2), zero_points=(0, 0, 0)), output=False)
    out = edge(info("net/out", 8, 8, 1, scales=(1,), zero_points=(0,)))

    with pytest.raises(ModelError, match="different scales"):
        read(hef_file(hef(group([image, out], ["net/out"]), extensions=(PERIPH, PER_FEATURE))))


def test_outputs_in_sorted_order_inputs_in_file_order(read: Read) -> None:
    """The list of names decides, not the place in the file; older files have it in the last context."""
    reverse = YOLO_ORDER[::-1]
    last = field(1, field(1, "net")) + field(3, context(*yolo_layers()))
    last += field(3, field(3, b"".join(field(5, n) for n in reverse)))

    assert [s.name for s in read(hef_file(hef(group(yolo_layers(), reverse)))).groups[0].outputs] == list(reverse)
    old = read(hef_file(hef(last))).groups[0]
    assert ([s.name for s in old.outputs], old.contexts) == (list(reverse), 2)


def test_layers_inside_the_chip_are_no_streams(read: Read) -> None:
    """Connections between contexts and to DDR are passed over, whatever their format."""
    inner = [edge(info(f"net/inner{c}", 8, 8, 8, fmt=99), connection=c) for c in (1, 2, 3)]

    found = read(hef_file(hef(group([*yolo_layers(), *inner], YOLO_ORDER))))

    assert list(outputs(found)) == list(YOLO_ORDER)


def test_the_last_group_is_the_default(read: Read) -> None:
    """HailoRT takes groups from the end of the file."""
    first, second = (group(yolo_layers(), YOLO_ORDER, name=name) for name in ("first", "second"))

    assert [g.name for g in read(hef_file(hef(first, second))).groups] == ["second", "first"]


def partial_hef(net_flow: bool = False) -> bytes:
    """A Hailo-8L HEF: two layouts; the one with the lower bitmap, which comes last, has 2 classes, the other 7."""
    parts = [(yolo_layers(classes=7), 3), (yolo_layers(classes=2), 1)]
    if not net_flow:
        layouts = b"".join(field(7, field(1, group(p, YOLO_ORDER)) + field(2, field(1, bits))) for p, bits in parts)
        return hef(layouts, arch=HAILO8L)
    layouts = b"".join(field(7, field(1, core(p)) + field(2, field(1, bits))) for p, bits in parts)
    outline = field(1, field(1, "net")) + b"".join(field(4, n) for n in YOLO_ORDER)
    return hef(outline + field(8, field(4, layouts)), arch=HAILO8L, extensions=(PERIPH, NET_FLOW))


@pytest.mark.parametrize("net_flow", [False, True])
def test_hailo8l_reads_the_layout_of_the_lowest_bitmap(read: Read, net_flow: bool) -> None:
    """In partial network groups, or in partial core ops."""
    found = read(hef_file(partial_hef(net_flow)))

    assert (found.arch, found.groups[0].name) == ("hailo8l", "net")
    assert outputs(found)["net/cls8"].shape == (8, 8, 2)


def mux(*leaves: bytes, count: int | None = None, name: str = "net/mux") -> bytes:
    """EdgeLayerMux; leaves are Edge messages."""
    base = field(7, 0) + field(12, 1) + field(13, b"")
    parts = b"".join(field(5, leaf) for leaf in leaves)
    return field(1, name) + field(2, base) + field(3, field(1, len(leaves) if count is None else count)) + parts


def test_every_leaf_of_a_mux_is_an_output(read: Read) -> None:
    """Also of a mux in a mux."""
    inner = mux(field(1, info("net/b", 4, 4, 2)), field(1, info("net/c", 2, 2, 2)), name="net/inner")
    layer = edge(mux(field(1, info("net/a", 8, 8, 2)), field(2, inner)), kind=1)

    found = read(hef_file(hef(group([input_layer(), layer], ["net/c", "net/b", "net/a"]))))

    assert [(s.name, s.shape[0]) for s in found.groups[0].outputs] == [("net/c", 2), ("net/b", 4), ("net/a", 8)]


def test_a_mux_of_more_than_is_there_is_refused(read: Read) -> None:
    """An absurd count costs nothing."""
    layer = edge(mux(field(1, info("net/a", 8, 8, 2)), count=4_000_000_000), kind=1)

    with pytest.raises(ModelError, match="joins 4000000000"):
        read(hef_file(hef(group([input_layer(), layer], ["net/a"]))))


def test_picture_in_planes(read: Read) -> None:
    """An NV12 input is one vstream of its planes; HailoRT gives it no quantisation."""
    planes = [info(f"net/p{i}", 64 >> i, 64 >> i, 1 + i, names=[f"p{i}"]) for i in range(2)]
    layer = field(1, "net/nv12") + field(2, 0) + b"".join(field(3, field(1, p)) for p in planes)
    layer += field(4, 64) + field(5, 64) + field(6, 3)
    out = edge(info("net/out", 8, 8, 2))

    found = read(hef_file(hef(group([edge(layer, output=False, kind=2), out], ["net/out"]))))

    (stream,) = found.groups[0].inputs
    assert (stream.name, stream.order, stream.shape, stream.dtype) == ("net/nv12", "NV12", (64, 64, 3), "uint8")
    assert (stream.scale, stream.zero_point, stream.original_names) == (None, None, ("p0", "p1"))


def chip_nms(more: bytes = b"", name: str = "net/out") -> bytes:
    """A layer with NMS on the chip: 80 classes, 20 boxes in each of 3 chunks."""
    nms = field(2, 80) + field(3, 20) + field(7, 3) + more
    return info(name, 1, 1, 1, fmt=6, more_base=field(11, field(1, nms)))


def test_nms_on_the_chip(read: Read) -> None:
    """Boxes a class times chunks; float32 on the host."""
    found = read(one_output(chip_nms())).groups[0]
    (stream,) = found.outputs

    assert (stream.order, stream.shape, stream.dtype) == ("HAILO_NMS_BY_CLASS", (80, 5, 60), "float32")
    assert (stream.scale, stream.zero_point, found.nms) == (1.0, 0.0, None)


def test_parts_of_a_fused_nms_are_one_output(read: Read) -> None:
    """Two layers on the chip, each with some classes, fused on the host."""
    parts = [edge(chip_nms(field(5, 1) + field(6, field(3, "net/whole")), f"net/part{i}")) for i in range(2)]
    whole = field(1, info("net/whole", 1, 1, 1, fmt=6, names=["out"])) + field(3, field(2, 160) + field(3, 20))
    fused = field(5, field(1, 1) + field(2, "net/whole") + field(3, whole))

    found = read(hef_file(hef(group([input_layer(), *parts], []) + fused)))

    (stream,) = found.groups[0].outputs
    assert (stream.name, stream.shape, stream.original_names) == ("net/whole", (160, 5, 20), ("out",))


# --- operations on the host ------------------------------------------------------------------------------------------

IMAGE = f64(1, 480) + f64(2, 640)
FLOW = (PERIPH, NET_FLOW)
PADS = [(i + 1, 11 + i) for i in range(6)]  # pad of the chip -> pad of the operation
INPUTS = [dst for _, dst in PADS]
YOLOV8 = IMAGE + b"".join(
    field(4, field(1, s) + field(2, 2 * i + 1) + field(3, 2 * i + 2)) for i, s in enumerate((8, 16, 32))
)


def nms_hef(member: int = 12, details: bytes = YOLOV8, **kwargs: Any) -> bytes:
    """A HEF whose raw heads go into an NMS on the host."""
    op = nms_op(member, details, INPUTS, **kwargs)
    return hef(net_flow_group(yolo_layers(), [op], PADS, ["net/nms"]), extensions=FLOW)


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
