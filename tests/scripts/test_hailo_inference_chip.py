"""A HEF from the command line to boxes: `hailo_inference.py model.hef photos` on the double of HailoRT.

The HEF carries the emulated ONNX, so its boxes must be those of the emulation, picture by picture: the same codes
go through another reader, another engine and, with NMS inside, through another decoder.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest

from hefkit.spec_file import read_spec
from tests.conftest import ROOT, Finished, finished
from tests.helpers.chip_hef import Recipe, write_hef
from tests.helpers.pictures import write
from tests.helpers.tiny_hef import hef_file, yolo_hef
from tests.helpers.tiny_onnx import drawn, save, tiny_yolo

pytestmark = pytest.mark.xdist_group("chip")  # the emulations and their boxes are made once

SCRIPT = "hailo_inference.py"
PHOTOS = 11  # no multiple of a batch of 8
CONF = 0.1
Run = Callable[..., Finished]
Env = Callable[..., dict[str, str]]
Make = Callable[..., Path]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of several sizes."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(PHOTOS):
        write(folder / f"{i:02d}.png", drawn((60 + 7 * i, 120), i)[..., ::-1])
    return folder


@pytest.fixture(scope="module")
def calib(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """The calibration set of all emulations."""
    folder = tmp_path_factory.mktemp("calib")
    call(folder, "prepare_calibration.py", photos, "--imgsz", 64, 96, "--output", "set")
    return folder / "set"


@pytest.fixture(scope="module")
def emulations(tmp_path_factory: pytest.TempPathFactory, calib: Path) -> Make:
    """`emulations("--logits")`: the emulation of a toy YOLO with these flags, made once."""
    made: dict[tuple[str, ...], Path] = {}

    def make(*flags: str) -> Path:
        if flags not in made:
            folder = tmp_path_factory.mktemp("emulation")
            save(tiny_yolo(size=(64, 96)), folder / "toy.onnx")
            call(folder, "compile_to_hef.py", "toy.onnx", "--emulate", "--calib", calib, "--output", "toy", *flags)
            made[flags] = folder / "toy.emulated.onnx"
        return made[flags]

    return make


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """`expected(emulation, *arguments)`: the results of hailo_inference.py with an emulated model, made once."""
    made: dict[tuple[object, ...], Path] = {}

    def detect(*arguments: object) -> Path:
        if arguments not in made:
            folder = tmp_path_factory.mktemp("emulated")
            call(folder, SCRIPT, *arguments, "--save-dir", "out")
            made[arguments] = folder / "out"
        return made[arguments]

    return detect


def call(folder: Path, script: str, *args: object) -> None:
    """A script that must succeed."""
    done = finished(script, *args, cwd=folder)
    assert done.code == 0, done.err


def as_hef(emulation: Path, folder: Path, recipe: Recipe | None = None, *, beside: bool = False) -> Path:
    """The emulated model as a HEF, with or without its spec."""
    path = folder / "toy.hef"
    write_hef(path, read_spec(emulation.with_suffix(".json")), emulation.read_bytes(), recipe, beside=beside)
    return path


def boxes(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Picture -> its detections."""
    lines = [json.loads(line) for line in (folder / "detections.jsonl").read_text().splitlines()]
    return {Path(line["source"]).name: line["detections"] for line in lines}


def assert_same_boxes(found: Path, expected: Path, tolerance: float, least: int = 40, *, in_order: bool = True) -> None:
    """The same detections in the same order, picture by picture; `in_order` false: but for equal scores."""
    ours, theirs = boxes(found), boxes(expected)
    if not in_order:
        for detections in (*ours.values(), *theirs.values()):
            detections.sort(key=lambda d: (-round(d["score"], 4), d["class_id"], [round(v, 1) for v in d["xyxy"]]))
    assert list(ours) == list(theirs) and len(ours) == PHOTOS
    assert sum(map(len, theirs.values())) >= least, "a comparison of empty lists proves nothing"
    for name, detections in theirs.items():
        got = [(d["class_id"], pytest.approx(d["score"], abs=2e-6)) for d in ours[name]]
        assert got == [(d["class_id"], d["score"]) for d in detections], name
        for one, other in zip(ours[name], detections, strict=True):
            assert one["xyxy"] == pytest.approx(other["xyxy"], abs=tolerance), name


