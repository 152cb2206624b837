"""What a set covers and what it lacks: figures of the dataset and of the selection, and sentences about them."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hefkit.pictures.sources import Item
from hefkit.spec import InputSpec
from hefkit.text import counted, one_line
from hefkit.workshop.calibration.choice.choose import SIZES, object_sizes
from hefkit.workshop.calibration.choice.look import BRIGHTNESS, CONTRAST, SATURATION, SHARPNESS, STEPS
from hefkit.workshop.calibration.choice.scan import Table
from hefkit.workshop.calibration.stage import Record

FEW, DFL_ADVICE, FINETUNE = 32, 128, 1024  # pictures
DARK, BRIGHT = 60.0, 200.0  # grey values
NAMED = 8  # classes in one sentence
MEASURES = {"brightness": BRIGHTNESS, "contrast": CONTRAST, "saturation": SATURATION, "sharpness": SHARPNESS}


def figures(table: Table, spec: InputSpec) -> dict[str, Any]:
    """The figures of a table for the manifest; grey values, sharpness as a natural logarithm; classes in pictures."""
    usable = table.usable
    in_classes = np.unique(np.stack([table.object_class, table.object_row]), axis=1)[0]
    classes, pictures = np.unique(in_classes, return_counts=True)
    sizes = np.bincount(object_sizes(table, spec), minlength=len(SIZES))
    with_objects = np.unique(table.object_row).size
    return {
        "pictures": int(usable.sum()),
        **{name: _spread(measured(table, name)[usable]) for name in MEASURES},
        "resolutions": len(np.unique(table.size_wh[usable], axis=0)),
        "labelled": int(table.labelled.sum()),
        "classes": {str(k): int(n) for k, n in zip(classes.tolist(), pictures.tolist(), strict=True)},
        "object_sizes": dict(zip(SIZES, sizes.tolist(), strict=True)),
        "without_objects": int(usable.sum()) - with_objects if table.labelled.any() else None,
    }


def measured(table: Table, name: str) -> np.ndarray:
    """(n,) float32: one of MEASURES of each picture."""
    column: np.ndarray = table.values[:, MEASURES[name]] * STEPS[MEASURES[name]]
    return column


def notes(
    selection: Mapping[str, Any],
    dataset: Mapping[str, Any] | None,
    names: Mapping[int, str],
    in_val: int,
    copies: int,
) -> tuple[list[str], list[str]]:
    """(warnings, remarks) about a set.

    Args:
        selection: `figures` of the set.
        dataset: `figures` of all pictures; None where they were not looked at.
        names: class names, where known.
        in_val: pictures of the set that are also in the val split.
        copies: near-duplicates in the set.
    """
    count = selection["pictures"]
    warnings = [*_about_light(selection), *_about_classes(selection, dataset, names)]
    if count < FEW:
        more = dataset is not None and dataset["pictures"] > count
        cure = "ask for more with --num-samples" if more else "add photographs"
        warnings.append(f"only {counted(count, 'picture')}; stable ranges need at least {FEW}; {cure}")
    if in_val:
        warnings.append(f"{in_val} of {count} pictures are also in val; accuracy on val will look too good")
    if copies:
        warnings.append(f"{copies} of {count} pictures look like others of the set; add different photographs")
    remarks = []
    if selection["without_objects"] == 0 and dataset and dataset["without_objects"] == 0:
        remarks.append("every picture has objects; a few pictures of the empty scene are good for the scores")
    if selection["resolutions"] == 1 and count > 1:
        remarks.append("all pictures have one resolution; that is right if the camera has it too")
    if FEW <= count < DFL_ADVICE:
        remarks.append(f"{count} pictures; {DFL_ADVICE} and more are advised for heads with DFL (YOLOv8, YOLO11)")
    if count < FINETUNE:
        remarks.append(f"optimization levels 2 and above train on up to {FINETUNE} pictures; the set has {count}")
    return warnings, remarks


def count_in(val: Sequence[Item], chosen: Sequence[Item], records: Sequence[Record]) -> int:
    """How many of the chosen pictures have the same bytes as one of `val`; only files of equal size are read."""
    if not val:
        return 0
    sizes: dict[int, list[str]] = {}
    for item, record in zip(chosen, records, strict=True):
        with contextlib.suppress(OSError):
            sizes.setdefault(os.stat(item.path).st_size, []).append(record.sha256)
    twins: set[str] = set()
    for item in val:
        with contextlib.suppress(OSError):
            if os.stat(item.path).st_size in sizes:
                twins.add(hashlib.sha256(Path(item.path).read_bytes()).hexdigest())
    return sum(sha256 in twins for group in sizes.values() for sha256 in group)


def _about_light(selection: Mapping[str, Any]) -> list[str]:
    light = selection["brightness"]
    if light["p95"] < DARK:
        return ["all pictures are dark; add pictures by daylight, if the camera will see any"]
    if light["p5"] > BRIGHT:
        return ["all pictures are very bright; add darker ones, if the camera will see any"]
    return []


def _about_classes(
    selection: Mapping[str, Any], dataset: Mapping[str, Any] | None, names: Mapping[int, str]
) -> list[str]:
    there = set(map(int, selection["classes"]))
    of_dataset = set(map(int, dataset["classes"])) if dataset else set()
    if not there and not of_dataset:
        return []
    found = []
    lost = sorted(of_dataset - there)
    if lost:
        found.append(f"the set lacks {_listed(lost, names)}; ask for more pictures with --num-samples")
    absent = sorted(set(names) - of_dataset - there)
    if dataset and absent:
        found.append(f"the labels have no object of {_listed(absent, names)}; add pictures of it")
    return found


def _listed(classes: list[int], names: Mapping[int, str]) -> str:
    words = [one_line(names.get(k, f"class {k}"), 40) for k in classes[:NAMED]]
    more = f" and {len(classes) - NAMED} more" if len(classes) > NAMED else ""
    return f"{counted(len(classes), 'class').replace('classs', 'classes')} ({', '.join(words)}{more})"


def _spread(values: np.ndarray) -> dict[str, float]:
    low, middle, high = np.percentile(values, [5, 50, 95]).tolist() if len(values) else (0.0, 0.0, 0.0)
    return {"p5": round(low, 2), "median": round(middle, 2), "p95": round(high, 2)}
