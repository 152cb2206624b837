"""Video files: frames in order, facts of the header, and one sentence for a file that is not a video."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from hefkit.errors import DataError
from hefkit.pictures import writer
from hefkit.pictures.video import VideoFacts, open_video, read_video
from hefkit.pictures.writer import VideoWriter
from tests.helpers.pictures import encode, noise


def film(path: Path, count: int = 6, fps: float = 10.0, size_wh: tuple[int, int] = (64, 48)) -> Path:
    """Frames whose grey is 30 times their number."""
    made = VideoWriter(path, fps, size_wh)
    for number in range(count):
        made.write(np.full((size_wh[1], size_wh[0], 3), 30 * number, np.uint8))
    made.close()
    made.check()
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
    monkeypatch.setattr(writer, "codec", lambda: "mp4v")
    path = tmp_path / "a.mp4"
    path.write_bytes(film(path).read_bytes()[:-900])
    with pytest.raises(DataError, match=r"it was cut off while recording: it has no index.*record into a \.mkv"):
        open_video(path, "a.mp4")
    assert capfd.readouterr().err == ""

    recording = VideoWriter(path := tmp_path / "a.mkv", 10.0, (64, 48))
    for seed in range(40):
        recording.write(noise(64, 48, seed))
    recording.close()
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert 20 < len(list(read_video(open_video(path, "a.mkv")))) < 30
    assert "a.mkv: " in caplog.text and "cut off" in caplog.text


def test_a_raw_stream_of_the_pi(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """MJPEG without a container: all frames, and a word where the last one has no end."""
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


def test_fewer_frames_than_announced_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that is cut off is read to its end, with a warning."""
    path = film(tmp_path / "a.mp4")

    assert len(list(read_video(VideoFacts(path, "a.mp4", 10.0, (64, 48), 9)))) == 6
    assert "6 frames read, but its header says 9" in caplog.text


def test_no_warning_after_the_reader_stops(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """After Ctrl-C at two frames the file is not reported as damaged."""
    frames = read_video(open_video(film(tmp_path / "a.mp4"), "a.mp4"))

    next(frames), next(frames)
    frames.close()

    assert caplog.text == ""


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    """OpenCV 4.6 and 5 crash on it, so it is refused before."""
    bad = tmp_path / os.fsdecode(b"\xff.mp4")
    bad.write_bytes(film(tmp_path / "a.mp4").read_bytes())

    with pytest.raises(DataError, match="the name is not UTF-8; rename the file"):
        open_video(bad, "source")
    assert open_video(film(tmp_path / "ü.mp4"), "ü").frames
