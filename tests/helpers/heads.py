"""Heads and their tensors for tests, and a simple decode of them: loops over everything, in float.

The simple decode shares no code with `hefkit.detect.decode`; it dequantises every entry, looks at every anchor, and
compares every pair of boxes.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from hefkit.detect.decode import DecodeSettings
from hefkit.spec import CODE_DTYPES, HeadSpec, InputSpec, ModelSpec, OutputSpec
from tests.helpers.boxes import plain_iou


class Found(NamedTuple):
    """One detection of the simple decode."""

    class_id: int
    anchor: int
    score: float
    xyxy: tuple[float, ...]


def make_head(
    size_hw: tuple[int, int] = (64, 64),
    strides: tuple[int, ...] = (8, 16, 32),
    num_classes: int = 3,
    reg_max: int = 16,
    dtype: str = "uint8",
    activation: str = "sigmoid",
    nms_free: bool = False,
) -> HeadSpec:
    """A head for an input of this size; codes span -8..8 (boxes, logits), 0..1 (sigmoid) or 0..6 cells (ltrb)."""
    outputs = []
    for stride in strides:
        grid = (size_hw[0] // stride, size_hw[1] // stride)
        box = OutputSpec("box", stride, (*grid, 4 * reg_max), f"box{stride}", dtype=dtype)
        cls = OutputSpec("cls", stride, (*grid, num_classes), f"cls{stride}", activation=activation, dtype=dtype)
        if dtype != "float32":
            top = CODE_DTYPES[dtype]
            box = replace(box, scale=(6 if reg_max == 1 else 16) / top, zero_point=0 if reg_max == 1 else top // 2)
            logits = activation == "none"
            cls = replace(cls, scale=(16 if logits else 1) / top, zero_point=top // 2 if logits else 0)
        outputs += [box, cls]
    family = "ltrb" if reg_max == 1 else "dfl"
    return HeadSpec(family, num_classes, reg_max, strides, nms_free, tuple(outputs))


def make_spec(
    head: HeadSpec, size_hw: tuple[int, int] = (64, 64), kind: str = "emulated", **fields: object
) -> ModelSpec:
    """A model spec around a head; classes are called class0, class1 ... unless `names` says otherwise."""
    names = {i: f"class{i}" for i in range(head.num_classes)}
    return replace(ModelSpec(kind, InputSpec(size_hw), head, names), **fields)  # type: ignore[arg-type]


def per_feature(head: HeadSpec, rng: np.random.Generator) -> HeadSpec:
    """The same head with another scale and zero point for every channel."""

    def vary(output: OutputSpec) -> OutputSpec:
        channels = output.shape[2]
        scale = tuple((output.scale * rng.uniform(0.6, 1.4, channels)).tolist())
        zero_point = tuple((output.zero_point + rng.integers(-3, 4, channels)).tolist())
        return replace(output, scale=scale, zero_point=zero_point)

    return replace(head, outputs=tuple(vary(o) for o in head.outputs))


def random_tensors(head: HeadSpec, rng: np.random.Generator, objects: float = 0.1) -> list[np.ndarray]:
    """Tensors of a head: mostly background; a share `objects` of the anchors has high scores."""
    tensors = []
    for output in head.outputs:
        high = np.ones(output.shape, bool)
        if output.role == "cls":
            high = rng.random((*output.shape[:2], 1)) < objects
        if output.dtype == "float32":
            sigmoid = output.activation == "sigmoid"
            low = rng.uniform(0, 0.1, output.shape) if sigmoid else rng.normal(-6, 1, output.shape)
            top = rng.uniform(0, 1, output.shape) if sigmoid else rng.normal(0, 3, output.shape)
            if output.role == "box" and output.shape[2] == 4:
                top = rng.uniform(0, 6, output.shape)
        else:
            top = rng.integers(0, CODE_DTYPES[output.dtype] + 1, output.shape)
            low = top // 12
        tensors.append(np.where(high, top, low).astype(output.dtype))
    return tensors


def plain_scores(tensors: list[np.ndarray], head: HeadSpec) -> np.ndarray:
    """(anchors, classes) float32 scores."""
    rows = []
    for tensor, spec in zip(tensors[1::2], head.outputs[1::2], strict=True):
        real = _real(tensor, spec).reshape(-1, head.num_classes)
        rows.append(real if spec.activation == "sigmoid" else 1 / (1 + np.exp(-real.astype(np.float64))))
    return np.concatenate(rows).astype(np.float32)


def plain_boxes(tensors: list[np.ndarray], head: HeadSpec, wanted: np.ndarray | None = None) -> np.ndarray:
    """(anchors, 4) float64 xyxy in pixels of the input; NaN where `wanted`, (anchors,) bool, is given and false."""
    boxes: list[list[float]] = []
    for tensor, spec in zip(tensors[0::2], head.outputs[0::2], strict=True):
        real = _real(tensor, spec).astype(np.float64).reshape(*spec.shape[:2], 4, -1).tolist()
        for y in range(spec.shape[0]):
            for x in range(spec.shape[1]):
                if wanted is not None and not wanted[len(boxes)]:
                    boxes.append([math.nan] * 4)
                    continue
                sides = []
                for bins in real[y][x]:
                    highest = max(bins)
                    weights = [math.exp(value - highest) for value in bins]
                    mean = sum(i * weight for i, weight in enumerate(weights)) / sum(weights)
                    sides.append(bins[0] if len(bins) == 1 else mean)
                left, top, right, bottom = sides
                boxes.append([x + 0.5 - left, y + 0.5 - top, x + 0.5 + right, y + 0.5 + bottom])
                boxes[-1] = [v * spec.stride for v in boxes[-1]]
    return np.array(boxes)


def plain_decode(tensors: list[np.ndarray], head: HeadSpec, settings: DecodeSettings) -> list[Found]:
    """The contract of decoding, literally; see also `is_close_call`."""
    scores = plain_scores(tensors, head)
    boxes = plain_boxes(tensors, head, scores.max(axis=1) >= np.float32(settings.conf))
    found = []
    for anchor, row in enumerate(scores):
        classes = range(head.num_classes) if settings.multi_label or head.nms_free else [int(np.argmax(row))]
        for c in classes:
            if row[c] >= np.float32(settings.conf) and (settings.classes is None or c in settings.classes):
                found.append(Found(c, anchor, float(row[c]), tuple(boxes[anchor])))
    found.sort(key=lambda f: (-f.score, f.class_id, f.anchor))
    if head.nms_free:
        best = list(dict.fromkeys(f.anchor for f in found))[: settings.max_det]
        return [f for f in found if f.anchor in best][: settings.max_det]
    kept: list[Found] = []
    for one in found:
        rivals = [k for k in kept if settings.agnostic_nms or k.class_id == one.class_id]
        if not any(plain_iou(k.xyxy, one.xyxy) > settings.iou for k in rivals):
            kept.append(one)
    return kept[: settings.max_det]


def is_close_call(tensors: list[np.ndarray], head: HeadSpec, settings: DecodeSettings) -> bool:
    """Whether rounding decides: a score or an overlap is very near its threshold, or two scores are nearly equal."""
    scores = plain_scores(tensors, head).astype(np.float64)
    if (np.abs(scores - settings.conf) < 1e-6).any() and settings.conf not in (0.0, 1.0):
        return True
    values = np.unique(scores[scores >= settings.conf])
    if (np.diff(values) < 1e-6).any():
        return True
    some = (scores >= settings.conf).any(axis=1)
    boxes = plain_boxes(tensors, head, some)[some]
    areas = np.prod((boxes[:, 2:] - boxes[:, :2]).clip(0), axis=1)
    a, b = np.tril_indices(len(boxes), -1)
    low, high = np.maximum(boxes[a, :2], boxes[b, :2]), np.minimum(boxes[a, 2:], boxes[b, 2:])
    shared = np.prod((high - low).clip(0), axis=1)
    overlaps = shared[shared > 0] / (areas[a] + areas[b] - shared)[shared > 0]
    return bool((np.abs(overlaps - settings.iou) < 1e-5).any())


def _real(tensor: np.ndarray, spec: OutputSpec) -> np.ndarray:
    if spec.dtype == "float32":
        return tensor
    return (tensor.astype(np.float32) - np.float32(spec.zero_point)) * np.float32(spec.scale)
