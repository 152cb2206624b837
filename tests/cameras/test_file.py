"""A video file as a camera: every frame, once or again and again."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from hefkit.cameras.file import FileCamera
from hefkit.cameras.source import parse_source
from hefkit.errors import DataError
from hefkit.pictures.video import VideoFacts
from hefkit.pictures.writer import VideoWriter


def film(path: Path, frames: int = 6) -> Path:
    """A video whose frames get brighter, 30 levels a frame."""
    writer = VideoWriter(path, 12.5, (64, 48))
    for index in range(frames):
        writer.write(np.full((48, 64, 3), 30 * index, np.uint8))
    writer.close()
    return path


def opened(path: Path, *, loop: bool = False) -> FileCamera:
    """The file as a camera."""
    return FileCamera(parse_source(str(path)), loop=loop)


def brightness(camera: FileCamera, frames: int) -> list[int | None]:
    """Which frame each of the next ones is."""
    shots = [camera.read() for _ in range(frames)]
    return [None if shot is None else round(float(shot.picture.mean()) / 30) for shot in shots]


def test_every_frame_once(tmp_path: Path) -> None:
    """In order, and then None as often as it is asked."""
    camera = opened(film(tmp_path / "a.mp4"))

    assert brightness(camera, 8) == [0, 1, 2, 3, 4, 5, None, None]
    assert camera.fps == 12.5 and camera.name == str(tmp_path / "a.mp4")
    camera.close()
    camera.close()


def test_a_loop(tmp_path: Path) -> None:
    """A looped file begins again, without a frame too many or too few, until it is closed."""
    camera = opened(film(tmp_path / "a.mp4", 3), loop=True)

    assert brightness(camera, 10) == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
    camera.close()
    assert camera.read() is None


def test_a_film_that_breaks_off_is_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not every time round, for weeks."""
    path = film(tmp_path / "a.mp4", 2)
    monkeypatch.setattr(
        "hefkit.cameras.file.open_video", lambda path, source: VideoFacts(path, source, 9.0, (64, 48), 5)
    )

    camera = opened(path, loop=True)
    assert brightness(camera, 9) == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    camera.close()

    assert len(caplog.messages) == 1 and "2 frames read, but its header says 5" in caplog.messages[0]


def test_a_film_that_vanishes_between_two_rounds(tmp_path: Path) -> None:
    """It is an error, not an empty film."""
    path = film(tmp_path / "a.mp4", 2)
    camera = opened(path, loop=True)
    assert brightness(camera, 2) == [0, 1]

    path.unlink()

    with pytest.raises(DataError, match=r"a\.mp4 cannot be read as a video"):
        camera.read()
    camera.close()


def test_no_film(tmp_path: Path) -> None:
    """A file of something else is refused when it is opened."""
    path = tmp_path / "a.mp4"
    path.write_bytes(b"no film" * 100)

    with pytest.raises(DataError, match="cannot be read as a video"):
        opened(path)


def test_a_real_film_of_this_opencv(tmp_path: Path) -> None:
    """Motion JPEG in an AVI, as old cameras record it."""
    writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for index in range(4):
        writer.write(np.full((48, 64, 3), 30 * index, np.uint8))
    writer.release()

    camera = opened(tmp_path / "a.avi")
    assert brightness(camera, 5) == [0, 1, 2, 3, None]
    camera.close()
