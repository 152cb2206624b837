"""Messages for people: any text fits into one line, and a count agrees with its noun."""

from __future__ import annotations

import pytest

from hefkit.text import counted, one_line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("two\r\nlines\tand  more", "two lines and more"),
        ("\x1b[31m\x00\u202e", r"\x1b[31m\x00\u202e"),
        ("犬é", "犬é"),
        ("\udcff", r"\udcff"),
        ("x" * 400, "x" * 297 + "..."),
    ],
)
def test_one_line(text: str, expected: str) -> None:
    """Any text fits into one printable line."""
    assert one_line(text) == expected


def test_counted() -> None:
    """One image, two images."""
    assert [counted(n, "image") for n in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
