"""`hailo_inference.py` as users run it: a process, its files, its words and its exit code."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime as ort
import pytest

from tests.conftest import ROOT, Finished
from tests.helpers.pictures import encode, noise, write
from tests.helpers.tiny_hef import hef_file, yolo_hef
from tests.helpers.tiny_onnx import drawn, save, tiny_yolo
from tests.helpers.toy_emulation import write_emulation

SCRIPT = "hailo_inference.py"
Run = Callable[..., Finished]


@pytest.fixture(scope="module")
def yolo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float toy YOLO of 64x64 with the classes thing0, thing1, thing2."""
    return save(tiny_yolo(), tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """An emulated model that sees one drone in every picture, in the same place of the input."""
    return write_emulation(tmp_path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three pictures of different sizes, one of them in a folder."""
    for i, name in enumerate(("b.png", "a.jpg", "sub/c.jpg")):
        write(tmp_path / "photos" / name, drawn((64 + 8 * i, 96), i)[..., ::-1])
    return tmp_path / "photos"


def read_lines(folder: Path) -> list[dict[str, Any]]:
    """`detections.jsonl` parsed."""
    return [json.loads(line) for line in (folder / "detections.jsonl").read_text().splitlines()]


def tree(folder: Path) -> list[str]:
    """Every file below a folder."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_json_lines_and_json(run_script: Run, yolo: Path, photos: Path, tmp_path: Path) -> None:
    """The contract's keys, the pictures' order, and counts that agree with the lines."""
    done = run_script(SCRIPT, yolo, photos, "--save-dir", tmp_path / "out", "--conf", 0.1, "--json")

    assert done.code == 0
    assert list(done.json)[:8] == [
        "model", "engine", "images", "failed", "detections", "save_dir", "images_per_second", "stage_ms"
    ]  # fmt: skip
    assert list(done.json["stage_ms"]) == ["read", "preprocess", "infer", "decode", "write"]
    lines = read_lines(tmp_path / "out")
    assert [line["source"] for line in lines] == [f"{photos}/a.jpg", f"{photos}/b.png", f"{photos}/sub/c.jpg"]
    assert [(line["width"], line["height"]) for line in lines] == [(96, 72), (96, 64), (96, 80)]
    for line in lines:
        assert list(line) == ["source", "frame", "width", "height", "engine", "detections"]
        assert line["frame"] is None and line["engine"] == "float" and line["detections"]
        scores = [d["score"] for d in line["detections"]]
        assert scores == sorted(scores, reverse=True) and min(scores) >= 0.1
        for found in line["detections"]:
            assert list(found) == ["class_id", "class", "score", "xyxy"]
            assert found["class"] == f"thing{found['class_id']}"
            x1, y1, x2, y2 = found["xyxy"]
            assert 0 <= x1 <= x2 <= line["width"] and 0 <= y1 <= y2 <= line["height"]
    assert (done.json["images"], done.json["failed"], done.json["engine"]) == (3, 0, "float")
    assert done.json["detections"] == sum(len(line["detections"]) for line in lines)
    assert done.json["save_dir"] == str(tmp_path / "out")
    assert tree(tmp_path / "out") == ["a.jpg", "b.png", "detections.jsonl", "run.json", "sub/c.jpg"]


def test_emulation_says_so_everywhere(run_script: Run, toy: Path, photos: Path, tmp_path: Path) -> None:
    """Console, JSON, JSON lines and pictures all tell that no chip was there; boxes are the spec's."""
    done = run_script(SCRIPT, "--model", toy, "--source", photos, "--save-dir", tmp_path / "out", "--json")

    assert done.code == 0 and done.json["engine"] == "emulated"
    assert done.err.count("INT8 emulation on the CPU, not the chip") == 1
    assert "      3  drone" in done.err.splitlines() and "3 images, 3 detections" in done.err
    assert "median milliseconds of each stage: read " in done.err and "; sum per image: " in done.err
    # 96x64 in 64x64: ratio 2/3, 11 px above (round(10.5 - 0.1) = 10); x: 12 * 1.5 = 18; y: (12 - 10) * 64 / 43
    [found] = read_lines(tmp_path / "out")[1]["detections"]
    assert (found["class_id"], found["class"], found["score"]) == (1, "drone", 1.0)
    assert found["xyxy"] == pytest.approx([18, 2 * 64 / 43, 66, 34 * 64 / 43], abs=1e-3)
    assert all(line["engine"] == "emulated" for line in read_lines(tmp_path / "out"))
    stamped = cv2.imread(str(tmp_path / "out" / "b.png"))
    assert (stamped[-2:, :2] == 0).all(), "the stamp's box in the lower left corner"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param("photos/a.jpg", ["photos/a.jpg"], id="image"),
        pytest.param("photos/", ["photos/a.jpg", "photos/b.png", "photos/sub/c.jpg"], id="folder"),
        pytest.param("photos/**/*.jpg", ["photos/a.jpg", "photos/sub/c.jpg"], id="glob"),
        pytest.param("list.txt", ["photos/sub/c.jpg", "photos/a.jpg"], id="list"),
        pytest.param("-", ["photos/b.png", "photos/a.jpg"], id="stdin"),
    ],
)
def test_kinds_of_source(
    run_script: Run, toy: Path, photos: Path, tmp_path: Path, source: str, expected: list[str]
) -> None:
    """Images, folders, globs, lists and stdin are called in the lines as they were given."""
    (tmp_path / "list.txt").write_text("# two of them\r\nphotos/sub/c.jpg\r\n\r\nphotos/a.jpg\r\n")

    done = run_script(
        SCRIPT, toy, source, "--save-dir", "out", "--no-images", cwd=tmp_path, stdin="photos/b.png\nphotos/a.jpg\n"
    )

    assert done.code == 0, done.err
    assert [line["source"] for line in read_lines(tmp_path / "out")] == expected


