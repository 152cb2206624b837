"""TODO."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable

import cv2

from hefkit.errors import HefkitError
from hefkit.live.state import LiveResult
from hefkit.text import log, one_line

WAITING = 3  # results that may wait for a sink's thread: pictures are large


RETRY_S = 5.0  # after a failure, so that a full disk is not asked thirty times a second


class Trouble:
    """Says once that something is wrong, and once that it is right again."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._since: float | None = None
        self._again = 0.0

    @property
    def resting(self) -> bool:
        """Whether the last failure is so fresh that trying again is no use."""
        return self._since is not None and time.monotonic() < self._again

    def failed(self, reason: object) -> None:
        """It did not work."""
        if self._since is None:
            log.warning("%s: %s; detection goes on", self._what, one_line(reason))
            self._since = time.monotonic()
        self._again = time.monotonic() + RETRY_S

    def worked(self) -> None:
        """It did."""
        if self._since is not None:
            log.warning("%s works again, after %.0f s", self._what, time.monotonic() - self._since)
            self._since = None


class ThreadSink(ABC):
    """A sink with a thread of its own; when it cannot keep up, the oldest results that wait are dropped.

    `lossless`: `put` waits for room instead. For files, whose frames wait too.
    """

    def __init__(self, what: str, *, lossless: bool = False) -> None:
        self.trouble = Trouble(what)
        self.dropped = 0
        self._waiting: deque[LiveResult] = deque()
        self._changed = threading.Condition()
        self._closing, self._lossless = False, lossless
        self._thread = threading.Thread(target=self._work, name=f"sink {what}", daemon=True)
        self._thread.start()

    @abstractmethod
    def handle(self, result: LiveResult) -> None:
        """Take one result, on the thread; OSError and HefkitError are told and survived."""

    def failed(self) -> None:  # noqa: B027 (most have nothing to put in order)
        """Called after `handle` has failed."""

    def finish(self) -> None:  # noqa: B027
        """The thread's last act."""

    def put(self, result: LiveResult) -> None:
        """Hand a result over; waits only where nothing may be lost."""
        with self._changed:
            if self._lossless:
                self._changed.wait_for(lambda: len(self._waiting) < WAITING or self._closing)
            if len(self._waiting) == WAITING:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append(result)
            self._changed.notify_all()

    def close(self) -> None:
        """Handle what waits, finish, end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(1.5)

    def _work(self) -> None:
        while (result := self._next()) is not None:
            if not self._survive(self.handle, result):
                self._survive(self.failed)
        self._survive(self.finish)

    def _next(self) -> LiveResult | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            result = self._waiting.popleft() if self._waiting else None
            self._changed.notify_all()
            return result

    def _survive(self, act: Callable[..., None], *args: LiveResult) -> bool:
        try:
            act(*args)
        except (OSError, HefkitError, cv2.error) as exc:
            self.trouble.failed(getattr(exc, "strerror", None) or exc)
            return False
        return True
