"""`Frame`: one picture of a source. Photographs are read ahead by threads, and come in the order of the source."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from hefkit.pictures.read import UnreadableImage, read_image
from hefkit.pictures.sources import Item

READERS = 2  # threads that decode pictures; OpenCV releases the GIL
AHEAD = 4  # pictures read before they are needed; bounds the memory

Picture = np.ndarray | UnreadableImage  # (h, w, 3) uint8 BGR, upright, or the reason why it cannot be read


@dataclass(frozen=True)
class Frame:
    """One picture of a source."""

    index: int  # in the run, from 0
    source: str  # its name in results
    number: int | None  # of a frame in a video, from 0; None for a photograph
    picture: Picture
    read_s: float  # seconds that reading took
    captured: float = 0.0  # time.monotonic() when a camera delivered it
    # (h, w, 3) uint8 RGB: the same view, scaled down by the camera; replaces the resize of the letterbox
    small: np.ndarray | None = None


def read_photographs(items: Iterable[Item], readers: int = READERS) -> Generator[Frame, None, None]:
    """Yield every item as a frame, in order; the threads read at most AHEAD pictures in advance."""
    waiting: deque[Future[Frame]] = deque()
    pool = ThreadPoolExecutor(max_workers=readers, thread_name_prefix="reader")
    try:
        for index, item in enumerate(items):
            waiting.append(pool.submit(_read, index, item))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # after an error or Ctrl-C: drop what has not begun, do not wait for the picture being read
        pool.shutdown(wait=False, cancel_futures=True)


def _read(index: int, item: Item) -> Frame:
    start = time.perf_counter()
    picture: Picture
    try:
        picture = read_image(item.path)
    except UnreadableImage as exc:
        picture = exc
    return Frame(index, item.source, None, picture, time.perf_counter() - start)
