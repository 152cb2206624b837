"""One image file -> upright pixels, or the reason why not; the same with every OpenCV from 4.6 on.

OpenCV's EXIF handling differs between releases and formats: 4.6 ignores the orientation in WebP, and every release
turns TIFF even when told not to. Its JPEG reader before 5.0 returns half a picture for half a file, without an error.
So the headers are read here, and OpenCV only decodes the pixels as they are stored.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from hefkit.pictures.quiet import quiet_codecs
from hefkit.text import one_line

MAX_BYTES = 1 << 30
MAX_PIXELS = 1 << 28  # 800 MB decoded; the largest phone cameras have 200 million pixels
LARGE_PIXELS = 1 << 25  # of such pictures one is decoded at a time; 100 MB decoded, up to 300 MB meanwhile
MAX_SCANS = 100  # of a progressive JPEG; encoders write about 10, and each is a pass over the picture
PIXELS_PER_BYTE = 512  # of a JPEG at most: a block of 64 pixels takes at least one bit
MAX_TAGS = 4096  # entries read of one TIFF directory; cameras write about 20
ORIENTATION, WIDTH, HEIGHT = 274, 256, 257  # TIFF tags

_INTEGERS = {1: "B", 3: "H", 4: "I"}  # TIFF's BYTE, SHORT and LONG
_NO_FRAMES = frozenset((0xC4, 0xC8, 0xCC))  # among C0..CF: tables, not the start of a frame
# entropy-coded data contain FF00 and the restart markers D0..D7; FF may also be repeated as padding
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
_one_large = threading.Lock()

# EXIF orientation -> the operation that makes the picture upright
TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda pixels: pixels,
    2: lambda pixels: cv2.flip(pixels, 1),
    3: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_180),
    4: lambda pixels: cv2.flip(pixels, 0),
    5: lambda pixels: cv2.transpose(pixels),
    6: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE),
    7: lambda pixels: cv2.rotate(cv2.transpose(pixels), cv2.ROTATE_180),
    8: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


class UnreadableImage(Exception):
    """The file cannot be read as a picture; `str()` is a short reason without the file's name."""


@dataclass(frozen=True)
class Header:
    """What the header of a file says; a size of 0 is unknown."""

    data: bytes  # to be decoded by OpenCV
    orientation: int = 1
    width: int = 0
    height: int = 0

    @property
    def is_large(self) -> bool:
        """Whether it claims more than LARGE_PIXELS."""
        return self.width * self.height > LARGE_PIXELS


def read_image(path: Path | str) -> np.ndarray:
    """A picture file -> (h, w, 3) uint8 BGR, upright.

    Raises:
        UnreadableImage: the file is missing, not a picture, cut off, too large, or of an unsupported kind.
    """
    return decode_image(read_bytes(path))


def read_bytes(path: Path | str) -> bytes:
    """The bytes of a regular file; every error of the operating system becomes `UnreadableImage`."""
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise UnreadableImage("a folder, not a file")
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise UnreadableImage("not a regular file")
        if status.st_size > MAX_BYTES:
            raise UnreadableImage(f"{status.st_size >> 20} MB; at most {MAX_BYTES >> 20} MB are read")
        with open(path, "rb") as file:
            return file.read()
    except OSError as exc:
        raise UnreadableImage((exc.strerror or "cannot be read").lower()) from exc
    except ValueError as exc:  # a NUL inside the name
        raise UnreadableImage("not a possible file name") from exc


def decode_image(data: bytes) -> np.ndarray:
    """The bytes of a picture file -> (h, w, 3) uint8 BGR, upright.

    Colours as OpenCV converts them: grey and palettes become BGR, alpha is dropped, 16 bits are scaled to 8.

    Raises:
        UnreadableImage: see `read_image`.
    """
    return decode_upright(checked_header(data))


def decode_upright(header: Header) -> np.ndarray:
    """`decode_image`, where the header has been read already."""
    return TURNS[header.orientation](decode_stored(header, cv2.IMREAD_COLOR))


