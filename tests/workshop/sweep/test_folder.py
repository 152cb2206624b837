"""The record of a candidate: what is reused, what runs again, and what a worker may not write."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hefkit.errors import UsageError
from hefkit.workshop.sweep.folder import RECORD, SWEEP, SweepFolder, check_folder
from hefkit.workshop.sweep.job import Job
from hefkit.workshop.sweep.ranking import DONE, FAILED
from hefkit.workshop.sweep.settings import Candidate, Settings

REPORT = json.dumps({"quality": {"f1": 0.9, "f1_interval": [0.8, 1.0], "recall": 0.9, "precision": 0.9}}).encode()
FILES = {"a.hef": b"model", "a.json": b"{}", "run/report.json": REPORT, "log.txt": b"[1/4]"}
JOB = Job(Candidate("mine", Settings(level=0)), "key", "a.hef", {}, (), "python3 x", None, False, False)


def outcome(code: int = 0, error: str | None = None, **files: bytes) -> dict[str, Any]:
    """What a worker returns."""
    return {"code": code, "error": error, "files": {**FILES, **files}, "seconds": 2.5, "host": "there"}


def names(folder: Path) -> set[str]:
    """All files below a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_finished_candidate_is_reused(tmp_path: Path) -> None:
    """With its figures, its time and its worker; the row is the same but for that."""
    folder = SweepFolder(tmp_path / "sweep")
    row = folder.keep(JOB, outcome())

    again = folder.finished(JOB)

    assert (row.status, row.score, row.model) == (DONE, 0.9, tmp_path / "sweep/mine/a.hef")
    assert again == replace(row, reused=True)
    assert names(tmp_path / "sweep") == {f"mine/{name}" for name in (*FILES, RECORD)}


def test_it_runs_again_where_something_differs(tmp_path: Path) -> None:
    """Another key, a damaged model, a missing model, a candidate that has failed."""
    folder, model = SweepFolder(tmp_path), tmp_path / "mine" / "a.hef"
    folder.keep(JOB, outcome())

    assert folder.finished(replace(JOB, key="other")) is None
    model.write_bytes(b"mod")
    assert folder.finished(JOB) is None
    model.unlink()
    assert folder.finished(JOB) is None
    failed = folder.keep(JOB, outcome(7, "below the gate"))
    assert (failed.status, failed.exit_code, failed.error) == (FAILED, 7, "below the gate")
    assert folder.finished(JOB) is None


def test_what_an_earlier_candidate_has_left_goes(tmp_path: Path) -> None:
    """Files of the record only: a note of the user stays."""
    folder = SweepFolder(tmp_path)
    folder.keep(JOB, outcome(**{"run/old.har": b"old"}))
    (tmp_path / "mine" / "note.txt").write_text("mine")

    folder.keep(JOB, outcome())

    assert names(tmp_path / "mine") == {*FILES, RECORD, "note.txt"}


def test_a_worker_writes_below_the_folder_only(tmp_path: Path) -> None:
    """Names that lead outside are left out."""
    SweepFolder(tmp_path / "sweep").keep(JOB, outcome(**{"../../out.txt": b"x", "/tmp/hefkit-out.txt": b"x"}))

    assert names(tmp_path) == {f"sweep/mine/{name}" for name in (*FILES, RECORD)}
    assert not Path("/tmp/hefkit-out.txt").exists()


@pytest.mark.parametrize("report", [b"", b"[]", b"{"])
def test_a_model_without_a_report_is_a_failure(tmp_path: Path, report: bytes) -> None:
    """A worker that says 0 and returns half of it."""
    row = SweepFolder(tmp_path).keep(JOB, outcome(**{"run/report.json": report}))

    assert (row.status, row.error) == (FAILED, "it ended without a model")


def test_another_program_s_file_is_not_replaced(tmp_path: Path) -> None:
    """Exit 2 for a sweep.json that is not hefkit's; hefkit's own is replaced."""
    (tmp_path / SWEEP).write_text('{"tool": "other"}')
    with pytest.raises(UsageError, match=r"sweep\.json is not hefkit's"):
        check_folder(tmp_path)

    (tmp_path / SWEEP).unlink()
    SweepFolder(tmp_path).write_json({"rows": []})
    check_folder(tmp_path)
