"""All stages in parallel: nothing is lost, the order is kept, and every failure ends all stages."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Generator
from typing import Any

import numpy as np
import pytest

from hefkit.detect.decode import DecodeSettings
from hefkit.detect.detector import Detector
from hefkit.detect.pipeline import Result, detect
from hefkit.errors import DeviceError
from hefkit.pictures.frames import Frame
from hefkit.pictures.header import UnreadableImage
from tests.helpers.fake_engine import FakeEngine, engine_that_finds

SEEN = (0, 0.9, (16.0, 24.0, 48.0, 40.0))


class Frames:
    """A source of `count` frames; notes how many were taken, and whether it was closed."""

    def __init__(self, count: int, unreadable: tuple[int, ...] = (), error_at: int | None = None) -> None:
        self.count, self.unreadable, self.error_at = count, unreadable, error_at
        self.taken = 0
        self.closed = False

    def read(self) -> Generator[Frame, None, None]:
        try:
            for index in range(self.count):
                if index == self.error_at:
                    raise RuntimeError("the source broke")
                self.taken += 1
                picture: Any = np.full((64, 64, 3), index % 251, np.uint8)
                if index in self.unreadable:
                    picture = UnreadableImage("bad")
                yield Frame(index, f"f{index}", None, picture, 0.0)
        finally:
            self.closed = True


def threads() -> set[str]:
    """Names of the pipeline's threads that are alive."""
    return {t.name for t in threading.enumerate()} & {"feeder", "collector"}


def results_of(frames: Frames, engine: FakeEngine, **settings: Any) -> list[Result]:
    """Every result."""
    with contextlib.closing(detect(frames.read(), Detector(engine, DecodeSettings(**settings)))) as results:
        return list(results)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_the_same_as_one_after_the_other(batch_size: int) -> None:
    """Pipelined detections equal `Detector.detect` of each picture, in order, unreadable ones in their places."""
    engine = engine_that_finds(SEEN, batch_size=batch_size)
    frames = Frames(23, unreadable=(0, 7, 8, 22))

    got = results_of(frames, engine)

    assert [r.frame.index for r in got] == list(range(23))
    assert [r.frame.index for r in got if r.detections is None] == [0, 7, 8, 22]
    readable = [r for r in got if r.detections is not None]
    fed = [picture[32, 32, 0] for picture in engine.fed]
    assert fed == [r.frame.index % 251 for r in readable], "each picture was fed once, in order, into its own slot"
    expected, _ = Detector(engine, DecodeSettings()).detect(np.zeros((64, 64, 3), np.uint8))
    for result in readable:
        assert result.detections is not None and result.timings is not None
        assert np.array_equal(result.detections.xyxy, expected.xyxy)
        assert all(seconds >= 0 for seconds in result.timings)
    assert frames.closed and not threads()


def test_a_camera_s_small_picture_reaches_the_engine() -> None:
    """The small picture is placed, the large one is not resized; both kinds of frames may use one slot in turn."""
    engine = engine_that_finds(SEEN)
    picture = np.zeros((64, 128, 3), np.uint8)
    frames = [
        Frame(i, "cam", i, picture, 0.0, small=np.full((32, 64, 3), 200, np.uint8) if i % 2 else None) for i in range(6)
    ]

    with contextlib.closing(detect((frame for frame in frames), Detector(engine, DecodeSettings()))) as results:
        found = [result.detections for result in results]

    assert [int(fed[32, 32, 0]) for fed in engine.fed] == [0, 200, 0, 200, 0, 200]
    assert all((fed[:16] == 114).all() and (fed[48:] == 114).all() for fed in engine.fed)
    assert all(np.array_equal(detections.xyxy, found[0].xyxy) for detections in found if detections and found[0])


def test_no_frames_are_no_results() -> None:
    """An empty source is not an error."""
    frames = Frames(0)

    assert results_of(frames, engine_that_finds(SEEN)) == []
    assert frames.closed and not threads()


