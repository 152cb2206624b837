"""`Frame`: one picture of a source. Photographs are read ahead by threads, and come in the order of the source."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from hefkit.pictures.read import UnreadableImage, checked_header, decode_upright, read_bytes
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
    turn = _Turn()
    pool = ThreadPoolExecutor(max_workers=readers, thread_name_prefix="reader")
    try:
        for index, item in enumerate(items):
            waiting.append(pool.submit(_read, index, item, turn))
            if len(waiting) > AHEAD:
                yield turn.next(waiting.popleft())
        while waiting:
            yield turn.next(waiting.popleft())
    finally:
        turn.end()
        # after an error or Ctrl-C: drop what has not begun, do not wait for the picture being read
        pool.shutdown(wait=False, cancel_futures=True)


class _Turn:
    """A large picture is decoded only when it is the next one to be taken, so that few are in memory."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._next: float = -1  # index of the frame that the caller waits for

    def next(self, frame: Future[Frame]) -> Frame:
        """Wait for the next frame."""
        self._come_to(self._next + 1)
        return frame.result()

    def end(self) -> None:
        """Let all threads go on; no frame is taken any more."""
        self._come_to(math.inf)

    def _come_to(self, index: float) -> None:
        with self._changed:
            self._next = index
            self._changed.notify_all()

    def wait_for(self, index: int) -> None:
        """Wait, on a reader's thread, until frame `index` is the next."""
        with self._changed:
            self._changed.wait_for(lambda: self._next >= index)


def _read(index: int, item: Item, turn: _Turn) -> Frame:
    start = time.perf_counter()
    picture: Picture
    waited = 0.0
    try:
        header = checked_header(read_bytes(item.path))
        if header.is_large:
            begun = time.perf_counter()
            turn.wait_for(index)
            waited = time.perf_counter() - begun
        picture = decode_upright(header)
    except UnreadableImage as exc:
        picture = exc
    return Frame(index, item.source, None, picture, time.perf_counter() - start - waited)
