"""Video files: frames in order, facts of the header, and one sentence for a file that is not a video."""

from __future__ import annotations

import logging
import os
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from hefkit.errors import DataError, UsageError
from hefkit.pictures import video
from hefkit.pictures.video import VideoFacts, VideoWriter, open_video, read_video
from tests.helpers.pictures import encode, noise


def film(path: Path, count: int = 6, fps: float = 10.0, size_wh: tuple[int, int] = (64, 48)) -> Path:
    """Frames whose grey is 30 times their number."""
    writer = VideoWriter(path, fps, size_wh)
    for number in range(count):
        writer.write(np.full((size_wh[1], size_wh[0], 3), 30 * number, np.uint8))
    writer.close()
    writer.check()
    return path


def test_frames_come_in_order(tmp_path: Path) -> None:
    """Numbers from 0, pictures upright BGR, the source as given."""
    path = film(tmp_path / "a.mp4")

    facts = open_video(path, "given/a.mp4")
    frames = list(read_video(facts))

    assert (facts.fps, facts.size_wh, facts.frames) == (10.0, (64, 48), 6)
    assert [(f.index, f.number, f.source) for f in frames] == [(i, i, "given/a.mp4") for i in range(6)]
    assert [round(float(np.mean(f.picture)) / 30) for f in frames] == list(range(6))  # type: ignore[arg-type]


