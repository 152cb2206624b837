"""A video of annotated frames: by PyAV, which survives being cut off, and by OpenCV."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

import hefkit.pictures.writer as module
from hefkit.errors import DataError, UsageError
from hefkit.pictures.kinds import cut_off
from hefkit.pictures.video import open_video
from hefkit.pictures.writer import FRAGMENTS, VideoWriter, codec
from tests.conftest import ROOT
from tests.helpers.chromium import Tab, browser_tab, find_chromium

# writes a frame, its number as brightness, every 40 ms of film, and kills itself
CUT_OFF = """
import os, signal, sys
from pathlib import Path
import numpy as np
from hefkit.pictures.writer import VideoWriter
writer = VideoWriter(Path(sys.argv[1]), 25, (320, 240))
for number in range(int(sys.argv[2])):
    writer.write(np.full((240, 320, 3), number % 250, np.uint8))
os.kill(os.getpid(), signal.SIGKILL)
"""
NEAR = 5  # grey values: the codecs lose some


@pytest.fixture(params=["PyAV", "OpenCV"])
def writer_of(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each of the two packages in turn."""
    if request.param == "PyAV":
        pytest.importorskip("av", reason="PyAV is optional: pip install av")
    else:
        monkeypatch.setattr(module, "_pyav", lambda: None)
    codec.cache_clear()
    yield request.param
    codec.cache_clear()


def brightness(path: Path) -> list[int]:
    """The mean of every frame."""
    capture = cv2.VideoCapture(str(path))
    found = []
    while (got := capture.read())[0]:
        found.append(round(float(got[1].mean())))
    return found


