"""Draw detections into the photograph, or into a copy, readable at any size and on any background."""

from __future__ import annotations

import colorsys
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from hefkit.detect.detections import Detections
from hefkit.results.lettering import drawn_name, letters

BGR = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]  # left, top, right, bottom; the last two exclusive
BLACK: BGR = (0, 0, 0)
WHITE: BGR = (255, 255, 255)
FONT = cv2.FONT_HERSHEY_SIMPLEX
MIN_FONT_SCALE = 0.3  # capitals of six pixels; smaller letters are not readable
SMALL = 200  # pixels, mean side of a picture; below it a line of one pixel is wide enough
LABEL_SHARE = 4  # a label covers at most 1/4 of the picture, and no object with less than 4 times its own area
MAX_OBJECTS = 1000  # that labels do not cover, the best ones; the work grows with the square
MAX_PLACED = 500  # labels that avoid each other; the work grows with the square


@dataclass(frozen=True)
class Text:
    """One line of text and its size in pixels, with the box behind it."""

    text: str
    scale: float
    thickness: int
    pad: int
    width: int
    height: int
    baseline: int  # from the bottom of the box to the baseline
    ink: np.ndarray | None = field(default=None, compare=False)  # (h, w) uint8, of letters that OpenCV does not have

    @staticmethod
    @functools.lru_cache(maxsize=4096)
    def measure(text: str, scale: float) -> Text:
        """The size of a text. OpenCV 4 and 5 draw and measure letters differently; the padding covers both."""
        thickness = max(1, round(scale * 2))
        if not text.isascii():
            ink = letters(text, scale)
            pad = max(2, round(ink.shape[0] * 0.3))
            return Text(text, scale, thickness, pad, ink.shape[1] + 2 * pad, ink.shape[0] + 2 * pad, pad, ink)
        (width, height), below = cv2.getTextSize(text, FONT, scale, thickness)
        pad = max(2, round(height * 0.3))
        return Text(text, scale, thickness, pad, width + 2 * pad, height + below + 2 * pad, below + pad)

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a picture of this shape is large enough for it."""
        return self.width <= shape[1] and self.height <= shape[0]

    def draw(self, image: np.ndarray, left: int, top: int, colour: BGR) -> None:
        """Write the text on a box of `colour`."""
        right, bottom = left + self.width - 1, top + self.height - 1
        cv2.rectangle(image, (left, top), (right, bottom), colour, cv2.FILLED)
        if self.ink is not None:
            y, x, (height, width) = top + self.pad, left + self.pad, self.ink.shape
            share = self.ink[..., None] / np.float32(255)
            image[y : y + height, x : x + width] = np.rint(share * ink_on(colour) + (1 - share) * np.array(colour))
            return
        origin = (left + self.pad, top + self.height - self.baseline)
        cv2.putText(image, self.text, origin, FONT, self.scale, ink_on(colour), self.thickness, cv2.LINE_AA)


def annotate(
    image_bgr: np.ndarray,
    detections: Detections,
    names: Mapping[int, str],
    *,
    line_width: int | None = None,
    hide_labels: bool = False,
    stamp: str | None = None,
) -> np.ndarray:
    """A new (h, w, 3) uint8 BGR picture with boxes, labels and the stamp; see `draw_on`."""
    image = image_bgr.copy()
    draw_on(image, detections, names, line_width=line_width, hide_labels=hide_labels, stamp=stamp)
    return image


def draw_on(
    image: np.ndarray,
    detections: Detections,
    names: Mapping[int, str],
    *,
    line_width: int | None = None,
    hide_labels: bool = False,
    stamp: str | None = None,
) -> None:
    """Draw boxes, labels and the stamp.

    Args:
        image: (h, w, 3) uint8 BGR; drawn into.
        detections: boxes in pixels of this picture, best first.
        names: class id -> name, any text; see `lettering` for those that are not in Latin letters.
        line_width: in pixels; None: chosen by the size of the picture.
        hide_labels: boxes only.
        stamp: text for the lower left corner, such as "INT8 emulation".
    """
    height, width = image.shape[:2]
    # all sizes scale with it; in a picture that is narrower than 1:13 they scale with the shorter side
    unit = min((height + width) / 2, 7 * min(height, width))
    line = line_width or max(1 if unit < SMALL else 2, round(unit * 0.0035))
    rim = max(1, line // 4) if line > 1 else 0  # dark, so that a bright box is visible on a bright background
    corners = _whole_pixels(detections.xyxy, image.shape)
    for (x1, y1, x2, y2), class_id in zip(corners[::-1].tolist(), detections.class_id[::-1].tolist(), strict=True):
        _frame(image, (x1, y1, x2, y2), line + 2 * rim, BLACK)
        _frame(image, (x1, y1, x2, y2), line, class_colour(class_id))
    mark = _stamp(stamp, unit, image.shape) if stamp else None
    taken = (0, image.shape[0] - mark.height, mark.width, image.shape[0]) if mark else None
    if not hide_labels:
        outer = corners + (line // 2 + rim) * np.array([-1, -1, 1, 1])  # (n, 4): the drawn edge
        _labels(image, outer, detections, names, max(unit * 0.0007, 0.38), taken)
    if mark:  # last, so that nothing hides it
        mark.draw(image, 0, image.shape[0] - mark.height, BLACK)


def class_colour(class_id: int) -> BGR:
    """The colour of a class, the same in every picture; classes with neighbouring ids have very different hues."""
    # the golden ratio spreads any number of hues evenly; three tones distinguish close hues
    hue = (class_id * 0.61803398875 + 0.02) % 1.0
    saturation, value = ((0.85, 1.0), (0.55, 1.0), (0.9, 0.72))[class_id % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(blue * 255), round(green * 255), round(red * 255)


def luminance(colour: BGR) -> float:
    """Relative luminance, 0 (black) to 1 (white), with gamma 2.2."""
    blue, green, red = ((c / 255) ** 2.2 for c in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def ink_on(colour: BGR) -> BGR:
    """Black or white, the one with more contrast; at a luminance of 0.179 both have a contrast of 4.6 to 1."""
    return BLACK if luminance(colour) > 0.18 else WHITE


def _frame(image: np.ndarray, box: Rectangle, width: int, colour: BGR) -> None:
    """Draw the outline of a box, `width` pixels wide, half of it outside the box, clipped to the picture.

    (cv2.rectangle draws three pixels as five, and rounds the corners.)
    """
    half = width // 2
    left, top = max(box[0] - half, 0), max(box[1] - half, 0)
    right, bottom = min(box[2] + half + 1, image.shape[1]), min(box[3] + half + 1, image.shape[0])  # exclusive
    image[top : top + width, left:right] = image[max(bottom - width, 0) : bottom, left:right] = colour
    image[top:bottom, left : left + width] = image[top:bottom, max(right - width, 0) : right] = colour


def _whole_pixels(xyxy: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(n, 4) boxes -> (n, 4) int: first and last pixel of each box, inside the picture."""
    limit = np.array([shape[1] - 1, shape[0] - 1] * 2)
    first_last = np.rint(xyxy) - [0, 0, 1, 1]
    return np.clip(first_last, 0, limit).astype(int)


