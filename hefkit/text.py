"""Words for people: the logger, one printable line of any text, counts with their noun."""

from __future__ import annotations

import logging

log = logging.getLogger("hefkit")


def one_line(value: object, limit: int = 300) -> str:
    """Any text as one printable line: newlines folded, control characters escaped, bounded."""
    text = " ".join(str(value).split())
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def counted(number: int, noun: str) -> str:
    """`1 image`, `2 images`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
