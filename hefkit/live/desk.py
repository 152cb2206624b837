"""All sinks of a live run as one sink, and what the keys of the window do with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hefkit.errors import HefkitError
from hefkit.live.filesinks import FrameSaver, Recorder
from hefkit.live.state import Controls, LiveResult, LiveSink
from hefkit.text import log, one_line


class Desk:
    """Hands every result to every sink; sinks may be added and removed during the run. Main thread only.

    Args:
        controls: what the key q stops.
        save_dir: where the key s saves frames if no FrameSaver was added.
        recording: makes a recorder for the key r.
    """

    def __init__(self, controls: Controls, save_dir: Path, recording: Callable[[], Recorder]) -> None:
        self._controls, self._save_dir, self._recording = controls, save_dir, recording
        self._sinks: list[LiveSink] = []
        self._recorder: Recorder | None = None
        self._saver: FrameSaver | None = None
        self._last: LiveResult | None = None

    def add(self, sink: LiveSink) -> None:
        """Add a sink; the keys s and r use a FrameSaver or Recorder that was added."""
        self._sinks.append(sink)
        self._recorder = sink if isinstance(sink, Recorder) else self._recorder
        self._saver = sink if isinstance(sink, FrameSaver) else self._saver

    def put(self, result: LiveResult) -> None:
        """Hand one result to every sink."""
        self._last = result
        for sink in self._sinks:
            sink.put(result)

    def close(self) -> None:
        """Close every sink, the last one first."""
        while self._sinks:
            self._sinks.pop().close()
        if self._saver is not None:
            self._saver.close()

    def quit(self) -> None:
        """The key q: end the run."""
        self._controls.stop.set()

    def save(self) -> None:
        """The key s: save the frame that the window shows, with or without detections."""
        if self._last is None:
            return
        try:
            # not among the sinks: without --save-dir, only the key saves frames
            self._saver = self._saver or FrameSaver(self._save_dir, most=1 << 30, every_s=0.0)
            log.info("saved %s", one_line(self._saver.save(self._last)))
        except (OSError, HefkitError) as exc:
            log.warning("the frame cannot be saved: %s", one_line(exc))

    def toggle_recording(self) -> None:
        """The key r: start a recording, or end the one that runs."""
        if self._recorder is not None:
            self._sinks.remove(self._recorder)
            self._recorder.close()
            self._recorder = None
            return
        try:
            self.add(self._recording())
            log.info("recording")
        except HefkitError as exc:
            log.warning("%s", one_line(exc))
