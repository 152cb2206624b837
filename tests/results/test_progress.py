"""The progress bar: counted steps, silence without a terminal, and a delay."""

from __future__ import annotations

import logging
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest

from hefkit.results.progress import Progress, progress
from hefkit.text import log


class Bar:
    """Stands for tqdm: notes what it was made with, its steps and its end."""

    made: list[Bar] = []  # noqa: RUF012

    def __init__(self, **options: Any) -> None:
        self.options, self.steps, self.closed = options, 0, False
        Bar.made.append(self)

    def update(self) -> None:
        self.steps += 1

    def close(self) -> None:
        self.closed = True


def set_terminal(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    """stderr is a terminal, or not."""
    stderr = types.SimpleNamespace(isatty=lambda: there)
    monkeypatch.setattr("hefkit.results.progress.sys", types.SimpleNamespace(stderr=stderr))


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Bar]]:
    """Every bar that was made, on a terminal, without --quiet."""
    set_terminal(monkeypatch, True)
    monkeypatch.setitem(sys.modules, "tqdm", types.SimpleNamespace(tqdm=Bar))
    monkeypatch.setattr(Bar, "made", [])
    before = log.level
    log.setLevel(logging.INFO)
    yield Bar.made
    log.setLevel(before)


def test_each_item_is_a_step_behind_it(bars: list[Bar]) -> None:
    """A step counts when the next item is asked for: then the one before is done."""
    with progress(3, "picture", delay_s=2.0) as bar:
        steps = []
        for item in bar.each("abc"):
            steps.append((item, bars[0].steps))
        assert not bars[0].closed

    assert steps == [("a", 0), ("b", 1), ("c", 2)]
    assert (bars[0].steps, bars[0].closed) == (3, True)
    assert (bars[0].options["total"], bars[0].options["unit"], bars[0].options["delay"]) == (3, "picture", 2.0)


def test_without_a_delay_it_appears_at_once(bars: list[Bar]) -> None:
    """As everywhere but in compiling, where most stages take no time."""
    with progress(None, "frame"):
        pass

    assert (bars[0].options["delay"], bars[0].options["total"]) == (0.0, None)


def test_silence(bars: list[Bar], monkeypatch: pytest.MonkeyPatch) -> None:
    """With --quiet, or without a terminal, in every script: the items come all the same."""
    log.setLevel(logging.WARNING)  # what --quiet does
    with progress(3, "picture") as bar:
        assert list(bar.each(range(3))) == [0, 1, 2]
    log.setLevel(logging.INFO)
    set_terminal(monkeypatch, False)
    with progress(3, "picture") as bar:
        assert list(bar.each(range(3))) == [0, 1, 2]
    assert not bars and list(Progress().each("ab")) == ["a", "b"]
