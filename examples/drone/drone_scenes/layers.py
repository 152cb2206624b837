"""A drawn object with its coverage, and how it is put into a picture."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from drone_scenes.light import Colour, bgr

VISIBLE = 0.1  # a pixel belongs to an object if the object is at least a tenth of its colour
BITS = 4  # of OpenCV's fixed-point coordinates
Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels; the last two exclusive


@dataclass(frozen=True)
class Layer:
    """A cut-out at a place in the picture; it may reach over the edge.

    Attributes:
        colour: (h, w, 3) float32 BGR, already multiplied with `alpha`.
        alpha: (h, w) float32, the share of each pixel that is covered.
        left, top: where it lies in the picture.
    """

    colour: np.ndarray
    alpha: np.ndarray
    left: int
    top: int

    def inside(self, shape: tuple[int, ...]) -> Layer:
        """The part within a picture of this shape."""
        height, width = self.alpha.shape
        x1, y1 = max(-self.left, 0), max(-self.top, 0)
        x2, y2 = min(shape[1] - self.left, width), min(shape[0] - self.top, height)
        if x1 >= x2 or y1 >= y2:
            return Layer(self.colour[:0, :0], self.alpha[:0, :0], 0, 0)
        return Layer(self.colour[y1:y2, x1:x2], self.alpha[y1:y2, x1:x2], self.left + x1, self.top + y1)

    def window(self) -> tuple[slice, slice]:
        """Its place as an index of the picture; only of a layer that is inside."""
        height, width = self.alpha.shape
        return np.s_[self.top : self.top + height, self.left : self.left + width]

    def behind(self, cover: np.ndarray) -> Layer:
        """What is left of it behind something with the coverage `cover`, (H, W) of the whole picture."""
        left = 1 - cover[self.window()]
        return Layer(self.colour * left[..., None], self.alpha * left, self.left, self.top)

    def toned(self, factor: float, shift: float) -> Layer:
        """Its colours times `factor` plus `shift`."""
        return Layer(self.colour * factor + self.alpha[..., None] * shift, self.alpha, self.left, self.top)

    def box(self) -> Box | None:
        """The smallest box around all pixels that belong to it (VISIBLE); None if there are none."""
        seen = self.alpha >= VISIBLE
        columns, rows = np.flatnonzero(seen.any(axis=0)), np.flatnonzero(seen.any(axis=1))
        if not len(rows):
            return None
        x1, x2, y1, y2 = columns[0], columns[-1] + 1, rows[0], rows[-1] + 1
        return int(self.left + x1), int(self.top + y1), int(self.left + x2), int(self.top + y2)


def put(picture: np.ndarray, layer: Layer) -> None:
    """Draw a layer over (H, W, 3) float32, in place; what lies outside is left out."""
    layer = layer.inside(picture.shape)
    part = picture[layer.window()]
    part *= 1 - layer.alpha[..., None]
    part += layer.colour


class Canvas:
    """A transparent tile to draw on, `fine` times finer than the picture, so that edges come out smooth."""

    def __init__(self, width: int, height: int, fine: int) -> None:
        self.fine, self.height = fine, height
        self.colour = np.zeros((height * fine, width * fine, 3), np.float32)
        self.alpha = np.zeros((height * fine, width * fine), np.float32)

    def polygon(self, points: np.ndarray, colour: Colour, opacity: float = 1.0) -> None:
        """A filled polygon; (n, 2) x, y in pixels of the picture, from the corner of the tile."""
        mask = np.zeros(self.alpha.shape, np.uint8)
        fixed = np.rint((points * self.fine - 0.5) * (1 << BITS)).astype(np.int32)
        cv2.fillPoly(mask, [fixed], 255, cv2.LINE_AA, BITS)
        self._lay(mask, fixed, 2, colour, opacity)

    def line(self, start: np.ndarray, end: np.ndarray, width: float, colour: Colour, opacity: float = 1.0) -> None:
        """A thick line with round ends; x, y and width in pixels of the picture."""
        mask = np.zeros(self.alpha.shape, np.uint8)
        thick = max(1, round(width * self.fine))
        fixed = np.rint((np.stack([start, end]) * self.fine - 0.5) * (1 << BITS)).astype(np.int32)
        cv2.line(mask, fixed[0].tolist(), fixed[1].tolist(), 255, thick, cv2.LINE_AA, BITS)
        self._lay(mask, fixed, thick, colour, opacity)

    def _lay(self, mask: np.ndarray, fixed: np.ndarray, margin: int, colour: Colour, opacity: float) -> None:
        low = np.maximum((fixed.min(axis=0) >> BITS) - margin, 0)
        high = np.maximum((fixed.max(axis=0) >> BITS) + margin + 2, 0)
        part = np.s_[low[1] : high[1], low[0] : high[0]]
        cover = mask[part].astype(np.float32) * np.float32(opacity / 255)
        self.alpha[part] += cover * (1 - self.alpha[part])
        self.colour[part] += cover[..., None] * (bgr(colour) - self.colour[part])

    def layer(self, left: int, top: int, *, blur: float = 0.0, smear: np.ndarray | None = None) -> Layer:
        """What was drawn, in the picture's pixels.

        Args:
            left, top: place of the tile in the picture.
            blur: sigma in pixels, of a lens out of focus.
            smear: (2,) x, y in pixels, the way the thing moved while the shutter was open.
        """
        both: np.ndarray = np.dstack([self.colour, self.alpha])
        if self.fine > 1:
            size = (both.shape[1] // self.fine, both.shape[0] // self.fine)
            both = cv2.resize(both, size, interpolation=cv2.INTER_AREA)
        if smear is not None and np.hypot(*smear) > 0.5:
            both = cv2.filter2D(both, -1, _streak(smear), borderType=cv2.BORDER_CONSTANT)
        if blur > 0.2:
            both = cv2.GaussianBlur(both, (0, 0), blur, borderType=cv2.BORDER_CONSTANT)
        return Layer(both[..., :3], both[..., 3], left, top)


def _streak(smear: np.ndarray) -> np.ndarray:
    """(n, n) float32 kernel: a line from -smear/2 to +smear/2."""
    reach = int(np.ceil(np.abs(smear).max() / 2)) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    for t in np.linspace(-0.5, 0.5, 8 * reach):
        x, y = reach + smear[0] * t, reach + smear[1] * t
        kernel[round(y), round(x)] += 1
    return kernel / kernel.sum()
