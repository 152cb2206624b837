"""What the header of a picture file says: its kind, its size, its orientation, and the memory that it needs.

OpenCV allocates the size that a header claims before it reads a pixel, so a file of 1 KB may ask for a gigabyte. Every
size is known here before OpenCV sees the file.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

MAX_PIXELS = 1 << 28  # 800 MB decoded; the largest phone cameras have 200 million pixels
LARGE_PIXELS = (
    1 << 25
)  # larger pictures are decoded one at a time: 100 MB of pixels, 200 to 330 MB while they are decoded
MAX_SCANS = 100  # of a progressive JPEG; encoders write about 10, and each is a pass over the picture
PIXELS_PER_BYTE = 512  # of a JPEG at most: a block of 64 pixels takes at least one bit
MAX_TAGS = 4096  # entries read of one TIFF directory; cameras write about 20
MAX_PNM_HEADER = 1 << 12  # bytes of a PNM header, comments included
ORIENTATION, WIDTH, HEIGHT = 274, 256, 257  # TIFF tags
# bytes a pixel while a picture is decoded, measured: the pixels are there twice, because OpenCV copies what it returns;
# the decoders of these kinds hold more
PLAIN, WITH_COEFFICIENTS, WITH_LAYERS, WITH_STRIPS = 6, 9, 9, 10

_INTEGERS = {1: "B", 3: "H", 4: "I", 16: "Q"}  # TIFF's BYTE, SHORT, LONG and LONG8
_NO_FRAMES = frozenset((0xC4, 0xC8, 0xCC))  # among C0..CF: tables, not the start of a frame
_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
# entropy-coded data contain FF00 and the restart markers D0..D7; FF may also be repeated as padding
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
_PNM_SIZE = re.compile(rb"P\d(?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})")


class UnreadableImage(Exception):
    """The file cannot be read as a picture; `str()` is a short reason without the file's name."""


@dataclass(frozen=True)
class Header:
    """What the header of a file says."""

    data: bytes  # to be decoded by OpenCV
    orientation: int  # 1 to 8, as EXIF counts
    width: int  # as stored, in pixels
    height: int
    per_pixel: int = PLAIN  # bytes of memory while it is decoded

    @property
    def is_large(self) -> bool:
        """Whether only one such picture is decoded at a time."""
        return self.width * self.height > LARGE_PIXELS

    @property
    def decoded_bytes(self) -> int:
        """Memory of the pixels."""
        return 3 * self.width * self.height

    @property
    def decoding_bytes(self) -> int:
        """Memory while it is decoded."""
        return self.per_pixel * self.width * self.height


def checked_header(data: bytes) -> Header:
    """The header of a picture file.

    Raises:
        UnreadableImage: not a picture, cut off, too large, or of an unsupported kind.
    """
    header = _inspect(data)
    if header.width * header.height > MAX_PIXELS:
        raise UnreadableImage(
            f"{header.width} x {header.height} pixels; at most {MAX_PIXELS // 10**6} million are read; scale it down"
        )
    return header


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
    per_pixel = PLAIN
    at = 2
    while found := _JPEG_MARKER.search(data, at):
        marker, at = data[found.end() - 1], found.end()
        if marker == 0xD9:  # what follows (a second picture, a trailer of the camera) is ignored
            if width * height > len(data) * PIXELS_PER_BYTE:
                raise UnreadableImage(f"damaged: {len(data)} bytes cannot hold the {width} x {height} pixels it claims")
            return Header(data, orientation or 1, width, height, per_pixel)
        if marker == 0xD8:
            continue
        scans += marker == 0xDA
        if scans > MAX_SCANS:
            raise UnreadableImage(f"a JPEG with more than {MAX_SCANS} scans; expected a photograph; save it again")
        length = int.from_bytes(data[at : at + 2], "big")
        if marker == 0xE1 and not orientation and data[at + 2 : at + 8] == b"Exif\0\0":
            orientation = _orientation(data[at + 8 : at + length])
        elif 0xC0 <= marker <= 0xCF and marker not in _NO_FRAMES and not width:  # libjpeg refuses a second one
            height, width = (int.from_bytes(data[at + i : at + i + 2], "big") for i in (3, 5))
            per_pixel = WITH_COEFFICIENTS if marker in _PROGRESSIVE else PLAIN
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
    return Header(data, orientation, *_webp_size(data), WITH_LAYERS)


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height from the first chunk."""
    kind, body = data[12:16], data[20:30]
    if kind == b"VP8X":
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF


def _tiff(data: bytes) -> Header:
    tags = _tags(data)
    if not {WIDTH, HEIGHT} <= tags.keys():
        raise UnreadableImage("damaged: the TIFF does not say its size")
    orientation = _orientation(data)
    if orientation != 1:  # OpenCV always turns a TIFF: give it one that says "upright"
        tag = tags[ORIENTATION]
        data = data[: tag.at] + struct.pack(tag.form, 1) + data[tag.at + struct.calcsize(tag.form) :]
    return Header(data, orientation, tags[WIDTH].value, tags[HEIGHT].value, WITH_STRIPS)


def _pnm(data: bytes) -> Header:
    found = _PNM_SIZE.match(data[:MAX_PNM_HEADER])
    if found is None:
        raise UnreadableImage("damaged: the PNM file does not say its size")
    return Header(data, 1, int(found[1]), int(found[2]))


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
    return tag.value if tag and 1 <= tag.value <= 8 else 1


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
    *((b"P%d" % digit, _pnm) for digit in range(1, 7)),
)
_REFUSED = (
    (b"GIF8", "a GIF, which not every OpenCV reads; convert it to PNG"),
    (b"version https://git-lfs", "a Git LFS pointer, not the picture itself; run: git lfs pull"),
    (b"<", "a web page or SVG, not a picture"),
)
