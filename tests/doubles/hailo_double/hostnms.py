"""HailoRT's own box decoding and NMS, written again in plain numpy: for each cell and class, like its C++.

Multi-label. A score at the threshold counts; an overlap at the threshold suppresses the worse box of the class. At most
`most` boxes a class. Coordinates are divided by the image's size, y first, not clipped.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Table = dict[str, Any]


def detections_by_class(codes: list[np.ndarray], raw: list[Table], nms: Table, least: float, iou: float) -> np.ndarray:
    """For each class a count, then as many rows of y_min, x_min, y_max, x_max, score; the rest stays zero."""
    boxes, scores = _decoded(codes, raw, nms)
    out, at = np.zeros(nms["classes"] * (1 + 5 * nms["most"]), np.float32), 0
    for class_id in range(nms["classes"]):
        rows = [
            np.append(boxes[anchor], scores[anchor, class_id])
            for anchor in np.flatnonzero(scores[:, class_id] >= np.float32(least))
        ]
        rows.sort(key=lambda row: -row[4])
        kept: list[np.ndarray] = []
        for row in rows:
            if all(_iou(row, better) < iou for better in kept):
                kept.append(row)
        kept = kept[: nms["most"]]
        out[at] = len(kept)
        for row in kept:
            out[at + 1 : at + 6] = row
            at += 5
        at += 1
    return out


def boxes_only(codes: list[np.ndarray], raw: list[Table], nms: Table) -> np.ndarray:
    """(1, anchors, 4 + classes): the box of every anchor and its scores."""
    return np.concatenate(_decoded(codes, raw, nms), axis=1)[None].astype(np.float32)


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    height, width = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if height <= 0 or width <= 0:
        return 0.0
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - height * width
    return float(height * width / union)


def _decoded(codes: list[np.ndarray], raw: list[Table], nms: Table) -> tuple[np.ndarray, np.ndarray]:
    """(anchors, 4) y_min, x_min, y_max, x_max in 0..1 and (anchors, classes) float32 scores."""
    boxes, scores = [], []
    height, width = nms["size"]
    for stride, box, cls in nms["pairs"]:
        values, likely = _real(codes[box], raw[box]), _real(codes[cls], raw[cls])
        rows, columns, channels = values.shape
        bins = values.reshape(rows, columns, 4, channels // 4)
        if channels > 4:
            grown = np.exp(bins - bins.max(axis=3, keepdims=True))
            weights = np.arange(channels // 4, dtype=np.float32)
            sides = (grown / grown.sum(axis=3, keepdims=True) * weights).sum(axis=3)  # left, top, right, bottom
        else:
            sides = bins[..., 0]
        y, x = (np.arange(rows) + 0.5)[:, None], (np.arange(columns) + 0.5)[None]
        edges = [y - sides[..., 1], x - sides[..., 0], y + sides[..., 3], x + sides[..., 2]]
        lengths = (height, width, height, width)
        boxes.append(np.stack([e * stride / n for e, n in zip(edges, lengths, strict=True)], axis=2).reshape(-1, 4))
        scores.append(likely.reshape(-1, likely.shape[2]))
    return np.concatenate(boxes).astype(np.float32), np.concatenate(scores)


def _real(codes: np.ndarray, stream: Table) -> np.ndarray:
    return (codes.astype(np.float32) - np.float32(stream["zero_point"])) * np.float32(stream["scale"])
