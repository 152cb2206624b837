"""`working_hailo_detector.py` with cameras: a real RTSP server that dies and comes back, and the double of a Pi's."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from hefkit.cameras import net
from tests.conftest import DOUBLES, ROOT, Finished
from tests.helpers.loopback import listening, silent
from tests.helpers.rtsp_server import PASSWORD, USER, missing, rtsp_server
from tests.helpers.toy_emulation import write_emulation
from tests.helpers.waiting import wait_for

pytestmark = [
    pytest.mark.xdist_group("clock"),
    pytest.mark.slow,
]  # it looks at the clock: one process for all such files

SCRIPT = "working_hailo_detector.py"
PATIENCE_S = 60.0
Run = Callable[..., Finished]


def test_a_server_that_dies_and_comes_back(tmp_path: Path) -> None:
    """Detection goes on by itself, frames stay in order, and the password is nowhere in what the detector writes."""
    if missing():
        pytest.skip(missing())
    out = tmp_path / "out.jsonl"
    command = [sys.executable, str(ROOT / SCRIPT), str(write_emulation(tmp_path)), "--jsonl", str(out), "--json"]

    def lines() -> list[dict[str, Any]]:
        return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []

    with rtsp_server(auth="digest") as (server, port):
        url = f"rtsp://{USER}:{PASSWORD}@127.0.0.1:{port}/cam"
        detector = subprocess.Popen(
            [*command, url], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            wait_for(lambda: len(lines()) > 5, PATIENCE_S)
            server.kill()
            server.wait()
            before = len(lines())
            with rtsp_server(port, auth="digest"):
                wait_for(lambda: len(lines()) > before + 20, PATIENCE_S)
                detector.terminate()
                stdout, stderr = detector.communicate(timeout=PATIENCE_S)
        finally:
            detector.kill()
            detector.communicate()

    assert detector.returncode == 0, stderr
    assert json.loads(stdout.splitlines()[-1])["reconnects"] == 1
    name = f"rtsp://***@127.0.0.1:{port}/cam"
    assert f"{name} delivers no more frames" in stderr and f"{name} is back" in stderr
    assert {line["source"] for line in lines()} == {name}
    numbers = [line["frame"] for line in lines()]
    assert numbers == sorted(set(numbers)) and all(line["detections"] for line in lines())
    for text in (stdout, stderr, out.read_text()):
        assert PASSWORD not in text and USER not in text


def test_a_pi_s_camera(run_script: Run, tmp_path: Path) -> None:
    """The double of picamera2: boxes in pixels of the large picture, and `isp` in the summary."""
    done = run_script(
        SCRIPT,
        write_emulation(tmp_path),
        "csi",
        "--max-frames",
        5,
        "--jsonl",
        tmp_path / "out.jsonl",
        "--json",
        PYTHONPATH=str(DOUBLES),
    )

    assert done.code == 0, done.err
    assert "csi: 1280x720 at 30 frames a second; preprocess: isp" in done.err
    assert done.json["preprocess"] == "isp"
    [first, *_] = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert (first["width"], first["height"], first["source"]) == (1280, 720, "csi")
    x1, y1, x2, y2 = first["detections"][0]["xyxy"]
    assert 0 <= x1 < x2 <= 1280 and 0 <= y1 < y2 <= 720


@pytest.mark.parametrize(
    ("source", "code", "words"),
    [
        pytest.param("webcam", 2, "expected csi or csi:1", id="no kind of ours"),
        pytest.param("rtsp://me:s3cret/x@cam/1", 2, "no valid host and port", id="address"),
        pytest.param("gone.mp4", 3, "gone.mp4 does not exist", id="file"),
        pytest.param("csi", 6, "sudo apt install python3-picamera2", id="picamera2"),
        pytest.param("csi:3", 6, "sudo apt install python3-picamera2", id="picamera2, fourth camera"),
        pytest.param("/dev/video201", 6, "there is no /dev/video201", id="usb"),
        pytest.param("rtsp://me:s3cret@127.0.0.1:1/x", 6, "rtsp://***@127.0.0.1:1/x cannot be opened", id="rtsp"),
        pytest.param("http://me:s3cret@127.0.0.1:{silent}/x", 6, "does not answer; restart the camera", id="http"),
    ],
)
def test_cameras_that_are_not_there(
    run_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, code: int, words: str
) -> None:
    """One line, with its cause and its cure, and the contract's exit code."""
    if source.startswith("csi") and find_spec("picamera2"):
        pytest.skip("picamera2 is installed here")
    monkeypatch.setattr(net, "OPEN_S", 0.5)
    monkeypatch.setattr(net, "ASK_S", 0.3)
    with listening(silent) as port:
        done = run_here(SCRIPT, write_emulation(tmp_path), source.format(silent=port))

    assert (done.code, done.out) == (code, ""), done.err
    assert len(done.errors) == 1 and words in done.errors[0] and "s3cret" not in done.err
