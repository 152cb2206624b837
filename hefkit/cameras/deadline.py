"""A deadline for calls that have none: drivers, name look-ups, libraries that wait for a device for ever.

Python cannot end a thread that waits inside a library. Such a call is left to itself: what it returns one day is
given back at once, and until then the same thing is not tried again, so that weeks of retries do not pile up threads.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

T = TypeVar("T")

_overdue: dict[str, threading.Thread] = {}  # calls that were given up, by what they are about
_lock = threading.Lock()


class Late(Exception):
    """The call has not returned in time, or the one before it still has not."""


def within(seconds: float, what: str, action: Callable[[], T], undo: Callable[[T], object] = lambda value: None) -> T:
    """What `action` returns, if it does so in time.

    Args:
        seconds: the longest wait.
        what: the thing that the call is about; a second call about it is refused while the first is overdue.
        action: runs on a thread of its own.
        undo: gives back what a call returned that nobody waited for any more.

    Raises:
        Late: it did not return, and goes on without us.
        what `action` raised.
    """
    future: Future[T] = Future()
    thread = threading.Thread(target=_work, args=(future, action, undo), name=f"call {what}", daemon=True)
    with _lock:
        if what in _overdue and _overdue[what].is_alive():
            raise Late
        _overdue.pop(what, None)
    thread.start()
    wait([future], seconds)
    if future.done() or not future.cancel():
        return future.result()
    with _lock:
        _overdue[what] = thread
    raise Late


def _work(future: Future[T], action: Callable[[], T], undo: Callable[[T], object]) -> None:
    """Fill the future; whichever comes first, our result or its cancellation, decides who cleans up."""
    try:
        value = action()
    except BaseException as exc:  # noqa: BLE001 (raised again where it is waited for)
        if future.set_running_or_notify_cancel():
            future.set_exception(exc)
        return
    if future.set_running_or_notify_cancel():
        future.set_result(value)
        return
    with contextlib.suppress(Exception):  # nobody is left who could be told
        undo(value)
