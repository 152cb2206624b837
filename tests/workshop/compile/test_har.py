"""HARs: the record beside one, and when a run may resume from it."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hefkit.errors import ModelError
from hefkit.workshop.compile.har import (
    PARSED,
    QUANTIZED,
    HarRecord,
    check_har,
    check_resume,
    differing_script,
    move_har,
    read_record,
    record_path,
    stage_of,
    write_record,
)

RECORD = HarRecord(
    stage=QUANTIZED,
    onnx_sha256="ab" * 32,
    hw_arch="hailo8",
    end_nodes=("/a/Conv", "/b/Conv"),
    sdk="3.33.1",
    script="normalization1 = normalization([0.0], [255.0])\n",
    calibration={"count": 64, "digest": "cd"},
    ran={"pictures": {"calibration": 64}},
)


def archive(path: Path, *names: str) -> Path:
    """A tar with empty files."""
    with tarfile.open(path, "w") as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    return path


def test_a_record_is_read_back(tmp_path: Path) -> None:
    """With the hash of the HAR itself, so that another file of the same name does not inherit it."""
    har = archive(tmp_path / "best.quantized.har", "best.hn")
    write_record(har, RECORD)

    found = read_record(har)
    assert found is not None and replace(found, har_sha256="") == RECORD
    assert record_path(har).name == "best.quantized.har.json"
    archive(har, "other.hn")
    assert read_record(har) is None


def test_a_har_moves_with_its_record(tmp_path: Path) -> None:
    """A HAR that is refused gets another name and keeps its record."""
    har = archive(tmp_path / "best.quantized.har", "best.hn")
    write_record(har, RECORD)

    move_har(har, tmp_path / "best.refused.har")

    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.refused.har", "best.refused.har.json"]
    assert read_record(tmp_path / "best.refused.har") is not None


SPOILT: dict[str, Any] = {
    "no JSON": "{",
    "another format": {"format": 2},
    "another tool": {"tool": "somebody 1.0"},
    "a key too many": {"surprise": 1},
    "no end nodes": {"end_nodes": None},
    "a calibration without a number": {"calibration": {"digest": "cd"}},
    "a list": [],
}


@pytest.mark.parametrize("change", SPOILT.values(), ids=SPOILT.keys())
def test_a_record_of_another_program_is_ignored(tmp_path: Path, change: Any) -> None:
    """Then nothing is known of the HAR; this is a warning, not an error."""
    har = archive(tmp_path / "best.parsed.har", "best.hn")
    write_record(har, RECORD)
    path = record_path(har)
    value = json.loads(path.read_text())
    path.write_text(change if isinstance(change, str) else json.dumps({**value, **change} if change else change))

    assert read_record(har) is None


def test_files_that_are_not_a_har(tmp_path: Path) -> None:
    """Refused with exit 4 before anything slow."""
    (tmp_path / "text.har").write_text("hello")
    (tmp_path / "folder.har").mkdir()

    check_har(archive(tmp_path / "good.har", "best.hn", "best.npz"))
    for name, words in (("gone", "does not exist"), ("text", "is not a HAR"), ("folder", "does not exist")):
        with pytest.raises(ModelError, match=words):
            check_har(tmp_path / f"{name}.har")
    with pytest.raises(ModelError, match="without a network"):
        check_har(archive(tmp_path / "empty.har", "readme.txt"))


STATES = {
    "Hailo Model": PARSED, "Quantized Model": QUANTIZED, "QuantizedModel": QUANTIZED, "compiled-model": QUANTIZED,
    "hailo_model": PARSED, "states.hailo_model": PARSED, "quantized_model": QUANTIZED, "compiled_model": QUANTIZED,
    "compiled_slim_model": QUANTIZED,
}  # fmt: skip


@pytest.mark.parametrize("state, stage", STATES.items(), ids=STATES.keys())
def test_states(state: str, stage: str) -> None:
    """However the SDK's enum turns into text."""
    assert stage_of(state, Path("x.har")) == stage


@pytest.mark.parametrize("state", ["uninitialized", "fp_optimized_model", None])
def test_states_that_a_run_cannot_resume_from(state: str | None) -> None:
    """Half a stage is not resumed."""
    with pytest.raises(ModelError, match="leave --har out"):
        stage_of(state, Path("x.har"))


OTHERS = {
    "another ONNX": (replace(RECORD, onnx_sha256="ff" * 32), "made from another ONNX"),
    "another chip": (replace(RECORD, hw_arch="hailo8l"), "made from another chip"),
    "other end nodes": (replace(RECORD, end_nodes=("/a/Conv",)), "made from other end nodes"),
}


@pytest.mark.parametrize("record, words", OTHERS.values(), ids=OTHERS.keys())
def test_a_har_of_something_else_is_refused(record: HarRecord, words: str) -> None:
    """The same file name proves nothing."""
    with pytest.raises(ModelError, match=words):
        check_resume(Path("x.har"), record, RECORD, "hailo8")


def test_the_chip_that_the_sdk_names_is_checked_first() -> None:
    """Also without a record."""
    for record in (RECORD, None):
        with pytest.raises(ModelError, match="is for hailo15h, expected hailo8"):
            check_resume(Path("x.har"), record, RECORD, "hailo15h")
    assert check_resume(Path("x.har"), RECORD, RECORD, None) == []


def test_what_cannot_be_checked_is_a_warning() -> None:
    """No record; another calibration set, which then only measures."""
    assert "has no record beside it" in check_resume(Path("x.har"), None, RECORD, "hailo8")[0]
    other = replace(RECORD, calibration={"count": 32, "digest": "ee"})
    assert "another calibration set" in check_resume(Path("x.har"), other, RECORD, "hailo8")[0]
    assert check_resume(Path("x.har"), replace(RECORD, calibration=None), RECORD, "hailo8") == []


def test_another_script_is_named_by_its_lines() -> None:
    """A quantised network has its script in its numbers; the order of lines means nothing."""
    lines = ["normalization1 = normalization([0.0], [255.0])", "model_optimization_flavor(optimization_level=0)"]

    assert differing_script(Path("x.har"), lines, lines[::-1]) is None
    told = differing_script(Path("x.har"), lines, [lines[0], "model_optimization_flavor(optimization_level=2)"])
    assert told is not None and "it lacks model_optimization_flavor(optimization_level=2)" in told
    assert "it has model_optimization_flavor(optimization_level=0)" in told
