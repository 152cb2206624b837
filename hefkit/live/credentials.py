"""Passwords and tokens: from the environment or from a file that the environment names, never from a command line."""

from __future__ import annotations

import os
from pathlib import Path

from hefkit.errors import UsageError

MAX_BYTES = 4096


def secret(name: str) -> str | None:
    """The value of the environment variable `name`, or the first line of the file that `name`_FILE names, or None.

    Raises:
        UsageError: both are set, the file cannot be read, or what is there is empty or not printable. No message
            repeats any of it.
    """
    value, file = os.environ.get(name), os.environ.get(f"{name}_FILE")
    if value is not None and file is not None:
        raise UsageError(f"{name} and {name}_FILE are both set; expected one of them")
    where = name
    if file is not None:
        where = f"the file that {name}_FILE names"
        value = _first_line(Path(file), where)
    if value is not None and not (value and value.isprintable()):
        raise UsageError(f"{where} is empty or holds unprintable characters; expected one line of text")
    return value


def _first_line(path: Path, where: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
        text = data.decode("utf-8")
    except (OSError, ValueError) as exc:  # ValueError: no UTF-8, or a NUL in the path
        reason = exc.strerror if isinstance(exc, OSError) else "not text"
        raise UsageError(f"cannot read {where}: {reason}; expected one line of text") from None
    if len(data) > MAX_BYTES:
        raise UsageError(f"{where} is larger than {MAX_BYTES} bytes; expected one line of text")
    return text.split("\n")[0].removesuffix("\r")
