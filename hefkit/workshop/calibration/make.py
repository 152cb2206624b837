"""Pictures -> a calibration set: letterboxed UINT8 images, their manifest, and a sheet to look at.

Workers read, decode, letterbox and stage each picture; one pass in the final order then reads them back,
so that the digest is taken from what really is on the disk. The set depends on the pictures, the input, the
count, the selection and the seed only: not on the workers, the file format or the order of a directory.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np

from hefkit import __version__
from hefkit.detect.preprocess import letterbox
from hefkit.errors import DataError, UsageError
from hefkit.files import Staging, explained
from hefkit.pictures.find import MANIFEST, PREVIEW
from hefkit.pictures.read import UnreadableImage, decode_image, read_bytes
from hefkit.pictures.sources import Item
from hefkit.results.progress import Progress, progress
from hefkit.spec import InputSpec
from hefkit.text import log
from hefkit.workshop.calibration.folder import ARRAY, FORMAT, picture_names
from hefkit.workshop.calibration.sheet import SHEET_PICTURES, contact_sheet, thumbnail

LONG_ASPECT = 3.0  # beyond this, letterboxing leaves less than a third of the input to the picture
COARSEST_STRIDE = 32
NAMED_SKIPS = 10  # the manifest has them all

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Plan:
    """What set is to be made, and where."""

    source: str  # as given; recorded in the manifest
    output: Path
    input: InputSpec
    count: int
    select: str  # "random" | "first"
    seed: int
    file_format: str  # "png" | "npy"
    workers: int


@dataclass(frozen=True)
class Drawn:
    """One picture of the set, staged as a PNG."""

    source: str
    staged: Path
    sha256: str  # of the source file's bytes
    width: int  # of the photograph, upright
    height: int
    pixels: bytes  # sha256 of the tensor


@dataclass(frozen=True)
class Skipped:
    """One picture that cannot be used."""

    source: str
    reason: str


def make_set(plan: Plan, items: Sequence[Item], old: Sequence[Path] = (), *, quiet: bool = False) -> dict[str, Any]:
    """Write the set to `plan.output` and return its manifest.

    Args:
        plan: what to make.
        items: the pictures to choose from, sorted.
        old: files of the set that this one replaces; removed at the last moment.
        quiet: no progress bar.

    Raises:
        DataError: no picture is usable; the disk is full.
        UsageError: the output cannot be written.
    """
    _warn_about_size(plan.input)
    with explained(plan.output), Staging(plan.output) as stage, _one_cv2_thread(), _pool(plan.workers) as pool:
        with progress(plan.count, "picture", quiet=quiet) as bar:
            drawn, skipped = _draw(pool, plan, items, stage.path, bar)
        _warn_about_pictures(plan, drawn, skipped)
        digest = _assemble(pool, plan, drawn, stage.path)
        manifest = _manifest(plan, drawn, skipped, digest)
        (stage.path / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="ascii")
        _check_still_free(plan.output, old)
        stage.commit(remove=old, last=MANIFEST)
    return manifest


def _check_still_free(output: Path, old: Sequence[Path]) -> None:
    """A set that another run has finished meanwhile is no more ours to replace than one that was there before."""
    manifest = output / MANIFEST
    if manifest.exists() and manifest not in old:
        raise UsageError(
            f"another run has made a set in {output} meanwhile; choose another --output, or --overwrite it"
        )


def _draw(
    pool: ThreadPoolExecutor, plan: Plan, items: Sequence[Item], folder: Path, bar: Progress
) -> tuple[list[Drawn], list[Skipped]]:
    """The first `plan.count` usable pictures in drawing order -> the set in its final order, and the unusable."""
    drawn: list[Drawn] = []
    skipped: list[Skipped] = []
    shuffle = random.Random(plan.seed).shuffle
    order = list(items)
    if plan.select == "random":
        shuffle(order)
    waiting = enumerate(order)
    # as many as are still missing, never more: what is drawn cannot depend on which worker was faster
    while batch := list(itertools.islice(waiting, plan.count - len(drawn))):
        for result in _in_order(pool, partial(_stage, spec=plan.input, folder=folder), batch, plan.workers):
            if isinstance(result, Drawn):
                drawn.append(result)
                bar.step()
                continue
            skipped.append(result)
            if len(skipped) <= NAMED_SKIPS:
                bar.warn("%s is left out: %s", result.source, result.reason)
    if not drawn:
        raise DataError(
            f"none of the {len(skipped)} pictures of {plan.source} is usable "
            f"(the first: {skipped[0].source}: {skipped[0].reason}); expected photographs"
        )
    if plan.select != "random":
        shuffle(drawn)
    return drawn, skipped


def _stage(numbered: tuple[int, Item], spec: InputSpec, folder: Path) -> Drawn | Skipped:
    """Read, decode and letterbox one picture; a worker's whole job."""
    number, item = numbered
    try:
        data = read_bytes(item.path)
        picture = decode_image(data)  # (h, w, 3) uint8 BGR
    except UnreadableImage as exc:
        return Skipped(item.source, str(exc))
    tensor, _ = letterbox(picture, spec)  # (H, W, 3) uint8 RGB
    staged = folder / f"drawn-{number}.png"
    _encode(staged, tensor)
    height, width = picture.shape[:2]
    return Drawn(
        item.source, staged, hashlib.sha256(data).hexdigest(), width, height, hashlib.sha256(tensor.data).digest()
    )


