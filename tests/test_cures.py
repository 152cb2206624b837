"""What error messages tell the user to do: every flag, script and package that they name exists, and the cure works."""

from __future__ import annotations

import ast
import functools
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import compile_to_hef
import hailo_inference
import prepare_calibration
import validate_hef
import working_hailo_detector
from hefkit.cli import PACKAGES, run_main
from tests.conftest import ROOT
from tests.helpers.labelled import dataset
from tests.helpers.tiny_onnx import save, tiny_yolo
from tests.helpers.toy_emulation import write_emulation

SCRIPTS = {
    "prepare_calibration.py": prepare_calibration,
    "compile_to_hef.py": compile_to_hef,
    "hailo_inference.py": hailo_inference,
    "validate_hef.py": validate_hef,
    "working_hailo_detector.py": working_hailo_detector,
}
# of other programs: venv, rpicam-apps, v4l2-ctl, nvidia-smi, rsync
FOREIGN_FLAGS = {"--system-site-packages", "--inline", "--list-cameras", "--list-devices", "--list-formats-ext",
                 "--query-gpu", "--format", "--exclude"}  # fmt: skip
OTHER_FILES = {"dfc_worker.py", "setup.py"}
# pip's names of what no requirements file lists: the user's choice, or of the SDK's environment
OTHER_PACKAGES = {"nvidia-cudnn-cu11", "pillow"}
EXPORT_WORDS = {"model", "format", "imgsz", "opset", "dynamic", "batch", "half", "nms", "simplify"}  # ultralytics'


# --- what messages name exists ----------------------------------------------------------------------------------------


