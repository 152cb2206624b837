"""Follow a log while another process writes it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

MAX_LINE = 2000
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-_])")


@dataclass
class LogTail:
    """Follows a growing text file; lines end with a newline, the steps of a progress bar with a carriage return."""

    path: Path
    _file: BinaryIO | None = None
    _rest: bytes = b""

    def new_lines(self) -> Iterator[str]:
        """What was added since the last call, as printable lines."""
        if self._file is None:
            self._file = open(self.path, "rb")  # noqa: SIM115 - read again and again until close()
        while piece := self._file.read(1 << 16):
            *lines, self._rest = re.split(rb"[\r\n]+", self._rest + piece)
            yield from map(_printable, lines)
            if len(self._rest) > MAX_LINE:  # garbage without line ends must not fill the memory
                yield _printable(self._rest)
                self._rest = b""

    def close(self) -> None:
        """No more lines."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _printable(raw: bytes) -> str:
    text = _ESCAPES.sub("", raw[:MAX_LINE].decode("utf-8", "replace"))
    return "".join(c if c.isprintable() else " " for c in text).rstrip()