def _assemble(pool: ThreadPoolExecutor, plan: Plan, drawn: Sequence[Drawn], folder: Path) -> str:
    """Read the staged pictures back in order and give them their places; returns the digest."""
    digest = hashlib.sha256()
    thumbnails: list[np.ndarray] = []
    low, high = 255, 0
    with _keeper(plan, len(drawn), folder) as keep:
        for index, tensor in enumerate(_in_order(pool, _read_back, drawn, plan.workers)):
            digest.update(tensor.data)
            low, high = min(low, int(tensor.min())), max(high, int(tensor.max()))
            keep(index, drawn[index].staged, tensor)
            if index < SHEET_PICTURES:
                thumbnails.append(thumbnail(tensor, index))
    _encode(folder / PREVIEW, contact_sheet(thumbnails))
    shape = (len(drawn), *plan.input.size, 3)
    log.info("read back and compared: %s uint8 RGB, %s, values %d to %d", shape, plan.input.fit, low, high)
    return digest.hexdigest()


def _read_back(drawn: Drawn) -> np.ndarray:
    """A staged PNG -> (H, W, 3) uint8 RGB, equal to what was written."""
    stored = cv2.imdecode(np.frombuffer(drawn.staged.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    tensor = None if stored is None else cv2.cvtColor(stored, cv2.COLOR_BGR2RGB)
    if tensor is None or hashlib.sha256(tensor.data).digest() != drawn.pixels:
        raise DataError(f"{drawn.source} reads back otherwise than it was written; check the disk and run again")
    return tensor


@contextlib.contextmanager
def _keeper(plan: Plan, count: int, folder: Path) -> Iterator[Callable[[int, Path, np.ndarray], object]]:
    """What gives picture `index` its place: a rename for png, a row of the array for npy."""
    if plan.file_format == "png":
        names = picture_names(count, "png")
        yield lambda index, staged, tensor: os.replace(staged, folder / names[index])
        return
    with open(folder / ARRAY, "wb") as file:
        # row by row: the whole array never lies in memory
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, *plan.input.size, 3)}
        np.lib.format.write_array_header_1_0(file, header)

        def append(index: int, staged: Path, tensor: np.ndarray) -> None:
            file.write(tensor.data)
            staged.unlink()

        yield append


def _manifest(plan: Plan, drawn: Sequence[Drawn], skipped: Sequence[Skipped], digest: str) -> dict[str, Any]:
    names = picture_names(len(drawn), plan.file_format)
    return {
        "format": FORMAT,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "tool": f"hefkit {__version__}",
        "source": plan.source,
        "seed": plan.seed,
        "select": plan.select,
        "input": plan.input.to_json(),
        "count": len(drawn),
        "images": [
            {"file": name, "source": d.source, "sha256": d.sha256, "width": d.width, "height": d.height}
            for name, d in zip(names, drawn, strict=True)
        ],
        "skipped": [{"source": s.source, "reason": s.reason} for s in skipped],
        "digest": digest,
    }


def _warn_about_size(spec: InputSpec) -> None:
    if any(side % COARSEST_STRIDE for side in spec.size):
        height, width = spec.size
        log.warning(
            "the input %d x %d is no multiple of %d, which YOLO's coarsest head needs; use the size of the ONNX",
            height,
            width,
            COARSEST_STRIDE,
        )


def _warn_about_pictures(plan: Plan, drawn: Sequence[Drawn], skipped: Sequence[Skipped]) -> None:
    if len(skipped) > NAMED_SKIPS:
        log.warning("%d pictures are left out in all; %s names each", len(skipped), MANIFEST)
    if len(drawn) < plan.count:
        log.warning(
            "only %d usable pictures for the %d asked for; the set holds them all; add photographs, or accept it",
            len(drawn),
            plan.count,
        )
    shrunk = [d for d in drawn if _aspect_to_input(d, plan.input) > LONG_ASPECT]
    if shrunk and plan.input.fit == "letterbox":
        log.warning(
            "%d of %d pictures are beyond 3:1 and fill less than a third of the input (the first: %s, %d x %d); "
            "small objects in them may vanish",
            len(shrunk),
            len(drawn),
            shrunk[0].source,
            shrunk[0].width,
            shrunk[0].height,
        )


def _aspect_to_input(drawn: Drawn, spec: InputSpec) -> float:
    """How many times longer than the input the picture is, either way; 1 is the same shape."""
    ratio = (drawn.width * spec.size[0]) / (drawn.height * spec.size[1])
    return max(ratio, 1 / ratio)


def _encode(path: Path, rgb: np.ndarray) -> None:
    """(h, w, 3) uint8 RGB -> a picture file; the suffix chooses the format."""
    done, data = cv2.imencode(path.suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    if not done:
        raise RuntimeError(f"OpenCV cannot write {path.suffix}")
    path.write_bytes(data.data)


def _in_order(pool: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T], ahead: int) -> Iterator[R]:
    """work(item) for each item, in order; at most `ahead` are done before they are asked for."""
    pending: deque[Future[R]] = deque()
    for item in items:
        pending.append(pool.submit(work, item))
        if len(pending) > ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


@contextlib.contextmanager
def _pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Threads: OpenCV and hashlib let go of the interpreter. After an error what has not begun is dropped."""
    pool = ThreadPoolExecutor(workers)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _one_cv2_thread() -> Iterator[None]:
    """Our workers share the cores already."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
