"""Protobuf's wire format: what is legal and what is broken, bounds, and messages that hypothesis makes up.

Every broken message stands in a good file with digest and lengths recomputed, so that nothing but the reader of the
wire format can refuse it. What Google's own library says of such bytes is in test_schema.py.
"""

from __future__ import annotations

import io
import struct
import subprocess
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hefkit.errors import ModelError
from hefkit.hef import wire
from hefkit.hef.file import read_hef
from hefkit.hef.wire import Field, Message, Reader
from tests.conftest import AsHef
from tests.helpers import hef_worker
from tests.helpers.hef_kinds import per_feature_hef
from tests.helpers.tiny_hef import edge, f32, f64, field, group, hef, hef_file, info, input_layer, varint, yolo_hef


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
    ("field number 0", b"\x00\x01", "there is not a field"),
    ("wire type 6", b"\x0e", "there is not a field"),
    ("field number beyond 2^29", varint((1 << 29) << 3) + b"\x00", "there is not a field"),
    ("number without an end", field(1, 0)[:1] + b"\xff" * 12, "reaches beyond|does not end|stands where"),
    ("varint without an end", varint(99 << 3) + b"\xff" * 12, "does not end"),
    ("length beyond the file", varint(99 << 3 | 2) + varint(1 << 30), "are left"),
    ("length of one too many", varint(99 << 3 | 2) + b"\x02x", "are left"),
    ("message that ends after a tag", field(2, b"\x08") + field(4, 0), "does not end"),
    ("message that ends before a length", field(2, b"\x0a") + field(4, 0), "does not end"),
    ("double cut off", varint(99 << 3 | 1) + b"1234567", "reaches beyond"),
    ("float cut off", varint(99 << 3 | 5) + b"123", "reaches beyond"),
    ("unknown group", varint(99 << 3 | 3) + field(1, 2) + varint(99 << 3 | 4), "there is a group"),
    ("known field in a group", varint(1 << 3 | 3) + varint(1 << 3 | 4), "there is a group"),
    ("end without a group", varint(99 << 3 | 4), "there is a group"),
    ("groups in groups", varint(99 << 3 | 3) * 5000, "there is a group"),
    ("messages in messages", field(2, nested(200)), "deeper"),
    ("group's length beyond its message", field(2, varint(1 << 3 | 2) + b"\x7f"), "are left"),
    ("tag of six bytes", b"\x88\x80\x80\x80\x80\x00\x01", "does not end"),
    ("length of six bytes", varint(99 << 3 | 2) + b"\x81\x80\x80\x80\x80\x00x", "does not end"),
    ("name that is no UTF-8", field(1, field(3, b"\xff\xfe")), "UTF-8"),
    ("list of half a double", field(2, field(3, field(3, field(2, field(3, field(3, field(6, b"1234"))))))), "whole"),
    ("text of a megabyte", field(1, field(3, "x" * (1 << 20))), "bytes long"),
]


@pytest.mark.parametrize(("extra", "words"), [row[1:] for row in WIRE], ids=[row[0] for row in WIRE])
def test_broken_protobuf_is_refused(as_hef: AsHef, extra: bytes, words: str) -> None:
    """With a right digest, so that nothing but the protobuf reader can refuse it."""
    with pytest.raises(ModelError, match=words):
        as_hef(spoilt(extra))


LEGAL = [
    ("unknown varint", field(99, 5)),
    ("unknown message", field(99, b"anything")),
    ("unknown double and float", f64(99, 1) + f32(98, 1)),
    ("known field of another type", field(2, 7)),
    ("unknown number of ten bytes", varint(99 << 3) + b"\xff" * 9 + b"\x01"),
    ("tag and length longer than they must be", b"\x9a\x86\x80\x80\x00" + b"\x81\x80\x80\x80\x00" + b"x"),
    ("architecture with bits beyond 32", field(1, varint(1 << 3) + varint(1 << 32))),
    ("header once more, merged", field(1, field(2, 1234))),
]


@pytest.mark.parametrize("extra", [row[1] for row in LEGAL], ids=[row[0] for row in LEGAL])
def test_legal_protobuf_is_accepted(as_hef: AsHef, extra: bytes) -> None:
    """The twin: what a newer compiler may add is stepped over."""
    assert as_hef(spoilt(extra)).to_json()["groups"] == as_hef(hef_file(yolo_hef())).to_json()["groups"]