def test_default_folder_and_our_own_results(run_script: Run, toy: Path, photos: Path, tmp_path: Path) -> None:
    """Results go to runs/predict/NAME, then NAME-2; a later run over `.` does not take them for photographs."""
    for expected in ("runs/predict/toy", "runs/predict/toy-2"):
        done = run_script(SCRIPT, toy, ".", "--json", cwd=tmp_path)

        assert (done.code, done.json["save_dir"], done.json["images"]) == (0, expected, 3)
    assert "photos/a.jpg" in tree(tmp_path / "runs/predict/toy-2")


def test_clashing_names(run_script: Run, toy: Path, photos: Path, tmp_path: Path) -> None:
    """Two pictures of one name in a list: the second result is `-2`, and the lines name both sources."""
    write(tmp_path / "more" / "a.jpg")
    (tmp_path / "list.txt").write_text(f"{photos}/a.jpg\n{tmp_path}/more/a.jpg\n")

    run_script(SCRIPT, toy, tmp_path / "list.txt", "--save-dir", tmp_path / "out")

    assert tree(tmp_path / "out") == ["a-2.jpg", "a.jpg", "detections.jsonl", "run.json"]
    assert [line["width"] for line in read_lines(tmp_path / "out")] == [96, 60]


def test_flags_that_choose_what_is_written(run_script: Run, toy: Path, photos: Path, tmp_path: Path) -> None:
    """--no-images, --save-crop and --quiet."""
    done = run_script(SCRIPT, toy, photos, "--save-dir", tmp_path / "out", "--no-images", "--save-crop", "--quiet")

    crops = [f"crops/drone/{stem}-1.jpg" for stem in "abc"]
    assert (done.code, done.out, done.err) == (0, "", "")
    assert tree(tmp_path / "out") == [*crops, "detections.jsonl", "run.json"]
    # b.png: the box 18, 2.98, 66, 50.6 touches the pixels 18..65 and 2..50
    assert cv2.imread(str(tmp_path / "out" / crops[1])).shape == (49, 48, 3)


