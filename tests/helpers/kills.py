"""A program that dies at the n-th file-system event, and what the disk holds after a power cut at that moment.

Events are those that change a file system: an open for writing, mkdir, rename, remove, rmdir, and fsync. Python's audit
hook sees all of them, whatever function made them. After the n-th event has been refused, every later one is refused
as well, so `finally` blocks change nothing, as after `kill -9`.

A disk keeps for certain only what was synced: the content of a file at its last fsync, the names in a folder at its
last fsync. `Disk` keeps both, by inode.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CHANGES = frozenset(("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"))
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_armed: list[Life] = []


class Killed(BaseException):
    """The process has been killed; nothing that it does changes the disk any more."""


class Life:
    """Counts events and refuses all from number `ends` on; None: it never ends."""

    def __init__(self, ends: int | None) -> None:
        self.ends, self.events, self.over = ends, 0, False

    def event(self) -> None:
        """Count one event, or refuse it."""
        if self.over or self.events == self.ends:
            self.over = True
            raise Killed
        self.events += 1


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if _armed and (event in CHANGES or (event == "open" and isinstance(args[2], int) and args[2] & WRITES)):
        _armed[-1].event()


_installed: list[bool] = []


@contextlib.contextmanager
def dying(ends: int | None, disk: Disk) -> Iterator[Life]:
    """Within the block the program dies at event `ends`; the disk is told of what is synced."""
    if not _installed:
        sys.addaudithook(_hook)  # it cannot be removed
        _installed.append(True)
    life = Life(ends)

    def counted(descriptor: int) -> None:
        life.event()
        disk.synced(descriptor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", counted)
        _armed.append(life)
        try:
            with contextlib.suppress(Killed):
                yield life
        finally:
            _armed.pop()


class Disk:
    """What a power cut leaves of `root`; everything that is there at first is on the disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files: dict[int, bytes] = {}
        self._folders: dict[int, dict[str, tuple[int, bool]]] = {}  # name -> (inode, whether it is a folder)
        for folder, _, names in os.walk(root):
            self._keep_folder(Path(folder))
            for name in names:
                path = Path(folder, name)
                self._files[path.stat().st_ino] = path.read_bytes()

    def _keep_folder(self, folder: Path) -> None:
        self._folders[folder.stat().st_ino] = {
            entry.name: (entry.inode(), entry.is_dir()) for entry in os.scandir(folder)
        }

    def synced(self, descriptor: int) -> None:
        """An fsync of an open file or folder."""
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.is_dir():
            self._keep_folder(path)
        else:
            self._files[path.stat().st_ino] = path.read_bytes()

    def kept(self, target: Path) -> None:
        """Write to `target` what is certain: synced names, with synced contents."""
        self._write(self.root.stat().st_ino, target)

    def _write(self, inode: int, target: Path) -> None:
        target.mkdir()
        for name, (child, is_folder) in self._folders.get(inode, {}).items():
            if is_folder:
                self._write(child, target / name)
            else:
                (target / name).write_bytes(self._files.get(child, b""))

    def ordered(self, target: Path) -> None:
        """Write to `target` what a disk that keeps all names, but only synced contents, has."""
        shutil.copytree(self.root, target)
        for folder, _, names in os.walk(self.root):
            for name in names:
                path = Path(folder, name)
                (target / path.relative_to(self.root)).write_bytes(self._files.get(path.stat().st_ino, b""))


def every_event(
    before: Callable[[Path], None],
    work: Callable[[Path], object],
    after: Callable[[Path, str], None],
    scratch: Path,
    step: int = 1,
) -> int:
    """Kill `work` at each of its events, and check what is left then; returns the number of events.

    Args:
        before: makes the old state in a folder.
        work: changes that folder; the paths that it opens must not be cached.
        after: is called with the folder and a text that names the moment; raises where something is lost.
        scratch: an empty folder.
        step: 1: every event; n: every n-th, for work that takes long.
    """
    number = 0
    while True:
        root = scratch / "root"
        before(root)
        disk = Disk(root)
        with dying(number, disk) as life:
            work(root)
        if not life.over:
            after(root, "at the end")
            shutil.rmtree(scratch)
            return life.events
        for kind, write in (("certain", disk.kept), ("ordered", disk.ordered)):
            copy = scratch / kind
            write(copy)
            after(copy, f"power cut at event {number}, {kind}")
            shutil.rmtree(copy)
        after(root, f"kill at event {number}")
        shutil.rmtree(root)
        number += step
