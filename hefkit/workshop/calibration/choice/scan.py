"""Look at every picture of a dataset once: from the cache where it is known, else by workers; into one table."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hefkit.pictures.sources import Item
from hefkit.results.progress import Progress
from hefkit.text import counted, log
from hefkit.workshop.calibration.choice.cache import Cache, cache_file, stamp
from hefkit.workshop.calibration.choice.look import VALUES, Look, Target, look_at_targets, unpack
from hefkit.workshop.calibration.remote import RemoteItem, is_remote, place_of
from hefkit.workshop.calibration.stage import Workers
from hefkit.workshop.calibration.videos import VideoFrame

CHUNK = 16  # pictures a thread looks at in one task


class Lookers(Protocol):
    """Something that calls look_at_targets for many groups: threads here, or a cluster."""

    def look(self, groups: Sequence[Sequence[Target]]) -> Iterable[tuple[int, list[bytes | str]]]:
        """(number of the group, its result), in any order."""


@dataclass(frozen=True)
class Table:
    """The looks of many pictures; row i belongs to picture i."""

    size_wh: np.ndarray  # (n, 2) int64; 0 x 0 where the picture cannot be read
    phash: np.ndarray  # (n,) uint64
    values: np.ndarray  # (n, VALUES) float32, in steps
    labelled: np.ndarray  # (n,) bool
    object_row: np.ndarray  # (m,) int64: the picture of each object, ascending
    object_class: np.ndarray  # (m,) int64
    object_share: np.ndarray  # (m,) float32, of the picture's area
    reasons: dict[int, str]  # row -> why the picture cannot be read

    @property
    def usable(self) -> np.ndarray:
        """(n,) bool: readable."""
        return self.size_wh[:, 0] > 0

    def rows(self, rows: Sequence[int]) -> Table:
        """Only these rows, in this order."""
        index = np.asarray(rows, np.int64)
        start, end = (np.searchsorted(self.object_row, index, side) for side in ("left", "right"))
        objects = np.concatenate([np.zeros(0, np.int64), *map(np.arange, start, end)])
        new_row = np.repeat(np.arange(len(rows)), end - start)
        return Table(
            self.size_wh[index],
            self.phash[index],
            self.values[index],
            self.labelled[index],
            new_row,
            self.object_class[objects],
            self.object_share[objects],
            {new: self.reasons[old] for new, old in enumerate(rows) if old in self.reasons},
        )


def table_of(looks: Sequence[Look | str]) -> Table:
    """A table of looks; a text is the reason why a picture cannot be read."""
    table = _Filling(len(looks))
    for row, look in enumerate(looks):
        table.put(row, look)
    return table.done()


def scan(items: Sequence[Item], lookers: Lookers, bar: Progress) -> Table:
    """Look at every item."""
    targets = [_target(item) for item in items]
    stamps = [
        (_key(target), item.stamp or None if isinstance(item, RemoteItem) else stamp(target[0]))
        for target, item in zip(targets, items, strict=True)
    ]
    table = _Filling(len(items))
    with Cache(cache_file()) as cache:
        known = cache.known(stamps)
        for row, look in known.items():
            table.put(row, look if isinstance(look, str) else unpack(look))
            bar.step()
        todo = [row for row in range(len(items)) if row not in known]
        if known:
            log.info("%s known from earlier runs, %d to look at", counted(len(known), "picture"), len(todo))
        groups = _groups(targets, todo)
        for number, results in lookers.look([[targets[row] for row in group] for group in groups]):
            cache.remember((*stamps[row], look) for row, look in zip(groups[number], results, strict=True))
            for row, look in zip(groups[number], results, strict=True):
                table.put(row, look if isinstance(look, str) else unpack(look))
                bar.step()
    return table.done()


def _target(item: Item) -> Target:
    return place_of(item), item.number if isinstance(item, VideoFrame) else None


def _key(target: Target) -> str:
    """The name of a target in the cache."""
    path = target[0] if is_remote(target[0]) else os.path.abspath(target[0])
    return path if target[1] is None else f"{path}\0{target[1]}"


def _groups(targets: Sequence[Target], todo: Sequence[int]) -> list[list[int]]:
    """Rows that one task looks at: CHUNK pictures, or all frames of a video."""
    pictures = [row for row in todo if targets[row][1] is None]
    groups = [pictures[start : start + CHUNK] for start in range(0, len(pictures), CHUNK)]
    videos: dict[str, list[int]] = {}
    for row in todo:
        if targets[row][1] is not None:
            videos.setdefault(targets[row][0], []).append(row)
    return groups + list(videos.values())


class Threads:
    """Lookers on this machine."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers

    def look(self, groups: Sequence[Sequence[Target]]) -> Iterator[tuple[int, list[bytes | str]]]:
        """See Lookers."""
        return enumerate(self._workers.map(look_at_targets, groups))


class _Filling:
    """A table that is filled in any order."""

    def __init__(self, count: int) -> None:
        self._size_wh = np.zeros((count, 2), np.int64)
        self._phash = np.zeros(count, np.uint64)
        self._values = np.zeros((count, VALUES), np.float32)
        self._labelled = np.zeros(count, bool)
        self._objects: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._reasons: dict[int, str] = {}

    def put(self, row: int, look: Look | str) -> None:
        if isinstance(look, str):
            self._reasons[row] = look
            return
        self._size_wh[row], self._phash[row], self._values[row] = look.size_wh, look.phash, look.values
        self._labelled[row] = look.labelled
        if len(look.class_id):
            self._objects[row] = look.class_id, look.share

    def done(self) -> Table:
        rows = sorted(self._objects)
        classes = [self._objects[row][0] for row in rows]
        return Table(
            self._size_wh,
            self._phash,
            self._values,
            self._labelled,
            np.repeat(np.array(rows, np.int64), [len(part) for part in classes]),
            np.concatenate([np.zeros(0, np.int64), *classes]).astype(np.int64),
            np.concatenate([np.zeros(0, np.float32), *(self._objects[row][1] for row in rows)]),
            self._reasons,
        )
