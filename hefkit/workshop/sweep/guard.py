"""Runs one command for a worker, and ends the command when the worker ends or is killed.

python guard.py FOLDER COMMAND ...      works in FOLDER; the exit code is the command's

The worker holds the other end of this process's stdin. That end closes when the worker stops the candidate, and also
when the worker is killed. Then this process ends the command and removes FOLDER, which only this candidate uses.
Standard library only: it runs as a lone file.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time

GRACE_S = 15.0  # the command itself waits for 5 s for the SDK's process
POLL_S = 0.1


def main(folder: str, command: list[str]) -> int:
    """Run the command until it ends or stdin is closed."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        while process.poll() is None:
            if select.select([0], [], [], POLL_S)[0] and not os.read(0, 1):
                return _end(process, folder)
    except BaseException:
        _end(process, folder)
        raise
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def _end(process: subprocess.Popen[bytes], folder: str) -> int:
    """SIGTERM, after a while SIGKILL, to the command and all that it has started."""
    until = time.monotonic() + GRACE_S
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    while process.poll() is None and time.monotonic() < until:
        time.sleep(POLL_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    shutil.rmtree(folder, ignore_errors=True)
    return 128 + signal.SIGTERM


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
