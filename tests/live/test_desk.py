"""The keys of the window, and a window on a screen that is faked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from hefkit.errors import UsageError
from hefkit.live import window
from hefkit.live.desk import Desk
from hefkit.live.filesinks import FrameSaver, Recorder
from hefkit.live.state import Controls
from hefkit.live.window import QUIT, RECORD, SAVE, Window
from tests.helpers.fake_live import live_result


def desk_in(folder: Path) -> tuple[Desk, Controls]:
    """A desk whose keys write into `folder`."""
    controls = Controls()
    return Desk(controls, folder / "saved", lambda: Recorder(folder / "film.mp4", None)), controls


def test_q_asks_to_stop(tmp_path: Path) -> None:
    """The key is one of several ways."""
    desk, controls = desk_in(tmp_path)

    desk.quit()

    assert controls.stop.is_set()


def test_s_saves_the_frame_that_is_seen(tmp_path: Path) -> None:
    """Before the first frame there is nothing to save; then a press is one picture, and frames in between are none."""
    desk, _ = desk_in(tmp_path)
    desk.save()
    for second in range(3):
        desk.put(live_result(second, captured=float(second), wall=1_764_042_000.0 + second))
        if second != 1:
            desk.save()
    desk.close()

    assert len(list((tmp_path / "saved").iterdir())) == 2


def test_s_uses_the_folder_that_was_asked_for(tmp_path: Path) -> None:
    """With --save-dir there is one place for all pictures."""
    desk, _ = desk_in(tmp_path)
    desk.add(FrameSaver(tmp_path / "mine", 10, 1e9))
    desk.put(live_result(captured=0.0, wall=1.0))
    desk.put(live_result(captured=1.0, wall=2.0))
    desk.save()
    desk.close()

    assert len(list((tmp_path / "mine").iterdir())) == 2 and not (tmp_path / "saved").exists()


def test_r_starts_and_ends_a_recording(tmp_path: Path) -> None:
    """Twice on, twice off: two films, and the frames between them in neither."""
    desk, _ = desk_in(tmp_path)
    for number in range(6):
        if number in (1, 3, 4):
            desk.toggle_recording()
        desk.put(live_result(number, captured=float(number)))
    desk.close()

    counts = [
        cv2.VideoCapture(str(tmp_path / name)).get(cv2.CAP_PROP_FRAME_COUNT) for name in ("film.mp4", "film-2.mp4")
    ]
    assert counts == [2, 2]


def test_keys_that_cannot_be_obeyed_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A folder that cannot be made is logged; the run goes on."""
    (tmp_path / "saved").touch()
    desk = Desk(Controls(), tmp_path / "saved", lambda: Recorder(tmp_path / "saved" / "film.mp4", None))
    desk.put(live_result())

    desk.save()
    desk.toggle_recording()

    assert "cannot be saved" in caplog.messages[0] and "cannot write" in caplog.messages[1]


class FakeScreen:
    """Stands for OpenCV's windows: keys are typed, pictures are shown."""

    def __init__(self) -> None:
        self.keys: list[int] = []
        self.shown: list[np.ndarray] = []
        self.open = False

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(window.cv2, "namedWindow", lambda *a: setattr(self, "open", True))
        monkeypatch.setattr(window.cv2, "destroyWindow", lambda *a: setattr(self, "open", False))
        monkeypatch.setattr(window.cv2, "imshow", lambda title, image: self.shown.append(image))
        monkeypatch.setattr(window.cv2, "waitKey", lambda ms: self.keys.pop(0) if self.keys else -1)
        monkeypatch.setattr(window.cv2, "getWindowProperty", lambda *a: 1.0 if self.open else -1.0)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> FakeScreen:
    """A screen that can be typed at."""
    fake = FakeScreen()
    fake.install(monkeypatch)
    return fake


def test_keys_reach_what_they_stand_for(screen: FakeScreen) -> None:
    """q, s and r in either case, Escape as q, other keys as nothing; the annotated picture is shown."""
    pressed: list[str] = []
    shown = Window({key: (lambda key=key: pressed.append(key)) for key in (QUIT, SAVE, RECORD)})  # type: ignore[misc]
    screen.keys = [ord("s"), ord("R"), 255, ord("x"), 27]
    result = live_result()

    shown.put(result)
    for _ in range(4):
        shown.poll()
    shown.close()
    shown.close()

    assert pressed == ["s", "r", "q"] and screen.shown == [result.annotated] and not screen.open


def test_a_closed_window_means_quit(screen: FakeScreen) -> None:
    """The cross in its corner is the most natural q."""
    pressed: list[Any] = []
    shown = Window({QUIT: lambda: pressed.append(QUIT)})
    screen.open = False

    shown.poll()

    assert pressed == [QUIT]


def test_an_opencv_without_windows_is_reported() -> None:
    """The headless wheel, which these tests run with, has none; the message names the one that has."""
    try:
        cv2.namedWindow("probe")
    except cv2.error:
        with pytest.raises(UsageError, match="opencv-python has windows"):
            Window({})
    else:
        cv2.destroyAllWindows()
        pytest.skip("this OpenCV has windows")
