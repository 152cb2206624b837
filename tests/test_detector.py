"""A photograph goes in, boxes in its own pixels come out; many photographs end in a tally."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from hefkit import pipeline
from hefkit.decode import DecodeSettings
from hefkit.detections import Detections
from hefkit.detector import Detector
from hefkit.errors import DataError
from hefkit.images import UnreadableImage
from hefkit.preprocess import letterbox
from hefkit.progress import Progress
from hefkit.sources import Item
from tests.helpers.fake_engine import engine_that_finds


def test_boxes_come_back_in_pixels_of_the_photograph() -> None:
    """A 128x64 photograph in a 64x64 input is halved and padded by 16 px above and below.

    (16, 24, 48, 40) in the input is (16 * 2, (24 - 16) * 2, 48 * 2, (40 - 16) * 2) in the photograph.
    """
    detector = Detector(engine_that_finds((2, 0.9, (16, 24, 48, 40))), DecodeSettings())

    found, _ = detector.detect(np.zeros((64, 128, 3), np.uint8))

    assert found.xyxy.tolist() == [[32, 16, 96, 48]]
    assert (found.class_id.tolist(), found.score.tolist()) == ([2], pytest.approx([0.9]))


def test_boxes_come_back_from_a_stretched_input() -> None:
    """A stretched 128x64 photograph: x doubles, y stays."""
    detector = Detector(engine_that_finds((0, 0.9, (16, 24, 48, 40)), fit="stretch"), DecodeSettings())

    found, _ = detector.detect(np.zeros((64, 128, 3), np.uint8))

    assert found.xyxy.tolist() == [[32, 24, 96, 40]]


def test_boxes_are_clipped_and_stay() -> None:
    """A box beyond the edge is cut at it; one that lay in the padding becomes empty, and is still counted."""
    engine = engine_that_finds((0, 0.9, (-8, 20, 30, 70)), (1, 0.8, (8, 0, 40, 12)))
    detector = Detector(engine, DecodeSettings())

    found, _ = detector.detect(np.zeros((64, 128, 3), np.uint8))

    assert found.xyxy.tolist() == [[0, 8, 60, 64], [16, 0, 80, 0]]


def test_the_engine_is_fed_by_the_one_letterbox() -> None:
    """What the engine gets is `letterbox` of the photograph, byte for byte, RGB."""
    engine = engine_that_finds()
    photograph = np.random.default_rng(0).integers(0, 256, (50, 90, 3), np.uint8)

    Detector(engine, DecodeSettings()).detect(photograph)

    assert np.array_equal(engine.fed[0], letterbox(photograph, engine.spec.input)[0])


def test_nothing_found_is_empty_with_times() -> None:
    """No detections is a case with shapes, and its stages took time too."""
    found, times = Detector(engine_that_finds(), DecodeSettings()).detect(np.zeros((40, 30, 3), np.uint8))

    assert found.xyxy.shape == (0, 4) and len(found) == 0
    assert all(seconds >= 0 for seconds in times) and times._fields == ("preprocess", "infer", "decode")


class Notebook:
    """Stands for the outputs: remembers what was written."""

    def __init__(self) -> None:
        self.written: list[tuple[int, tuple[int, ...], int]] = []

    def write(self, index: int, image_bgr: np.ndarray, detections: Detections) -> None:
        self.written.append((index, image_bgr.shape, len(detections)))


def items(*names: str) -> list[Item]:
    """Items that a stubbed reader understands."""
    return [Item(Path(name), f"in/{name}", PurePosixPath(name)) for name in names]


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Replace the image reader: `bad*` is unreadable, `boom*` a bug, `WxH` a picture; yields what was read."""
    read: list[str] = []

    def fake(path: Path) -> np.ndarray:
        read.append(path.name)
        if path.name.startswith("bad"):
            raise UnreadableImage("half a picture")
        if path.name.startswith("boom"):
            raise RuntimeError("a bug")
        width, height = map(int, path.name.split("x"))
        return np.zeros((height, width, 3), np.uint8)

    monkeypatch.setattr(pipeline, "read_image", fake)
    yield read


