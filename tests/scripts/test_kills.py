"""The scripts that replace files, killed at every file-system event: the old or the new files are there, whole.

The scripts' `main` runs in this process, where a double refuses all events from the n-th on; after each death the
folder is checked as kill -9 leaves it, and as a power cut does. Then the same command must work without help.
`make mutations` tries every event of the slow ones and prints the figures.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import pytest

import compile_to_hef
import hailo_inference
import prepare_calibration
from hefkit.open_model import check_model_file
from hefkit.results.folder import OutputOptions, plan_run
from hefkit.spec_file import read_spec
from hefkit.workshop.calibration.read import CalibrationSet
from tests.helpers.kills import every_event
from tests.helpers.pictures import noise, write
from tests.helpers.sdk import make_sdk
from tests.helpers.tiny_onnx import save, tiny_yolo
from tests.helpers.toy_emulation import write_emulation
from tests.scripts.test_compile_emulated import npy_set

Main = Callable[[list[str]], int]


@pytest.fixture(autouse=True)
def signals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Scripts set handlers; and between the deaths no disk needs to be waited for."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Eight photographs."""
    for number in range(8):
        write(tmp_path / "photos" / f"p{number}.png", noise(32, 48, seed=number))
    return tmp_path / "photos"


def names_of(folder: Path) -> set[str]:
    """The files of a folder, hidden ones too."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def told(capsys: pytest.CaptureFixture[str], what: str, events: int, tried: int) -> None:
    """Print the figures however pytest was started."""
    with capsys.disabled():
        sys.stdout.write(
            f"\n{what}: {events} events, {tried} deaths tried (kill -9 and two power cuts each), none lost\n"
        )


# --- calibration sets -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["png", "npy"])
@pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.mutations)])
def test_calibration_sets(
    photos: Path, tmp_path: Path, form: str, step: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """A set of six pictures replaces one of three, of the other form; no stranger stays."""
    seen: list[int] = []
    old = tmp_path / "old"

    def make(root: Path, count: int, form: str) -> None:
        flags = ["--imgsz", "32", "--num-samples", str(count), "--format", form, "--workers", "1"]
        prepare_calibration.main([str(photos), "--output", str(root / "set"), "--overwrite", "--quiet", *flags])

    def check(root: Path, moment: str) -> None:
        found = CalibrationSet(root / "set", (32, 32))  # compares every picture with the digest
        manifest = json.loads((root / "set" / "manifest.json").read_text())
        listed = {"manifest.json", "preview.jpg", "coverage.png", *(image["file"] for image in manifest["images"])}
        assert len(found) in (3, 6) and names_of(root / "set") == listed, moment
        seen.append(len(found))
        if moment.startswith("kill"):
            make(root, 6, form)
            assert len(CalibrationSet(root / "set", (32, 32))) == 6, moment

    make(old, 3, "npy" if form == "png" else "png")
    events = every_event(lambda root: shutil.copytree(old, root) and None, lambda root: make(root, 6, form), check,
                         tmp_path / "x", step)  # fmt: skip

    assert events > 30 and {*seen} == {3, 6}
    told(capsys, f"calibration set, {form}", events, len(seen) // 3)


def test_two_sets_at_once(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one run is at work a second one replaces the set: what stays is the set of one, without strangers."""
    from hefkit.workshop.calibration import make

    def run(count: int) -> None:
        prepare_calibration.main(
            [
                str(photos),
                "--output",
                str(tmp_path / "set"),
                "--overwrite",
                "--imgsz",
                "32",
                "--num-samples",
                str(count),
            ]
        )

    cover = make._cover

    def interrupted(*args: object) -> object:
        monkeypatch.setattr(make, "_cover", cover)
        run(8)
        return cover(*args)  # type: ignore[arg-type]

    run(3)
    monkeypatch.setattr(make, "_cover", interrupted)
    run(2)

    pictures = {"calib_0000.png", "calib_0001.png"}
    assert names_of(tmp_path / "set") == {"manifest.json", "preview.jpg", "coverage.png", *pictures}
    run(4)


# --- results ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("step", [9, pytest.param(1, marks=pytest.mark.mutations)])
def test_results(photos: Path, tmp_path: Path, step: int, capsys: pytest.CaptureFixture[str]) -> None:
    """A second run into the same folder, with another model: lines, pictures and record are those of one run."""
    for folder in ("few", "all", "old", "new"):
        (tmp_path / folder).mkdir()
    models = [write_emulation(tmp_path / name, dict.fromkeys(range(3), name)) for name in ("old", "new")]
    for number, photo in enumerate(sorted(photos.iterdir())[:4]):
        shutil.copy(photo, tmp_path / "all")
        if number < 2:
            shutil.copy(photo, tmp_path / "few")
    tried = []

    def run(root: Path, model: Path, source: str) -> None:
        flags = ["--save-dir", str(root / "out"), "--format", "jsonl,csv", "--quiet", "--conf", "0.01"]
        hailo_inference.main([str(model), str(tmp_path / source), *flags])

    def check(root: Path, moment: str) -> None:
        plan_run(root / "out", [], OutputOptions())  # what the next run does first
        record = json.loads((root / "out" / "run.json").read_text())
        lines = (root / "out" / "detections.jsonl").read_text().splitlines()
        names = {found["class"] for line in lines for found in json.loads(line)["detections"]}
        assert len(lines) in (2, 4) and names == {"old" if len(lines) == 2 else "new"}, moment
        assert names_of(root / "out") == {"run.json", *record["files"]}, moment
        tried.append(len(lines))

    events = every_event(
        lambda root: run(root, models[0], "few"), lambda root: run(root, models[1], "all"), check, tmp_path / "x", step
    )

    assert {*tried} == {2, 4}
    told(capsys, "results", events, len(tried) // 3)


# --- models -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("step", [17, pytest.param(1, marks=pytest.mark.mutations)])
def test_emulated_models(tmp_path: Path, step: int, capsys: pytest.CaptureFixture[str]) -> None:
    """A model never stands beside another run's spec."""
    model, calib = save(tiny_yolo(), tmp_path / "tiny.onnx"), npy_set(tmp_path / "set.npy", 2)
    old, tried = tmp_path / "old", []

    def run(root: Path, names: str) -> None:
        flags = ["--calib", str(calib), "--output", str(root / "m"), "--run-dir", str(root / "run"), "--quiet"]
        compile_to_hef.main([str(model), "--emulate", "--names", names, *flags])

    def check(root: Path, moment: str) -> None:
        emulated = root / "m.emulated.onnx"
        check_model_file(emulated)  # what every reader does first
        spec = emulated.with_suffix(".json")
        stored = {prop.key: prop.value for prop in onnx.load(emulated).metadata_props}
        assert stored["hefkit.spec_sha256"] == hashlib.sha256(spec.read_bytes()).hexdigest(), moment
        assert not list(root.glob(".hefkit-partial-*")), moment
        tried.append(read_spec(spec).names[0])

    run(old, "a,b,c")
    events = every_event(lambda root: shutil.copytree(old, root) and None, lambda root: run(root, "d,e,f"), check,
                         tmp_path / "x", step)  # fmt: skip

    assert {*tried} == {"a", "d"}
    told(capsys, "emulated model", events, len(tried) // 3)


@pytest.mark.slow
@pytest.mark.mutations
def test_compiled_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A HEF and its spec belong together; nothing large of a dead run stays in the run folder after the next run."""
    monkeypatch.delenv("HAILO_SDK_PYTHON", raising=False)
    model, calib = save(tiny_yolo(), tmp_path / "tiny.onnx"), npy_set(tmp_path / "set.npy", 2)
    python, old, tried = make_sdk(tmp_path), tmp_path / "old", []

    def run(root: Path) -> None:
        flags = ["--calib", str(calib), "--output", str(root / "m"), "--run-dir", str(root / "run"), "--quiet"]
        compile_to_hef.main([str(model), "--sdk-python", str(python), "--names", "d,e,f", *flags])

    run(old)
    spec = json.loads((old / "m.json").read_text())
    (old / "m.json").write_text(json.dumps({**spec, "names": {"0": "a", "1": "b", "2": "c"}}))
    (old / "m.hef").write_bytes((old / "m.hef").read_bytes() + b"old")

    def check(root: Path, moment: str) -> None:
        check_model_file(root / "m.hef")
        is_old = (root / "m.hef").read_bytes().endswith(b"old")
        assert read_spec(root / "m.json").names[0] == ("a" if is_old else "d"), moment
        tried.append(is_old)

    events = every_event(lambda root: shutil.copytree(old, root) and None, run, check, tmp_path / "x")

    assert {*tried} == {True, False}
    told(capsys, "HEF and spec", events, len(tried) // 3)
