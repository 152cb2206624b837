"""The reader of the wire format against Google's own: the same bytes, the same message or the same refusal.

The messages of hefkit.hef.schema become a descriptor of the protobuf package at run time; its parser then is a second
implementation of everything that hefkit.hef.wire does. The numbers in the schema are held against the reference.
"""

from __future__ import annotations

import io
import math
import random
import re
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from hefkit.errors import ModelError
from hefkit.hef.schema import SCHEMA, parse_proto
from hefkit.hef.wire import SCALARS, Field, Message, Reader
from tests.helpers.hef_kinds import KINDS
from tests.helpers.mutations import MUTATIONS
from tests.helpers.tiny_hef import field as encoded

FieldProto = descriptor_pb2.FieldDescriptorProto
TYPES = {
    "uint32": FieldProto.TYPE_UINT32,
    "uint64": FieldProto.TYPE_UINT64,
    "bool": FieldProto.TYPE_BOOL,
    "float": FieldProto.TYPE_FLOAT,
    "double": FieldProto.TYPE_DOUBLE,
    "string": FieldProto.TYPE_STRING,
}


def hef_class() -> Any:
    """The class of `Hef`, made by the protobuf package from our table."""
    file = descriptor_pb2.FileDescriptorProto(name="hefkit.proto", package="hefkit", syntax="proto3")
    for name, fields in SCHEMA.items():
        message = file.message_type.add(name=name)
        for oneof in sorted({field.oneof for field in fields.values()} - {""}):
            message.oneof_decl.add(name=oneof)
        for number, field in fields.items():
            added = message.field.add(name=field.name, number=number)
            added.label = FieldProto.LABEL_REPEATED if field.many else FieldProto.LABEL_OPTIONAL
            added.type = TYPES.get(field.kind, FieldProto.TYPE_MESSAGE)
            if field.kind not in TYPES:
                added.type_name = f".hefkit.{field.kind}"
            if field.oneof:
                added.oneof_index = [decl.name for decl in message.oneof_decl].index(field.oneof)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("hefkit.Hef"))


HEF = hef_class()


def plain_ours(message: Message, kind: str) -> dict[str, Any]:
    """Our message as dicts and lists."""
    result: dict[str, Any] = {}
    for field in SCHEMA[kind].values():
        if field.kind not in SCALARS:
            there = message.messages(field.name) if field.many else [message.message(field.name)]
            found = there if field.name in message else []
            result[field.name] = [plain_ours(m, field.kind) for m in found]
        elif field.kind == "string":
            result[field.name] = message.texts(field.name) if field.many else message.text(field.name)
        elif field.kind in ("float", "double"):
            result[field.name] = message.numbers(field.name) if field.many else message.real(field.name)
        else:
            result[field.name] = message.numbers(field.name) if field.many else message.number(field.name)
    return result


def plain_theirs(message: Any, kind: str) -> dict[str, Any]:
    """Google's message as dicts and lists."""
    result: dict[str, Any] = {}
    for field in SCHEMA[kind].values():
        value = getattr(message, field.name)
        if field.kind in SCALARS:
            result[field.name] = list(value) if field.many else value
        else:
            there = list(value) if field.many else [value] * message.HasField(field.name)
            result[field.name] = [plain_theirs(m, field.kind) for m in there]
    return result


