"""A small copy of a picture, decoded fast: to compare or show many pictures, not to detect in them."""

from __future__ import annotations

import cv2
import numpy as np

from hefkit.pictures.header import checked_header
from hefkit.pictures.read import TURNS, decode_stored, in_turn

_REDUCED = (
    (8, cv2.IMREAD_REDUCED_COLOR_8),
    (4, cv2.IMREAD_REDUCED_COLOR_4),
    (2, cv2.IMREAD_REDUCED_COLOR_2),
)  # divisor of the sides -> flag


def decode_small(data: bytes, longest: int) -> tuple[np.ndarray, tuple[int, int]]:
    """The bytes of a picture file -> (a small copy, uint8 BGR, upright; width and height of the picture, upright).

    The copy's longer side has `longest` pixels, or fewer where the picture has fewer. A JPEG is decoded at an eighth,
    a quarter or half of its size where that is enough, which takes less time.

    Raises:
        UnreadableImage: see `hefkit.pictures.read.read_image`.
    """
    header = checked_header(data)
    flag = cv2.IMREAD_COLOR
    if data.startswith(b"\xff\xd8\xff"):
        side = max(header.width, header.height)
        flag = next((f for divisor, f in _REDUCED if side >= divisor * longest), flag)
    with in_turn(header):
        small = TURNS[header.orientation](shrink(decode_stored(header, flag), longest))
    width, height = header.width, header.height
    return small, (height, width) if header.orientation > 4 else (width, height)


def halved(picture: np.ndarray, longest: int) -> np.ndarray:
    """A picture at half, a quarter ... of its size, averaged; the longer side keeps at least `longest` pixels.

    An odd last row or column is left out. Five times as fast as `shrink`, which can finish the rest.
    """
    height, width = picture.shape[:2]
    while max(height, width) >= 2 * longest and min(height, width) > 1:
        even = picture[: height & ~1, : width & ~1]
        picture = cv2.resize(even, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        height, width = picture.shape[:2]
    return picture


def shrink(picture: np.ndarray, longest: int) -> np.ndarray:
    """A picture whose longer side has at most `longest` pixels, averaged; itself where it is small enough."""
    height, width = picture.shape[:2]
    scale = longest / max(height, width)
    if scale >= 1:
        return picture
    size_wh = max(round(width * scale), 1), max(round(height * scale), 1)
    return cv2.resize(picture, size_wh, interpolation=cv2.INTER_AREA)
