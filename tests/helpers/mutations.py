"""Ways to damage a protobuf message, each a function (good message, random numbers) -> damaged message.

They use no code of hefkit: they find fields by walking the wire format. `hef_file` recomputes digest and lengths of the
container around the result, because otherwise the checksum would refuse nearly all mutations.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.helpers.tiny_hef import field, varint

Mutation = Callable[[bytes, random.Random], bytes]
MESSAGE_DEPTH = 8  # levels of nested messages that are searched for fields


class Place(NamedTuple):
    """A field of a message, at any depth."""

    start: int  # of its tag
    value: int  # where the number, or the length, begins
    body: int  # where the content begins
    end: int
    wire: int
    parents: tuple[tuple[int, int], ...]  # (where its length begins, where its content begins) of the messages around


@functools.lru_cache(maxsize=2)
def places(data: bytes) -> list[Place]:
    """All fields, and the fields of every content that can be read as a message."""
    return list(_places(data, 0, len(data), ()))


def _places(data: bytes, at: int, end: int, parents: tuple[tuple[int, int], ...]) -> Iterator[Place]:
    for place in _fields(data, at, end, parents):
        yield place
        if place.wire == 2 and len(parents) < MESSAGE_DEPTH and _is_message(data, place.body, place.end):
            yield from _places(data, place.body, place.end, (*parents, (place.value, place.body)))


def _fields(data: bytes, at: int, end: int, parents: tuple[tuple[int, int], ...]) -> Iterator[Place]:
    while at < end:
        tag, value = _number(data, at, end)
        body = value
        if tag & 7 == 2:
            size, body = _number(data, value, end)
            after = body + size
        else:
            after = {0: _number(data, value, end)[1], 1: value + 8, 5: value + 4}.get(tag & 7, end + 1)
        if after > end or not tag >> 3:
            raise ValueError("no field")
        yield Place(at, value, body, after, tag & 7, parents)
        at = after


def _is_message(data: bytes, at: int, end: int) -> bool:
    try:
        return at < end and bool(list(_fields(data, at, end, ())))
    except ValueError:
        return False


def _number(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = 0
    for i, byte in enumerate(data[at : min(at + 10, end)]):
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return value, at + i + 1
    raise ValueError("no number")


def spliced(data: bytes, start: int, end: int, new: bytes, parents: tuple[tuple[int, int], ...]) -> bytes:
    """Replace data[start:end] and correct the lengths of all messages around it."""
    grown = len(new) - (end - start)
    data = data[:start] + new + data[end:]
    for length_at, body in reversed(parents):
        size = varint(_number(data, length_at, body)[0] + grown)
        data = data[:length_at] + size + data[body:]
        grown += len(size) - (body - length_at)
    return data


# --- bytes ------------------------------------------------------------------------------------------------------------


def flip(data: bytes, rng: random.Random) -> bytes:
    """Flip one to eight bits."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def insert(data: bytes, rng: random.Random) -> bytes:
    """Insert some bytes anywhere."""
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.randint(1, 9)) + data[at:]


def delete(data: bytes, rng: random.Random) -> bytes:
    """Delete some bytes anywhere."""
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.randint(1, 9) :]


def truncate(data: bytes, rng: random.Random) -> bytes:
    """Cut the end off."""
    return data[: rng.randrange(len(data))]


def swap(data: bytes, rng: random.Random) -> bytes:
    """Exchange two sections."""
    a, b, c, d = sorted(rng.randrange(len(data) + 1) for _ in range(4))
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


# --- fields -----------------------------------------------------------------------------------------------------------

ABSURD = [0, 1, 127, 128, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1]


def inflate(data: bytes, rng: random.Random) -> bytes:
    """Make a length larger or smaller than its content."""
    place = rng.choice([p for p in places(data) if p.wire == 2])
    size = rng.choice([*ABSURD, place.end - place.body + rng.choice((-1, 1))])
    return spliced(data, place.value, place.body, varint(size), place.parents)


