"""A bounded queue that either side can end, whatever the other is doing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from hefkit.detect.channel import Channel, Closed


def in_thread(function: Callable[[], None]) -> tuple[threading.Thread, list[BaseException]]:
    """Start it, and keep what it raises."""
    raised: list[BaseException] = []

    def work() -> None:
        try:
            function()
        except BaseException as exc:  # noqa: BLE001
            raised.append(exc)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread, raised


def test_items_arrive_in_order_and_none_is_lost() -> None:
    """A thousand numbers through a channel of three."""
    channel: Channel[int] = Channel(3)

    def produce() -> None:
        for i in range(1000):
            channel.put(i)
        channel.end()

    thread, raised = in_thread(produce)

    assert list(channel) == list(range(1000))
    thread.join(5)
    assert not raised


def test_put_waits_while_the_channel_is_full() -> None:
    """The third item of a channel of two waits until one is taken."""
    channel: Channel[int] = Channel(2)
    put: list[int] = []

    def produce() -> None:
        for i in range(3):
            channel.put(i)
            put.append(i)

    thread, _ = in_thread(produce)
    deadline = time.monotonic() + 5
    while len(put) < 2 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)
    assert put == [0, 1]

    assert channel.get() == 0
    thread.join(5)
    assert put == [0, 1, 2]


def test_what_waits_is_delivered_after_the_end() -> None:
    """After `end`, waiting items are still delivered."""
    channel: Channel[str] = Channel(2)
    channel.put("a")
    channel.end()

    assert list(channel) == ["a"]
    with pytest.raises(Closed):
        channel.get()
    with pytest.raises(Closed):
        channel.put("b")


def test_what_waits_is_dropped_when_abandoned() -> None:
    """`abandon` drops the waiting items and refuses new ones."""
    channel: Channel[str] = Channel(2)
    channel.put("a")
    channel.abandon()

    assert list(channel) == []
    with pytest.raises(Closed):
        channel.put("b")


@pytest.mark.parametrize(
    ("full", "leave"),
    [
        pytest.param(True, Channel.abandon, id="a producer that waits for space, abandoned"),
        pytest.param(False, Channel.abandon, id="a consumer that waits for an item, abandoned"),
        pytest.param(False, Channel.end, id="a consumer that waits for an item, ended"),
    ],
)
def test_waiting_threads_are_woken(full: bool, leave: Callable[[Channel[int]], None]) -> None:
    """No thread waits for ever after the other side has ended."""
    channel: Channel[int] = Channel(1)
    if full:
        channel.put(0)
    thread, raised = in_thread((lambda: channel.put(1)) if full else (lambda: print(channel.get())))  # noqa: T201
    time.sleep(0.02)
    assert thread.is_alive()

    leave(channel)
    thread.join(5)

    assert not thread.is_alive() and isinstance(raised[0], Closed)
