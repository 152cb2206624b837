"""Which pictures make the set, and in which order.

`diverse`: near-duplicates are left out. Then classes, sizes of objects and pictures without objects get their share,
and the rest is spread. Each step takes the picture that is farthest from those already chosen (farthest-point
sampling), by the numbers of `look`. The first is drawn by the seed.
"""

from __future__ import annotations

import random
from collections import defaultdict

import numpy as np

from hefkit.spec import InputSpec
from hefkit.workshop.calibration.choice.look import BLUE_YELLOW, BRIGHTNESS, RED_GREEN, STEPS
from hefkit.workshop.calibration.choice.scan import Table

# near-duplicates: hashes differ in at most SAME_BITS bits, and mean brightness and colours by at most SAME_LEVEL
SAME_BITS = 3
SAME_LEVEL = 8.0  # grey values
BANDS = tuple(range(0, 64, 16))  # hashes that differ in 3 bits are equal in one of four parts

AREAS = (32**2, 96**2)  # pixels of the input: COCO's limits of small, medium and large objects
SIZES = ("small", "medium", "large")


def in_order(count: int, wanted: int, select: str, seed: int) -> list[int]:
    """`random` or `first`: every row; the first `wanted` are the set, the others replace unreadable ones."""
    shuffle = random.Random(seed).shuffle
    order = list(range(count))
    if select == "random":
        shuffle(order)
        return order
    first = order[:wanted]
    shuffle(first)
    return first + order[wanted:]


def diverse(table: Table, wanted: int, seed: int, spec: InputSpec, near: np.ndarray) -> list[int]:
    """Every readable row; the first `wanted` are the set, the others replace those that fail later.

    Args:
        table: the looks.
        wanted: pictures in the set.
        seed: draws the first picture, and the order of the set.
        spec: the input, for the sizes of objects in it.
        near: (n,) bool, the result of `near_duplicates`.
    """
    generator = random.Random(seed)
    rows = np.flatnonzero(table.usable & ~near)
    choice = _Choice(table.values[rows], generator)
    if table.labelled.any():
        for mask, share in _strata(table, rows, wanted, spec):
            choice.until(mask, share, wanted)
        empty = ~np.isin(rows, table.object_row)
        few = max(wanted // 4 - int(choice.taken[empty].sum()), 0)  # at most a quarter of the set has no objects
        choice.until(~empty, wanted, wanted - min(few, int((empty & ~choice.taken).sum())))
    choice.until(np.ones(len(rows), bool), wanted, wanted)
    chosen = rows[choice.order].tolist()
    spare = rows[~choice.taken].tolist()
    copies = np.flatnonzero(near & table.usable).tolist()
    generator.shuffle(copies)
    missing = max(wanted - len(chosen), 0)
    chosen += copies[:missing]
    generator.shuffle(chosen)
    generator.shuffle(spare)
    return chosen + spare + copies[missing:]


def near_duplicates(table: Table) -> np.ndarray:
    """(n,) bool: whether a picture looks like an earlier one that was kept, with objects of the same classes."""
    near = np.zeros(len(table.phash), bool)
    colours = table.values[:, [BRIGHTNESS, RED_GREEN, BLUE_YELLOW]] * STEPS[[BRIGHTNESS, RED_GREEN, BLUE_YELLOW]]
    classes: dict[int, set[int]] = defaultdict(set)
    for row, class_id in zip(table.object_row.tolist(), table.object_class.tolist(), strict=True):
        classes[row].add(class_id)
    kinds = {row: frozenset(found) for row, found in classes.items()}
    kept: dict[tuple[int, int], list[int]] = defaultdict(list)  # (part, its bits) -> rows
    hashes = table.phash.tolist()
    for row in np.flatnonzero(table.usable).tolist():
        bits = hashes[row]
        keys = [(band, bits >> band & 0xFFFF) for band in BANDS]
        near[row] = any(
            (bits ^ hashes[other]).bit_count() <= SAME_BITS
            and kinds.get(row) == kinds.get(other)
            and float(np.abs(colours[row] - colours[other]).max()) <= SAME_LEVEL
            for key in keys
            for other in kept[key]
        )
        if not near[row]:
            for key in keys:
                kept[key].append(row)
    return near


def object_sizes(table: Table, spec: InputSpec) -> np.ndarray:
    """(m,) int64: 0 small, 1 medium, 2 large, of each object as it will be in the input."""
    width, height = (table.size_wh[table.object_row].T).astype(np.float64)
    in_h, in_w = spec.size
    area: np.ndarray = np.full(len(width), float(in_h * in_w))
    if spec.fit == "letterbox":
        area = width * height * np.minimum(in_h / np.maximum(height, 1), in_w / np.maximum(width, 1)) ** 2
    return np.digitize(table.object_share * area, AREAS)


def _strata(table: Table, rows: np.ndarray, wanted: int, spec: InputSpec) -> list[tuple[np.ndarray, int]]:
    """(which of `rows`, how many of them the set must have), the rarest first.

    Example: a set of 64 with two classes must have 8 of each class, 8 of each size, and 4 without objects.
    """
    groups: list[tuple[np.ndarray, int]] = []
    classes = np.unique(table.object_class)
    for class_id in classes.tolist():
        has = np.isin(rows, table.object_row[table.object_class == class_id])
        groups.append((has, max(wanted // (4 * len(classes)), 1)))
    sizes = object_sizes(table, spec)
    for size in range(len(SIZES)):
        groups.append((np.isin(rows, table.object_row[sizes == size]), wanted // 8))
    groups.append((~np.isin(rows, table.object_row), max(wanted // 16, 1) if wanted >= 8 else 0))
    groups = [(mask, share) for mask, share in groups if mask.any()]
    return sorted(groups, key=lambda group: int(group[0].sum()))


class _Choice:
    """Farthest-point sampling; equal distances are decided by the order of the rows."""

    def __init__(self, values: np.ndarray, generator: random.Random) -> None:
        self._values = values
        self._squares = np.einsum("ij,ij->i", values, values)
        self._nearest = np.full(len(values), np.inf, np.float32)  # squared distance to the nearest chosen one
        self._generator = generator
        self.taken = np.zeros(len(values), bool)
        self.order: list[int] = []

    def until(self, mask: np.ndarray, share: int, limit: int) -> None:
        """Take from `mask` until `share` of it are taken, it is used up, or `limit` are taken in all."""
        while len(self.order) < limit and int((self.taken & mask).sum()) < share:
            free = np.flatnonzero(mask & ~self.taken)
            if not len(free):
                return
            if self.order:
                self._take(int(free[np.argmax(self._nearest[free])]))
            else:
                self._take(int(free[self._generator.randrange(len(free))]))

    def _take(self, index: int) -> None:
        self.taken[index] = True
        self.order.append(index)
        distance = self._squares - 2 * (self._values @ self._values[index]) + self._squares[index]
        np.minimum(self._nearest, distance, out=self._nearest)
