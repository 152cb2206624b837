"""compile_to_hef.py as a process: the whole road on a toy, and every way in which it must end early."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest

import hailo_inference
import prepare_calibration
from compile_to_hef import main
from hefkit.cli import run_main
from tests.conftest import ROOT, Finished, fill, finished
from tests.helpers.numpy_emulator import layers
from tests.helpers.pictures import encode, noise, write
from tests.helpers.proofs import prove_once
from tests.helpers.tiny_onnx import drawn, save, tiny_yolo
from tests.helpers.wrong_onnx import wrong_onnx

pytestmark = pytest.mark.xdist_group("emulate")  # many of them look at one run

SCRIPT = "compile_to_hef.py"
Run = Callable[..., Finished]
HEADINGS = (
    "[1/4] Parsing ONNX model",
    "[2/4] Optimizing model",
    "[3/4] Quantizing model (calibration)",
    "[4/4] Writing emulated model",
)
SPEC_KEYS = "format kind tool created input head names source calibration target script quality".split()  # noqa: SIM905
RUN_KEYS = ["output", "run_dir", "stages", "proof", "warnings", "accuracy"]
OUTPUT_KEYS = {"role", "stride", "shape", "onnx_node", "stream", "activation", "dtype", "scale", "zero_point"}
SHIPPED = (ROOT / "hailo_optimization.mscript").read_text()


@pytest.fixture(scope="module")
def yolo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float toy YOLO of 64x64 with the classes thing0, thing1, thing2."""
    return save(tiny_yolo(), tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture(scope="module")
def calib(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures of 64x64 as a bare array."""
    return npy_set(tmp_path_factory.mktemp("calib") / "set.npy", 4)


def npy_set(path: Path, count: int, side: int = 64) -> Path:
    """`count` drawn pictures in one array."""
    np.save(path, np.stack([drawn((side, side), i) for i in range(count)]))
    return path


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`, hidden ones included."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def emulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_here: Run) -> Run:
    """`emulated(onnx, *flags)`: main() in this process, which is quicker than a script, in an empty folder."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    prove_once(monkeypatch)
    return lambda onnx, *flags: run_here(SCRIPT, onnx, "--emulate", *flags)


@pytest.fixture
def earlier(road: tuple[Path, Finished], tmp_path: Path) -> Path:
    """A folder `out` with the model m of an earlier run and its report."""
    folder, _ = road
    shutil.copytree(folder / "run", tmp_path / "out" / "run")
    for suffix in (".emulated.onnx", ".emulated.json"):
        shutil.copy(folder / "out" / f"drone{suffix}", tmp_path / "out" / f"m{suffix}")
    return tmp_path / "out"


@pytest.fixture(scope="module")
def road(yolo: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Finished]:
    """Photographs -> calibration set -> emulated model: the folder of all that, and what the compilation said."""
    folder = tmp_path_factory.mktemp("road")
    for i in range(5):
        write(folder / "photos" / f"p{i}.png", drawn((64 + 8 * i, 96), i)[..., ::-1])

    prepared = finished("prepare_calibration.py", "photos", "--imgsz", 64, "--output", "calib", cwd=folder)
    flags = ["--emulate", "--calib", "calib", "--output", "out/drone", "--json", "--run-dir", "run"]
    done = finished(SCRIPT, yolo, *flags, cwd=folder)
    assert (prepared.code, done.code) == (0, 0), prepared.err + done.err
    return folder, done


def test_the_whole_road(run_script: Run, road: tuple[Path, Finished], tmp_path: Path, yolo: Path) -> None:
    """Prepare, compile, detect: four headings, two files, the contract's JSON, and boxes out of the INT8 model."""
    folder, done = road
    out = folder / "out"
    spec = json.loads((out / "drone.emulated.json").read_bytes())

    assert [line for line in done.err.splitlines() if line.startswith("[")] == list(HEADINGS)
    assert sorted(snapshot(out)) == ["drone.emulated.json", "drone.emulated.onnx"]
    assert list(done.json) == [*SPEC_KEYS, *RUN_KEYS]
    assert {key: done.json[key] for key in SPEC_KEYS} == spec
    assert (done.json["output"], done.json["run_dir"]) == ("out/drone.emulated.onnx", "run")
    assert [s["name"] for s in done.json["stages"]] == [h[6:] for h in HEADINGS]
    assert all(list(s) == ["name", "seconds"] and s["seconds"] >= 0 for s in done.json["stages"])
    assert list(done.json["proof"]) == ["max_abs_px", "max_abs_score", "images"]
    assert done.json["proof"]["max_abs_px"] <= 0.05 and done.json["proof"]["max_abs_score"] <= 1e-3
    assert done.json["proof"]["images"] >= 2
    assert [w for w in done.json["warnings"] if "only 5 calibration pictures" in w]
    assert sorted(snapshot(folder / "run")) == ["report.json", "script.mscript"]
    assert json.loads((folder / "run" / "report.json").read_bytes())["source"]["file"] == yolo.name

    detected = run_script(
        "hailo_inference.py", out / "drone.emulated.onnx", folder / "photos", "--save-dir", tmp_path / "found",
        "--json", "--conf", 0.2,
    )  # fmt: skip
    assert (detected.code, detected.json["engine"], detected.json["images"]) == (0, "emulated", 5)
    assert detected.json["detections"] > 0


def test_the_spec_is_the_contract_s(road: tuple[Path, Finished], yolo: Path) -> None:
    """Input, head, names, source, calibration, target, script and quality, field by field."""
    folder, done = road
    spec = done.json
    manifest = json.loads((folder / "calib" / "manifest.json").read_bytes())

    assert (spec["format"], spec["kind"]) == (1, "emulated") and spec["tool"].startswith("hefkit ")
    assert spec["input"] == {
        "size": [64, 64], "fit": "letterbox", "pad_value": 114, "color": "RGB", "dtype": "uint8", "layout": "NHWC"
    }  # fmt: skip
    head = spec["head"]
    assert {k: head[k] for k in head if k != "outputs"} == {
        "family": "dfl", "num_classes": 3, "reg_max": 16, "strides": [8, 16, 32], "nms_free": False
    }  # fmt: skip
    assert all(set(o) == OUTPUT_KEYS for o in head["outputs"])
    named = [(o["role"], o["stride"], o["shape"], o["stream"], o["activation"], o["dtype"]) for o in head["outputs"]]
    expected = []
    for stride, side in ((8, 8), (16, 4), (32, 2)):
        expected += [
            ("box", stride, [side, side, 64], f"box{stride}", "none", "uint8"),
            ("cls", stride, [side, side, 3], f"cls{stride}", "sigmoid", "uint8"),
        ]
    assert named == expected
    convs = {n.name for n in onnx.load(str(yolo)).graph.node if n.op_type == "Conv"}
    assert {o["onnx_node"] for o in head["outputs"]} <= convs
    assert spec["names"] == {"0": "thing0", "1": "thing1", "2": "thing2"}
    assert spec["source"]["file"] == "tiny.onnx" and len(spec["source"]["sha256"]) == 64
    assert spec["calibration"] == {"count": 5, "digest": manifest["digest"]}
    assert spec["target"] == {"arch": "hailo8", "sdk": None}
    assert spec["script"].startswith(SHIPPED.rstrip()) and "calibset_size=5" in spec["script"]
    quality = spec["quality"]
    assert (quality["images"], quality["in_sample"], quality["conf"], quality["iou"]) == (5, True, 0.25, 0.5)
    notes = {p.key: p.value for p in onnx.load(str(folder / "out" / "drone.emulated.onnx")).metadata_props}
    assert (notes["hefkit.kind"], notes["hefkit.format"]) == ("emulated", "1")


def test_one_photograph_is_one_tensor_in_all_three_scripts(
    yolo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Byte for byte: the PNG of the calibration set, what the compiler measures, and what inference feeds.

    A recorder stands in front of onnxruntime's `run` and keeps every picture that is fed. Both emulated runs (the
    agreement in compile, the inference) take uint8 pictures; the float passes of the calibration take the same bytes
    over 255.
    """
    photo = write(tmp_path / "photos" / "one.jpg", noise(150, 97, seed=4))
    monkeypatch.chdir(tmp_path)
    plain, seen = ort.InferenceSession.run, list[np.ndarray]()

    def record(self: ort.InferenceSession, outputs: list[str], feeds: dict[str, np.ndarray], *more: Any) -> Any:
        seen.extend(value.copy() for value in feeds.values() if value.ndim == 4)
        return plain(self, outputs, feeds, *more)

    monkeypatch.setattr(ort.InferenceSession, "run", record)

    def fed(script: Callable[[list[str]], int], *args: object) -> list[np.ndarray]:
        before = len(seen)
        terminate = signal.getsignal(signal.SIGTERM)
        assert run_main(script, list(map(str, args))) == 0
        signal.signal(signal.SIGTERM, terminate)
        return seen[before:]

    assert not fed(prepare_calibration.main, photo.parent, "--imgsz", 64, "--output", tmp_path / "calib")
    compiled = fed(main, yolo, "--emulate", "--calib", tmp_path / "calib", "--output", tmp_path / "m")
    inferred = fed(hailo_inference.main, tmp_path / "m.emulated.onnx", photo, "--save-dir", tmp_path / "out")
    floating = fed(hailo_inference.main, yolo, photo, "--save-dir", tmp_path / "out")

    calibration = cv2.imread(str(tmp_path / "calib" / "calib_0000.png"))[..., ::-1]
    assert [t.tobytes() for t in inferred] == [calibration.tobytes()]
    assert [t.tobytes() for t in compiled if t.dtype == np.uint8] == [calibration.tobytes()]
    normal = (calibration.transpose(2, 0, 1)[None] / np.float32(255)).astype(np.float32)
    # black pictures are fed to learn shapes
    bright = [t for t in floating if t.shape == normal.shape and t.any()]
    assert [t.tobytes() for t in bright] == [normal.tobytes()]
    # the last two passes over the set; the comparison with the uncut ONNX before them feeds other pictures
    measured = [t for t in compiled if t.dtype == np.float32 and t.shape == normal.shape and np.array_equal(t, normal)]
    assert len(measured) >= 2


def test_default_run_folder(emulated: Run, yolo: Path, calib: Path, tmp_path: Path) -> None:
    """Folders of the output are made; the report goes to runs/compile/NAME, or NAME-2 where that is taken."""
    (tmp_path / "cwd" / "runs/compile/my.model-1").mkdir(parents=True)

    done = emulated(yolo, "--calib", calib, "--output", "sub/dir/my.model-1.hef", "--json")
    other = emulated(yolo, "--calib", calib, "--output", "sub/dir/other", "--num-samples", 2, "--json")

    assert (done.code, done.json["output"]) == (0, "sub/dir/my.model-1.emulated.onnx")
    assert (tmp_path / "cwd" / "sub/dir/my.model-1.emulated.json").is_file()
    assert [d.json["run_dir"] for d in (done, other)] == ["runs/compile/my.model-1-2", "runs/compile/other"]


def test_flags_reach_the_model(emulated: Run, yolo: Path, tmp_path: Path) -> None:
    """Level, logits, 16-bit outputs, class names, chip, number of pictures, batch: all in one run."""
    done = emulated(
        yolo, "--calib", npy_set(tmp_path / "s.npy", 12), "--output", "m", "--json", "--quiet", "--logits",
        "--precision-16", "outputs", "--optimization-level", 2, "--names", "car,drone,bird", "--arch", "hailo8l",
        "--num-samples", 9, "--batch-size", 4, "--run-dir", "run",
    )  # fmt: skip

    assert done.code == 0, done.err
    assert {o["dtype"] for o in done.json["head"]["outputs"]} == {"uint16"}
    assert {o["activation"] for o in done.json["head"]["outputs"]} == {"none"}
    assert done.json["names"] == {"0": "car", "1": "drone", "2": "bird"}
    assert done.json["target"]["arch"] == "hailo8l"
    assert done.json["calibration"]["count"] == 9
    script = done.json["script"]
    assert "optimization_level=2" in script and "optimization_level=0" not in script.replace("# 0", "")
    assert "batch_size=4, calibset_size=9" in script and "a16_w16" in script
    assert (tmp_path / "cwd" / "run" / "script.mscript").read_text() == script
    # --quiet: nothing on stderr but warnings
    assert done.err.splitlines() and all(line.startswith("warning: ") for line in done.err.splitlines())


def test_large_sets_are_measured_on_held_out_pictures(emulated: Run, yolo: Path, tmp_path: Path) -> None:
    """From 80 pictures on the last min(16, N/5) are kept out of the calibration."""
    done = emulated(yolo, "--calib", npy_set(tmp_path / "s.npy", 80), "--output", "m", "--json")

    assert (done.code, done.json["calibration"]["count"]) == (0, 64)
    assert (done.json["quality"]["images"], done.json["quality"]["in_sample"]) == (16, False)


def test_a_dynamic_export(emulated: Run, calib: Path, tmp_path: Path) -> None:
    """Without --imgsz exit 4 and the flag named; with it a model."""
    model = save(tiny_yolo(dynamic="size"), tmp_path / "dynamic.onnx")

    refused = emulated(model, "--calib", calib)
    done = emulated(model, "--calib", calib, "--imgsz", 64, "--json", "--output", "m")

    assert refused.code == 4 and len(refused.errors) == 1 and "--imgsz" in refused.errors[0]
    assert (done.code, done.json["input"]["size"]) == (0, [64, 64])


def test_end_nodes(emulated: Run, yolo: Path) -> None:
    """The nodes that were found, given back in any order, give the same head; an unknown one is exit 4."""
    found = emulated(yolo, "--check", "--json")
    nodes = [o["onnx_node"] for o in found.json["head"]["outputs"]]

    same = emulated(yolo, "--check", "--json", "--end-nodes", ",".join(reversed(nodes)))
    wrong = emulated(yolo, "--check", "--end-nodes", *nodes[:5], "no/such/node")

    assert (same.code, same.json["head"]) == (0, found.json["head"])
    assert wrong.code == 4 and len(wrong.errors) == 1 and "no/such/node" in wrong.errors[0]


def test_check_tells_all_and_writes_nothing(run_script: Run, yolo: Path, tmp_path: Path) -> None:
    """--check: only the first stage, its result, warnings for what is not there yet, exit 0, no file."""
    done = run_script(SCRIPT, yolo, "--check", "--json")

    assert done.code == 0
    assert list(done.json) == [*SPEC_KEYS, *RUN_KEYS]
    for unknown in ("calibration", "quality", "output", "run_dir"):
        assert done.json[unknown] is None
    assert [s["name"] for s in done.json["stages"]] == ["Parsing ONNX model"]
    assert done.json["proof"]["images"] >= 2
    missing, compiler = done.json["warnings"]
    assert "calibration_data does not exist yet" in missing and "--emulate" in compiler
    assert [line for line in done.err.splitlines() if line.startswith("warning: ")] == [
        f"warning: {missing}", f"warning: {compiler}"
    ]  # fmt: skip
    assert snapshot(tmp_path / "cwd") == {}


def test_check_refuses_a_set_that_is_there_and_wrong(run_script: Run, yolo: Path, tmp_path: Path) -> None:
    """What exists is checked: a set of another size is exit 3 even with --check."""
    done = run_script(SCRIPT, yolo, "--check", "--calib", npy_set(tmp_path / "big.npy", 2, side=96))

    assert done.code == 3 and "96x96" in done.errors[0]


REFUSALS = {
    # model
    "missing file": (["gone.onnx", "--emulate"], 4, "gone.onnx does not exist"),
    "a JPEG called .onnx": (["{jpeg}", "--emulate", "--calib", "{calib}"], 4, "looks like a JPEG"),
    "truncated ONNX": (["{truncated}", "--emulate", "--calib", "{calib}"], 4, "truncated.onnx"),
    "a classifier": (["{classifier}", "--emulate", "--calib", "{calib}"], 4, "classifier.onnx"),
    # data
    "calibration of another size": (["{yolo}", "--emulate", "--calib", "{large}"], 3, "--imgsz 64 64"),
    "calibration missing": (["{yolo}", "--emulate"], 3, "calibration_data does not exist"),
    "calibration an empty folder": (["{yolo}", "--emulate", "--calib", "{empty}"], 3, "manifest.json"),
    # usage
    "output below a file": (["{yolo}", "--emulate", "--calib", "{calib}", "--output", "{jpeg}/m"], 2, "cannot write"),
    "output in /proc": (["gone.onnx", "--emulate", "--output", "/proc/m"], 2, "cannot write"),
    "output an existing folder": (["{yolo}", "--emulate", "--calib", "{calib}", "--output", "{empty}"], 2, "folder"),
    "output the source": (["{emulated}", "--emulate", "--output", "{emulated}"], 2, "would replace the source"),
    "unknown flag": (["{yolo}", "--emulate", "--turbo"], 2, "unrecognized"),
    "abbreviated flag": (["{yolo}", "--emul"], 2, "unrecognized"),
    "level 5": (["{yolo}", "--emulate", "--optimization-level", "5"], 2, "out of range"),
    "gate 1.5": (["{yolo}", "--emulate", "--gate", "1.5"], 2, "out of range"),
    "another chip": (["{yolo}", "--emulate", "--arch", "hailo9"], 2, "hailo9"),
    "names missing": (["{yolo}", "--emulate", "--names", "gone.txt"], 2, "gone.txt"),
    # toolchain
    "no SDK": (["{yolo}", "--calib", "{calib}"], 5, "--emulate"),
    "usage before model": (["gone.onnx", "--output", "{empty}"], 2, "folder"),
}


@pytest.mark.parametrize("args, code, words", REFUSALS.values(), ids=REFUSALS.keys())
def test_refusals(
    run_script: Run, yolo: Path, calib: Path, tmp_path: Path, args: list[str], code: int, words: str
) -> None:
    """One `error:` line, the contract's exit code, no JSON, and not a file more than before."""
    places = make_wrong_inputs(tmp_path, yolo) | {"yolo": yolo, "calib": calib}
    before = snapshot(tmp_path)

    done = run_script(SCRIPT, *[a.format(**places) for a in args], "--json")

    assert (done.code, done.out) == (code, ""), done.err
    assert len(done.errors) == 1 and words in done.errors[0]
    assert done.err.splitlines()[-1] == done.errors[0]
    assert snapshot(tmp_path) == before and not (tmp_path / "cwd" / "runs").exists()


# the same from main() in this process, which is quicker
MORE_REFUSALS = {
    "a folder": (["{empty}", "--emulate"], 4, "is a folder"),
    "imgsz against a fixed size": (["{yolo}", "--imgsz", "96", "--emulate"], 4, "--imgsz"),
    "script missing": (["{yolo}", "--script", "gone.mscript", "--emulate"], 4, "gone.mscript"),
    "script wrong": (["{yolo}", "--script", "{script}", "--emulate"], 4, "line 2"),
    "script without normalization": (["{yolo}", "--script", "{bare}", "--emulate"], 4, "normalization"),
    "its own result": (["{emulated}", "--emulate", "--calib", "{calib}"], 4, "emulated"),
    "calibration no set": (["{yolo}", "--emulate", "--calib", "{jpeg}"], 3, "is not a calibration set"),
    "names too many": (["{yolo}", "--emulate", "--calib", "{calib}", "--names", "a,b,c,d"], 2, "3 classes"),
    "layer unknown": (["{yolo}", "--emulate", "--calib", "{calib}", "--precision-16", "conv7"], 2, "conv7"),
    "layer unknown, checked": (["{yolo}", "--emulate", "--check", "--precision-16", "conv7"], 2, "conv7"),
    "layer before data": (["{yolo}", "--emulate", "--calib", "gone", "--precision-16", "conv7"], 2, "conv7"),
    "a folder of the model's name": (["gone.onnx", "--emulate", "--output", "{taken}"], 2, "Is a directory"),
    "a folder of the HEF's name": (["{yolo}", "--output", "{taken}", "--calib", "gone"], 2, "Is a directory"),
    "run folder of others": (["{yolo}", "--emulate", "--run-dir", "{foreign}"], 2, "report.json is not hefkit's"),
    "model before data": (["{jpeg}", "--calib", "gone"], 4, "looks like a JPEG"),
    "script before data": (["{yolo}", "--script", "{bare}", "--calib", "gone"], 4, "normalization"),
    "data before SDK": (["{yolo}", "--calib", "gone"], 3, "gone does not exist"),
}


@pytest.mark.parametrize("args, code, words", MORE_REFUSALS.values(), ids=MORE_REFUSALS.keys())
def test_more_refusals(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    yolo: Path,
    calib: Path,
    tmp_path: Path,
    args: list[str],
    code: int,
    words: str,
) -> None:
    """Models, scripts and sets that do not fit, and the order 2, 4, 3, 5 where several things are wrong."""
    places = make_wrong_inputs(tmp_path, yolo) | {"yolo": yolo, "calib": calib}
    before = snapshot(tmp_path)
    monkeypatch.chdir(tmp_path)
    terminate = signal.getsignal(signal.SIGTERM)

    found = run_main(main, [a.format(**places) for a in args])

    signal.signal(signal.SIGTERM, terminate)
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert (found, len(errors)) == (code, 1) and words in errors[0], errors
    assert snapshot(tmp_path) == before


def make_wrong_inputs(folder: Path, yolo: Path) -> dict[str, Path]:
    """Files that REFUSALS names."""
    for name in ("empty", "taken.hef", "taken.emulated.onnx", "foreign"):
        (folder / name).mkdir()
    (folder / "foreign" / "report.json").write_text("mine")
    (folder / "photo.onnx").write_bytes(encode(noise(60, 40), ".jpg"))
    (folder / "truncated.onnx").write_bytes(yolo.read_bytes()[:-1000])
    save(wrong_onnx("classify"), folder / "classifier.onnx")
    (folder / "broken.mscript").write_text("# fine\nthis is no command\n")
    (folder / "bare.mscript").write_text("model_optimization_flavor(optimization_level=0, compression_level=0)\n")
    npy_set(folder / "large.npy", 2, side=96)
    emulated = tiny_yolo()
    onnx.helper.set_model_props(emulated, {"hefkit.kind": "emulated"})
    save(emulated, folder / "old.emulated.onnx")
    files = {
        "jpeg": "photo.onnx", "truncated": "truncated.onnx", "classifier": "classifier.onnx", "empty": "empty",
        "script": "broken.mscript", "bare": "bare.mscript", "large": "large.npy", "emulated": "old.emulated.onnx",
        "taken": "taken", "foreign": "foreign",
    }  # fmt: skip
    return {name: folder / file for name, file in files.items()}


@pytest.mark.parametrize("package", ["numpy", "cv2", "onnx", "onnxruntime"])
def test_a_missing_package_is_one_line(run_script: Run, yolo: Path, calib: Path, tmp_path: Path, package: str) -> None:
    """Exit 5 with the command that installs it; a missing model (4) and a missing set (3) come first."""
    (tmp_path / "stubs").mkdir()
    (tmp_path / "stubs" / f"{package}.py").write_text(f"raise ModuleNotFoundError('blocked', name={package!r})\n")
    blocked = partial(run_script, SCRIPT, PYTHONPATH=str(tmp_path / "stubs"))

    done = blocked(yolo, "--emulate", "--calib", calib)

    assert (done.code, len(done.errors)) == (5, 1) and "pip install" in done.errors[0]
    if package == "onnx":
        assert blocked("gone.onnx", "--emulate").code == 4
        assert blocked(yolo, "--emulate", "--calib", calib, "--script", "gone.mscript").code == 4
        assert blocked(yolo, "--emulate", "--calib", "gone").code == 3


@pytest.mark.parametrize("where", ["--output", "--run-dir"])
def test_a_full_disk_is_data(
    run_script: Run, yolo: Path, calib: Path, earlier: Path, small_disk: Path, where: str
) -> None:
    """Exit 3 and one line, whichever of the two folders has no room; the model of an earlier run is still there."""
    before = snapshot(earlier)
    places = {"--output": earlier / "m", "--run-dir": earlier / "run", where: small_disk / "m"}
    fill(small_disk, leave=8192)

    done = run_script(SCRIPT, yolo, "--emulate", "--calib", calib, *chain(*places.items()))

    assert (done.code, len(done.errors)) == (3, 1) and "the disk is full" in done.errors[0], done.err
    assert snapshot(earlier) == before
    assert not list(small_disk.glob("m*"))


def test_run_folder_and_model_may_lie_together(emulated: Run, yolo: Path, calib: Path, tmp_path: Path) -> None:
    """`--run-dir` is where `--output` is; the second run replaces what the first wrote."""
    args = [yolo, "--calib", calib, "--output", tmp_path / "out" / "m", "--run-dir", tmp_path / "out"]
    for _ in range(2):
        done = emulated(*args)
        assert done.code == 0, done.err
    there = {path.name for path in (tmp_path / "out").iterdir()}
    assert there == {"m.emulated.onnx", "m.emulated.json", "report.json", "script.mscript"}


def test_what_is_not_emulated_is_one_warning(emulated: Run, yolo: Path, calib: Path, tmp_path: Path) -> None:
    """A name of the compiler's own cannot be found in the ONNX."""
    script = tmp_path / "wide.mscript"
    lines = (ROOT / "hailo_optimization.mscript").read_text()
    script.write_text(f"{lines}\nquantization_param(conv12, precision_mode=a16_w16)\n")

    done = emulated(yolo, "--calib", calib, "--script", script, "--json")

    assert len([w for w in done.json["warnings"] if "16 bit of conv12" in w]) == 1


LEVELS = {
    "0 of the script": ([], 0, None),
    "0": (["--optimization-level", 0], 0, None),
    "1": (["--optimization-level", 1], 1, None),
    "2": (["--optimization-level", 2], 0, "level 2 trains the weights"),
    "4": (["--optimization-level", 4], 0, "level 4 trains the weights"),
}


@pytest.mark.parametrize("flags, level, words", LEVELS.values(), ids=LEVELS.keys())
def test_the_level_of_a_forecast(
    emulated: Run, yolo: Path, calib: Path, flags: list[object], level: int, words: str | None
) -> None:
    """0 and 1 are emulated; for the others the figures are those of level 0, and a warning says so."""
    done = emulated(yolo, "--calib", calib, *flags, "--json")
    told = [w for w in done.json["warnings"] if "cannot forecast" in w]

    assert (done.code, done.json["quality"]["level"]) == (0, level)
    assert f"  forecast for optimization level {level}" in done.err.splitlines()
    assert ("  bias correction on 4 pictures" in done.err.splitlines()) is (level == 1)
    expected = [f"{words}, which --emulate cannot forecast; the figures are those of level 0"] if words else []
    assert told == expected


def test_a_script_without_a_level(emulated: Run, yolo: Path, calib: Path, tmp_path: Path) -> None:
    """The compiler would choose by the number of pictures; the forecast is that of level 0."""
    script = tmp_path / "free.mscript"
    script.write_text("normalization1 = normalization([0.0, 0.0, 0.0], [255.0, 255.0, 255.0])\n")

    done = emulated(yolo, "--calib", calib, "--script", script, "--json")

    assert done.json["quality"]["level"] == 0
    assert (
        "no level is stated, which --emulate cannot forecast; the figures are those of level 0"
        in (done.json["warnings"])
    )


def test_groups_of_the_script(emulated: Run, yolo: Path, calib: Path, tmp_path: Path) -> None:
    """Patterns are emulated, depthwise convolutions apart; single layers are a warning."""

    def steps(*lines: str) -> dict[int, int]:
        """Weight steps of the layers: how many layers have so many."""
        script = tmp_path / "groups.mscript"
        script.write_text("\n".join([SHIPPED, *lines, ""]))
        done = emulated(yolo, "--calib", calib, "--script", script, "--output", tmp_path / "g", "--json")
        assert done.code == 0, done.err
        nonlocal told
        told = [w for w in done.json["warnings"] if "groups the weights" in w or "--emulate ignores" in w]
        quality = done.json["quality"]
        if any("*" in line for line in lines):  # both figures: what the compiler does is not known
            assert quality["quantization_groups"]["in_order"]["recall"] == quality["recall"]
            assert set(quality["quantization_groups"]["sorted"]) == {"recall", "precision"}
            assert "with channels grouped in order" in done.err and "sorted by range" in done.err
        else:
            assert "quantization_groups" not in quality
        found = [np.unique(layer.step).size for layer in layers(onnx.load(tmp_path / "g.emulated.onnx"))]
        return {count: found.count(count) for count in set(found)}

    told: list[str] = []
    # 27 Convs, 3 of them depthwise
    assert steps() == {1: 27} and not told
    assert steps("quantization_param({dw*}, quantization_groups=2)") == {1: 24, 2: 3} and not told
    assert steps("quantization_param({conv*}, quantization_groups=2)") == {2: 24, 1: 3}
    assert steps("quantization_param({*}, quantization_groups=2)") == {2: 27}
    assert steps(
        "quantization_param({*}, quantization_groups=2)", "quantization_param({dw*}, quantization_groups=3)"
    ) == {2: 24, 3: 3}
    assert not told
    assert steps("quantization_param(conv3, quantization_groups=2)") == {1: 27}
    assert told == [
        "the script groups the weights of conv3, which are the compiler's names; emulated with one group"
    ]  # fmt: skip


def test_plain_distances_ask_for_16_bit(emulated: Run, yolo: Path, calib: Path, tmp_path: Path) -> None:
    """A head as YOLO26's, without bins: one line, unless a flag or the script has 16-bit outputs already."""
    distances = save(tiny_yolo(family="ltrb", tail="topk"), tmp_path / "distances.onnx")
    script = tmp_path / "wide.mscript"
    script.write_text(f"{SHIPPED}\nquantization_param({{output_layer*}}, precision_mode=a16_w16)\n")

    def told(*args: object) -> list[str]:
        done = emulated(*args, "--calib", calib, "--output", tmp_path / "d", "--json")
        assert done.code == 0, done.err
        return [w for w in done.json["warnings"] if "plain distances" in w]

    line = "the box outputs are plain distances, as in YOLO26; 8 bit rounds them coarsely; add --precision-16 outputs"
    assert told(distances) == told(distances, "--check") == [line]
    assert told(distances, "--check", "--precision-16", "auto") == [line]
    assert told(distances, "--precision-16", "outputs") == told(distances, "--check", "--script", script) == []
    assert told(yolo, "--check") == []


def test_a_bad_forecast_says_why_and_what_helps(emulated: Run, calib: Path, tmp_path: Path) -> None:
    """One channel of each depthwise layer gets weights 500 times as large: the others get no codes, boxes are lost."""
    model = tiny_yolo()
    convs = [n for n in model.graph.node if n.op_type == "Conv"]
    values = {t.name: t for t in model.graph.initializer}

    def multiply(name: str, channel: tuple[int | slice, ...], factor: float) -> None:
        weight = onnx.numpy_helper.to_array(values[name]).copy()
        weight[channel] *= factor
        values[name].CopyFrom(onnx.numpy_helper.from_array(weight, name))

    for conv, reader in pairwise(convs):
        if values[conv.input[1]].dims[1] == 1:
            multiply(conv.input[1], (0,), 500)
            multiply(reader.input[1], (slice(None), 0), 1 / 500)
    bad = save(model, tmp_path / "bad.onnx")

    done = emulated(bad, "--calib", calib, "--output", tmp_path / "m", "--json")
    quality = done.json["quality"]

    assert done.code == 0 and quality["recall"] < 0.9, "or there is nothing to explain"
    assert list(quality)[-2:] == ["causes", "what_if"]
    assert list(quality["causes"]) == ["weights", "tensors", "depthwise", "layers"]
    assert quality["causes"]["depthwise"] > 0.5
    assert [w for w in done.json["warnings"] if "the cause: the weights lose too much in 8 bit" in w]
    starts = ("only ", "tried at level 0: as it is ", "what helps: ")
    for start in starts:
        assert len([w for w in done.json["warnings"] if w.startswith(start) and "pictures;" not in w]) == 1
    assert json.loads((tmp_path / "m.emulated.json").read_bytes())["quality"] == quality


def test_onnxruntime_does_not_report_home(
    run_script: Run, road: tuple[Path, Finished], yolo: Path, tmp_path: Path
) -> None:
    """Its telemetry leaves a device's number in the home folder before it sends anything: there must be none."""
    home = tmp_path / "home"
    home.mkdir()
    model, photo = road[0] / "out" / "drone.emulated.onnx", write(tmp_path / "photo.jpg")

    compiled = run_script(SCRIPT, yolo, "--emulate", "--check", HOME=str(home))
    detected = run_script("hailo_inference.py", model, photo, HOME=str(home))

    assert (compiled.code, detected.code) == (0, 0)
    assert not list(home.rglob("*onnxruntime*"))


def test_a_gate_that_is_missed_writes_nothing(emulated: Run, yolo: Path, calib: Path, tmp_path: Path) -> None:
    """Exit 7, the JSON all the same, `output` null; earlier files stay as they were."""
    args = (yolo, "--calib", calib, "--output", tmp_path / "out" / "m", "--json", "--run-dir", "run")
    passed = emulated(*args, "--gate", 0.1)
    before = snapshot(tmp_path)

    done = emulated(*args, "--gate", 1.0)

    assert passed.code == 0 and passed.json["quality"]["recall"] < 1, "or this gate would prove nothing"
    assert done.code == 7 and len(done.errors) == 1 and "--gate 1.0" in done.errors[0]
    assert list(done.json) == [*SPEC_KEYS, *RUN_KEYS]
    assert (done.json["output"], done.json["run_dir"]) == (None, None)
    assert done.json["quality"] == passed.json["quality"]
    assert snapshot(tmp_path) == before


def test_a_comparison_without_boxes_is_a_warning(emulated: Run, calib: Path, tmp_path: Path) -> None:
    """Every class logit lowered by 20: the float model finds nothing, so there is no agreement, and a warning."""
    model = tiny_yolo()
    for node in model.graph.node:
        if node.output[0].startswith("raw_cls"):
            bias = next(t for t in model.graph.initializer if t.name == node.input[2])
            bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) - 20, bias.name))
    blind = save(model, tmp_path / "blind.onnx")

    done = emulated(blind, "--calib", calib, "--output", tmp_path / "m", "--json")

    assert done.code == 0 and done.json["quality"]["boxes_float"] == 0
    assert any("finds no box in the" in warning for warning in done.json["warnings"])


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "Ctrl-C"])
def test_a_killed_run_leaves_the_earlier_model(
    run_script: Run, yolo: Path, earlier: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """Stopped in the second stage, with hundreds of pictures to go: model and spec are byte for byte the old ones."""
    flags = ["--emulate", "--output", str(earlier / "m"), "--run-dir", str(earlier / "run")]
    before = snapshot(earlier)
    many = np.broadcast_to(drawn((64, 64), 1), (1_500, 64, 64, 3))
    np.save(tmp_path / "many.npy", many)

    done = run_script(
        SCRIPT, yolo, "--calib", tmp_path / "many.npy", *flags, stop=(number, lambda stderr: "[2/4]" in stderr)
    )

    assert done.code == code
    assert snapshot(earlier) == before


def test_a_failing_run_leaves_the_earlier_model(
    emulated: Run, yolo: Path, calib: Path, earlier: Path, tmp_path: Path
) -> None:
    """A calibration set of another size, a file that is not a model: the files of the run before stay."""
    args = ("--output", earlier / "m", "--run-dir", earlier / "run")
    before = snapshot(earlier)
    large = npy_set(tmp_path / "large.npy", 2, side=96)

    assert emulated(yolo, "--calib", large, *args).code == 3
    assert emulated(large, "--calib", calib, *args).code == 4
    assert snapshot(earlier) == before


def test_a_pair_that_does_not_belong_together(run_script: Run, road: tuple[Path, Finished], tmp_path: Path) -> None:
    """A spec that was edited, or is gone: inference refuses the model with exit 4."""
    folder, _ = road
    out, photos = shutil.copytree(folder / "out", tmp_path / "out"), folder / "photos"
    spec = out / "drone.emulated.json"
    edited: dict[str, Any] = json.loads(spec.read_bytes())
    edited["names"]["0"] = "plane"
    spec.write_text(json.dumps(edited))

    other = run_script("hailo_inference.py", out / "drone.emulated.onnx", photos)
    spec.unlink()
    gone = run_script("hailo_inference.py", out / "drone.emulated.onnx", photos)

    assert (other.code, gone.code) == (4, 4)
    assert "do not belong together" in other.errors[0] and "drone.emulated.json" in gone.errors[0]


def test_names_of_the_model_are_not_trusted(emulated: Run, calib: Path, tmp_path: Path) -> None:
    """Escape sequences in class and node names never reach the console; the spec keeps them readable."""
    model = tiny_yolo(names=str({0: "\x1b[31mred", 1: "b\n", 2: "c"}))
    for node in model.graph.node:
        node.name = f"\x1b[2J{node.name}"
    done = emulated(save(model, tmp_path / "bad.onnx"), "--calib", calib, "--output", "m", "--json")

    assert done.code == 0, done.err
    assert all(line.isprintable() for line in done.err.splitlines())
    assert "\x1b" not in "".join(done.json["names"].values())


def test_help_imports_nothing_heavy() -> None:
    """--help answers on a machine that has only Python, and names every flag of the contract."""
    program = (
        "import runpy, sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "sys.argv = ['compile_to_hef.py', '--help']\n"
        "try:\n"
        f"    runpy.run_path({str(ROOT / SCRIPT)!r}, run_name='__main__')\n"
        "finally:\n"
        "    print('heavy:', sorted({'numpy', 'cv2', 'onnx', 'onnxruntime', 'tqdm'} & set(sys.modules)))\n"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)

    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "heavy: []"
    flags = (
        "output calib num-samples hw-arch arch script optimization-level precision-16 logits batch-size imgsz "
        "end-nodes names check gate data gate-kept emulate run-dir quiet json version har sdk-python sweep scheduler "
        "budget parse-only"
    )
    for flag in flags.split():
        assert f"--{flag}" in done.stdout