def test_stages_overlap() -> None:
    """While the engine computes, the source is read and results are taken: three sleeps cost hardly more than one."""

    class Slow(FakeEngine):
        def infer(self, batch: np.ndarray) -> list[list[np.ndarray]]:
            with busy:
                return super().infer(batch)

    busy = Busy()
    plain = engine_that_finds(SEEN)
    engine = Slow(plain.spec, plain.tensors)

    def slow_frames() -> Generator[Frame, None, None]:
        for frame in Frames(12).read():
            with busy:
                pass
            yield frame

    with contextlib.closing(detect(slow_frames(), Detector(engine, DecodeSettings()))) as results:
        for _ in results:
            with busy:
                pass

    assert busy.most >= 2


class Busy:
    """Counts how many threads are inside at the same time."""

    def __init__(self) -> None:
        self.lock, self.now, self.most = threading.Lock(), 0, 0

    def __enter__(self) -> None:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.005)

    def __exit__(self, *exc: object) -> None:
        with self.lock:
            self.now -= 1


def test_a_slow_caller_holds_the_source_back() -> None:
    """Queues are bounded: the source is never far ahead of what the caller has taken."""
    frames, most = Frames(60), 0
    engine = engine_that_finds(SEEN)
    with contextlib.closing(detect(frames.read(), Detector(engine, DecodeSettings()))) as results:
        for taken, _ in enumerate(results, start=1):
            time.sleep(0.002)
            most = max(most, frames.taken - taken)

    assert most <= len(engine.slots) + 4 + 3  # slots, results that wait, one in the hand of each thread


class Failing(FakeEngine):
    """Fails at a chosen call; notes the calls after that."""

    def __init__(self, stage: str, at: int) -> None:
        plain = engine_that_finds(SEEN)
        super().__init__(plain.spec, plain.tensors)
        self.stage, self.at = stage, at
        self.submitted = self.finished = 0

    def submit(self, slot: Any, count: int) -> None:
        if self.stage == "submit" and self.submitted == self.at:
            raise DeviceError("the chip went away")
        self.submitted += 1
        super().submit(slot, count)

    def result(self, slot: Any) -> list[list[np.ndarray]]:
        outputs = super().result(slot)
        self.finished += 1
        if self.stage == "result" and self.finished > self.at:
            raise DeviceError(f"the chip went away ({self.finished - self.at})")
        return outputs


@pytest.mark.parametrize("stage", ["submit", "result"])
def test_a_failing_engine_ends_the_run_with_its_first_error(stage: str) -> None:
    """A chip that dies fails every job after that; the caller sees the first failure, and everything ends."""
    engine, frames = Failing(stage, 5), Frames(100)

    with pytest.raises(DeviceError, match=r"went away( \(1\))?$"):
        results_of(frames, engine)

    assert frames.closed and frames.taken < 30 and not threads()
    assert engine.finished == engine.submitted, "what was in the engine was waited for"


def test_a_failing_source_ends_the_run() -> None:
    """The error of the source reaches the caller unchanged."""
    frames = Frames(50, error_at=9)

    with pytest.raises(RuntimeError, match="the source broke"):
        results_of(frames, engine_that_finds(SEEN))

    assert frames.closed and not threads()


def test_a_failing_decoder_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors of a wrong shape are a bug of the engine: the error is raised, and no thread hangs."""
    engine = Failing("never", 0)
    engine.tensors = lambda picture: [np.zeros((1, 1, 1), np.float32)] * 2

    with pytest.raises(ValueError, match="expected"):
        results_of(Frames(50), engine)

    assert not threads() and engine.finished == engine.submitted


def test_a_caller_that_leaves_ends_everything() -> None:
    """After Ctrl-C in the loop nothing is read, the batches in the engine are waited for, and the threads end."""
    engine, frames = Failing("never", 0), Frames(10_000)

    with (
        pytest.raises(KeyboardInterrupt),
        contextlib.closing(detect(frames.read(), Detector(engine, DecodeSettings()))) as results,
    ):
        for index, _ in enumerate(results):
            if index == 3:
                raise KeyboardInterrupt

    assert frames.closed and frames.taken < 30 and not threads()
    assert engine.finished == engine.submitted
