"""The figures of a live run: right, and in memory that does not grow."""

from __future__ import annotations

import json
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hefkit.detect.detections import Detections
from hefkit.live.state import RECENT, STAGES, Histogram, LiveStats, jpeg
from tests.helpers.fake_live import NAMES, live_result


def test_a_snapshot_is_json_from_the_first_moment_on() -> None:
    """Before any frame everything is there, zero or null; a page that opens early shows that."""
    stats = LiveStats("m.hef", "usb")

    snapshot = json.loads(json.dumps(stats.snapshot()))

    assert (snapshot["frames"], snapshot["fps"], snapshot["camera"], snapshot["engine"]) == (0, 0.0, "opening", None)
    assert set(snapshot["stage_ms"]) == set(STAGES)
    assert snapshot["stage_ms"]["latency"] == {"p50": None, "p95": None}


def test_counts_and_times() -> None:
    """Frames, classes by name, the last frame's own, drops, and the median of what was added."""
    stats = LiveStats("m.hef", "usb")
    stats.model("hailort", NAMES)
    stats.camera("open")
    stats.dropped(3)
    for number in range(5):
        stats.add(live_result(number), sinks_s=0.004)
    stats.add(live_result(5, found=Detections.empty()), sinks_s=0.004)

    snapshot = stats.snapshot(paused=True)

    assert (snapshot["frames"], snapshot["dropped"], snapshot["detections"]) == (6, 3, 5)
    assert (snapshot["by_class"], snapshot["in_last_frame"]) == ({"bird": 5}, {})
    assert snapshot["stage_ms"]["infer"] == {"p50": 20.0, "p95": 20.0} and snapshot["paused"]
    assert stats.summary()["stage_ms"]["sinks"]["p50"] == pytest.approx(4, rel=0.01)


def test_the_camera_s_own_scaling_is_shown() -> None:
    """Where the camera scaled the picture, preprocessing was not ours."""
    stats = LiveStats("m.hef", "csi")
    assert stats.snapshot()["preprocess"] == "letterbox"
    result = live_result()
    object.__setattr__(result.frame, "small", np.zeros((4, 4, 3), np.uint8))

    stats.add(result, 0.0)

    assert stats.snapshot()["preprocess"] == "isp"


def test_the_rate_is_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten frames a second are ten; a camera that fell silent is 0, not its last good figure."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    stats = LiveStats("m", "usb")
    for _ in range(21):
        now[0] += 0.1
        stats.add(live_result(captured=0.0), 0.0)
    assert stats.snapshot()["fps"] == pytest.approx(10)

    now[0] += 6
    assert stats.snapshot()["fps"] == 0.0


def test_memory_does_not_grow_with_the_frames() -> None:
    """A camera for weeks: after RECENT frames nothing more is kept."""
    stats, result = LiveStats("m", "usb"), live_result()
    for _ in range(RECENT + 10):
        stats.add(result, 0.0)
    tracemalloc.start()
    for _ in range(3 * RECENT):
        stats.add(result, 0.0)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert size < 60_000


@given(st.lists(st.floats(1e-5, 100), min_size=1, max_size=300))
def test_histogram_percentiles_are_right_within_a_percent(seconds: list[float]) -> None:
    """The median and 95th percentile of any durations, against sorting them."""
    histogram = Histogram()
    for value in seconds:
        histogram.add(value)

    found = histogram.percentiles_ms()

    ranked = sorted(seconds)
    for share, name in ((50, "p50"), (95, "p95")):
        exact = ranked[-(-share * len(ranked) // 100) - 1] * 1e3
        assert found[name] == pytest.approx(exact, rel=0.011, abs=0.001)


def test_histogram_of_nothing_and_of_nonsense() -> None:
    """No durations have no percentile; zero and an hour fall into the outermost bins."""
    assert Histogram().percentiles_ms() == {"p50": None, "p95": None}
    histogram = Histogram()
    histogram.add(0.0)
    histogram.add(3600.0)

    assert histogram.percentiles_ms()["p50"] == pytest.approx(0.001)


def test_pictures_are_made_once_and_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten sinks share one annotated picture, and without a sink there is none."""
    made = []
    import hefkit.live.state as live

    real = live.annotate
    monkeypatch.setattr(live, "annotate", lambda *args, **kwargs: made.append(1) or real(*args, **kwargs))
    result = live_result(stamp="INT8 emulation")
    assert not made

    first, second = result.annotated, result.annotated

    assert first is second and len(made) == 1 and result.size_wh == (64, 48)
    assert not np.array_equal(first, result.picture) and jpeg(first)[:3] == b"\xff\xd8\xff"
