"""Ctrl-C and SIGTERM: the first one asks the loop to stop, a second Ctrl-C ends it, the old handlers come back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from hefkit.signals import SignalsHeld, StopRequested, StopSignals, Terminated, handle_signals, run_process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_running_loop_is_asked(number: signal.Signals, code: int) -> None:
    """`stop` is set, nothing is raised, and the exit code is the contract's."""
    stop = threading.Event()
    with StopSignals(stop) as signals:
        signals.listening()
        signal.raise_signal(number)

    assert stop.is_set() and signals.exit_code == code


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_start_is_interrupted(number: signal.Signals, code: int) -> None:
    """Before the loop runs, an exception ends what is being opened."""
    with pytest.raises(StopRequested), StopSignals(threading.Event()) as signals:
        signal.raise_signal(number)

    assert signals.exit_code == code


def test_a_second_ctrl_c() -> None:
    """It raises KeyboardInterrupt, so that the program does not wait for its loop."""
    with pytest.raises(KeyboardInterrupt), StopSignals(threading.Event()) as signals:
        signals.listening()
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_at_the_end_of_a_video() -> None:
    """The loop has stopped by itself, and a recording is being closed: the first Ctrl-C does not interrupt that."""
    stop = threading.Event()
    with StopSignals(stop) as signals:
        signals.listening()
        stop.set()
        signal.raise_signal(signal.SIGINT)

    assert signals.exit_code == 130


def test_handlers_come_back() -> None:
    """After the block they are the old ones."""
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with StopSignals(threading.Event()):
        assert signal.getsignal(signal.SIGTERM) != before[1]

    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.fixture
def handled() -> Iterator[None]:
    """The handlers of a script."""
    before = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    handle_signals()
    yield
    for number, handler in before:
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
@pytest.mark.usefixtures("handled")
def test_a_process_that_is_being_started(
    number: signal.Signals, kind: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal comes between its start and the moment when it is known: it is ended all the same."""
    started: list[int] = []

    class Popen(subprocess.Popen[str]):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            started.append(self.pid)
            os.kill(os.getpid(), number)

    monkeypatch.setattr(subprocess, "Popen", Popen)
    with pytest.raises(kind):
        run_process([sys.executable, "-c", "import time; time.sleep(60)"], 30)

    with pytest.raises(ProcessLookupError):
        os.kill(started[0], 0)


def test_a_process_that_ends_and_one_that_does_not() -> None:
    """Its code and both of its texts; a limit in time."""
    done = run_process([sys.executable, "-c", "import sys; print(1); sys.exit('two')"], 30)
    with pytest.raises(subprocess.TimeoutExpired):
        run_process([sys.executable, "-c", "import time; time.sleep(60)"], 0.1)

    assert (done.returncode, done.stdout, done.stderr) == (1, "1\n", "two\n")


@pytest.mark.usefixtures("handled")
def test_signals_that_are_held() -> None:
    """Each arrives once, at the end of the block; in another thread the block changes nothing."""
    with pytest.raises(Terminated), SignalsHeld():
        for _ in range(3):
            signal.raise_signal(signal.SIGTERM)
        reached = True
    thread = threading.Thread(target=lambda: SignalsHeld().__enter__())
    thread.start()
    thread.join()

    assert reached
