"""Which files of a folder are pictures: by name only, nothing is opened. Standard library only."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger("hefkit")

_PHOTOGRAPHS = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".tif", ".tiff")
READABLE = frozenset((*_PHOTOGRAPHS, ".bmp", ".ppm", ".pgm", ".pnm"))
# HEIC and AVIF are found so that they are named with the reason, not passed over in silence
IMAGE_SUFFIXES = READABLE | {".heic", ".heif", ".avif"}


def find_images(folder: Path) -> list[Path]:
    """Every picture below `folder`, sorted by relative path with `/`: the same list on every machine.

    Raises:
        OSError: `folder` itself cannot be listed. A folder below it that cannot is named in a warning.
    """
    return sorted(iter_images(folder), key=lambda path: path.relative_to(folder).as_posix())


def iter_images(folder: Path) -> Iterator[Path]:
    """The same pictures, unsorted, as they are met.

    Hidden names are passed over. Linked folders are followed, but every folder is visited once: loops end,
    and a picture is reached by its plain path rather than through a link.
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
            elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
                yield here / entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
