"""Check that the cut network and our decoding give the same boxes as the whole ONNX, for all anchors.

Two comparisons. First pictures go through both networks: that tests the cut. Then random head tensors go through the
tail of the graph and through our decoding: that tests roles, bins and strides even if the heads hardly react to the
pictures, as with random weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from hefkit.detect.decode import decode_all
from hefkit.errors import ModelError
from hefkit.spec import HeadSpec
from hefkit.workshop.heads.discover import HeadLayout
from hefkit.workshop.heads.tail import run_tail
from hefkit.workshop.network.cut import cut, extract
from hefkit.workshop.network.file import OnnxFile
from hefkit.workshop.network.session import open_session, run_session

LIMITS = (0.05, 1e-3)  # pixels of the input, score
HALF_LIMITS = (1.0, 1e-2)  # for float16, whose steps are half a pixel above 512
SYNTHETIC_PICTURES = 2
MAX_GIVEN_PICTURES = 2
SEED = 20


@dataclass(frozen=True)
class Proof:
    """The largest differences over all anchors of a model that passed."""

    max_abs_px: float
    max_abs_score: float
    images: int

    def to_json(self) -> dict[str, float | int]:
        """The `proof` object of --json."""
        return {"max_abs_px": self.max_abs_px, "max_abs_score": self.max_abs_score, "images": self.images}


@dataclass(frozen=True)
class _Reading:
    """One way to read raw predictions; all ways are tried, and the one that fits best is that of the export."""

    anchors_last: bool  # (C, N), else (N, C)
    xywh: bool  # centre and size, else corners
    normalised: bool  # 0..1, else pixels


READINGS = tuple(_Reading(a, x, n) for n in (False, True) for x in (True, False) for a in (True, False))


def prove(file: OnnxFile, layout: HeadLayout, images: Sequence[np.ndarray] | None = None) -> Proof:
    """Compare cut network and decoding with the whole ONNX.

    Args:
        images: (H, W, 3) uint8 RGB of the input size; the first MAX_GIVEN_PICTURES are used with the synthetic ones.

    Raises:
        ModelError: they differ by more than LIMITS (HALF_LIMITS for float16), or a network computes NaN.
    """
    head = layout.to_head_spec()
    pictures = [*synthetic_images(file.size), *list(images or ())[:MAX_GIVEN_PICTURES]]
    for picture in pictures:
        if picture.shape != (*file.size, 3) or picture.dtype != np.uint8:
            raise ValueError(f"expected {(*file.size, 3)} uint8, got {picture.shape} {picture.dtype}")
    cases = [*_through_networks(file, layout, pictures), *_through_tail(file, layout)]
    worst_px, worst_score = 0.0, 0.0
    limits = HALF_LIMITS if layout.half else LIMITS
    for heads, raw in cases:
        px, score = _difference(file, head, heads, raw)
        worst_px, worst_score = max(worst_px, px), max(worst_score, score)
        if not (px <= limits[0] and score <= limits[1]):
            raise ModelError(
                f"{file.path}: cut at these heads ({layout.family}, {layout.num_classes} classes, strides "
                f"{', '.join(map(str, layout.strides))}) and decoded by hefkit it gives other predictions than the "
                f"whole ONNX: boxes differ by up to {px:.3g} px (allowed {limits[0]}), scores by {score:.3g} (allowed "
                f"{limits[1]}); its decode arithmetic is not that of a YOLO that hefkit knows; export it again without "
                "changes to the head"
            )
    return Proof(worst_px, worst_score, len(pictures))


def synthetic_images(size: tuple[int, int]) -> list[np.ndarray]:
    """Pictures (H, W, 3) uint8 RGB, the same on every machine: soft noise with rectangles on it."""
    height, width = size
    rng = np.random.default_rng(SEED)
    pictures = []
    for _ in range(SYNTHETIC_PICTURES):
        coarse = rng.integers(0, 256, (5, 5, 3), np.uint8)
        picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        for _ in range(6):
            corner = rng.uniform(0, 0.8, 2) * size
            bottom, right = np.ceil(corner + rng.uniform(0.1, 0.4, 2) * size).astype(int)
            top, left = corner.astype(int)
            picture[top:bottom, left:right] = rng.integers(0, 256, 3)
        pictures.append(picture)
    return pictures


def to_network_input(batch: np.ndarray, dtype: str) -> np.ndarray:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) of 0..1, float32 or float16: what an exported YOLO expects."""
    scaled = batch.astype(np.float32) / np.float32(255)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2)).astype(dtype)


