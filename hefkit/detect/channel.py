"""A bounded queue between two threads that either side can end: what `queue.Queue` lacks below Python 3.13."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Closed(Exception):
    """The other side of a channel has left."""


class Channel(Generic[T]):
    """At most `size` items wait; `put` blocks while it is full, iteration ends when the producer does."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._ended = False  # by the producer: what waits is still delivered
        self._abandoned = False  # by the consumer, or after an error: what waits is dropped

    def put(self, item: T) -> None:
        """Wait for room, then append. Raises Closed after `end` or `abandon`."""
        with self._changed:
            while len(self._items) >= self._size and not self._abandoned:
                self._changed.wait()
            if self._abandoned or self._ended:
                raise Closed
            self._items.append(item)
            self._changed.notify_all()

    def get(self, timeout_s: float | None = None) -> T:
        """Wait for an item.

        Raises:
            Closed: after `abandon`, and after `end` once nothing waits.
            TimeoutError: nothing came in time.
        """
        with self._changed:
            ready = self._changed.wait_for(lambda: self._items or self._ended or self._abandoned, timeout_s)
            if self._abandoned or (ready and not self._items):
                raise Closed
            if not ready:
                raise TimeoutError
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def __iter__(self) -> Iterator[T]:
        """Items until the channel ends or is abandoned."""
        while True:
            try:
                yield self.get()
            except Closed:
                return

    def end(self) -> None:
        """The producer has no more; calling it twice is allowed."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """Nobody will look at what waits, nor at what would come; both sides are woken."""
        with self._changed:
            self._abandoned = True
            self._items.clear()
            self._changed.notify_all()
