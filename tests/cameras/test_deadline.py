"""A call that does not return does not stop the program, and is not made again meanwhile."""

from __future__ import annotations

import threading

import pytest

from hefkit.cameras.deadline import Late, within
from tests.helpers.overdue import join_overdue

LONG_S = 30.0


def test_what_returns_in_time_is_returned() -> None:
    """And nothing is undone."""
    undone: list[int] = []

    assert within(LONG_S, "a thing", lambda: 7, undo=undone.append) == 7
    assert undone == []


@pytest.mark.parametrize("error", [ValueError("no"), TimeoutError("its own"), KeyboardInterrupt()])
def test_what_it_raises_is_raised_here(error: BaseException) -> None:
    """Also an error of its own that sounds like ours."""

    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        within(LONG_S, "a thing", fail)
    assert caught.value is error


def test_what_comes_late_is_undone() -> None:
    """The caller has gone on, so the thread that got it closes it."""
    come, undone = threading.Event(), threading.Event()
    closed: list[str] = []

    def undo(value: str) -> None:
        closed.append(value)
        undone.set()

    with pytest.raises(Late):
        within(0.02, "a slow thing", lambda: come.wait(LONG_S) and "handle", undo=undo)
    come.set()

    assert undone.wait(LONG_S) and closed == ["handle"]


def test_the_same_thing_is_not_tried_twice_at_once() -> None:
    """A thousand retries of a call that hangs are one thread; other things are not held up."""
    come, calls = threading.Event(), []

    def hang() -> None:
        calls.append(1)
        come.wait(LONG_S)

    before = threading.active_count()
    for _ in range(1000):
        with pytest.raises(Late):
            within(0.02, "a stuck thing", hang)
    assert (len(calls), threading.active_count()) == (1, before + 1)
    assert within(LONG_S, "another thing", lambda: 1) == 1

    come.set()
    join_overdue()
    assert within(LONG_S, "a stuck thing", lambda: 2) == 2


def test_errors_that_come_late_are_dropped() -> None:
    """Those of the call and those of closing its result."""
    come = threading.Event()

    def fail() -> None:
        come.wait(LONG_S)
        raise RuntimeError("too late")

    def undo(value: bool) -> None:
        raise RuntimeError("cannot be closed")

    with pytest.raises(Late):
        within(0.02, "a failing thing", fail)
    with pytest.raises(Late):
        within(0.02, "a thing that cannot be undone", lambda: come.wait(LONG_S), undo=undo)
    come.set()
    join_overdue()
