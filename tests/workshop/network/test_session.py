"""Several items at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from hefkit.workshop.network import session
from hefkit.workshop.network.session import in_parallel


@pytest.fixture(autouse=True)
def three_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this machine had three."""
    monkeypatch.setattr(session, "available_cores", lambda: 3)


def test_results_come_in_order() -> None:
    """Whichever is ready first."""

    def slow_first(item: int) -> int:
        time.sleep(0.02 if item % 3 == 0 else 0)
        return item * item

    assert list(in_parallel(slow_first, range(10))) == [n * n for n in range(10)]
    assert list(in_parallel(slow_first, [])) == []


def test_items_run_at_the_same_time() -> None:
    """Three of them meet; alone none would get past the barrier."""
    meet = threading.Barrier(3, timeout=10)

    assert list(in_parallel(lambda item: (meet.wait(), item)[1], range(6))) == list(range(6))


def test_an_exception_ends_it() -> None:
    """That of an item comes in its place, and few items behind it are taken; that of the source comes as it is."""
    taken = []

    def items() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    def act(item: int) -> float:
        return 1 / (2 - item)

    results = in_parallel(act, items())
    assert [next(results), next(results)] == [0.5, 1.0]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert len(taken) <= 2 + 1 + 4
    assert list(results) == []

    def broken() -> Iterator[int]:
        yield 0
        raise OSError("unplugged")

    with pytest.raises(OSError, match="unplugged"):
        list(in_parallel(act, broken()))


def test_one_that_is_not_read_to_its_end() -> None:
    """Closing it takes no more items."""
    taken = []
    results = in_parallel(lambda item: item, (taken.append(n) or n for n in range(1000)))
    assert next(results) == 0
    results.close()
    assert len(taken) <= 5
