"""Failures of Hailo's SDK: its words -> one sentence with a cure, and the exit code.

A failure is recognised by the name of the exception and by its message or the log, never by its module: the SDK may
move its modules. The exit code is 5, also where the network or the script is wrong: hefkit has checked both before the
SDK started (exit 4). A full disk is 3.

The SDK optimises in a child process. A failure there arrives as a SubprocessTracebackFailure with the child's whole
traceback. Its source lines have words such as `dataset` and `calib`, so only the last exception in it is read.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path

from hefkit.errors import HefkitError, ToolchainError
from hefkit.text import one_line
from hefkit.workshop.dfc.known import FAILURES, MEMORY_CURE, Failure

MAX_QUOTE = 240  # characters of the SDK's words
LINES_BEFORE_CRASH = 20  # that may explain it

_TRACEBACK = "Traceback (most recent call last):"
_WRAPPER, _WRAPPED = "SubprocessTracebackFailure", "Subprocess failed with traceback"
_EXCEPTION = re.compile(r"([A-Za-z_]\w*(?:\.\w+)*)(?::\s?(.*))?$", re.DOTALL)

CLEAR_IN_A_LOG = tuple(row for row in FAILURES if not row.strict)

SIGNALS = {
    signal.SIGILL: (
        "an illegal instruction: the processor lacks AVX",
        "expected a processor with AVX, which the SDK needs; compile on another machine",
    ),
    signal.SIGTERM: ("SIGTERM, sent by another program", "run again"),
}


def unwrapped(kind: str, message: str) -> tuple[str, str]:
    """(name, message) of the last exception in the traceback that a child process of the SDK left.

    ("SubprocessTracebackFailure", "Subprocess failed with traceback\\n\\nTraceback (most recent call last):\\n"
    "  File ...\\n    raise\\na.b.BadInputsShape: Data shape ...") -> ("BadInputsShape", "Data shape ..."); anything
    else stays as it is.
    """
    lines = message.splitlines()
    starts = [i for i, line in enumerate(lines) if line.strip() == _TRACEBACK]
    if not starts or (kind != _WRAPPER and _WRAPPED not in message[:MAX_QUOTE]):
        return kind, message
    after = lines[starts[-1] + 1 :]  # frames are indented, the exception is not
    first = next((i for i, line in enumerate(after) if line.strip() and not line[0].isspace()), len(after))
    found = _EXCEPTION.match("\n".join(after[first:]).strip())
    if found is None:
        return kind, message
    return found[1].rpartition(".")[2], (found[2] or "").strip()


def explain(said: str, *, error_lines: str = "", doing: str, log: Path) -> HefkitError:
    """The error for what the SDK said.

    Args:
        said: `Kind: message` of the exception.
        error_lines: the lines that the log marks as errors, for exceptions without a clear message.
        doing: what the SDK did, as in "parsing the network".
        log: the file with everything that it printed.
    """
    known = _known(said, doing, log, FAILURES) or _known(error_lines, doing, log, CLEAR_IN_A_LOG)
    if known is not None:
        return known
    quoted = _quoted(said)
    return ToolchainError(f"Hailo's SDK failed while {doing}; it said: {quoted}; all of it is in the log: {log}")


def _quoted(said: str) -> str:
    """`Kind: message` as one line; a long message is cut at its start, because the reason is at its end."""
    line = one_line(said, len(said) * 10 + 10)
    if len(line) <= MAX_QUOTE:
        return line or "nothing"
    kind, colon, rest = line.partition(": ")
    start = f"{kind}: ..." if colon and len(kind) < MAX_QUOTE // 4 else "..."
    return start + (rest if colon else line)[-(MAX_QUOTE - len(start)) :]


def is_known(said: str) -> bool:
    """Whether the table has an exception's `Kind: message`."""
    return any(row.match(said) for row in FAILURES)


def _known(words: str, doing: str, log: Path, rows: Sequence[Failure]) -> HefkitError | None:
    for row in rows:
        found = row.match(words)
        if found is not None:
            groups = [one_line(g or "", 160) for g in (*found.groups(), "", "", "", "")]
            return row.error(f"{row.what.format(*groups).strip()} ({doing}); {row.cure}; log: {log}")
    return None


def explain_death(returncode: int, *, doing: str, log: Path, last_lines: Iterable[str], oom: bool) -> HefkitError:
    """The error for a worker that ended without an answer; `oom`: the kernel has ended a process to free memory."""
    lines = list(last_lines)
    number = -returncode
    if number == signal.SIGKILL or oom:
        probably = "" if oom else "most likely "
        return ToolchainError(
            f"Hailo's SDK was killed while {doing}: {probably}the kernel ended it because the memory was full; "
            f"{MEMORY_CURE}, then run again; log: {log}"
        )
    if number in SIGNALS:
        what, cure = SIGNALS[signal.Signals(number)]
        return ToolchainError(f"Hailo's SDK ended while {doing} with {what}; {cure}; log: {log}")
    known = _known("\n".join(lines[-LINES_BEFORE_CRASH:]), doing, log, CLEAR_IN_A_LOG)
    if known is not None:
        return known
    how = f"signal {number} ({_signal_name(number)})" if number > 0 else f"exit status {returncode}"
    said = one_line(" / ".join(line.strip() for line in lines[-3:]), MAX_QUOTE)
    return ToolchainError(
        f"Hailo's SDK crashed while {doing} with {how}; its last lines: {said or 'none'}; run again, and if it "
        f"crashes again try another SDK release; log: {log}"
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