def test_pictures_with_and_without_labels(run_script: Run, toy: Path, photos: Path, tmp_path: Path) -> None:
    """--hide-labels and --line-width change the pictures and nothing else."""
    pictures = []
    for i, flags in enumerate(([], ["--hide-labels"], ["--line-width", 6])):
        out = tmp_path / f"out{i}"
        assert run_script(SCRIPT, toy, photos / "b.png", "--save-dir", out, *flags).code == 0
        pictures.append(cv2.imread(str(out / "b.png")))

    assert not np.array_equal(pictures[0], pictures[1]) and not np.array_equal(pictures[0], pictures[2])
    assert (tmp_path / "out0/detections.jsonl").read_bytes() == (tmp_path / "out2/detections.jsonl").read_bytes()


def test_formats(run_script: Run, yolo: Path, photos: Path, tmp_path: Path) -> None:
    """The same detections four times; run.json knows every file, so that a second run may replace them."""
    flags = ["--format", "coco", "txt", "--format", "csv,jsonl", "--conf", 0.1, "--no-images"]
    for _ in range(2):
        done = run_script(SCRIPT, yolo, photos, "--save-dir", tmp_path / "out", *flags)
        assert done.code == 0, done.err

    out = tmp_path / "out"
    assert tree(out) == [
        "coco.json", "detections.csv", "detections.jsonl", "labels/a.txt", "labels/b.txt", "labels/c.txt", "run.json"
    ]  # fmt: skip
    assert "detections.jsonl, detections.csv, coco.json, labels" in done.err
    lines = read_lines(out)
    table = list(csv.DictReader((out / "detections.csv").read_text().splitlines()))
    coco = json.loads((out / "coco.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == ["a.jpg", "b.png", "sub/c.jpg"]
    for number, line in enumerate(lines, 1):
        found = line["detections"]
        rows = [row for row in table if row["source"] == line["source"]]
        notes = [a for a in coco["annotations"] if a["image_id"] == number]
        labels = [label.split() for label in (out / f"labels/{'abc'[number - 1]}.txt").read_text().splitlines()]
        assert len(found) == len(rows) == len(notes) == len(labels) > 0
        for detection, row, note, label in zip(found, rows, notes, labels, strict=True):
            x1, y1, x2, y2 = detection["xyxy"]
            assert [float(row[key]) for key in ("score", "x1", "y1", "x2", "y2")] == [
                detection["score"],
                x1,
                y1,
                x2,
                y2,
            ]
            assert row["class"] == detection["class"] and row["frame"] == ""
            assert note["bbox"] == pytest.approx([x1, y1, x2 - x1, y2 - y1], abs=2e-4)
            assert [int(label[0]), float(label[5])] == [detection["class_id"], detection["score"]]
            assert float(label[1]) * line["width"] == pytest.approx((x1 + x2) / 2, abs=1e-3)
            assert float(label[4]) * line["height"] == pytest.approx(y2 - y1, abs=1e-3)


def test_batches_change_nothing(run_script: Run, yolo: Path, photos: Path, tmp_path: Path) -> None:
    """--batch-size groups pictures; an unreadable one in the middle of a batch costs only itself."""
    (photos / "ba.jpg").write_text("no picture")
    lines = []
    for size in (1, 2, 8):
        done = run_script(SCRIPT, yolo, photos, "--save-dir", tmp_path / f"{size}", "--batch-size", size, "--json")
        assert (done.code, done.json["images"], done.json["failed"]) == (0, 3, 1)
        lines.append((tmp_path / f"{size}" / "detections.jsonl").read_bytes())

    assert lines[0] == lines[1] == lines[2]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Ten frames of 96x64 at 12.5 a second."""
    path = tmp_path / "clips" / "flight.avi"
    path.parent.mkdir()
    film = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 12.5, (96, 64))
    for i in range(10):
        film.write(drawn((64, 96), i)[..., ::-1].copy())
    film.release()
    return path


def test_video(run_script: Run, yolo: Path, clip: Path, tmp_path: Path) -> None:
    """One line a frame, numbered from 0, equal to those of the frames as photographs; the film keeps rate and size."""
    out = tmp_path / "out"
    done = run_script(
        SCRIPT, yolo, clip, "--save-dir", out, "--save-video", "--conf", 0.1, "--json", "--format", "jsonl,txt,coco"
    )

    assert done.code == 0 and (done.json["images"], done.json["failed"]) == (10, 0), done.err
    assert "10 frames, " in done.err and "annotated video" in done.err
    labels = [f"labels/flight_{i:06d}.txt" for i in range(10)]
    assert tree(out) == ["coco.json", "detections.jsonl", "flight.mp4", *labels, "run.json"]
    lines = read_lines(out)
    assert [(line["source"], line["frame"]) for line in lines] == [(str(clip), i) for i in range(10)]
    capture, frames = cv2.VideoCapture(str(clip)), tmp_path / "frames"
    for i in range(10):
        write(frames / f"{i}.png", capture.read()[1])
    run_script(SCRIPT, yolo, frames, "--save-dir", tmp_path / "single", "--no-images", "--conf", 0.1)
    assert [line["detections"] for line in lines] == [line["detections"] for line in read_lines(tmp_path / "single")]
    film = cv2.VideoCapture(str(out / "flight.mp4"))
    facts = [film.get(key) for key in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)]
    assert facts == [12.5, 96, 64] and film.get(cv2.CAP_PROP_FRAME_COUNT) == 10


def test_video_without_film(run_script: Run, toy: Path, clip: Path, tmp_path: Path) -> None:
    """Without --save-video there are lines and no picture; crops carry the frame's number."""
    done = run_script(SCRIPT, toy, clip, "--save-dir", tmp_path / "out", "--save-crop")

    crops = [f"crops/drone/flight_{i:06d}-1.jpg" for i in range(10)]
    assert done.code == 0 and tree(tmp_path / "out") == [*crops, "detections.jsonl", "run.json"]


def test_a_film_never_replaces_its_source(run_script: Run, toy: Path, clip: Path, tmp_path: Path) -> None:
    """An .mp4 whose annotated copy would land on itself is refused."""
    source = clip.rename(clip.with_suffix(".mp4"))
    before = source.read_bytes()

    done = run_script(SCRIPT, toy, source, "--save-dir", source.parent, "--save-video")

    assert done.code == 2 and "flight.mp4 is a source picture" in done.err
    assert source.read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "count"),
    [
        pytest.param(["--classes", "drone"], 3, id="by name"),
        pytest.param(["--classes", "1"], 3, id="by number"),
        pytest.param(["--classes", "car,bird"], 0, id="others"),
        pytest.param(["--classes", "0", "plane", "--names", "car,plane,bird"], 3, id="by a given name"),
        pytest.param(["--conf", "1"], 3, id="conf 1"),
    ],
)
def test_classes_and_names(
    run_script: Run, toy: Path, photos: Path, tmp_path: Path, flags: list[str], count: int
) -> None:
    """Classes are chosen by name or number, of the model or of --names."""
    done = run_script(SCRIPT, toy, photos, "--save-dir", tmp_path / "out", "--json", *flags)

    assert (done.code, done.json["detections"]) == (0, count)


