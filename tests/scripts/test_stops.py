"""Ctrl-C and SIGTERM at any moment of any script: the contract's exit code, nothing lost, nothing left.

`make mutations` stops every script 120 times by each signal, at random moments, and prints what happened.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import onnx
import pytest

from hefkit.spec_file import read_spec
from hefkit.workshop.calibration.read import CalibrationSet
from tests.conftest import ROOT
from tests.helpers.labelled import dataset
from tests.helpers.tiny_onnx import drawn, save, tiny_yolo
from tests.helpers.toy_emulation import write_emulation
from tests.scripts.test_compile_emulated import npy_set

PATIENCE_S = 120
LIVE = "working_hailo_detector.py"
TIMES = 120  # by each signal
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
# the first lines of the scripts import argparse, which stands for every import before the handlers are set
STOPPING_ITSELF = """\
import importlib.util, os, sysconfig
os.kill(os.getpid(), {number})
spec = importlib.util.spec_from_file_location(__name__, sysconfig.get_path("stdlib") + "/argparse.py")
real = importlib.util.module_from_spec(spec)
spec.loader.exec_module(real)
globals().update(vars(real))
"""


@dataclass(frozen=True)
class Case:
    """A script at work in a folder that holds what an earlier run has made."""

    command: list[str]
    before: Path  # the folder
    check: Callable[[Path], None]  # raises where the old and the new are lost, or something is left


def names_of(folder: Path) -> set[str]:
    """The files of a folder, hidden ones too."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# --- the scripts ------------------------------------------------------------------------------------------------------


def calibration(inputs: Path) -> Case:
    """A set of 6 replaces one of 3."""

    def check(root: Path) -> None:
        found = CalibrationSet(root / "set", (32, 32))  # compares every picture with the digest
        listed = {image["file"] for image in json.loads((root / "set" / "manifest.json").read_text())["images"]}
        assert len(found) in (3, 6)
        assert names_of(root) == {f"set/{n}" for n in {"manifest.json", "preview.jpg", "coverage.png", *listed}}

    photos = dataset(inputs / "d", 8).parent / "images"
    flags = ["--output", "set", "--imgsz", "32", "--overwrite", "--num-samples"]
    old = run("prepare_calibration.py", inputs / "old", str(photos), *flags, "3")
    return Case([str(ROOT / "prepare_calibration.py"), str(photos), *flags, "6"], old, check)


def emulation(inputs: Path) -> Case:
    """An emulated model with other names."""

    def check(root: Path) -> None:
        spec = root / "m.emulated.json"
        stored = {prop.key: prop.value for prop in onnx.load(root / "m.emulated.onnx").metadata_props}
        assert stored["hefkit.spec_sha256"] == hashlib.sha256(spec.read_bytes()).hexdigest()
        assert read_spec(spec).names[0] in ("a", "d")
        assert {name for name in names_of(root) if not name.startswith("run/")} == {"m.emulated.onnx", spec.name}
        assert not [name for name in names_of(root) if "partial" in name or "scratch" in name]

    model, calib = save(tiny_yolo(), inputs / "tiny.onnx"), npy_set(inputs / "set.npy", 2)
    flags = ["--emulate", "--calib", str(calib), "--output", "m", "--run-dir", "run", "--names"]
    old = run("compile_to_hef.py", inputs / "old", str(model), *flags, "a,b,c")
    return Case([str(ROOT / "compile_to_hef.py"), str(model), *flags, "d,e,f"], old, check)


def results(inputs: Path) -> Case:
    """Results of eight pictures replace those of two."""
    labels = [f"labels/{number}.txt" for number in range(8)]

    def check(root: Path) -> None:
        record = json.loads((root / "out" / "run.json").read_text())
        lines = (root / "out" / "detections.jsonl").read_text().splitlines()
        assert len(lines) in (2, 8)
        assert names_of(root) == {f"out/{name}" for name in ("run.json", *record["files"], *labels[: len(lines)])}

    toy = write_emulation(inputs)
    many, few = (dataset(inputs / name, count).parent / "images" for name, count in (("many", 8), ("few", 2)))
    flags = ["--save-dir", "out", "--format", "jsonl,csv,txt"]
    old = run("hailo_inference.py", inputs / "old", str(toy), str(few), *flags)
    return Case([str(ROOT / "hailo_inference.py"), str(toy), str(many), *flags], old, check)


def report(inputs: Path) -> Case:
    """A report about one model replaces one about another."""

    def check(root: Path) -> None:
        found = json.loads((root / "report" / "report.json").read_text())
        assert found["models"][0]["images"] in (2, 8)
        assert {"report.html", "report.json"} <= names_of(root / "report") and len(names_of(root)) < 60
        assert not [name for name in names_of(root) if "partial" in name]

    toy = write_emulation(inputs)
    many, few = (dataset(inputs / name, count) for name, count in (("many", 8), ("few", 2)))
    old = run("validate_hef.py", inputs / "old", str(toy), "--data", str(few), "--report", "report")
    return Case([str(ROOT / "validate_hef.py"), str(toy), "--data", str(many), "--report", "report"], old, check)


