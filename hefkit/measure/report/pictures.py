"""The pictures of a report: those where model and reference differ most, and some typical ones, drawn side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from hefkit.detect.detections import Detections
from hefkit.measure.accuracy import overlapping_boxes
from hefkit.measure.validate import Validation
from hefkit.pictures.header import UnreadableImage
from hefkit.pictures.read import read_image
from hefkit.results.draw import annotate

WORST, TYPICAL = 10, 4
SIDE = 480  # pixels of the longer side in the report
QUALITY = 82  # of the JPEG


@dataclass
class Row:
    """One picture of the report."""

    source: str
    index: int
    kind: str  # "worst" | "typical"
    words: str  # what differs
    panels: list[tuple[str, bytes]] = field(default_factory=list)  # title, JPEG


def difference(expected: Detections, found: Detections) -> tuple[float, str]:
    """How much two sets of boxes differ, and in words: a missing or an extra box counts 1, a matched one 1 - IoU."""
    pairs = overlapping_boxes(expected, found)
    missed, extra = len(expected) - len(pairs), len(found) - len(pairs)
    loss = 0.0
    for _, _, overlap in pairs:
        loss += 1 - overlap
    return missed + extra + loss, f"{len(pairs)} the same, {missed} missing, {extra} extra"


def choose(differences: Sequence[float | None]) -> tuple[list[int], list[int]]:
    """Indices of the WORST pictures, most different first, and of TYPICAL ones around the median; none twice."""
    known = sorted((i for i, d in enumerate(differences) if d is not None), key=lambda i: (-(differences[i] or 0.0), i))
    worst = [i for i in known[:WORST] if differences[i]]
    rest = known[len(worst) :]
    middle = max(len(known) // 2 - len(worst) - TYPICAL // 2, 0)
    return worst, rest[middle : middle + TYPICAL]


def rows(result: Validation) -> list[Row]:
    """Read, draw and encode the chosen pictures."""
    run, _ = result.decisive
    exact = None if result.reference is run else result.reference
    expected: Sequence[Detections | None] = run.truth if exact is None else exact.found
    if not expected:
        return []
    compared = [None if a is None or b is None else difference(a, b) for a, b in zip(expected, run.found, strict=True)]
    worst, typical = choose([None if c is None else c[0] for c in compared])
    found = []
    for kind, indices in (("worst", worst), ("typical", typical)):
        for index in indices:
            words = compared[index]
            assert words is not None
            row = Row(result.items[index].source, index, kind, words[1])
            try:
                picture = read_image(result.items[index].path)
            except UnreadableImage:
                continue
            names = result.class_names(run)
            if run.truth:
                row.panels.append(("labels", _panel(picture, run.truth[index], names)))
            for title, boxes in (
                ("float", None if exact is None else exact.found[index]),
                (TITLES[run.engine], run.found[index]),
            ):
                if boxes is not None:
                    row.panels.append((title, _panel(picture, boxes, names)))
            found.append(row)
    return found


TITLES = {"emulated": "INT8 emulation", "hailort": "HEF", "float": "float"}


def _panel(picture: np.ndarray, boxes: Detections, names: dict[int, str]) -> bytes:
    """A small JPEG with boxes."""
    scale = min(SIDE / max(picture.shape[:2]), 1.0)
    size = max(round(picture.shape[1] * scale), 1), max(round(picture.shape[0] * scale), 1)
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    drawn = annotate(small, boxes.with_boxes(boxes.xyxy * np.float32(scale)), names)
    return cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
