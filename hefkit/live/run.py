"""The live detector's loop: camera, engine and sink until a stop; a chip that fails is restarted."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
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

DEPTH = 2  # frames in flight: one is computed, one is ready; more would only make results older
POLL_S = 0.05  # how soon a stop, a key or the end of the duration is noticed
STATUS_S = 10.0  # between two status lines on the console
PROVEN = 1000  # results after a restart of the chip, after which it may be restarted again
END_S = 1.0  # for the engine to finish the frames that it has


@dataclass(frozen=True)
class Limits:
    """When the run ends by itself; None: never."""

    max_frames: int | None = None
    duration_s: float | None = None


class LiveRun:
    """One run of the live detector.

    Args:
        engine: the opened model; `engine` of the run is the one to close in the end.
        open_engine: opens the model again after the chip has failed.
        sink: is given every result; the caller closes it.
        idle: called several times a second, also while no frames come; a window needs that.
    """

    def __init__(
        self,
        engine: Engine,
        open_engine: Callable[[], Engine],
        settings: DecodeSettings,
        grabber: Grabber,
        sink: LiveSink,
        controls: Controls,
        stats: LiveStats,
        limits: Limits,
        names: Mapping[int, str],
        idle: Callable[[], None] = lambda: None,
    ) -> None:
        self.engine, self._open_engine, self._settings = engine, open_engine, settings
        self._grabber, self._sink, self._names = grabber, sink, names
        self._controls, self._stats, self._limits = controls, stats, limits
        self._idle = idle
        self._stamp = EMULATION_STAMP if engine.kind == "emulated" else None
        self.hung = False  # the engine did not finish in time; closing it would hang as well
        self._frames = self._since_restart = 0
        self._restarted = False
        self._begun = self._status_at = time.monotonic()

    def run(self) -> None:
        """Run until the source ends, a limit is reached or `stop` is set.

        Raises:
            DeviceError: the chip failed again, fewer than PROVEN results after a restart.
        """
        while True:
            try:
                self._run_engine()
                return
            except DeviceError as exc:
                if self._restarted and self._since_restart < PROVEN:
                    raise
                log.warning("%s; restarting the chip, once", exc)
            self.engine.close()
            self.engine = self._open_engine()
            self._restarted, self._since_restart = True, 0

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
        self._sink.put(live)
        self._stats.add(live, time.perf_counter() - start)
        self._frames += 1
        self._since_restart += 1
        self._log_status(live)

    def _log_status(self, live: LiveResult) -> None:
        """One line every STATUS_S on the console or in the journal."""
        now = time.monotonic()
        if now - self._status_at < STATUS_S:
            return
        self._status_at = now
        temperature = getattr(self.engine, "temperature_c", None)
        self._stats.temperature(temperature() if callable(temperature) else None)
        facts = self._stats.snapshot()
        seen = ", ".join(f"{count} {one_line(name, 40)}" for name, count in facts["in_last_frame"].items()) or "nothing"
        log.info(
            "%.1f frames per second, %d dropped, latency %.0f ms; now: %s",
            facts["fps"], facts["dropped"], 1e3 * live.latency_s, seen,
        )  # fmt: skip
