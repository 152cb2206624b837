"""`Frame`: one picture of a source. Photographs are read ahead by threads, and come in the order of the source."""

from __future__ import annotations

import functools
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from hefkit.pictures.header import UnreadableImage, checked_header
from hefkit.pictures.read import decode, read_bytes
from hefkit.pictures.sources import Item

READERS = 2  # threads that decode pictures; OpenCV releases the GIL
AHEAD = 4  # pictures read before they are needed; bounds the memory
HELD_BYTES = 1 << 28  # of pictures in memory (ten with 9 million pixels); beyond it no other picture is decoded

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
    # called by the consumer when the picture is no longer needed
    done: Callable[[], None] = lambda: None


def read_photographs(items: Iterable[Item], readers: int = READERS) -> Generator[Frame, None, None]:
    """Yield every item as a frame, in order; the threads read at most AHEAD pictures in advance.

    Call `done` of a frame when its picture is no longer needed: while the pictures in memory hold more than HELD_BYTES
    the next one is not decoded.
    """
    waiting: deque[Future[Frame]] = deque()
    held = _Held()
    pool = ThreadPoolExecutor(max_workers=readers, thread_name_prefix="reader")
    try:
        for index, item in enumerate(items):
            waiting.append(pool.submit(_read, index, item, held))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        held.end()
        # after an error or Ctrl-C: drop what has not begun, do not wait for the picture being read
        pool.shutdown(wait=False, cancel_futures=True)


class _Held:
    """Bytes of the pictures that are in memory. They are counted in the order of the items, so that no picture waits
    for ever for a later one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._bytes = 0
        self._next = 0  # index of the picture whose turn it is
        self._ended = False

    def wait_for(self, index: int, size: int) -> None:
        """Wait, on a reader's thread, until picture `index` may be decoded, and count its bytes.

        Raises:
            CancelledError: no frame is taken any more.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ended or (self._next == index and self._bytes <= HELD_BYTES))
            if self._ended:
                raise CancelledError
            self._next = index + 1
            self._bytes += size
            self._changed.notify_all()

    def free(self, size: int) -> None:
        """A picture of so many bytes is no longer needed."""
        with self._changed:
            self._bytes -= size
            self._changed.notify_all()

    def end(self) -> None:
        """No frame is taken any more, and no thread waits."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()


def _read(index: int, item: Item, held: _Held) -> Frame:
    start = time.perf_counter()
    try:
        header = checked_header(read_bytes(item.path))
    except UnreadableImage as exc:
        held.wait_for(index, 0)
        return Frame(index, item.source, None, exc, time.perf_counter() - start)
    size, begun = header.decoded_bytes, time.perf_counter()
    held.wait_for(index, size)
    waited = time.perf_counter() - begun
    try:
        picture = decode(header)
    except UnreadableImage as exc:
        held.free(size)
        return Frame(index, item.source, None, exc, time.perf_counter() - start - waited)
    seconds = time.perf_counter() - start - waited
    return Frame(index, item.source, None, picture, seconds, done=functools.partial(held.free, size))
