"""SOURCE of a calibration set -> its pictures: a data.yaml, a folder, or another source of `hefkit.pictures.sources`.

Standard library only, except PyYAML for a data.yaml. No picture is opened here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from hefkit.errors import DataError
from hefkit.files import existing, read_start
from hefkit.names import MAX_YAML_BYTES, plain_yaml
from hefkit.pictures.sources import Item, find_items, photographs
from hefkit.text import one_line

YAML_SUFFIXES = (".yaml", ".yml")
NOTHING = ("", "~", "null", "Null", "NULL")  # how YAML writes that there is no value
SPLITS = ("train", "val", "test")
SPLIT_CHOICES = ("train", "val", "valid", "validation", "all")
ALIASES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_SPLIT_FOLDER = re.compile(rf"({'|'.join(ALIASES)})(?:\d{{4}})?")  # also train2017, as COCO names it


@dataclass(frozen=True)
class Dataset:
    """The pictures to choose from."""

    items: list[Item]  # sorted by path, each file once
    split: str  # "train" | "val" | "test" | "all"
    splits: tuple[str, ...]  # the splits that SOURCE has; empty where it has none


def find_dataset(source: str, split: str | None, exclude: Path) -> Dataset:
    """The pictures of SOURCE that belong to `split`.

    Args:
        source: SOURCE as given.
        split: what the user asked for; None means train if SOURCE has a train split, else all.
        exclude: the output folder; its pictures are left out, as are those of every set that hefkit made.

    Raises:
        DataError: SOURCE does not exist, has no such split, or no pictures.
    """
    wanted = None if split is None else ALIASES.get(split, split)
    if Path(source).suffix.lower() in YAML_SUFFIXES and existing(Path(source)):
        dataset = _from_yaml(source, wanted)
    else:
        dataset = _from_items(source, find_items(source, [exclude]), wanted)
    items = photographs(_sorted_once(_outside(dataset.items, exclude)), source)
    return Dataset(items, dataset.split, dataset.splits)


def _from_items(source: str, items: list[Item], wanted: str | None) -> Dataset:
    groups = _grouped(source, items) if os.path.isdir(source) else {}
    splits = tuple(name for name in SPLITS if name in groups)
    chosen = _choose(source, wanted, splits)
    return Dataset(items if chosen == "all" else groups[chosen], chosen, splits)


def _choose(source: str, wanted: str | None, splits: Sequence[str]) -> str:
    """The split to use; raises DataError where SOURCE does not have the wanted one."""
    if wanted is None:
        return "train" if "train" in splits else "all"
    if wanted != "all" and wanted not in splits:
        there = f"it has {', '.join(splits)}" if splits else "it is not divided into splits"
        raise DataError(f"{source} has no split {wanted}; {there}; choose another --split, or all")
    return wanted


def _grouped(source: str, items: list[Item]) -> dict[str, list[Item]]:
    """Split -> pictures, by the folders below SOURCE; empty where these are not splits.

    `images/train` and `train/images` are certain to be splits. A folder `train/` alone counts only if there is another
    split, or if it holds all pictures: in a dataset of vehicles it may be the class train.
    """
    above = ("images",) if Path(source).resolve().name.lower() == "images" else ()
    groups: dict[str, list[Item]] = {}
    certain, outside = False, 0
    for item in items:
        name, sure = _split_of((*above, *item.relative.parts[:-1]))
        certain |= sure
        if name is None:
            outside += 1
        else:
            groups.setdefault(name, []).append(item)
    return groups if certain or not outside or len(groups) > 1 else {}


def _split_of(folders: Sequence[str]) -> tuple[str | None, bool]:
    """The split that these folders name, and whether a folder `images` is directly above or below it."""
    words = [folder.lower() for folder in folders]
    for i, word in enumerate(words):
        if match := _SPLIT_FOLDER.fullmatch(word):
            sure = "images" in words[max(i - 1, 0) : i + 2]
            if sure or i == 0:
                return ALIASES[match[1]], sure
    return None, False


def _from_yaml(source: str, wanted: str | None) -> Dataset:
    """The pictures of a data.yaml; only the splits that are used must exist."""
    described = _load_yaml(Path(source))
    places: dict[str, list[str]] = {}
    for key, name in ALIASES.items():
        if described.get(key):
            places.setdefault(name, []).extend(_texts(source, key, described[key]))
    if not places:
        raise DataError(f"{source} names no pictures; expected train:, val: or test: with a folder, list or image")
    bases = _bases(source, described.get("path"))
    splits = tuple(name for name in SPLITS if name in places)
    chosen = _choose(source, wanted, splits)
    if chosen != "all":
        return Dataset(list(_items_at(source, chosen, places[chosen], bases)), chosen, splits)
    # exports often name a test split that was never downloaded
    there = [name for name in splits if any(_find(place, bases) for place in places[name])] or list(splits)
    items = [item for name in there for item in _items_at(source, name, places[name], bases)]
    return Dataset(items, chosen, splits)


def _load_yaml(path: Path) -> dict[str, Any]:
    try:
        described = plain_yaml(read_start(path, MAX_YAML_BYTES + 1))
    except OSError as exc:
        raise DataError(f"cannot read {path}: {exc.strerror}; expected a data.yaml") from exc
    except ValueError as exc:
        raise DataError(f"{path} is not valid YAML ({one_line(exc, 200)}); expected a data.yaml") from exc
    if not isinstance(described, dict):
        raise DataError(f"{path} is not a dataset file; expected lines such as `train: images/train`")
    return {key: None if value in NOTHING else value for key, value in described.items()}


def _texts(source: str, key: str, value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str) and item and "\0" not in item for item in values):
        shown = one_line(value, 80) if isinstance(value, str) else "not text"  # a list may be endless
        raise DataError(f"{source}: {key} is {shown}; expected a path or a list of paths")
    return values


def _bases(source: str, path: Any) -> list[str]:
    """Where relative paths may start: the yaml's folder, then its `path:`."""
    folder = os.path.dirname(source)
    if not path:
        return [folder]
    return [folder, os.path.join(folder, _texts(source, "path", path)[0])]


def _items_at(source: str, split: str, places: Sequence[str], bases: Sequence[str]) -> Iterator[Item]:
    for place in places:
        found = _find(place, bases)
        if found is None:
            tried = ", ".join(dict.fromkeys(os.path.join(base, place) for base in bases))
            raise DataError(f"{source}: {split} is {place}, which does not exist; looked for {tried}")
        yield from find_items(found)


def _find(place: str, bases: Sequence[str]) -> str | None:
    """`place` below the first base where it exists; Roboflow writes `../train/images`, so last without the `../`."""
    for text in (place, place.removeprefix("../")):
        for base in bases:
            if existing(Path(candidate := os.path.join(base, text))):
                return candidate
    return None


def _outside(items: list[Item], folder: Path) -> list[Item]:
    """Items that do not lie in `folder`, symbolic links resolved."""
    forbidden = Path(os.path.realpath(folder))
    inside_folder: dict[str, bool] = {}  # folder of a picture -> whether it lies in `folder`

    def inside(item: Item) -> bool:
        parent = os.path.dirname(item.path)
        if parent not in inside_folder:
            inside_folder[parent] = Path(os.path.realpath(parent)).is_relative_to(forbidden)
        return inside_folder[parent]

    return [item for item in items if not inside(item)]


def _sorted_once(items: list[Item]) -> list[Item]:
    """Sorted by path, every file once, so that the order in SOURCE does not matter."""
    unique = {os.path.abspath(item.path): item for item in reversed(items)}
    return sorted(unique.values(), key=lambda item: PurePosixPath(item.source).as_posix())