def heads_to_hwc(tensors: Sequence[np.ndarray]) -> list[np.ndarray]:
    """(1, C, H, W) floats -> contiguous (H, W, C) float32."""
    return [np.ascontiguousarray(t[0].transpose(1, 2, 0), np.float32) for t in tensors]


_Case = tuple[list[np.ndarray], list[np.ndarray]]  # head tensors (H, W, C), raw predictions without batch


def _through_networks(file: OnnxFile, layout: HeadLayout, pictures: Sequence[np.ndarray]) -> list[_Case]:
    """The cut and the uncut network, each on its own, on pictures."""
    upper = open_session(cut(file.model, layout.tensors))
    whole = open_session(extract(file.model, layout.raw))
    cases = []
    for picture in pictures:
        feed = {file.input_name: to_network_input(picture[None], file.dtype)}
        heads = heads_to_hwc(run_session(upper, layout.tensors, feed))
        cases.append((heads, [r[0] for r in run_session(whole, layout.raw, feed)]))
    return cases


def _through_tail(file: OnnxFile, layout: HeadLayout) -> list[_Case]:
    """Random head tensors, and what the graph below the heads makes of them."""
    rng = np.random.default_rng(SEED)
    feeds = {}
    for conv in layout.convs:
        height, width, channels = conv.shape
        feeds[conv.tensor_name] = rng.normal(0, 2, (1, channels, height, width)).astype(conv.dtype)
    raw = run_tail(file.model, feeds, layout.raw)
    return [(heads_to_hwc(list(feeds.values())), [raw[name][0] for name in layout.raw])]


def _difference(
    file: OnnxFile, head: HeadSpec, heads: Sequence[np.ndarray], raw: Sequence[np.ndarray]
) -> tuple[float, float]:
    """(largest box difference in pixels, largest score difference), by the reading that fits the export best."""
    with np.errstate(all="ignore"):  # the next line reports an overflow
        xyxy, scores = decode_all(heads, head)
        tables = [r.astype(np.float32, copy=False) for r in raw]
    if not all(np.isfinite(a).all() for a in (xyxy, scores, *raw)):
        raise ModelError(f"{file.path} computes NaN or infinite predictions; expected numbers; the weights are broken")
    orders = _orders(head)
    best = (np.inf, np.inf)
    for reading in READINGS:
        with np.errstate(all="ignore"):  # a wrong reading may overflow
            read = _read(tables, reading, file.size, head.num_classes)
            if read is None or len(read[0]) != len(xyxy):
                continue
            for order in orders:
                px = float(np.abs(read[0] - xyxy[order]).max())
                if px <= best[0]:  # the scores of the other readings do not matter
                    best = min(best, (px, float(np.abs(read[1] - scores[order]).max())))
    return best


def _orders(head: HeadSpec) -> list[np.ndarray]:
    """Possible orders of the anchors: the finest scale first, as in most exports, or the coarsest."""
    sizes = [box.shape[0] * box.shape[1] for box in head.outputs[::2]]
    scales = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    return [np.concatenate(scales), *([np.concatenate(scales[::-1])] if len(scales) > 1 else [])]


def _read(
    raw: Sequence[np.ndarray], reading: _Reading, size: tuple[int, int], num_classes: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Raw predictions -> (N, 4) xyxy in pixels and (N, classes) scores; None where the shape does not fit."""
    tables = [r.T if reading.anchors_last else r for r in raw]
    if len(tables) == 2:
        boxes, scores = tables
    else:
        boxes, objectness, scores = np.split(tables[0], [4, tables[0].shape[1] - num_classes], axis=1)
        if objectness.shape[1] > 1 or (objectness != 1).any():
            return None
    if boxes.shape[1] != 4 or scores.shape[1] != num_classes:
        return None
    if reading.normalised:
        boxes = boxes * np.tile(np.asarray(size[::-1], np.float32), 2)
    if reading.xywh:
        boxes = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)
    return boxes, scores
