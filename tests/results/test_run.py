"""Photographs through the pipeline: written in order, counted and timed."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest

from hefkit.detect import pipeline
from hefkit.detect.decode import DecodeSettings
from hefkit.detect.detections import Detections
from hefkit.detect.detector import Detector
from hefkit.errors import DataError
from hefkit.pictures import frames
from hefkit.pictures.frames import Frame, read_photographs
from hefkit.pictures.header import Header, UnreadableImage
from hefkit.pictures.sources import Item
from hefkit.results import run as filerun
from hefkit.results.progress import Progress
from hefkit.results.run import Tally
from tests.helpers.fake_engine import engine_that_finds


class Notebook:
    """Replaces the outputs: notes what was written."""

    def __init__(self) -> None:
        self.written: list[tuple[int, tuple[int, ...], int]] = []

    def write(self, frame: Frame, detections: Detections) -> None:
        assert isinstance(frame.picture, np.ndarray)
        self.written.append((frame.index, frame.picture.shape, len(detections)))


def items(*names: str) -> list[Item]:
    """Items that a stubbed reader understands."""
    return [Item(Path(name), f"in/{name}", PurePosixPath(name)) for name in names]


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Replace the image reader: `bad*` is unreadable, `boom*` a bug, `WxH` a picture; yields what was read."""
    read: list[str] = []

    def read_bytes(path: Path) -> bytes:
        read.append(path.name)
        return path.name.encode()

    def checked_header(data: bytes) -> Header:
        if data.startswith(b"bad"):
            raise UnreadableImage("half a picture")
        width, height = (0, 0) if data.startswith(b"boom") else map(int, data.split(b"x"))
        return Header(data, 1, width, height)

    def decode(header: Header) -> np.ndarray:
        if header.data.startswith(b"boom"):
            raise RuntimeError("a bug")
        return np.zeros((header.height, header.width, 3), np.uint8)

    monkeypatch.setattr(frames, "read_bytes", read_bytes)
    monkeypatch.setattr(frames, "checked_header", checked_header)
    monkeypatch.setattr(frames, "decode", decode)
    yield read


def run(given: list[Item], batch_size: int = 1) -> tuple[Tally, Notebook]:
    """The pipeline with an engine that finds two things in every picture."""
    engine = engine_that_finds((0, 0.9, (16, 24, 48, 40)), (2, 0.8, (8, 8, 24, 24)), batch_size=batch_size)
    notebook = Notebook()
    detector = Detector(engine, DecodeSettings())
    with engine:
        return filerun.run(read_photographs(given), detector, notebook, Progress()), notebook  # type: ignore[arg-type]


@pytest.mark.parametrize("batch_size", [1, 3, 8, 32])
def test_every_picture_is_written_in_order(reader: list[str], batch_size: int) -> None:
    """However fast the readers are and whatever the batch, results come in the order of the items."""
    names = [f"{40 + i}x30" for i in range(20)]

    tally, notebook = run(items(*names), batch_size)

    assert [shape[1] for _, shape, _ in notebook.written] == [40 + i for i in range(20)]
    assert [index for index, _, _ in notebook.written] == list(range(20))
    assert (tally.images, tally.failed, tally.detections) == (20, 0, 40)
    assert tally.by_class == {0: 20, 2: 20}


@pytest.mark.parametrize("batch_size", [1, 4])
def test_unreadable_pictures_are_named_and_counted(
    reader: list[str], caplog: pytest.LogCaptureFixture, batch_size: int
) -> None:
    """An unreadable file gives one warning; the run and the order within a batch go on."""

    tally, notebook = run(items("40x30", "bad\n.jpg", "41x30"), batch_size)

    assert (tally.images, tally.failed) == (2, 1)
    assert [(index, shape[1]) for index, shape, _ in notebook.written] == [(0, 40), (2, 41)]
    assert caplog.messages == ["in/bad .jpg left out: half a picture"]


def test_no_readable_picture_is_an_error(reader: list[str]) -> None:
    """A run without a readable picture has no result."""
    with pytest.raises(DataError, match="none of the images \\(100\\) can be read"):
        run(items(*["bad"] * 100), batch_size=4)


def test_a_bug_in_the_reader_stops_the_run(reader: list[str]) -> None:
    """An error of a thread reaches the caller, and hardly anything is read after it."""
    with pytest.raises(RuntimeError, match="a bug"):
        run(items("40x30", "boom", *["41x30"] * 50))

    assert len(reader) <= 2 + frames.AHEAD + frames.READERS


def test_few_pictures_are_read_ahead(reader: list[str]) -> None:
    """The readers are at most AHEAD pictures in front of a slow consumer, so memory is bounded."""
    pictures = read_photographs(items(*["40x30"] * 30))
    most = 0
    for taken, _ in enumerate(pictures, start=1):
        time.sleep(0.002)
        most = max(most, len(reader) - taken)
    assert most <= frames.AHEAD


