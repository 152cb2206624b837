"""Ctrl-C and SIGTERM: the first one asks the loop to stop, a second Ctrl-C ends it, the old handlers come back."""

from __future__ import annotations

import signal
import threading

import pytest

from hefkit.signals import StopRequested, StopSignals


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


def test_handlers_come_back() -> None:
    """After the block they are the old ones."""
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with StopSignals(threading.Event()):
        assert signal.getsignal(signal.SIGTERM) != before[1]

    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
