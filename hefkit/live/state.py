"""The types of a live run: results, sinks, the controls and the statistics.

    camera --> grabber thread: keeps the newest frame --> pipeline --> LiveResult --> sinks

The main thread hands every result to the sinks. A sink raises nothing for a broker that fails, a full disk or a slow
viewer: it logs that once, drops results if it must, and recovers. Detection goes on.
"""

from __future__ import annotations

import functools
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np

from hefkit.detect.detections import Detections
from hefkit.detect.detector import Timings
from hefkit.pictures.frames import Frame
from hefkit.results.draw import annotate

JPEG_QUALITY = 80
RECENT = 300  # frames over which the rate and the times of a snapshot are measured
STAGES = ("read", *Timings._fields, "sinks", "latency")


@dataclass(frozen=True)
class LiveResult:
    """One processed frame; its annotated picture is drawn once, when the first sink asks for it."""

    frame: Frame
    detections: Detections  # in pixels of the picture, best first
    timings: Timings
    engine: str  # "hailort" | "emulated" | "float"
    names: Mapping[int, str]
    wall: float  # time.time() when the frame was captured
    latency_s: float  # from capture to result
    stamp: str | None = None  # words for a corner, such as "INT8 emulation"

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height of the picture, pixels."""
        return self.picture.shape[1], self.picture.shape[0]

    @property
    def picture(self) -> np.ndarray:
        """(h, w, 3) uint8 BGR, as the camera gave it; do not change it."""
        assert isinstance(self.frame.picture, np.ndarray)
        return self.frame.picture

    @functools.cached_property
    def annotated(self) -> np.ndarray:
        """(h, w, 3) uint8 BGR with boxes, labels and the stamp; do not change it.

        Two threads that ask at the same time may draw twice, which costs only time.
        """
        return annotate(self.picture, self.detections, self.names, stamp=self.stamp)


def jpeg(image_bgr: np.ndarray) -> bytes:
    """Encode a (h, w, 3) uint8 BGR picture as a JPEG for people to look at."""
    encoded, data = cv2.imencode(".jpg", image_bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert encoded
    return data.tobytes()


class LiveSink(Protocol):
    """Something that results are given to: a window, a file, a web page, a broker."""

    def put(self, result: LiveResult) -> None:
        """Take one result without waiting; the main thread calls this for every frame."""

    def close(self) -> None:
        """Finish within about a second; calling it twice is allowed."""


class Controls:
    """Stop and pause; any thread may set them."""

    def __init__(self, stop: threading.Event | None = None) -> None:
        self.stop = stop or threading.Event()
        self._running = threading.Event()  # not paused
        self._running.set()

    @property
    def paused(self) -> bool:
        """Whether frames are left unprocessed because of a pause."""
        return not self._running.is_set()

    def pause(self, paused: bool) -> None:
        """Stop or resume processing; the camera stays open."""
        if paused:
            self._running.clear()
        else:
            self._running.set()

    def wait_while_paused(self, timeout_s: float) -> None:
        """Return when there is no pause, or after `timeout_s`."""
        self._running.wait(timeout_s)


class LiveStats:
    """Counts and times of a run in bounded memory; every method may be called from any thread."""

    def __init__(self, model: str, source: str) -> None:
        self._facts: dict[str, Any] = {"model": model, "engine": None, "source": source, "preprocess": "letterbox"}
        self._names: Mapping[int, str] = {}
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._frames = self._dropped = self._reconnects = 0
        self._by_class: Counter[int] = Counter()
        self._now: Counter[int] = Counter()
        self._done: deque[float] = deque(maxlen=RECENT)
        self._recent: dict[str, deque[float]] = {name: deque(maxlen=RECENT) for name in STAGES}
        self._all = {name: Histogram() for name in STAGES}
        self._temperature_c: float | None = None
        self._camera = "opening"

    def model(self, engine: str, names: Mapping[int, str]) -> None:
        """Note the opened model: "hailort", "emulated" or "float", and its class names."""
        with self._lock:
            self._facts["engine"], self._names = engine, names

    def add(self, result: LiveResult, sinks_s: float) -> None:
        """Count one frame, after every sink has taken it, which took `sinks_s` seconds."""
        ids = result.detections.class_id.tolist()
        times = {**result.timings._asdict(), "read": result.frame.read_s, "sinks": sinks_s, "latency": result.latency_s}
        with self._lock:
            self._frames += 1
            self._by_class.update(ids)
            self._now = Counter(ids)
            self._done.append(time.monotonic())
            if result.frame.small is not None:
                self._facts["preprocess"] = "isp"
            for name, seconds in times.items():
                self._recent[name].append(seconds)
                self._all[name].add(seconds)

    def dropped(self, count: int = 1) -> None:
        """Count frames that were replaced by newer ones before they were processed."""
        with self._lock:
            self._dropped += count

    def camera(self, state: str, *, reconnected: bool = False) -> None:
        """Note the camera's state: `open`, or what is wrong with it in words."""
        with self._lock:
            self._camera = state
            self._reconnects += reconnected

    def temperature(self, celsius: float | None) -> None:
        """Note the chip's temperature; None where it is unknown."""
        with self._lock:
            self._temperature_c = celsius

    def snapshot(self, paused: bool = False) -> dict[str, Any]:
        """The state now and the times of the recent frames, as values for JSON."""
        with self._lock:
            return {
                **self._facts,
                **self._counts(),
                "camera": self._camera,
                "paused": paused,
                "fps": self._rate(),
                "stage_ms": {name: _percentiles(times) for name, times in self._recent.items()},
                "in_last_frame": self._named(self._now),
                "temperature_c": self._temperature_c,
            }

    def summary(self) -> dict[str, Any]:
        """Counts and times of the whole run, as values for JSON."""
        with self._lock:
            seconds = time.monotonic() - self._started
            return {
                **self._facts,
                **self._counts(),
                "frames_per_second": round(self._frames / seconds, 3),
                "stage_ms": {name: times.percentiles_ms() for name, times in self._all.items()},
            }

    def _counts(self) -> dict[str, Any]:
        return {
            "frames": self._frames,
            "dropped": self._dropped,
            "reconnects": self._reconnects,
            "uptime_s": round(time.monotonic() - self._started, 1),
            "detections": self._by_class.total(),
            "by_class": self._named(self._by_class),
        }

    def _rate(self) -> float:
        """Frames a second over the recent frames; 0 when the last one was 5 s ago or earlier."""
        if len(self._done) < 2 or time.monotonic() - self._done[-1] > 5:
            return 0.0
        return round((len(self._done) - 1) / max(self._done[-1] - self._done[0], 1e-6), 2)

    def _named(self, counts: Mapping[int, int]) -> dict[str, int]:
        """Class name -> count, the highest first; two classes with the same name count together."""
        named: Counter[str] = Counter()
        for class_id, count in counts.items():
            named[self._names.get(class_id, f"class{class_id}")] += count
        return dict(named.most_common())


