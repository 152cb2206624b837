"""Class names that OpenCV cannot draw, because they are not in Latin letters: drawn by Pillow, where it is installed.

OpenCV 4 has letters of ASCII only. Pillow needs a font with the letters; the fonts of the system are searched. Without
Pillow or such a font the picture says `class3`, and the log says once why.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hefkit.names import MAX_LABEL, readable
from hefkit.text import log, one_line

FONT_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts", "/Library/Fonts",
                "/System/Library/Fonts")  # fmt: skip
FONT_SUFFIXES = (".ttf", ".ttc", ".otf")
PREFERRED = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc")  # easy to read at small sizes
MAX_FONTS = 500
PIXELS = 29.0  # size of a font whose capitals are as high as those of OpenCV at scale 1
MISSING = "\U0010fffd"  # a character that no font has; fonts draw their sign for `missing`


@functools.lru_cache(maxsize=4096)
def drawn_name(name: str, class_id: int) -> str:
    """The name as it is drawn: in its own letters, or in ASCII, or as `class3`."""
    plain = readable(name, class_id)
    if plain != f"class{class_id}" or name.isascii():
        return plain
    own = one_line(name, MAX_LABEL)
    reason = _reason(own)
    if reason is None:
        return own
    _warn(reason, own, plain)
    return plain


@functools.cache
def _warn(reason: str, name: str, plain: str) -> None:
    log.warning("the class name %s cannot be drawn (%s); pictures say %s", name, reason, plain)


def letters(text: str, scale: float) -> np.ndarray:
    """(h, w) uint8: how much ink each pixel has, for a text that `drawn_name` returned; `scale` as OpenCV counts it."""
    path = _font_with(text)
    assert path is not None
    return _mask(_font(path, max(round(PIXELS * scale), 10)), text)


def _reason(text: str) -> str | None:
    """Why a text cannot be drawn, and what to do; None if it can."""
    if _pillow() is None:
        return "Pillow is not installed: pip install pillow, on a Raspberry Pi: sudo apt install python3-pil"
    if _font_with(text) is None:
        return "no font has its letters: sudo apt install fonts-dejavu-core fonts-noto-cjk"
    return None


@functools.cache
def _pillow() -> Any:
    try:
        from PIL import ImageFont
    except ImportError:
        return None
    return ImageFont


@functools.lru_cache(maxsize=4096)
def _font_with(text: str) -> str | None:
    """The first font that has every letter of the text."""
    return next((path for path in _fonts() if all(_has(path, letter) for letter in set(text) if letter != " ")), None)


@functools.cache
def _fonts() -> tuple[str, ...]:
    """The system's fonts, the preferred ones first."""
    found = sorted(_font_files(), key=lambda path: (os.path.basename(path) not in PREFERRED, path))
    return tuple(found[:MAX_FONTS])


def _font_files() -> Iterator[str]:
    for folder in FONT_FOLDERS:
        for here, _, names in os.walk(os.path.expanduser(folder)):
            yield from (str(Path(here, name)) for name in names if name.lower().endswith(FONT_SUFFIXES))


@functools.lru_cache(maxsize=4096)
def _has(path: str, letter: str) -> bool:
    """Whether a font has a letter, and does not draw its sign for a missing one."""
    try:
        font = _font(path, 24)
        drawn, missing = _mask(font, letter), _mask(font, MISSING)
    except (OSError, ValueError):  # not a font
        return False
    return bool(drawn.any()) and not np.array_equal(drawn, missing)


@functools.lru_cache(maxsize=64)
def _font(path: str, pixels: int) -> Any:
    return _pillow().truetype(path, pixels)


def _mask(font: Any, text: str) -> np.ndarray:
    mask = font.getmask(text)
    width, height = mask.size
    return np.array(mask, np.uint8).reshape(height, width)
