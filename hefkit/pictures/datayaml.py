"""The `data.yaml` of a YOLO dataset -> its splits and their pictures. Standard library, and PyYAML when one is read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hefkit.errors import DataError
from hefkit.files import existing, read_start
from hefkit.names import MAX_YAML_BYTES, plain_yaml
from hefkit.pictures.places import ALIASES, find_place
from hefkit.pictures.sources import Item, find_items, photographs
from hefkit.text import counted, decoded, log, one_line

YAML_SUFFIXES = (".yaml", ".yml")
NOTHING = ("", "~", "null", "Null", "NULL")  # how YAML writes that there is no value
SPLITS = ("train", "val", "test")
DETECT_ON = ("val", "test", "train")  # detection takes the first of these splits that exists


@dataclass(frozen=True)
class DataYaml:
    """What a data.yaml says about its pictures; no other file has been opened."""

    source: str  # as given
    places: dict[str, list[str]]  # split -> folders, lists or pictures, as written
    root: str | None  # its `path:`
    described: dict[str, Any]  # the whole file

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that it names."""
        return tuple(name for name in SPLITS if name in self.places)

    def has(self, split: str) -> bool:
        """Whether one of the places of a split exists; exports often name a test split that was never downloaded."""
        folder = os.path.dirname(self.source)
        return any(find_place(place, folder, self.root) for place in self.places.get(split, ()))

    def items(self, split: str) -> list[Item]:
        """The pictures of a split.

        Raises:
            DataError: a place does not exist, or has no pictures.
        """
        return [item for place in self.places[split] for item in self._at(split, place)]

    def _at(self, split: str, place: str) -> Iterator[Item]:
        folder = os.path.dirname(self.source)
        found = find_place(place, folder, self.root)
        if found is None:
            bases = [folder, *([] if self.root is None else [os.path.join(folder, self.root)]), ""]
            tried = ", ".join(dict.fromkeys(os.path.join(base, place) for base in bases))
            raise DataError(
                f"{self.source}: {split} is {one_line(place)}, which does not exist; looked for {one_line(tried)}; "
                "correct the path, or name the folder of the pictures"
            )
        items = find_items(found[0])
        if found[1]:
            log.warning(
                "%s: %s is %s, which is not on this machine; taking %s (%s)",
                one_line(self.source), split, one_line(place), one_line(found[0]), counted(len(items), "picture"),
            )  # fmt: skip
        yield from items


def is_data_yaml(source: str) -> bool:
    """Whether SOURCE is the file of a dataset."""
    return Path(source).suffix.lower() in YAML_SUFFIXES and existing(Path(source))


def read_data_yaml(source: str) -> DataYaml:
    """Read a data.yaml.

    Raises:
        DataError: it cannot be read, or names no pictures.
        ToolchainError: PyYAML is missing.
    """
    described = _load(Path(source))
    places: dict[str, list[str]] = {}
    for key, name in ALIASES.items():
        if described.get(key):
            places.setdefault(name, []).extend(_texts(source, key, described[key]))
    if not places:
        raise DataError(f"{source} names no pictures; expected train:, val: or test: with a folder, list or image")
    roots = [] if described.get("path") is None else _texts(source, "path", described["path"])
    return DataYaml(source, places, roots[0] if roots else None, described)


def detection_items(source: str, exclude: Sequence[Path] = (), *, videos: bool = False) -> list[Item]:
    """`find_items`, and the val pictures of a data.yaml (test or train where it has no val)."""
    if not is_data_yaml(source):
        return find_items(source, exclude, videos=videos)
    data = read_data_yaml(source)
    split = next((name for name in DETECT_ON if data.has(name)), data.splits[0])
    items = photographs(data.items(split), source)
    log.info("%s: %s of its %s split", one_line(source), counted(len(items), "picture"), split)
    return items


def _load(path: Path) -> dict[str, Any]:
    try:
        described = plain_yaml(decoded(read_start(path, MAX_YAML_BYTES + 1)))
    except OSError as exc:
        raise DataError(f"cannot read {path}: {exc.strerror}; expected a data.yaml") from exc
    except ValueError as exc:
        raise DataError(f"{path} is not valid YAML ({one_line(exc, 200)}); expected a data.yaml") from exc
    if not isinstance(described, dict):
        raise DataError(f"{path} is not a dataset file; expected lines such as `train: images/train`")
    return {key: None if value in NOTHING else value for key, value in described.items()}


def _texts(source: str, key: str, value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str) and _is_possible(item) for item in values):
        shown = one_line(value, 80) if isinstance(value, str) else "not text"  # a list may be endless
        raise DataError(f"{source}: {key} is {shown}; expected a path or a list of paths")
    return values


def _is_possible(path: str) -> bool:
    """Whether the operating system can have a file of this name."""
    try:
        return 0 not in os.fsencode(path) and bool(path)
    except UnicodeEncodeError:  # half of a surrogate pair, which YAML allows
        return False
