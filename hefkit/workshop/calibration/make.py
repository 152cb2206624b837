"""Photographs -> a calibration set: letterboxed UINT8 pictures, a manifest, and pictures to look at.

Workers decode and letterbox the chosen pictures. The pictures are then written in their final order, read back, and
added to the digest. The set depends only on the photographs, the input, the count, the selection and the seed: not on
the number of workers, the file format or the order of a directory.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from hefkit import __version__
from hefkit.errors import DataError
from hefkit.files import explained
from hefkit.pictures.find import COVERAGE, MANIFEST, PREVIEW
from hefkit.pictures.sources import Item
from hefkit.results.progress import Progress, progress
from hefkit.spec import InputSpec
from hefkit.staging.stage import Staging
from hefkit.text import counted, log
from hefkit.workshop.calibration.array_file import ArrayFile
from hefkit.workshop.calibration.choice.chart import chart
from hefkit.workshop.calibration.choice.cluster import open_lookers
from hefkit.workshop.calibration.choice.coverage import count_in, figures, notes
from hefkit.workshop.calibration.choice.look import Look
from hefkit.workshop.calibration.choice.plan import Plan, plan_set
from hefkit.workshop.calibration.choice.scan import table_of
from hefkit.workshop.calibration.folder import ARRAY, FORMAT, files_to_replace, picture_name, picture_names
from hefkit.workshop.calibration.sheet import SHEET_PICTURES, contact_sheet, thumbnail
from hefkit.workshop.calibration.stage import Maker, Record, Skipped, Workers, write_picture
from hefkit.workshop.calibration.videos import Frames

MAX_ASPECT = 3.0  # beyond it a letterboxed picture fills less than a third of the input
COARSEST_STRIDE = 32  # of a YOLO, in pixels
LOOKS = 256  # pictures of a set that are looked at for its coverage, if not all of the dataset are
MAX_NAMED_SKIPS = 10  # on the console; the manifest lists all


@dataclass(frozen=True)
class SetRequest:
    """Which set to make, and where."""

    source: str  # as given; recorded in the manifest
    output: Path
    input: InputSpec
    count: int
    select: str  # "diverse" | "random" | "first"
    seed: int
    file_format: str  # "png" | "npy"
    workers: int
    scheduler: str | None = None  # address of a Dask cluster that looks at the pictures
    names: Mapping[int, str] = field(default_factory=dict)  # of the classes in the label files
    val: Sequence[Item] = ()  # pictures of the val split, where another one is used


def make_set(request: SetRequest, items: Sequence[Item], old: Sequence[Path] = ()) -> dict[str, Any]:
    """Write the set to `request.output` and return its manifest.

    Args:
        request: what to make.
        items: the pictures to choose from, sorted.
        old: files of the set that this one replaces; removed at the last moment.

    Raises:
        DataError: no picture is usable; the disk is full.
        UsageError: the output cannot be written.
    """
    _warn_about_size(request.input)
    with explained(request.output), Staging(request.output) as stage, Workers(request.workers) as workers:
        with open_lookers(request.scheduler, workers) as lookers:
            plan = plan_set(items, request.count, request.select, request.seed, request.input, lookers)
        with progress(request.count, "picture") as bar:
            made = _make_pictures(workers, request, plan, stage.path, bar)
        _warn_about_pictures(request, made)
        coverage = _cover(request, plan, made, stage.path)
        manifest = _manifest(request, made, coverage)
        (stage.path / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="ascii")
        stage.commit(
            remove=lambda: files_to_replace(request.output, old, len(made.records), request.file_format), last=MANIFEST
        )
    return manifest


@dataclass
class _Made:
    """The pictures of the set so far."""

    skipped: list[Skipped]
    records: list[Record] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)  # of each record in the plan
    looks: list[Look] = field(default_factory=list)
    digest: str = ""


def _make_pictures(workers: Workers, request: SetRequest, plan: Plan, folder: Path, bar: Progress) -> _Made:
    """Write the first `request.count` usable pictures in their order, and the contact sheet."""
    made, digest = _Made(list(plan.skipped)), hashlib.sha256()
    for skipped in plan.skipped[:MAX_NAMED_SKIPS]:
        bar.warn("%s is left out: %s", skipped.source, skipped.reason)
    thumbnails: list[np.ndarray] = []
    low, high = 255, 0
    waiting = enumerate(plan.items)
    png = request.file_format == "png"
    frames = Frames(request.input, folder)
    work = Maker(request.input, folder, png, 0 if plan.table else LOOKS, frames)
    with contextlib.nullcontext() if png else ArrayFile(folder / ARRAY, request.input.size) as array:
        # never more than are still missing: the choice of pictures must not depend on the speed of the workers
        while batch := list(itertools.islice(waiting, request.count - len(made.records))):
            frames.fetch(item for _, item in batch)
            for result in workers.map(work, batch):
                if isinstance(result, Skipped):
                    made.skipped.append(result)
                    if len(made.skipped) <= MAX_NAMED_SKIPS:
                        bar.warn("%s is left out: %s", result.source, result.reason)
                    continue
                index, tensor = len(made.records), result.tensor
                if array is not None:
                    array.append(tensor, result.record.source)
                elif result.file is not None:
                    os.replace(result.file, folder / picture_name(index))
                digest.update(tensor.data)
                if (low, high) != (0, 255):
                    low, high = min(low, int(tensor.min())), max(high, int(tensor.max()))
                if index < SHEET_PICTURES:
                    thumbnails.append(thumbnail(tensor, index))
                made.records.append(result.record)
                made.numbers.append(result.number)
                if result.look is not None:
                    made.looks.append(result.look)
                bar.step()
    if not made.records:
        first = made.skipped[0]
        raise DataError(
            f"none of the {len(made.skipped)} pictures of {request.source} is usable "
            f"(the first: {first.source}: {first.reason}); expected photographs"
        )
    write_picture(folder / PREVIEW, contact_sheet(thumbnails))
    shape = (len(made.records), *request.input.size, 3)
    log.info("files checked: %s uint8 RGB, %s, values %d to %d", shape, request.input.fit, low, high)
    made.digest = digest.hexdigest()
    return made


def _cover(request: SetRequest, plan: Plan, made: _Made, folder: Path) -> dict[str, Any]:
    """What the set covers, for the manifest; also writes coverage.png and warns of what is lacking."""
    copies = 0
    dataset, selection = plan.table, table_of(made.looks)
    if dataset is not None and plan.near is not None:
        rows = [plan.rows[number] for number in made.numbers]
        selection = dataset.rows(rows)
        copies = int(plan.near[rows].sum())
    of_selection = figures(selection, request.input)
    of_dataset = None if dataset is None else figures(dataset, request.input)
    in_val = count_in(request.val, [plan.items[number] for number in made.numbers], made.records)
    warnings, remarks = notes(of_selection, of_dataset, request.names, in_val, copies)
    for text in warnings:
        log.warning("%s", text)
    for text in remarks:
        log.info("note: %s", text)
    write_picture(folder / COVERAGE, chart(selection, dataset, request.input, request.names))
    return {
        "dataset": of_dataset,
        "selection": of_selection,
        "near_duplicates": None if plan.near is None else int(plan.near.sum()),
        "in_val": in_val,
        "notes": [*warnings, *remarks],
    }


def _manifest(request: SetRequest, made: _Made, coverage: dict[str, Any]) -> dict[str, Any]:
    names = picture_names(len(made.records), request.file_format)
    return {
        "format": FORMAT,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "tool": f"hefkit {__version__}",
        "source": request.source,
        "seed": request.seed,
        "select": request.select,
        "input": request.input.to_json(),
        "count": len(made.records),
        "images": [{"file": name, **asdict(record)} for name, record in zip(names, made.records, strict=True)],
        "skipped": [asdict(skipped) for skipped in made.skipped],
        "coverage": coverage,
        "digest": made.digest,
    }


def _warn_about_size(spec: InputSpec) -> None:
    if any(side % COARSEST_STRIDE for side in spec.size):
        height, width = spec.size
        log.warning(
            "the input %d x %d is not a multiple of %d, which a YOLO needs; use the input size of the ONNX",
            height,
            width,
            COARSEST_STRIDE,
        )


def _warn_about_pictures(request: SetRequest, made: _Made) -> None:
    if len(made.skipped) > MAX_NAMED_SKIPS:
        log.warning("%d pictures are left out; %s lists them all", len(made.skipped), MANIFEST)
    if len(made.records) < request.count:
        log.warning(
            "only %s, %d were asked for; the set has all that there are; add photographs, or use it as it is",
            counted(len(made.records), "usable picture"),
            request.count,
        )
    shrunk = [p for p in made.records if _aspect_to_input(p, request.input) > MAX_ASPECT]
    if shrunk and request.input.fit == "letterbox":
        log.warning(
            "%d of %d pictures have a shape beyond 3:1 and fill less than a third of the input (the first: %s, "
            "%d x %d); small objects in them may be lost",
            len(shrunk),
            len(made.records),
            shrunk[0].source,
            shrunk[0].width,
            shrunk[0].height,
        )


def _aspect_to_input(record: Record, spec: InputSpec) -> float:
    """How many times longer or wider than the input the picture is; 1 is the same shape."""
    ratio = (record.width * spec.size[0]) / (record.height * spec.size[1])
    return max(ratio, 1 / ratio)
