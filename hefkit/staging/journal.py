"""The lock of a folder. What killed runs left in it: a set that was being put in place is finished, the rest removed.

A run writes its files into a stage, a hidden folder in the target:

    TARGET/.hefkit-partial-PID-N/new/...       files that are not in place yet, with their final relative names
    TARGET/.hefkit-partial-PID-N/journal.json  exists from the commit on: {"last": name, "remove": [names]}

Without a journal a stage of a dead run is removed. With a journal the new files are complete and on the disk, so the
next program that looks at the target moves the rest, then removes the old files, then the journal.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from hefkit.errors import UsageError
from hefkit.files import PARTIAL, explained, is_plain, is_running, own_json, sync

NEW, JOURNAL = "new", "journal.json"
MAX_WAIT_S = 60.0  # a commit of another run takes a few seconds
RETRY_S = 0.02
_mine: set[str] = set()  # real paths of the stages of this process, for file systems without locks


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder` in the block. The kernel frees it when the process ends, however that happens.

    Raises:
        UsageError: another run has held it for MAX_WAIT_S.
    """
    until = time.monotonic() + MAX_WAIT_S
    while True:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            if _lock(descriptor) is not False and _is_at(descriptor, folder):
                yield
                return
        finally:
            os.close(descriptor)
        if time.monotonic() > until:
            raise UsageError(
                f"another run has been writing into {folder} for {MAX_WAIT_S:g} s; wait until it has ended, or choose "
                "another output"
            )
        time.sleep(RETRY_S)


def _lock(descriptor: int) -> bool | None:
    """True: we hold it now; False: another does; None: this file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_at(descriptor: int, folder: Path) -> bool:
    """Whether the open folder still has this path: the holder of the lock may have removed it meanwhile."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(folder))
    except FileNotFoundError:
        return False


def hold(stage: Path) -> int:
    """Mark a new stage, or a file that is being written, as in use until `let_go`, or until this process ends."""
    descriptor = os.open(stage, os.O_RDONLY)
    _lock(descriptor)
    _mine.add(os.path.realpath(stage))
    return descriptor


def let_go(stage: Path, descriptor: int) -> None:
    """End `hold`."""
    _mine.discard(os.path.realpath(stage))
    os.close(descriptor)


def in_use(stage: Path) -> bool:
    """Whether a running process holds a stage, or a file that it is writing."""
    if os.path.realpath(stage) in _mine:
        return True
    descriptor = os.open(stage, os.O_RDONLY)
    try:
        held = _lock(descriptor)
    finally:
        os.close(descriptor)
    return is_running(stage) if held is None else not held


def settle(folder: Path) -> bool:
    """Finish or remove what killed runs left in `folder`; returns whether there was anything.

    To be called before a set of files is read or its names are looked at. Without leftovers it only lists the folder.

    Raises:
        UsageError: a set is half in place, and this user may not finish it.
        DataError: the disk is full.
    """
    if not _leftovers(folder):
        return False
    with explained(folder), locked(folder):
        return settle_locked(folder)


def settle_locked(folder: Path) -> bool:
    """`settle`, where the caller holds the lock."""
    found = False
    for left in _leftovers(folder):
        if left.is_symlink() or not left.is_dir():
            if not is_running(left):
                left.unlink(missing_ok=True)
                found = True
        elif not in_use(left):
            found = True
            if (left / JOURNAL).exists():
                carry_out(folder, left)
            else:
                shutil.rmtree(left, ignore_errors=True)
    return found


def _leftovers(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as listing:
            return sorted(folder / entry.name for entry in listing if entry.name.startswith(PARTIAL))
    except (OSError, ValueError):  # does not exist, is a file, cannot be listed: the caller finds out
        return []


def write_journal(stage: Path, remove: list[PurePosixPath], last: str | None) -> None:
    """Write the journal: from now on the new files will be put in place, even after a kill."""
    temporary = stage / f"{JOURNAL}.part"
    value = {"tool": "hefkit journal", "last": last, "remove": [name.as_posix() for name in remove]}
    temporary.write_text(json.dumps(value, ensure_ascii=True), encoding="ascii")
    sync(temporary)
    os.replace(temporary, stage / JOURNAL)
    sync(stage)
    sync(stage.parent)


def carry_out(target: Path, stage: Path) -> None:
    """Move the new files to their places, remove the old ones, then the stage. It can be repeated after any kill."""
    journal = own_json(stage / JOURNAL)
    new = stage / NEW
    touched = {target}
    for file in staged_files(new, journal.get("last")):
        place = target / file.relative_to(new)
        touched.update(_make_folder(place.parent))
        refuse_folder(place)
        os.replace(file, place)
    _sync_all(touched)  # the new names are on the disk before an old one goes
    removed = set()
    for name in _safe(journal.get("remove")):
        place = target / name
        place.unlink(missing_ok=True)
        removed.add(place.parent)
    _sync_all(removed)
    (stage / JOURNAL).unlink()
    sync(stage)
    shutil.rmtree(stage, ignore_errors=True)


def staged_files(new: Path, last: object = None) -> list[Path]:
    """The files of a stage that are not in place yet, sorted, with `last` at the end."""
    files = sorted(Path(folder, name) for folder, _, names in os.walk(new) for name in names)
    return sorted(files, key=lambda file: file.relative_to(new).as_posix() == last)


def refuse_folder(place: Path) -> None:
    """Raise UsageError where a folder has the name of a file to write."""
    if place.is_dir():
        raise UsageError(f"cannot write {place}: there is a folder of that name; choose another output")


def _make_folder(folder: Path) -> list[Path]:
    """Make a folder with its parents; returns the folders whose entries change when a file is moved into it."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
    return [*missing, folder]


def _sync_all(folders: set[Path]) -> None:
    for folder in sorted(folders):
        if folder.is_dir():
            sync(folder)


def _safe(names: Any) -> list[str]:
    """The names below the folder among `names`: a journal must not reach outside."""
    return [name for name in names if is_plain(name)] if isinstance(names, list) else []
