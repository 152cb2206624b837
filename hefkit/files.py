"""Write files so that a failed or killed run leaves the old ones, and files that are not ours stay.

One file: `replacing(path)`. Several files that belong together: `Staging(folder)`. Both write under a temporary name
in the target folder (the same file system) and rename at the end.
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
from hefkit.text import close_to

PARTIAL = ".hefkit-partial-"
MAX_JSON_BYTES = 256 << 20  # enough for a manifest of a million pictures
_NOT_WRITABLE = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG,
)  # fmt: skip
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn errors of the operating system while writing `path` into our one-line errors."""
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
    """Yield a temporary path beside `path`; at the end rename it to `path`, after an error remove it."""
    temporary = path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Refuse (exit 2) a folder that cannot be created or written, before any work; leaves nothing behind."""
    with explained(folder):
        nearest = folder
        while not nearest.exists() and nearest != nearest.parent:
            nearest = nearest.parent
        if not nearest.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(nearest))
        # os.access is wrong for root and for read-only mounts, so try it
        probe = nearest / f"{PARTIAL}{os.getpid()}-probe"
        try:
            probe.touch()
        except FileNotFoundError as exc:  # how /proc, for example, refuses a new file
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(nearest)) from exc
        probe.unlink()


def check_file(path: Path) -> None:
    """Refuse (exit 2) a file that cannot be created or replaced, before any work."""
    with explained(path), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if stat.S_ISDIR(path.stat().st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    check_writable(path.parent)


def check_appendable(path: Path) -> None:
    """Refuse (exit 2) a file that cannot be appended to; an existing one is opened, but not changed."""
    with explained(path):
        if path.is_file():
            open(path, "ab").close()
    if not path.exists() or path.is_dir():  # opening a pipe or a device may wait forever
        check_file(path)


def fresh_folder(parent: Path, name: str) -> Path:
    """`parent/name`, or the first of `name-2`, `name-3` ... that does not exist."""
    candidate, number = parent / name, 2
    while candidate.exists():
        candidate, number = parent / f"{name}-{number}", number + 1
    return candidate


def own_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file that hefkit wrote; {} where there is none, or another program's."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_JSON_BYTES:
            return {}
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    ours = isinstance(value, dict) and str(value.get("tool")).startswith("hefkit ")
    return value if ours else {}


def entries(folder: Path) -> list[Path]:
    """The entries of `folder` without our own temporary ones, which a killed run may leave."""
    return [p for p in folder.iterdir() if not p.name.startswith(PARTIAL)]


class Staging:
    """A set of files that appears in `target` together.

        with Staging(target) as stage:
            (stage.path / "a.txt").write_text("new")
            stage.commit()  # target / "a.txt"

    Without a commit everything written is removed, and so are the folders that were made for it.
    """

    _numbers = itertools.count(1)
    _open: ClassVar[set[str]] = set()  # real paths; two stagings of one process may have the same target

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
            for stale in self.target.glob(f"{PARTIAL}*"):  # of a killed run
                if os.path.realpath(stale) not in self._open:
                    remove_if_dead(stale, PARTIAL)
            self.path.mkdir()
            self._open.add(os.path.realpath(self.path))
        return self

    def commit(self, *, remove: Iterable[Path] = (), last: str | None = None) -> None:
        """Delete the files `remove`, then move every staged file to its place in `target`, and `last` after the others.

        SIGINT and SIGTERM wait until all are moved, because some of the files would be half a result.
        """
        staged = sorted(p for p in self.path.rglob("*") if not p.is_dir())
        if last is not None:
            staged.sort(key=lambda p: p == self.path / last)
        places = [self.target / file.relative_to(self.path) for file in staged]
        with explained(self.target), _signals_held():
            for place in places:  # check all before the first is moved
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
            with contextlib.suppress(OSError):  # not empty: another program uses it now
                folder.rmdir()


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    # pthread_sigmask would not do: one of numpy's threads would receive the signal, and Python handles it anyway
    arrived: list[int] = []
    before = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(ValueError):  # not the main thread: signals do not interrupt it
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
    """Remove `stale`, whose name is `prefix` and the id of the process that made it, unless that still runs.

    A name with our own id is removed too: an earlier process had the same id.
    """
    pid = stale.name[len(prefix) :].partition("-")[0]
    if pid.isascii() and pid.isdigit() and int(pid) != os.getpid():
        try:
            os.kill(int(pid), 0)
            return  # it runs
        except (ProcessLookupError, OverflowError):
            pass
        except OSError:
            return
    if stale.is_dir():
        shutil.rmtree(stale, ignore_errors=True)
    else:
        stale.unlink(missing_ok=True)


def existing(path: Path) -> bool:
    """Path.exists(), but False for a name that is too long or impossible, instead of an error."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def near_path(path: Path) -> str:
    """`; did you mean photos/val?` for a path that does not exist and has a similar neighbour, else an empty text."""
    try:
        there = [entry.name for entry in os.scandir(path.parent)]
    except (OSError, ValueError):
        return ""
    near = close_to(path.name, there)
    return f"; did you mean {path.with_name(near)}?" if near is not None and near != path.name else ""
