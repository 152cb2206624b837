"""The compiler's worker as a process: started under the SDK's Python, obeyed by events, never left behind.

The worker leads a session of its own, so that Ctrl-C reaches only us, and all that the SDK starts can be ended with
it: the SDK is known to swallow Ctrl-C in the middle of its fine-tuning and to carry on.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol

log = logging.getLogger("hefkit")

WORKER = Path(__file__).resolve().parent / "dfc_worker.py"
LOG = "sdk.log"  # all that the SDK prints
GRACE_S = 5.0  # between a polite and an impolite end
POLL_S = 0.2
MAX_EVENT_BYTES = 64 << 20
# of an environment that is ours; another interpreter must not look for its packages there
OURS = ("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")


class Listener(Protocol):
    """Who hears what the SDK prints."""

    def line(self, text: str) -> None:
        """One line, printable."""

    def tick(self) -> None:
        """Some time has passed, with or without a line."""


class WorkerFailed(Exception):
    """A command raised an exception inside the SDK."""

    def __init__(self, do: str, kind: str, message: str, trace: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.do, self.kind, self.message, self.trace = do, kind, message, trace


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
        environment: complete; it counts before the SDK is imported.
        listener: hears every line that the SDK prints.
    """

    def __init__(self, python: Path, folder: Path, environment: Mapping[str, str], listener: Listener) -> None:
        self.log = folder / LOG
        self._listener = listener
        self._tail = LogTail(self.log)
        self._process, self._commands, self._events = _start([str(python), str(WORKER)], folder, environment, self.log)
        self._pending = b""
        self._do = "start"

    @property
    def pid(self) -> int:
        """Of the worker and of its process group."""
        return self._process.pid

    def call(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send a command and wait, however long it takes.

        Raises:
            WorkerFailed: the SDK raised an exception; the worker is still there.
            WorkerDied: the process is gone.
        """
        self._do = do
        with contextlib.suppress(BrokenPipeError):  # told by wait() as what it is: a worker that died
            os.write(self._commands, json.dumps({"do": do, **arguments}).encode() + b"\n")
        return self.wait()

    def wait(self) -> dict[str, Any]:
        """The result of the command under way; at the beginning that is the import of the SDK."""
        while True:
            event = self._next_event()
            gone = event is None and self._ended()
            self._listen()
            if event is None and gone:
                event = self._next_event(0)  # written just before the end
                if event is None:
                    raise WorkerDied(self._do, self._kill())
            if event is not None and "done" in event:
                return event["result"] if isinstance(event["result"], dict) else {}
            if event is not None:
                error = event["error"]
                raise WorkerFailed(self._do, error["kind"], error["message"], error["traceback"])

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._let_go()
        finally:
            self._kill()

    def _next_event(self, seconds: float = POLL_S) -> dict[str, Any] | None:
        """A complete line from the events' pipe, or None after `seconds`."""
        if b"\n" not in self._pending and select.select([self._events], [], [], seconds)[0]:
            piece = os.read(self._events, 1 << 16)
            if not piece:  # closed: the end of the process is near
                time.sleep(min(seconds, 0.02))
            self._pending += piece
            if len(self._pending) > MAX_EVENT_BYTES:
                raise WorkerFailed(self._do, "ProtocolError", "the worker sends something that never ends", "")
        line, newline, rest = self._pending.partition(b"\n")
        if not newline:
            return None
        self._pending = rest
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if not isinstance(event, dict) or not ({"done", "failed"} & set(event)):
            log.debug("no event: %r", line[:200])  # somebody else's writing
            return None
        return event

    def _listen(self) -> None:
        for line in self._tail.new_lines():
            self._listener.line(line)
        self._listener.tick()

    def _ended(self) -> bool:
        """Has the worker ended? It is not reaped yet, so that its process group cannot become another's."""
        if self._process.returncode is not None:
            return True
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _let_go(self) -> None:
        """An idle worker ends when its commands do."""
        self._close_commands()
        self._wait_until(time.monotonic() + GRACE_S)

    def _kill(self) -> int:
        """End the worker and everything that it started; returns its exit status as subprocess counts it."""
        if self._process.returncode is not None:
            return self._process.returncode
        try:
            if not self._ended():
                self._signal(signal.SIGTERM)
                self._wait_until(time.monotonic() + GRACE_S)
        finally:  # a second Ctrl-C shortens the wait, nothing else
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
    """The environment of the SDK's interpreter: ours, without what leads it to our packages, and `settings`."""
    ours = () if Path(python) == Path(sys.executable) else OURS
    return {**{k: v for k, v in os.environ.items() if k not in ours}, **settings}


def _start(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], log_file: Path
) -> tuple[subprocess.Popen[bytes], int, int]:
    """The process, the write end of its commands, the read end of its events."""
    commands_read, commands_write = os.pipe()
    events_read, events_write = os.pipe()
    try:
        with open(log_file, "wb") as output:
            process = subprocess.Popen(
                [*command, str(commands_read), str(events_write)],
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,  # a question of the SDK finds nobody, and fails at once
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


MAX_LINE = 2000
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-_])")


@dataclass
class LogTail:
    """Follows a growing text file; lines end with a newline, the steps of a progress bar with a carriage return."""

    path: Path
    _file: BinaryIO | None = None
    _rest: bytes = b""

    def new_lines(self) -> Iterator[str]:
        """What was added since the last call, as printable lines."""
        if self._file is None:
            self._file = open(self.path, "rb")  # noqa: SIM115 - read again and again until close()
        while piece := self._file.read(1 << 16):
            *lines, self._rest = re.split(rb"[\r\n]+", self._rest + piece)
            yield from map(_printable, lines)
            if len(self._rest) > MAX_LINE:  # garbage without line ends must not fill the memory
                yield _printable(self._rest)
                self._rest = b""

    def close(self) -> None:
        """No more lines."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _printable(raw: bytes) -> str:
    text = _ESCAPES.sub("", raw[:MAX_LINE].decode("utf-8", "replace"))
    return "".join(c if c.isprintable() else " " for c in text).rstrip()
