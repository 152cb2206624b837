"""Ctrl-C and SIGTERM: ask once, insist the second time, and leave the handlers as they were."""

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
def test_a_start_is_broken_off(number: signal.Signals, code: int) -> None:
    """Before the loop listens there is nothing to ask: an exception unwinds what is being opened."""
    with pytest.raises(StopRequested), StopSignals(threading.Event()) as signals:
        signal.raise_signal(number)

    assert signals.exit_code == code


def test_a_second_ctrl_c_insists() -> None:
    """Whoever presses it twice does not want to wait."""
    with pytest.raises(KeyboardInterrupt), StopSignals(threading.Event()) as signals:
        signals.listening()
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


def test_handlers_come_back() -> None:
    """Behind the block everything is as before."""
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with StopSignals(threading.Event()):
        assert signal.getsignal(signal.SIGTERM) != before[1]

    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
