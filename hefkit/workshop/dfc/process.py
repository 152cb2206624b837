"""dfc_worker.py as a process: start it under the SDK's Python, send commands, wait for events, end it.

Commands and events are JSON lines in two pipes; what the SDK prints goes into a file, the log. The worker leads a
session of its own: Ctrl-C then reaches only us, and we end the worker with all processes that the SDK has started. The
SDK itself is known to ignore Ctrl-C during fine-tuning.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from hefkit.workshop.dfc.failures import unwrapped
from hefkit.workshop.dfc.listen import LogTail, SdkListener

log = logging.getLogger("hefkit")

WORKER = Path(__file__).resolve().parent / "dfc_worker.py"
LOG = "sdk.log"  # everything that the SDK prints; appended to
GRACE_S = 5.0  # seconds between SIGTERM and SIGKILL
POLL_S = 0.2  # seconds between two looks at the log
MAX_EVENT_BYTES = 64 << 20  # 64 MiB
# variables that lead to our packages; another interpreter must not look for its own there
OUR_VARIABLES = ("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")


class WorkerFailed(Exception):
    """A command raised an exception inside the SDK; one of its child processes is already unwrapped."""

    def __init__(self, do: str, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.do, self.kind, self.message = do, kind, message


class WorkerDied(Exception):
    """The process ended without an answer."""

    def __init__(self, do: str, returncode: int) -> None:
        super().__init__(f"the process ended with {returncode}")
        self.do, self.returncode = do, returncode


class WorkerProcess:
    """A running worker; use it as a context manager.

    Args:
        python: the SDK's interpreter.
        folder: working directory of the worker; the SDK writes logs of its own there.
        environment: all variables of the worker; they are set before it imports the SDK.
        listener: gets every line that the SDK prints.
    """

    def __init__(self, python: Path, folder: Path, environment: Mapping[str, str], listener: SdkListener) -> None:
        self.log = folder / LOG
        self._listener = listener
        self._tail = LogTail(self.log, self.log.stat().st_size if self.log.exists() else 0)
        self._process, self._commands, self._events = _start([str(python), str(WORKER)], folder, environment, self.log)
        self._pending = b""
        self._do = "start"

    @property
    def pid(self) -> int:
        """The number of the worker, and of its process group."""
        return self._process.pid

    def call(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send a command and wait for its result, without a time limit.

        Raises:
            WorkerFailed: the SDK raised an exception; the worker still runs.
            WorkerDied: the process has ended.
        """
        self._do = do
        with contextlib.suppress(BrokenPipeError):  # wait() reports the dead worker
            os.write(self._commands, json.dumps({"do": do, **arguments}).encode() + b"\n")
        return self.wait()

    def wait(self) -> dict[str, Any]:
        """The result of the running command; the first one is the import of the SDK."""
        while True:
            event = self._next_event()
            gone = event is None and self._ended()
            self._listen()
            if event is None and gone:
                event = self._next_event(0)  # sent just before the end
                if event is None:
                    raise WorkerDied(self._do, self._kill())
            if event is not None and "done" in event:
                return event["result"] if isinstance(event["result"], dict) else {}
            if event is not None:
                error = event["error"]
                raise WorkerFailed(self._do, *unwrapped(str(error["kind"]), str(error["message"])))

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._end_idle()
        finally:
            self._kill()

    def _next_event(self, seconds: float = POLL_S) -> dict[str, Any] | None:
        """A complete line from the events' pipe, or None after `seconds`."""
        if b"\n" not in self._pending and select.select([self._events], [], [], seconds)[0]:
            piece = os.read(self._events, 1 << 16)
            if not piece:  # closed: the process is about to end
                time.sleep(min(seconds, 0.02))
            self._pending += piece
            if len(self._pending) > MAX_EVENT_BYTES:
                raise WorkerFailed(self._do, "ProtocolError", "the worker sent an event of more than 64 MiB")
        line, newline, rest = self._pending.partition(b"\n")
        if not newline:
            return None
        self._pending = rest
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if not isinstance(event, dict) or not ({"done", "failed"} & set(event)):
            log.debug("not an event: %r", line[:200])  # another program wrote it
            return None
        return event

    def _listen(self) -> None:
        for line in self._tail.new_lines():
            self._listener.line(line)
        self._listener.tick(self._cpu_s)

    def _cpu_s(self) -> float:
        """Processor time, in seconds, of the worker and of all that it has started; from /proc/PID/stat."""
        ticks = 0
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError, ValueError, IndexError):
                # after the name, which may hold anything: state ppid pgrp session ..., times from the 12th on
                fields = path.read_text(errors="replace").rpartition(")")[2].split()
                if int(fields[3]) == self._process.pid:
                    ticks += sum(map(int, fields[11:15]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def _ended(self) -> bool:
        """Whether the worker has ended. It is not reaped here, so that no other process group can get its number."""
        if self._process.returncode is not None:
            return True
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _end_idle(self) -> None:
        """Close the commands: an idle worker then ends by itself."""
        self._close_commands()
        self._wait_until(time.monotonic() + GRACE_S)

    def _kill(self) -> int:
        """End the worker and all that it has started; returns its exit status (-9: killed by signal 9)."""
        if self._process.returncode is not None:
            return self._process.returncode
        try:
            if not self._ended():
                self._signal(signal.SIGTERM)
                self._wait_until(time.monotonic() + GRACE_S)
        finally:  # a second Ctrl-C only shortens the wait
            self._signal(signal.SIGKILL)
            returncode = self._process.wait()
            self._close_commands()
            os.close(self._events)
            self._listen()
            self._tail.close()
        return returncode

    def _wait_until(self, end: float) -> None:
        while not self._ended() and time.monotonic() < end:
            time.sleep(0.02)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _close_commands(self) -> None:
        if self._commands >= 0:
            os.close(self._commands)
            self._commands = -1


def sdk_environment(python: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """Variables for the SDK's interpreter: ours without those that lead to our packages, and `settings`."""
    ours = () if Path(python) == Path(sys.executable) else OUR_VARIABLES
    return {**{k: v for k, v in os.environ.items() if k not in ours}, **settings}


def _start(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], log_file: Path
) -> tuple[subprocess.Popen[bytes], int, int]:
    """(process, write end of its commands, read end of its events)."""
    commands_read, commands_write = os.pipe()
    events_read, events_write = os.pipe()
    try:
        with open(log_file, "ab") as output:  # the processes of one run share it
            process = subprocess.Popen(
                [*command, str(commands_read), str(events_write)],
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,  # a question of the SDK fails at once
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(commands_read, events_write),
                start_new_session=True,
            )
    except BaseException:
        os.close(commands_write)
        os.close(events_read)
        raise
    finally:
        os.close(commands_read)
        os.close(events_write)
    return process, commands_write, events_read
