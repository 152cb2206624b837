"""Pictures for tests: drawn, encoded, and given an EXIF orientation byte by byte.

The EXIF writers know nothing of `hefkit.pictures.read`; they follow the formats' own documents, so that reader and
writer cannot share a mistake.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np

from hefkit.detect.preprocess import Transform

# what a viewer does to the stored pixels for each EXIF orientation; numpy only
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


def quadrants(width: int = 48, height: int = 32) -> np.ndarray:
    """(height, width, 3) uint8 BGR: four flat colours, so that every turn and mirror shows even after JPEG."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = (0, 0, 255)
    picture[: height // 2, width // 2 :] = (0, 255, 0)
    picture[height // 2 :, : width // 2] = (255, 0, 0)
    picture[height // 2 :, width // 2 :] = (255, 255, 255)
    return picture


def noise(width: int, height: int, seed: int = 0) -> np.ndarray:
    """(height, width, 3) uint8: smooth random colours, different for each seed, that JPEG keeps apart."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def encode(picture: np.ndarray, suffix: str, *options: int) -> bytes:
    """The bytes of a file with this suffix, by OpenCV."""
    done, data = cv2.imencode(suffix, picture, list(options))
    assert done
    return data.tobytes()


def write(path: Path, picture: np.ndarray | None = None, seed: int = 0) -> Path:
    """Write a picture, folders included; the suffix chooses the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(noise(60, 40, seed) if picture is None else picture, path.suffix))
    return path


def in_input(transform: Transform, xyxy: np.ndarray) -> np.ndarray:
    """Boxes (n, 4) in pixels of a photograph -> float32 pixels of the input: the inverse of `to_original`."""
    (height, width), (new_h, new_w) = transform.original_hw, transform.resized_hw
    scale = np.array([new_w / width, new_h / height] * 2)
    return (xyxy * scale + [transform.left, transform.top] * 2).astype(np.float32)


def exif(orientation: int, order: str = "<") -> bytes:
    """A minimal TIFF block: one IFD with the orientation as SHORT; `order` is "<" (II) or ">" (MM)."""
    mark = {"<": b"II", ">": b"MM"}[order]
    entry = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    return mark + struct.pack(order + "HIH", 42, 8, 1) + entry + struct.pack(order + "I", 0)


def with_exif(data: bytes, block: bytes) -> bytes:
    """A JPEG, PNG or WebP file with `block` as its EXIF data, where a camera would put it."""
    if data[:2] == b"\xff\xd8":
        body = b"Exif\0\0" + block
        return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]
    if data[:4] == b"\x89PNG":
        chunk = struct.pack(">I", len(block)) + b"eXIf" + block
        chunk += struct.pack(">I", zlib.crc32(chunk[4:]))
        return data[:33] + chunk + data[33:]  # 8 signature + 25 IHDR
    if data[8:12] == b"WEBP":
        return _extended_webp(data, block)
    raise AssertionError("no EXIF in this kind of file")


def _extended_webp(data: bytes, block: bytes) -> bytes:
    """RIFF/WEBP with one VP8 or VP8L chunk -> VP8X (EXIF flag), the picture, EXIF."""
    height, width = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape[:2]
    header = struct.pack("<B3x", 0x08) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    chunks = _riff(b"VP8X", header) + data[12:] + _riff(b"EXIF", block)
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def _riff(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def tiff(picture: np.ndarray, orientation: int | None = None, order: str = "<", big: bool = False) -> bytes:
    """An uncompressed TIFF (BigTIFF if `big`) of (h, w) or (h, w, 3) BGR; uint8, uint16 or float32 samples."""
    height, width = picture.shape[:2]
    samples = picture[..., ::-1] if picture.ndim == 3 else picture[..., None]
    count = samples.shape[2]
    raw = np.ascontiguousarray(samples).astype(samples.dtype.newbyteorder(order)).tobytes()
    word = "Q" if big else "I"
    head = 16 if big else 8
    bits = picture.dtype.itemsize * 8
    bits_at = head + len(raw)
    bits_data = struct.pack(order + f"{count}H", *[bits] * count) + b"\0" * (8 - 2 * count % 8)
    many = big or count == 1  # the value fits into the entry itself
    tags: dict[int, tuple[int, int, bytes]] = {
        256: (4, 1, struct.pack(order + "I", width)),
        257: (4, 1, struct.pack(order + "I", height)),
        258: (3, count, bits_data[: 2 * count] if many else struct.pack(order + "I", bits_at)),
        259: (3, 1, struct.pack(order + "H", 1)),
        262: (3, 1, struct.pack(order + "H", 2 if count == 3 else 1)),
        273: (4, 1, struct.pack(order + "I", head)),
        277: (3, 1, struct.pack(order + "H", count)),
        278: (4, 1, struct.pack(order + "I", height)),
        279: (4, 1, struct.pack(order + "I", len(raw))),
        339: (3, 1, struct.pack(order + "H", 3 if picture.dtype.kind == "f" else 1)),
    }
    if orientation is not None:
        tags[274] = (3, 1, struct.pack(order + "H", orientation))
    mark = {"<": b"II", ">": b"MM"}[order]
    directory_at = bits_at + len(bits_data)
    start = mark + (
        struct.pack(order + "HHHQ", 43, 8, 0, directory_at) if big else struct.pack(order + "HI", 42, directory_at)
    )
    directory = struct.pack(order + ("Q" if big else "H"), len(tags))
    for tag, (kind, n, value) in sorted(tags.items()):
        directory += struct.pack(order + "HH" + word, tag, kind, n) + value.ljust(8 if big else 4, b"\0")
    return start + raw + bits_data + directory + struct.pack(order + word, 0)