def pad_number(data: bytes, rng: random.Random) -> bytes:
    """Write a number or a length in more bytes than it needs, up to eleven."""
    place = rng.choice([p for p in places(data) if p.wire in (0, 2)])
    stop = place.end if place.wire == 0 else place.body
    number = bytearray(data[place.value : stop])
    number[-1] |= 0x80
    number += b"\x80" * rng.randint(0, 9) + b"\x00"
    return spliced(data, place.value, stop, bytes(number), place.parents)


def replace_number(data: bytes, rng: random.Random) -> bytes:
    """Replace an enum, a size or an index by an absurd one."""
    place = rng.choice([p for p in places(data) if p.wire == 0])
    return spliced(data, place.value, place.end, varint(rng.choice(ABSURD)), place.parents)


def repeat(data: bytes, rng: random.Random) -> bytes:
    """Repeat a field, up to a thousand times."""
    place = rng.choice(places(data))
    times = rng.choice((1, 2, 10, 1000))
    copies = data[place.start : place.end] * min(times, 1 + 200_000 // (place.end - place.start))
    return spliced(data, place.end, place.end, copies, place.parents)


def duplicate_elsewhere(data: bytes, rng: random.Random) -> bytes:
    """Copy a field to a place where it does not belong."""
    all_places = places(data)
    source, target = rng.choice(all_places), rng.choice(all_places)
    return spliced(data, target.end, target.end, data[source.start : source.end], target.parents)


def swap_fields(data: bytes, rng: random.Random) -> bytes:
    """Exchange two fields of the outermost message."""
    top = [place for place in places(data) if not place.parents]
    first, second = sorted(rng.choices(top, k=2))
    if first == second:
        return data
    return b"".join((data[: first.start], data[second.start : second.end], data[first.end : second.start],
                     data[first.start : first.end], data[second.end :]))  # fmt: skip


def drop(data: bytes, rng: random.Random) -> bytes:
    """Remove a field."""
    place = rng.choice(places(data))
    return spliced(data, place.start, place.end, b"", place.parents)


def rename(data: bytes, rng: random.Random) -> bytes:
    """Give a field another number or another wire type."""
    place = rng.choice(places(data))
    tag = varint(rng.randint(1, 20) << 3 | rng.choice((place.wire, rng.randrange(8))))
    return spliced(data, place.start, place.value, tag, place.parents)


def nest(data: bytes, rng: random.Random) -> bytes:
    """Nest a message in itself, or groups in groups, up to thousands of times."""
    place = rng.choice([p for p in places(data) if p.wire == 2])
    number, depth = _number(data, place.start, place.value)[0] >> 3, rng.choice((1, 5, 60, 99, 100, 101, 500))
    if rng.random() < 0.3:
        groups = varint(number << 3 | 3) * depth * 10 + varint(number << 3 | 4) * depth * 10
        return spliced(data, place.end, place.end, groups, place.parents)
    bomb = data[place.body : place.end]
    for _ in range(depth):
        bomb = field(rng.choice((number, rng.randint(1, 12))), bomb)
    return spliced(data, place.body, place.end, bomb, (*place.parents, (place.value, place.body)))


def huge(data: bytes, rng: random.Random) -> bytes:
    """Add very many small fields: empty messages, numbers, texts, a packed list, unknown fields."""
    place = rng.choice([p for p in places(data) if p.wire == 2])
    number = rng.choice((_number(data, place.start, place.value)[0] >> 3, rng.randint(1, 20), 99))
    many = rng.choice((1_000, 20_000, 120_000))
    thing = rng.choice((
        field(number, b"") * many,
        field(number, b"\x08\x01") * (many // 2),
        field(number, rng.choice(("x", "\U0001f600")) * 300) * (many // 100),
        field(number, b"\x01" * many),
        field(number, rng.choice(ABSURD)) * many,
    ))  # fmt: skip
    return spliced(data, place.end, place.end, thing, place.parents)


MUTATIONS: dict[str, Mutation] = {
    function.__name__: function
    for function in (flip, insert, delete, truncate, swap, inflate, pad_number, replace_number, repeat,
                     duplicate_elsewhere, swap_fields, drop, rename, nest, huge)
}  # fmt: skip
