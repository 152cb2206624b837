"""Reads HEFs in a separate process, to measure their memory and time without those of the tests.

    python -m tests.helpers.hef_worker GOOD.hef

stdin has one path a line. stdout has a JSON object for each: the outcome, what was said of a refused file, the seconds,
the seconds of processor time, and the peak memory so far, without that of the imports and the good file. A file that
takes longer than HANG_S ends the process.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
HANG_S = 60  # seconds for one file


def main() -> None:
    """Read the files that stdin names."""
    inspect(Path(sys.argv[1]))
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = memory("VmRSS")
    for line in sys.stdin:
        signal.alarm(HANG_S)
        start, cpu = time.perf_counter(), time.process_time()
        outcome, words = attempt(Path(line.rstrip("\n")))
        seconds, cpu_s = time.perf_counter() - start, time.process_time() - cpu
        grown_mb = (memory("VmHWM") - before) / 1024
        say({"outcome": outcome, "words": words, "seconds": seconds, "cpu_s": cpu_s, "grown_mb": grown_mb})
        signal.alarm(0)


def started(good: Path) -> subprocess.Popen[str]:
    """This module as a process."""
    command = [sys.executable, "-m", "tests.helpers.hef_worker", str(good)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask(process: subprocess.Popen[str], path: Path) -> dict[str, Any]:
    """What it says of a file."""
    assert process.stdin and process.stdout
    process.stdin.write(f"{path}\n")
    process.stdin.flush()
    reply = process.stdout.readline()
    assert reply, f"the reader ended or hung; the file is {path}"
    return json.loads(reply)


def attempt(path: Path) -> tuple[str, str]:
    """`read`, `refused`, or the unexpected exception; and the message of a refusal."""
    from hefkit.errors import ModelError

    try:
        inspect(path)
    except ModelError as exc:
        return "refused" if "\n" not in str(exc) else "more than one line", str(exc)
    except BaseException as exc:  # noqa: BLE001 - the test reports every exception
        return f"{type(exc).__name__}: {exc}", ""
    return "read", ""


def inspect(path: Path) -> None:
    """Everything that validate_hef.py does with a file, without printing."""
    from hefkit.hef.file import read_hef
    from hefkit.hef.table import table
    from hefkit.hef.words import describe

    hef = read_hef(path)
    json.dumps(hef.to_json(), allow_nan=False)
    if any("\n" in line or not line.isprintable() for line in [*table(hef), *describe(hef)]):
        raise ValueError("a line of the table is not one printable line")


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
