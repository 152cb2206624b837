"""What the SDK prints while it works: milestones for the console, facts for the report, last lines for errors."""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from hefkit.text import one_line
from hefkit.workshop.dfc.log import HARMLESS, RunLog

log = logging.getLogger("hefkit")

HEARTBEAT_S = 60.0  # seconds without a line on the console
IDLE_S = 600.0  # seconds without a line of the SDK and without work, before a warning
IDLE_CHECK_S = 30.0  # seconds between two looks at the processor time
IDLE_SHARE = 0.02  # of one processor; threads that only wait use less
MAX_LINE = 2000  # bytes of a line; the rest is cut off
LAST_LINES = 200  # lines that are kept of a step
SHOWN_ON_FAILURE = 12  # lines
TRACEBACK = "--- traceback, written by hefkit's worker"  # as dfc_worker.MARK: our words follow, not the SDK's

# lines that show the SDK's progress; all others are only in the log
_MILESTONES = re.compile(
    r"Translation completed|End nodes mapped|Using dataset with|Epoch \d+/\d+$|Algorithm .* is done|SNR:"
    r"|optimization level|compression level|Single context flow failed|Using (Multi|Single)-context flow"
    r"|Found valid partition|Partitioner finished|partition to \d+ contexts|Successful (Mapping|Partition|Compilation)"
    r"|Building HEF|Model Optimization is done"
)
# from here on a call computes
_WORK = re.compile(r"^Starting\b|Using dataset with")
# at its first start in an environment the SDK checks the machine, with a table, and asks whether to go on
_FIRST_START = re.compile(
    r"First time Hailo Dataflow Compiler|The SDK requires \d+ GB|Unsupported release|Requirement \S+ not found"
    r"|installation_log|CUDNN version should be|CUDA version should be|Continue\? ?\[|^No response"
)
FIRST_START = (
    "at its first start it checks this machine; sdk.log lists what is missing; it continues by itself without an answer"
)
_LEVEL = re.compile(r"^\[(warning|error|critical)\]\s*", re.IGNORECASE)
_INFO = re.compile(r"^\[info\]\s*", re.IGNORECASE)
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-_])")


@dataclass
class LogTail:
    """Follows a growing text file. A line ends with a newline, a step of a progress bar with a carriage return."""

    path: Path
    start: int = 0  # bytes that are not followed
    _file: BinaryIO | None = None
    _rest: bytes = b""

    def new_lines(self) -> Iterator[str]:
        """What was added since the last call, as printable lines."""
        if self._file is None:
            self._file = open(self.path, "rb")  # noqa: SIM115 - stays open until close()
            self._file.seek(self.start)
        while piece := self._file.read(1 << 16):
            *lines, self._rest = re.split(rb"[\r\n]+", self._rest + piece)
            yield from map(_printable, lines)
            if len(self._rest) > MAX_LINE:  # bytes without line ends must not fill the memory
                yield _printable(self._rest)
                self._rest = b""

    def close(self) -> None:
        """Close the file; there are no more lines."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _printable(raw: bytes) -> str:
    text = _ESCAPES.sub("", raw[:MAX_LINE].decode("utf-8", "replace"))
    return "".join(c if c.isprintable() else " " for c in text).rstrip()


class IdleWatch:
    """Tells when the SDK has neither printed nor computed for IDLE_S: then it may hang. Silence alone is normal."""

    def __init__(self) -> None:
        self._active = self._looked = time.monotonic()
        self._cpu_s: float | None = None
        self._told = False

    def active(self) -> None:
        """The SDK has printed something."""
        self._active, self._told = time.monotonic(), False

    def idle_minutes(self, cpu_s: Callable[[], float]) -> float | None:
        """Minutes without a line and without work, once after IDLE_S; None before, and after they were returned.

        Args:
            cpu_s: the processor time of the SDK's processes so far, in seconds.
        """
        now = time.monotonic()
        if now - self._looked >= IDLE_CHECK_S:
            used, before = cpu_s(), self._cpu_s
            if before is None or abs(used - before) > IDLE_SHARE * (now - self._looked):
                self.active()
            self._cpu_s, self._looked = used, now
        if self._told or now - self._active < IDLE_S:
            return None
        self._told = True
        return (now - self._active) / 60


class SdkListener:
    """Reads every line that one run of the SDK prints."""

    def __init__(self, shown: set[str] | None = None) -> None:
        self.facts = RunLog()
        self.last: deque[str] = deque(maxlen=LAST_LINES)  # of the running step
        self.working = False  # the running step has begun to compute
        self._shown = set() if shown is None else shown
        self._in_traceback = False
        self._step_began = self._last_shown = time.monotonic()
        self._idle = IdleWatch()

    def begin_step(self) -> None:
        """Forget the lines of the step before: they must not explain a failure of the new step."""
        self.last.clear()
        self._in_traceback = self.working = False
        self._step_began = self._last_shown = time.monotonic()
        self._idle = IdleWatch()

    def line(self, text: str) -> None:
        """Take one printable line; show it if it is a milestone or a warning, and new."""
        self._in_traceback = self._in_traceback or text.startswith(TRACEBACK)
        if self._in_traceback or not text.strip():
            return
        self.last.append(text)
        self.facts.feed(text)
        self._idle.active()
        level = _LEVEL.match(text.strip())
        words = one_line((_LEVEL if level else _INFO).sub("", text.strip()), 160)
        self.working = self.working or _WORK.search(words) is not None
        if _FIRST_START.search(words):
            level, words = None, FIRST_START
        elif HARMLESS.search(words) or not (level or _MILESTONES.search(words)):
            return
        if words not in self._shown:
            self._shown.add(words)
            self._show(f"SDK {level[1].lower()}: {words}" if level else f"SDK: {words}")

    def tick(self, cpu_s: Callable[[], float]) -> None:
        """Some time has passed: after a minute without a line, show the time and the last line.

        Args:
            cpu_s: the processor time of the SDK's processes so far, in seconds.
        """
        idle = self._idle.idle_minutes(cpu_s)
        if idle is not None:
            self._last_shown = time.monotonic()
            log.warning(
                "the SDK has printed nothing and computed nothing for %.0f min, so it may hang; hefkit still waits; "
                "to end it press Ctrl-C, then go on from the last HAR with --har",
                idle,
            )
        if time.monotonic() - self._last_shown >= HEARTBEAT_S:
            minutes = (time.monotonic() - self._step_began) / 60
            at = f"; last line: {one_line(self.last[-1], 100)}" if self.last else ""
            self._show(f"{minutes:.0f} min{at}")

    def error_lines(self) -> str:
        """The lines of the running step that the SDK itself marks as errors."""
        return "\n".join(line for line in self.last if re.match(r"\s*\[(error|critical)\]", line, re.IGNORECASE))

    def show_last_lines(self) -> None:
        """The end of the log on the console, before the error line that explains it."""
        for line in list(self.last)[-SHOWN_ON_FAILURE:]:
            log.info("  | %s", one_line(line, 200))

    def _show(self, text: str) -> None:
        self._last_shown = time.monotonic()
        log.info("  %s", text)
