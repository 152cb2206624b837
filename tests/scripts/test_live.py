"""`working_hailo_detector.py` as users run it: a process, its words, its files, its exit code, and how it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import pytest

from tests.conftest import ROOT, Finished, start_script
from tests.helpers.pictures import write
from tests.helpers.tiny_onnx import drawn, save, tiny_yolo
from tests.helpers.toy_emulation import write_emulation
from tests.helpers.waiting import wait_for
from tests.helpers.warm import Forked

pytestmark = pytest.mark.xdist_group("clock")  # it looks at the clock: one process for all such files

SCRIPT = "working_hailo_detector.py"
FRAMES = 45
PATIENCE_S = 30.0
Run = Callable[..., Finished]
Process = subprocess.Popen[bytes] | Forked


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """An emulated model that sees one drone in every picture."""
    return write_emulation(tmp_path)


@pytest.fixture(scope="module")
def one_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second and a half of 96x64 at 30 a second."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    film = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 30, (96, 64))
    for i in range(FRAMES):
        film.write(drawn((64, 96), i)[..., ::-1].copy())
    film.release()
    return path


@pytest.fixture
def clip(one_clip: Path, tmp_path: Path) -> Path:
    """The film in the test's own folder."""
    return Path(shutil.copy(one_clip, tmp_path))


