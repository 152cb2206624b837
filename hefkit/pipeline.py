"""Photographs through a detector into files: the next picture is read while this one is worked on."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from hefkit.cli import one_line
from hefkit.detector import Detector
from hefkit.errors import DataError
from hefkit.images import UnreadableImage, read_image
from hefkit.progress import Progress
from hefkit.sinks import Outputs
from hefkit.sources import Item
from hefkit.tally import Tally

AHEAD = 2  # pictures read before they are asked for: bounds the memory
NARROW = 3  # an aspect ratio beyond which the letterbox wastes most of the input
Picture = np.ndarray | UnreadableImage


def run(items: Sequence[Item], detector: Detector, outputs: Outputs, bar: Progress) -> Tally:
    """Detect in every item and write the results; pictures that cannot be read are named and counted.

    Raises:
        DataError: not one of them can be read, or the disk is full.
    """
    tally = Tally()
    with contextlib.closing(read_ahead(items)) as pictures:
        for index, (picture, read_s) in enumerate(pictures):
            if isinstance(picture, UnreadableImage):
                tally.failed += 1
                bar.warn("%s left out: %s", one_line(items[index].source), one_line(picture))
            else:
                found, took = detector.detect(picture)
                start = time.perf_counter()
                outputs.write(index, picture, found)
                write_s = time.perf_counter() - start
                tally.add(found.class_id.tolist(), read=read_s, write=write_s, **took._asdict())
                tally.narrow += _is_narrow(picture)
            bar.step()
    if not tally.images:
        raise DataError(f"none of the {len(items)} images can be read; expected at least one; see the warnings above")
    if tally.narrow and detector.engine.spec.input.fit == "letterbox":
        bar.warn(
            "%d of %d images are longer than %d:1; fitting them in shrinks what they show, and small objects get lost",
            tally.narrow,
            tally.images,
            NARROW,
        )
    return tally


def read_ahead(items: Sequence[Item]) -> Generator[tuple[Picture, float], None, None]:
    """(picture, seconds of its reading) of every item, in order; one thread stays AHEAD pictures in front.

    A picture is (h, w, 3) uint8 BGR, upright, or the reason why there is none.
    """
    waiting: deque[Future[tuple[Picture, float]]] = deque()
    reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reader")
    try:
        for item in items:
            waiting.append(reader.submit(_read, item))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # after an error or Ctrl-C: what has not begun is dropped, the picture in hand is not waited for
        reader.shutdown(wait=False, cancel_futures=True)


def _is_narrow(picture: np.ndarray) -> bool:
    sides = picture.shape[:2]
    return max(sides) > NARROW * min(sides)


def _read(item: Item) -> tuple[Picture, float]:
    start = time.perf_counter()
    picture: Picture
    try:
        picture = read_image(item.path)
    except UnreadableImage as exc:
        picture = exc
    return picture, time.perf_counter() - start