def live(inputs: Path) -> Case:
    """A recording and lines; a second of video."""

    def check(root: Path) -> None:
        for film in root.glob("*.mp4"):
            assert film.name == "film.mp4"
            assert cv2.VideoCapture(str(film)).get(cv2.CAP_PROP_FRAME_COUNT) > 0
        assert names_of(root) <= {"film.mp4", "out.jsonl"}
        if (root / "out.jsonl").exists():
            text = (root / "out.jsonl").read_text()
            assert all(json.loads(line) for line in text.splitlines()) and text[-1:] in ("", "\n")

    toy, clip, old = write_emulation(inputs), inputs / "clip.mp4", inputs / "old"
    film = cv2.VideoWriter(str(clip), cv2.VideoWriter_fourcc(*"mp4v"), 30, (96, 64))  # type: ignore[attr-defined]
    for number in range(15):
        film.write(drawn((64, 96), number)[..., ::-1].copy())
    film.release()
    old.mkdir()
    return Case([str(ROOT / LIVE), str(toy), str(clip), "--record", "film.mp4", "--jsonl", "out.jsonl"], old, check)


CASES = {
    "prepare_calibration.py": calibration,
    "compile_to_hef.py": emulation,
    "hailo_inference.py": results,
    "validate_hef.py": report,
    LIVE: live,
}


def run(script: str, folder: Path, *arguments: str) -> Path:
    """Run a script in a new folder to its end; returns the folder."""
    folder.mkdir()
    subprocess.run([sys.executable, str(ROOT / script), *arguments], cwd=folder, check=True, capture_output=True)
    return folder


def expected(script: str, number: signal.Signals) -> int:
    """The exit code of the contract."""
    return 0 if (script, number) == (LIVE, signal.SIGTERM) else CODES[number]


# --- before the handlers are set --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", CODES, ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize("script", CASES)
def test_in_the_first_lines(script: str, number: signal.Signals, tmp_path: Path) -> None:
    """While the script's imports run, before any handler is set: the signal waits until it can be answered."""
    (tmp_path / "argparse.py").write_text(STOPPING_ITSELF.format(number=int(number)))
    done = subprocess.run(
        [sys.executable, str(ROOT / script), "--version"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )

    code = expected(script, number)
    words = {130: "error: interrupted\n", 143: "error: terminated\n", 0: ""}[code]
    assert (done.returncode, done.stdout, done.stderr) == (code, "", words)


# --- at random moments ------------------------------------------------------------------------------------------------


def stopped(case: Case, root: Path, number: signal.Signals | None, after_s: float) -> tuple[int, str, float]:
    """Start it in a copy of the folder and stop it; returns exit code, stderr and the seconds until its end."""
    temporary = root.with_name("temporary")
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(case.before, root)
    temporary.mkdir(exist_ok=True)
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *case.command],
        cwd=root,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    if number is not None:
        time.sleep(after_s)
        process.send_signal(number)
    err = process.communicate(timeout=PATIENCE_S)[1]
    took = time.monotonic() - begun
    left = members(process.pid)
    assert not left, f"processes are left: {left}"
    assert not names_of(temporary), f"temporary files are left: {names_of(temporary)}"
    return process.returncode, err, took


def members(session: int) -> list[str]:
    """The command lines of the living processes of a session."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(status.with_name("cmdline").read_text().replace("\0", " "))
        except OSError:
            pass
    return found


def before_python(code: int, err: str, number: signal.Signals, after_s: float) -> bool:
    """Whether the signal came before `hold_signals`: Python itself, or the kernel, ends the process then."""
    by_python = "Traceback" in err and ("import hold_signals" in err or "hefkit" not in err.replace(str(ROOT), ""))
    return by_python or (code == -number and after_s < 0.5)


@pytest.fixture
def quiet_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fonts and looks at pictures are cached elsewhere."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "cache"))
    yield


@pytest.mark.mutations
@pytest.mark.usefixtures("quiet_cache")
@pytest.mark.parametrize("script", CASES)
def test_at_random_moments(script: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the start of the process to its end."""
    (tmp_path / "inputs").mkdir()
    case = CASES[script](tmp_path / "inputs")
    root, rng = tmp_path / "root", random.Random(script)
    whole = sorted(stopped(case, root, None, 0)[2] for _ in range(3))[1]
    seen: Counter[str] = Counter()
    for number in CODES:
        for _ in range(TIMES):
            after_s = rng.uniform(0, whole)
            got, err, _ = stopped(case, root, number, after_s)
            moment = f"{number.name} after {after_s:.3f} of {whole:.3f} s: exit {got}, {err}"
            if before_python(got, err, number, after_s):
                seen[f"{number.name} before the first line"] += 1
            else:
                assert got in (0, expected(script, number)) and "Traceback" not in err, moment
                seen[f"{number.name} exit {got}"] += 1
            try:
                case.check(root)
            except Exception as exc:
                raise AssertionError(moment) from exc
    with capsys.disabled():
        figures = ", ".join(f"{what}: {count}" for what, count in sorted(seen.items()))
        sys.stdout.write(f"\n{script}, {whole:.2f} s: {figures}; nothing lost, nothing left\n")
