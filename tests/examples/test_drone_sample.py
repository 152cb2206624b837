"""The sample of examples/drone: two exports of one detector, the demo, and what the model card says of both."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO

import cv2
import numpy as np
import onnx
import pytest

from hefkit.detect.detections import Detections
from hefkit.detect.preprocess import letterbox
from hefkit.measure.accuracy import Agreement, match_boxes
from hefkit.spec import InputSpec
from hefkit.workshop.network.session import open_session, run_session
from tests.conftest import ROOT, Finished, finished

# one process for the whole file: the demo runs once
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("demo")]

Run = Callable[..., Finished]
SAMPLE = ROOT / "examples" / "drone"
PLAIN, WITH_NMS = SAMPLE / "drone.onnx", SAMPLE / "drone_nms.onnx"
HEADS = [[80, 80, 64], [80, 80, 2], [40, 40, 64], [40, 40, 2], [20, 20, 64], [20, 20, 2]]


@pytest.mark.parametrize("model, output", [(PLAIN, [1, 6, 8400]), (WITH_NMS, [1, 300, 6])], ids=["plain", "nms"])
def test_exports(model: Path, output: list[int], run_script: Run) -> None:
    """Three megabytes at most, the output as promised, the six heads of a YOLOv8, and no trace of a machine."""
    graph = onnx.load(model)
    checked = run_script("compile_to_hef.py", model, "--check", "--json")

    assert model.stat().st_size <= 3_000_000
    assert [d.dim_value for d in graph.graph.output[0].type.tensor_type.shape.dim] == output
    assert [o["shape"] for o in checked.json["head"]["outputs"]] == HEADS
    assert checked.json["names"] == {"0": "drone", "1": "IR-drone"}
    notes = {entry.key: entry.value for entry in graph.metadata_props}
    assert "AGPL-3.0" in notes["license"] and "/" not in notes["description"]
    assert not re.search(rb"/(home|root|work|tmp|Users)/", model.read_bytes())


def detected(folder: Path) -> list[Detections]:
    """The boxes of every picture of a run."""
    found = []
    for line in (folder / "detections.jsonl").read_text().splitlines():
        rows = json.loads(line)["detections"]
        found.append(
            Detections(
                np.array([r["xyxy"] for r in rows], np.float32).reshape(-1, 4),
                np.array([r["score"] for r in rows], np.float32),
                np.array([r["class_id"] for r in rows], np.int64),
            )
        )
    return found


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The demo with four calibration pictures; its JSON, what it said, and its folder.

    Its main() runs in this process; the scripts that it calls are forked.
    """
    folder = tmp_path_factory.mktemp("demo") / "out"
    spec = importlib.util.spec_from_file_location("demo", SAMPLE / "demo.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    def call(words: Sequence[str], *, cwd: Path, stdout: TextIO) -> SimpleNamespace:
        assert words[0] == sys.executable
        done = finished(*words[1:], cwd=cwd)
        stdout.write(done.err + done.out)
        return SimpleNamespace(returncode=done.code)

    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(script, "subprocess", SimpleNamespace(run=call))
        code = script.main(["--output", str(folder), "--num-samples", "4", "--json"])
    assert code == 0, err.getvalue()
    return {"result": json.loads(out.getvalue().splitlines()[-1]), "words": err.getvalue(), "folder": folder}


@pytest.fixture(scope="module")
def found_with_nms(tmp_path_factory: pytest.TempPathFactory) -> list[Detections]:
    """The boxes of the export with NMS in every second picture."""
    folder = tmp_path_factory.mktemp("nms")
    pictures = sorted((SAMPLE / "images" / "val").glob("*.jpg"))[::2]
    (folder / "list.txt").write_text("".join(f"{picture}\n" for picture in pictures))
    words = [WITH_NMS, folder / "list.txt", "--save-dir", folder, "--no-images"]
    done = finished("hailo_inference.py", *words, cwd=folder)
    assert done.code == 0, done.err
    return detected(folder)


def test_both_exports_find_the_same(demo: dict[str, Any], found_with_nms: list[Detections]) -> None:
    """With NMS in the graph and without, as the demo ran it: equal boxes, scores and classes in 12 pictures."""
    results = [detected(demo["folder"] / "float")[::2], found_with_nms]

    assert sum(map(len, results[0])) > 20
    for a, b in zip(*results, strict=True):
        assert a.class_id.tolist() == b.class_id.tolist()
        np.testing.assert_allclose(a.xyxy, b.xyxy, atol=0.01)
        np.testing.assert_allclose(a.score, b.score, atol=1e-5)


def test_the_exported_nms_finds_the_same(found_with_nms: list[Detections]) -> None:
    """The network with its own NMS, run whole by onnxruntime: above 0.25 it finds what hefkit's decoder finds."""
    pictures = sorted((SAMPLE / "images" / "val").glob("*.jpg"))[::2]
    session = open_session(onnx.load(WITH_NMS))

    agreement = Agreement(conf=0.25)
    for picture, ours in list(zip(pictures, found_with_nms, strict=True))[:8]:
        tensor, transform = letterbox(cv2.imread(str(picture)), InputSpec((640, 640)))
        feed = {"images": tensor.transpose(2, 0, 1)[None].astype(np.float32) / 255}
        [rows] = run_session(session, ["output0"], feed)
        rows = rows[0][rows[0][:, 4] >= 0.25]
        whole = Detections(transform.to_original(rows[:, :4]), rows[:, 4], rows[:, 5].astype(np.int64))
        agreement.add(whole, ours)
        for i, j in match_boxes(whole, ours):
            assert abs(whole.score[i] - ours.score[j]) < 1e-4
            np.testing.assert_allclose(whole.xyxy[i], ours.xyxy[j], atol=0.1)

    assert agreement.boxes_float > 5
    assert (agreement.recall, agreement.precision) == (1.0, 1.0)


def test_demo(demo: dict[str, Any]) -> None:
    """Every command is shown, the table has 24 rows and their sum, and the picture to look at is there."""
    rows, words = demo["result"]["pictures"], demo["words"]

    assert [line.split()[2] for line in words.splitlines() if line.startswith("$ ")] == [
        "prepare_calibration.py", "compile_to_hef.py", "hailo_inference.py", "hailo_inference.py", "validate_hef.py"
    ]  # fmt: skip
    assert len(rows) == 24 and "INT8 emulation, not a HEF" in words
    table = words.split("picture  ")[1].splitlines()
    assert [line.split()[0] for line in table[1:25]] == [Path(row["source"]).name for row in rows]
    sums = [sum(row[key] for row in rows) for key in ("labelled", "fp32", "int8", "both")]
    assert table[25].split() == ["together", *map(str, sums)]
    report = Path(demo["result"]["report"])
    assert report.parent == demo["folder"] / "report" and "keeps" in words and (report.parent / "report.json").exists()
    look_at = Path(demo["result"]["look_at"])
    assert look_at.parent == demo["folder"] / "int8" and cv2.imread(str(look_at)) is not None


def test_demo_s_figures_are_those_of_the_runs(demo: dict[str, Any]) -> None:
    """Boxes counted anew in the two folders; INT8 keeps nine of ten boxes of FP32."""
    exact, quantized = detected(demo["folder"] / "float"), detected(demo["folder"] / "int8")
    rows = demo["result"]["pictures"]

    assert [row["fp32"] for row in rows] == list(map(len, exact))
    assert [row["int8"] for row in rows] == list(map(len, quantized))
    assert [row["both"] for row in rows] == [len(match_boxes(a, b)) for a, b in zip(exact, quantized, strict=True)]
    assert sum(row["both"] for row in rows) >= 0.9 * sum(row["fp32"] for row in rows)
    for folder, engine in (("float", "float"), ("int8", "emulated")):
        lines = (demo["folder"] / folder / "detections.jsonl").read_text().splitlines()
        assert {json.loads(line)["engine"] for line in lines} == {engine}
        assert len(list((demo["folder"] / folder).glob("*.jpg"))) == 24


def test_demo_stops_at_the_first_failure(run_script: Run, tmp_path: Path) -> None:
    """An output that cannot be made: the failing step's message and exit code, and no table."""
    (tmp_path / "file").write_text("")

    done = run_script("examples/drone/demo.py", "--output", tmp_path / "file" / "demo")

    assert done.code == 2 and "prepare_calibration.py" in done.err and "together" not in done.err


def test_training_says_what_it_lacks(run_script: Run, tmp_path: Path) -> None:
    """Without a dataset: exit 3. Without ultralytics, which hefkit itself never needs: exit 5 and the command."""
    script = "examples/drone/train.py"
    missing = run_script(script, "--data", tmp_path / "none.yaml", "--output", tmp_path / "model")
    assert missing.code == 3 and "make_dataset.py" in missing.errors[0]
    if importlib.util.find_spec("ultralytics"):
        pytest.skip("ultralytics is installed here")

    done = run_script(script, "--data", SAMPLE / "data.yaml", "--output", tmp_path / "model")

    assert done.code == 5 and "pip install torch torchvision ultralytics" in done.errors[0]
