"""Reads HEFs in a separate process, to measure their memory and time without those of the tests.

    python -m tests.helpers.hef_worker GOOD.hef

stdin has one path a line. stdout has a JSON object for each: the outcome, the seconds, and the seconds of processor
time. A last object has the peak memory of all files, without that of the imports and the good file. A file that takes
longer than HANG_S ends the process.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

HANG_S = 60  # seconds for one file


def main() -> None:
    """Read the files that stdin names."""
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
    """`read`, `refused`, or the unexpected exception."""
    from hefkit.errors import ModelError

    try:
        inspect(path)
    except ModelError as exc:
        return "refused" if "\n" not in str(exc) else "more than one line"
    except BaseException as exc:  # noqa: BLE001 - the test reports every exception
        return f"{type(exc).__name__}: {exc}"
    return "read"


def inspect(path: Path) -> None:
    """Everything that validate_hef.py does with a file, without printing."""
    from hefkit.hef.file import read_hef
    from hefkit.hef.words import describe
    from validate_hef import table

    hef = read_hef(path)
    json.dumps(hef.to_json(), allow_nan=False)
    if any("\n" in line or not line.isprintable() for line in [*table(hef), *describe(hef)]):
        raise ValueError("a line of the table is no line")


def memory(key: str) -> int:
    """Memory of this process in KiB: `VmRSS` now, `VmHWM` peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1])
    raise KeyError(key)


def say(result: dict[str, object]) -> None:
    """Print one line and flush."""
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
