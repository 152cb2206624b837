"""The camera's thread: the newest frame wins, failures are mended, and nothing hangs."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from hefkit.cameras.camera import Camera, Shot
from hefkit.errors import DeviceError
from hefkit.live import grabber
from hefkit.live.grabber import Grabber
from hefkit.live.state import Controls, LiveStats
from hefkit.signals import StopRequested

pytestmark = pytest.mark.xdist_group("clock")  # it looks at the clock: one process for all such files


class FakeCamera:
    """Gives numbered frames, `fps` a second, `count` of them, then None; refuses to be used by two threads."""

    def __init__(self, count: int = 10**9, fps: float | None = None, small: bool = False) -> None:
        self.name = "cam"
        self.count, self.fps, self.small = count, fps, small
        self.read_so_far = 0
        self.closed = False
        self.thread = threading.get_ident()

    def read(self) -> Shot | None:
        assert not self.closed and threading.get_ident() == self.thread
        if self.fps:
            time.sleep(1 / self.fps)
        if self.read_so_far == self.count:
            return None
        self.read_so_far += 1
        picture = np.full((4, 6, 3), self.read_so_far % 256, np.uint8)
        return Shot(picture, picture[:2, :3] if self.small else None)

    def close(self) -> None:
        assert threading.get_ident() == self.thread
        self.closed = True


class Bench:
    """A grabber over a list of cameras, opened one after the other; an exception in the list is raised."""

    def __init__(self, *cameras: Callable[[], Camera] | Exception, **options: Any) -> None:
        self.left = list(cameras)
        self.opened: list[Any] = []
        self.controls = Controls()
        self.stats = LiveStats("m", "cam")
        self.options = options

    def open(self) -> Camera:
        if not self.left:
            raise DeviceError("no more cameras")
        make = self.left.pop(0)
        if isinstance(make, Exception):
            raise make
        self.opened.append(make())
        return self.opened[-1]

    def start(self) -> Grabber:
        return Grabber(self.open, self.controls, self.stats, **self.options)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Short pauses between attempts; and no thread may be left."""
    monkeypatch.setattr(grabber, "PAUSES_S", (0.01, 0.02))
    yield
    assert not [t for t in threading.enumerate() if t.name == "grabber" and t.is_alive()]


def test_a_file_gives_every_frame_when_nothing_may_be_lost() -> None:
    """As fast as the detector takes them, in order, none twice; the end is the end."""
    bench = Bench(lambda: FakeCamera(50), ends=True, lossless=True)
    source = bench.start()

    numbers = []
    for frame in source.frames():
        numbers.append(frame.number)
        time.sleep(0.001)

    assert numbers == list(range(50)) and bench.stats.snapshot()["dropped"] == 0
    assert source.close() and bench.opened[0].closed


def test_the_newest_frame_wins() -> None:
    """A detector slower than the camera sees the latest frame, and what it missed is counted."""
    bench = Bench(lambda: FakeCamera(fps=400))
    source = bench.start()
    numbers: list[int] = []
    ages = []
    for frame in source.frames():
        assert frame.number is not None
        numbers.append(frame.number)
        ages.append(time.monotonic() - frame.captured)
        time.sleep(0.02)
        if len(numbers) == 10:
            break

    assert source.close()
    assert numbers == sorted(set(numbers)) and numbers[-1] > 20
    assert bench.stats.snapshot()["dropped"] >= numbers[-1] - 9
    assert np.median(ages) < 0.02


def test_a_file_is_played_at_its_own_rate() -> None:
    """With a pace, ten frames of 100 a second take a tenth of a second and not a moment."""
    bench = Bench(lambda: FakeCamera(10), ends=True, fps=100)
    start = time.monotonic()
    source = bench.start()

    numbers = [frame.number for frame in source.frames()]

    assert time.monotonic() - start >= 0.085 and numbers[-1] == 9
    assert source.close()


def test_what_the_camera_scaled_comes_along() -> None:
    """The camera's own small picture belongs to its frame."""
    bench = Bench(lambda: FakeCamera(1, small=True), ends=True)
    source = bench.start()

    [frame] = source.frames()

    assert frame.source == "cam" and frame.small is not None and frame.small.shape == (2, 3, 3)
    assert source.close()


