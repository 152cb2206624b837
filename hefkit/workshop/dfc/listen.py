"""What the SDK says while it works: telling lines for the console, facts for the report, last words for errors."""

from __future__ import annotations

import logging
import re
import time
from collections import deque

from hefkit.text import one_line
from hefkit.workshop.dfc.log import RunLog

log = logging.getLogger("hefkit")

HEARTBEAT_S = 60.0
LAST_LINES = 200
TRACEBACK = "--- traceback, written by hefkit's worker"  # dfc_worker.MARK: no words of the SDK's from here on
SHOWN_ON_FAILURE = 12

# lines that tell where the SDK is; all others are in the log
_TELLING = re.compile(
    r"Translation completed|End nodes mapped|Using dataset with|Epoch \d+/\d+$|Algorithm .* is done|SNR:"
    r"|optimization level|compression level|Single context flow failed|Using (Multi|Single)-context flow"
    r"|Found valid partition|Partitioner finished|partition to \d+ contexts|Successful (Mapping|Partition|Compilation)"
    r"|Building HEF|Model Optimization is done"
)
_LEVEL = re.compile(r"^\[(warning|error|critical)\]\s*", re.IGNORECASE)
_INFO = re.compile(r"^\[info\]\s*", re.IGNORECASE)


class SdkVoice:
    """The listener of one run."""

    def __init__(self) -> None:
        self.facts = RunLog()
        self.last: deque[str] = deque(maxlen=LAST_LINES)  # of the step under way
        self._told: set[str] = set()
        self._traceback = False
        self._begun = self._spoke = time.monotonic()

    def begin_step(self) -> None:
        """Words of the step before must not explain a failure of this one."""
        self.last.clear()
        self._traceback = False
        self._begun = self._spoke = time.monotonic()

    def line(self, text: str) -> None:
        """Hear one line; tell it if it matters and is not a repetition."""
        self._traceback = self._traceback or text.startswith(TRACEBACK)
        if self._traceback or not text.strip():
            return
        self.last.append(text)
        self.facts.feed(text)
        level = _LEVEL.match(text.strip())
        words = one_line((_LEVEL if level else _INFO).sub("", text.strip()), 160)
        if words in self._told or not (level or _TELLING.search(words)):
            return
        self._told.add(words)
        self._say(f"SDK {level[1].lower()}: {words}" if level else f"SDK: {words}")

    def tick(self) -> None:
        """Once a minute without news: still there, and at what."""
        if time.monotonic() - self._spoke >= HEARTBEAT_S:
            minutes = (time.monotonic() - self._begun) / 60
            at = f"; last line: {one_line(self.last[-1], 100)}" if self.last else ""
            self._say(f"{minutes:.0f} min{at}")

    def error_lines(self) -> str:
        """The step's lines that the SDK itself calls errors."""
        return "\n".join(line for line in self.last if re.match(r"\s*\[(error|critical)\]", line, re.IGNORECASE))

    def show_last_words(self) -> None:
        """The end of the log on the console, before the error line says what it means."""
        for line in list(self.last)[-SHOWN_ON_FAILURE:]:
            log.info("  | %s", one_line(line, 200))

    def _say(self, text: str) -> None:
        self._spoke = time.monotonic()
        log.info("  %s", text)
