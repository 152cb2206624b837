"""The contact sheet: small copies of the pictures of a set, with their numbers."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from hefkit.pictures.small import halved

SHEET_PICTURES = 64
COLUMNS = 8
SIDE = 160  # longer side of a thumbnail, pixels
GAP = 4  # pixels
BACKGROUND = 32  # grey value


def thumbnail(tensor: np.ndarray, index: int) -> np.ndarray:
    """(H, W, 3) RGB -> the same at most SIDE pixels long, with the picture's number in the corner."""
    tensor = halved(tensor, SIDE)
    height, width = tensor.shape[:2]
    scale = SIDE / max(height, width)
    size_wh = max(round(width * scale), 1), max(round(height * scale), 1)
    small = cv2.resize(tensor, size_wh, interpolation=cv2.INTER_AREA)
    place, font = (4, small.shape[0] - 5), cv2.FONT_HERSHEY_SIMPLEX
    for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):  # outlined: legible on any picture
        cv2.putText(small, str(index), place, font, 0.4, colour, thickness, cv2.LINE_AA)
    return small


def contact_sheet(thumbnails: Sequence[np.ndarray]) -> np.ndarray:
    """Equal thumbnails (h, w, 3) RGB -> one picture, COLUMNS a row."""
    height, width = thumbnails[0].shape[:2]
    columns = min(COLUMNS, len(thumbnails))
    rows = -(-len(thumbnails) // columns)
    sheet = np.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, 3), BACKGROUND, np.uint8)
    for i, small in enumerate(thumbnails):
        top, left = i // columns * (height + GAP) + GAP, i % columns * (width + GAP) + GAP
        sheet[top : top + height, left : left + width] = small
    return sheet
