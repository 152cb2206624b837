"""Ctrl-C and SIGTERM become exceptions, but wait until an import has ended; a live program is asked to stop.

Python runs a signal's handler between any two of its instructions, even in the middle of an import. An exception
raised there passes through the initialisation of a C extension; some report a missing package then, some crash.

A script calls `hold_signals` in its first line of code. So nothing is imported here before that: `signal` alone takes
some milliseconds, because its constants are enums.
"""

from __future__ import annotations

import sys

from hefkit.errors import EXIT_INTERRUPTED

TYPE_CHECKING = False  # an import of `typing` takes some milliseconds too
if TYPE_CHECKING:
    import subprocess
    import threading
    from collections.abc import Callable, Mapping, Sequence
    from types import FrameType, TracebackType
    from typing import Any

    Handler = Callable[[int, "FrameType | None"], object]

RETRY_S = 0.02


class Terminated(BaseException):
    """SIGTERM arrived; raised so that every `finally` still runs."""


def hold_signals() -> None:
    """Ctrl-C and SIGTERM wait until `handle_signals`."""
    core: Any = sys.modules["_signal"]  # what `signal` is made of; Python has it from the start
    if hasattr(core, "pthread_sigmask"):
        core.pthread_sigmask(core.SIG_BLOCK, (core.SIGINT, core.SIGTERM))


def handle_signals() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt, and SIGTERM raises Terminated; signals that have waited, too."""
    import signal
    import threading

    if threading.current_thread() is not threading.main_thread():
        return  # the default handlers stay
    signal.signal(signal.SIGTERM, after_imports(_raise_terminated))
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else Ctrl-C is ignored (nohup)
        signal.signal(signal.SIGINT, after_imports(signal.default_int_handler))
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))


def ignore_signals() -> None:
    """All is done: a late signal changes nothing."""
    import signal
    import threading

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)


def _raise_terminated(number: int, frame: FrameType | None) -> None:
    raise Terminated


def after_imports(handler: Handler) -> Handler:
    """The same handler, but never in the middle of an import: there the signal is sent again after RETRY_S."""
    import threading

    def arrived(number: int, frame: FrameType | None) -> None:
        if _importing(frame):
            again = threading.Timer(RETRY_S, _send, (number,))
            again.daemon = True
            again.start()
        else:
            handler(number, frame)

    return arrived


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _send(number: int) -> None:
    import signal
    import threading

    main = threading.main_thread().ident
    if main is not None and hasattr(signal, "pthread_kill"):
        signal.pthread_kill(main, number)  # to that thread, so that its current wait ends
    else:
        signal.raise_signal(number)


class SignalsHeld:
    """Within the block Ctrl-C and SIGTERM wait; those that came arrive at its end.

    pthread_sigmask is not enough: one of numpy's threads would receive the signal, and Python handles it anyway.
    """

    def __enter__(self) -> None:
        import signal

        self._arrived: list[int] = []
        self._before: dict[int, Any] = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, lambda got, frame: self._arrived.append(got))
            except ValueError:  # not the main thread: signals do not interrupt it
                return

    def __exit__(self, *exc: object) -> None:
        import signal

        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for got in dict.fromkeys(self._arrived):
            signal.raise_signal(got)


def run_process(
    command: Sequence[str], timeout: float, cwd: str | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Like subprocess.run with captured text and no input; the process also ends if a signal comes while it starts.

    Raises:
        OSError: it cannot be started.
        subprocess.TimeoutExpired: it has been ended after `timeout` seconds.
    """
    import subprocess

    process = None
    try:
        with SignalsHeld():
            pipe = subprocess.PIPE
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=pipe,
                stderr=pipe,
                text=True,
                errors="replace",
                cwd=cwd,
                env=env,
            )
        out, err = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(command, process.returncode, out, err)
    finally:
        if process is not None:
            with process:  # closes its pipes, and waits
                process.kill()


class StopRequested(BaseException):
    """A signal came before the loop began; raised so that every `finally` still runs."""


class StopSignals:
    """Within the block SIGINT and SIGTERM set `stop`; before `listening()` they also raise StopRequested.

    A second Ctrl-C raises KeyboardInterrupt. `exit_code` is 130 after Ctrl-C and 0 after SIGTERM, which is how systemd
    and Docker end a service.
    """

    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop
        self._listening = self._asked = False
        self._before: dict[int, Any] = {}
        self.exit_code = 0

    def listening(self) -> None:
        """From now on the loop checks `stop`, so signals only set it."""
        self._listening = True

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        import signal

        if number == signal.SIGINT:
            if self._asked:
                raise KeyboardInterrupt
            self.exit_code = EXIT_INTERRUPTED
        self._asked = True  # `stop` is also set at the end of a video, and the sinks are closed then
        self.stop.set()
        if not self._listening:
            raise StopRequested

    def __enter__(self) -> StopSignals:
        import signal

        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, after_imports(self._arrived))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        import signal

        for number, handler in self._before.items():
            signal.signal(number, handler)
