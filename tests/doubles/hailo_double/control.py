"""How the simulated machine behaves, and which rules its user broke.

A test in the same process sets `settings`. A test that starts a script puts the same keys as JSON into the
environment variable HAILO_DOUBLE. `violations` lists what would give undefined behaviour, wrong results or the end of
the process with the real HailoRT; a script's process appends them to the file that the key `violations` names.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any


@dataclass
class Settings:
    """The machine and its faults; every test begins with a healthy Hailo-8."""

    devices: list[dict[str, Any]] = field(default_factory=lambda: [{"id": "0001:01:00.0", "arch": "HAILO8"}])
    library: str = "4.23.0"
    firmware: tuple[int, int, int] = (4, 23, 0)
    temperature: tuple[float, float] | None = (45.25, 46.5)  # None: the firmware does not know it
    queue_size: int | None = None  # None: as libhailort computes it, with the service's maximum of 8
    service_ms: float = 0.0  # of one frame
    # stage -> status of its failure; "stage+N": the first N calls succeed, all later ones fail
    faults: dict[str, int] = field(default_factory=dict)
    flood: int | None = None  # status of the jobs behind a failed one; None: the same
    hang_after: int | None = None  # frames that are still computed
    not_ready: int = 0  # calls of wait_for_async_ready that time out although there is room
    models_may_linger: bool = False  # infer models that Python has not collected when the VDevice is released
    violations: str | None = None  # file to append them to


settings = Settings()
violations: list[str] = []
events: list[str] = []
_calls: dict[str, int] = {}
_lock = threading.Lock()


def reset(**values: Any) -> None:
    """A machine with these settings; clear all records."""
    for item in fields(Settings):
        setattr(settings, item.name, values.pop(item.name, getattr(Settings(), item.name)))
    assert not values, f"no such settings: {values}"
    violations.clear()
    events.clear()
    _calls.clear()


def violation(text: str) -> None:
    """The user broke a rule."""
    with _lock:
        violations.append(text)
        if settings.violations:
            with open(settings.violations, "a", encoding="utf-8") as file:
                file.write(text + "\n")


def event(text: str) -> None:
    """Record an event; tests check the order."""
    with _lock:
        events.append(text)


def fault(stage: str) -> int | None:
    """The status with which this call of a stage must fail, or None."""
    with _lock:
        count = _calls[stage] = _calls.get(stage, 0) + 1
    for key, status in settings.faults.items():
        name, _, good = key.partition("+")
        if name == stage and count > int(good or 0):
            return status
    return None


if "HAILO_DOUBLE" in os.environ:
    reset(**json.loads(os.environ["HAILO_DOUBLE"]))
    if settings.violations:
        Path(settings.violations).touch()