RAW = {
    "as compiled": ((), Recipe()),
    "logits": (("--logits",), Recipe()),
    "16-bit outputs": (("--precision-16", "outputs"), Recipe()),
    "for an 8L": ((), Recipe(arch="hailo8l")),
    "scales a feature": ((), Recipe(multiply={0: [1 + i % 3 for i in range(64)], 1: [257, 255, 256]})),
    "boxes in 16 bits": ((), Recipe(multiply={i: [257] * 64 for i in (0, 2, 4)})),
    "outputs shuffled": ((), Recipe(order=(3, 0, 5, 4, 1, 2))),
    "no names in it": ((), Recipe(original_names=False)),
}


# each form with and without a spec, and with both sizes of batch; every second form the other way round
FORMS = [
    pytest.param(*form, beside, batch, id=f"{name}, {'with' if beside else 'without'} a spec, batch {batch}")
    for turn, (name, form) in enumerate(RAW.items())
    for beside, batch in ([(True, 1), (False, 8)] if turn % 2 else [(True, 8), (False, 1)])
]


@pytest.mark.parametrize(("flags", "recipe", "beside", "batch"), FORMS)
def test_raw_heads_give_the_emulation_s_boxes(
    run_script: Run, chip_env: Env, emulations: Make, expected: Make, photos: Path, tmp_path: Path,
    flags: tuple[str, ...], recipe: Recipe, beside: bool, batch: int,
) -> None:  # fmt: skip
    """Image by image, whatever form the compiler gave the outputs."""
    emulation = emulations(*flags)
    hef = as_hef(emulation, tmp_path, recipe, beside=beside)
    common = (photos, "--conf", CONF, "--no-images", "--batch-size", batch, "--names", "thing0,thing1,thing2")

    done = run_script(SCRIPT, hef, *common, "--save-dir", tmp_path / "chip", "--json", **chip_env())

    assert (done.code, done.json["engine"]) == (0, "hailort"), done.err
    # (a scale a feature rounds otherwise, in the last bit of float32: scores that were equal may differ by it)
    assert_same_boxes(
        tmp_path / "chip", expected(emulation, *common), tolerance=2e-3, in_order=not recipe.multiply
    )  # fmt: skip
    assert ("no spec beside it; assumed: " in done.err) == (not beside)


@pytest.mark.parametrize("batch", [1, 8])
def test_nms_inside_gives_the_emulation_s_boxes(
    run_script: Run, chip_env: Env, emulations: Make, expected: Make, photos: Path, tmp_path: Path, batch: int
) -> None:
    """HailoRT's NMS is multi-label, so it is compared with `--multi-label`.

    It suppresses from the threshold on, ours beyond it; an IoU that equals it to the last bit does not occur here.
    Boxes come normalised and in float32, hence the tolerance of a hundredth of a pixel.
    """
    emulation = emulations()
    hef = as_hef(emulation, tmp_path, Recipe(nms="host"))
    common = (photos, "--conf", CONF, "--no-images", "--batch-size", batch)

    emulated = expected(emulation, *common, "--multi-label")
    done = run_script(SCRIPT, hef, *common, "--save-dir", tmp_path / "chip", **chip_env())

    assert done.code == 0, done.err
    assert_same_boxes(tmp_path / "chip", emulated, tolerance=1e-2)
    assert "its NMS was compiled for scores from 0.2; set to 0.1 by --conf" in done.err
    assert "every class of an anchor counts, at most 100 boxes a class" in done.err


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(["--iou", 0.3], id="another overlap"),
        pytest.param(["--conf", 0.4], id="a higher score than the file's"),
        pytest.param(["--classes", 0, 2], id="some classes"),
        pytest.param(["--max-det", 3], id="few detections"),
    ],
)
def test_flags_reach_the_nms_inside(
    run_script: Run, chip_env: Env, emulations: Make, expected: Make, photos: Path, tmp_path: Path, flags: list[object]
) -> None:
    """Thresholds are set in HailoRT before it configures the chip, the rest is done after it."""
    emulation = emulations()
    hef = as_hef(emulation, tmp_path, Recipe(nms="host"))
    common = (photos, "--conf", CONF, "--no-images", *flags)

    emulated = expected(emulation, *common, "--multi-label")
    done = run_script(SCRIPT, hef, *common, "--save-dir", tmp_path / "chip", **chip_env())

    assert done.code == 0, done.err
    assert_same_boxes(tmp_path / "chip", emulated, tolerance=1e-2, least=10)


