"""Photographs -> a calibration set: letterboxed UINT8 pictures, a manifest, and a contact sheet to look at.

Two passes: workers stage the chosen pictures; then they are read back in their final order for the digest. The set
depends on the photographs, the input, the count, the selection and the seed only: not on the number of workers, the
file format or the order of a directory.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from hefkit import __version__
from hefkit.errors import DataError
from hefkit.files import explained
from hefkit.pictures.find import MANIFEST, PREVIEW
from hefkit.pictures.sources import Item
from hefkit.results.progress import Progress, progress
from hefkit.spec import InputSpec
from hefkit.staging.stage import Staging
from hefkit.text import log
from hefkit.workshop.calibration.folder import ARRAY, FORMAT, files_to_replace, picture_names
from hefkit.workshop.calibration.stage import Skipped, Staged, Workers, read_back, stage_picture, write_picture

MAX_ASPECT = 3.0  # beyond it a letterboxed picture fills less than a third of the input
COARSEST_STRIDE = 32  # of a YOLO, in pixels
MAX_NAMED_SKIPS = 10  # on the console; the manifest lists all

# the contact sheet
SHEET_PICTURES = 64
COLUMNS = 8
SIDE = 160  # longer side of a thumbnail, pixels
GAP = 4  # pixels
BACKGROUND = 32  # grey value


@dataclass(frozen=True)
class SetRequest:
    """Which set to make, and where."""

    source: str  # as given; recorded in the manifest
    output: Path
    input: InputSpec
    count: int
    select: str  # "random" | "first"
    seed: int
    file_format: str  # "png" | "npy"
    workers: int


def make_set(
    request: SetRequest, items: Sequence[Item], old: Sequence[Path] = (), *, quiet: bool = False
) -> dict[str, Any]:
    """Write the set to `request.output` and return its manifest.

    Args:
        request: what to make.
        items: the pictures to choose from, sorted.
        old: files of the set that this one replaces; removed at the last moment.
        quiet: no progress bar.

    Raises:
        DataError: no picture is usable; the disk is full.
        UsageError: the output cannot be written.
    """
    _warn_about_size(request.input)
    with explained(request.output), Staging(request.output) as stage, Workers(request.workers) as workers:
        with progress(request.count, "picture", quiet=quiet) as bar:
            staged, skipped = _stage_pictures(workers, request, items, stage.path, bar)
        _warn_about_pictures(request, staged, skipped)
        digest = _assemble(workers, request, staged, stage.path)
        manifest = _manifest(request, staged, skipped, digest)
        (stage.path / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="ascii")
        stage.commit(
            remove=lambda: files_to_replace(request.output, old, len(staged), request.file_format), last=MANIFEST
        )
    return manifest


def _stage_pictures(
    workers: Workers, request: SetRequest, items: Sequence[Item], folder: Path, bar: Progress
) -> tuple[list[Staged], list[Skipped]]:
    """Stage the first `request.count` usable pictures; returns them in the order of the set, and the unusable ones."""
    staged: list[Staged] = []
    skipped: list[Skipped] = []
    shuffle = random.Random(request.seed).shuffle
    order = list(items)
    if request.select == "random":
        shuffle(order)
    waiting = enumerate(order)
    # never more than are still missing: which pictures are chosen must not depend on the speed of the workers
    while batch := list(itertools.islice(waiting, request.count - len(staged))):
        for result in workers.map(partial(stage_picture, spec=request.input, folder=folder), batch):
            if isinstance(result, Staged):
                staged.append(result)
                bar.step()
                continue
            skipped.append(result)
            if len(skipped) <= MAX_NAMED_SKIPS:
                bar.warn("%s is left out: %s", result.source, result.reason)
    if not staged:
        raise DataError(
            f"none of the {len(skipped)} pictures of {request.source} is usable "
            f"(the first: {skipped[0].source}: {skipped[0].reason}); expected photographs"
        )
    if request.select != "random":
        shuffle(staged)
    return staged, skipped


def _assemble(workers: Workers, request: SetRequest, staged: Sequence[Staged], folder: Path) -> str:
    """Read the staged pictures back in order and move them to their final files, draw the sheet; returns the digest."""
    digest = hashlib.sha256()
    thumbnails: list[np.ndarray] = []
    low, high = 255, 0
    with _final_files(request, len(staged), folder) as move:
        for index, tensor in enumerate(workers.map(read_back, staged)):
            digest.update(tensor.data)
            low, high = min(low, int(tensor.min())), max(high, int(tensor.max()))
            move(index, staged[index].path, tensor)
            if index < SHEET_PICTURES:
                thumbnails.append(thumbnail(tensor, index))
    write_picture(folder / PREVIEW, contact_sheet(thumbnails))
    shape = (len(staged), *request.input.size, 3)
    log.info("files checked: %s uint8 RGB, %s, values %d to %d", shape, request.input.fit, low, high)
    return digest.hexdigest()


@contextlib.contextmanager
def _final_files(request: SetRequest, count: int, folder: Path) -> Iterator[Callable[[int, Path, np.ndarray], object]]:
    """A function that moves staged picture `index` to its final file: a rename for png, a row of the array for npy."""
    if request.file_format == "png":
        names = picture_names(count, "png")
        yield lambda index, staged, tensor: os.replace(staged, folder / names[index])
        return
    with open(folder / ARRAY, "wb") as file:
        # row by row: the whole array may be larger than the memory
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, *request.input.size, 3)}
        np.lib.format.write_array_header_1_0(file, header)

        def append(index: int, staged: Path, tensor: np.ndarray) -> None:
            file.write(tensor.data)
            staged.unlink()

        yield append


def _manifest(request: SetRequest, staged: Sequence[Staged], skipped: Sequence[Skipped], digest: str) -> dict[str, Any]:
    names = picture_names(len(staged), request.file_format)
    return {
        "format": FORMAT,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "tool": f"hefkit {__version__}",
        "source": request.source,
        "seed": request.seed,
        "select": request.select,
        "input": request.input.to_json(),
        "count": len(staged),
        "images": [
            {"file": name, "source": p.source, "sha256": p.sha256, "width": p.width, "height": p.height}
            for name, p in zip(names, staged, strict=True)
        ],
        "skipped": [{"source": s.source, "reason": s.reason} for s in skipped],
        "digest": digest,
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


def _warn_about_pictures(request: SetRequest, staged: Sequence[Staged], skipped: Sequence[Skipped]) -> None:
    if len(skipped) > MAX_NAMED_SKIPS:
        log.warning("%d pictures are left out; %s lists them all", len(skipped), MANIFEST)
    if len(staged) < request.count:
        log.warning(
            "only %d usable pictures, %d were asked for; the set has them all; add photographs, or use it as it is",
            len(staged),
            request.count,
        )
    shrunk = [p for p in staged if _aspect_to_input(p, request.input) > MAX_ASPECT]
    if shrunk and request.input.fit == "letterbox":
        log.warning(
            "%d of %d pictures have a shape beyond 3:1 and fill less than a third of the input (the first: %s, "
            "%d x %d); small objects in them may be lost",
            len(shrunk),
            len(staged),
            shrunk[0].source,
            shrunk[0].width,
            shrunk[0].height,
        )


def _aspect_to_input(staged: Staged, spec: InputSpec) -> float:
    """How many times longer or wider than the input the picture is; 1 is the same shape."""
    ratio = (staged.width * spec.size[0]) / (staged.height * spec.size[1])
    return max(ratio, 1 / ratio)


def thumbnail(tensor: np.ndarray, index: int) -> np.ndarray:
    """(H, W, 3) RGB -> the same at most SIDE pixels long, with the picture's number in the corner."""
    height, width = tensor.shape[:2]
    scale = SIDE / max(height, width)
    size_wh = max(round(width * scale), 1), max(round(height * scale), 1)
    small = cv2.resize(tensor, size_wh, interpolation=cv2.INTER_AREA)
    place, font = (4, small.shape[0] - 5), cv2.FONT_HERSHEY_SIMPLEX
    for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):  # outlined: legible on any picture
        cv2.putText(small, str(index), place, font, 0.4, colour, thickness, cv2.LINE_AA)
    return small


def contact_sheet(thumbnails: Sequence[np.ndarray]) -> np.ndarray:
    """Equal thumbnails (h, w, 3) RGB -> one picture, COLUMNS a row."""
    height, width = thumbnails[0].shape[:2]
    columns = min(COLUMNS, len(thumbnails))
    rows = -(-len(thumbnails) // columns)
    sheet = np.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, 3), BACKGROUND, np.uint8)
    for i, small in enumerate(thumbnails):
        top, left = i // columns * (height + GAP) + GAP, i % columns * (width + GAP) + GAP
        sheet[top : top + height, left : left + width] = small
    return sheet