def run(given: list[Item]) -> tuple[pipeline.Tally, Notebook]:
    """The pipeline with an engine that finds two things in every picture."""
    engine = engine_that_finds((0, 0.9, (16, 24, 48, 40)), (2, 0.8, (8, 8, 24, 24)))
    notebook = Notebook()
    return pipeline.run(given, Detector(engine, DecodeSettings()), notebook, Progress()), notebook  # type: ignore[arg-type]


def test_every_picture_is_written_in_order(reader: list[str]) -> None:
    """However fast the reader is, results come in the order of the items."""
    names = [f"{40 + i}x30" for i in range(20)]

    tally, notebook = run(items(*names))

    assert [shape[1] for _, shape, _ in notebook.written] == [40 + i for i in range(20)]
    assert [index for index, _, _ in notebook.written] == list(range(20))
    assert (tally.images, tally.failed, tally.detections) == (20, 0, 40)
    assert tally.by_class == {0: 20, 2: 20}


def test_unreadable_pictures_are_named_and_counted(
    reader: list[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bad file costs one warning, not the run."""
    monkeypatch.setattr(logging.getLogger("hefkit"), "propagate", True)

    tally, notebook = run(items("40x30", "bad\n.jpg", "41x30"))

    assert (tally.images, tally.failed) == (2, 1)
    assert [index for index, _, _ in notebook.written] == [0, 2]
    assert caplog.messages == ["in/bad .jpg left out: half a picture"]


def test_no_readable_picture_is_an_error(reader: list[str]) -> None:
    """A run that saw nothing has no result."""
    with pytest.raises(DataError, match="none of the 2 images can be read"):
        run(items("bad1", "bad2"))


def test_a_bug_in_the_reader_stops_the_run(reader: list[str]) -> None:
    """An error of the thread reaches the caller at its picture, and nothing is read after it."""
    with pytest.raises(RuntimeError, match="a bug"):
        run(items("40x30", "boom", *["41x30"] * 50))

    assert len(reader) <= 2 + pipeline.AHEAD + 1


def test_few_pictures_are_read_ahead(reader: list[str]) -> None:
    """The reader stays at most AHEAD pictures in front of a slow consumer, so memory stays flat."""
    pictures = pipeline.read_ahead(items(*["40x30"] * 30))
    most = 0
    for taken, _ in enumerate(pictures, start=1):
        time.sleep(0.002)
        most = max(most, len(reader) - taken)
    assert most <= pipeline.AHEAD


def test_a_consumer_that_leaves_stops_the_reader(reader: list[str]) -> None:
    """After an error or Ctrl-C in the consumer no thread goes on reading."""
    pictures = pipeline.read_ahead(items(*["40x30"] * 50))
    next(pictures)
    pictures.close()
    for thread in threading.enumerate():
        if thread.name.startswith("reader"):
            thread.join(5)

    assert len(reader) <= 1 + pipeline.AHEAD + 1


def test_long_pictures_get_one_warning(
    reader: list[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond 3:1 fitting in shrinks a picture; said once for the run, not at exactly 3:1."""
    monkeypatch.setattr(logging.getLogger("hefkit"), "propagate", True)

    run(items("90x30", "91x30", "30x100"))

    assert len(caplog.messages) == 1 and caplog.messages[0].startswith("2 of 3 images are longer than 3:1")


def test_tally_medians_and_classes() -> None:
    """Stage times are medians in milliseconds; the latency is the median of sums, not the sum of medians."""
    tally = pipeline.Tally()
    for infer, write in ((0.010, 0.003), (0.020, 0.001), (0.030, 0.002)):
        tally.add([1, 1, 0], read=0.001, preprocess=0.0, infer=infer, decode=0.0, write=write)

    assert tally.stage_ms() == {"read": 1.0, "preprocess": 0.0, "infer": 20.0, "decode": 0.0, "write": 2.0}
    assert tally.latency_ms() == 22.0  # sums 14, 22, 33
    assert [line.split() for line in tally.class_lines({0: "a", 1: "b\n\x1b"})] == [["6", "b", r"\x1b"], ["3", "a"]]
    assert tally.class_lines({0: "a", 1: "b"}, most=1)[1].split() == ["3", "in", "1", "more", "classes"]