def test_nms_across_classes(run_script: Run, chip_env: Env, emulations: Make, photos: Path, tmp_path: Path) -> None:
    """`--agnostic-nms` compares once more what HailoRT left of each class.

    Greedy suppression in two steps can keep other boxes than in one, where a box falls to one of its class that falls
    to another class; so the comparison is with the same two steps, and the flag must bite.
    """
    emulation = emulations()
    hef = as_hef(emulation, tmp_path, Recipe(nms="host"))
    common = (hef, photos, "--conf", CONF, "--no-images")

    plain = run_script(SCRIPT, *common, "--save-dir", tmp_path / "plain", "--json", **chip_env())
    done = run_script(SCRIPT, *common, "--agnostic-nms", "--save-dir", tmp_path / "agnostic", "--json", **chip_env())

    assert done.code == plain.code == 0
    assert 0 < done.json["detections"] < plain.json["detections"]
    for name, detections in boxes(tmp_path / "agnostic").items():
        assert all(d in boxes(tmp_path / "plain")[name] for d in detections)


@pytest.mark.parametrize("flags", [[], ["--multi-label"], ["--agnostic-nms"]], ids=["best class", "all", "across"])
def test_boxes_of_all_anchors(
    run_script: Run, chip_env: Env, emulations: Make, expected: Make, photos: Path, tmp_path: Path, flags: list[str]
) -> None:
    """A HEF with bbox_decoding_only: HailoRT decodes, the NMS and all its flags are ours."""
    emulation = emulations()
    hef = as_hef(emulation, tmp_path, Recipe(nms="boxes"))
    common = (photos, "--conf", CONF, "--no-images", *flags)

    emulated = expected(emulation, *common)
    done = run_script(SCRIPT, hef, *common, "--save-dir", tmp_path / "chip", **chip_env())

    assert done.code == 0, done.err
    assert_same_boxes(tmp_path / "chip", emulated, tolerance=1e-2)


def test_boxes_of_all_anchors_that_are_no_probabilities(
    run_script: Run, chip_env: Env, emulations: Make, photos: Path, tmp_path: Path
) -> None:
    """Without a sigmoid on the chip nobody applied one; that is told, not drawn."""
    hef = as_hef(emulations("--logits"), tmp_path, Recipe(nms="boxes"))

    done = run_script(SCRIPT, hef, photos, "--save-dir", tmp_path / "chip", **chip_env())

    assert done.code == 4
    [error] = done.errors
    assert "the scores of net/nms are not probabilities" in error
    assert not (tmp_path / "chip" / "detections.jsonl").exists()


def test_nms_on_the_chip(
    run_script: Run, chip_env: Env, emulations: Make, expected: Make, photos: Path, tmp_path: Path
) -> None:
    """Its thresholds are burnt in: a higher --conf is applied after it, nothing is set."""
    emulation = emulations()
    hef = as_hef(emulation, tmp_path, Recipe(nms="chip", score_threshold=0.1))

    emulated = expected(emulation, photos, "--multi-label", "--no-images")
    done = run_script(SCRIPT, hef, photos, "--no-images", "--save-dir", tmp_path / "chip", **chip_env())

    assert done.code == 0, done.err
    assert_same_boxes(tmp_path / "chip", emulated, tolerance=1e-2)
    assert "the thresholds of NMS are in the file" in done.err


def test_a_slow_chip_and_a_small_queue_lose_nothing(
    run_script: Run, chip_env: Env, emulations: Make, expected: Make, photos: Path, tmp_path: Path
) -> None:
    """Two frames in flight, five milliseconds each: the readers wait, no picture is missing or out of order."""
    emulation = emulations()
    hef = as_hef(emulation, tmp_path, beside=True)
    common = (photos, "--conf", CONF, "--no-images")

    emulated = expected(emulation, *common)
    env = chip_env(queue_size=2, service_ms=5, not_ready=2)
    done = run_script(SCRIPT, hef, *common, "--save-dir", tmp_path / "chip", **env)

    assert done.code == 0, done.err
    assert_same_boxes(tmp_path / "chip", emulated, tolerance=2e-3)


# --- without a chip, without HailoRT ---------------------------------------------------------------------------------


