"""A failed or killed run leaves the old set of files; a finished one puts everything in place."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hefkit.errors import DataError, UsageError
from hefkit.files import PARTIAL, entries
from hefkit.staging import journal
from hefkit.staging.journal import hold, let_go, locked, settle
from hefkit.staging.stage import Staging, fresh_folder
from tests.conftest import ROOT
from tests.helpers.kills import every_event


def dead_pid() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder, hidden ones too, with its text."""
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_two_sets_of_files_for_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the folder is spelled: neither takes the other for what a killed run has left."""
    monkeypatch.chdir(tmp_path)
    with Staging(tmp_path) as first, Staging(Path()) as second:
        (first.path / "a").write_text("1")
        (second.path / "b").write_text("2")
        first.commit()
        second.commit()

    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "1", "b": "2"}


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
    monkeypatch.setattr(journal.os, "replace", lambda a, b: (moved.append(Path(b).name), replace(a, b)))

    with Staging(tmp_path / "out") as stage:
        for name in ("a", "manifest", "z"):
            (stage.path / name).write_text("new")
        stage.commit(last="manifest")

    assert moved == ["journal.json", "a", "z", "manifest"]


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
    """What a killed process left goes, even if its id is in use again; what a running one writes stays."""
    running = tmp_path / f"{PARTIAL}{os.getppid()}-1"
    for name in (f"{PARTIAL}{dead_pid()}-1", f"{PARTIAL}{10**30}-1", f"{PARTIAL}{os.getppid()}-2", running.name):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text("half")
    (tmp_path / f"{PARTIAL}{dead_pid()}-b.txt").write_text("half")
    (tmp_path / "mine").write_text("mine")
    descriptor = hold(running)

    with Staging(tmp_path):
        pass

    assert tree(tmp_path) == {f"{running.name}/a": "half", "mine": "mine"}
    assert entries(tmp_path) == [tmp_path / "mine"]
    let_go(running, descriptor)
    assert settle(tmp_path) and tree(tmp_path) == {"mine": "mine"} and not settle(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_during_the_commit_waits(tmp_path: Path, number: signal.Signals) -> None:
    """Half a move would be half a result: the signal acts when all files are in place."""
    program = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom hefkit import cli\n"
        "from hefkit.staging.stage import Staging\n"
        "replace = os.replace\n"
        "def slow(a, b):\n"
        "    os.kill(os.getpid(), int(sys.argv[2]))\n"
        "    for _ in range(1000): pass\n"
        "    replace(a, b)\n"
        "os.replace = slow\n"
        "def main(argv):\n"
        "    with Staging(Path(sys.argv[1])) as stage:\n"
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
        "import os, signal, sys\nfrom pathlib import Path\nfrom hefkit.staging.stage import Staging\n"
        "with Staging(Path(sys.argv[1])) as stage:\n"
        "    (stage.path / 'a').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, timeout=60)

    assert (tmp_path / "a").read_text() == "before" and len(list(tmp_path.iterdir())) == 2
    with Staging(tmp_path):
        pass
    assert tree(tmp_path) == {"a": "before"}


def test_fresh_folder(tmp_path: Path) -> None:
    """NAME, NAME-2, NAME-3: the first that is free."""
    assert fresh_folder(tmp_path, "m") == tmp_path / "m"
    (tmp_path / "m").mkdir()
    (tmp_path / "m-2").touch()

    assert fresh_folder(tmp_path, "m") == tmp_path / "m-3"


def test_a_name_of_which_a_killed_run_left_nothing_is_free(tmp_path: Path) -> None:
    """The folder of a run that was killed before its first file counts as unused; one with files does not."""
    for name in ("m", "k"):
        (tmp_path / name / f"{PARTIAL}{dead_pid()}-1" / "new").mkdir(parents=True)
    (tmp_path / "k" / "mine").touch()

    assert fresh_folder(tmp_path, "m") == tmp_path / "m" and not (tmp_path / "m").exists()
    assert fresh_folder(tmp_path, "k") == tmp_path / "k-2"


# --- kills ------------------------------------------------------------------------------------------------------------

OLD = {"a": "old", "gone": "old", "s/b": "old", "manifest": "old", "mine": "mine"}
RESULT = {"a": "new", "s/b": "new", "t/u/c": "new", "manifest": "new", "mine": "mine"}


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the deaths no disk needs to be waited for."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def old_state(root: Path) -> None:
    """The folder before the run."""
    for name, text in OLD.items():
        (root / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "out" / name).write_text(text)


def replace_all(root: Path) -> None:
    """The run: it replaces, adds and removes files."""
    target = root / "out"
    with Staging(target) as stage:
        for name in ("a", "s/b", "t/u/c", "manifest"):
            (stage.path / name).parent.mkdir(parents=True, exist_ok=True)
            (stage.path / name).write_text("new")
        stage.commit(remove=lambda: [target / "manifest", target / "gone"], last="manifest")


@pytest.mark.usefixtures("no_waiting")
def test_killed_at_every_event(tmp_path: Path) -> None:
    """After kill -9 or a power cut at any event, whoever looks next finds the old or the new set, and nothing else."""
    seen = []

    def check(root: Path, moment: str) -> None:
        settle(root / "out")
        found = tree(root / "out")
        assert found in (OLD, RESULT), moment
        replace_all(root)  # the next run needs no help
        assert tree(root / "out") == RESULT, moment
        seen.append(found == RESULT)

    events = every_event(old_state, replace_all, check, tmp_path / "x")

    assert events > 30 and {*seen} == {True, False}


@pytest.mark.usefixtures("no_waiting")
def test_killed_while_finishing(tmp_path: Path) -> None:
    """The program that finishes a set may be killed as well, at every event."""

    def half(root: Path) -> None:
        old_state(root)
        stage = root / "out" / f"{PARTIAL}{10**30}-1"
        for name in ("s/b", "t/u/c", "manifest"):  # a is in place already
            (stage / "new" / name).parent.mkdir(parents=True, exist_ok=True)
            (stage / "new" / name).write_text("new")
        (root / "out" / "a").write_text("new")
        (stage / "journal.json").write_text(
            json.dumps({"tool": "hefkit journal", "last": "manifest", "remove": ["gone"]})
        )

    def check(root: Path, moment: str) -> None:
        settle(root / "out")
        assert tree(root / "out") == RESULT, moment

    assert every_event(half, lambda root: settle(root / "out"), check, tmp_path / "x") > 10


@pytest.mark.usefixtures("no_waiting")
def test_a_new_folder_killed_at_every_event(tmp_path: Path) -> None:
    """Nothing, or all files; what is left of an unfinished folder is no obstacle."""

    def check(root: Path, moment: str) -> None:
        settle(root / "out")
        assert tree(root) in ({}, {f"out/{name}": text for name, text in RESULT.items() if name != "mine"}), moment
        replace_all(root)

    every_event(lambda root: root.mkdir(parents=True), replace_all, check, tmp_path / "x")


def test_a_journal_reaches_nothing_outside(tmp_path: Path) -> None:
    """Its names come from a file: only those below the folder are removed."""
    (tmp_path / "mine").write_text("mine")
    stage = tmp_path / "out" / f"{PARTIAL}{10**30}-1"
    (stage / "new").mkdir(parents=True)
    names = ["../mine", str(tmp_path / "mine"), "a\0b", "", 7]
    (stage / "journal.json").write_text(json.dumps({"tool": "hefkit journal", "last": None, "remove": names}))

    assert settle(tmp_path / "out")
    assert tree(tmp_path) == {"mine": "mine"}


def test_a_commit_that_fails_is_finished_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the disk in the middle keeps the journal and the files that are not in place yet."""
    old_state(tmp_path)
    replace = os.replace

    def full(source: str | Path, target: str | Path) -> None:
        if Path(target).name == "c":
            raise OSError(28, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(journal.os, "replace", full)
        with pytest.raises(DataError, match="the disk is full"):
            replace_all(tmp_path)
    assert tree(tmp_path / "out") not in (OLD, RESULT)

    settle(tmp_path / "out")
    assert tree(tmp_path / "out") == RESULT


def test_one_commit_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second run waits for the lock of the folder, and gives up after a while."""
    monkeypatch.setattr(journal, "MAX_WAIT_S", 0.1)
    with Staging(tmp_path) as stage, locked(tmp_path), pytest.raises(UsageError, match="another run has been writing"):
        stage.commit()
    with Staging(tmp_path) as stage, stage.locked():
        stage.commit()  # our own lock does not stop us


def test_what_is_removed_is_known_at_the_commit(tmp_path: Path) -> None:
    """Two runs that replace the same set leave the files of one: the second removes what the first has written."""

    def listed() -> list[Path]:
        return [tmp_path / name for name in (tmp_path / "manifest").read_text().split()]

    def write(stage: Staging, names: str) -> None:
        for name in names.split():
            (stage.path / name).write_text(name)
        (stage.path / "manifest").write_text(names)

    with Staging(tmp_path) as stage:
        write(stage, "1 2 3")
        stage.commit()
    with Staging(tmp_path) as first, Staging(tmp_path) as second:
        write(first, "1 2 3 4 5")
        write(second, "1 2")
        first.commit(remove=listed)
        second.commit(remove=listed)

    assert {path.name for path in tmp_path.iterdir()} == {"1", "2", "manifest"}


PROGRAM = """
import sys
from pathlib import Path
from hefkit.staging.stage import Staging
target = Path(sys.argv[1])
with Staging(target) as stage:
    for number in range(300):
        (stage.path / f"{number}").write_text(sys.argv[2])
    (stage.path / "manifest").write_text(sys.argv[2])
    print("ready", flush=True)
    stage.commit(last="manifest")
"""


@pytest.mark.parametrize("delay_ms", [0, 2, 5, 10, 20])
def test_really_killed(tmp_path: Path, delay_ms: float) -> None:
    """kill -9 of a real process during a commit of 300 files."""
    for name in (*range(300), "manifest"):
        (tmp_path / str(name)).write_text("old")
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path), "new"], cwd=ROOT, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stdout.readline()
        time.sleep(delay_ms / 1e3)
        process.kill()

    settle(tmp_path)
    found = tree(tmp_path)
    assert len(found) == 301 and len({*found.values()}) == 1