def test_thresholds_reach_the_decoder(run_script: Run, yolo: Path, photos: Path, tmp_path: Path) -> None:
    """--conf, --iou, --max-det, --multi-label and --agnostic-nms change what is found in the expected direction."""

    def count(*flags: object) -> int:
        done = run_script(SCRIPT, yolo, photos, "--save-dir", tmp_path / "out", "--no-images", "--json", *flags)
        assert done.code == 0, done.err
        return done.json["detections"]

    usual = count("--conf", 0.05)
    assert count("--conf", 0.4) < count("--conf", 0.2) < usual
    assert count("--conf", 0.05, "--iou", 0.1) < usual < count("--conf", 0.05, "--iou", 1)
    assert count("--conf", 0.05, "--max-det", 2) == 6
    several = count("--conf", 0.05, "--multi-label")
    assert several > usual
    assert count("--conf", 0.05, "--multi-label", "--agnostic-nms") < several


def test_unreadable_pictures_are_counted(run_script: Run, toy: Path, photos: Path, tmp_path: Path) -> None:
    """Bad files are named with a reason and counted; the rest is done, and the exit code is 0."""
    (photos / "broken.jpg").write_bytes(encode(noise(300, 200), ".jpg")[:900])
    (photos / "text.png").write_text("no picture")

    done = run_script(SCRIPT, toy, photos, "--save-dir", tmp_path / "out", "--json")

    assert (done.code, done.json["images"], done.json["failed"]) == (0, 3, 2)
    warnings = [line for line in done.err.splitlines() if line.startswith("warning: ")]
    assert [w.split()[1] for w in warnings] == [f"{photos}/broken.jpg", f"{photos}/text.png"]
    assert "3 images (2 more unreadable), 3 detections" in done.err
    assert len(read_lines(tmp_path / "out")) == 3 and "broken.jpg" not in tree(tmp_path / "out")