def _labels(
    image: np.ndarray,
    outer: np.ndarray,
    detections: Detections,
    names: Mapping[int, str],
    scale: float,
    stamped: Rectangle | None,
) -> None:
    """Place labels best first, draw them worst first: where two overlap, the better one is on top."""
    drawn = []
    taken = np.zeros((MAX_PLACED, 4), int)
    taken[0], count = stamped or (0, 0, 0, 0), 1
    objects = outer[:MAX_OBJECTS] + np.array([0, 0, 1, 1])  # (n, 4), the last two exclusive
    objects = objects[(objects[:, 2:] > objects[:, :2]).all(axis=1)]  # an empty box hides nothing
    areas = (objects[:, 2:] - objects[:, :2]).prod(axis=1)
    for box, score, class_id in zip(
        outer.tolist(), detections.score.tolist(), detections.class_id.tolist(), strict=True
    ):
        for text in _texts(drawn_name(names.get(class_id, ""), class_id), score, scale, box[2] - box[0], image.shape):
            area = text.width * text.height
            if LABEL_SHARE * area > image.shape[0] * image.shape[1]:
                continue  # a label must not cover a tiny picture
            spot = _place(box, text, taken[:count], objects[areas < LABEL_SHARE * area], image.shape)
            if spot is None:
                continue
            if count < MAX_PLACED:
                taken[count] = *spot, spot[0] + text.width, spot[1] + text.height
                count += 1
            drawn.append((text, spot, class_colour(class_id)))
            break
    for text, (left, top), colour in reversed(drawn):
        text.draw(image, left, top, colour)


