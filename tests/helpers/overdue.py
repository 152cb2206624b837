"""Calls that a test let come too late, and must not leave to the next one."""

from __future__ import annotations

import threading


def join_overdue() -> None:
    """Wait for every call of `hefkit.cameras.deadline` that was given up; what they wait for must have come."""
    for thread in threading.enumerate():
        if thread.name.startswith("call "):
            thread.join(30)
            assert not thread.is_alive(), f"{thread.name} still waits"
