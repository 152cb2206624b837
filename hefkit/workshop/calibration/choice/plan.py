"""The order in which pictures are taken: by path or by the seed alone, or after a look at each picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from hefkit.pictures.sources import Item
from hefkit.results.progress import progress
from hefkit.spec import InputSpec
from hefkit.text import counted, log
from hefkit.workshop.calibration.choice.choose import diverse, in_order, near_duplicates
from hefkit.workshop.calibration.choice.scan import Lookers, Table, scan
from hefkit.workshop.calibration.stage import Skipped


@dataclass(frozen=True)
class Plan:
    """The pictures in the order in which they are taken, and what is known of them."""

    items: list[Item]
    rows: list[int] = field(default_factory=list)  # of each item in the table
    table: Table | None = None  # of all pictures of the dataset, if they were looked at
    near: np.ndarray | None = None  # (n,) bool: near-duplicates among them
    skipped: list[Skipped] = field(default_factory=list)  # pictures that the look found unreadable


def plan_set(items: Sequence[Item], wanted: int, select: str, seed: int, spec: InputSpec, lookers: Lookers) -> Plan:
    """Which pictures to take, the first `wanted` of them in the order of the set."""
    if select != "diverse":
        return Plan([items[row] for row in in_order(len(items), wanted, select, seed)])
    with progress(len(items), "look") as bar:
        table = scan(items, lookers, bar)
    near = near_duplicates(table)
    copies = int(near.sum())
    if copies:
        log.info("%s of %d look like an earlier one and are taken last", counted(copies, "picture"), len(items))
    rows = diverse(table, wanted, seed, spec, near)
    skipped = [Skipped(items[row].source, table.reasons[row]) for row in sorted(table.reasons)]
    return Plan([items[row] for row in rows], rows, table, near, skipped)
