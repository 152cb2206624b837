"""Writing files so that a failed or killed run leaves what was there before, and what is not ours stays.

One file: `replacing(path)`. Many files that belong together: `Staging(folder)`. Both write under a
temporary name inside the target folder (same file system) and rename at the end.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import shutil
import signal
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from hefkit.errors import DataError, UsageError

PARTIAL = ".hefkit-partial-"
MAX_JSON_BYTES = 256 << 20  # a manifest or a run's record of a million pictures
_NOT_WRITABLE = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG,
)  # fmt: skip
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write `path` into our one-line errors."""
    try:
        yield
    except OSError as exc:
        if exc.errno in _DISK_FULL:
            raise DataError(f"the disk is full while writing {path}; free some space and run again") from exc
        if exc.errno in _NOT_WRITABLE:
            raise UsageError(f"cannot write {path}: {exc.strerror}; choose another output") from exc
        raise


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success rename it over `path`, else remove it."""
    temporary = path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Refuse (exit 2) a folder that cannot be created or written, before any work; leaves no trace."""
    with explained(folder):
        existing = folder
        while not existing.exists() and existing != existing.parent:
            existing = existing.parent
        if not existing.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(existing))
        # os.access answers for root and for read-only mounts too late or wrongly: try it
        probe = existing / f"{PARTIAL}{os.getpid()}-probe"
        try:
            probe.touch()
        except FileNotFoundError as exc:  # /proc, for one, says so of a file that cannot be made
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(existing)) from exc
        probe.unlink()


def check_file(path: Path) -> None:
    """Refuse (exit 2) a file that cannot be made or replaced, before any work."""
    with explained(path), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if stat.S_ISDIR(path.stat().st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    check_writable(path.parent)


def check_appendable(path: Path) -> None:
    """Refuse (exit 2) a file that cannot be appended to; one that is there is opened, and stays as it is."""
    with explained(path):
        if path.is_file():
            open(path, "ab").close()
    if not path.exists() or path.is_dir():  # else it is a pipe or a device, and opening it may wait for ever
        check_file(path)


def fresh_folder(parent: Path, name: str) -> Path:
    """`parent/name`, or `name-2`, `name-3` ... when it is taken; the one returned did not exist."""
    candidate, number = parent / name, 2
    while candidate.exists():
        candidate, number = parent / f"{name}-{number}", number + 1
    return candidate


def own_json(path: Path) -> dict[str, Any]:
    """A JSON file that says that hefkit wrote it; {} where there is none, or one of somebody else's."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_JSON_BYTES:
            return {}
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    ours = isinstance(value, dict) and str(value.get("tool")).startswith("hefkit ")
    return value if ours else {}


def entries(folder: Path) -> list[Path]:
    """What a user would see in `folder`: our own leftovers of a killed run are not counted."""
    return [p for p in folder.iterdir() if not p.name.startswith(PARTIAL)]


class Staging:
    """A set of files that appears in `target` at once.

    `with Staging(target) as stage:` write below `stage.path`, then `stage.commit()`. Without a commit
    everything written is thrown away, and folders made for it are removed.
    """

    _numbers = itertools.count(1)
    _open: ClassVar[set[str]] = set()  # real paths: two of one process may have the same target

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target / f"{PARTIAL}{os.getpid()}-{next(self._numbers)}"
        self._made: list[Path] = []  # folders that did not exist before, innermost first

    def __enter__(self) -> Staging:
        with explained(self.target):
            folder = self.target
            while not folder.exists():
                self._made.append(folder)
                folder = folder.parent
            self.target.mkdir(parents=True, exist_ok=True)
            for stale in self.target.glob(f"{PARTIAL}*"):  # left by a run that was killed outright
                if os.path.realpath(stale) not in self._open:
                    remove_if_dead(stale, PARTIAL)
            self.path.mkdir()
            self._open.add(os.path.realpath(self.path))
        return self

    def commit(self, *, remove: Iterable[Path] = (), last: str | None = None) -> None:
        """Delete `remove`, move every staged file to its place below `target`; `last` goes last.

        SIGINT and SIGTERM wait until it is done: half a move would be half a result.
        """
        staged = sorted(p for p in self.path.rglob("*") if not p.is_dir())
        if last is not None:
            staged.sort(key=lambda p: p == self.path / last)
        places = [self.target / file.relative_to(self.path) for file in staged]
        with explained(self.target), _signals_held():
            for place in places:  # all of them before the first is moved
                _refuse_folder(place)
            for old in remove:
                old.unlink(missing_ok=True)
            for file, place in zip(staged, places, strict=True):
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, place)
        self._made.clear()

    def __exit__(self, *exc: object) -> None:
        self._open.discard(os.path.realpath(self.path))
        shutil.rmtree(self.path, ignore_errors=True)
        for folder in self._made:
            with contextlib.suppress(OSError):  # not empty: somebody else uses it now
                folder.rmdir()


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    # not pthread_sigmask: numpy's own threads would take the signal, and Python acts on it in the main one
    arrived: list[int] = []
    before = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(ValueError):  # not the main thread, where no signal interrupts
            before[number] = signal.signal(number, lambda got, frame: arrived.append(got))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for got in dict.fromkeys(arrived):
            signal.raise_signal(got)


def _refuse_folder(place: Path) -> None:
    if place.is_dir():
        raise UsageError(f"cannot write {place}: there is a folder of that name; choose another output")


def remove_if_dead(stale: Path, prefix: str) -> None:
    """Remove what a process left behind whose number follows `prefix`, unless it is another one that still runs."""
    pid = stale.name[len(prefix) :].partition("-")[0]
    if pid.isascii() and pid.isdigit() and int(pid) != os.getpid():
        try:
            os.kill(int(pid), 0)
            return  # still running
        except (ProcessLookupError, OverflowError):
            pass
        except OSError:
            return
    if stale.is_dir():
        shutil.rmtree(stale, ignore_errors=True)
    else:
        stale.unlink(missing_ok=True)


def existing(path: Path) -> bool:
    """Path.exists() that calls an over-long or otherwise impossible name 'no' instead of raising."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
