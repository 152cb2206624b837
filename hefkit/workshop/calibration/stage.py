"""Worker threads that turn photographs into pictures of the set: read, decode, letterbox, for PNG encode and write.

A PNG is staged: it lies in a temporary folder until the set is complete. Its file is read back and compared with the
bytes that were encoded, so that the digest of the set is that of the files on the disk.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from hefkit.detect.preprocess import letterbox, plan
from hefkit.errors import DataError
from hefkit.pictures.header import UnreadableImage, checked_header
from hefkit.pictures.read import decode, in_turn, read_bytes
from hefkit.pictures.small import halved, shrink
from hefkit.pictures.sources import Item
from hefkit.spec import InputSpec
from hefkit.workshop.calibration.choice.look import THUMBNAIL, Look, look_at
from hefkit.workshop.calibration.remote import RemoteItem, place_of, read_remote
from hefkit.workshop.calibration.videos import NO_FRAME, Frames, VideoFrame

AHEAD = 4  # results a thread may be ahead of the one that is taken: a large picture must not stop the others

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Record:
    """What the manifest says about one picture."""

    source: str
    sha256: str  # of the source file's bytes
    width: int  # of the photograph, upright, in pixels
    height: int


@dataclass(frozen=True)
class Made:
    """One picture of the set."""

    record: Record
    tensor: np.ndarray  # (H, W, 3) uint8 RGB
    file: Path | None  # the staged PNG; None for an array
    number: int  # in the order of choice
    look: Look | None  # where the maker was to look at it


@dataclass(frozen=True)
class Skipped:
    """One photograph that cannot be used."""

    source: str
    reason: str


@dataclass(frozen=True)
class Maker:
    """Makes pictures of one set; called by the threads."""

    spec: InputSpec
    folder: Path
    png: bool  # write each picture as a PNG
    looks: int  # number of pictures that it looks at, for the coverage
    frames: Frames

    def __call__(self, numbered: tuple[int, Item]) -> Made | Skipped:
        """Read, decode and letterbox one picture; if the set is of PNGs, write it to the folder."""
        number, item = numbered
        if isinstance(item, VideoFrame):
            fetched = self.frames.take(item)
            if fetched is None:
                return Skipped(item.source, NO_FRAME)
            tensor, (width, height), sha256 = fetched
        else:
            try:
                data = read_remote(item.source) if isinstance(item, RemoteItem) else read_bytes(item.path)
                header = checked_header(data)
                with in_turn(header):
                    picture = decode(header)  # (h, w, 3) uint8 BGR
                    height, width = picture.shape[:2]
                    tensor = letterbox(picture, self.spec)[0]
                    del picture
            except UnreadableImage as exc:
                return Skipped(item.source, str(exc))
            sha256 = hashlib.sha256(data).hexdigest()
        file = None
        if self.png:
            file = self.folder / f"staged-{number}.png"
            if write_picture(file, tensor) != file.read_bytes():
                raise damaged(item.source)
        look = self._look(item, tensor, (width, height)) if number < self.looks else None
        return Made(Record(item.source, sha256, width, height), tensor, file, number, look)

    def _look(self, item: Item, tensor: np.ndarray, size_wh: tuple[int, int]) -> Look:
        place = plan((size_wh[1], size_wh[0]), self.spec)
        height, width = place.resized_hw
        inside = tensor[place.top : place.top + height, place.left : place.left + width]
        small = cv2.cvtColor(shrink(halved(inside, THUMBNAIL), THUMBNAIL), cv2.COLOR_RGB2BGR)
        path = None if isinstance(item, VideoFrame) else place_of(item)
        return look_at(small, size_wh, path, to_choose=False)


def damaged(source: str) -> DataError:
    """The error for a picture whose file differs from what was written."""
    return DataError(f"the picture made from {source} is damaged on the disk; check the disk and run the command again")


def write_picture(path: Path, rgb: np.ndarray) -> bytes:
    """(h, w, 3) uint8 RGB -> a picture file, whose bytes are returned; the suffix chooses the format."""
    done, data = cv2.imencode(path.suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    if not done:
        raise RuntimeError(f"OpenCV cannot write {path.suffix}")
    written = data.tobytes()
    path.write_bytes(written)
    return written


class Workers:
    """Threads for `with`; they are enough, because OpenCV and hashlib release the interpreter lock.

    OpenCV itself uses one thread meanwhile. After an error, work that has not begun is dropped.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._pool = ThreadPoolExecutor(count)
        self._cv2_threads = cv2.getNumThreads()

    def map(self, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """work(item) for each item, in order; at most AHEAD results a thread wait to be taken, to bound the memory."""
        pending: deque[Future[R]] = deque()
        for item in items:
            pending.append(self._pool.submit(work, item))
            if len(pending) > AHEAD * self._count:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

    def __enter__(self) -> Workers:
        cv2.setNumThreads(1)
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        cv2.setNumThreads(self._cv2_threads)
