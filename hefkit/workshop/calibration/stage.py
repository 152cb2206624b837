"""Worker threads that turn photographs into pictures of the set: read, letterbox, write as PNG, read back.

A picture is staged: it lies in a temporary folder until the set is complete. Reading it back makes sure that the digest
of the set is that of the files on the disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from hefkit.detect.preprocess import letterbox
from hefkit.errors import DataError
from hefkit.pictures.read import UnreadableImage, decode_image, is_large, read_bytes
from hefkit.pictures.sources import Item
from hefkit.spec import InputSpec

_one_large = threading.Lock()  # held as long as a large picture is in memory
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Staged:
    """One picture of the set, staged as a PNG."""

    source: str
    path: Path
    sha256: str  # of the source file's bytes
    width: int  # of the photograph, upright, in pixels
    height: int
    pixels: bytes  # sha256 of the tensor


@dataclass(frozen=True)
class Skipped:
    """One photograph that cannot be used."""

    source: str
    reason: str


def stage_picture(numbered: tuple[int, Item], spec: InputSpec, folder: Path) -> Staged | Skipped:
    """Read, decode and letterbox one photograph and write it to `folder`."""
    number, item = numbered
    try:
        data = read_bytes(item.path)
        with _one_large if is_large(data) else contextlib.nullcontext():
            picture = decode_image(data)  # (h, w, 3) uint8 BGR
            height, width = picture.shape[:2]
            tensor, _ = letterbox(picture, spec)  # (H, W, 3) uint8 RGB
            del picture
    except UnreadableImage as exc:
        return Skipped(item.source, str(exc))
    path = folder / f"staged-{number}.png"
    write_picture(path, tensor)
    return Staged(
        item.source, path, hashlib.sha256(data).hexdigest(), width, height, hashlib.sha256(tensor.data).digest()
    )


def read_back(staged: Staged) -> np.ndarray:
    """A staged PNG -> (H, W, 3) uint8 RGB. Raises DataError where it differs from what was written."""
    stored = cv2.imdecode(np.frombuffer(staged.path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    tensor = None if stored is None else cv2.cvtColor(stored, cv2.COLOR_BGR2RGB)
    if tensor is None or hashlib.sha256(tensor.data).digest() != staged.pixels:
        raise DataError(
            f"the picture made from {staged.source} is damaged on the disk; check the disk and run the command again"
        )
    return tensor


def write_picture(path: Path, rgb: np.ndarray) -> None:
    """(h, w, 3) uint8 RGB -> a picture file; the suffix chooses the format."""
    done, data = cv2.imencode(path.suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    if not done:
        raise RuntimeError(f"OpenCV cannot write {path.suffix}")
    path.write_bytes(data.data)


class Workers:
    """Threads for `with`; they are enough, because OpenCV and hashlib release the interpreter lock.

    OpenCV itself uses one thread meanwhile. After an error, work that has not begun is dropped.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._pool = ThreadPoolExecutor(count)
        self._cv2_threads = cv2.getNumThreads()

    def map(self, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """work(item) for each item, in order; at most one result a thread waits to be taken, to bound the memory."""
        pending: deque[Future[R]] = deque()
        for item in items:
            pending.append(self._pool.submit(work, item))
            if len(pending) > self._count:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

    def __enter__(self) -> Workers:
        cv2.setNumThreads(1)
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        cv2.setNumThreads(self._cv2_threads)