def test_without_hailort(run_script: Run, emulations: Make, photos: Path, tmp_path: Path) -> None:
    """One line with the command that cures it, exit 6, and nothing written."""
    hef = as_hef(emulations(), tmp_path)

    done = run_script(SCRIPT, "--model", hef, "--source", photos, "--save-dir", tmp_path / "out", "--quiet")

    assert done.code == 6
    assert done.err.splitlines() == done.errors and len(done.errors) == 1
    assert "hailo_platform) is not installed" in done.errors[0]
    assert "sudo apt install hailo-all" in done.errors[0] and "--system-site-packages" in done.errors[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(None, "does not exist", id="missing"),
        pytest.param(b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer", id="LFS pointer"),
        pytest.param(b"\x01HEF" + bytes(40), "cannot be used", id="empty"),
    ],
)
def test_a_bad_file_is_told_before_hailort_is_missed(
    run_script: Run, photos: Path, tmp_path: Path, data: bytes | None, words: str
) -> None:
    """The file's own faults are exit 4, with or without HailoRT."""
    path = tmp_path / "model.hef"
    if data is not None:
        path.write_bytes(data)

    done = run_script(SCRIPT, path, photos, "--save-dir", tmp_path / "out")

    assert (done.code, len(done.errors)) == (4, 1)
    assert words in done.errors[0]


def test_a_wrong_spec_is_told_before_hailort_is_missed(
    run_script: Run, emulations: Make, photos: Path, tmp_path: Path
) -> None:
    """A spec of another compilation: exit 4."""
    hef = as_hef(emulations(), tmp_path)
    shutil.copy(emulations().with_suffix(".json"), hef.with_suffix(".json"))  # of kind "emulated"

    done = run_script(SCRIPT, hef, photos, "--save-dir", tmp_path / "out")

    assert done.code == 4
    assert "do not belong together: the spec is of kind emulated" in done.errors[0]


MACHINES = {
    "no chip": ({"devices": []}, "no Hailo chip was found"),
    "chip in use": ({"devices": [{"id": "0001:01:00.0", "arch": "HAILO8", "busy": True}]}, "is in use"),
    "8L for an 8's HEF": ({"devices": [{"id": "0001:01:00.0", "arch": "HAILO8L"}]}, "--hw-arch hailo8l"),
    "Hailo-10H": ({"devices": [{"id": "0001:01:00.0", "arch": "HAILO10H"}]}, "hailo-h10-all"),
    "driver of another version": ({"faults": {"vdevice": 76}}, "driver and library of HailoRT are of different"),
    "packages of different versions": ({"faults": {"import": 1}}, "different versions (_pyhailort version (4.20.0)"),
    "firmware too old": ({"faults": {"vdevice": 16}}, "firmware is older than the library"),
    "file too new": ({"faults": {"create_infer_model": 92}}, "the HEF is newer than this HailoRT"),
    "no contiguous memory": ({"faults": {"configure": 81}}, "cma="),
    "fails in the middle": ({"faults": {"job+3": 36}, "flood": 63}, "the driver refused an operation"),
    "fails at a start": ({"faults": {"run_async+2": 82}}, "more pictures were sent than HailoRT takes"),
    "service away": ({"faults": {"job+1": 62}}, "hailort.service"),
}


@pytest.mark.parametrize(("settings", "words"), MACHINES.values(), ids=MACHINES)
def test_troubles_of_the_machine(
    run_script: Run, chip_env: Env, emulations: Make, photos: Path, tmp_path: Path,
    settings: dict[str, Any], words: str,
) -> None:  # fmt: skip
    """One line with cause and cure; exit 6, or 4 where the file is to blame; no half results."""
    hef = as_hef(emulations(), tmp_path, beside=True)

    done = run_script(SCRIPT, hef, photos, "--save-dir", tmp_path / "out", **chip_env(**settings))

    assert done.code == (4 if "HEF is newer" in words else 6), done.err
    [error] = done.errors
    assert words in error
    assert not (tmp_path / "out" / "detections.jsonl").exists()


def test_no_logs_in_the_working_directory(chip_env: Env, tmp_path: Path) -> None:
    """HailoRT is told where to put its log before it is loaded; what a user has set stays."""
    env = chip_env()
    tell = "import os, hefkit.hailo.runtime as h; h.load_platform(); print(os.environ['HAILORT_LOGGER_PATH'])"

    def logs(**more: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", tell], cwd=ROOT, capture_output=True, text=True, check=True,
            env={**{"PATH": "/usr/bin"}, **env, **more},
        )  # fmt: skip
        return done.stdout.strip()

    assert logs() == str(tmp_path / "cache" / "hefkit")
    assert logs(HAILORT_LOGGER_PATH="/somewhere") == "/somewhere"


