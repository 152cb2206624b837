"""A hidden folder for new files beside those that they replace, and the commit that puts all in place."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath

from hefkit.files import PARTIAL, explained, sync
from hefkit.signals import SignalsHeld
from hefkit.staging.journal import (
    JOURNAL,
    NEW,
    carry_out,
    hold,
    let_go,
    locked,
    refuse_folder,
    settle,
    settle_locked,
    staged_files,
    write_journal,
)

Old = Iterable[Path]


class Staging:
    """A set of files that appears in `target` together.

        with Staging(target) as stage:
            (stage.path / "a.txt").write_text("new")
            stage.commit()  # target / "a.txt"

    Without a commit everything that was written is removed, with the folders that were made for it. What killed runs
    left in the target is finished or removed at the start.
    """

    _numbers = itertools.count(1)

    def __init__(self, target: Path) -> None:
        self.target = target
        self._folder = target / f"{PARTIAL}{os.getpid()}-{next(self._numbers)}"
        self.path = self._folder / NEW
        self._made: list[Path] = []  # folders that did not exist before, innermost first
        self._held: int | None = None
        self._locked = False

    def __enter__(self) -> Staging:
        try:
            self._begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _begin(self) -> None:
        with explained(self.target):
            folder = self.target
            while not folder.exists():
                self._made.append(folder)
                folder = folder.parent
            self.target.mkdir(parents=True, exist_ok=True)
            with locked(self.target):
                settle_locked(self.target)
                self._folder.mkdir()
                self._held = hold(self._folder)
                self.path.mkdir()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """No other run commits into the target in the block; for work that depends on the files in it."""
        if self._locked:
            yield
            return
        with explained(self.target), locked(self.target):
            self._locked = True
            try:
                yield
            finally:
                self._locked = False

    def commit(self, *, remove: Old | Callable[[], Old] = (), last: str | None = None) -> None:
        """Move every staged file to its place in `target`, `last` after the others, then delete the files `remove`.

        SIGINT and SIGTERM wait until all is done. A kill leaves a journal, and the next run does the rest.

        Args:
            remove: files in `target`, or a function that names them; it is called while no other run can commit.
            last: the file that shows that the set is complete.
        """
        with explained(self.target):
            for where, _, names in os.walk(self.path):
                for name in names:
                    sync(Path(where, name))
                sync(Path(where))
        with self.locked(), explained(self.target):
            staged = {PurePosixPath(file.relative_to(self.path).as_posix()) for file in staged_files(self.path)}
            old = [PurePosixPath(path.relative_to(self.target)) for path in (remove() if callable(remove) else remove)]
            with SignalsHeld():
                for place in sorted(staged):  # check all before the first is moved
                    refuse_folder(self.target / place)
                write_journal(self._folder, [path for path in old if path not in staged], last)
                carry_out(self.target, self._folder)
                for folder in self._made:
                    sync(folder.parent)
        self._made.clear()

    def __exit__(self, *exc: object) -> None:
        if self._held is not None:
            let_go(self._folder, self._held)
        if not (self._folder / JOURNAL).exists():  # else the commit failed half-way: the next run finishes it
            shutil.rmtree(self._folder, ignore_errors=True)
        for folder in self._made:
            with contextlib.suppress(OSError):  # not empty: another program uses it now
                folder.rmdir()


def fresh_folder(parent: Path, name: str) -> Path:
    """`parent/name`, or the first of `name-2`, `name-3` ... that does not exist.

    A folder with only the leftovers of a killed run is removed, and its name is used.
    """
    candidate, number = parent / name, 2
    while candidate.exists() and not _removed(candidate):
        candidate, number = parent / f"{name}-{number}", number + 1
    return candidate


def _removed(folder: Path) -> bool:
    if settle(folder):
        with contextlib.suppress(OSError):  # not empty
            folder.rmdir()
            return True
    return False
