"""How much memory is free, on this machine or in this container. Standard library only."""

from __future__ import annotations

import contextlib
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
GB = 10**9


def available_memory(meminfo: Path = Path("/proc/meminfo"), cgroups: Path = CGROUPS) -> int | None:
    """Bytes of memory that a new process may use, in this machine or this container; None: not known."""
    available = None
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        kib = [int(lines[key].split()[0]) for key in ("MemAvailable", "SwapFree") if key in lines]
        available = 1024 * sum(kib) if "MemAvailable" in lines else None
    for folder, limit, used in (
        (cgroups, "memory.max", "memory.current"),
        (cgroups / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        # v2 says "max" where there is no limit, v1 a number that no machine has
        with contextlib.suppress(OSError, ValueError):
            left = int((folder / limit).read_text()) - int((folder / used).read_text()) + _reclaimable(folder)
            available = left if available is None else min(available, left)
    return available


def _reclaimable(folder: Path) -> int:
    """Bytes of a container that hold files and are freed when they are needed; they count as used."""
    with contextlib.suppress(OSError, ValueError):
        lines = dict(line.split(" ", 1) for line in (folder / "memory.stat").read_text().splitlines() if " " in line)
        return int(lines.get("total_inactive_file") or lines.get("inactive_file") or 0)
    return 0
