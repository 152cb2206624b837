"""Protobuf's wire format, read from a file with bounds on depth, counts and bytes, and so on memory.

Only the fields of a schema are kept; the rest, weights included, is skipped without being read. As protobuf does it: a
field of another wire type than its own is an unknown field, a single message that comes twice is merged, the last of a
`oneof` wins, repeated numbers may be packed or not (protobuf.dev/programming-guides/encoding). One thing is refused
that protobuf reads: groups (wire types 3 and 4), which no HEF has.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

from hefkit.errors import ModelError

VARINT, FIXED64, LENGTH, GROUP, GROUP_END, FIXED32 = range(6)  # wire types
SCALARS = {"uint32": VARINT, "uint64": VARINT, "bool": VARINT, "float": FIXED32, "double": FIXED64, "string": LENGTH}


class Field(NamedTuple):
    """One field of a message: `kind` is one of SCALARS or the name of a message; enums are uint32."""

    name: str
    kind: str
    many: bool = False
    oneof: str = ""


Schema = Mapping[str, Mapping[int, Field]]  # message -> number -> field


class Message:
    """A parsed message; a field that the file does not have has proto3's default."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}  # a list where the field is repeated

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def number(self, name: str) -> int:
        """An integer, a bool or an enum; 0 by default."""
        return int(self._values.get(name, 0))

    def real(self, name: str) -> float:
        """A float or double; 0 by default."""
        return float(self._values.get(name, 0.0))

    def text(self, name: str) -> str:
        """A string; empty by default."""
        return str(self._values.get(name, ""))

    def texts(self, name: str) -> list[str]:
        """A repeated string."""
        return list(self._values.get(name, ()))

    def numbers(self, name: str) -> list[float]:
        """A repeated number of any type."""
        return list(self._values.get(name, ()))

    def count(self, name: str) -> int:
        """How many values a repeated field has."""
        return len(self._values.get(name, ()))

    def message(self, name: str) -> Message:
        """A message; an empty one by default."""
        found: Message | None = self._values.get(name)
        return Message() if found is None else found

    def messages(self, name: str) -> list[Message]:
        """A repeated message."""
        return list(self._values.get(name, ()))

    def keep(self, field: Field, values: list) -> None:
        """Add to a repeated field, replace a single one."""
        if field.many:
            self._values.setdefault(field.name, []).extend(values)
        else:
            self._values[field.name] = values[-1]

    def drop(self, name: str) -> None:
        """Remove a field, because another one of its oneof was set."""
        self._values.pop(name, None)


MAX_DEPTH = 100  # protobuf's own limit on nested messages
MAX_BYTES = 1 << 19  # of one text or one list of packed numbers
# bounds on the whole file, each far more than a compiler writes; all together keep the memory below 50 MB
BOUNDS = {
    "fields": 400_000,  # skipped or kept, and numbers of packed lists: half a second of work
    "messages": 40_000,  # kept; up to 350 bytes of memory each
    "bytes of text": 2 << 20,  # kept; Python needs up to 4 bytes for one
}
LONGEST, LONGEST_TAG = 10, 5  # bytes of a number; bytes of a tag or a length, which have 32 bits
UINT32, UINT64 = (1 << 32) - 1, (1 << 64) - 1
WINDOW = 1 << 16  # bytes of the file in memory at a time

UNPACK = {FIXED64: struct.Struct("<d"), FIXED32: struct.Struct("<f")}


