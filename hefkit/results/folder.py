"""The names of a run's files: all different, and never those of files that hefkit did not write.

Standard library only. `run.json` in a run folder says how the run was made and which files belong to it; only those
may be replaced by the next run into the same folder.
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
from hefkit.files import MAX_JSON_BYTES, is_plain, read_start
from hefkit.pictures.find import RECORD
from hefkit.pictures.sources import Item
from hefkit.staging.journal import settle
from hefkit.staging.stage import fresh_folder

DEFAULT_ROOT = Path("runs", "predict")
JSONL, CSV, COCO, TXT = "jsonl", "csv", "coco", "txt"
FORMATS = (JSONL, CSV, COCO, TXT)
FILES = {JSONL: "detections.jsonl", CSV: "detections.csv", COCO: "coco.json"}  # format -> its file
CROPS = "crops"
LABELS = "labels"  # the folder of TXT
FORMAT = 1
PICTURE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
)  # written as they are; others become .jpg
_RESERVED = frozenset((CROPS, LABELS, *FILES.values(), RECORD))  # not available for pictures of the source


@dataclass(frozen=True)
class OutputOptions:
    """What a run writes, besides its record `run.json`."""

    formats: tuple[str, ...] = (JSONL,)
    images: bool = True
    crops: bool = False
    video: bool = False  # one annotated .mp4; only if the source is a video

    @property
    def folders(self) -> list[str]:
        """Folders in which all files belong to the run."""
        return [name for name, wanted in ((CROPS, self.crops), (LABELS, TXT in self.formats)) if wanted]


@dataclass(frozen=True)
class RunPlan:
    """All file names of a run, known before the first picture is read; lists are parallel to `items`."""

    folder: Path
    options: OutputOptions
    items: Sequence[Item]
    pictures: list[PurePosixPath]  # below `folder`; for a video the one .mp4
    stems: list[str]  # of crops and labels: `crops/CLASS/STEM-1.jpg`
    earlier: list[str]  # files of earlier runs into this folder
    earlier_folders: list[str]


def default_folder(model: Path) -> Path:
    """`runs/predict/NAME`, or `NAME-2` ... if it exists."""
    return fresh_folder(DEFAULT_ROOT, model.stem.removesuffix(".emulated") or "model")


def plan_run(folder: Path, items: Sequence[Item], options: OutputOptions) -> RunPlan:
    """Choose the names of the pictures, crops and labels of every item.

    Raises:
        UsageError: a file would replace one that hefkit did not write, or one of the photographs.
    """
    settle(folder)
    earlier, folders = _read_record(folder)
    pictures = unique(_picture_name(item.relative, video=options.video) for item in items)
    stems = [path.stem for path in unique(PurePosixPath(_short(item.relative.stem) + ".jpg") for item in items)]
    written = [PurePosixPath(FILES[name]) for name in options.formats if name in FILES]
    _refuse_foreign(folder, written + (pictures if options.images or options.video else []), earlier, items)
    for name in options.folders:
        if name not in folders and (folder / name).exists():
            raise UsageError(f"{folder / name} exists and is not hefkit's; choose another --save-dir")
    return RunPlan(folder, options, items, pictures, stems, earlier, folders)


def unique(wanted: Iterable[PurePosixPath]) -> list[PurePosixPath]:
    """The same paths, with equal ones renamed to `NAME-2`, `NAME-3` ...; case is ignored, as on Windows."""
    paths = list(wanted)
    first: dict[str, int] = {}
    for index, path in enumerate(paths):
        first.setdefault(_key(path), index)
    taken = set(first)
    numbers: dict[str, int] = {}
    for index, path in enumerate(paths):
        if first[_key(path)] == index:
            continue  # the first one keeps its name, even if an earlier renamed path would need it
        number = numbers.get(_key(path), 2)
        while _key(candidate := path.with_name(f"{path.stem}-{number}{path.suffix}")) in taken:
            number += 1
        numbers[_key(path)] = number + 1
        taken.add(_key(candidate))
        paths[index] = candidate
    return paths


def write_record(path: Path, plan: RunPlan, written: Iterable[str], facts: dict[str, Any]) -> None:
    """Write `run.json`: how the run was made (`facts`), and which files and folders belong to it."""
    earlier, earlier_folders = _read_record(plan.folder)  # another run may have ended since the plan was made
    still_there = [name for name in {*plan.earlier, *earlier} if (plan.folder / name).is_file()]
    folders = {*plan.earlier_folders, *earlier_folders}
    folders = {*plan.options.folders, *(name for name in folders if (plan.folder / name).is_dir())}
    record = {
        "format": FORMAT,
        "tool": f"hefkit {__version__}",
        **facts,
        "folders": sorted(folders),
        "files": sorted({*still_there, *written}),
    }
    path.write_text(json.dumps(record, indent=1, ensure_ascii=True) + "\n", encoding="ascii")


def _picture_name(relative: PurePosixPath, *, video: bool) -> PurePosixPath:
    """The name of an annotated picture: the same tree and name, with a suffix that OpenCV can write."""
    if relative.parts[0].casefold() in _RESERVED:
        relative = PurePosixPath(f"{relative.parts[0]}-2", *relative.parts[1:])
    if video:
        return relative.with_suffix(".mp4")
    return relative if relative.suffix.lower() in PICTURE_SUFFIXES else relative.with_suffix(".jpg")


def _short(stem: str) -> str:
    """The stem cut to 200 bytes: `-300.jpg` is added, and a file name has at most 255."""
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
            raise UsageError(f"{path} is a source picture, and its result would replace it; choose another --save-dir")
        if _key(name) not in ours:
            raise UsageError(f"{path} exists and is not hefkit's, and would be replaced; choose another --save-dir")


def _read_record(folder: Path) -> tuple[list[str], list[str]]:
    """The files and the whole folders that earlier runs wrote into this folder."""
    path = folder / RECORD
    try:
        record = json.loads(read_start(path, MAX_JSON_BYTES))
        if not record["tool"].startswith("hefkit ") or record["format"] != FORMAT:
            raise ValueError(record["format"])
        files, folders = ([name for name in record[key] if is_plain(name)] for key in ("files", "folders"))
        return files, folders
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    except OSError as exc:
        raise UsageError(f"cannot read {path}: {exc.strerror}; choose another --save-dir") from exc
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise UsageError(f"{path} was not written by this version of hefkit; choose another --save-dir") from exc


def _key(path: PurePosixPath) -> str:
    return path.as_posix().casefold()
