"""Which files are photographs: image files below a folder, without the pictures that hefkit itself made.

Standard library only, and no image file is opened: files are recognised by their names, and hefkit's own pictures by
the records beside them. A folder of results has a `run.json`, a calibration set a `manifest.json`; both list the files
that belong to them. The pictures that the live detector saves are recognised by their names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from hefkit.files import own_json
from hefkit.text import log

READABLE = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".tif", ".tiff", ".bmp", ".ppm", ".pgm", ".pnm")
)
# HEIC and AVIF are found, so that an error names them; files with other suffixes are ignored
IMAGE_SUFFIXES = READABLE | {".heic", ".heif", ".avif"}
VIDEO_SUFFIXES = frozenset(
    (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".mts", ".m2ts", ".flv", ".f4v")
) | frozenset((".3gp", ".3g2", ".mjpeg", ".mjpg", ".h264", ".264", ".h265", ".265", ".hevc", ".vob", ".ogv", ".asf"))

RECORD, MANIFEST, PREVIEW, COVERAGE = "run.json", "manifest.json", "preview.jpg", "coverage.png"
SAVED_LIVE = re.compile(r"hefkit-\d{8}-\d{6}-\d{6}\.jpg")


def find_images(folder: Path, videos: list[Path] | None = None) -> list[Path]:
    """Every image file below `folder`, sorted by relative path with `/`: the same list on every machine.

    Args:
        folder: searched with everything below it.
        videos: files with names of videos are appended to this list.

    Raises:
        OSError: `folder` itself cannot be listed. For a folder below it a warning is logged.
    """
    return sorted(iter_images(folder, videos), key=lambda path: path.relative_to(folder).as_posix())


def iter_images(folder: Path, videos: list[Path] | None = None) -> Iterator[Path]:
    """Yield the same files, unsorted.

    Hidden files and folders are left out. Linked folders are followed, but each folder is visited once, so loops
    end. A file that can be reached directly and through a link is yielded by its direct path.
    """
    plain, linked = [folder], list[Path]()
    seen = set()
    while plain or linked:
        here = plain.pop() if plain else linked.pop(linked.index(min(linked)))
        try:
            status = os.stat(here)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(here) as listing:
                entries = [entry for entry in listing if not entry.name.startswith(".")]
        except OSError as exc:
            if here == folder:
                raise
            log.warning("the folder %s cannot be read (%s); its pictures are left out", here, exc.strerror)
            continue
        for entry in entries:
            if _is_folder(entry):
                (linked if entry.is_symlink() else plain).append(here / entry.name)
            elif (suffix := os.path.splitext(entry.name)[1].lower()) in IMAGE_SUFFIXES:
                yield here / entry.name
            elif videos is not None and suffix in VIDEO_SUFFIXES:
                videos.append(here / entry.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


class _Record(NamedTuple):
    """What one folder's records list as made by hefkit."""

    files: frozenset[str]  # relative, with /
    folders: frozenset[str]  # everything below them


class OwnPictures:
    """`path in OwnPictures()`: whether hefkit made that picture. The records of each folder are read once.

    Args:
        below: the folder that the user named as SOURCE. The files directly listed in its own record count as
            photographs, because the user asked for them; its crops and everything in folders below do not.
    """

    def __init__(self, below: Path | None = None) -> None:
        self._root = None if below is None else os.path.abspath(below)
        self._known: dict[str, list[tuple[str, _Record]]] = {}  # folder -> [(it or a folder above it, its record)]

    def __contains__(self, path: Path) -> bool:
        place = os.path.abspath(path)
        if SAVED_LIVE.fullmatch(path.name):
            return os.path.dirname(place) != self._root
        return any(_lists(record, os.path.relpath(place, folder)) for folder, record in self._above(place))

    def _above(self, place: str) -> list[tuple[str, _Record]]:
        """The records in the folders above a path, the nearest first."""
        folder = os.path.dirname(place)
        if folder == place:
            return []
        if folder not in self._known:
            own, root = _read_records(Path(folder)), folder == self._root
            if own is not None and root:
                own = own._replace(files=frozenset())
            above = [] if root else self._above(folder)
            self._known[folder] = above if own is None else [(folder, own), *above]
        return self._known[folder]


def _lists(record: _Record, relative: str) -> bool:
    path = PurePath(relative)
    return path.parts[0] in record.folders or path.as_posix() in record.files


def _read_records(folder: Path) -> _Record | None:
    """What `run.json` and `manifest.json` in a folder list; None where there is neither."""
    run, manifest = (own_json(folder / name) for name in (RECORD, MANIFEST))
    files = [*_texts(run.get("files")), *(_texts([image.get("file") for image in _dicts(manifest.get("images"))]))]
    if manifest:
        files += [PREVIEW, COVERAGE]
    return _Record(frozenset(files), frozenset(_texts(run.get("folders")))) if run or manifest else None


def _texts(values: object) -> list[str]:
    return [value for value in values if isinstance(value, str)] if isinstance(values, list) else []


def _dicts(values: object) -> list[dict[str, Any]]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []
