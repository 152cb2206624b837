"""Whether a file is a photograph or a video, and whether a recording was cut off: by its content, not by its name.

The Pi records raw streams (`rpicam-vid` writes H.264, H.265 or MJPEG without a container), cameras write MTS, FLV and
3GP. Both detectors ask here, so that they agree. Standard library only; only the beginning and the end are read.
"""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path
from typing import BinaryIO

from hefkit.pictures.find import IMAGE_SUFFIXES, VIDEO_SUFFIXES

PHOTOGRAPH, VIDEO = "photograph", "video"
HEAD = 1 << 16  # bytes that show which kind a file is
MJPEG_HEAD = 16 << 20  # bytes; space for the end of the first picture of an MJPEG stream
MAX_ATOMS = 10_000  # of an MP4; a file has about five
TS_PACKETS = ((0, 188), (4, 192))  # first byte of a packet's mark, bytes of a packet: MPEG-TS, M2TS

_STILL_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1", b"avif", b"avis")
_ATOMS = (b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")
_STARTS = {
    b"\x89PNG\r\n\x1a\n": PHOTOGRAPH, b"II*\0": PHOTOGRAPH, b"MM\0*": PHOTOGRAPH, b"BM": PHOTOGRAPH,
    b"\x1aE\xdf\xa3": VIDEO,  # Matroska, WebM
    b"FLV\x01": VIDEO,
    b"0&\xb2u\x8ef\xcf\x11": VIDEO,  # ASF, WMV
    b"OggS": VIDEO,
    b"YUV4MPEG2 ": VIDEO,
    b"DKIF": VIDEO,  # IVF
    b"\0\0\x01\xba": VIDEO, b"\0\0\x01\xb3": VIDEO,  # MPEG
}  # fmt: skip
_NEXT_JPEG = re.compile(rb"\xff\xd9\0{0,64}\xff\xd8\xff")


def kind_of(path: Path) -> str | None:
    """PHOTOGRAPH or VIDEO; None where the content does not show it, or the file cannot be read."""
    try:
        if not os.path.isfile(path):  # opening a pipe would wait for ever
            return None
        with open(path, "rb") as file:
            head = file.read(HEAD)
            if head.startswith(b"\xff\xd8\xff"):
                return _jpeg_kind(path, head + file.read(MJPEG_HEAD))
    except (OSError, ValueError):
        return None
    for start, kind in _STARTS.items():
        if head.startswith(start):
            return kind
    if head[:4] == b"RIFF":
        return {b"AVI ": VIDEO, b"WEBP": PHOTOGRAPH}.get(head[8:12])
    if head[4:8] == b"ftyp":
        return PHOTOGRAPH if head[8:12] in _STILL_BRANDS else VIDEO
    is_video = head[4:8] in _ATOMS or bool(_packet_size(head)) or _is_raw_stream(head)
    return VIDEO if is_video else None


def is_video_file(path: Path) -> bool:
    """Whether a file is a video: by its content; by its name if the content does not show it or the file is missing."""
    kind = kind_of(path)
    return kind == VIDEO if kind else path.suffix.lower() in VIDEO_SUFFIXES


def cut_off(path: Path) -> str:
    """Why a recording is not complete; empty if it is complete, or if files of its kind do not show it."""
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            head = file.read(HEAD)
            if head[4:8] == b"ftyp" or head[4:8] in _ATOMS:
                return _cut_off_mp4(file, size)
            if head.startswith(b"\xff\xd8\xff"):
                file.seek(max(0, size - HEAD))
                return "" if file.read().rstrip(b"\0").endswith(b"\xff\xd9") else "its last picture has no end"
    except (OSError, ValueError, struct.error):
        return ""
    if head[:4] == b"RIFF" and head[8:12] == b"AVI " and not 0 < int.from_bytes(head[4:8], "little") + 8 <= size:
        return "its header was not finished"
    packet = _packet_size(head)
    return "its last packet has no end" if packet and size % packet else ""


def _jpeg_kind(path: Path, data: bytes) -> str | None:
    """One JPEG is a photograph, JPEGs in a row are MJPEG; phones write several into one photograph (MPO)."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return PHOTOGRAPH
    if _NEXT_JPEG.search(data) and b"MPF\0" not in data[:HEAD]:
        return VIDEO
    return None if path.suffix.lower() in VIDEO_SUFFIXES else PHOTOGRAPH


def _packet_size(head: bytes) -> int:
    """Bytes of a packet of MPEG-TS or M2TS, each of which begins with a mark; 0 for other files."""
    for first, packet in TS_PACKETS:
        marks = head[first : first + 4 * packet : packet]
        if len(head) >= packet and marks == b"G" * len(marks):
            return packet
    return 0


def _is_raw_stream(head: bytes) -> bool:
    """H.264 or H.265 without a container: a start code, then a parameter set, a delimiter, a note or a key picture."""
    start = re.match(rb"\0{2,3}\x01([\0-\x7f])", head)
    if start is None:
        return False
    first = start[1][0]
    return first & 0x1F in (5, 6, 7, 9) or first >> 1 in (32, 33, 34, 35, 39)


def _cut_off_mp4(file: BinaryIO, size: int) -> str:
    """Why an MP4 is not complete: no index (`moov`), which is written last, or shorter than its parts say."""
    at, names = 0, set()
    for _ in range(MAX_ATOMS):
        file.seek(at)
        header = file.read(16)
        if len(header) < 8:
            break
        length, name = struct.unpack(">I4s", header[:8])
        if length == 1 and len(header) == 16:
            length = int.from_bytes(header[8:], "big")
        names.add(name)
        at = size if length == 0 else at + max(length, 8)
    if b"moov" not in names:
        return "it has no index, which is written at the end"
    return "it is shorter than its parts say" if at > size else ""
