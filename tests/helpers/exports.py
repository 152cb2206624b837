"""The kinds of exports: name -> options of `tiny_yolo`, for tests that try all of them."""

from __future__ import annotations

from typing import Any

EXPORTS: dict[str, dict[str, Any]] = {
    "YOLOv8 and 11": {},
    "box and class channels concatenated, Split": {"style": "split"},
    "box and class channels concatenated, Slice": {"style": "slice"},
    "official YOLOv6: sigmoid per scale, objectness of ones": {"style": "per_scale", "ends": "objectness"},
    "official YOLOv6 n: the same without DFL": {"family": "ltrb", "style": "per_scale", "ends": "objectness"},
    "DFL as MatMul": {"dfl": "matmul"},
    "DFL as Mul and ReduceSum": {"dfl": "mulsum"},
    "DFL per scale as Mul and ReduceSum": {"dfl": "mulsum", "style": "per_scale"},
    "reg_max 8": {"reg_max": 8},
    "reg_max 17, as PP-YOLOE": {"reg_max": 17, "ends": "pair", "boxes": "xyxy"},
    "YOLO26": {"family": "ltrb"},
    "YOLO26 end to end": {"family": "ltrb", "tail": "topk", "boxes": "xyxy"},
    "YOLOv10 end to end": {"tail": "topk", "boxes": "xyxy", "opset": 13},
    "end to end, opset 11": {"tail": "topk", "opset": 11},
    "embedded NMS": {"tail": "nms"},
    "embedded NMS, unsimplified, opset 20": {"tail": "nms", "simplified": False, "opset": 20},
    "embedded NMS of YOLO26": {"family": "ltrb", "tail": "nms", "opset": 17},
    "opset 11": {"opset": 11},
    "opset 18, unsimplified": {"opset": 18, "simplified": False},
    "dynamic batch": {"dynamic": "batch"},
    "dynamic size": {"dynamic": "size", "size": (64, 96)},
    "dynamic size, unsimplified, split": {"dynamic": "size", "simplified": False, "style": "split", "opset": 17},
    "float16": {"half": True},
    "float16 YOLO26, unsimplified": {"half": True, "family": "ltrb", "simplified": False},
    "64 classes beside 64 box channels": {"classes": 64},
    "64 classes, concatenated": {"classes": 64, "style": "split"},
    "4 classes beside 4 box channels": {"classes": 4, "family": "ltrb"},
    "4 classes beside 4 box channels, concatenated": {"classes": 4, "family": "ltrb", "style": "slice"},
    "as many channels as anchors": {"classes": 80},  # 4 + 80 = 8 * 8 + 4 * 4 + 2 * 2
    "one class": {"classes": 1},
    "not square": {"size": (96, 64)},
    "two scales": {"strides": (16, 32)},
    "four scales with P2": {"strides": (4, 8, 16, 32)},
    "five scales": {"strides": (4, 8, 16, 32, 64)},
    "nodes without names": {"named": False},
    "boxes and scores apart": {"ends": "pair"},
    "boxes and scores apart, anchors last": {"ends": "pair_last"},
    "boxes and scores apart after a concat": {"style": "split", "ends": "pair"},
    "corners": {"boxes": "xyxy", "ends": "anchors_first"},
    "normalised": {"normalised": True, "size": (64, 96)},
}