def test_a_file_as_fast_as_possible(run_script: Run, toy: Path, clip: Path, tmp_path: Path) -> None:
    """--pace fast: every frame once, in order, in every sink; the summary adds up; emulation says so."""
    done = run_script(
        SCRIPT, toy, clip, "--pace", "fast", "--jsonl", "new/out.jsonl", "--record", "new/film.mp4",
        "--save-dir", "seen", "--save-every", 0.001, "--save-max", 5, "--json", cwd=tmp_path,
    )  # fmt: skip

    assert done.code == 0, done.err
    lines = [json.loads(line) for line in (tmp_path / "new/out.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(FRAMES))
    assert {(line["source"], line["engine"], line["width"]) for line in lines} == {(str(clip), "emulated", 96)}
    assert all(line["detections"][0]["class"] == "drone" for line in lines)
    assert [line["timestamp"] for line in lines] == sorted(line["timestamp"] for line in lines)
    film = cv2.VideoCapture(str(tmp_path / "new/film.mp4"))
    assert (film.get(cv2.CAP_PROP_FRAME_COUNT), film.get(cv2.CAP_PROP_FPS)) == (FRAMES, 30)
    assert 1 <= len(list((tmp_path / "seen").iterdir())) <= 5
    result = done.json
    assert (result["frames"], result["dropped"], result["by_class"]) == (FRAMES, 0, {"drone": FRAMES})
    assert result["engine"] == "emulated" and set(result["stage_ms"]["latency"]) == {"p50", "p95"}
    assert "INT8 emulation on the CPU" in done.err and f"{FRAMES} frames, 0 dropped" in done.err


def test_a_file_at_its_own_pace(run_here: Run, toy: Path, clip: Path, tmp_path: Path) -> None:
    """Played as a camera would: a second and a half of film takes that long."""
    start = time.monotonic()
    done = run_here(SCRIPT, toy, clip, "--json")

    assert done.code == 0 and time.monotonic() - start > FRAMES / 30 - 0.1
    assert done.json["frames"] + done.json["dropped"] == FRAMES


def test_float_models_work_too(run_here: Run, clip: Path, tmp_path: Path) -> None:
    """Any float YOLO is cut on the fly; its frames are not stamped as emulated."""
    model = save(tiny_yolo(), tmp_path / "tiny.onnx")

    done = run_here(SCRIPT, model, clip, "--pace", "fast", "--jsonl", "-", "--max-frames", 3, "--conf", 0.05)

    lines = [json.loads(line) for line in done.out.splitlines()]
    assert done.code == 0 and [line["frame"] for line in lines] == [0, 1, 2]
    assert {line["engine"] for line in lines} == {"float"} and "emulation" not in done.err


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(["--max-frames", 60, "--pace", "fast"], id="frames"),
        pytest.param(["--duration", 2], id="duration"),
    ],
)
def test_a_loop_ends_at_its_limit(run_here: Run, toy: Path, clip: Path, flags: list[object]) -> None:
    """--loop goes on over the end of the film until a limit is reached."""
    done = run_here(SCRIPT, toy, clip, "--loop", "--json", *flags)

    assert done.code == 0 and done.json["frames"] >= FRAMES
    if "--max-frames" in flags:
        assert done.json["frames"] == 60


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        pytest.param(["{toy}"], 2, "one model and one source", id="a model only"),
        pytest.param(["{toy}", "nonsense"], 2, "'nonsense' is not known", id="unknown source"),
        pytest.param(["{toy}", "{photo}"], 2, "hailo_inference.py", id="a photograph"),
        pytest.param(["{toy}", "usb", "--loop"], 2, "--loop and --pace are for video files", id="loop of a camera"),
        pytest.param(["{toy}", "{clip}", "--show", "--headless"], 2, "contradict", id="show and headless"),
        pytest.param(["{toy}", "{clip}", "--mqtt-topic", "a"], 2, "needs --mqtt", id="topic without broker"),
        pytest.param(["{toy}", "{clip}", "--mqtt", "mqtt://u:secret@h"], 2, "--mqtt", id="password in a URL"),
        pytest.param(["{toy}", "{clip}", "--web", "99999"], 2, "--web", id="no port"),
        pytest.param(["{toy}", "{clip}", "--record", "a.avi"], 2, "ends in .mp4", id="record an avi"),
        pytest.param(["{toy}", "{clip}", "--record", "/proc/x/a.mp4"], 2, "cannot write", id="record nowhere"),
        pytest.param(["gone.hef", "{clip}", "--record", "a.avi"], 2, "ends in .mp4", id="record before the model"),
        pytest.param(["{toy}", "{clip}", "--record", f"{'x' * 300}.mp4"], 2, "too long", id="record a long name"),
        pytest.param(["gone.hef", "{clip}", "--jsonl", "/proc/x/y"], 2, "cannot write", id="lines nowhere"),
        pytest.param(["gone.hef", "{clip}", "--jsonl", "{folder}"], 2, "Is a directory", id="lines into a folder"),
        pytest.param(["{toy}", "{clip}", "--jsonl", "{toy}"], 2, "holds other data", id="lines into the model"),
        pytest.param(["{toy}", "{clip}", "--jsonl", "{clip}"], 2, "holds other data", id="lines into the film"),
        pytest.param(["{toy}", "{clip}", "--jsonl", "{text}"], 2, "holds other data", id="lines into a text"),
        pytest.param(["{toy}", "{clip}", "--save-max", "3"], 2, "need --save-dir", id="how many of none"),
        pytest.param(["{toy}", "{clip}", "--duration", "0"], 2, "out of range", id="no duration"),
        pytest.param(["{toy}", "{clip}", "--save-d", "x"], 2, "unrecognized", id="abbreviation"),
        pytest.param(["gone.hef", "gone.mp4"], 4, "gone.hef does not exist", id="model before source"),
        pytest.param(["{wrong}", "gone.mp4"], 4, "is not a HEF", id="a wrong model before the source"),
        pytest.param(["{toy}", "gone.mp4", "--classes", "cat"], 2, "0 car, 1 drone", id="class before the source"),
        pytest.param(["{toy}", "gone.mp4"], 3, "gone.mp4 does not exist", id="file missing"),
        pytest.param(["{toy}", "{text}"], 3, "cannot be read as a video", id="no video"),
        pytest.param(["{toy}", "{clip}", "--classes", "cat"], 2, "0 car, 1 drone, 2 bird", id="class unknown"),
        pytest.param(["{toy}", "/dev/video250"], 6, "/dev/video250", id="no such camera"),
    ],
)
def test_refusals(run_here: Run, toy: Path, clip: Path, tmp_path: Path, args: list[str], code: int, words: str) -> None:
    """One line, the contract's exit code, no secret in it, nothing on stdout, nothing left behind."""
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    (tmp_path / "wrong.hef").write_bytes(b"\x01HEF")
    (tmp_path / "folder").mkdir()
    places = {"toy": toy, "clip": clip, "text": text, "photo": write(tmp_path / "photo.jpg")}
    places |= {"wrong": tmp_path / "wrong.hef", "folder": tmp_path / "folder"}
    before = sorted(p.name for p in tmp_path.iterdir())

    done = run_here(SCRIPT, *[a.format(**places) for a in args], "--json", cwd=tmp_path)

    assert (done.code, done.out) == (code, ""), done.err
    assert len(done.errors) == 1 and words in done.errors[0] and "secret" not in done.err
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_without_a_display_there_is_no_window(run_here: Run, toy: Path, clip: Path) -> None:
    """--show on a headless machine is said, and detection runs."""
    done = run_here(SCRIPT, toy, clip, "--show", "--max-frames", 2, DISPLAY="", WAYLAND_DISPLAY="")

    assert done.code == 0 and "there is no display here" in done.err