def checked_header(data: bytes) -> Header:
    """The header of a picture that is not too large."""
    header = _inspect(data)
    if header.width * header.height > MAX_PIXELS:
        raise UnreadableImage(
            f"{header.width} x {header.height} pixels; at most {MAX_PIXELS // 10**6} million are read; scale it down"
        )
    return header


def decode_stored(header: Header, flag: int) -> np.ndarray:
    """The pixels as they are stored, BGR; one large picture at a time: four at once would need 8 GB."""
    with _one_large if header.is_large else contextlib.nullcontext():
        try:
            with quiet_codecs():
                stored = cv2.imdecode(np.frombuffer(header.data, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
        except cv2.error as exc:
            raise UnreadableImage(f"OpenCV refuses it ({one_line(getattr(exc, 'err', exc), 100)})") from exc
        if stored is None:
            raise UnreadableImage("damaged, or of a kind that OpenCV does not decode; expected 8 or 16 bits a sample")
        return stored


def _inspect(data: bytes) -> Header:
    """The header, read by the kind of the file; raises UnreadableImage for unsupported kinds."""
    if not data:
        raise UnreadableImage("the file is empty")
    for start, read_header in _HEADER_READERS:
        if data.startswith(start):
            return read_header(data)
    if data[4:8] == b"ftyp":
        raise UnreadableImage(_iso_media(data[8:12]))
    for start, reason in _REFUSED:
        if data.startswith(start):
            raise UnreadableImage(reason)
    raise UnreadableImage(f"not a JPEG, PNG, WebP, TIFF, BMP or PNM file; it begins with {data[:12]!r}")


def _jpeg(data: bytes) -> Header:
    """Walk over the segments to the end marker; the end marker of a thumbnail lies inside a segment and is skipped."""
    orientation = width = height = scans = 0
    at = 2
    while found := _JPEG_MARKER.search(data, at):
        marker, at = data[found.end() - 1], found.end()
        if marker == 0xD9:  # what follows (a second picture, a trailer of the camera) is ignored
            if width * height > len(data) * PIXELS_PER_BYTE:
                raise UnreadableImage(f"damaged: {len(data)} bytes cannot hold the {width} x {height} pixels it claims")
            return Header(data, orientation or 1, width, height)
        if marker == 0xD8:
            continue
        scans += marker == 0xDA
        if scans > MAX_SCANS:
            raise UnreadableImage(f"a JPEG with more than {MAX_SCANS} scans; expected a photograph; save it again")
        length = int.from_bytes(data[at : at + 2], "big")
        if marker == 0xE1 and not orientation and data[at + 2 : at + 8] == b"Exif\0\0":
            orientation = _orientation(data[at + 8 : at + length])
        elif 0xC0 <= marker <= 0xCF and marker not in _NO_FRAMES:
            height, width = (int.from_bytes(data[at + i : at + i + 2], "big") for i in (3, 5))
        at += max(length, 2)
    raise UnreadableImage("cut off or damaged: the JPEG has no end marker")


def _png(data: bytes) -> Header:
    orientation = 1
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    at = 8
    while at + 12 <= len(data):
        length, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if name == b"IEND":
            return Header(data, orientation, width, height)
        if name == b"eXIf":
            orientation = _orientation(data[at + 8 : at + 8 + length])
        at += 12 + length
    raise UnreadableImage("cut off: the PNG has no end chunk")


def _webp(data: bytes) -> Header:
    if data[8:12] != b"WEBP":
        raise UnreadableImage("a RIFF file without a WebP picture")
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise UnreadableImage(f"cut off: the WebP has {len(data)} of {end} bytes")
    orientation = 1
    at = 12
    while at + 8 <= end:
        name, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if name == b"VP8X" and int.from_bytes(data[at + 8 : at + 9], "little") & 2:
            raise UnreadableImage("an animation; expected a single picture")
        if name == b"EXIF":
            orientation = _orientation(data[at + 8 : at + 8 + length])
        at += 8 + length + length % 2
    return Header(data, orientation)  # the format itself ends at 16383 x 16383, which is within MAX_PIXELS


def _tiff(data: bytes) -> Header:
    tags = _tags(data)
    orientation = _orientation(data)
    if orientation != 1:  # OpenCV always turns a TIFF: give it one that says "upright"
        tag = tags[ORIENTATION]
        data = data[: tag.at] + struct.pack(tag.form, 1) + data[tag.at + struct.calcsize(tag.form) :]
    width, height = (tags[key].value if key in tags else 0 for key in (WIDTH, HEIGHT))
    return Header(data, orientation, width, height)


def _bmp(data: bytes) -> Header:
    if len(data) < 26:
        raise UnreadableImage("cut off: the BMP has no header")
    if int.from_bytes(data[14:18], "little") < 40:  # OS/2
        return Header(data, 1, *struct.unpack_from("<HH", data, 18))
    return Header(data, 1, *(abs(side) for side in struct.unpack_from("<ii", data, 18)))


def _iso_media(brand: bytes) -> str:
    if brand in (b"avif", b"avis"):
        return "AVIF, which is not read; convert it to JPEG"
    if brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"):
        return "HEIC, as phones write it, which is not read; convert it to JPEG"
    return "a video, not a picture"


@dataclass(frozen=True)
class _Tag:
    """A whole number in a TIFF directory, its place, and its struct format."""

    value: int
    at: int
    form: str


def _orientation(block: bytes) -> int:
    """1 to 8 from an EXIF block; 1 (upright) if it is missing, malformed or out of range."""
    tag = _tags(block.removeprefix(b"Exif\0\0")).get(ORIENTATION)
    return tag.value if tag and tag.value in TURNS else 1


def _tags(block: bytes) -> dict[int, _Tag]:
    """The entries with one whole number in the first directory of a TIFF block; empty if it is malformed."""
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None or len(block) < 8:
        return {}
    # classic TIFF: offset and value 4 bytes, number of entries 2; BigTIFF: 8 and 8
    big = struct.unpack_from(order + "H", block, 2) == (43,)
    start = _unpack(order + ("Q" if big else "I"), block, 8 if big else 4)
    if start < 8:
        return {}
    entries = _unpack(order + ("Q" if big else "H"), block, start)
    first, step = start + (8 if big else 2), 20 if big else 12
    tags: dict[int, _Tag] = {}
    for at in range(first, first + step * min(entries, MAX_TAGS), step):
        if at + step > len(block):
            break
        key, kind, count = struct.unpack_from(order + ("HHQ" if big else "HHI"), block, at)
        if kind in _INTEGERS and count == 1 and key not in tags:
            form, value_at = order + _INTEGERS[kind], at + (12 if big else 8)
            tags[key] = _Tag(struct.unpack_from(form, block, value_at)[0], value_at, form)
    return tags


def _unpack(form: str, block: bytes, at: int) -> int:
    """One number at `at`; 0 if the block ends before it."""
    return int(struct.unpack_from(form, block, at)[0]) if at + struct.calcsize(form) <= len(block) else 0


_HEADER_READERS: tuple[tuple[bytes, Callable[[bytes], Header]], ...] = (
    (b"\xff\xd8\xff", _jpeg),
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"RIFF", _webp),
    (b"II*\0", _tiff),
    (b"MM\0*", _tiff),
    (b"II+\0", _tiff),
    (b"MM\0+", _tiff),
    (b"BM", _bmp),
    *((b"P%d" % digit, Header) for digit in range(1, 7)),
)
_REFUSED = (
    (b"GIF8", "a GIF, which not every OpenCV reads; convert it to PNG"),
    (b"version https://git-lfs", "a Git LFS pointer, not the picture itself; run: git lfs pull"),
    (b"<", "a web page or SVG, not a picture"),
)
