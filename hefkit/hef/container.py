"""The outer layer of a HEF: header, lengths, checksum; container versions 0 to 3.

    [header, big endian][protobuf message][version 3: zeros][weights][version 3: additional info]

As HailoRT 4.23 reads it (hef_internal.hpp and hef.cpp): lengths are checked before the digest, and the digest covers
everything after the header. Two things differ, for clearer errors: the magic is checked before the version, and padding
that is larger than its section is refused, which HailoRT does only with a HEF in memory.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from hefkit.errors import ModelError

MAGIC = b"\x01HEF"
COMMON = struct.Struct(">4sII")  # magic, version, bytes of the protobuf message
PIECE = 1 << 18  # bytes that are hashed at a time
MAX_PROTO = (1 << 31) - 1  # protobuf's own limit

# first bytes of files of other kinds
LOOKS_LIKE = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself; fetch it with: git lfs pull"),
    (b"<", "an HTML or XML text, perhaps an error page; download the HEF again"),
    (b"PK\x03\x04", "a ZIP archive; unpack it"),
    (b"\x1f\x8b", "a gzip archive; unpack it"),
)


@dataclass(frozen=True)
class Layout:
    """The rest of a version's header."""

    rest: struct.Struct
    names: tuple[str, ...]


LAYOUTS = {
    0: Layout(struct.Struct(">I16s"), ("reserved", "digest")),  # MD5
    1: Layout(struct.Struct(">4sQI"), ("digest", "ccws", "reserved")),  # CRC-32
    2: Layout(struct.Struct(">8sQQQ"), ("digest", "ccws", "reserved", "reserved")),  # XXH3-64
    3: Layout(
        struct.Struct(">8sQIQ8sQ"), ("digest", "ccws", "padding", "additional", "proto_digest", "reserved")
    ),  # XXH3-64, since HailoRT 5.2 a second one
}


@dataclass(frozen=True)
class Container:
    """The header, after its lengths were compared with the size of the file."""

    version: int
    header_size: int
    proto_size: int
    size: int  # bytes of the whole file
    digest: bytes  # as the header says
    proto_digest: bytes = b""  # of the protobuf message alone; empty where the header has none

    @property
    def proto_span(self) -> tuple[int, int]:
        """First byte of the protobuf message in the file, and the byte after its last."""
        return self.header_size, self.header_size + self.proto_size


def read_container(file: BinaryIO) -> Container:
    """Read and check the header; raises ModelError with what is wrong."""
    size = os.fstat(file.fileno()).st_size
    start = file.read(COMMON.size)
    if len(start) < COMMON.size:
        raise ModelError(f"it is not a HEF: it has {size} bytes, fewer than the smallest header")
    magic, version, proto_size = COMMON.unpack(start)
    for prefix, what in LOOKS_LIKE:
        if start.startswith(prefix[: COMMON.size]):
            raise ModelError(f"it is not a HEF but {what}")
    if magic != MAGIC:
        raise ModelError("it is not a HEF: it does not begin with 01 48 45 46; download or compile it again")
    if version not in LAYOUTS:
        raise ModelError(f"its container version is {version}, expected 0 to 3; compile it with a DFC 3.x")
    return _complete(version, proto_size, size, file.read(LAYOUTS[version].rest.size))


def _complete(version: int, proto_size: int, size: int, rest: bytes) -> Container:
    layout = LAYOUTS[version]
    if len(rest) < layout.rest.size:
        raise ModelError(f"it is cut off inside its header, after {size} bytes; copy or download it again")
    values = dict(zip(layout.names, layout.rest.unpack(rest), strict=True))
    header_size = COMMON.size + layout.rest.size
    expected = header_size + proto_size + values.get("ccws", 0) + values.get("additional", 0)
    if size != expected:
        raise ModelError(f"it has {size} bytes, but its header says {expected}; copy or download it again")
    if values.get("ccws", 0) < values.get("padding", 0):
        raise ModelError("its header is damaged: the padding is larger than its section; download it again")
    if proto_size > MAX_PROTO:
        raise ModelError(f"its description has {proto_size} bytes, expected less than 2 GiB; download it again")
    proto_digest: bytes = values.get("proto_digest", b"")
    return Container(
        version, header_size, proto_size, size, values["digest"], proto_digest.strip(b"\0") and proto_digest
    )


class Hasher(Protocol):
    """The part of hashlib's objects that is used here; xxhash's have it as well."""

    def update(self, data: bytes, /) -> object:
        """Hash more bytes."""

    def digest(self) -> bytes:
        """The hash of all bytes so far, as it stands in the header."""


class Crc32:
    """CRC-32 as a `Hasher`."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes, /) -> None:
        """Hash more bytes."""
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        """The CRC-32, big endian."""
        return self._value.to_bytes(4, "big")


def digest_fits(file: BinaryIO, container: Container) -> bool | None:
    """Hash everything after the header, piece by piece, and compare; None where no package computes this hash.

    If the header has a checksum of the protobuf message, only that message is hashed, as HailoRT 5.2 does.
    """
    hasher = _hasher(container.version)
    if hasher is None:
        return None
    file.seek(container.header_size)
    left = container.proto_size if container.proto_digest else container.size
    while left and (piece := file.read(min(PIECE, left))):
        hasher.update(piece)
        left -= len(piece)
    return hasher.digest() == (container.proto_digest or container.digest)


def _hasher(version: int) -> Hasher | None:
    """MD5, CRC-32, or XXH3-64 by the optional package xxhash."""
    if version == 0:
        return hashlib.md5(usedforsecurity=False)
    if version == 1:
        return Crc32()
    try:
        import xxhash
    except ImportError:
        return None
    hasher: Hasher = xxhash.xxh3_64()
    return hasher
