"""Reads HEFs in a process of its own, so that their memory and time can be told from those of the tests.

    python -m tests.helpers.hef_worker GOOD.hef

Paths come in, one a line; a JSON object goes out for each: what became of it, how long it took, and how long the
processor worked on it. After the last one comes how much memory all of them together needed at most, beyond what the
imports and the good file had taken. A file that takes longer than HANG_S ends the process.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

HANG_S = 60


def main() -> None:
    """Read what stdin names."""
    inspect(Path(sys.argv[1]))
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = memory("VmRSS")
    for line in sys.stdin:
        signal.alarm(HANG_S)
        start, cpu = time.perf_counter(), time.process_time()
        outcome = attempt(Path(line.rstrip("\n")))
        say({"outcome": outcome, "seconds": time.perf_counter() - start, "cpu_s": time.process_time() - cpu})
        signal.alarm(0)
    say({"grown_mb": (memory("VmHWM") - before) / 1024})


def attempt(path: Path) -> str:
    """`read`, `refused`, or the exception that should not have been."""
    from hefkit.errors import ModelError

    try:
        inspect(path)
    except ModelError as exc:
        return "refused" if "\n" not in str(exc) else "more than one line"
    except BaseException as exc:  # noqa: BLE001 - whatever it is, the test wants to know
        return f"{type(exc).__name__}: {exc}"
    return "read"


def inspect(path: Path) -> None:
    """All that validate_hef.py does with a file but printing it."""
    from hefkit.hef.file import read_hef
    from hefkit.hef.words import describe
    from validate_hef import table

    hef = read_hef(path)
    json.dumps(hef.to_json(), allow_nan=False)
    if any("\n" in line or not line.isprintable() for line in [*table(hef), *describe(hef)]):
        raise ValueError("a line of the table is no line")


def memory(key: str) -> int:
    """KiB of this process: `VmRSS` now, `VmHWM` at most."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1])
    raise KeyError(key)


def say(result: dict[str, object]) -> None:
    """One line, at once."""
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
