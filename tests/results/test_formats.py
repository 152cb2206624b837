"""Detections as text: each format is exact, survives any name, and needs no more memory for more pictures."""

from __future__ import annotations

import csv
import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from hefkit.detect.detections import Detections
from hefkit.results.formats import WRITERS, ImageInfo, json_line

FOUND = Detections(
    np.array([[1.00049, 2.5, 30.25, 20.125], [0, 0, 12, 9]], np.float32),
    np.array([0.9, 0.25000003], np.float32),
    np.array([1, 0]),
)
NAMES = {0: "drone", 1: "bird"}
AWKWARD = 'in/"a", b\n\udcff.jpg'  # quotes, a comma, a line end, a byte that is no UTF-8


def image(
    source: str, frame: int | None = None, size_wh: tuple[int, int] = (64, 48), engine: str = "float", stem: str = "a"
) -> ImageInfo:
    """A picture of 64x48."""
    return ImageInfo(source, source.removeprefix("in/"), stem, frame, *size_wh, engine)


def write(folder: Path, name: str, *images: tuple[ImageInfo, Detections], names: dict[int, str] = NAMES) -> None:
    """One format, all pictures, closed."""
    writer = WRITERS[name](folder, names)
    for each in images:
        writer.add(*each)
    writer.close()
    writer.close()


def test_json_line_has_the_contract_keys() -> None:
    """The line is the contract's object, keys in its order, coordinates with four decimals."""
    line = json_line(image("in/a.jpg"), FOUND, NAMES)

    assert line == (
        '{"source": "in/a.jpg", "frame": null, "width": 64, "height": 48, "engine": "float", "detections": ['
        '{"class_id": 1, "class": "bird", "score": 0.900000, "xyxy": [1.0005, 2.5000, 30.2500, 20.1250]}, '
        '{"class_id": 0, "class": "drone", "score": 0.250000, "xyxy": [0.0000, 0.0000, 12.0000, 9.0000]}]}'
    )


def test_json_line_of_nothing_and_of_a_frame() -> None:
    """No detections are an empty list; a video frame has its number."""
    line = json_line(image("v.mp4", 7, engine="emulated"), Detections.empty(), NAMES)

    assert json.loads(line) == {
        "source": "v.mp4", "frame": 7, "width": 64, "height": 48, "engine": "emulated", "detections": []
    }  # fmt: skip


def test_json_line_survives_any_name() -> None:
    """Quotes, line ends, other alphabets and names that are not UTF-8: one ASCII line that reads back equal."""
    source, name = 'in/"a"\n\udcff.jpg', "犬\x1b\u2028\\"

    line = json_line(image(source), FOUND[:1], {1: name})

    assert line.isascii() and "\n" not in line
    assert json.loads(line)["source"] == source and json.loads(line)["detections"][0]["class"] == name


def test_json_line_keeps_a_thousandth_of_a_pixel() -> None:
    """Every float32 coordinate up to 8192 comes back within 0.001 px, every score within 1e-6."""
    rng = np.random.default_rng(0)
    many = Detections(
        rng.uniform(0, 8192, (500, 4)).astype(np.float32), rng.random(500).astype(np.float32), np.zeros(500, int)
    )

    read = json.loads(json_line(image("a", size_wh=(8192, 8192)), many, NAMES))["detections"]

    assert np.abs(np.array([d["xyxy"] for d in read]) - many.xyxy).max() < 1e-3
    assert np.abs(np.array([d["score"] for d in read]) - many.score).max() < 1e-6


def test_jsonl_is_one_line_a_picture(tmp_path: Path) -> None:
    """In order, the empty picture too."""
    write(tmp_path, "jsonl", (image("in/a.jpg"), FOUND), (image("in/b.jpg"), Detections.empty()))

    lines = (tmp_path / "detections.jsonl").read_text().splitlines()
    assert lines == [
        json_line(image("in/a.jpg"), FOUND, NAMES),
        json_line(image("in/b.jpg"), Detections.empty(), NAMES),
    ]


