"""All sinks of a live run behind one, and what the keys of the window do with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hefkit.errors import HefkitError
from hefkit.live.filesinks import FrameSaver, Recorder
from hefkit.live.state import Controls, LiveResult, LiveSink
from hefkit.text import log, one_line


class Desk:
    """Hands every result to every sink; sinks may come and go while it runs. Main thread only.

    Args:
        save_dir: where a saved frame goes that nobody asked to have saved before.
        recording: makes a recorder, when the key asks for one.
    """

    def __init__(self, controls: Controls, save_dir: Path, recording: Callable[[], Recorder]) -> None:
        self._controls, self._save_dir, self._recording = controls, save_dir, recording
        self._sinks: list[LiveSink] = []
        self._recorder: Recorder | None = None
        self._saver: FrameSaver | None = None
        self._last: LiveResult | None = None

    def add(self, sink: LiveSink) -> None:
        """One more."""
        self._sinks.append(sink)
        self._recorder = sink if isinstance(sink, Recorder) else self._recorder
        self._saver = sink if isinstance(sink, FrameSaver) else self._saver

    def put(self, result: LiveResult) -> None:
        """To every sink."""
        self._last = result
        for sink in self._sinks:
            sink.put(result)

    def close(self) -> None:
        """Every sink, the last one first."""
        while self._sinks:
            self._sinks.pop().close()
        if self._saver is not None:
            self._saver.close()

    def quit(self) -> None:
        """The key q."""
        self._controls.stop.set()

    def save(self) -> None:
        """The key s: the frame in the window, whatever is in it."""
        if self._last is None:
            return
        try:
            # of its own accord this one saves nothing, so it is no sink
            self._saver = self._saver or FrameSaver(self._save_dir, most=1 << 30, every_s=0.0)
            log.info("saved %s", one_line(self._saver.save(self._last)))
        except (OSError, HefkitError) as exc:
            log.warning("the frame cannot be saved: %s", one_line(exc))

    def toggle_recording(self) -> None:
        """The key r."""
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