def test_benchmark_of_the_real_engine(
    run_script: Run, chip_env: Env, emulations: Make, photos: Path, tmp_path: Path
) -> None:
    """validate_hef.py --benchmark: the chip alone, the whole way, every stage, heat before and after."""
    hef = as_hef(emulations(), tmp_path)

    done = run_script(
        "validate_hef.py", hef, "--benchmark", "--pictures", 40, "--source", photos, "--json", fresh=True, **chip_env()
    )

    assert done.code == 0, done.err
    result = done.json["benchmark"]
    assert (result["engine"], result["pictures"], result["batch_size"]) == ("hailort", 40, 1)
    assert result["chip_per_second"] > 0 and result["end_to_end_per_second"] > 0 and 0 < result["share"] < 1.5
    assert list(result["stage_ms"]) == ["read", "preprocess", "infer", "decode", "write"]
    assert all(isinstance(degrees, float) for degrees in result["temperature_c"].values())
    assert "chip alone" in done.err and "degrees Celsius" in done.err


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        pytest.param(["--source", "x"], 2, "--reference ONNX or --benchmark", id="source without benchmark"),
        pytest.param(["--benchmark", "--source", "gone"], 3, "gone does not exist", id="photographs before the chip"),
        pytest.param(["--benchmark"], 6, "sudo apt install hailo-all", id="no HailoRT"),
        pytest.param(["--device"], 6, "sudo apt install hailo-all", id="no HailoRT to check"),
    ],
)
def test_benchmark_refusals(
    run_script: Run, emulations: Make, tmp_path: Path, flags: list[str], code: int, words: str
) -> None:
    """One line, the contract's order of checks, no JSON."""
    done = run_script("validate_hef.py", as_hef(emulations(), tmp_path), *flags, "--json")

    assert (done.code, done.out) == (code, "") and len(done.errors) == 1 and words in done.errors[0]


@pytest.mark.parametrize(
    "raised", ["ValueError('numpy.dtype size changed')", "RuntimeError('module compiled against ABI')"]
)
def test_a_package_that_breaks_while_it_is_imported(run_script: Run, tmp_path: Path, raised: str) -> None:
    """Whatever it raises, it is the toolchain of the chip that fails: exit 6 and one line."""
    (tmp_path / "hailo_platform").mkdir()
    (tmp_path / "hailo_platform" / "__init__.py").write_text(f"raise {raised}")
    (tmp_path / "m.hef").write_bytes(hef_file(yolo_hef()))

    done = run_script("validate_hef.py", tmp_path / "m.hef", "--device", PYTHONPATH=str(tmp_path))

    assert (done.code, len(done.errors)) == (6, 1) and "HailoRT for Python" in done.errors[0], done.err


# --- the live detector -----------------------------------------------------------------------------------------------


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Thirty frames."""
    path = tmp_path / "film.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (96, 64))
    for i in range(30):
        writer.write(drawn((64, 96), i)[..., ::-1])
    writer.release()
    return path


@pytest.mark.parametrize("nms", [None, "host"], ids=["raw heads", "NMS inside"])
def test_live(run_script: Run, chip_env: Env, emulations: Make, film: Path, tmp_path: Path, nms: str | None) -> None:
    """The same engine behind the live loop: every frame of a film, in order."""
    hef = as_hef(emulations(), tmp_path, Recipe(nms=nms), beside=nms is None)

    flags = ("--headless", "--pace", "fast", "--conf", CONF, "--jsonl", "-", "--json")
    done = run_script("working_hailo_detector.py", hef, film, *flags, **chip_env(service_ms=2))

    assert done.code == 0, done.err
    lines = [json.loads(line) for line in done.out.splitlines()[:-1]]
    assert [line["frame"] for line in lines] == list(range(30))
    assert {line["engine"] for line in lines} == {"hailort"} and sum(len(line["detections"]) for line in lines) > 30


def test_live_restarts_a_failed_chip_once(
    run_script: Run, chip_env: Env, emulations: Make, film: Path, tmp_path: Path
) -> None:
    """The chip is given back and opened again; a second failure ends the run with the cause."""
    hef = as_hef(emulations(), tmp_path, beside=True)

    done = run_script(
        "working_hailo_detector.py", hef, film, "--headless", "--pace", "fast", **chip_env(faults={"job+8": 4})
    )

    assert done.code == 6, done.err
    assert "restarting the chip, once" in done.err
    [error] = done.errors
    assert "the chip does not answer in time (status 4" in error, "not: the chip is in use"