class Reader:
    """Parses one span of a file; `file` must be seekable, and positions are those of the file."""

    def __init__(self, file: BinaryIO, schema: Schema) -> None:
        self._file = file
        self._schema = schema
        self._base, self._window = 0, b""
        self._counts = dict.fromkeys(BOUNDS, 0)

    def parse(self, kind: str, start: int, end: int) -> Message:
        """The message at file[start:end]; raises ModelError with what is wrong."""
        message = Message()
        self._parse(message, kind, start, end, 0)
        return message

    def _parse(self, message: Message, kind: str, position: int, end: int, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise ModelError(f"messages are nested deeper than {MAX_DEPTH}")
        fields = self._schema[kind]
        while position < end:
            number, wire, position = self._tag(position, end)
            field = fields.get(number)
            if field is None or not _fits(field, wire):
                position = self._past(wire, position, end)
            elif field.kind in SCALARS:
                values, position = self._scalars(field, wire, position, end)
                if values:
                    _keep(message, fields, field, values)
            else:
                size, position = self._length(position, end)
                self._submessage(message, fields, field, position, position + size, depth)
                position += size

    def _submessage(
        self, message: Message, fields: Mapping[int, Field], field: Field, start: int, end: int, depth: int
    ) -> None:
        merged = not field.many and field.name in message
        inner = message.message(field.name) if merged else Message()
        if not merged:
            self._count("messages")
            _keep(message, fields, field, [inner])
        self._parse(inner, field.kind, start, end, depth + 1)

    def _scalars(self, field: Field, wire: int, position: int, end: int) -> tuple[list, int]:
        """The value of a scalar field, or the values of a packed one; and where it ends."""
        if wire == VARINT:
            value, position = self._varint(position, end)
            return [value & _mask(field)], position
        if wire in UNPACK:
            unpack = UNPACK[wire]
            return list(unpack.unpack(self._take(position, unpack.size, end))), position + unpack.size
        size, position = self._length(position, end)
        if size > MAX_BYTES:
            raise ModelError(f"a text or list is {size} bytes long, expected at most {MAX_BYTES}")
        data = self._take(position, size, end)
        if field.kind == "string":
            self._count("bytes of text", size)
            return _text(data), position + size
        values = _packed(field, data)
        self._count("fields", len(values))
        return values, position + size

    def _count(self, what: str, number: int = 1) -> None:
        """Add to a count, and refuse the file where it goes beyond its bound."""
        self._counts[what] += number
        if self._counts[what] > BOUNDS[what]:
            raise ModelError(f"it holds more than {BOUNDS[what]} {what}")

    def _past(self, wire: int, position: int, end: int) -> int:
        """Where an unknown field ends."""
        if wire == VARINT:
            return self._varint(position, end)[1]
        if wire in UNPACK:
            size = UNPACK[wire].size
        else:
            size, position = self._length(position, end)
        if size > end - position:
            raise ModelError("a field reaches beyond its message")
        return position + size

    def _tag(self, position: int, end: int) -> tuple[int, int, int]:
        """Field number, wire type, and where the value begins."""
        self._count("fields")
        tag, position = self._varint(position, end, LONGEST_TAG)
        number, wire = tag >> 3, tag & 7
        if not 0 < number < 1 << 29 or wire > FIXED32:
            raise ModelError(f"at byte {position - 1} there is not a field")
        if wire in (GROUP, GROUP_END):
            raise ModelError(f"at byte {position - 1} there is a group, which a HEF does not have")
        return number, wire, position

    def _length(self, position: int, end: int) -> tuple[int, int]:
        size, position = self._varint(position, end, LONGEST_TAG)
        if size > end - position:
            raise ModelError(f"a field has {size} bytes, but {end - position} are left")
        return size, position

    def _varint(self, position: int, end: int, longest: int = LONGEST) -> tuple[int, int]:
        """Up to 64 bits, seven a byte, lowest first."""
        at = position - self._base
        if position < end and 0 <= at < len(self._window) and self._window[at] < 0x80:  # most numbers have one byte
            return self._window[at], position + 1
        value = 0
        for i, byte in enumerate(self._take(position, min(longest, end - position), end)):
            value |= (byte & 0x7F) << 7 * i
            if byte < 0x80:
                return value & UINT64, position + i + 1
        raise ModelError("a number does not end")

    def _take(self, position: int, size: int, end: int) -> bytes:
        """file[position:position + size], read through the window; never beyond `end`."""
        if size > end - position:
            raise ModelError("a field reaches beyond its message")
        at = position - self._base
        if not 0 <= at <= len(self._window) - size:
            self._file.seek(position)
            self._window = self._file.read(max(WINDOW, size))
            self._base, at = position, 0
            if len(self._window) < size:
                raise ModelError("the file became shorter while it was read")
        return self._window[at : at + size]


def _keep(message: Message, fields: Mapping[int, Field], field: Field, values: list) -> None:
    """Store values; the other fields of the same oneof are dropped."""
    if field.oneof:
        for other in fields.values():
            if other.oneof == field.oneof and other.name != field.name:
                message.drop(other.name)
    message.keep(field, values)


def _fits(field: Field, wire: int) -> bool:
    """Whether this is the wire type of the field, or the packed form of its numbers."""
    own = SCALARS.get(field.kind, LENGTH)
    return wire == own or (wire == LENGTH and field.many)


def _mask(field: Field) -> int:
    """Bits of the field's type; a longer number loses its upper bits, as in protobuf."""
    return UINT32 if field.kind == "uint32" else UINT64


def _text(data: bytes) -> list[str]:
    try:
        return [data.decode("utf-8")]
    except UnicodeDecodeError as exc:  # protobuf refuses it as well
        raise ModelError("a name is not UTF-8") from exc


def _packed(field: Field, data: bytes) -> list:
    """Repeated numbers without tags between them."""
    wire = SCALARS[field.kind]
    if wire == VARINT:
        return [value & _mask(field) for value in _packed_varints(data)]
    if len(data) % UNPACK[wire].size:
        raise ModelError(f"a list of {len(data)} bytes does not hold a whole number of {field.kind}s")
    return [value for (value,) in UNPACK[wire].iter_unpack(data)]


def _packed_varints(data: bytes) -> list[int]:
    values, value, shift = [], 0, 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            values.append(value & UINT64)
            value = shift = 0
        elif shift >= 7 * LONGEST:
            break
    if shift:
        raise ModelError("a number does not end")
    return values
