"""Messages for people: the logger, any text as one printable line, counts with their noun."""

from __future__ import annotations

import logging

log = logging.getLogger("hefkit")


def one_line(value: object, limit: int = 300) -> str:
    """Any text as one printable line of at most `limit` characters: white space folded, control characters escaped."""
    text = " ".join(str(value).split())
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def is_text(value: str) -> bool:
    """Whether a text from a file can be written to a file again: without NUL, without half of a surrogate pair."""
    return "\0" not in value and not any("\ud800" <= c <= "\udfff" for c in value)


def counted(number: int, noun: str) -> str:
    """`1 image`, `2 images`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