def test_missing_lines_of_a_list_are_counted(run_script: Run, toy: Path, photos: Path, tmp_path: Path) -> None:
    """A path in a list that does not exist is one unreadable picture."""
    (tmp_path / "list.txt").write_text(f"{photos}/a.jpg\n{photos}/gone.jpg\n")

    done = run_script(SCRIPT, toy, tmp_path / "list.txt", "--save-dir", tmp_path / "out", "--json")

    assert (done.code, done.json["images"], done.json["failed"]) == (0, 1, 1)


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        pytest.param([], 2, "expected one model and one source", id="nothing"),
        pytest.param(["{toy}"], 2, "expected one model and one source", id="a model only"),
        pytest.param(["--model", "{toy}"], 2, "expected one model and one source", id="--model only"),
        pytest.param(["{toy}", "{photos}", "x"], 2, "expected one model and one source", id="three places"),
        pytest.param(["--model", "{toy}", "{photos}"], 2, "do not mix the two", id="a mixture"),
        pytest.param(["{toy}", "{photos}", "--conf", "2"], 2, "out of range", id="conf"),
        pytest.param(["{toy}", "{photos}", "--max-det", "0"], 2, "out of range", id="max-det"),
        pytest.param(["{toy}", "{photos}", "--line-width", "0"], 2, "out of range", id="line-width"),
        pytest.param(["{toy}", "{photos}", "--sav", "x"], 2, "unrecognized arguments", id="abbreviation"),
        pytest.param(["{toy}", "{photos}", "--save-dir", "{toy}"], 2, "cannot write", id="output is a file"),
        pytest.param(["{toy}", "{photos}", "--save-dir", "/proc/out"], 2, "cannot write", id="output not writable"),
        pytest.param(
            ["{toy}", "{photos}", "--save-dir", "{photos}"], 2, "is a source picture", id="output is the source"
        ),
        pytest.param(["{toy}", "{photos}", "--names", "gone.txt"], 2, "does not exist", id="names missing"),
        pytest.param(["{toy}", "{photos}", "--names", "a,b,c,d"], 2, "the model has 3 classes", id="names too many"),
        pytest.param(["{toy}", "{photos}", "--classes", "cat"], 2, "0 car, 1 drone, 2 bird", id="class unknown"),
        pytest.param(["{toy}", "{photos}", "--classes", "3"], 2, "no class '3'", id="class too far"),
        pytest.param(["gone.onnx", "gone"], 4, "gone.onnx does not exist", id="model missing, source too"),
        pytest.param(["gone.hef", "{photos}"], 4, "gone.hef does not exist", id="hef missing"),
        pytest.param(["{photos}", "{photos}"], 4, "is not a model file", id="model a folder"),
        pytest.param(["{jpeg}", "{photos}"], 4, "fake.onnx", id="a JPEG called .onnx"),
        pytest.param(["{lonely}", "{photos}"], 4, "lonely.emulated.json", id="emulation without its spec"),
        pytest.param(["{toy}", "gone"], 3, "the source gone does not exist", id="source missing"),
        pytest.param(["{toy}", "{empty}"], 3, "contains no images", id="empty folder"),
        pytest.param(["{toy}", "{jpeg}"], 3, "none of the images (1) can be read", id="nothing readable"),
        pytest.param(["{toy}", "{video}"], 3, "cannot be read as a video", id="no video"),
        pytest.param(
            ["{toy}", "{photos}", "--save-video"],
            2,
            "is not a video",
            id="video of photographs",
        ),
        pytest.param(["{toy}", "{photos}", "--format", "xml"], 2, "unknown format 'xml'", id="format"),
        pytest.param(["{toy}", "{photos}", "--batch-size", "64"], 2, "out of range", id="batch-size"),
        pytest.param(["{hef}", "gone"], 3, "the source gone does not exist", id="source before the chip"),
        pytest.param(["{broken}", "{photos}"], 4, "is not a HEF", id="broken hef"),
        pytest.param(["{broken}", "gone"], 4, "is not a HEF", id="broken hef before the source"),
        pytest.param(
            ["{lonely}", "gone"], 4, "lonely.emulated.json", id="emulation without its spec before the source"
        ),
        pytest.param(["{toy}", "gone", "--classes", "cat"], 2, "0 car, 1 drone, 2 bird", id="class before the source"),
        pytest.param(["{hef}", "{photos}", "--classes", "9"], 2, "no class '9'", id="class before the chip"),
        pytest.param(["{hef}", "{photos}", "--names", "a,b,c,d,e,f"], 2, "--names", id="names before the chip"),
        pytest.param(["{hef}", "{photos}"], 6, "sudo apt install hailo-all", id="hef"),
    ],
)
def test_refusals(
    run_script: Run, toy: Path, photos: Path, tmp_path: Path, args: list[str], code: int, words: str
) -> None:
    """One line on stderr, the contract's exit code, nothing on stdout, nothing written."""
    places = {name: tmp_path / file for name, file in INPUTS.items()} | {"toy": toy, "photos": photos}
    places["jpeg"].write_bytes(b"\xff\xd8\xff\xe0 not an ONNX")
    places["empty"].mkdir()
    places["video"].touch()
    places["hef"].write_bytes(hef_file(yolo_hef()))
    places["broken"].write_bytes(b"\x01HEF")
    shutil.copy(toy, places["lonely"])
    before = tree(tmp_path)

    done = run_script(SCRIPT, *[a.format(**places) for a in args], "--json")

    assert (done.code, done.out) == (code, ""), done.err
    assert len(done.errors) == 1 and words in done.errors[0]
    assert tree(tmp_path) == before and not (tmp_path / "cwd" / "runs").exists()


