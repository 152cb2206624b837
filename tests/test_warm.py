"""A script that is forked from the warm interpreter does what it does in a new one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import DOUBLES, WARM
from tests.helpers.warm import Forked

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="scripts are forked on Linux only")

PROGRAM = """\
import os, signal, sys
here = {name for name in globals() if not name.startswith("__")}
shown = {k: v for k, v in os.environ.items() if k.startswith("TOLD") or k == "PYTHONPATH"}
print(__name__, __file__, sys.argv, os.getcwd(), sorted(shown.items()), sys.stdin.read(), sorted(here))
print(sys.path[:2], os.listdir("/proc/self/fd")[:3], signal.getsignal(signal.SIGINT), os.isatty(1), file=sys.stderr)
"""
ENDINGS = {
    "nothing": "",
    "a code": "sys.exit(3)",
    "words": "sys.exit('words')",
    "an exception": "1 / 0",
    "a signal": "sys.stdout.flush(); os.kill(os.getpid(), signal.SIGKILL)",
    "at the end": "import atexit; atexit.register(print, 'last words')",
    "a thread": "import threading; threading.Timer(0.05, print, ['late']).start()",
}


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS.keys())
def test_a_fork_is_like_a_new_process(tmp_path: Path, ending: str) -> None:
    """Arguments, folder, variables, streams, exit code, and what is printed last."""
    script = tmp_path / "program.py"
    script.write_text(PROGRAM + ending + "\n")
    environment = {**os.environ, "TOLD": "yes", "PYTHONPATH": str(DOUBLES)}
    (tmp_path / "in").write_text("asked")

    def run(name: str) -> tuple[int, str, list[str]]:
        command, out, err = [str(script), "--flag", "two words"], tmp_path / f"{name}.out", tmp_path / f"{name}.err"
        with open(tmp_path / "in") as stdin, open(out, "w") as stdout, open(err, "w") as stderr:
            if name == "new":
                process: subprocess.Popen[bytes] | Forked = subprocess.Popen(
                    [sys.executable, *command], cwd=tmp_path, env=environment,
                    stdin=stdin, stdout=stdout, stderr=stderr,
                )  # fmt: skip
            else:
                files = {0: stdin.fileno(), 1: stdout.fileno(), 2: stderr.fileno()}
                process = WARM.start(command, cwd=tmp_path, environment=environment, files=files)
            code = process.wait(60)
        lines = err.read_text().splitlines()
        return code, out.read_text(), [lines[0], lines[-1]]  # a traceback between them has frames of ours

    assert run("forked") == run("new")


def test_a_fork_is_our_child_and_leads_its_session(tmp_path: Path) -> None:
    """It is stopped by a signal to its group, and its end is told to us and not to the warm interpreter."""
    script = tmp_path / "program.py"
    script.write_text("import time; time.sleep(60)\n")
    with open(os.devnull, "r+") as nothing:
        files = dict.fromkeys(range(3), nothing.fileno())
        process = WARM.start([str(script)], cwd=tmp_path, environment=dict(os.environ), files=files, own_session=True)

    assert Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[1] == str(os.getpid())
    while os.getpgid(process.pid) != process.pid:  # it has only just begun
        pass
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(60) == -signal.SIGTERM


def test_what_is_decided_at_the_start_is_not_forked(tmp_path: Path) -> None:
    """A variable of Python's own, a package in front of the imported ones, another home."""
    usual = dict(os.environ)

    assert WARM.can_run(usual) and WARM.can_run({**usual, "PYTHONPATH": str(DOUBLES), "HAILO_DOUBLE": "{}"})
    for name, value in (("PYTHONHASHSEED", "1"), ("LC_ALL", "C"), ("PYTHONPATH", str(tmp_path)), ("HOME", "/none")):
        assert not WARM.can_run({**usual, name: value})
