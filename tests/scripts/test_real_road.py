"""The road on real models and photographs: what the INT8 emulation keeps of the float model's boxes.

Bounds are looser than the project's figures, because a few pictures have to do here; all three seeds and the whole
folders are measured by `benchmarks/bench_emulation.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Finished

pytestmark = pytest.mark.slow

Run = Callable[..., Finished]


def overlap(a: list[float], b: list[float]) -> float:
    """IoU of two xyxy boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return shared / (sum(areas) - shared) if shared else 0.0


def agreement(reference: Path, found: Path) -> tuple[float, float, int]:
    """Two run folders -> (recall, precision, float boxes): same class, IoU >= 0.5, best score first, each box once."""
    lines = [
        [json.loads(text) for text in (f / "detections.jsonl").read_text().splitlines()] for f in (reference, found)
    ]
    matched, expected, got = 0, 0, 0
    for exact, ours in zip(*lines, strict=True):
        assert exact["source"] == ours["source"]
        free: list[dict[str, Any]] = list(exact["detections"])
        expected, got = expected + len(free), got + len(ours["detections"])
        for one in ours["detections"]:
            rivals = [f for f in free if f["class_id"] == one["class_id"]]
            best = max(rivals, key=lambda f: overlap(f["xyxy"], one["xyxy"]), default=None)
            if best is not None and overlap(best["xyxy"], one["xyxy"]) >= 0.5:
                free.remove(best)
                matched += 1
    return matched / expected, matched / got, expected


def road(
    run_script: Run, model: Path, side: int, calibrate: Path, measure: Path, count: int, work: Path
) -> tuple[list[Path], dict[str, Any]]:
    """Prepare and compile on `calibrate`, detect on `measure`.

    Returns:
        The run folders of the float and the INT8 model, and the JSON of compile_to_hef.py.
    """
    prepared = run_script(
        "prepare_calibration.py", calibrate, "--num-samples", count, "--imgsz", side, "--output", work / "calib"
    )
    assert prepared.code == 0, prepared.err
    compiled = run_script(
        "compile_to_hef.py", model, "--emulate", "--calib", work / "calib", "--output", work / "m", "--json"
    )
    assert compiled.code == 0, compiled.err
    assert compiled.json["proof"]["max_abs_px"] <= 0.05
    folders = []
    for name, path in (("float", model), ("emulated", work / "m.emulated.onnx")):
        done = run_script("hailo_inference.py", path, measure, "--save-dir", work / name, "--no-images", "--json")
        assert (done.code, done.json["engine"]) == (0, name), done.err
        folders.append(work / name)
    return folders, compiled.json


def test_blood_cells(run_script: Run, shared: Path, tmp_path: Path) -> None:
    """bccd_416, calibrated on 16 pictures of train, on 18 of val: recall 0.988 and precision 0.979 were measured.

    An ordinary YOLOv8 keeps its boxes at level 0, and has nothing to be advised.
    """
    data = shared / "datasets" / "bccd"
    pictures = sorted((data / "images" / "val").glob("*.jpg"))[::2]
    (tmp_path / "val.txt").write_text("".join(f"{p}\n" for p in pictures))
    folders, done = road(
        run_script, shared / "models" / "bccd_416.onnx", 416, data / "data.yaml", tmp_path / "val.txt", 16, tmp_path
    )

    recall, precision, boxes = agreement(*folders)

    assert boxes > 150
    assert recall >= 0.97 and precision >= 0.95, f"recall {recall:.3f}, precision {precision:.3f}"
    assert done["quality"]["level"] == 0 and "what_if" not in done["quality"]


def test_a_depthwise_network(run_script: Run, shared: Path, tmp_path: Path) -> None:
    """leyolo_nano_640, calibrated on 8 of the photographs, on 12 others: recall 0.674, precision 0.886 of 46 boxes.

    The bounds are two standard deviations of a share of so few boxes (0.07, 0.05). More than the upper one would be
    as wrong as less than the lower: one weight scale a layer costs a depthwise network a third of its boxes.
    """
    photos = sorted((shared / "images").glob("*.jpg"))
    for name, chosen in (("calibrate", photos[0:48:6]), ("measure", photos[1:48:4])):
        (tmp_path / f"{name}.txt").write_text("".join(f"{p}\n" for p in chosen))
    folders, done = road(
        run_script, shared / "models" / "leyolo_nano_640.onnx", 640, tmp_path / "calibrate.txt",
        tmp_path / "measure.txt", 8, tmp_path,
    )  # fmt: skip

    recall, precision, boxes = agreement(*folders)

    assert boxes > 30
    assert 0.53 <= recall <= 0.82 and precision >= 0.78, f"recall {recall:.3f}, precision {precision:.3f} of {boxes}"
    # a scale for four groups of similar channels wins back what single scales lose
    tried = {w["what"]: w["recall"] for w in done["quality"]["what_if"]}
    assert tried["4 quantization groups, channels sorted by range"] > tried["as it is"] + 0.2, tried
    assert done["quality"]["causes"]["weights"] > done["quality"]["causes"]["tensors"]
    helps = [w for w in done["warnings"] if w.startswith("what helps: ")]
    assert len(helps) == 1 and "quantization_groups=4" in helps[0] and "--precision-16 auto" in helps[0]