def test_an_uneven_rate_is_kept(tmp_path: Path) -> None:
    """29.97 is not 29."""
    assert open_video(film(tmp_path / "a.mp4", fps=29.97), "a").fps == pytest.approx(29.97, abs=0.01)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"no video at all" * 100, id="text"),
    ],
)
def test_what_is_no_video(tmp_path: Path, content: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    """One sentence, without messages of FFmpeg."""
    path = tmp_path / "a.mp4"
    path.write_bytes(content)

    with pytest.raises(DataError, match=r"a\.mp4 cannot be read as a video; expected"):
        open_video(path, "a.mp4")
    assert capfd.readouterr().err == ""


def test_a_recording_without_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """The power went: an MP4 has no index and says so. The cure, Matroska, gives the frames up to there."""
    monkeypatch.setattr(logging.getLogger("hefkit"), "propagate", True)
    path = tmp_path / "a.mp4"
    path.write_bytes(film(path).read_bytes()[:-900])
    with pytest.raises(DataError, match=r"it was cut off while recording: it has no index.*record into a \.mkv"):
        open_video(path, "a.mp4")
    assert capfd.readouterr().err == ""

    writer = VideoWriter(path := tmp_path / "a.mkv", 10.0, (64, 48))
    for seed in range(40):
        writer.write(noise(64, 48, seed))
    writer.close()
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert 20 < len(list(read_video(open_video(path, "a.mkv")))) < 30
    assert "a.mkv: " in caplog.text and "cut off" in caplog.text


def test_a_raw_stream_of_the_pi(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """MJPEG without a container: all frames, and a word where the last one has no end."""
    monkeypatch.setattr(logging.getLogger("hefkit"), "propagate", True)
    frames = b"".join(encode(noise(64, 48, seed), ".jpg") for seed in range(5))
    for name, data, said in (("whole", frames, False), ("cut", frames[:-200], True)):
        path = tmp_path / f"{name}.mjpeg"
        path.write_bytes(data)
        caplog.clear()
        assert len(list(read_video(open_video(path, name)))) >= 4
        assert ("cut off while recording: its last picture has no end" in caplog.text) == said


def test_the_real_stream(shared: Path) -> None:
    """../shared/field: eight frames."""
    path = shared / "field" / "02-mjpeg" / "raw.mjpeg"

    assert [frame.number for frame in read_video(open_video(path, "raw.mjpeg"))] == list(range(8))


def test_a_missing_rate_is_assumed_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Some files have no frame rate; 30 is taken, with a warning."""
    monkeypatch.setattr(logging.getLogger("hefkit"), "propagate", True)
    path = film(tmp_path / "a.mp4")

    real = cv2.VideoCapture

    class Mute:
        def __init__(self, name: str) -> None:
            self.capture = real(name)

        def get(self, key: int) -> float:
            return 0.0

        def __getattr__(self, name: str) -> Any:
            return getattr(self.capture, name)

    monkeypatch.setattr(cv2, "VideoCapture", Mute)
    facts = open_video(path, "a.mp4")

    assert (facts.fps, facts.frames, facts.size_wh) == (30.0, None, (64, 48))
    assert "does not say its frame rate; taking 30 frames a second" in caplog.text


def test_fewer_frames_than_announced_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that is cut off is read to its end, with a warning."""
    monkeypatch.setattr(logging.getLogger("hefkit"), "propagate", True)
    path = film(tmp_path / "a.mp4")

    assert len(list(read_video(VideoFacts(path, "a.mp4", 10.0, (64, 48), 9)))) == 6
    assert "6 frames read, but its header says 9" in caplog.text


def test_no_warning_after_the_reader_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After Ctrl-C at two frames the file is not reported as damaged."""
    monkeypatch.setattr(logging.getLogger("hefkit"), "propagate", True)
    frames = read_video(open_video(film(tmp_path / "a.mp4"), "a.mp4"))

    next(frames), next(frames)
    frames.close()

    assert caplog.text == ""


def test_frames_of_another_size_are_fitted(tmp_path: Path) -> None:
    """A stream that changes its size in the middle does not lose frames."""
    writer = VideoWriter(tmp_path / "a.mp4", 10, (64, 48))
    for size in ((48, 64), (96, 128), (48, 64)):
        writer.write(np.zeros((*size, 3), np.uint8))
    writer.close()

    writer.check()
    assert open_video(tmp_path / "a.mp4", "a").size_wh == (64, 48)


def test_a_film_that_cannot_be_written(tmp_path: Path) -> None:
    """A missing folder is an error, not an empty film."""
    with pytest.raises(DataError, match="OpenCV cannot write a video of 64x48"):
        VideoWriter(tmp_path / "gone" / "a.mp4", 10, (64, 48))


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    """OpenCV 4.6 and 5 crash on it, so it is refused before."""
    bad = tmp_path / os.fsdecode(b"\xff.mp4")
    bad.write_bytes(film(tmp_path / "a.mp4").read_bytes())

    with pytest.raises(DataError, match="the name is not UTF-8; rename the file"):
        open_video(bad, "source")
    with pytest.raises(UsageError, match="the name is not UTF-8"):
        VideoWriter(bad, 10, (64, 48))
    assert open_video(film(tmp_path / "ü.mp4"), "ü").frames


@pytest.mark.parametrize("works", [True, False])
def test_h264_where_the_machine_can(
    works: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    """It is tried once, in another process, and said once; without it the file is MPEG-4, and nothing is printed."""
    tried: list[list[str]] = []

    def probe(command: list[str], timeout: float, cwd: str) -> subprocess.CompletedProcess[str]:
        tried.append(command)
        return subprocess.CompletedProcess(command, int(not works))

    monkeypatch.setattr(video, "run_process", probe)
    caplog.set_level("INFO", "hefkit")
    video.codec.cache_clear()
    try:
        assert [video.codec(), video.codec()] == ["avc1" if works else "mp4v"] * 2
    finally:
        video.codec.cache_clear()
    assert len(tried) == 1 and tried[0][-1] == "avc1"
    assert [record.getMessage().partition(",")[0] for record in caplog.records] == [
        "videos are written in H.264" if works else "videos are written in MPEG-4"
    ]


def test_the_codec_of_this_machine(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A written file has it, and OpenCV's own errors stay out of sight."""
    writer = VideoWriter(tmp_path / "v.mp4", 25, (64, 64))
    for level in range(5):
        writer.write(np.full((64, 64, 3), 40 * level, np.uint8))
    writer.close()
    writer.check()

    there = cv2.VideoCapture(str(tmp_path / "v.mp4"))
    code = int(there.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").decode().lower()
    assert code in {"avc1": ("avc1", "h264"), "mp4v": ("mp4v", "fmp4")}[video.codec()]
    assert capfd.readouterr().err == ""
