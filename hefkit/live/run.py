"""The live detector's loop: camera, engine and sinks, until somebody says stop; a chip that hangs is started anew."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hefkit.detect.decode import DecodeSettings
from hefkit.detect.detector import Detector
from hefkit.detect.engine import Engine
from hefkit.detect.pipeline import Pipeline, Result
from hefkit.errors import DeviceError
from hefkit.live.grabber import Grabber
from hefkit.live.state import Controls, LiveResult, LiveSink, LiveStats
from hefkit.results.outputs import EMULATION_STAMP
from hefkit.text import log, one_line

DEPTH = 2  # in flight: one is computed, one is ready; more would only make results older
POLL_S = 0.05  # how soon a stop, a key or the end of the duration is noticed
STATUS_S = 10.0  # between two lines on the console
PROVEN = 1000  # results of a rebuilt engine after which it may be rebuilt again
END_S = 1.0  # for the engine to finish what it has


@dataclass(frozen=True)
class Limits:
    """When to stop by itself."""

    max_frames: int | None = None
    duration_s: float | None = None


class LiveRun:
    """One run of the live detector.

    Args:
        open_engine: opens the model; called a second time where the chip fails.
        engine: the first one, already open.
        idle: called several times a second, for a window that must be kept alive.
    """

    def __init__(
        self,
        engine: Engine,
        open_engine: Callable[[], Engine],
        settings: DecodeSettings,
        grabber: Grabber,
        sinks: Sequence[LiveSink],
        controls: Controls,
        stats: LiveStats,
        limits: Limits,
        names: Mapping[int, str],
        idle: Callable[[], None] = lambda: None,
    ) -> None:
        self.engine, self._open_engine, self._settings = engine, open_engine, settings
        self._grabber, self._sinks, self._names = grabber, sinks, names
        self._controls, self._stats, self._limits = controls, stats, limits
        self._idle = idle
        self._stamp = EMULATION_STAMP if engine.kind == "emulated" else None
        self.hung = False  # the engine did not finish in time, and cannot be closed either
        self._frames = self._since_rebuilt = 0
        self._rebuilt = False
        self._begun = self._told = time.monotonic()

    def run(self) -> None:
        """Until the source ends, a limit is reached or `stop` is set.

        Raises:
            DeviceError: the chip failed, and failed again after it had been started anew.
        """
        while True:
            try:
                self._run_engine()
                return
            except DeviceError as exc:
                if self._rebuilt and self._since_rebuilt < PROVEN:
                    raise
                log.warning("%s; starting the chip anew, once", exc)
            self.engine.close()
            self.engine = self._open_engine()
            self._rebuilt, self._since_rebuilt = True, 0

    def _run_engine(self) -> None:
        pipeline = Pipeline(self._grabber.frames(), Detector(self.engine, self._settings), DEPTH, 1, young=True)
        try:
            while not self._over():
                self._idle()
                try:
                    result = pipeline.take(POLL_S)
                except TimeoutError:
                    continue
                if result is None:
                    return
                self._deliver(result)
        finally:
            self.hung = not pipeline.close(END_S)

    def _over(self) -> bool:
        limits = self._limits
        return (
            self._controls.stop.is_set()
            or (limits.max_frames is not None and self._frames >= limits.max_frames)
            or (limits.duration_s is not None and time.monotonic() - self._begun >= limits.duration_s)
        )

    def _deliver(self, result: Result) -> None:
        assert result.detections is not None and result.timings is not None  # cameras give pictures or nothing
        age = time.monotonic() - result.frame.captured
        live = LiveResult(
            result.frame, result.detections, result.timings, self.engine.kind, self._names, time.time() - age, age,
            self._stamp,
        )  # fmt: skip
        start = time.perf_counter()
        for sink in self._sinks:
            sink.put(live)
        self._stats.add(live, time.perf_counter() - start)
        self._frames += 1
        self._since_rebuilt += 1
        self._tell(live)

    def _tell(self, live: LiveResult) -> None:
        """A line now and then, for whoever looks at the console or the journal."""
        now = time.monotonic()
        if now - self._told < STATUS_S:
            return
        self._told = now
        temperature = getattr(self.engine, "temperature_c", None)
        self._stats.temperature(temperature() if callable(temperature) else None)
        facts = self._stats.snapshot()
        seen = ", ".join(f"{count} {one_line(name, 40)}" for name, count in facts["in_last_frame"].items()) or "nothing"
        log.info(
            "%.1f frames per second, %d dropped, latency %.0f ms; now: %s",
            facts["fps"],
            facts["dropped"],
            1e3 * live.latency_s,
            seen,
        )
