"""One image file -> upright pixels, or the reason why not; the same with every OpenCV from 4.6 on.

OpenCV's EXIF handling differs between releases and formats: 4.6 ignores the orientation in WebP, and every release
turns TIFF even when told not to. Its JPEG reader before 5.0 returns half a picture for half a file, without an error.
So the headers are read here, and OpenCV only decodes the pixels as they are stored.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import cv2
import numpy as np

from hefkit.pictures.header import Header, UnreadableImage, checked_header
from hefkit.pictures.memory import GB, available_memory
from hefkit.pictures.quiet import quiet_codecs
from hefkit.text import one_line

MAX_BYTES = 1 << 30
BAND = 512  # rows

_large = threading.RLock()  # see `in_turn`


def _transposed_and_turned(pixels: np.ndarray) -> np.ndarray:
    """Orientation 7, in bands: OpenCV needs two steps for it, which would hold a large picture three times."""
    height, width = pixels.shape[:2]
    turned = np.empty((width, height, 3), np.uint8)
    for top in range(0, height, BAND):
        band = pixels[top : top + BAND]
        turned[:, height - top - len(band) : height - top] = cv2.rotate(cv2.transpose(band), cv2.ROTATE_180)
    return turned


# EXIF orientation -> the operation that makes the picture upright
TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda pixels: pixels,
    2: lambda pixels: cv2.flip(pixels, 1),
    3: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_180),
    4: lambda pixels: cv2.flip(pixels, 0),
    5: lambda pixels: cv2.transpose(pixels),
    6: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE),
    7: _transposed_and_turned,
    8: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


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
    """The bytes of a picture file -> (h, w, 3) uint8 BGR, upright; see `read_image` for errors."""
    return decode(checked_header(data))


def decode(header: Header) -> np.ndarray:
    """The picture of a header -> (h, w, 3) uint8 BGR, upright.

    Colours as OpenCV converts them: grey and palettes become BGR, alpha is dropped, 16 bits are scaled to 8.

    Raises:
        UnreadableImage: the file is damaged, or there is not enough free memory.
    """
    with in_turn(header):
        return TURNS[header.orientation](decode_stored(header, cv2.IMREAD_COLOR))


def in_turn(header: Header) -> AbstractContextManager[object]:
    """For `with`: other threads with a large picture wait here until the block ends.

    `decode` holds it while it decodes; a caller that needs the pixels longer holds it around both.
    """
    return _large if header.is_large else contextlib.nullcontext()


def decode_stored(header: Header, flag: int) -> np.ndarray:
    """The pixels as they are stored, BGR; see `decode` for errors."""
    if header.is_large:
        _check_memory(header)
    try:
        with quiet_codecs():
            stored = cv2.imdecode(np.frombuffer(header.data, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as exc:
        raise UnreadableImage(f"OpenCV refuses it ({one_line(getattr(exc, 'err', exc), 100)})") from exc
    if stored is None:
        raise UnreadableImage("damaged, or of a kind that OpenCV does not decode; expected 8 or 16 bits a sample")
    return stored


def _check_memory(header: Header) -> None:
    free = available_memory()
    if free is not None and header.decoding_bytes > free:
        raise UnreadableImage(
            f"{header.width} x {header.height} pixels need about {header.decoding_bytes / GB:.1f} GB of memory, and "
            f"{free / GB:.1f} GB are free; scale it down"
        )