def test_a_consumer_that_leaves_stops_the_readers(reader: list[str]) -> None:
    """After an error or Ctrl-C in the consumer no thread goes on reading."""
    pictures = read_photographs(items(*["40x30"] * 50))
    next(pictures)
    pictures.close()
    for thread in threading.enumerate():
        if thread.name.startswith("reader"):
            thread.join(5)

    assert len(reader) <= 1 + frames.AHEAD + frames.READERS


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("readers", [1, 4])
def test_one_large_picture_in_memory(
    reader: list[str], monkeypatch: pytest.MonkeyPatch, batch_size: int, readers: int
) -> None:
    """When a picture is decoded, those before it hold at most HELD_BYTES: no batch and no queue keeps a large one.

    The pictures that are alive are counted themselves, so a reference that is left somewhere is found.
    """
    for module in (frames, pipeline):
        monkeypatch.setattr(module, "HELD_BYTES", 5000)
    most = [0]
    decode = frames.decode

    def watched(header: Header) -> np.ndarray:
        most[0] = max(most[0], sum(sizes.values()))
        picture = decode(header)
        sizes[id(picture)] = picture.nbytes
        weakref.finalize(picture, sizes.pop, id(picture))
        return picture

    sizes: dict[int, int] = {}
    monkeypatch.setattr(frames, "decode", watched)
    names = [("400x300" if i % 4 in (1, 2) else "40x30") for i in range(24)]
    engine = engine_that_finds((0, 0.9, (16, 24, 48, 40)), batch_size=batch_size)

    with engine:
        tally = filerun.run(
            read_photographs(items(*names), readers), Detector(engine, DecodeSettings()), Notebook(), Progress()
        )  # type: ignore[arg-type]

    assert tally.images == 24
    assert most[0] <= 5000 + readers * 40 * 30 * 3


@pytest.mark.parametrize("broken", ["writer", "engine"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_run_over_large_pictures_ends_early(
    reader: list[str], monkeypatch: pytest.MonkeyPatch, batch_size: int, broken: str
) -> None:
    """An error behind the readers, while they wait until pictures are freed, is raised and not waited on for ever."""
    for module in (frames, pipeline):
        monkeypatch.setattr(module, "HELD_BYTES", 5000)
    engine = engine_that_finds((0, 0.9, (16, 24, 48, 40)), batch_size=batch_size)
    results, count = engine.result, [0]

    def fail_late(*_: object) -> Any:
        count[0] += 1
        if count[0] == 3:
            time.sleep(0.2)  # the readers are as far as they can be
            raise DataError("a full disk")
        return results(*_) if broken == "engine" else None

    notebook = Notebook()
    monkeypatch.setattr(*((engine, "result") if broken == "engine" else (notebook, "write")), fail_late)
    raised: list[BaseException] = []

    def work() -> None:
        with engine:
            try:
                photographs = read_photographs(items(*["400x300"] * 24), 2)
                filerun.run(photographs, Detector(engine, DecodeSettings()), notebook, Progress())  # type: ignore[arg-type]
            except DataError as exc:
                raised.append(exc)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(20)

    assert not thread.is_alive() and [str(exc) for exc in raised] == ["a full disk"]


@pytest.mark.parametrize("batch_size", [1, 8])
def test_large_pictures_that_are_refused(reader: list[str], monkeypatch: pytest.MonkeyPatch, batch_size: int) -> None:
    """They hold no memory: a batch that waits for more pictures with only such ones in it does not stop the readers."""
    for module in (frames, pipeline):
        monkeypatch.setattr(module, "HELD_BYTES", 5000)

    def refuse(header: Header) -> np.ndarray:
        if header.width == 400:
            raise UnreadableImage("400 x 300 pixels need more memory than is free")
        return np.zeros((header.height, header.width, 3), np.uint8)

    monkeypatch.setattr(frames, "decode", refuse)

    tally, notebook = run(items(*["400x300", "400x300", "40x30", "400x300", "41x30"] * 3), batch_size)

    assert (tally.images, tally.failed) == (6, 9)
    assert [shape[1] for _, shape, _ in notebook.written] == [40, 41] * 3


def test_long_pictures_get_one_warning(reader: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """One warning per run for pictures longer than 3:1; none at exactly 3:1."""

    run(items("90x30", "91x30", "30x100"))

    assert len(caplog.messages) == 1 and caplog.messages[0].startswith("2 of 3 images are longer than 3:1")


def test_tally_medians_and_latency() -> None:
    """Stage times are medians in milliseconds; the latency is the median of sums, not the sum of medians."""
    tally = Tally()
    for infer, write in ((0.010, 0.003), (0.020, 0.001), (0.030, 0.002)):
        tally.add([1, 1, 0], read=0.001, preprocess=0.0, infer=infer, decode=0.0, write=write)

    assert tally.stage_ms() == {"read": 1.0, "preprocess": 0.0, "infer": 20.0, "decode": 0.0, "write": 2.0}
    assert tally.latency_ms() == 22.0  # sums 14, 22, 33
    assert [line.split() for line in tally.class_lines({0: "a", 1: "b\n\x1b"})] == [["6", "b", r"\x1b"], ["3", "a"]]


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        pytest.param(1, ["9 a", "10 in 3 more classes"], id="three in one line"),
        pytest.param(3, ["9 a", "5 b", "3 c", "2 in 1 more class"], id="one left"),
        pytest.param(4, ["9 a", "5 b", "3 c", "2 d"], id="as many as fit"),
    ],
)
def test_rare_classes_share_a_line(most: int, expected: list[str]) -> None:
    """The most frequent classes have a line each; the last line sums up the others, and counts them."""
    tally = Tally()
    counts = {2: 3, 0: 9, 3: 2, 1: 5}
    found = [class_id for class_id, count in counts.items() for _ in range(count)]
    tally.add(found, read=0.0, preprocess=0.0, infer=0.0, decode=0.0, write=0.0)

    lines = tally.class_lines(dict(enumerate("abcd")), most=most)

    assert [" ".join(line.split()) for line in lines] == expected