def _texts(name: str, score: float, scale: float, box_width: int, shape: tuple[int, ...]) -> Iterator[Text]:
    """The labels that fit into the picture, the best first: shorter ones follow, small boxes get small letters."""
    words = [f"{name} {score:.2f}", name, f"{name[:6]}..", f"{score:.0%}"]
    if Text.measure(words[0], scale).width > 1.3 * box_width:
        scale = max(0.8 * scale, 0.38)
    for i in range(len(words)):
        text = _fitting(words[i:], scale, shape)
        if text is not None:
            yield text


def _fitting(texts: list[str], scale: float, shape: tuple[int, ...]) -> Text | None:
    """The first of `texts` that fits into the picture with letters of size `scale` or smaller; None if none fits."""
    for text in texts:
        full = Text.measure(text, scale)
        if full.fits(shape):
            return full
        # only where it is needed: OpenCV 5 takes milliseconds to measure letters of a new size
        share = min(shape[0] / full.height, shape[1] / full.width)
        shrunk = Text.measure(text, max(MIN_FONT_SCALE, 0.95 * scale * share))
        if shrunk.fits(shape):
            return shrunk
    return None


def _place(
    box: Sequence[int], text: Text, taken: np.ndarray, small: np.ndarray, shape: tuple[int, ...]
) -> tuple[int, int] | None:
    """Left and top of a label at its box, where it covers no small object, and as little of earlier labels as possible.

    Args:
        taken: (n, 4) labels that are placed already.
        small: (m, 4) objects that a label could hide, its own included.

    Returns:
        None where every place would cover a small object.
    """
    x1, y1, x2, y2 = box
    width, height = text.width, text.height
    before, after, right = x1 - width, x2 + 1, x2 - width + 1
    above, below, bottom = y1 - height, y2 + 1, y2 - height + 1
    outside_or_in = [(x1, above), (x1, y1), (x1, below), (right, above), (right, y1), (x1, bottom), (right, below)]
    beside = [(after, y1), (before, y1), (after, bottom), (before, bottom)]
    last_x, last_y = shape[1] - width, shape[0] - height
    spots = [(min(max(x, 0), last_x), min(max(y, 0), last_y)) for x, y in (*outside_or_in, *beside)]
    lefts, tops = zip(*spots, strict=True)
    around = min(lefts), min(tops), max(lefts) + width, max(tops) + height
    objects, labels = _touched(small, around), _touched(taken, around)
    best, least = None, width * height * MAX_PLACED + 1
    for left, top in spots:
        end_x, end_y = left + width, top + height
        if any(x1 < end_x and left < x2 and y1 < end_y and top < y2 for x1, y1, x2, y2 in objects):
            continue
        hidden = sum(
            (min(end_x, x2) - max(left, x1)) * (min(end_y, y2) - max(top, y1))
            for x1, y1, x2, y2 in labels
            if x1 < end_x and left < x2 and y1 < end_y and top < y2
        )
        if hidden < least:  # of equal ones the first
            best, least = (left, top), hidden
        if not hidden:
            break
    return best


def _touched(rectangles: np.ndarray, here: Rectangle) -> list[list[int]]:
    """Those of (n, 4) rectangles that share pixels with `here`: a few of hundreds, which Python compares faster."""
    left, top, right, bottom = rectangles.T
    touched: list[list[int]] = rectangles[
        (left < here[2]) & (right > here[0]) & (top < here[3]) & (bottom > here[1])
    ].tolist()
    return touched


def _stamp(words: str, unit: float, shape: tuple[int, ...]) -> Text | None:
    """The stamp, shortened until it fits into the picture; None if it does not fit."""
    first = words.split()[0]
    return _fitting([words, words[: len(first) + 4], first], max(unit * 0.0009, 0.4), shape)