@pytest.fixture
def started(toy: Path, clip: Path, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """The script as a process that runs until a signal; its words go to the file `err`."""
    running: list[Process] = []

    def start(*flags: object, fresh: bool = False) -> Process:
        command = [str(ROOT / SCRIPT), str(toy), str(clip), "--loop", *map(str, flags)]
        with open(os.devnull, "r+") as nothing, open(tmp_path / "err", "w") as err:
            files = [nothing.fileno(), nothing.fileno(), err.fileno()]
            running.append(start_script(command, tmp_path, dict(os.environ), files, fresh=fresh))
        return running[-1]

    yield start
    for process in running:
        if process.returncode is None:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)], ids=["INT", "TERM"])
@pytest.mark.parametrize("state", ["running", "starting"])
def test_signals_end_it_cleanly(
    started: Callable[..., Process], tmp_path: Path, number: signal.Signals, code: int, state: str
) -> None:
    """Soon, with a summary where there is something to sum up, the recording closed, and no traceback."""
    process = started("--jsonl", "out.jsonl", "--record", "film.mp4", fresh=state == "starting")
    lines = tmp_path / "out.jsonl"
    if state == "running":
        wait_for(lambda: lines.exists() and lines.read_text().count("\n") > 10, PATIENCE_S)
    else:
        wait_for(lines.exists, PATIENCE_S)

    begun = time.monotonic()
    os.kill(process.pid, number)
    ended = process.wait(30)
    err = (tmp_path / "err").read_text()

    assert ended == code and "Traceback" not in err, err
    assert time.monotonic() - begun < 10  # (2 s are promised; a busy test machine gets more)
    if state == "running":
        assert " frames, " in err
        assert int(cv2.VideoCapture(str(tmp_path / "film.mp4")).get(cv2.CAP_PROP_FRAME_COUNT)) > 5
        assert all(json.loads(line) for line in lines.read_text().splitlines())
    assert not list(tmp_path.glob("*.part.mp4"))


def test_lines_are_appended_to_earlier_ones(run_here: Run, toy: Path, clip: Path, tmp_path: Path) -> None:
    """And to nothing else; see the refusals."""
    for _ in range(2):
        assert run_here(SCRIPT, toy, clip, "--max-frames", 2, "--jsonl", tmp_path / "out.jsonl").code == 0

    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize("begins", ['{"source": "usb", "fr', '3.1]}], "timestamp": "x", "latency_ms": 3.2}', "", "\n"])
def test_lines_that_were_cut_off_are_still_ours(
    run_here: Run, toy: Path, clip: Path, tmp_path: Path, begins: str
) -> None:
    """By a full disk, or by trimming the file: a detector that is started again must accept it."""
    (tmp_path / "out.jsonl").write_text(begins)

    assert run_here(SCRIPT, toy, clip, "--max-frames", 1, "--jsonl", tmp_path / "out.jsonl").code == 0
    assert json.loads((tmp_path / "out.jsonl").read_text().splitlines()[-1])["frame"] == 0


def test_lines_into_a_pipe_of_the_shell(toy: Path, clip: Path, tmp_path: Path) -> None:
    """`--jsonl >(...)`, which is a file in /dev/fd, where no file can be made."""
    command = f"{sys.executable} {ROOT / SCRIPT} {toy} {clip} --headless --max-frames 3 --jsonl >(wc -l > lines)"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
    wait_for(lambda: (tmp_path / "lines").exists() and (tmp_path / "lines").read_text().strip() == "3", PATIENCE_S)


def test_the_reader_of_stdout_may_leave(toy: Path, clip: Path, tmp_path: Path) -> None:
    """`| head -1`: the detector ends, with one line."""
    command = f"{sys.executable} {ROOT / SCRIPT} {toy} {clip} --loop --jsonl - | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60)

    assert done.returncode == 2 and json.loads(done.stdout)["frame"] == 0
    assert "the reader of standard output closed it" in done.stderr and "Traceback" not in done.stderr


def test_the_page_knows_the_run(started: Callable[..., Process], tmp_path: Path) -> None:
    """--web: statistics of this very run, on loopback only."""
    pytest.importorskip("aiohttp", reason="aiohttp is not installed")
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started("--web", port, "--jsonl", "out.jsonl")
    wait_for(lambda: (tmp_path / "out.jsonl").exists() and (tmp_path / "out.jsonl").stat().st_size > 5000, PATIENCE_S)

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats", timeout=10) as answer:
        stats = json.load(answer)

    assert stats["engine"] == "emulated" and stats["frames"] > 5 and stats["in_last_frame"] == {"drone": 1}