def equal(ours: Any, theirs: Any) -> bool:
    """Deep equality; nan equals nan, and a bool is 0 or not."""
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(equal(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(equal, ours, theirs))
    if isinstance(theirs, bool):
        return bool(ours) == theirs
    return ours == theirs or (isinstance(ours, float) and math.isnan(ours) and math.isnan(theirs))


def check(data: bytes) -> bool:
    """Both read the same, or both refuse, or there is a group; True if both read."""
    try:
        theirs = HEF.FromString(data)
    except DecodeError:
        with pytest.raises(ModelError):
            Reader(io.BytesIO(data), SCHEMA).parse("Hef", 0, len(data))
        return False
    try:
        ours = Reader(io.BytesIO(data), SCHEMA).parse("Hef", 0, len(data))
    except ModelError as exc:
        assert "there is a group" in str(exc)  # the one thing that Google's library reads and ours does not
        return False
    assert equal(plain_ours(ours, "Hef"), plain_theirs(theirs, "Hef"))
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_whole_files(kind: str) -> None:
    """What our builders write byte by byte is what Google's library reads."""
    assert check(KINDS[kind]())


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.mutations)])
@pytest.mark.parametrize("kind", KINDS)
def test_mutations(kind: str, count: int) -> None:
    """Seeded; a good part of them is still legal. Not the huge ones: our bounds are narrower."""
    rng = random.Random(kind)
    good = KINDS[kind]()
    ways = [way for name, way in MUTATIONS.items() if name != "huge"]

    read = sum(check(rng.choice(ways)(good, rng)) for _ in range(count))

    assert count / 15 < read < count * 14 / 15


@settings(max_examples=500)
@given(st.binary(max_size=100))
def test_arbitrary_bytes(data: bytes) -> None:
    """Whatever hypothesis comes up with."""
    check(data)


@pytest.mark.parametrize("depth", [98, 99, 100, 101, 150])
def test_how_deep_messages_may_be(depth: int) -> None:
    """100 levels below the outermost."""
    messages = b""
    for level in range(depth, 0, -1):  # network_groups, then partial_network_groups and network_group in turns
        messages = encoded(2 if level == 1 else 1 if level % 2 else 7, messages)

    assert check(messages) == (depth <= 100)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("message A { int x 1; }", id="no number"),
        pytest.param("uint32 x = 1;", id="outside a message"),
        pytest.param("message A { uint32 x = 1; string y = 1; }", id="a number twice"),
        pytest.param("message A { uint32 x = 1; } }", id="one end too many"),
    ],
)
def test_wrong_schemas_are_refused(text: str) -> None:
    """A slip in the text shows at import."""
    with pytest.raises(ValueError, match="does not belong here"):
        parse_proto(text)


def test_a_schema_in_words() -> None:
    """Single and repeated fields, and a oneof in the middle."""
    schema = parse_proto(
        "message A { repeated B b = 1; oneof side { string x = 2; B y = 3; } bool z = 4; } message B { }"
    )

    assert schema == {
        "A": {
            1: Field("b", "B", many=True),
            2: Field("x", "string", oneof="side"),
            3: Field("y", "B", oneof="side"),
            4: Field("z", "bool"),
        },
        "B": {},
    }


# --- the table --------------------------------------------------------------------------------------------------------

ROW = re.compile(r"^\| `(\w+)` \| (.*) \|$", re.MULTILINE)
ENTRY = re.compile(r"(\d+) (\w+)(\[\])? (\w+)")
ALIASES = {"OptionalExtension": "Extension", "ProtoHefEdge": "Edge"}  # theirs -> ours


def test_numbers_and_types_are_the_reference_s(shared: Path) -> None:
    """Section 6 of hef-format.md, row by row: every field of ours that stands there has its name, number and type."""
    text = (shared / "reference/hef-format.md").read_text(encoding="utf-8").partition("## 6. Field numbers")[2]
    table = {name: {int(n): rest for n, *rest in ENTRY.findall(row)} for name, row in ROW.findall(text)}
    assert len(table) > 20
    checked = 0
    for message, fields in SCHEMA.items():
        for number, field in fields.items():
            if message not in table or number not in table[message]:
                continue
            name, many, kind = table[message][number]
            expected = (ALIASES.get(kind, kind), bool(many))
            if kind == "enum":
                expected = ("uint32", bool(many))
            assert (field.name, field.kind, field.many) == (name, *expected), f"{message} {number}"
            checked += 1
    assert checked > 90
