"""Some seconds of the live detector left alone: the short form of the soak that benchmarks/ runs for ten minutes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from tests.conftest import ROOT
from tests.helpers.tiny_onnx import drawn
from tests.helpers.toy_emulation import write_emulation

pytestmark = [
    pytest.mark.xdist_group("clock"),
    pytest.mark.slow,
]  # it looks at the clock: one process for all such files

SECONDS = 9


def test_some_seconds_alone(tmp_path: Path) -> None:
    """Three viewers, JSON lines and, where there is mosquitto, a broker: in order, nothing lost, no thread too many."""
    pytest.importorskip("aiohttp", reason="aiohttp is not installed")
    film = cv2.VideoWriter(str(tmp_path / "clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 30, (640, 480))
    for i in range(60):
        film.write(drawn((480, 640), i))
    film.release()
    command = [sys.executable, str(ROOT / "benchmarks" / "bench_soak.py"), str(write_emulation(tmp_path))]
    command += [str(tmp_path / "clip.mp4"), "--seconds", str(SECONDS), "--every", "0.1", "--json"]

    done = subprocess.run(command, capture_output=True, text=True, timeout=180)

    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["in_order"] and result["exit_code"] == 0 and result["warnings"] == []
    assert result["frames"] + result["dropped"] > 20 * SECONDS
    assert len(result["viewers_got_pictures"]) == 3 and min(result["viewers_got_pictures"]) > 5 * SECONDS
    assert result["threads"][0] == result["threads"][1], "threads neither end nor pile up while it runs"
    # (what a minute costs is told by the long run; here a leak of every frame would be a hundred megabytes)
    assert result["rss_mb"][1] - result["rss_mb"][0] < 60