@functools.cache
def texts() -> list[tuple[str, str]]:
    """(file, text) of every text in the code that is not a docstring; parts of f-strings are one text with {}."""
    listed = []
    for path in [*ROOT.glob("*.py"), *(ROOT / "hefkit").rglob("*.py")]:
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        inner = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
        docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if isinstance(node, ast.JoinedStr):
                parts = [str(v.value) if isinstance(v, ast.Constant) else "{}" for v in node.values]
                listed.append((path.name, "".join(parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner | docstrings:
                listed.append((path.name, node.value))
    return listed


def found(pattern: str) -> dict[str, str]:
    """Every match of the first group, and a file that has it."""
    return {match[1]: name for name, text in texts() for match in re.finditer(pattern, text)}


def flags(script: str, capsys: pytest.CaptureFixture[str]) -> set[str]:
    """The flags that --help lists."""
    with pytest.raises(SystemExit):
        SCRIPTS[script].parse_args(["--help"])
    return set(re.findall(r"--[a-z][a-z0-9-]+", capsys.readouterr().out))


def test_every_flag_exists(capsys: pytest.CaptureFixture[str]) -> None:
    """A flag that was renamed is not left in a message."""
    ours = {flag for script in SCRIPTS for flag in flags(script, capsys)}
    named = found(r"(?<![\w-])(--[a-z][a-z0-9-]+[a-z0-9])\b(?!-)")

    assert len(named) > 60 and {flag: file for flag, file in named.items() if flag not in ours | FOREIGN_FLAGS} == {}


def test_every_script_and_page_exists() -> None:
    """Also the pages in docs/."""
    scripts, pages = found(r"\b([a-z]\w+\.py)\b"), found(r"\b(docs/[\w-]+\.md)")

    assert {name for name in scripts if name not in SCRIPTS} <= OTHER_FILES | {
        p.name for p in (ROOT / "hefkit").rglob("*.py")
    }
    assert pages and [page for page in pages if not (ROOT / page).is_file()] == []


def test_every_package_is_one_of_ours() -> None:
    """`pip install X` names what a requirements file names."""
    listed = "\n".join(path.read_text() for path in ROOT.glob("requirements*.txt")).lower()
    named = {*found(r"pip install ([A-Za-z][\w-]*)"), *(pip for pip, _ in PACKAGES.values())}

    assert len(named) > 5
    assert [p for p in named if p.lower() not in listed and p.lower() not in OTHER_PACKAGES] == []


def test_every_export_command_is_ultralytics_own() -> None:
    """`yolo export key=value ...`, with keys that it has."""
    commands = [text for _, text in texts() if "yolo export" in text]
    assert len(commands) >= 2
    for command in commands:
        words = re.findall(r"(\w+)=", command.partition("yolo export")[2])
        assert "model" in words and "format=onnx" in command and set(words) <= EXPORT_WORDS


# --- cures that are run -----------------------------------------------------------------------------------------------


@dataclass
class Desk:
    """A folder of a user: photographs, an ONNX, an emulated model; scripts run in it."""

    folder: Path
    capsys: pytest.CaptureFixture[str]

    def __call__(self, script: str, *arguments: str) -> tuple[int, str]:
        """Exit code and what was printed on stderr."""
        self.capsys.readouterr()
        try:
            code = run_main(SCRIPTS[f"{script}.py"].main, list(arguments))
        except SystemExit as exc:  # argparse
            code = int(str(exc.code))
        return code, self.capsys.readouterr().err


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Desk]:
    """The working directory of the scripts."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.chdir(tmp_path)
    dataset(tmp_path / "data", 3)
    save(tiny_yolo(), tmp_path / "net.onnx")
    write_emulation(tmp_path)
    yield Desk(tmp_path, capsys)
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_set_for_an_onnx(desk: Desk) -> None:
    """No set, then one of another size: each message has the command that leads on."""
    code, err = desk("compile_to_hef", "net.onnx", "--emulate")
    assert code == 3 and "python3 prepare_calibration.py DATASET" in err
    assert desk("prepare_calibration", "data/data.yaml", "--imgsz", "96")[0] == 0

    code, err = desk("compile_to_hef", "net.onnx", "--emulate")
    again = re.search(r"run prepare_calibration.py again with (--imgsz \d+ \d+)", err)
    assert code == 3 and again
    code, err = desk("prepare_calibration", "data/data.yaml", *again[1].split())
    assert code == 2 and "is not empty; choose another --output, or replace the set with --overwrite" in err
    assert desk("prepare_calibration", "data/data.yaml", *again[1].split(), "--output", "another")[0] == 0
    assert desk("prepare_calibration", "data/data.yaml", *again[1].split(), "--overwrite")[0] == 0
    assert desk("compile_to_hef", "net.onnx", "--emulate", "--check")[0] == 0


def test_an_array_of_another_type(desk: Desk) -> None:
    """Pictures of 0..1 as floats: the command makes the array that is expected."""
    np.save("mine.npy", np.random.default_rng(0).random((4, 64, 64, 3), np.float32))
    code, err = desk("compile_to_hef", "net.onnx", "--emulate", "--check", "--calib", "mine.npy")
    assert code == 3 and "make it with prepare_calibration.py --format npy" in err

    assert desk("prepare_calibration", "data/data.yaml", "--format", "npy", "--imgsz", "64")[0] == 0
    assert desk("compile_to_hef", "net.onnx", "--emulate", "--check", "--calib", "calibration_data")[0] == 0


@pytest.mark.slow
def test_an_output_in_the_way(desk: Desk) -> None:
    """A model of another ONNX: both flags of the message work."""
    assert desk("prepare_calibration", "data/data.yaml", "--imgsz", "64")[0] == 0
    save(tiny_yolo(classes=2), desk.folder / "other.onnx")
    assert desk("compile_to_hef", "other.onnx", "--emulate")[0] == 0
    code, err = desk("compile_to_hef", "net.onnx", "--emulate")
    offered = re.findall(r"--output (\S+?)[,; ]", err)

    assert code == 2 and "would be replaced" in err and len(offered) >= 2
    for name in offered[-2:]:
        assert desk("compile_to_hef", "net.onnx", "--emulate", "--output", name)[0] == 0, name


def test_an_onnx_of_another_size(desk: Desk) -> None:
    """Dynamic: --imgsz gives it; fixed: --imgsz is left out."""
    save(tiny_yolo(dynamic="size"), desk.folder / "dynamic.onnx")
    code, err = desk("compile_to_hef", "dynamic.onnx", "--emulate", "--check")
    assert code == 4 and "give it to compile_to_hef.py with --imgsz" in err
    assert desk("compile_to_hef", "dynamic.onnx", "--emulate", "--check", "--imgsz", "64")[0] == 0

    code, err = desk("compile_to_hef", "net.onnx", "--emulate", "--check", "--imgsz", "96")
    assert code == 4 and "leave --imgsz out" in err
    assert desk("compile_to_hef", "net.onnx", "--emulate", "--check")[0] == 0


def test_results_in_the_way(desk: Desk) -> None:
    """A file of somebody else in the folder of results, and in the place of the JSON lines."""
    (desk.folder / "out").mkdir()
    (desk.folder / "out" / "detections.jsonl").write_text("mine")
    code, err = desk("hailo_inference", "toy.emulated.onnx", "data/images", "--save-dir", "out")
    assert code == 2 and "choose another --save-dir" in err
    assert desk("hailo_inference", "toy.emulated.onnx", "data/images", "--save-dir", "out-2")[0] == 0
    assert (desk.folder / "out" / "detections.jsonl").read_text() == "mine"


def test_a_class_that_the_model_lacks(desk: Desk) -> None:
    """The message lists the classes; each of them is taken."""
    code, err = desk("hailo_inference", "toy.emulated.onnx", "data/images", "--classes", "dron")
    listed = re.findall(r"(\d) (\w+)", err.partition("expected one of:")[2])

    assert code == 2 and listed == [("0", "car"), ("1", "drone"), ("2", "bird")]
    for number, name in listed:
        assert desk("hailo_inference", "toy.emulated.onnx", "data/images", "--classes", number, name)[0] == 0


@pytest.mark.parametrize("source", ["data/data.yaml", "data/images/val/0.png"])
def test_a_source_of_the_other_detector(desk: Desk, source: str) -> None:
    """Photographs given to the live detector: the script that the message names takes the same source."""
    code, err = desk("working_hailo_detector", "toy.emulated.onnx", source)
    assert code in (2, 3) and "run hailo_inference.py with" in err
    assert desk("hailo_inference", "toy.emulated.onnx", source)[0] == 0


def test_a_reference_without_pictures(desk: Desk) -> None:
    """Either of the two flags is enough."""
    code, err = desk("validate_hef", "toy.emulated.onnx", "--reference", "net.onnx")
    assert code == 2 and "--reference needs pictures: --data or --source" in err
    for flag, value in (("--data", "data/data.yaml"), ("--source", "data/images")):
        assert desk("validate_hef", "toy.emulated.onnx", "--reference", "net.onnx", flag, value)[0] == 0


def test_a_split_that_is_not_there(desk: Desk) -> None:
    """The message lists the splits."""
    code, err = desk("prepare_calibration", "data/data.yaml", "--split", "train", "--imgsz", "64")
    assert code == 3 and "it has val; choose another --split, or all" in err
    for split in ("val", "all"):
        assert (
            desk("prepare_calibration", "data/data.yaml", "--split", split, "--output", split, "--imgsz", "64")[0] == 0
        )


def test_an_output_that_holds_the_source(desk: Desk) -> None:
    """A set inside of its own source would be read again."""
    code, err = desk("prepare_calibration", "data/images", "--output", "data", "--imgsz", "64")
    assert code == 2 and "choose another --output" in err
    assert desk("prepare_calibration", "data/images", "--output", "set", "--imgsz", "64")[0] == 0
