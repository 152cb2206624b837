"""Write files so that a failed or killed run leaves the old ones. Files that hefkit did not write stay.

One file: `replacing(path)`. Several files that belong together: `hefkit.staging`. Both write under a temporary name in
the target folder (the same file system), wait until that is on the disk, and rename at the end.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

from hefkit.errors import DataError, UsageError
from hefkit.signals import SignalsHeld
from hefkit.text import close_to

PARTIAL = ".hefkit-partial-"
MAX_JSON_BYTES = 256 << 20  # enough for a manifest of a million pictures
_NOT_WRITABLE = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG,
)  # fmt: skip
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EROFS, errno.EBADF)  # of file systems that cannot sync a folder


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn errors of the operating system while writing `path` into our one-line errors."""
    try:
        yield
    except OSError as exc:
        if exc.errno in _DISK_FULL:
            raise DataError(f"the disk is full while writing {path}; free some space and run again") from exc
        if exc.errno == errno.EFBIG:
            raise DataError(
                f"{path} would be larger than the disk or `ulimit -f` allows (4 GB on FAT32); choose another output"
            ) from exc
        if exc.errno == errno.EIO:
            raise DataError(
                f"the disk reports an error while writing {path}; check the disk, or choose another"
            ) from exc
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
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)
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
        with SignalsHeld():
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


def own_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file that hefkit wrote; {} for a missing file and for one of another program."""
    try:
        raw = read_start(path, MAX_JSON_BYTES + 1)
        value = json.loads(raw) if len(raw) <= MAX_JSON_BYTES else {}
    except (OSError, ValueError, RecursionError):
        return {}
    ours = isinstance(value, dict) and str(value.get("tool")).startswith("hefkit ")
    return value if ours else {}


def read_start(path: Path, size: int) -> bytes:
    """At most `size` bytes from the start of a regular file.

    Raises:
        OSError: also for a pipe or a device, where a read could wait for ever.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        kind = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(kind):
            wrong = errno.EISDIR if stat.S_ISDIR(kind) else errno.EINVAL
            reason = os.strerror(wrong) if stat.S_ISDIR(kind) else "it is a pipe or a device, not a file"
            raise OSError(wrong, reason, str(path))
        return file.read(size)


def is_plain(name: object) -> TypeGuard[str]:
    """Whether a value from a file may be the relative path of a file: text, storable, without `..`, not too long."""
    if not isinstance(name, str) or not name or "\0" in name or name.startswith("/"):
        return False
    try:
        longest = max(len(os.fsencode(part)) for part in name.split("/"))
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON allows
        return False
    return longest <= 255 and len(name) <= 2048 and ".." not in name.split("/")


def entries(folder: Path) -> list[Path]:
    """The entries of `folder` without our own temporary ones, which a killed run may leave."""
    return [p for p in folder.iterdir() if not p.name.startswith(PARTIAL)]


def sync(path: Path) -> None:
    """Wait until the content of a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as exc:
        if exc.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)


def is_running(left: Path) -> bool:
    """Whether the process that made a temporary name still runs; False for our own id, which an earlier process had."""
    pid = left.name[len(PARTIAL) :].partition("-")[0]
    if not (pid.isascii() and pid.isdigit()) or int(pid) == os.getpid():
        return False
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass  # another user's
    return True


def cache_folder(name: str) -> Path:
    """Where hefkit keeps files that it can make again: NAME below XDG_CACHE_HOME or ~/.cache. It may not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base, "hefkit", name)


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