def test_numbers_may_come_packed_or_not(as_hef: AsHef) -> None:
    """Two spellings of the same list of doubles."""
    packed = info("net/out", 8, 8, 3, scales=(0.5, 0.25, 2), zero_points=(1, 2, 3))
    loose = info("net/out", 8, 8, 3)
    loose += field(3, b"".join(f64(5, z) for z in (1, 2, 3)) + b"".join(f64(6, s) for s in (0.5, 0.25, 2)))
    first, second = (as_hef(hef_file(per_feature_hef(layer))) for layer in (packed, loose))

    assert first.groups == second.groups


HUGE = [
    ("empty groups", field(2, b"") * 101_000),
    ("extensions", field(5, field(1, 26)) * 70_000),
    ("texts in a list", field(2, field(4, "x" * 400) * 13_000)),
    ("long texts", field(2, field(4, "x" * 400_000) * 14)),
    ("long texts that Python keeps four bytes a character of", field(2, field(4, "\U0001f600" + "x" * 400_000) * 14)),
    ("a packed list", field(2, field(8, field(5, field(7, field(4, field(2, b"\x01" * 500_000) * 2)))))),
]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """A process that only reads HEFs, one for all: its peak is at least what the largest of them takes."""
    good = tmp_path_factory.mktemp("good") / "good.hef"
    good.write_bytes(hef_file(yolo_hef()))
    with hef_worker.started(good) as process:
        yield process
        process.terminate()


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured by Linux's /proc")
@pytest.mark.parametrize("extra", [row[1] for row in HUGE], ids=[row[0] for row in HUGE])
def test_absurd_counts_are_refused_in_bounded_memory(
    tmp_path: Path, reader: subprocess.Popen[str], extra: bytes
) -> None:
    """A file of some megabytes must not become hundreds of them."""
    (tmp_path / "huge.hef").write_bytes(spoilt(extra))

    reply = hef_worker.ask(reader, tmp_path / "huge.hef")

    assert reply["outcome"] == "refused" and "more than" in reply["words"]
    assert reply["grown_mb"] < 25


def below_every_bound(share: float) -> bytes:
    """A message that stays just below this share of every bound of the reader."""
    messages = field(5, field(1, 26) + field(2, "ab")) * int(39_000 * share)
    wide = "\U0001f600" + "x" * int(400_000 * share)  # Python keeps it in four bytes a character
    texts = field(2, field(1, field(1, "net")) + field(4, "ab") * int(200_000 * share) + field(4, wide) * 3)
    return field(1, field(4, 1)) + messages + texts


def test_all_bounds_at_once(as_hef: AsHef) -> None:
    """A file that stays just below every bound is read."""
    with pytest.raises(ModelError, match="no input"):
        as_hef(hef_file(below_every_bound(1)))


