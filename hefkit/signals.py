"""Ctrl-C and SIGTERM: they wait for an import to end, and a live program is asked to stop before it is made to.

Python runs a signal's handler between two of its own instructions, in the middle of an import as well. An exception
that is raised there passes through the initialisation of a C extension: some take it for a missing package, some crash.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from hefkit.errors import EXIT_INTERRUPTED

AGAIN_S = 0.02

Handler = Callable[[int, "FrameType | None"], object]


def after_imports(handler: Handler) -> Handler:
    """A handler that does the same, but never in the middle of an import: there the signal comes again later."""

    def arrived(number: int, frame: FrameType | None) -> None:
        if _importing(frame):
            again = threading.Timer(AGAIN_S, _send, (number,))
            again.daemon = True
            again.start()
        else:
            handler(number, frame)

    return arrived


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _send(number: int) -> None:
    main = threading.main_thread().ident
    if main is not None and hasattr(signal, "pthread_kill"):
        signal.pthread_kill(main, number)  # to that thread, so that it wakes whatever it waits for
    else:
        signal.raise_signal(number)


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