INPUTS = {
    "jpeg": "fake.onnx",
    "empty": "empty",
    "video": "clip.mp4",
    "hef": "m.hef",
    "broken": "broken.hef",
    "lonely": "lonely.emulated.onnx",
}


@pytest.mark.parametrize("package", ["numpy", "cv2", "onnx", "onnxruntime"])
def test_missing_packages(run_script: Run, toy: Path, photos: Path, tmp_path: Path, package: str) -> None:
    """A package that is not installed is one line and exit 5; whatever is wrong before it is told first."""
    block = tmp_path / "blocked"
    block.mkdir()
    (block / f"{package}.py").write_text(f"raise ModuleNotFoundError('No module named {package}', name={package!r})")

    done = run_script(SCRIPT, toy, photos, PYTHONPATH=str(block))
    no_source = run_script(SCRIPT, toy, "gone", PYTHONPATH=str(block))
    no_model = run_script(SCRIPT, "gone.onnx", "gone", PYTHONPATH=str(block))

    assert done.code == 5 and len(done.errors) == 1 and "pip install" in done.errors[0]
    assert (no_source.code, no_model.code) == (3, 4)


def test_works_without_tqdm(run_script: Run, toy: Path, photos: Path, tmp_path: Path) -> None:
    """A Raspberry Pi may lack tqdm: no bar then."""
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "tqdm.py").write_text("raise ModuleNotFoundError('No module named tqdm', name='tqdm')")

    done = run_script(SCRIPT, toy, photos, "--save-dir", tmp_path / "out", PYTHONPATH=str(tmp_path / "blocked"))

    assert done.code == 0


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)], ids=["INT", "TERM", "KILL"]
)
def test_a_killed_run_leaves_earlier_results(
    run_script: Run, toy: Path, photos: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """Killed in the middle: lines and pictures of the run before are what they were."""
    out = tmp_path / "out"
    assert run_script(SCRIPT, toy, photos, "--save-dir", out).code == 0
    before = {name: (out / name).read_bytes() for name in tree(out)}
    (tmp_path / "long.txt").write_text(f"{photos}/a.jpg\n" * 2_000)

    def pictures_are_written(stderr: str) -> bool:
        return any(out.glob(".hefkit-partial-*/new/*.jpg"))

    flags = ("--save-dir", out, "--conf", 0.9)
    done = run_script(SCRIPT, toy, tmp_path / "long.txt", *flags, stop=(number, pictures_are_written))

    assert done.code == code
    assert {name: (out / name).read_bytes() for name in tree(out) if not name.startswith(".")} == before
    assert run_script(SCRIPT, toy, photos, "--save-dir", out).code == 0
    assert tree(out) == sorted(before), "the next run sweeps up and replaces its own"


def test_a_failing_run_leaves_earlier_results(run_script: Run, toy: Path, photos: Path, tmp_path: Path) -> None:
    """Nothing readable this time: exit 3, and the earlier results stay."""
    out = tmp_path / "out"
    run_script(SCRIPT, toy, photos, "--save-dir", out)
    before = {name: (out / name).read_bytes() for name in tree(out)}
    (tmp_path / "bad.jpg").write_text("no picture")

    done = run_script(SCRIPT, toy, tmp_path / "bad.jpg", "--save-dir", out)

    assert done.code == 3
    assert {name: (out / name).read_bytes() for name in tree(out)} == before


def test_names_of_the_model_are_not_trusted(run_script: Run, photos: Path, tmp_path: Path) -> None:
    """A class name full of escape sequences and slashes: printable on the console, safe as a folder, exact in JSON."""
    name = "../\x1b[31mdrone\n\u202e"
    toy = write_emulation(tmp_path, {0: "a", 1: name, 2: "c"})

    done = run_script(SCRIPT, toy, photos / "a.jpg", "--save-dir", tmp_path / "out", "--save-crop")

    assert done.code == 0 and all(line.isprintable() for line in done.err.splitlines())
    assert read_lines(tmp_path / "out")[0]["detections"][0]["class"] == name
    assert "crops/31mdrone/a-1.jpg" in tree(tmp_path / "out")


def test_memory_does_not_grow_with_the_pictures(toy: Path, photos: Path, tmp_path: Path) -> None:
    """Five hundred pictures need hardly more than thirty: less than 9 kB each."""
    peaks = []
    for count in (30, 500):
        (tmp_path / "list.txt").write_text(f"{photos}/a.jpg\n" * count)
        program = (
            "import resource, subprocess, sys\n"
            "subprocess.run(sys.argv[1:], check=True)\n"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)\n"
        )
        command = [ROOT / SCRIPT, toy, tmp_path / "list.txt", "--no-images", "--quiet", "--save-dir", tmp_path / "out"]
        done = subprocess.run([sys.executable, "-c", program, sys.executable, *command], capture_output=True, text=True)
        peaks.append(int(done.stdout))

    assert peaks[1] < peaks[0] + 4, f"{peaks} MB"


