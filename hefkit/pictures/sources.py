"""SOURCE on the command line -> the photographs that it means, in order, or one video. No picture is decoded.

SOURCE is an image, a folder (searched recursively), a glob, a text list, `-` for a list on stdin, or a video.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hefkit.errors import DataError
from hefkit.files import existing, near_path
from hefkit.pictures.find import IMAGE_SUFFIXES, READABLE, VIDEO_SUFFIXES, OwnPictures, find_images, iter_images
from hefkit.pictures.kinds import VIDEO, is_video_file, kind_of
from hefkit.pictures.places import find_lines, slashed
from hefkit.text import counted, decoded, log, one_line

LIST_SUFFIX = ".txt"
TABLES = (".ndjson", ".jsonl", ".json", ".csv", ".parquet", ".xml", ".zip", ".tar", ".cache")
MAX_LIST_BYTES = 256 << 20
PHOTO_SOURCES = "an image, a folder, a glob in quotes, a text list or - for a list on stdin"
ALL_SOURCES = f"{PHOTO_SOURCES}, or a video"


@dataclass(frozen=True)
class Item:
    """One photograph or one video."""

    path: Path  # what to open
    source: str  # its name in results: SOURCE as given, joined with the relative path
    relative: PurePosixPath  # its place below an output folder; never outside it


def find_items(source: str, exclude: Sequence[Path] = (), *, videos: bool = False) -> list[Item]:
    """Every photograph that SOURCE means: folders and globs sorted by relative path, lists in their own order.

    Pictures in a folder or a glob that hefkit made are left out.

    Args:
        source: SOURCE as given.
        exclude: folders with results of earlier runs; their pictures are left out.
        videos: allow a video, which is then the only item; see `is_video`.

    Raises:
        DataError: SOURCE does not exist, cannot be read, or contains no photograph.
    """
    if source == "-":
        raw = sys.stdin.buffer.read(MAX_LIST_BYTES + 1)
        return _listed(_lines(raw, "the list on stdin"), "", "the list on stdin")
    path, expected = Path(source), ALL_SOURCES if videos else PHOTO_SOURCES
    if existing(path):
        if is_video(source) and not videos:
            raise DataError(f"{source} is a video; expected photographs: {PHOTO_SOURCES}")
        return _in_folder(source, exclude) if path.is_dir() else _one_file(source)
    if glob.has_magic(source):
        return _matching(source, exclude)
    if source.isdigit() or "://" in source:
        raise DataError(
            f"the source {source} is not a file; expected {expected}; download pictures of the web first; "
            "cameras are for working_hailo_detector.py"
        )
    raise DataError(f"the source {source} does not exist{near_path(path)}; expected {expected}")


def is_video(source: str) -> bool:
    """Whether SOURCE is a video; see `is_video_file`. A folder, a glob or a list is not a video."""
    path = Path(source)
    if existing(path):
        return not path.is_dir() and path.suffix.lower() != LIST_SUFFIX and is_video_file(path)
    return not glob.has_magic(source) and path.suffix.lower() in VIDEO_SUFFIXES


def _one_file(source: str) -> list[Item]:
    path = Path(source)
    suffix = path.suffix.lower()
    if not path.is_file():  # reading a pipe could wait for ever
        raise DataError(f"the source {source} is neither a file nor a folder; expected {ALL_SOURCES}")
    if suffix == LIST_SUFFIX:
        try:
            with open(path, "rb") as file:
                raw = file.read(MAX_LIST_BYTES + 1)
        except OSError as exc:
            raise DataError(f"cannot read the list {source}: {exc.strerror}; expected one image path a line") from exc
        return _listed(_lines(raw, f"the list {source}"), os.path.dirname(source), f"the list {source}")
    if suffix in TABLES:
        raise DataError(
            f"the source {source} is a table or a list of another program; expected {ALL_SOURCES}; name the folder of "
            "its pictures, or unpack it"
        )
    return [Item(path, source, PurePosixPath(path.name))]


def _in_folder(source: str, exclude: Sequence[Path]) -> list[Item]:
    videos: list[Path] = []
    try:
        found = find_images(Path(source), videos)
    except OSError as exc:
        raise DataError(f"cannot read the folder {source}: {exc.strerror}; check its permissions") from exc
    relatives = sorted(image.relative_to(source).as_posix() for image in found)
    items = [Item(Path(source, r), os.path.join(source, r), PurePosixPath(r)) for r in relatives]
    what = f"the folder {source}"
    _leave_out(videos, what)
    return photographs(_some(_without(items, Path(source), exclude), what), what, Path(source))


def _matching(pattern: str, exclude: Sequence[Path]) -> list[Item]:
    """The items of a pattern such as `photos/**/*.jpg`; `relative` is the path below the part without wildcards."""
    fixed = _fixed_part(pattern)
    if "**" in Path(pattern).parts:
        matches = _recursive(pattern, fixed)
    else:
        matches = [m for m in glob.iglob(pattern) if os.path.isfile(m)]
    items = [
        Item(Path(m), m, PurePosixPath(Path(m).relative_to(fixed).as_posix()))
        for m in matches
        if Path(m).suffix.lower() in IMAGE_SUFFIXES
    ]
    items.sort(key=lambda item: item.relative.as_posix())
    what = f"the pattern {pattern}"
    _leave_out([Path(m) for m in matches if Path(m).suffix.lower() in VIDEO_SUFFIXES], what)
    return photographs(_some(_without(items, fixed, exclude), what), what, fixed)


def _recursive(pattern: str, fixed: Path) -> list[str]:
    """The images and videos that a pattern with `**` matches; each folder is visited once, so linked folders end."""
    parts = Path(pattern).parts[len(fixed.parts) :]
    prefix = "./" if pattern.startswith("./") else ""
    videos: list[Path] = []
    try:
        there = list(iter_images(fixed, videos)) + videos
    except OSError:  # no such folder
        return []
    return [f"{prefix}{path}" for path in there if _fits(path.relative_to(fixed).parts, parts)]


def _fits(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Whether a path matches a pattern, part by part; `**` stands for any number of folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_fits(parts[start:], pattern[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def _leave_out(videos: Sequence[Path], what: str) -> None:
    """Warn of videos among photographs."""
    if found := sorted(path for path in videos if kind_of(path) == VIDEO):
        log.warning(
            "%s: %s left out, such as %s; a video must be named as the source itself",
            one_line(what), counted(len(found), "video"), one_line(found[0].name),
        )  # fmt: skip


def photographs(items: list[Item], what: str, below: Path | None = None) -> list[Item]:
    """Leave out the pictures that hefkit made: results and calibration sets; see OwnPictures for `below`.

    Raises:
        DataError: no picture is left; `what` names the source in the message.
    """
    own = OwnPictures(below)
    kept = [item for item in items if item.path not in own]
    if not kept:
        raise DataError(
            f"{what} contains only pictures that hefkit made (results, a calibration set); expected the original "
            "photographs; name their folder"
        )
    if len(kept) < len(items):
        log.info(
            "%s left out: hefkit made them (results, calibration sets)", counted(len(items) - len(kept), "picture")
        )
    return kept


def _fixed_part(pattern: str) -> Path:
    """The folders of a pattern before the first wildcard."""
    parts = Path(pattern).parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:fixed])


def _listed(lines: Sequence[str], folder: str, what: str) -> list[Item]:
    """Items of a text list, whose paths may be those of another machine; see `places`."""
    if not lines:
        raise DataError(f"{what} is empty; expected one image path a line")
    places, guessed = find_lines(lines, folder)
    if guessed:
        log.warning(
            "%s: its paths, such as %s, are not on this machine; taking %s",
            one_line(what), one_line(lines[0]), one_line(places[0]),
        )  # fmt: skip
    return [Item(Path(place), place, _safe_relative(slashed(line))) for line, place in zip(lines, places, strict=True)]


def _safe_relative(line: str) -> PurePosixPath:
    """The normalised path; for an absolute path, or one with `..`, only the name."""
    path = PurePosixPath(os.path.normpath(line))
    if path.is_absolute() or ".." in path.parts or not path.name:
        return PurePosixPath(path.name if path.name not in ("", "..") else "image")
    return path


def _lines(raw: bytes, what: str) -> list[str]:
    """The paths of a text list, without comments and empty lines; any line ending, any encoding."""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):  # UTF-16, as PowerShell's > writes
        raw = decoded(raw).encode("utf-8", "replace")
    if len(raw) > MAX_LIST_BYTES or b"\0" in raw:
        raise DataError(f"{what} is not a text list; expected one image path a line")
    text = raw.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
    lines = [os.fsdecode(line.strip()) for line in text.split(b"\n")]
    return [line for line in lines if line and not line.startswith("#")]


def _without(items: list[Item], root: Path, exclude: Sequence[Path]) -> list[Item]:
    """Items outside the excluded folders that lie strictly below `root`."""
    base = os.path.realpath(root)
    for folder in exclude:
        below = os.path.relpath(os.path.realpath(folder), base)
        if below == os.curdir or below.split(os.sep)[0] == os.pardir:
            continue  # not inside the source
        inside = PurePosixPath(Path(below).as_posix())
        items = [item for item in items if not item.relative.is_relative_to(inside)]
    return items


def _some(items: list[Item], what: str) -> list[Item]:
    if not items:
        raise DataError(f"{what} contains no images; expected files with the suffixes {' '.join(sorted(READABLE))}")
    return items
