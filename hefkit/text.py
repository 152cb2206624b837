"""Messages for people: the logger, any text as one printable line, counts with their noun, bytes of a text file."""

from __future__ import annotations

import logging
from collections.abc import Iterable

log = logging.getLogger("hefkit")


def one_line(value: object, limit: int = 300) -> str:
    """Any text as one printable line of at most `limit` characters: white space folded, control characters escaped."""
    text = printable(" ".join(str(value).split()))
    return text if len(text) <= limit else text[: limit - 3] + "..."


def printable(text: str, keep: str = "") -> str:
    """The text with control characters, terminal escapes and halves of characters escaped, except those in `keep`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode("ascii") for c in text)


def is_text(value: str) -> bool:
    """Whether a text from a file can be written to a file again: without NUL, without half of a surrogate pair."""
    return "\0" not in value and not any("\ud800" <= c <= "\udfff" for c in value)


def counted(number: int, noun: str) -> str:
    """`1 image`, `2 images`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def close_to(word: str, choices: Iterable[str]) -> str | None:
    """The choice that a mistyped word most likely means; None where none is close. Case counts little."""
    import difflib  # late: it is needed after a mistake only

    by_case = {choice.casefold(): choice for choice in choices}
    near = difflib.get_close_matches(word.casefold(), by_case, n=1, cutoff=0.7)
    return by_case[near[0]] if near else None


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