def oracle(session: ort.InferenceSession, path: Path, side: int, conf: float) -> list[tuple[int, float, np.ndarray]]:
    """The uncut graph, thresholds and NMS in a few independent lines: (class, score, xyxy in the photograph)."""
    image = cv2.imread(str(path))
    h, w = image.shape[:2]
    ratio = min(side / h, side / w)
    nh, nw = round(h * ratio), round(w * ratio)
    dh, dw = (side - nh) / 2, (side - nw) / 2
    if (nh, nw) != (h, w):
        image = cv2.resize(image, (nw, nh), interpolation=cv2.INTER_LINEAR)
    edges = round(dh - 0.1), round(dh + 0.1), round(dw - 0.1), round(dw + 0.1)
    image = cv2.copyMakeBorder(image, *edges, cv2.BORDER_CONSTANT, value=(114, 114, 114))
    feed = image[None, ..., ::-1].transpose(0, 3, 1, 2).astype(np.float32) / 255
    rows = session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(feed)})[0][0].T
    xywh, scores = rows[:, :4].astype(np.float64), rows[:, 4:]
    best, score = scores.argmax(1), scores.max(1)
    boxes = np.concatenate([xywh[:, :2] - xywh[:, 2:] / 2, xywh[:, :2] + xywh[:, 2:] / 2], 1)
    kept: list[int] = []
    for i in np.argsort(-score, kind="stable"):
        if score[i] < conf:
            break
        if all(best[k] != best[i] or overlap(boxes[k], boxes[i]) <= 0.7 for k in kept):
            kept.append(i)
    back = (boxes - np.tile([edges[2], edges[0]], 2)) / np.tile([nw / w, nh / h], 2)
    return [(int(best[i]), float(score[i]), np.clip(back[i], 0, [w, h, w, h])) for i in kept[:300]]


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """IoU of two boxes."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    common = np.prod(sides.clip(0))
    return common / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - common)


def assert_equals_oracle(model: Path, lines: list[dict[str, Any]], side: int, conf: float) -> int:
    """Same classes, boxes to 0.01 px and scores to 1e-4 in every line; returns how many were close to `conf`."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1  # more would spin while the other tests compute
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    close = 0
    for line in lines:
        expected = oracle(session, Path(line["source"]), side, conf)
        ours = [(d["class_id"], d["score"], np.array(d["xyxy"])) for d in line["detections"]]
        for rest, others in ((expected, ours), (ours, expected)):
            for class_id, score, xyxy in rest:
                same = [
                    o for o in others
                    if o[0] == class_id and abs(o[1] - score) < 1e-4 and np.abs(o[2] - xyxy).max() < 0.01
                ]  # fmt: skip
                close += not same and abs(score - conf) < 1e-4
                assert same or abs(score - conf) < 1e-4, f"{line['source']}: {class_id} {score} {xyxy}"
    return close


