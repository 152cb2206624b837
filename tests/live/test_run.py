"""The live loop: every way to end, a chip that dies once and one that stays dead."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from hefkit.detect.decode import DecodeSettings
from hefkit.errors import DeviceError
from hefkit.live import run as liverun
from hefkit.live.grabber import Grabber
from hefkit.live.run import Limits, LiveRun
from hefkit.live.state import Controls, LiveResult, LiveStats
from tests.helpers.fake_engine import FakeEngine, engine_that_finds
from tests.helpers.fake_live import FakeCamera

pytestmark = pytest.mark.xdist_group("clock")  # it looks at the clock: one process for all such files

NAMES = {0: "a", 1: "b", 2: "c"}
BOX = (0, 0.9, (16.0, 24.0, 48.0, 40.0))


class Notebook:
    """A sink that remembers; may ask to stop after so many results."""

    def __init__(self, stop_after: int | None = None, controls: Controls | None = None) -> None:
        self.results: list[LiveResult] = []
        self.stop_after, self.controls = stop_after, controls

    def put(self, result: LiveResult) -> None:
        self.results.append(result)
        if self.controls is not None and len(self.results) == self.stop_after:
            self.controls.stop.set()

    def close(self) -> None: ...


class Dying(FakeEngine):
    """Fails with every result after the first `alive`."""

    def __init__(self, alive: int) -> None:
        plain = engine_that_finds(BOX)
        super().__init__(plain.spec, plain.tensors)
        self.alive = alive
        self.closed = False

    def result(self, slot: Any) -> list[list[np.ndarray]]:
        outputs = super().result(slot)
        self.alive -= 1
        if self.alive < 0:
            raise DeviceError("the chip does not answer")
        return outputs

    def close(self) -> None:
        self.closed = True
        super().close()


class Stage:
    """Everything that a run needs; engines are handed out in order."""

    def __init__(self, camera: FakeCamera, *engines: FakeEngine, lossless: bool = True, ends: bool = True) -> None:
        self.controls = Controls()
        self.stats = LiveStats("m.hef", "cam")
        self.stats.model("float", NAMES)
        self.engines = list(engines) or [engine_that_finds(BOX)]
        self.spare = self.engines[1:]
        self.grabber = Grabber(lambda: camera, self.controls, self.stats, ends=ends, lossless=lossless)
        self.sink = Notebook()

    def run(self, **limits: Any) -> LiveRun:
        run = LiveRun(
            self.engines[0], lambda: self.spare.pop(0), DecodeSettings(), self.grabber, self.sink, self.controls,
            self.stats, Limits(**limits), NAMES,
        )  # fmt: skip
        try:
            run.run()
        finally:
            assert self.grabber.close()
            run.engine.close()
        return run


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """The loop's threads end with it."""
    yield
    assert not {t.name for t in threading.enumerate()} & {"feeder", "collector", "grabber"}


def test_a_file_is_processed_to_its_end() -> None:
    """Every frame once, in order, with what a sink needs to know about it."""
    stage = Stage(FakeCamera(20))

    stage.run()

    assert [r.frame.number for r in stage.sink.results] == list(range(20))
    last = stage.sink.results[-1]
    assert last.detections.xyxy.tolist() == [[16, 24, 48, 40]] and last.engine == "float" and last.stamp is None
    assert 0 < last.latency_s < 5 and abs(time.time() - last.latency_s - last.wall) < 5
    assert stage.stats.summary()["frames"] == 20 and stage.stats.summary()["dropped"] == 0


def test_emulation_is_stamped() -> None:
    """Every picture of an emulated model has the stamp."""
    stage = Stage(FakeCamera(2), engine_that_finds(BOX, kind="emulated"))

    stage.run()

    assert {r.stamp for r in stage.sink.results} == {"INT8 emulation"}


def test_limits() -> None:
    """--max-frames is exact; --duration ends a camera that has no end."""
    stage = Stage(FakeCamera(100))
    stage.run(max_frames=7)
    assert len(stage.sink.results) == 7

    stage = Stage(FakeCamera(fps=200), lossless=False, ends=False)
    start = time.monotonic()
    stage.run(duration_s=0.3)
    assert 0.3 <= time.monotonic() - start < 2 and stage.sink.results


def test_stop_from_a_sink() -> None:
    """A key in the window, a page, a signal: all set `stop`, and the loop ends with the frame in hand."""
    stage = Stage(FakeCamera(fps=500), lossless=False, ends=False)
    stage.sink = Notebook(5, stage.controls)

    stage.run()

    assert len(stage.sink.results) == 5


def test_a_chip_that_fails_once_is_restarted(caplog: pytest.LogCaptureFixture) -> None:
    """The second engine takes over; the frames in the dead one are lost, the camera stays open."""
    camera = FakeCamera(40)
    stage = Stage(camera, Dying(10), engine_that_finds(BOX))

    run = stage.run()

    numbers = [r.frame.number for r in stage.sink.results]
    assert run.engine is stage.engines[1] and stage.engines[0].closed  # type: ignore[attr-defined]
    assert numbers == sorted(set(numbers)) and numbers[-1] == 39 and len(numbers) >= 40 - 4


def test_a_chip_that_stays_dead_ends_the_run() -> None:
    """Restarted once; the second failure is the result, exit code 6."""
    stage = Stage(FakeCamera(100), Dying(5), Dying(0))

    with pytest.raises(DeviceError, match="does not answer"):
        stage.run()

    assert 3 <= len(stage.sink.results) <= 5 and not stage.spare


def test_a_chip_that_recovered_for_long_gets_another_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weeks later a second hiccup is a first one again."""
    monkeypatch.setattr(liverun, "PROVEN", 20)
    stage = Stage(FakeCamera(120), Dying(30), Dying(30), engine_that_finds(BOX))

    stage.run()

    assert stage.sink.results[-1].frame.number == 119


def test_frames_wait_neither_in_front_of_the_engine_nor_behind_it() -> None:
    """With a slow engine and a fast camera at most two frames are in flight, and each was the newest when it was taken.

    An engine of 20 ms, a camera of 500 frames a second: what is in flight when a frame is captured is one or two
    pictures, 40 ms; five times that is far from what queues of any length would give.
    """

    class Slow(FakeEngine):
        def infer(self, batch: np.ndarray) -> list[list[np.ndarray]]:
            time.sleep(0.02)
            return super().infer(batch)

    plain = engine_that_finds(BOX)
    stage = Stage(FakeCamera(fps=500), Slow(plain.spec, plain.tensors), lossless=False, ends=False)

    stage.run(max_frames=30)

    assert np.median([r.latency_s for r in stage.sink.results]) < 0.2
    assert stage.stats.summary()["dropped"] > 30


def test_a_window_is_kept_alive_while_no_frames_come() -> None:
    """A stalled camera: `idle` is still called, and may ask to stop."""
    stage = Stage(FakeCamera(fps=2), lossless=False, ends=False)
    calls = []

    def idle() -> None:
        calls.append(1)
        if len(calls) == 5:
            stage.controls.stop.set()

    run = LiveRun(
        stage.engines[0], lambda: stage.engines[0], DecodeSettings(), stage.grabber, stage.sink, stage.controls,
        stage.stats, Limits(), NAMES, idle,
    )  # fmt: skip
    run.run()

    assert len(calls) == 5 and stage.grabber.close()
    run.engine.close()
