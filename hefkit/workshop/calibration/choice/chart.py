"""coverage.png: brightness, sharpness, sizes of objects and classes of the dataset beside those of the selection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from hefkit.names import readable
from hefkit.spec import InputSpec
from hefkit.workshop.calibration.choice.choose import SIZES, object_sizes
from hefkit.workshop.calibration.choice.coverage import measured
from hefkit.workshop.calibration.choice.scan import Table

PANEL = (440, 260)  # width and height, pixels
MARGIN = 36  # pixels
BINS = 16
CLASSES = 12  # at most, the most frequent ones; the manifest has them all
INK, PAPER, DATASET, SELECTION = (40, 40, 40), (255, 255, 255), (190, 190, 190), (200, 110, 30)  # RGB
FONT = cv2.FONT_HERSHEY_SIMPLEX

Bars = list[tuple[str, float, float]]  # label, share of the dataset, share of the selection


def chart(selection: Table, dataset: Table | None, spec: InputSpec, names: Mapping[int, str]) -> np.ndarray:
    """(h, w, 3) uint8 RGB: four panels; grey is the dataset, orange the selection."""
    tables = (dataset or selection, selection)
    objects = [object_sizes(table, spec) for table in tables]
    classes = [np.unique(np.stack([t.object_class, t.object_row]), axis=1)[0] for t in tables]
    ids, counts = np.unique(classes[0], return_counts=True)
    frequent = sorted(ids[np.argsort(-counts, kind="stable")][:CLASSES].tolist())
    panels = [
        _panel("brightness (grey value)", _histogram(tables, "brightness")),
        _panel("sharpness (log)", _histogram(tables, "sharpness")),
        _panel("objects by size in the input", _counts(SIZES, [0, 1, 2], objects, [len(o) for o in objects])),
        _panel(
            "pictures with class",
            _counts([names.get(k, str(k)) for k in frequent], frequent, classes, [int(t.usable.sum()) for t in tables]),
        ),
    ]
    legend = np.full((MARGIN, 2 * PANEL[0], 3), PAPER, np.uint8)
    for i, (colour, word, table) in enumerate(((DATASET, "dataset", tables[0]), (SELECTION, "selection", selection))):
        left = MARGIN + i * 240
        cv2.rectangle(legend, (left, 12), (left + 14, 26), colour, -1)
        _text(legend, f"{word}: {int(table.usable.sum())} pictures", left + 22, 24)
    return np.vstack([legend, np.hstack(panels[:2]), np.hstack(panels[2:])])


def _histogram(tables: Sequence[Table], name: str) -> Bars:
    values = [measured(table, name)[table.usable].astype(np.float64) for table in tables]
    joined = np.concatenate(values)
    low, high = 0.0, 255.0
    if name != "brightness":
        low, high = float(joined.min()), max(float(joined.max()), float(joined.min()) + 0.1)
    digits = 0 if high > 10 else 1
    shares = [np.histogram(v, BINS, (low, high))[0] / max(len(v), 1) for v in values]
    edges = np.linspace(low, high, BINS + 1)
    labels = [f"{edge:.{digits}f}" if i % 4 == 0 else "" for i, edge in enumerate(edges[:-1])]
    return list(zip(labels, *(share.tolist() for share in shares), strict=True))


def _counts(labels: Sequence[str], ids: Sequence[int], found: Sequence[np.ndarray], of: Sequence[int]) -> Bars:
    shares = [[float((f == k).sum()) / max(n, 1) for k in ids] for f, n in zip(found, of, strict=True)]
    return list(zip(labels, *shares, strict=True))


def _panel(title: str, bars: Bars) -> np.ndarray:
    width, height = PANEL
    panel = np.full((height, width, 3), PAPER, np.uint8)
    _text(panel, title, MARGIN, 20)
    floor, left = height - MARGIN, MARGIN
    cv2.line(panel, (left, floor), (width - 8, floor), INK, 1)
    if not bars:
        _text(panel, "no labels", left, height // 2)
        return panel
    highest = max(max(pair[1:]) for pair in bars) or 1.0
    step = (width - left - 8) / len(bars)
    for i, (label, *shares) in enumerate(bars):
        for j, (share, colour) in enumerate(zip(shares, (DATASET, SELECTION), strict=True)):
            x = left + i * step + j * step * 0.42 + step * 0.08
            top = floor - round((floor - 34) * share / highest)
            cv2.rectangle(panel, (round(x), top), (round(x + step * 0.4), floor), colour, -1)
        if label:
            _text(panel, readable(label, i)[: max(int(step / 6), 3)], round(left + i * step), floor + 16)
    _text(panel, f"{100 * highest:.0f} %", 2, 40)
    return panel


def _text(picture: np.ndarray, words: str, x: int, y: int) -> None:
    cv2.putText(picture, words, (x, y), FONT, 0.4, INK, 1, cv2.LINE_AA)