def test_memory_is_bounded_by_the_bounds(as_hef: AsHef, monkeypatch: pytest.MonkeyPatch) -> None:
    """All bounds at once take below 50 MB; a tenth of them is measured, as that is slow, and takes below 5."""
    for name, bound in wire.BOUNDS.items():
        monkeypatch.setitem(wire.BOUNDS, name, bound // 10)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        with pytest.raises(ModelError, match="no input"):
            as_hef(hef_file(below_every_bound(0.1)))
        grown = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()

    assert 1.5 * (1 << 20) < grown < 5 << 20


def test_absurd_counts_of_unknown_fields_are_refused(as_hef: AsHef) -> None:
    """Nothing of them is kept, but stepping over them takes time."""
    with pytest.raises(ModelError, match="more than"):
        as_hef(spoilt(field(99, 0) * 410_000))


def test_many_layers_are_accepted(as_hef: AsHef) -> None:
    """The twin of the absurd counts: far more than a compiler writes."""
    names = [f"net/out{i}" for i in range(5000)]
    layers = [edge(info(name, 1, 1, 1)) for name in names]

    assert len(as_hef(hef_file(hef(group([input_layer(), *layers], names)))).groups[0].outputs) == len(names)


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


# --- a reader of a small schema, against values that hypothesis makes up ----------------------------------------------

SCHEMA = {
    "Node": {
        1: Field("count", "uint32"),
        2: Field("big", "uint64"),
        3: Field("name", "string"),
        4: Field("weight", "float"),
        5: Field("value", "double"),
        6: Field("sizes", "uint32", many=True),
        7: Field("values", "double", many=True),
        8: Field("texts", "string", many=True),
        9: Field("left", "Node", oneof="side"),
        10: Field("right", "Node", oneof="side"),
        11: Field("children", "Node", many=True),
        12: Field("inner", "Node"),
    }
}
FLOATS = st.floats(allow_nan=False, width=32)
DOUBLES = st.floats(allow_nan=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def parse(data: bytes) -> Message:
    """The message that fills a file."""
    return Reader(io.BytesIO(data), SCHEMA).parse("Node", 0, len(data))


def scalars(node: dict[str, Any]) -> list[bytes]:
    """Every scalar and list of a node on the wire; lists packed or not, as the node says."""
    plain: list[bytes] = [
        field(1, node["count"]), field(2, node["big"]), field(3, node["name"]),
        f32(4, node["weight"]), f64(5, node["value"]),
    ]  # fmt: skip
    if node["packed"]:
        plain.append(field(6, b"".join(map(varint, node["sizes"]))))
        plain.append(field(7, struct.pack(f"<{len(node['values'])}d", *node["values"])))
    else:
        plain += [field(6, size) for size in node["sizes"]] + [f64(7, value) for value in node["values"]]
    return plain + [field(8, text) for text in node["texts"]]


def encoded(node: dict[str, Any]) -> bytes:
    """A node on the wire, with an unknown field between any two, and `inner` in two halves that must be merged."""
    parts = scalars(node) + [field(11, encoded(child)) for child in node["children"]]
    if node["side"] is not None:
        number, child = node["side"]
        parts += [field(19 - number, b""), field(number, encoded(child))]  # the other one comes first, and is dropped
    if node["inner"] is not None:
        whole = scalars(node["inner"])
        parts += [field(12, b"".join(whole[:3])), field(12, b"".join(whole[3:]))]
    return node["unknown"].join(parts)


def check(message: Message, node: dict[str, Any]) -> None:
    """What was read is what was written."""
    assert (message.number("count"), message.number("big")) == (node["count"], node["big"])
    assert (message.text("name"), message.real("weight"), message.real("value")) == (
        node["name"], node["weight"], node["value"])  # fmt: skip
    assert (message.numbers("sizes"), message.numbers("values")) == (node["sizes"], node["values"])
    assert (message.texts("texts"), message.count("texts")) == (node["texts"], len(node["texts"]))
    assert message.count("children") == len(node["children"])
    for child, expected in zip(message.messages("children"), node["children"], strict=True):
        check(child, expected)
    assert [name in message for name in ("left", "right")] == [
        node["side"] is not None and node["side"][0] == number for number in (9, 10)
    ]
    if node["side"] is not None:
        check(message.message("left" if node["side"][0] == 9 else "right"), node["side"][1])
    if node["inner"] is not None:
        check(message.message("inner"), {**node["inner"], "children": [], "side": None, "inner": None})


UNKNOWN = st.sampled_from([b"", field(99, 7), field(98, b"abc"), f64(97, 1), f32(96, 1)])


def nodes(depth: int) -> st.SearchStrategy[dict[str, Any]]:
    """Nodes with at most so many generations below them."""
    below = nodes(depth - 1) if depth else st.nothing()
    return st.fixed_dictionaries(
        {
            "count": st.integers(0, 2**32 - 1),
            "big": st.integers(0, 2**64 - 1),
            "name": TEXTS,
            "weight": FLOATS,
            "value": DOUBLES,
            "sizes": st.lists(st.integers(0, 2**32 - 1), max_size=3),
            "values": st.lists(DOUBLES, max_size=3),
            "texts": st.lists(TEXTS, max_size=2),
            "packed": st.booleans(),
            "unknown": UNKNOWN,
            "children": st.lists(below, max_size=2 if depth else 0),
            "side": st.none() | st.tuples(st.sampled_from([9, 10]), below),
            "inner": st.none() | below,
        }
    )


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(nodes(2))
def test_round_trip(node: dict[str, Any]) -> None:
    """Nested, merged, packed or not, with unknown fields in between: what was written is what is read."""
    check(parse(encoded(node)), node)


@settings(max_examples=500)
@given(st.binary(max_size=200))
def test_arbitrary_bytes(data: bytes) -> None:
    """A message, or one of our own sentences."""
    try:
        parse(data)
    except ModelError as exc:
        assert "\n" not in str(exc)
