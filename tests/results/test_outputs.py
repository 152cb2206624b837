"""Lines, annotated pictures, crops and a video: correct, and written together or not at all."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
import pytest

from hefkit import files
from hefkit.detect.detections import Detections
from hefkit.errors import DataError, UsageError
from hefkit.pictures import writer
from hefkit.pictures.frames import Frame
from hefkit.pictures.sources import Item
from hefkit.pictures.video import VideoFacts, open_video, read_video
from hefkit.results import outputs as sinks
from hefkit.results.folder import OutputOptions, plan_run
from hefkit.results.outputs import Outputs, Style, crop

FOUND = Detections(
    np.array([[1.00049, 2.5, 30.25, 20.125], [0, 0, 12, 9]], np.float32),
    np.array([0.9, 0.25000003], np.float32),
    np.array([1, 0]),
)
NAMES = {0: "drone", 1: "bird"}


@pytest.mark.parametrize(
    ("xyxy", "size_wh"),
    [
        pytest.param((1.2, 2.0, 4.1, 6.0), (4, 4), id="every pixel that it touches"),
        pytest.param((3, 3, 3, 3), (1, 1), id="empty"),
        pytest.param((10, 0, 10, 8), (1, 8), id="empty at the right edge"),
        pytest.param((0, 8, 10, 8), (10, 1), id="empty at the lower edge"),
        pytest.param((7, 5, 2, 1), (1, 1), id="inverted"),
        pytest.param((0, 0, 10, 8), (10, 8), id="all of it"),
        pytest.param((-5, -5, 99, 99), (10, 8), id="beyond the edges"),
    ],
)
def test_crop_is_never_empty(xyxy: tuple[float, ...], size_wh: tuple[int, int]) -> None:
    """A crop of a 10x8 picture lies inside it and has at least one pixel."""
    cut = crop(np.zeros((8, 10, 3), np.uint8), np.array(xyxy, np.float32))

    assert (cut.shape[1], cut.shape[0]) == size_wh


class Run:
    """A run over two small pictures, one below a folder."""

    def __init__(self, tmp_path: Path, options: OutputOptions | None = None, engine: str = "float") -> None:
        self.folder = tmp_path / "out"
        self.options = options or OutputOptions()
        self.engine = engine
        self.items = [Item(tmp_path / n, f"in/{n}", PurePosixPath(n)) for n in ("a.png", "s/b.png")]

    def open(self) -> Outputs:
        return Outputs(plan_run(self.folder, self.items, self.options), self.engine, NAMES)

    def frame(self, index: int) -> Frame:
        return Frame(index, self.items[index].source, None, np.full((40, 50, 3), 90, np.uint8), 0.0)

    def finish(self) -> None:
        with self.open() as outputs:
            for index in range(2):
                outputs.write(self.frame(index), FOUND)
            outputs.commit({"model": "m.onnx"})

    def files(self) -> list[str]:
        """Everything below the run folder, hidden things too."""
        if not self.folder.exists():
            return []
        return sorted(p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*") if p.is_file())


def test_a_finished_run(tmp_path: Path) -> None:
    """Lines, pictures in SOURCE's tree, and the record."""
    run = Run(tmp_path)

    run.finish()

    assert run.files() == ["a.png", "detections.jsonl", "run.json", "s/b.png"]
    lines = [json.loads(line) for line in (run.folder / "detections.jsonl").read_text().splitlines()]
    assert [line["source"] for line in lines] == ["in/a.png", "in/s/b.png"]
    assert (lines[0]["width"], lines[0]["height"]) == (50, 40)
    record = json.loads((run.folder / "run.json").read_text())
    assert (record["format"], record["model"], record["files"]) == (
        1,
        "m.onnx",
        ["a.png", "detections.jsonl", "s/b.png"],
    )
    assert record["tool"].startswith("hefkit ")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param(OutputOptions(images=False), [], id="no images"),
        pytest.param(
            OutputOptions(images=False, crops=True),
            ["crops/bird/a-1.jpg", "crops/bird/b-1.jpg", "crops/drone/a-2.jpg", "crops/drone/b-2.jpg"],
            id="crops only",
        ),
    ],
)
def test_what_is_written(tmp_path: Path, options: OutputOptions, expected: list[str]) -> None:
    """`--no-images` and `--save-crop`; a crop's number is the detection's rank in its picture."""
    run = Run(tmp_path, options)

    run.finish()

    assert run.files() == sorted([*expected, "detections.jsonl", "run.json"])


