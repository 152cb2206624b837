"""Calls that outlived their deadline in a test, and must end before the next test."""

from __future__ import annotations

import threading


def join_overdue() -> None:
    """Wait for every call that `hefkit.cameras.deadline` gave up; the test must have ended what they wait for."""
    for thread in threading.enumerate():
        if thread.name.startswith("call "):
            thread.join(30)
            assert not thread.is_alive(), f"{thread.name} still waits"