def test_float_run_equals_the_uncut_toy(run_script: Run, yolo: Path, photos: Path, tmp_path: Path) -> None:
    """The script's boxes are those of the uncut graph with plain thresholds and NMS."""
    run_script(SCRIPT, yolo, photos, "--save-dir", tmp_path / "out", "--conf", 0.1, "--no-images")

    lines = read_lines(tmp_path / "out")
    assert_equals_oracle(yolo, lines, 64, 0.1)
    assert sum(len(line["detections"]) for line in lines) > 20


@pytest.mark.parametrize(("name", "side"), [("leyolo_nano_640", 640), ("bccd_416", 416)])
def test_float_run_equals_the_uncut_model(run_script: Run, shared: Path, tmp_path: Path, name: str, side: int) -> None:
    """The same on real photographs with real models."""
    model = shared / "models" / f"{name}.onnx"
    source = shared / "images" if side == 640 else shared / "datasets" / "bccd" / "images" / "val"
    every = sorted(source.iterdir())
    photographs = every[:: len(every) // 12]
    (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in photographs))
    done = run_script(
        SCRIPT, model, tmp_path / "list.txt", "--save-dir", tmp_path / "out", "--no-images", "--json"
    )  # fmt: skip

    assert done.code == 0, done.err
    lines = read_lines(tmp_path / "out")
    assert len(lines) == done.json["images"] == len(photographs) > 11 and done.json["detections"] > 20
    assert assert_equals_oracle(model, lines, side, 0.25) <= 2