def test_crops_come_from_the_photograph(tmp_path: Path) -> None:
    """A crop shows the object, not the box and label drawn over it."""
    run = Run(tmp_path, OutputOptions(crops=True))

    run.finish()

    cut = cv2.imread(str(run.folder / "crops/bird/a-1.jpg"))
    assert cut.shape == (19, 30, 3) and np.abs(cut.astype(int) - 90).max() <= 2


@pytest.mark.parametrize(("engine", "stamped"), [("emulated", True), ("float", False), ("hailort", False)])
def test_only_emulation_is_stamped(tmp_path: Path, engine: str, stamped: bool) -> None:
    """Pictures of the emulation have a stamp in the lower left corner; others have none."""
    run = Run(tmp_path, engine=engine)

    run.finish()

    corner = cv2.imread(str(run.folder / "a.png"))[-5:, :5]
    assert (corner < 90).any() == stamped


def test_a_second_run_replaces_the_first(tmp_path: Path) -> None:
    """The same folder again: files of the first run are replaced, other files stay."""
    run = Run(tmp_path)
    run.finish()
    (run.folder / "notes.txt").write_text("mine")
    (run.folder / "detections.jsonl").write_text("old")

    run.finish()

    assert (run.folder / "detections.jsonl").read_text() != "old"
    assert run.files() == ["a.png", "detections.jsonl", "notes.txt", "run.json", "s/b.png"]


def test_the_lines_appear_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When `detections.jsonl` appears, its pictures are already there."""
    moved: list[str] = []
    replace = files.os.replace
    monkeypatch.setattr(files.os, "replace", lambda a, b: (moved.append(Path(b).name), replace(a, b)))

    Run(tmp_path).finish()

    assert moved == ["journal.json", "a.png", "run.json", "b.png", "detections.jsonl"]


def test_a_failed_run_leaves_everything(tmp_path: Path) -> None:
    """After an error between two pictures the folder is as it was before."""
    run = Run(tmp_path)
    run.finish()
    before = {name: (run.folder / name).read_bytes() for name in run.files()}

    with pytest.raises(KeyboardInterrupt), run.open() as outputs:
        outputs.write(run.frame(0), FOUND)
        raise KeyboardInterrupt

    assert {name: (run.folder / name).read_bytes() for name in run.files()} == before


def test_a_failed_first_run_leaves_no_folder(tmp_path: Path) -> None:
    """A folder made for a failed run is removed."""
    run = Run(tmp_path)

    with pytest.raises(ValueError, match="stop"), run.open():
        raise ValueError("stop")

    assert not run.folder.exists()


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC while a picture is written is one sentence with exit code 3, and leaves nothing behind."""
    run = Run(tmp_path)

    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match="disk is full"):
        run.finish()
    assert not run.folder.exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """A file where the run folder should be is a usage error."""
    run = Run(tmp_path)
    run.folder.write_text("a file")

    with pytest.raises(UsageError, match="choose another"):
        run.finish()


def test_lines_are_on_disk_as_they_come(tmp_path: Path) -> None:
    """Lines are written at once: after many pictures the staged file has grown."""
    run = Run(tmp_path, OutputOptions(images=False))

    with run.open() as outputs:
        for _ in range(200):
            outputs.write(run.frame(0), FOUND)
        [staged] = run.folder.glob(".hefkit-partial-*/new/detections.jsonl")
        size = staged.stat().st_size

    assert size > 10_000


