"""A failed or killed run leaves what was there before; a finished one puts everything in place."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from hefkit.errors import DataError, UsageError
from hefkit.files import check_writable, existing, explained, is_plain, read_start, replacing
from tests.helpers.kills import every_event

needs_permissions = pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder, hidden ones too, with its text."""
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_replacing_a_file(tmp_path: Path) -> None:
    """The new text appears at once, folders are made, no temporary name is left."""
    place = tmp_path / "a" / "b.txt"

    with replacing(place) as temporary:
        temporary.write_text("new")
        assert not place.exists() and temporary.parent == place.parent

    assert tree(tmp_path) == {"a/b.txt": "new"}


def test_replacing_survives_every_kill(tmp_path: Path) -> None:
    """At each file-system event, and after a power cut there, the file holds the old or the new text."""

    def old(root: Path) -> None:
        root.mkdir(parents=True)
        (root / "b.txt").write_text("old")

    def work(root: Path) -> None:
        with replacing(root / "b.txt") as temporary:
            temporary.write_text("new")

    seen = set()
    every_event(old, work, lambda root, moment: seen.add((root / "b.txt").read_text()), tmp_path / "x")

    assert seen == {"old", "new"}


def test_replacing_fails(tmp_path: Path) -> None:
    """An error in between keeps the old file."""
    place = tmp_path / "b.txt"
    place.write_text("old")

    with pytest.raises(ValueError), replacing(place) as temporary:
        temporary.write_text("half")
        raise ValueError

    assert tree(tmp_path) == {"b.txt": "old"}


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        (errno.ENOSPC, DataError, "the disk is full while writing out"),
        (errno.EDQUOT, DataError, "the disk is full"),
        (errno.EFBIG, DataError, "4 GB on FAT32"),
        (errno.EIO, DataError, "the disk reports an error"),
        (errno.EACCES, UsageError, "cannot write out: Permission denied; choose another output"),
        (errno.EROFS, UsageError, "Read-only file system"),
        (errno.ENAMETOOLONG, UsageError, "too long"),
    ],
)
def test_refusals_of_the_system_are_explained(code: int, error: type[Exception], words: str) -> None:
    """A full disk is data (3), a folder that cannot be written is usage (2)."""
    with pytest.raises(error, match=words), explained(Path("out")):
        raise OSError(code, os.strerror(code))


def test_other_refusals_stay_bugs() -> None:
    """An unexpected error keeps its type."""
    with pytest.raises(OSError) as caught, explained(Path("out")):
        raise OSError(errno.ETXTBSY, "Text file busy")

    assert not isinstance(caught.value, UsageError)


def test_check_writable(tmp_path: Path) -> None:
    """A folder that could be made passes and is not made; a file in its place or above it is refused."""
    (tmp_path / "file").touch()

    check_writable(tmp_path / "new" / "deep")
    for bad in ("file", "file/below"):
        with pytest.raises(UsageError, match="cannot write"):
            check_writable(tmp_path / bad)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no /proc here")
def test_check_writable_on_a_system_folder() -> None:
    """Even root cannot write into /proc, and gets the same error."""
    with pytest.raises(UsageError, match="cannot write"):
        check_writable(Path("/proc/out"))


@needs_permissions
def test_check_writable_without_permission(tmp_path: Path) -> None:
    """A folder without the write bit is refused."""
    (tmp_path / "locked").mkdir(mode=0o500)

    with pytest.raises(UsageError, match="Permission denied"):
        check_writable(tmp_path / "locked" / "out")


@pytest.mark.parametrize("path", ["x" * 5000, "a\0b", "no/such/file"])
def test_existing_never_raises(path: str) -> None:
    """Impossible names do not exist."""
    assert not existing(Path(path))


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    """Opening a pipe for reading waits for a writer, which may never come."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("text")

    for name in ("pipe", ".", "missing"):
        with pytest.raises(OSError):
            read_start(tmp_path / name, 10)
    assert read_start(tmp_path / "file", 2) == b"te"


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "../a", "a/../b", "a\0b", "\ud800", "x" * 300, "a/" * 2000, None, 7, ["a"]]
)
def test_names_that_no_file_has(name: object) -> None:
    """A name that a file gives us is only used if it lies below the folder and can exist."""
    assert not is_plain(name)
    assert is_plain("s/é..png") and is_plain(os.fsdecode(b"\xff.png"))
