"""Signals that wait for an import to end.

Python runs a signal's handler between two of its own instructions, in the middle of an import as well. An exception
that is raised there passes through the initialisation of a C extension: some take it for a missing package, some crash.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType

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
