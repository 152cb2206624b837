"""A time limit for calls that have none: drivers, name look-ups, libraries that may wait forever for a device.

Python cannot end a thread that waits inside a library. Such a call goes on in its own thread: what it returns later is
closed at once, and until then the same device is not tried again. So weeks of retries need one thread, not thousands.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

T = TypeVar("T")

_overdue: dict[str, threading.Thread] = {}  # calls that passed their limit, by device
_lock = threading.Lock()


class Late(Exception):
    """The call has not returned in time, or an earlier call about the same device still has not."""


def within(seconds: float, what: str, action: Callable[[], T], undo: Callable[[T], object] = lambda value: None) -> T:
    """Run `action` with a time limit and return its result.

    Args:
        seconds: the longest wait.
        what: the device that the call is about; while a call about it is overdue, a second one is refused.
        action: runs in a thread of its own.
        undo: closes what `action` returned too late.

    Raises:
        Late: it has not returned; its thread goes on.
        Whatever `action` raises.
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
    """Set the future's result. If the caller has cancelled it before, the result came too late and is undone here."""
    try:
        value = action()
    except BaseException as exc:  # noqa: BLE001 (raised again in the caller's thread)
        if future.set_running_or_notify_cancel():
            future.set_exception(exc)
        return
    if future.set_running_or_notify_cancel():
        future.set_result(value)
        return
    with contextlib.suppress(Exception):  # the caller has gone on
        undo(value)
