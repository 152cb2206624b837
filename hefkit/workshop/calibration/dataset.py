"""SOURCE of a calibration set -> its pictures: a data.yaml, a folder, a URL, or another of `hefkit.pictures.sources`.

No picture is opened here.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hefkit.errors import DataError
from hefkit.pictures.datayaml import SPLITS, is_data_yaml, read_data_yaml
from hefkit.pictures.places import ALIASES, SPLIT_FOLDER
from hefkit.pictures.sources import Item, find_items, photographs
from hefkit.workshop.calibration.remote import find_remote, is_remote

SPLIT_CHOICES = ("train", "val", "valid", "validation", "all")


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
    if is_remote(source):
        return _from_items(source, list(find_remote(source)), wanted)
    if is_data_yaml(source):
        dataset = _from_yaml(source, wanted)
    else:
        dataset = _from_items(source, find_items(source, [exclude]), wanted)
    items = photographs(_sorted_once(_outside(dataset.items, exclude)), source)
    return Dataset(items, dataset.split, dataset.splits)


def _from_items(source: str, items: list[Item], wanted: str | None) -> Dataset:
    groups = _grouped(source, items) if is_remote(source) or os.path.isdir(source) else {}
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
        if match := SPLIT_FOLDER.fullmatch(word):
            sure = "images" in words[max(i - 1, 0) : i + 2]
            if sure or i == 0:
                return ALIASES[match[1]], sure
    return None, False


def _from_yaml(source: str, wanted: str | None) -> Dataset:
    """The pictures of a data.yaml; only the splits that are used must exist."""
    data = read_data_yaml(source)
    chosen = _choose(source, wanted, data.splits)
    if chosen != "all":
        return Dataset(data.items(chosen), chosen, data.splits)
    there = [name for name in data.splits if data.has(name)] or list(data.splits)
    return Dataset([item for name in there for item in data.items(name)], chosen, data.splits)


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
