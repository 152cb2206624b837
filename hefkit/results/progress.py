"""A progress bar on stderr, if stderr is a terminal and tqdm is installed."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from hefkit.text import log

Item = TypeVar("Item")


class Progress:
    """Counts steps, and writes warnings above the bar; without a bar it only writes the warnings."""

    def __init__(self, bar: Any = None) -> None:
        self._bar = bar

    def step(self) -> None:
        """One picture is done."""
        if self._bar is not None:
            self._bar.update()

    def each(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the items, and count a step after each."""
        for item in items:
            yield item
            self.step()

    def warn(self, message: str, *args: object) -> None:
        """Log a warning above the bar."""
        if self._bar is not None:
            self._bar.clear()
        log.warning(message, *args)
        if self._bar is not None:
            self._bar.refresh()


@contextlib.contextmanager
def progress(total: int | None, unit: str, *, delay_s: float = 0.0) -> Iterator[Progress]:
    """A bar of `total` steps (None: unknown); silent with --quiet, without a terminal or without tqdm.

    Args:
        delay_s: the bar appears only after so many seconds.
    """
    bar = None
    if log.isEnabledFor(logging.INFO) and sys.stderr.isatty():
        with contextlib.suppress(ImportError):
            from tqdm import tqdm

            bar = tqdm(total=total, unit=unit, leave=False, dynamic_ncols=True, delay=delay_s)
    try:
        yield Progress(bar)
    finally:
        if bar is not None:
            bar.close()
