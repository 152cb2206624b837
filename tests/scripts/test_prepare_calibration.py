"""prepare_calibration.py as a process: the contract that users and other programs rely on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prepare_calibration import main
from tests.conftest import ROOT, Finished
from tests.helpers.pictures import noise, write

SCRIPT = "prepare_calibration.py"
Run = Callable[..., Finished]


@pytest.fixture
def prepare(run_script: Run) -> Run:
    """The script as a process, in an empty working directory."""

    def run(*args: object, **kwargs: Any) -> Finished:
        return run_script(SCRIPT, *args, **kwargs)

    return run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Eight small pictures and one broken one."""
    for i in range(8):
        write(tmp_path / "photos" / f"p{i}.jpg", noise(50 + i, 40, seed=i))
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    return tmp_path / "photos"


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`, hidden ones included."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_newcomer_s_first_run(prepare: Run, photos: Path, tmp_path: Path) -> None:
    """Only SOURCE: ./calibration_data appears, and stderr says what was found, left out, and comes next."""
    done = prepare(photos)

    assert done.code == 0
    assert done.out == ""
    out = tmp_path / "cwd" / "calibration_data"
    manifest = json.loads((out / "manifest.json").read_bytes())
    assert manifest["count"] == 8
    assert manifest["input"]["size"] == [640, 640]
    assert (manifest["seed"], manifest["select"], manifest["source"]) == (0, "diverse", str(photos))
    for words in (
        "9 pictures in",
        "broken.jpg is left out",
        "only 8 usable",
        "(8, 640, 640, 3) uint8 RGB",
        "preview.jpg",
        "coverage.png",
        "compile_to_hef.py",
    ):
        assert words in done.err
    assert "\r" not in done.err  # no progress bar where there is no terminal


def test_json_is_the_manifest_without_its_images(prepare: Run, photos: Path, tmp_path: Path) -> None:
    """The last line of stdout, plus `output`; --quiet leaves the warnings."""
    done = prepare(photos, "--output", "set", "--imgsz", "64", "96", "--num-samples", "8", "--json", "--quiet")

    assert done.code == 0
    manifest = json.loads((tmp_path / "cwd" / "set" / "manifest.json").read_bytes())
    assert done.json == {**{k: v for k, v in manifest.items() if k != "images"}, "output": "set"}
    assert done.json["input"]["size"] == [64, 96]
    assert [line.partition(": ")[0] for line in done.err.splitlines()] == ["warning"] * len(done.err.splitlines())


def test_png_and_npy_and_any_number_of_workers_give_one_set(prepare: Run, photos: Path, tmp_path: Path) -> None:
    """Two processes that share only SOURCE and seed agree on every picture and on the digest."""
    common = (photos, "--imgsz", 64, "--num-samples", 5, "--seed", 7, "--json")
    png = prepare(*common, "--output", "png", "--workers", 1)
    npy = prepare(*common, "--output", "npy", "--workers", 4, "--format", "npy", PYTHONHASHSEED="5")

    assert png.code == npy.code == 0
    assert png.json["digest"] == npy.json["digest"]
    assert png.json["skipped"] == npy.json["skipped"]
    images = [json.loads((tmp_path / "cwd" / n / "manifest.json").read_bytes())["images"] for n in ("png", "npy")]
    assert [i["source"] for i in images[0]] == [i["source"] for i in images[1]]
    assert np.load(tmp_path / "cwd" / "npy" / "calib_set.npy").shape == (5, 64, 64, 3)


def test_one_photograph(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A set of one picture, with a warning that it is too few."""
    out = tmp_path / "set"
    code = main([str(photos / "p3.jpg"), "--imgsz", "32", "--output", str(out), "--num-samples", "4"])

    assert code == 0
    [image] = json.loads((out / "manifest.json").read_bytes())["images"]
    assert image["source"].endswith("p3.jpg") and (image["width"], image["height"]) == (53, 40)
    assert "only 1 usable picture, 4 were asked for" in capsys.readouterr().err


USAGE = {
    "no source": ((), "SOURCE"),
    "empty source": (("",), "empty"),
    "abbreviated flag": (("x", "--num", "3"), "unrecognized"),
    "unknown choice": (("x", "--select", "best"), "best"),
    "no picture asked for": (("x", "--num-samples", "0"), "out of range"),
    "imgsz 0": (("x", "--imgsz", "0"), "out of range"),
    "imgsz with three sides": (("x", "--imgsz", "1", "2", "3"), "height and width"),
    "negative seed": (("x", "--seed", "-1"), "out of range"),
    "workers 0": (("x", "--workers", "0"), "out of range"),
    "test split": (("x", "--split", "test"), "invalid choice"),
    "output below a file": (("x", "--output", str(ROOT / SCRIPT / "set")), "cannot write"),
    "output is a file": (("x", "--output", str(ROOT / SCRIPT)), "cannot write"),
    "output in /proc": (("x", "--output", "/proc/set"), "cannot write"),
    "output with an impossible name": (("x", "--output", "a" * 300), "cannot write"),
}


@pytest.mark.parametrize("args, words", USAGE.values(), ids=USAGE.keys())
def test_usage_errors_come_first(prepare: Run, args: tuple[str, ...], words: str) -> None:
    """Exit 2 and one line, although the source `x` does not exist either: nothing has been opened yet."""
    done = prepare(*args)

    assert (done.code, done.out, len(done.errors)) == (2, "", 1)
    assert words in done.errors[0]
    assert len(done.err.splitlines()) == 1


def make_folder(root: Path) -> None:
    (root / "empty").mkdir()
    (root / "texts").mkdir()
    (root / "texts" / "a.jpg").write_text("no picture")
    (root / "list.txt").write_text("# nothing\n")
    (root / "data.yaml").write_text("train: nowhere\n")
    (root / "movie.mp4").write_bytes(b"x")


@pytest.mark.parametrize(
    "source, words",
    [
        ("missing", "does not exist"),
        ("empty", "no images"),
        ("texts", "none of the 1 pictures"),
        ("texts/a.jpg", "none of the 1 pictures"),
        ("list.txt", "is empty"),
        ("data.yaml", "looked for"),
        ("missing.yaml", "does not exist"),
        ("movie.mp4", "video"),
    ],
)
def test_sources_without_pictures_are_data_errors(prepare: Run, tmp_path: Path, source: str, words: str) -> None:
    """Exit 3, one line, and no output folder is left behind."""
    make_folder(tmp_path)

    done = prepare(tmp_path / source, "--json")

    assert (done.code, done.out, len(done.errors)) == (3, "", 1)
    assert words in done.errors[0]
    assert not (tmp_path / "cwd" / "calibration_data").exists()


def test_a_size_that_no_yolo_takes(prepare: Run, tmp_path: Path) -> None:
    """A warning with the cure, before anything is read."""
    done = prepare(tmp_path / "missing", "--imgsz", "641")
    assert "warning: --imgsz 641 641: YOLOs take sides that are multiples of 32; use the size" in done.err
    assert "multiples of 32" not in prepare(tmp_path / "missing", "--imgsz", "416", "640").err


@pytest.mark.parametrize("case", ["a-backslash/data.yaml", "b-colab/data.yaml", "c-cwd/cfg/ds.yaml"])
def test_paths_of_another_machine(prepare: Run, shared: Path, case: str) -> None:
    """../shared/field: four pictures each, and a line where a path was guessed."""
    done = prepare(shared / "field" / "04-data-yaml" / case, "--imgsz", 32, "--output", "set", "--json")

    assert (done.code, done.json["count"]) == (0, 4)
    assert ("which is not on this machine; taking" in done.err) == (case != "a-backslash/data.yaml")


def test_an_old_set_is_replaced_only_on_request(prepare: Run, photos: Path, tmp_path: Path) -> None:
    """Without --overwrite nothing changes (2); with it the new set takes the place of the old one."""
    out = tmp_path / "out"
    args = (photos, "--imgsz", 32, "--output", out)
    assert prepare(*args, "--num-samples", 6).code == 0
    (out / "notes.txt").write_text("mine")
    before = snapshot(out)

    refused = prepare(*args, "--num-samples", 3)
    assert (refused.code, snapshot(out)) == (2, before)
    assert "--overwrite" in refused.errors[0]

    assert prepare(*args, "--num-samples", 3, "--overwrite").code == 0
    after = snapshot(out)
    assert sorted(after) == [
        *(f"calib_000{i}.png" for i in range(3)),
        "coverage.png",
        "manifest.json",
        "notes.txt",
        "preview.jpg",
    ]
    assert after["notes.txt"] == b"mine"


def test_a_folder_of_photographs_is_never_an_output(prepare: Run, photos: Path, tmp_path: Path) -> None:
    """Not even with --overwrite: without a manifest of hefkit they may be the user's photographs."""
    album = tmp_path / "album"
    write(album / "calib_0000.png")
    before = snapshot(album)

    for flags in ((), ("--overwrite",)):
        done = prepare(photos, "--output", album, *flags)
        assert done.code == 2
        assert "photographs" in done.errors[0]
    assert snapshot(album) == before


def test_source_and_output_are_never_the_same(prepare: Run, photos: Path, tmp_path: Path) -> None:
    """The output as SOURCE is a usage error, another set of ours as SOURCE a data error."""
    out = tmp_path / "out"
    assert prepare(photos, "--imgsz", 32, "--output", out).code == 0

    assert prepare(out, "--output", out, "--overwrite").code == 2
    other = prepare(out, "--output", tmp_path / "other")
    assert (other.code, "only pictures that hefkit made" in other.errors[0]) == (3, True)


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "Ctrl-C"])
def test_a_killed_run_leaves_the_earlier_set(
    prepare: Run, photos: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """Stopped in the middle, with hundreds of pictures to go: the folder is as it was, byte for byte."""
    out = tmp_path / "out"
    assert prepare(photos, "--imgsz", 32, "--output", out).code == 0
    before = snapshot(out)
    small = write(tmp_path / "small.jpg", noise(160, 120))
    (tmp_path / "many").mkdir()
    for i in range(500):
        os.link(small, tmp_path / "many" / f"{i}.jpg")

    def pictures_are_written(stderr: str) -> bool:
        return sum(len(names) for _, _, names in os.walk(out)) >= len(before) + 3

    flags = ("--output", out, "--overwrite", "--num-samples", 500)
    done = prepare(tmp_path / "many", *flags, stop=(number, pictures_are_written))

    assert done.code == code
    assert snapshot(out) == before
    assert sorted(p.name for p in out.iterdir()) == sorted(before)


IMPORTS = """
import runpy, sys
sys.path.insert(0, {root!r})
sys.argv = ["prepare_calibration.py", "--help"]
try:
    runpy.run_path({script!r}, run_name="__main__")
finally:
    heavy = {{"numpy", "cv2", "onnx", "onnxruntime", "tqdm", "yaml"}} & set(sys.modules)
    print("heavy:", sorted(heavy))
"""


def test_help_imports_nothing_heavy() -> None:
    """--help answers on a machine that has only Python."""
    code = IMPORTS.format(root=str(ROOT), script=str(ROOT / SCRIPT))

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)

    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "heavy: []"
    for (
        flag
    ) in "output num-samples imgsz fit select seed split format workers scheduler overwrite quiet json version".split():  # noqa: SIM905
        assert f"--{flag}" in done.stdout


@pytest.mark.parametrize("module, package", [("cv2", "opencv-python-headless"), ("numpy", "numpy")])
def test_a_missing_package_is_one_line(prepare: Run, photos: Path, tmp_path: Path, module: str, package: str) -> None:
    """Exit 5 with the command that installs it; a missing source is still reported first, with 3."""
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    (stubs / f"{module}.py").write_text(f"raise ModuleNotFoundError('blocked', name={module!r})\n")

    done = prepare(photos, PYTHONPATH=str(stubs))
    assert (done.code, len(done.errors)) == (5, 1)
    assert f"pip install {package}" in done.errors[0]

    assert prepare(tmp_path / "nowhere", PYTHONPATH=str(stubs)).code == 3


def test_a_yaml_without_pyyaml_says_so(prepare: Run, tmp_path: Path) -> None:
    """PyYAML is needed for a data.yaml only."""
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    (stubs / "yaml.py").write_text("raise ModuleNotFoundError('blocked', name='yaml')\n")
    (tmp_path / "data.yaml").write_text("train: images\n")

    done = prepare(tmp_path / "data.yaml", PYTHONPATH=str(stubs))

    assert done.code == 5
    assert "pip install PyYAML" in done.errors[0]


def test_a_real_dataset(prepare: Run, shared: Path, tmp_path: Path) -> None:
    """BCCD's data.yaml: pictures of the train split only, each with its true hash."""
    done = prepare(
        shared / "datasets" / "bccd" / "data.yaml", "--imgsz", 416, "--num-samples", 6, "--output", "set", "--json"
    )

    assert (done.code, done.json["count"]) == (0, 6)
    assert "splits: train, val; using train" in done.err
    images = json.loads((tmp_path / "cwd" / "set" / "manifest.json").read_bytes())["images"]
    assert {Path(image["source"]).parent.name for image in images} == {"train"}
