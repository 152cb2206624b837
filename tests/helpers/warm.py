"""Scripts as processes without the start of an interpreter: they are forked from a warm one (warm_python.py).

A warm interpreter has imported the packages that scripts need, and waits for orders. A process that it forks becomes a
child of the tests: its exit code and its signals are those of any process.

What is decided when Python starts or a package is imported cannot be changed in a fork; `can_run` looks for that.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

SERVER = Path(__file__).with_name("warm_python.py")
# a variable that begins so, except for the two, may be read when Python starts or when a package is imported
AT_START = ("PYTHON", "LC_", "LANG", "LD_PRELOAD", "MALLOC_", "OMP_", "OPENBLAS_", "OPENCV_LOG_LEVEL", "HOME")
FOLLOWED = ("PYTHONPATH", "PYTHONUNBUFFERED")
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of prctl(2)


class Forked:
    """A process that was forked from a warm interpreter, with the part of `subprocess.Popen` that the tests use."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """The exit code; -9: killed by signal 9, as it is here after `timeout` seconds."""
        if self.returncode is None:
            process = os.pidfd_open(self.pid)
            if not select.select([process], [], [], timeout)[0]:
                os.kill(self.pid, signal.SIGKILL)
            os.close(process)
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode


class Warm:
    """A warm interpreter; it starts with the first order and ends with this process.

    Args:
        modules: what it imports.
        path: of modules that are not installed; the forks do not have it.
        may_add: values of PYTHONPATH that replace none of the modules.
    """

    def __init__(self, *modules: str, path: Sequence[str] = (), may_add: Sequence[str] = ()) -> None:
        self._imports, self._may_add = json.dumps({"modules": modules, "path": list(path)}), ("", *may_add)
        variables = {**os.environ, "ORT_DISABLE_TELEMETRY": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._environment = {name: value for name, value in variables.items() if name != "PYTHONPATH"}
        self._decisive = _decisive(os.environ)
        self._socket: socket.socket | None = None

    def can_run(self, environment: Mapping[str, str]) -> bool:
        """Whether a fork runs in this environment as a new interpreter would."""
        path = environment.get("PYTHONPATH", "")
        return sys.platform == "linux" and path in self._may_add and _decisive(environment) == self._decisive

    def start(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        environment: Mapping[str, str],
        files: Mapping[int, int],
        own_session: bool = False,
    ) -> Forked:
        """Run `command` (script, arguments); `files`: its file descriptors -> ours."""
        if self._socket is None:
            self._socket = self._start_server()
        order = {
            "command": list(command), "cwd": str(cwd), "environment": dict(environment), "files": list(files),
            "own_session": own_session,
        }  # fmt: skip
        set_option = ctypes.CDLL(None).prctl
        set_option(SUBREAPER, 1)  # a process below us whose parent ends becomes our child
        try:
            socket.send_fds(self._socket, [json.dumps(order).encode()], list(files.values()))
            return Forked(int(self._socket.recv(64)))
        finally:
            set_option(SUBREAPER, 0)

    def _start_server(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, str(SERVER), str(theirs.fileno()), self._imports],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                env=self._environment,
            )  # fmt: skip
        return ours


def _decisive(environment: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in environment.items() if k.startswith(AT_START) and k not in FOLLOWED}
