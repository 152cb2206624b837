"""Paths that were written on another machine -> where the files are on this one. Standard library only.

A `data.yaml` and a text list come with paths of the machine that made them. A path is tried

    as written, then with `\\` as `/`, without a drive letter, in another spelling of its accents
        below the file's folder, below `path:`, below the working directory
    by its longest tail below the file's folder       /content/set-1/train/images -> train/images
    below the folders above the file's folder         cfg/ds.yaml: datasets/ds -> cfg/../datasets/ds

All lines of a list share one of these rules: the one that finds the most. A tail that loses the name of the split is
not taken: `set/train/images` is never found as `images`, which may hold the pictures of another split.
"""

from __future__ import annotations

import ntpath
import os
import posixpath
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hefkit.files import existing
from hefkit.text import decoded

ALIASES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}  # folder -> split
SPLIT_FOLDER = re.compile(rf"({'|'.join(ALIASES)})(?:\d{{4}})?")  # also train2017, as COCO names it
SAMPLES = 200  # lines of a list that are looked for to choose its rule
UP = ("..", "../..")  # folders above the file's folder


@dataclass(frozen=True)
class Rule:
    """One way to read the paths of a file."""

    spelling: Callable[[str], str]
    base: str  # the folder that the rest is relative to
    drop: int = 0  # leading parts of the path that are left out
    guessed: bool = False  # the path does not exist as written; the user is told

    def apply(self, text: str) -> str:
        """The path on this machine; empty where the rule does not fit the text."""
        spelled = self.spelling(text)
        if not self.guessed:
            return os.path.join(self.base, spelled)
        parts = _parts(spelled)
        kept = parts[self.drop :]
        if not kept or (any(map(_is_split, parts[: self.drop])) and not any(map(_is_split, kept))):
            return ""
        return os.path.join(self.base, *kept)


def find_place(text: str, folder: str, root: str | None = None) -> tuple[str, bool] | None:
    """The file or folder that a path of a file means, and whether it was guessed; None where it is not found.

    Args:
        text: the path as written.
        folder: of the file that has the path.
        root: the `path:` of a data.yaml.
    """
    whole = text if root is None else posixpath.join(slashed(root), slashed(text))
    for rule in _rules([whole], folder, root):
        place = rule.apply(whole if rule.guessed else text)
        if place and existing(Path(place)):
            return place, rule.guessed
    return None


def find_lines(lines: Sequence[str], folder: str) -> tuple[list[str], bool]:
    """The paths of a text list on this machine, and whether they were guessed; lines without a rule stay as written."""
    step = max(1, len(lines) // SAMPLES)
    some = lines[::step][:SAMPLES]
    best, most = Rule(_written, folder), 0
    for rule in _rules(some, folder, None):
        found = sum(map(os.path.isfile, map(rule.apply, some)))
        if found > most:
            best, most = rule, found
        if most == len(some):
            break
    return [best.apply(line) or line for line in lines], best.guessed


def _rules(texts: Sequence[str], folder: str, root: str | None) -> Iterator[Rule]:
    """Every rule, the best first."""
    roots = [] if root is None else [root, slashed(root)]
    bases = dict.fromkeys([folder, *(os.path.join(folder, r) for r in roots), *roots, ""])
    for spelling in (_written, slashed, _without_up, *ACCENTS):
        for base in bases:
            yield Rule(spelling, base)
    depth = max((len(_parts(text)) for text in texts), default=0)
    for drop in range(depth):
        for spelling in (slashed, *ACCENTS):
            yield Rule(spelling, folder, drop, guessed=True)
    if any(len(_parts(text)) > 1 and not _is_absolute(text) for text in texts):
        for up in UP:
            yield Rule(slashed, os.path.join(folder, up), guessed=True)


def _written(text: str) -> str:
    return text


def slashed(text: str) -> str:
    r"""`C:\set\train` -> `/set/train`; a path without a backslash or a drive stays."""
    return ntpath.splitdrive(text)[1].replace("\\", "/") if "\\" in text or re.match(r"[A-Za-z]:", text) else text


def _without_up(text: str) -> str:
    """Roboflow writes `../train/images` for what lies beside the file."""
    return slashed(text).removeprefix("../")


def _from_windows(text: str) -> str:
    """Bytes that are not UTF-8, as Windows' Western code page: lists of older tools."""
    return decoded(os.fsencode(slashed(text)))


def _to_latin(text: str) -> str:
    """The name of a file whose disk was written with Latin-1 names."""
    try:
        return os.fsdecode(slashed(text).encode("latin-1"))
    except UnicodeEncodeError:
        return slashed(text)


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", slashed(text))


def _decomposed(text: str) -> str:
    """As macOS writes accents: the letter, then the accent."""
    return unicodedata.normalize("NFD", slashed(text))


ACCENTS = (_from_windows, _to_latin, _composed, _decomposed)


def _parts(text: str) -> list[str]:
    """The names of a path, without its root and the `..` at its beginning."""
    parts = [part for part in posixpath.normpath(slashed(text)).split("/") if part not in ("", ".")]
    while parts and parts[0] == "..":
        del parts[0]
    return parts


def _is_absolute(text: str) -> bool:
    return slashed(text).startswith("/")


def _is_split(part: str) -> bool:
    return SPLIT_FOLDER.fullmatch(part.lower()) is not None