@pytest.mark.usefixtures("writer_of")
def test_what_is_written_is_there(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Every frame in order, rate and size; libraries print nothing."""
    writer = VideoWriter(path := tmp_path / "v.mp4", 12.5, (64, 48))
    for level in range(5):
        writer.write(np.full((48, 64, 3), 40 * level, np.uint8))
    writer.close()
    writer.close()
    writer.check()

    facts = open_video(path, "v")
    assert (facts.fps, facts.size_wh, facts.frames) == (12.5, (64, 48), 5)
    assert all(abs(a - b) <= NEAR for a, b in zip(brightness(path), range(0, 200, 40), strict=True))
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("writer_of")
def test_the_codec_of_this_machine(tmp_path: Path) -> None:
    """A written file has the codec that was said."""
    writer = VideoWriter(tmp_path / "v.mp4", 25, (64, 64))
    writer.write(np.zeros((64, 64, 3), np.uint8))
    writer.close()

    there = cv2.VideoCapture(str(tmp_path / "v.mp4"))
    code = int(there.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").decode().lower()
    assert code in {"fragments": ("avc1", "h264"), "avc1": ("avc1", "h264"), "mp4v": ("mp4v", "fmp4")}[codec()]
    assert writer.fragmented == (codec() == FRAGMENTS)


@pytest.mark.usefixtures("writer_of")
def test_frames_of_another_size_are_fitted(tmp_path: Path) -> None:
    """A stream that changes its size in the middle does not lose frames."""
    writer = VideoWriter(tmp_path / "a.mp4", 10, (64, 48))
    for size in ((48, 64), (96, 128), (48, 64)):
        writer.write(np.zeros((*size, 3), np.uint8))
    writer.close()

    writer.check()
    assert open_video(tmp_path / "a.mp4", "a").size_wh == (64, 48)


@pytest.mark.usefixtures("writer_of")
def test_odd_sides(tmp_path: Path) -> None:
    """Cameras have them, H.264 has not: the last row and column are left out."""
    writer = VideoWriter(tmp_path / "a.mp4", 29.97, (65, 49))
    writer.write(np.zeros((49, 65, 3), np.uint8))
    writer.close()

    writer.check()
    assert open_video(tmp_path / "a.mp4", "a").size_wh == (64, 48)


@pytest.mark.usefixtures("writer_of")
def test_a_film_that_cannot_be_written(tmp_path: Path) -> None:
    """A missing folder, or a name that crashes OpenCV, is an error, not an empty film."""
    with pytest.raises(DataError, match="a video of 64x48"):
        VideoWriter(tmp_path / "gone" / "a.mp4", 10, (64, 48))
    with pytest.raises(UsageError, match="the name is not UTF-8"):
        VideoWriter(tmp_path / os.fsdecode(b"\xff.mp4"), 10, (64, 48))
    with pytest.raises(DataError, match="a video of 1x48 cannot be written; expected sides of 2 pixels"):
        VideoWriter(tmp_path / "thin.mp4", 10, (1, 48))


def test_a_full_disk_is_an_error_at_once(small_disk: Path) -> None:
    """PyAV writes through our file, which says so; what was written can be played."""
    pytest.importorskip("av", reason="PyAV is optional: pip install av")
    codec.cache_clear()
    writer = VideoWriter(small_disk / "a.mp4", 25, (320, 240))
    rng = np.random.default_rng(0)
    with pytest.raises(OSError):
        for _ in range(2000):
            writer.write(rng.integers(0, 256, (240, 320, 3), np.uint8))
    writer.close()
    assert brightness(small_disk / "a.mp4")


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """260 frames, 10.4 s, of a process that was killed; skipped without PyAV."""
    pytest.importorskip("av", reason="PyAV is optional: pip install av")
    path = tmp_path_factory.mktemp("killed") / "a.part.mp4"
    done = subprocess.run([sys.executable, "-c", CUT_OFF, str(path), "260"], cwd=ROOT, capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return path


@pytest.mark.xdist_group("killed")
def test_after_a_kill_it_plays_up_to_a_second_before(killed: Path) -> None:
    """OpenCV reads all frames but those of the last, open fragment, and nothing calls it cut off."""
    found = brightness(killed)

    assert len(found) >= 260 - 25 and cut_off(killed) == ""
    assert all(abs(level - number % 250) <= NEAR for number, level in enumerate(found))


@pytest.mark.slow
@pytest.mark.xdist_group("killed")
def test_after_a_kill_a_browser_plays_it(killed: Path, tmp_path: Path) -> None:
    """Chromium decodes the picture two seconds before the end."""
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium here: apt-get install chromium")

    async def middle(tab: Tab) -> float:
        await tab.screenshot(tmp_path / "seen.png")
        window = cv2.imread(str(tmp_path / "seen.png"))
        return float(window[window.shape[0] // 2 - 20 :, window.shape[1] // 2 - 20 :][:40, :40].mean())

    async def seen() -> list[float]:
        async with browser_tab(program, tmp_path / "profile") as tab:
            await tab.open(killed.as_uri())
            await tab.until("document.querySelector('video')?.readyState >= 2", 30)
            end = time.monotonic() + 30
            while time.monotonic() < end:
                await tab.evaluate(
                    "new Promise(done => { const v = document.querySelector('video'); v.pause(); v.controls = false;"
                    " v.onseeked = done; v.currentTime = 8.4; })"
                )
                if abs(await middle(tab) - 8.4 * 25) <= NEAR:
                    break
                await asyncio.sleep(0.2)  # a busy machine draws it later, or not at all before the next seek
            return await tab.evaluate(
                "(() => { const v = document.querySelector('video');"
                " return [v.videoWidth, v.videoHeight, v.currentTime]; })()"
            ) + [await middle(tab)]

    width, height, second, grey = asyncio.run(seen())
    assert (width, height) == (320, 240) and abs(second - 8.4) < 0.05
    assert abs(grey - 8.4 * 25) <= NEAR


@pytest.mark.parametrize("works", [True, False])
def test_h264_where_the_machine_can(
    works: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    """Without PyAV OpenCV's is tried once, in another process, and said once; without it the file is MPEG-4."""
    tried: list[list[str]] = []

    def probe(command: list[str], timeout: float, cwd: str) -> subprocess.CompletedProcess[str]:
        tried.append(command)
        return subprocess.CompletedProcess(command, int(not works))

    monkeypatch.setattr(module, "_pyav", lambda: None)
    monkeypatch.setattr(module, "run_process", probe)
    caplog.set_level("INFO", "hefkit")
    codec.cache_clear()
    try:
        assert [codec(), codec()] == ["avc1" if works else "mp4v"] * 2
    finally:
        codec.cache_clear()
    assert len(tried) == 1 and tried[0][-1] == "avc1"
    assert [record.getMessage().partition(",")[0] for record in caplog.records] == [
        "videos are written in H.264" if works else "videos are written in MPEG-4"
    ]