def test_a_lost_camera_is_opened_again(caplog: pytest.LogCaptureFixture) -> None:
    """Unplugged, away for three attempts, back: two sentences, frames go on, numbers count on."""
    away = DeviceError("not there")
    bench = Bench(lambda: FakeCamera(5), away, lambda: FakeCamera(0), away, lambda: FakeCamera(5, fps=500))
    source = bench.start()
    numbers: list[int] = []
    for frame in source.frames():
        assert frame.number is not None
        numbers.append(frame.number)
        if frame.number >= 9:
            break

    assert numbers == sorted(numbers) and numbers[-1] == 9
    assert source.close()
    assert bench.stats.snapshot()["reconnects"] == 1
    messages = [m for m in caplog.messages if m.startswith("cam ")]
    assert messages[0].startswith("cam delivers no more frames")
    assert messages[1].startswith("cam is back after")
    assert all(camera.closed for camera in bench.opened)


@pytest.mark.parametrize(
    ("cameras", "words"),
    [
        pytest.param([DeviceError("no such camera")], "no such camera", id="not there"),
        pytest.param([lambda: FakeCamera(0)], "gave no picture|no picture came", id="opens and gives nothing"),
    ],
)
def test_a_camera_that_never_delivers_is_an_error_at_once(
    cameras: list[Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At start there is nothing to wait for: the reason ends the program."""
    monkeypatch.setattr(grabber, "FIRST_FRAME_S", 0.2)

    with pytest.raises(DeviceError, match=words):
        Bench(*cameras).start()


def test_a_start_that_is_broken_off_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM while the first picture is waited for: a thread that stayed in OpenCV would abort Python's end."""

    def broken_off(self: Grabber) -> None:
        raise StopRequested

    monkeypatch.setattr(Grabber, "_wait_for_first", broken_off)

    with pytest.raises(StopRequested):
        Bench(lambda: FakeCamera(10**6, fps=100)).start()


def test_a_bug_in_a_camera_reaches_the_caller() -> None:
    """An unexpected exception is not mended for ever; it is raised where frames are asked for."""

    class Broken(FakeCamera):
        def read(self) -> Shot | None:
            if self.read_so_far == 3:
                raise ZeroDivisionError("a bug")
            return super().read()

    bench = Bench(Broken, lossless=True)
    source = bench.start()

    with pytest.raises(ZeroDivisionError, match="a bug"), contextlib.closing(source.frames()) as frames:
        list(frames)
    assert source.close() and bench.opened[0].closed


def test_a_pause_holds_frames_back() -> None:
    """While paused nothing comes and nothing counts as dropped; afterwards the newest frame comes."""
    bench = Bench(lambda: FakeCamera(fps=500))
    source = bench.start()
    frames = source.frames()
    next(frames)
    bench.controls.pause(True)
    before = bench.stats.snapshot()["dropped"]
    got: list[Any] = []
    waiter = threading.Thread(target=lambda: got.append(next(frames)))
    waiter.start()
    time.sleep(0.1)
    assert not got and bench.stats.snapshot()["dropped"] <= before + 1

    bench.controls.pause(False)
    waiter.join(5)

    assert time.monotonic() - got[0].captured < 0.1
    assert source.close()


@pytest.mark.parametrize("state", ["reading", "paused", "reopening"])
def test_stop_ends_it_from_every_state(state: str) -> None:
    """`stop` ends frames() and the thread within a moment, whatever it was doing."""
    first = (lambda: FakeCamera(1)) if state == "reopening" else (lambda: FakeCamera(fps=200))
    bench = Bench(first)
    source = bench.start()
    bench.controls.pause(state == "paused")
    ended = threading.Event()

    def consume() -> None:
        for _ in source.frames():
            pass
        ended.set()

    threading.Thread(target=consume, daemon=True).start()
    time.sleep(0.1)
    bench.controls.stop.set()

    assert ended.wait(1) and source.close(1)
