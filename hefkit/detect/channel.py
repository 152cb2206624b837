"""A bounded queue between two threads; both sides can end it; `queue.Queue` can do that only from Python 3.13 on."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Closed(Exception):
    """The channel was ended or abandoned."""


class Channel(Generic[T]):
    """Holds at most `size` items. `put` blocks while it is full; iteration ends after `end`."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._ended = False  # by the producer: waiting items are still delivered
        self._abandoned = False  # by the consumer, or after an error: waiting items are dropped

    def put(self, item: T) -> None:
        """Wait while the channel is full, then append. Raises Closed after `end` or `abandon`."""
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
            Closed: after `abandon`; after `end`, when no item is left.
            TimeoutError: there was no item in time.
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
        """Yield items until the channel is ended or abandoned."""
        while True:
            try:
                yield self.get()
            except Closed:
                return

    def end(self) -> None:
        """Say that no more items will come; calling it twice is allowed."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """Drop the waiting items and refuse new ones; wakes both sides."""
        with self._changed:
            self._abandoned = True
            self._items.clear()
            self._changed.notify_all()
