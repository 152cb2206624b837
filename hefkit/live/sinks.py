"""What all sinks of the live detector share: a thread of their own, and one warning for a lasting failure.

Trouble       one warning when something stops working, one when it works again
ThreadSink    a sink whose slow work (encoding, disks) must not delay detection
"""

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

WAITING = 3  # results that may wait for a sink's thread; pictures are large
RETRY_S = 5.0  # pause after a failure, so that a full disk is not tried for every frame
END_S = 1.5  # how long `close` waits for the thread


class Trouble:
    """Warns once when something fails, and once when it works again.

    Args:
        what: the beginning of both sentences, such as "--jsonl out.jsonl".
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._since: float | None = None  # time.monotonic() of the first failure; None while all is well
        self._retry_at = 0.0

    @property
    def resting(self) -> bool:
        """Whether the last failure was less than RETRY_S ago, so that another attempt would be too early."""
        return self._since is not None and time.monotonic() < self._retry_at

    def failed(self, reason: object) -> None:
        """Note a failure; only the first one in a row is logged."""
        if self._since is None:
            log.warning("%s: %s; detection goes on", self._what, one_line(reason))
            self._since = time.monotonic()
        self._retry_at = time.monotonic() + RETRY_S

    def worked(self) -> None:
        """Note a success; logged when it follows a failure."""
        if self._since is not None:
            log.warning("%s works again, after %.0f s", self._what, time.monotonic() - self._since)
            self._since = None


class ThreadSink(ABC):
    """A sink with a thread of its own; when the thread cannot keep up, the oldest waiting results are dropped.

    Args:
        what: names the sink in warnings.
        lossless: `put` waits for the thread instead of dropping; for files, whose frames can wait as well.
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
        """Process one result, on the thread; OSError, HefkitError and cv2.error are logged, and the thread goes on."""

    def failed(self) -> None:  # noqa: B027 (most sinks have nothing to tidy up)
        """Called on the thread after `handle` has failed."""

    def finish(self) -> None:  # noqa: B027
        """Called on the thread before it ends."""

    def put(self, result: LiveResult) -> None:
        """Hand a result to the thread; waits only if `lossless`."""
        with self._changed:
            if self._lossless:
                self._changed.wait_for(lambda: len(self._waiting) < WAITING or self._closing)
            if len(self._waiting) == WAITING:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append(result)
            self._changed.notify_all()

    def close(self) -> None:
        """Handle what waits, finish, end the thread; calling it twice is allowed."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(END_S)

    def _work(self) -> None:
        while (result := self._next()) is not None:
            if not self._survive(self.handle, result):
                self._survive(self.failed)
        self._survive(self.finish)

    def _next(self) -> LiveResult | None:
        """The oldest waiting result; None once the sink is closing and nothing waits."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            result = self._waiting.popleft() if self._waiting else None
            self._changed.notify_all()
            return result

    def _survive(self, act: Callable[..., None], *args: LiveResult) -> bool:
        """Call `act`; log an expected error and return False."""
        try:
            act(*args)
        except (OSError, HefkitError, cv2.error) as exc:
            self.trouble.failed(getattr(exc, "strerror", None) or exc)
            return False
        return True
