"""A candidate whose worker is gone ends, with all that it has started."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from hefkit.workshop.sweep import guard

CHILD = "import subprocess, sys, time; p = subprocess.Popen(['sleep', '77']); print(p.pid, flush=True); time.sleep(77)"


def guarded(folder: Path, *command: str) -> subprocess.Popen[str]:
    """The guard with a command, as a worker starts it."""
    return subprocess.Popen(
        [sys.executable, guard.__file__, str(folder), *command],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


@pytest.mark.parametrize("end", ["stdin", "terminate"])
def test_nothing_is_left_of_a_stopped_candidate(tmp_path: Path, end: str) -> None:
    """Not the command, not its child, not its folder: when stdin closes, and when the guard itself is ended."""
    folder = tmp_path / "job"
    folder.mkdir()
    with guarded(folder, sys.executable, "-c", CHILD) as process:
        assert process.stdin is not None and process.stdout is not None
        child = Path("/proc", process.stdout.readline().strip())
        assert child.exists()

        if end == "stdin":
            process.stdin.close()
        else:
            process.terminate()

        assert process.wait(20) == 143
    until = time.monotonic() + 10
    while child.exists() and "Z" not in child.joinpath("stat").read_text() and time.monotonic() < until:
        time.sleep(0.05)
    assert not child.exists() or "Z" in child.joinpath("stat").read_text()
    assert not folder.exists()


@pytest.mark.parametrize("code, seen", [("import sys; sys.exit(4)", 4), ("import os; os.kill(os.getpid(), 9)", 137)])
def test_the_exit_code_is_the_command_s(tmp_path: Path, code: str, seen: int) -> None:
    """A command that is killed by signal 9, as the kernel does when memory is full, is 137."""
    with guarded(tmp_path, sys.executable, "-c", code) as process:
        assert process.wait(20) == seen
    assert tmp_path.exists()
