"""Where a run's files go: names without clashes, and never over a file that hefkit did not write.

Standard library only. `run.json` in a run folder says how the run was made and which pictures are ours;
only those may be replaced by the next run into the same folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from hefkit import __version__
from hefkit.errors import UsageError
from hefkit.files import fresh_folder
from hefkit.sources import Item

DEFAULT_ROOT = Path("runs", "predict")
DETECTIONS = "detections.jsonl"
CROPS = "crops"
RECORD = "run.json"
FORMAT = 1
MAX_RECORD_BYTES = 256 << 20
PICTURE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"))  # others become .jpg
_OURS = frozenset((CROPS, "labels", DETECTIONS, RECORD))  # no folder of the source takes these names


@dataclass(frozen=True)
class Plan:
    """Every name of a run before its first picture is read; lists run parallel to the items."""

    folder: Path
    pictures: list[PurePosixPath]  # below `folder`
    stems: list[str]  # of the crops: `crops/CLASS/STEM-1.jpg`
    earlier: list[str]  # pictures of earlier runs into this folder


def default_folder(model: Path) -> Path:
    """`runs/predict/NAME`, or `NAME-2` ... when that is taken."""
    return fresh_folder(DEFAULT_ROOT, model.stem.removesuffix(".emulated") or "model")


def plan_run(folder: Path, items: Sequence[Item], *, images: bool, crops: bool) -> Plan:
    """Names for the pictures and crops of every item.

    Raises:
        UsageError: a picture would replace a file that is not ours, or one of the photographs.
    """
    earlier, had_crops = _read_record(folder)
    pictures = unique(_picture_name(item.relative) for item in items)
    stems = [path.stem for path in unique(PurePosixPath(_short(item.relative.stem) + ".jpg") for item in items)]
    if images:
        _refuse_foreign(folder, pictures, earlier, items)
    if crops and not had_crops and (folder / CROPS).exists():
        raise UsageError(f"{folder / CROPS} exists and is not hefkit's; choose another --save-dir")
    return Plan(folder, pictures, stems, earlier)


def unique(wanted: Iterable[PurePosixPath]) -> list[PurePosixPath]:
    """The same paths, clashing ones as `NAME-2`, `NAME-3` ...; upper and lower case clash, as on Windows."""
    paths = list(wanted)
    first: dict[str, int] = {}
    for index, path in enumerate(paths):
        first.setdefault(_key(path), index)
    taken = set(first)
    numbers: dict[str, int] = {}
    for index, path in enumerate(paths):
        if first[_key(path)] == index:
            continue  # the first keeps its name, even where an earlier clash would have liked it
        number = numbers.get(_key(path), 2)
        while _key(candidate := path.with_name(f"{path.stem}-{number}{path.suffix}")) in taken:
            number += 1
        numbers[_key(path)] = number + 1
        taken.add(_key(candidate))
        paths[index] = candidate
    return paths


def write_record(path: Path, plan: Plan, written: Iterable[str], crops: bool, facts: dict[str, Any]) -> None:
    """Write `run.json`: how the run was made (`facts`), and which pictures in the folder are ours."""
    still_there = [name for name in plan.earlier if (plan.folder / name).is_file()]
    record = {
        "format": FORMAT,
        "tool": f"hefkit {__version__}",
        **facts,
        "crops": crops or (plan.folder / CROPS).is_dir(),
        "files": sorted({*still_there, *written}),
    }
    path.write_text(json.dumps(record, indent=1, ensure_ascii=True) + "\n", encoding="ascii")


def _picture_name(relative: PurePosixPath) -> PurePosixPath:
    """Where an annotated picture goes: the same tree and name, in a format that OpenCV can write."""
    if len(relative.parts) > 1 and relative.parts[0].casefold() in _OURS:
        relative = PurePosixPath(f"{relative.parts[0]}-2", *relative.parts[1:])
    return relative if relative.suffix.lower() in PICTURE_SUFFIXES else relative.with_suffix(".jpg")


def _short(stem: str) -> str:
    """A stem that leaves room for `-300.jpg` in the 255 bytes of a file name."""
    while len(os.fsencode(stem)) > 200:
        stem = stem[:-1]
    return stem


def _refuse_foreign(folder: Path, names: list[PurePosixPath], earlier: list[str], items: Sequence[Item]) -> None:
    there = [name for name in names if os.path.lexists(folder / name)]
    ours = {_key(PurePosixPath(name)) for name in earlier}
    photographs = {os.path.realpath(item.path) for item in items} if there else set()
    for name in there:
        path = folder / name
        if os.path.realpath(path) in photographs:
            raise UsageError(f"{path} is one of the photographs, and its result would replace it; choose a --save-dir")
        if _key(name) not in ours:
            raise UsageError(f"{path} exists and is not hefkit's, and would be replaced; choose another --save-dir")


def _read_record(folder: Path) -> tuple[list[str], bool]:
    """The pictures of earlier runs into this folder, and whether `crops` is ours."""
    path = folder / RECORD
    try:
        with open(path, "rb") as file:
            record = json.loads(file.read(MAX_RECORD_BYTES))
        if not record["tool"].startswith("hefkit ") or record["format"] != FORMAT:
            raise ValueError(record["format"])
        return [str(name) for name in record["files"]], record["crops"] is True
    except (FileNotFoundError, NotADirectoryError):
        return [], False
    except OSError as exc:
        raise UsageError(f"cannot read {path}: {exc.strerror}; choose another --save-dir") from exc
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise UsageError(f"{path} is not a record that this hefkit wrote; choose another --save-dir") from exc


def _key(path: PurePosixPath) -> str:
    return path.as_posix().casefold()
