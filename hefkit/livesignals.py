"""Ctrl-C and SIGTERM for a program that runs for weeks: the first asks it to stop, a second Ctrl-C insists."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from hefkit.cli import EXIT_INTERRUPTED
from hefkit.signals import after_imports


class StopRequested(BaseException):
    """Asked to stop before the loop began; raised so that every `finally` still runs."""


class StopSignals:
    """Within the block, SIGINT and SIGTERM set `stop`; before `listening()` they raise StopRequested instead.

    `exit_code` is 130 after Ctrl-C and 0 after SIGTERM: whoever supervises a detector asks it to end like that.
    """

    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop
        self._listening = False
        self._before: dict[int, Any] = {}
        self.exit_code = 0

    def listening(self) -> None:
        """From now on somebody looks at `stop`."""
        self._listening = True

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self.stop.is_set():
                raise KeyboardInterrupt
            self.exit_code = EXIT_INTERRUPTED
        self.stop.set()
        if not self._listening:
            raise StopRequested

    def __enter__(self) -> StopSignals:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, after_imports(self._arrived))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
