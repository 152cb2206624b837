"""What one picture looks like, from a thumbnail and its label file: a perceptual hash, a few numbers, the objects.

Own code instead of a package: imagehash brings scipy and PyWavelets, OpenCV's img_hash is not in its wheels, and both
would give the hash only. The thumbnail is decoded once for all of it.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from hefkit.errors import DataError
from hefkit.measure.labels import label_path, labels_in, read_labels
from hefkit.pictures.header import UnreadableImage
from hefkit.pictures.read import read_bytes
from hefkit.pictures.small import decode_small, shrink
from hefkit.workshop.calibration.remote import is_remote, label_url, read_remote
from hefkit.workshop.calibration.videos import NO_FRAME, read_frames

VERSION = 1  # of the packed form and of the numbers in it
THUMBNAIL = 160  # longer side, pixels
GRID = 4  # cells a side of the colour layout

# the first values of a look; then the Lab colours of the GRID x GRID cells, row by row, divided by LAYOUT
BRIGHTNESS, CONTRAST, SHARPNESS, SATURATION, RED_GREEN, BLUE_YELLOW = range(6)
# what counts as one step of each when pictures are compared
STEPS = np.array([40, 20, 1, 40, 12, 12], np.float32)  # grey values; sharpness is a natural logarithm
LAYOUT = 40 * GRID  # grey values; so that the cells together weigh like one or two of the others
VALUES = len(STEPS) + 3 * GRID * GRID
MAX_CLASSES = 1 << 16
_HEAD = struct.Struct(f"<IIQ?I{VALUES}f")


@dataclass(frozen=True)
class Look:
    """One picture."""

    size_wh: tuple[int, int]  # upright, in pixels
    phash: int  # 64 bits
    values: np.ndarray  # (VALUES,) float32, in steps
    labelled: bool  # whether it has a label file
    class_id: np.ndarray  # (n,) uint16, of each object
    share: np.ndarray  # (n,) float32, of the picture's area

    def pack(self) -> bytes:
        """For the cache and for other machines."""
        head = _HEAD.pack(*self.size_wh, self.phash, self.labelled, len(self.share), *self.values.tolist())
        return head + self.class_id.astype("<u2").tobytes() + self.share.astype("<f4").tobytes()


def unpack(data: bytes) -> Look:
    """The reverse of Look.pack."""
    width, height, phash, labelled, count, *values = _HEAD.unpack_from(data)
    classes = np.frombuffer(data, "<u2", count, _HEAD.size)
    share = np.frombuffer(data, "<f4", count, _HEAD.size + 2 * count)
    return Look((width, height), phash, np.array(values, np.float32), labelled, classes, share)


Target = tuple[str, int | None]  # path of a picture, or path of a video and number of the frame


def look_at_targets(targets: Sequence[Target]) -> list[bytes | str]:
    """A packed Look of each target, or the reason why it cannot be read. Runs in threads, and on a cluster.

    The frames of a video must follow each other; they are read in one pass.
    """
    found: list[bytes | str] = []
    for path, group in itertools.groupby(targets, key=lambda target: target[0]):
        numbers = [number for _, number in group]
        if numbers[0] is None:
            found.extend(_look_at_file(path) for _ in numbers)
            continue
        looks: dict[int, bytes | str] = {}
        for number, picture in read_frames(path, [number for number in numbers if number is not None]):
            size_wh = (0, 0) if picture is None else (picture.shape[1], picture.shape[0])
            looks[number] = NO_FRAME if picture is None else look_at(shrink(picture, THUMBNAIL), size_wh).pack()
        found.extend(looks[number] for number in numbers if number is not None)
    return found


def _look_at_file(path: str) -> bytes | str:
    try:
        small, size_wh = decode_small(read_remote(path) if is_remote(path) else read_bytes(path), THUMBNAIL)
    except UnreadableImage as exc:
        return str(exc)
    return look_at(small, size_wh, path).pack()


def look_at(small: np.ndarray, size_wh: tuple[int, int], path: str | None = None, *, to_choose: bool = True) -> Look:
    """Look at a thumbnail, (h, w, 3) uint8 BGR, and at the labels of the picture `path`, a path or URL.

    Without `to_choose` the hash and the colours are 0: what a set covers does not need them, and the first Lab colour
    of a process takes OpenCV 0.15 s.
    """
    grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
    values = np.zeros(VALUES, np.float32)
    values[:RED_GREEN] = _light(small, grey)
    if to_choose:
        values[RED_GREEN:] = _colours(small)
    labelled, class_id, share = _objects(path) if path is not None else (False, *_NO_OBJECTS)
    return Look(size_wh, perceptual_hash(grey) if to_choose else 0, values, labelled, class_id, share)


def perceptual_hash(grey: np.ndarray) -> int:
    """(h, w) uint8 -> 64 bits: which of the 63 lowest frequencies (DCT of 32 x 32) are above their median.

    Noise, another size and stronger compression change few bits; another scene changes about half of them.
    """
    even = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(even)[:8, :8].ravel()
    bits = low > np.median(low[1:])
    bits[0] = False  # the mean
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _light(small: np.ndarray, grey: np.ndarray) -> np.ndarray:
    saturation = cv2.mean(cv2.cvtColor(small, cv2.COLOR_BGR2HSV))[1]
    brightness, contrast = (float(x[0, 0]) for x in cv2.meanStdDev(grey))
    detail = float(cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S))[1][0, 0])
    return np.array([brightness, contrast, np.log1p(detail), saturation], np.float32) / STEPS[:RED_GREEN]


def _colours(small: np.ndarray) -> np.ndarray:
    lab = cv2.cvtColor(small, cv2.COLOR_BGR2LAB)
    cells = cv2.resize(lab, (GRID, GRID), interpolation=cv2.INTER_AREA).astype(np.float32) / LAYOUT
    return np.concatenate([np.array(cv2.mean(lab)[1:3], np.float32) / STEPS[RED_GREEN:], cells.ravel()])


_NO_OBJECTS = np.zeros(0, np.uint16), np.zeros(0, np.float32)


def _objects(picture: str) -> tuple[bool, np.ndarray, np.ndarray]:
    """(whether there is a label file, classes, shares of the picture's area); a file with mistakes has no objects."""
    path = label_path(Path(picture))
    try:
        if is_remote(picture):
            found = labels_in(read_remote(label_url(picture)), path, (1, 1), MAX_CLASSES)
        elif path.is_file():
            found = read_labels(path, (1, 1), MAX_CLASSES)
        else:
            return False, *_NO_OBJECTS
    except (DataError, UnreadableImage):  # training would refuse it; for calibration its picture is still good
        return False, *_NO_OBJECTS
    width, height = found.xyxy[:, 2] - found.xyxy[:, 0], found.xyxy[:, 3] - found.xyxy[:, 1]
    return True, found.class_id.astype(np.uint16), (width * height).astype(np.float32)
