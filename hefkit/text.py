"""Messages for people: the logger, any text as one printable line, counts with their noun, bytes of a text file."""

from __future__ import annotations

import logging

log = logging.getLogger("hefkit")


def one_line(value: object, limit: int = 300) -> str:
    """Any text as one printable line of at most `limit` characters: white space folded, control characters escaped."""
    text = " ".join(str(value).split())
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def counted(number: int, noun: str) -> str:
    """`1 image`, `2 images`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def decoded(raw: bytes) -> str:
    """The text of a file of any editor: UTF-8, UTF-16 with a mark, else Windows' Western code page or Latin-1."""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", "replace")
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return raw.decode("latin-1")
