"""A failed or killed run leaves what was there before; a finished one puts everything in place."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hefkit import files
from hefkit.errors import DataError, UsageError
from hefkit.files import PARTIAL, Staging, check_writable, entries, existing, explained, fresh_folder, replacing
from tests.conftest import ROOT

needs_permissions = pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder, hidden ones too, with its text."""
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()}


def dead_pid() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_two_sets_of_files_for_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the folder is spelled: neither takes the other for what a killed run has left."""
    monkeypatch.chdir(tmp_path)
    with Staging(tmp_path) as first, Staging(Path()) as second:
        (first.path / "a").write_text("1")
        (second.path / "b").write_text("2")
        first.commit()
        second.commit()

    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "1", "b": "2"}


def test_replacing_a_file(tmp_path: Path) -> None:
    """The new text appears at once, folders are made, no temporary name is left."""
    place = tmp_path / "a" / "b.txt"

    with replacing(place) as temporary:
        temporary.write_text("new")
        assert not place.exists() and temporary.parent == place.parent

    assert tree(tmp_path) == {"a/b.txt": "new"}


def test_replacing_fails(tmp_path: Path) -> None:
    """An error in between keeps the old file."""
    place = tmp_path / "b.txt"
    place.write_text("old")

    with pytest.raises(ValueError), replacing(place) as temporary:
        temporary.write_text("half")
        raise ValueError

    assert tree(tmp_path) == {"b.txt": "old"}


def test_staging_commits(tmp_path: Path) -> None:
    """Staged files replace their namesakes, removed ones go, others stay."""
    target = tmp_path / "out"
    target.mkdir()
    for name in ("a", "old", "mine"):
        (target / name).write_text("before")

    with Staging(target) as stage:
        (stage.path / "a").write_text("new")
        (stage.path / "s").mkdir()
        (stage.path / "s" / "b").write_text("new")
        stage.commit(remove=[target / "old"])

    assert tree(tmp_path) == {"out/a": "new", "out/s/b": "new", "out/mine": "before"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_staging_without_commit(tmp_path: Path, error: type[BaseException]) -> None:
    """However the block ends early, the target is as it was."""
    target = tmp_path / "out"
    target.mkdir()
    (target / "a").write_text("before")

    with pytest.raises(error), Staging(target) as stage:
        (stage.path / "a").write_text("half")
        raise error

    assert tree(tmp_path) == {"out/a": "before"}


def test_staging_removes_the_folders_it_made(tmp_path: Path) -> None:
    """A target that did not exist is gone after a failure, with its parents, but not what was there."""
    (tmp_path / "there").mkdir()

    with pytest.raises(ValueError), Staging(tmp_path / "there" / "x" / "y") as stage:
        (stage.path / "a").write_text("half")
        raise ValueError

    assert list(tmp_path.rglob("*")) == [tmp_path / "there"]


def test_the_last_file_is_moved_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that sees the last file sees all of them."""
    moved = []
    replace = os.replace
    monkeypatch.setattr(files.os, "replace", lambda a, b: (moved.append(Path(b).name), replace(a, b)))

    with Staging(tmp_path / "out") as stage:
        for name in ("a", "manifest", "z"):
            (stage.path / name).write_text("new")
        stage.commit(last="manifest")

    assert moved == ["a", "z", "manifest"]


def test_a_folder_in_the_way_is_seen_before_anything_moves(tmp_path: Path) -> None:
    """`z` is a folder: a commit that cannot finish does not begin."""
    (tmp_path / "z").mkdir()
    (tmp_path / "a").write_text("before")

    with pytest.raises(UsageError, match="there is a folder of that name"), Staging(tmp_path) as stage:
        (stage.path / "a").write_text("new")
        (stage.path / "z").write_text("new")
        stage.commit()

    assert tree(tmp_path) == {"a": "before"}


def test_leftovers_of_dead_runs_are_cleaned(tmp_path: Path) -> None:
    """What a killed process left goes; what a running one writes, and the user's files, stay."""
    running = f"{PARTIAL}{os.getppid()}"
    for name in (f"{PARTIAL}{dead_pid()}", f"{PARTIAL}{10**30}", running):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text("half")
    (tmp_path / f"{PARTIAL}{dead_pid()}-b.txt").write_text("half")
    (tmp_path / "mine").write_text("mine")

    with Staging(tmp_path):
        pass

    assert tree(tmp_path) == {f"{running}/a": "half", "mine": "mine"}
    assert entries(tmp_path) == [tmp_path / "mine"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_during_the_commit_waits(tmp_path: Path, number: signal.Signals) -> None:
    """Half a move would be half a result: the signal acts when all files are in place."""
    program = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom hefkit import cli, files\n"
        "replace = os.replace\n"
        "def slow(a, b):\n"
        "    os.kill(os.getpid(), int(sys.argv[2]))\n"
        "    for _ in range(1000): pass\n"
        "    replace(a, b)\n"
        "files.os.replace = slow\n"
        "def main(argv):\n"
        "    with files.Staging(Path(sys.argv[1])) as stage:\n"
        "        for name in 'abc': (stage.path / name).write_text('new')\n"
        "        stage.commit()\n"
        "        print('not reached')\n"
        "    return 0\n"
        "cli.run(main)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), str(int(number))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (done.returncode, done.stdout) == (128 + number, "")
    assert tree(tmp_path) == {"a": "new", "b": "new", "c": "new"}


def test_a_run_killed_outright(tmp_path: Path) -> None:
    """SIGKILL leaves the target's files alone; the next run removes what is left."""
    (tmp_path / "a").write_text("before")
    program = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom hefkit.files import Staging\n"
        "with Staging(Path(sys.argv[1])) as stage:\n"
        "    (stage.path / 'a').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, timeout=60)

    assert (tmp_path / "a").read_text() == "before" and len(list(tmp_path.iterdir())) == 2
    with Staging(tmp_path):
        pass
    assert tree(tmp_path) == {"a": "before"}


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        (errno.ENOSPC, DataError, "the disk is full while writing out"),
        (errno.EDQUOT, DataError, "the disk is full"),
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
        raise OSError(errno.EIO, "I/O error")

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


def test_fresh_folder(tmp_path: Path) -> None:
    """NAME, NAME-2, NAME-3: the first that is free."""
    assert fresh_folder(tmp_path, "m") == tmp_path / "m"
    (tmp_path / "m").mkdir()
    (tmp_path / "m-2").touch()

    assert fresh_folder(tmp_path, "m") == tmp_path / "m-3"


@pytest.mark.parametrize("path", ["x" * 5000, "a\0b", "no/such/file"])
def test_existing_never_raises(path: str) -> None:
    """Impossible names do not exist."""
    assert not existing(Path(path))