def test_csv_has_the_contract_columns(tmp_path: Path) -> None:
    """One row a detection; no frame number for photographs; the empty picture has no row."""
    write(
        tmp_path,
        "csv",
        (image("in/a.jpg"), FOUND),
        (image("b.jpg"), Detections.empty()),
        (image("v.mp4", 3), FOUND[1:]),
    )

    assert (tmp_path / "detections.csv").read_text() == (
        "source,frame,class_id,class,score,x1,y1,x2,y2\n"
        "in/a.jpg,,1,bird,0.900000,1.0005,2.5000,30.2500,20.1250\n"
        "in/a.jpg,,0,drone,0.250000,0.0000,0.0000,12.0000,9.0000\n"
        "v.mp4,3,0,drone,0.250000,0.0000,0.0000,12.0000,9.0000\n"
    )


def test_csv_survives_any_name(tmp_path: Path) -> None:
    """Quoted as RFC 4180 has it; a file name that is not UTF-8 keeps its bytes."""
    write(tmp_path, "csv", (image(AWKWARD), FOUND[:1]), names={0: "a", 1: 'say "b",\r\n犬'})

    raw = (tmp_path / "detections.csv").read_bytes()
    rows = list(csv.reader(raw.decode("utf-8", "surrogateescape").splitlines(keepends=True)))
    assert len(rows) == 2 and (rows[1][0], rows[1][3]) == (AWKWARD, 'say "b",\r\n犬')
    assert os.fsencode(AWKWARD).rpartition(b"\n")[2] in raw


def test_coco_is_complete(tmp_path: Path) -> None:
    """Categories by class id, images from 1 in order, boxes as left, top, width, height, ids that join them.

    Width of the first: 30.25 - 1.00049 = 29.24951; times 17.625 the area.
    """
    write(
        tmp_path,
        "coco",
        (image("in/a.jpg"), FOUND),
        (image(AWKWARD), Detections.empty()),
        (image("v.mp4", 3), FOUND[1:]),
    )

    data = json.loads((tmp_path / "coco.json").read_text())
    assert data["categories"] == [{"id": 0, "name": "drone"}, {"id": 1, "name": "bird"}]
    assert [(i["id"], i["file_name"], i["source"], i["frame"]) for i in data["images"]] == [
        (1, "a.jpg", "in/a.jpg", None),
        (2, AWKWARD.removeprefix("in/"), AWKWARD, None),
        (3, "v.mp4", "v.mp4", 3),
    ]
    assert [(i["width"], i["height"]) for i in data["images"]] == [(64, 48)] * 3
    assert data["annotations"] == [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1.0005, 2.5, 29.2495, 17.625], "area": 515.5226,
         "iscrowd": 0, "score": 0.9},
        {"id": 2, "image_id": 1, "category_id": 0, "bbox": [0, 0, 12, 9], "area": 108, "iscrowd": 0, "score": 0.25},
        {"id": 3, "image_id": 3, "category_id": 0, "bbox": [0, 0, 12, 9], "area": 108, "iscrowd": 0, "score": 0.25},
    ]  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["coco.json"], "nothing is left of the second list"


def test_coco_without_anything(tmp_path: Path) -> None:
    """No picture at all is still a whole document."""
    write(tmp_path, "coco")

    data = json.loads((tmp_path / "coco.json").read_text())
    assert (data["images"], data["annotations"]) == ([], [])


def test_yolo_labels(tmp_path: Path) -> None:
    """Over the picture's sides: 15.625245/64, 11.3125/48, 29.24951/64, 17.625/48; and 6/64, 4.5/48, 12/64, 9/48."""
    write(tmp_path, "txt", (image("in/a.jpg"), FOUND), (image("b.jpg", stem="b"), Detections.empty()))

    lines = (tmp_path / "labels" / "a.txt").read_text().splitlines()
    assert lines[0] == "1 0.244144 0.235677 0.457024 0.367188 0.900000"
    assert lines[1] == "0 0.093750 0.093750 0.187500 0.187500 0.250000"
    assert (tmp_path / "labels" / "b.txt").read_text() == "", "nothing found is not the same as not looked at"


@pytest.mark.parametrize("name", ["jsonl", "csv", "coco"])
def test_memory_does_not_grow_with_the_pictures(tmp_path: Path, name: str) -> None:
    """Two thousand pictures of two detections leave nothing behind in memory."""
    writer = WRITERS[name](tmp_path, NAMES)
    writer.add(image("in/a.jpg"), FOUND)
    tracemalloc.start()
    for i in range(2000):
        writer.add(image(f"in/{i}.jpg"), FOUND)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    writer.close()

    assert size < 40_000
