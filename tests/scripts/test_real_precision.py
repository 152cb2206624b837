"""Average precision on real detections equals what COCO's own code and its maintained successor compute."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from hefkit.detect.decode import DecodeSettings
from hefkit.detect.detections import Detections
from hefkit.detect.detector import Detector
from hefkit.measure.coco import AREAS, AveragePrecision
from hefkit.open_model import open_engine

pytestmark = pytest.mark.slow
CLASSES = 3
PRECISIONS = ("pycocotools", "faster_coco_eval")


def plain_labels(path: Path, width: int, height: int) -> np.ndarray:
    """(n, 5) class and xyxy in pixels: five numbers a line."""
    rows = [[float(word) for word in line.split()] for line in path.read_text().splitlines()]
    table = np.array(rows).reshape(-1, 5)
    centre, half = table[:, 1:3] * [width, height], table[:, 3:] * [width, height] / 2
    return np.hstack([table[:, :1], centre - half, centre + half])


@pytest.fixture(scope="module")
def pictures(shared: Path) -> list[tuple[np.ndarray, Detections]]:
    """Labels and detections of the float network in half of the val pictures, from a confidence of 0.001."""
    data = shared / "datasets" / "bccd"
    rows = []
    with open_engine(shared / "models" / "bccd_416.onnx") as engine:
        detector = Detector(engine, DecodeSettings(conf=0.001, multi_label=True))
        for path in sorted((data / "images" / "val").glob("*.jpg"))[::2]:
            picture = cv2.imread(str(path))
            labels = data / "labels" / "val" / f"{path.stem}.txt"
            rows.append((plain_labels(labels, picture.shape[1], picture.shape[0]), detector.detect(picture)[0]))
    return rows


def evaluated(library: str, pictures: list[tuple[np.ndarray, Detections]]) -> np.ndarray:
    """(10, 101, classes, 4 areas) COCO's precisions at maxDets 300."""
    truth: dict[str, Any] = {
        "info": {},
        "images": [{"id": i} for i in range(1, len(pictures) + 1)],
        "categories": [{"id": c, "name": str(c)} for c in range(1, CLASSES + 1)],
        "annotations": [],
    }
    found = []
    for i, (labels, boxes) in enumerate(pictures, 1):
        for row in labels:
            wh = row[3:] - row[1:3]
            truth["annotations"].append(
                {"id": len(truth["annotations"]) + 1, "image_id": i, "category_id": int(row[0]) + 1,
                 "bbox": [*row[1:3], *wh], "area": float(wh.prod()), "iscrowd": 0}
            )  # fmt: skip
        for box, score, class_id in zip(boxes.xyxy.astype(float), boxes.score, boxes.class_id, strict=True):
            found.append(
                {"image_id": i, "category_id": int(class_id) + 1, "bbox": [*box[:2], *(box[2:] - box[:2])],
                 "score": float(score)}
            )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        if library == "pycocotools":
            from pycocotools.coco import COCO
            from pycocotools.cocoeval import COCOeval

            ours = COCO()
            ours.dataset = truth
            ours.createIndex()
        else:
            from faster_coco_eval import COCO, COCOeval_faster as COCOeval  # noqa: I001

            ours = COCO(truth)
        evaluation = COCOeval(ours, ours.loadRes(found), "bbox")
        evaluation.params.maxDets = [1, 10, 300]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][:, :, :, :, -1]


@pytest.mark.parametrize("library", PRECISIONS)
def test_equal_to_coco(library: str, pictures: list[tuple[np.ndarray, Detections]]) -> None:
    """By class, by size, at every IoU, to 1e-6; a class without labels of a size is unknown to both."""
    pytest.importorskip(library, reason="requirements-dev.txt has it")
    precision = evaluated(library, pictures)
    meter = AveragePrecision(CLASSES)
    for labels, found in pictures:
        truth = Detections(labels[:, 1:], np.ones(len(labels), np.float32), labels[:, 0].astype(np.int64))
        meter.add(truth, found)

    for place, area in enumerate(AREAS):
        expected = precision[:, :, :, place].mean(axis=1).T  # (classes, 10)
        expected = np.where(expected < 0, np.nan, expected)
        np.testing.assert_allclose(meter.by_class(area), expected, atol=1e-6)

    figures = meter.figures()
    everything = precision[:, :, :, 0]
    assert abs(figures["map50"] - everything[0][everything[0] > -1].mean()) < 1e-6
    assert abs(figures["map50_95"] - everything[everything > -1].mean()) < 1e-6
    assert 0.8 < figures["map50"] < 1
