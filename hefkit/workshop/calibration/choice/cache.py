"""What earlier runs have seen of each picture, kept in the user's cache folder, so that the next run is fast.

One SQLite file: a killed run keeps what was committed, and several runs may use it at once. A row belongs to the path
of a picture. It is used only while size and time of the picture and of its label file are the same.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

from hefkit.files import cache_folder
from hefkit.measure.labels import label_path
from hefkit.text import log, one_line
from hefkit.workshop.calibration.choice.look import VERSION

COMMIT_SECONDS = 2.0
BATCH = 500  # paths in one query; SQLite before 3.32 takes 999


def cache_file() -> Path:
    """Where the cache lies: XDG_CACHE_HOME, else ~/.cache."""
    return cache_folder(f"looks-{VERSION}.sqlite")


def stamp(path: str) -> str | None:
    """Sizes and times of a picture and of its label file; None where the picture cannot be found."""
    try:
        picture = os.stat(path)
    except (OSError, ValueError):
        return None
    text = f"{picture.st_size} {picture.st_mtime_ns}"
    with contextlib.suppress(OSError, ValueError):
        label = os.stat(label_path(Path(path)))
        text += f" {label.st_size} {label.st_mtime_ns}"
    return text


class Cache:
    """For `with`. If the file cannot be used, nothing is remembered, and a line on the console says so."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._db: sqlite3.Connection | None = None
        self._committed = time.monotonic()

    def known(self, stamps: Sequence[tuple[str, str | None]]) -> dict[int, bytes | str]:
        """Index -> what is remembered of (path, stamp): a packed look, or the reason why it cannot be read."""
        found: dict[int, bytes | str] = {}
        for start in range(0, len(stamps) if self._db else 0, BATCH):
            part = stamps[start : start + BATCH]
            marks = ",".join("?" * len(part))
            query = f"SELECT path, stamp, look FROM looks WHERE path IN ({marks})"
            rows = self._try(query, [path for path, _ in part]) or ()
            there = {path: (mark, look) for path, mark, look in rows}
            for index, (path, mark) in enumerate(part, start):
                if mark is not None and path in there and there[path][0] == mark:
                    found[index] = there[path][1]
        return found

    def remember(self, rows: Iterable[tuple[str, str | None, bytes | str]]) -> None:
        """Keep (path, stamp, look); on the disk within a few seconds."""
        for row in rows:
            if row[1] is not None:
                self._try("INSERT OR REPLACE INTO looks VALUES (?, ?, ?)", row)
        if time.monotonic() - self._committed > COMMIT_SECONDS:
            self._commit()

    def _commit(self) -> None:
        self._committed = time.monotonic()
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.commit()

    def _try(self, query: str, values: Sequence[object] = ()) -> list[tuple[str, str, bytes | str]] | None:
        if self._db is None:
            return None
        try:
            return self._db.execute(query, values).fetchall()
        except (sqlite3.Error, UnicodeEncodeError) as exc:
            if isinstance(exc, sqlite3.Error):
                self._give_up(exc)
            return None

    def _give_up(self, exc: Exception) -> None:
        log.info("the cache %s cannot be used (%s); every picture is looked at again", self._file, one_line(exc, 100))
        self._db = None

    def __enter__(self) -> Cache:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self._file, timeout=10)
            self._db.execute("CREATE TABLE IF NOT EXISTS looks (path TEXT PRIMARY KEY, stamp TEXT, look)")
        except (sqlite3.Error, OSError) as exc:
            self._give_up(exc)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._commit()
        if self._db is not None:
            self._db.close()
