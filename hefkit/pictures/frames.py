"""Pictures on their way: one `Frame` each, read ahead by threads, in the order of the source."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from hefkit.pictures.read import UnreadableImage, read_image
from hefkit.pictures.sources import Item

READERS = 2  # threads that decode pictures; OpenCV lets the others run meanwhile
AHEAD = 4  # pictures read before they are asked for: bounds the memory

Picture = np.ndarray | UnreadableImage  # (h, w, 3) uint8 BGR, upright, or the reason why there is none


@dataclass(frozen=True)
class Frame:
    """One picture of a source."""

    index: int  # place in the run, from 0
    source: str  # what results call it
    number: int | None  # of a video's frame, from 0; None for a photograph
    picture: Picture
    read_s: float  # seconds that reading took
    captured: float = 0.0  # time.monotonic() when a camera gave it
    # (h, w, 3) uint8 RGB: the same view, scaled down by the camera; takes the place of the letterbox's resize
    small: np.ndarray | None = None


def read_photographs(items: Iterable[Item], readers: int = READERS) -> Generator[Frame, None, None]:
    """Every item as a frame, in order; a few threads stay at most AHEAD pictures in front."""
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
        # after an error or Ctrl-C: what has not begun is dropped, the picture in hand is not waited for
        pool.shutdown(wait=False, cancel_futures=True)


def _read(index: int, item: Item) -> Frame:
    start = time.perf_counter()
    picture: Picture
    try:
        picture = read_image(item.path)
    except UnreadableImage as exc:
        picture = exc
    return Frame(index, item.source, None, picture, time.perf_counter() - start)
