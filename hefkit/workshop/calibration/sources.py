"""Every SOURCE of a set -> the pictures to choose from. Pictures are not opened; videos are, for their frame count."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hefkit.cli import need
from hefkit.errors import DataError, UsageError
from hefkit.names import parse_names
from hefkit.pictures.datayaml import YAML_SUFFIXES
from hefkit.pictures.sources import Item, is_video
from hefkit.workshop.calibration.dataset import find_dataset


@dataclass(frozen=True)
class Sources:
    """The pictures to choose from."""

    items: list[Item]  # each file once
    splits: str  # for people: which splits there are and which is used; empty without splits
    val: list[Item]  # pictures of the val split, where another one is used
    names: dict[int, str] = field(default_factory=dict)  # of the classes, if a data.yaml has them


def find_sources(sources: Sequence[str], split: str | None, exclude: Path) -> Sources:
    """The pictures of all SOURCES that belong to `split`.

    Raises:
        DataError: one of them does not exist, has no such split, or no pictures.
    """
    items: dict[str, Item] = {}
    val: dict[str, Item] = {}
    words: list[str] = []
    names: dict[int, str] = {}
    for source in sources:
        if is_video(source) and Path(source).is_file():
            items.update({item.source: item for item in _video(source)})
            continue
        dataset = find_dataset(source, split, exclude)
        items.update({str(item.path): item for item in dataset.items})
        if dataset.splits:
            words.append(f"splits: {', '.join(dataset.splits)}; using {dataset.split}")
        if "val" in dataset.splits and dataset.split not in ("val", "all"):
            with contextlib.suppress(DataError):  # a split that was never downloaded
                val.update({str(item.path): item for item in find_dataset(source, "val", exclude).items})
        names = names or _names(source)
    return Sources(list(items.values()), "; ".join(dict.fromkeys(words)), list(val.values()), names)


def _video(source: str) -> list[Item]:
    need("numpy", "cv2")
    from hefkit.workshop.calibration.videos import frames_of  # late: --help and other sources work without OpenCV

    return frames_of(source)


def _names(source: str) -> dict[int, str]:
    """The class names of a data.yaml; empty for another source, or if the names are wrong."""
    if Path(source).suffix.lower() not in YAML_SUFFIXES:
        return {}
    with contextlib.suppress(UsageError):
        return parse_names(source)
    return {}