def test_what_opencv_cannot_encode_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure of the encoder is an error, not a missing picture."""
    monkeypatch.setattr(sinks.cv2, "imencode", lambda suffix, image: (False, None))

    with pytest.raises(DataError, match="cannot encode a picture of 50x40"):
        Run(tmp_path).finish()


@pytest.mark.parametrize(
    ("suffix", "size_wh", "free", "words"),
    [
        pytest.param(".webp", (60, 40), None, "convert it to JPEG or PNG", id="webp"),
        pytest.param(".bmp", (60, 40), 60 * 40 * 6 - 1, "scale it down, or convert it to JPEG", id="memory"),
        pytest.param(".jpg", (65501, 1), None, "at most 65500 a side", id="side"),
        pytest.param(".webp", (16384, 1), None, "at most 16383 a side", id="side of a WebP"),
    ],
)
def test_a_picture_too_large_for_its_kind_of_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    suffix: str,
    size_wh: tuple[int, int],
    free: int | None,
    words: str,
) -> None:
    """The run goes on: its detections are written, and a warning says why there is no annotated picture."""
    monkeypatch.setattr(sinks, "LARGE_PIXELS", 2000)
    monkeypatch.setattr(sinks, "available_memory", lambda: free)
    item = Item(tmp_path / f"in{suffix}", f"in{suffix}", PurePosixPath(f"in{suffix}"))
    picture = np.zeros((size_wh[1], size_wh[0], 3), np.uint8)

    with Outputs(plan_run(tmp_path / "out", [item], OutputOptions(crops=True)), "float", NAMES) as outputs:
        outputs.write(Frame(0, item.source, None, picture, 0.0), FOUND)
        outputs.commit({})

    [told] = caplog.messages
    assert told.startswith(f"in{suffix}: no annotated picture, its detections are written: ") and words in told
    assert not (tmp_path / "out" / f"in{suffix}").exists()
    assert json.loads((tmp_path / "out" / "run.json").read_text())["files"] == ["detections.jsonl"]
    assert len((tmp_path / "out" / "detections.jsonl").read_text().splitlines()) == 1


def test_a_small_webp_stays_a_webp(tmp_path: Path) -> None:
    """Lossy, and near the photograph."""
    item = Item(tmp_path / "in.webp", "in.webp", PurePosixPath("in.webp"))
    with Outputs(plan_run(tmp_path / "out", [item], OutputOptions()), "float", NAMES) as outputs:
        outputs.write(Frame(0, "in.webp", None, np.full((40, 60, 3), 90, np.uint8), 0.0), Detections.empty())
        outputs.commit({})

    written = cv2.imread(str(tmp_path / "out" / "in.webp"))
    assert written.shape == (40, 60, 3) and np.abs(written.astype(int) - 90).max() <= 3


def frames_of(video: VideoFacts, count: int) -> Iterator[Frame]:
    """Grey frames that grow brighter."""
    for number in range(count):
        picture = np.full((video.size_wh[1], video.size_wh[0], 3), 20 * number, np.uint8)
        yield Frame(number, video.source, number, picture, 0.0)


def test_a_video_is_one_film(tmp_path: Path) -> None:
    """Annotated frames at the source's rate and size; crops and labels are named by frame; one record."""
    video = VideoFacts(tmp_path / "in.avi", "in.avi", 12.5, (64, 48), 9)
    item = Item(video.path, video.source, PurePosixPath("in.avi"))
    options = OutputOptions(("jsonl", "txt"), images=False, crops=True, video=True)

    with Outputs(plan_run(tmp_path / "out", [item], options), "emulated", NAMES, Style(), video) as outputs:
        for frame in frames_of(video, 9):
            outputs.write(frame, FOUND[1:] if frame.number == 7 else Detections.empty())
        outputs.commit({})

    out = tmp_path / "out"
    assert (out / "crops/drone/in_000007-1.jpg").is_file() and len(list((out / "labels").iterdir())) == 9
    assert json.loads((out / "run.json").read_text())["files"] == ["detections.jsonl", "in.mp4"]
    film = open_video(out / "in.mp4", "in.mp4")
    assert (film.fps, film.size_wh, film.frames) == (12.5, (64, 48), 9)
    pictures = [frame.picture for frame in read_video(film)]
    assert len(pictures) == 9
    # the lower left corner holds the emulation's stamp, black; the right one the frame's grey
    assert all(np.abs(p[2:20, -10:].mean() - 20 * i) < 6 for i, p in enumerate(pictures))  # type: ignore[union-attr]
    assert all(p[-4:, :4].mean() < 30 for p in pictures)  # type: ignore[union-attr]


def test_a_film_that_was_cut_short_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV does not report a full disk: the frames of the finished film are counted, and nothing is put in place."""
    video = VideoFacts(tmp_path / "in.avi", "in.avi", 25, (64, 48), 5)
    item = Item(video.path, video.source, PurePosixPath("in.avi"))
    real = cv2.VideoWriter

    class FullDisk:
        """OpenCV's writer on a full disk: it loses every frame without an error."""

        def __init__(self, *args: Any) -> None:
            self.writer = real(*args)

        def write(self, image_bgr: np.ndarray) -> None:
            pass

        def __getattr__(self, name: str) -> Any:
            return getattr(self.writer, name)

    monkeypatch.setattr(cv2, "VideoWriter", FullDisk)
    monkeypatch.setattr(writer, "codec", lambda: "mp4v")  # PyAV reports a full disk itself

    with (
        pytest.raises(DataError, match="the video has 0 of 5 frames"),
        Outputs(plan_run(tmp_path / "out", [item], OutputOptions(video=True)), "float", NAMES, None, video) as outputs,
    ):
        for frame in frames_of(video, 5):
            outputs.write(frame, FOUND)
        outputs.commit({})

    assert not (tmp_path / "out").exists()