class Histogram:
    """Durations in bins, each one percent wider than the one before: percentiles of weeks in a few kilobytes."""

    LEAST, STEP, BINS = 1e-6, 1.01, 1900  # seconds of the first bin, ratio of two bins, bins: 1 us to 160 s

    def __init__(self) -> None:
        self._counts = np.zeros(self.BINS, np.int64)

    def add(self, seconds: float) -> None:
        """Count one duration; what is outside of the bins goes into the first or the last one."""
        place = math.log(max(seconds, self.LEAST) / self.LEAST) / math.log(self.STEP)
        self._counts[min(round(place), self.BINS - 1)] += 1

    def percentiles_ms(self) -> dict[str, float | None]:
        """Median and 95th percentile in milliseconds, within one percent; None where nothing was added."""
        total = int(self._counts.sum())
        if not total:
            return {"p50": None, "p95": None}
        up_to = self._counts.cumsum()
        p50, p95 = (int(np.searchsorted(up_to, math.ceil(share * total))) for share in (0.50, 0.95))
        return {"p50": self._milliseconds(p50), "p95": self._milliseconds(p95)}

    def _milliseconds(self, place: int) -> float:
        return round(self.LEAST * self.STEP**place * 1e3, 3)


def _percentiles(seconds: deque[float]) -> dict[str, float | None]:
    """Median and 95th percentile in milliseconds."""
    if not seconds:
        return {"p50": None, "p95": None}
    p50, p95 = np.percentile(np.fromiter(seconds, float), [50, 95]) * 1e3
    return {"p50": round(float(p50), 3), "p95": round(float(p95), 3)}
