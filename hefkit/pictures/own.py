"""Pictures that hefkit made, which are no photographs: results with boxes drawn in, calibration sets.

Standard library only. A folder of results has a `run.json`, a calibration set a `manifest.json`; both list what is
ours beside them. The live detector's pictures are known by their names.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from hefkit.files import own_json

RECORD, MANIFEST, PREVIEW = "run.json", "manifest.json", "preview.jpg"
SAVED_LIVE = re.compile(r"hefkit-\d{8}-\d{6}-\d{6}\.jpg")


class _Record(NamedTuple):
    files: frozenset[str]  # relative, with /
    folders: frozenset[str]  # ours as a whole


class OwnPictures:
    """`path in OwnPictures()`: whether hefkit made that picture; every folder's records are read once.

    Args:
        below: whoever names a folder of ours wants the pictures in it, if not its crops; those further down are ours.
    """

    def __init__(self, below: Path | None = None) -> None:
        self._root = None if below is None else os.path.abspath(below)
        self._known: dict[str, list[tuple[str, _Record]]] = {}  # folder -> (folder above or itself, its record)

    def __contains__(self, path: Path) -> bool:
        place = os.path.abspath(path)
        if SAVED_LIVE.fullmatch(path.name):
            return os.path.dirname(place) != self._root
        return any(_names(record, os.path.relpath(place, folder)) for folder, record in self._above(place))

    def _above(self, place: str) -> list[tuple[str, _Record]]:
        folder = os.path.dirname(place)
        if folder == place:
            return []
        if folder not in self._known:
            own, root = _read(Path(folder)), folder == self._root
            if own is not None and root:
                own = own._replace(files=frozenset())
            above = [] if root else self._above(folder)
            self._known[folder] = above if own is None else [(folder, own), *above]
        return self._known[folder]


def _names(record: _Record, relative: str) -> bool:
    path = PurePath(relative)
    return path.parts[0] in record.folders or path.as_posix() in record.files


def _read(folder: Path) -> _Record | None:
    """What the records in a folder call ours."""
    run, manifest = (own_json(folder / name) for name in (RECORD, MANIFEST))
    files = [*_texts(run.get("files")), *(_texts([image.get("file") for image in _dicts(manifest.get("images"))]))]
    if manifest:
        files.append(PREVIEW)
    return _Record(frozenset(files), frozenset(_texts(run.get("folders")))) if run or manifest else None


def _texts(values: object) -> list[str]:
    return [value for value in values if isinstance(value, str)] if isinstance(values, list) else []


def _dicts(values: object) -> list[dict[str, Any]]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []
