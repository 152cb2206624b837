"""The road to a HEF on real networks, with the double for Hailo's SDK: parse, quantise, compile, read back, detect.

The double's emulation rounds only the outputs, so agreement is high by construction; what is shown is that the real
graphs come through the driver: end nodes, names, orders, shapes, scripts, HARs, the HEF and its spec.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import prepare_calibration
from hefkit.cli import run_main
from hefkit.hef.file import read_hef
from hefkit.hef.words import check_spec, describe
from hefkit.spec_file import read_spec
from tests.conftest import Finished
from tests.helpers.proofs import prove_once
from tests.helpers.sdk import fork_the_worker, make_sdk

pytestmark = pytest.mark.slow

Compile = Callable[..., Finished]

# name: (file, side, family, classes, NMS-free, least recall; None: random weights, which find nothing)
NETWORKS: dict[str, tuple[str, int, str, int, bool, float | None]] = {
    "a depthwise network": ("leyolo_nano_640.onnx", 640, "dfl", 80, False, 0.9),
    "blood cells": ("bccd_416.onnx", 416, "dfl", 3, False, 0.95),
    "NMS embedded": ("graphs/yolov8_nms.onnx", 0, "dfl", 2, False, None),
    "YOLO26, end to end": ("graphs/yolo26.onnx", 0, "ltrb", 2, True, None),
}


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch, run_here: Callable[..., Finished]) -> Compile:
    """`compiled(onnx, *flags)`: main() in this process; the double's processes are forked."""
    fork_the_worker(monkeypatch)
    prove_once(monkeypatch)
    return lambda *arguments: run_here("compile_to_hef.py", *arguments)


@pytest.mark.parametrize("file, side, family, classes, free, recall", NETWORKS.values(), ids=NETWORKS.keys())
def test_real_networks(
    compiled: Compile,
    shared: Path,
    tmp_path: Path,
    file: str,
    side: int,
    family: str,
    classes: int,
    free: bool,
    recall: float | None,
) -> None:
    """Prepare two pictures, compile, inspect; the spec is that of the graph, and fits the HEF."""
    model = shared / "models" / file
    imgsz = side or exported_size(model)
    source = shared / "datasets" / "bccd" / "images" / "val"
    if "bccd" not in file:  # two streets with many objects
        source = tmp_path / "photographs"
        source.mkdir()
        for name in ("bus.jpg", "city_1.jpg"):
            shutil.copy(shared / "images" / name, source)
    calib, sdk = tmp_path / "set", make_sdk(tmp_path)
    flags = [source, "--num-samples", 2, "--imgsz", imgsz, "--output", calib]
    assert run_main(prepare_calibration.main, list(map(str, flags))) == 0

    done = compiled(
        model, "--calib", calib, "--output", tmp_path / "net", "--sdk-python", sdk,
        "--hw-arch", "hailo8l", "--run-dir", tmp_path / "run", "--json",
    )  # fmt: skip

    assert done.code == 0, done.err
    hef, spec = read_hef(tmp_path / "net.hef"), read_spec(tmp_path / "net.json")
    check_spec(hef, spec)
    head: Any = spec.head
    assert (head.family, head.num_classes, head.nms_free, hef.arch) == (family, classes, free, "hailo8l")
    assert "raw YOLO heads" in " ".join(describe(hef)) or family == "ltrb"
    assert [o.activation for o in head.outputs] == ["none", "sigmoid"] * len(head.strides)
    quality: Any = spec.quality
    if recall is not None:
        assert quality["recall"] >= recall and quality["boxes_float"] >= 5
    else:
        # random weights: scores too small for 8 bit, and boxes that hardly vary, some of them exact
        boxes = [o["snr_db"] for o in quality["outputs"] if o["role"] == "box"]
        assert all(noise is None or noise > 20 for noise in boxes)
    again = compiled(
        model, "--calib", calib, "--output", tmp_path / "again", "--sdk-python", sdk,
        "--hw-arch", "hailo8l", "--run-dir", tmp_path / "run2", "--har", tmp_path / "run" / "net.quantized.har",
    )  # fmt: skip
    assert again.code == 0 and (tmp_path / "again.hef").read_bytes() == (tmp_path / "net.hef").read_bytes(), again.err


def exported_size(model: Path) -> int:
    """The side of a square export."""
    import onnx

    image = onnx.load(str(model)).graph.input[0]
    return image.type.tensor_type.shape.dim[2].dim_value
