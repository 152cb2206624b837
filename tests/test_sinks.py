"""JSON lines, annotated pictures and crops: exact, safe, and all of them or none."""

from __future__ import annotations

import errno
import json
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import pytest

from hefkit import files, sinks
from hefkit.detections import Detections
from hefkit.errors import DataError, UsageError
from hefkit.runfolder import plan_run
from hefkit.sinks import Outputs, Wanted, class_folders, crop, json_line
from hefkit.sources import Item

FOUND = Detections(
    np.array([[1.00049, 2.5, 30.25, 20.125], [0, 0, 12, 9]], np.float32),
    np.array([0.9, 0.25000003], np.float32),
    np.array([1, 0]),
)
NAMES = {0: "drone", 1: "bird"}


def test_json_line_has_the_contract_keys() -> None:
    """The line is the contract's object, keys in its order, coordinates with four decimals."""
    line = json_line("in/a.jpg", None, (64, 48), "float", FOUND, NAMES)

    assert line == (
        '{"source": "in/a.jpg", "frame": null, "width": 64, "height": 48, "engine": "float", "detections": ['
        '{"class_id": 1, "class": "bird", "score": 0.900000, "xyxy": [1.0005, 2.5000, 30.2500, 20.1250]}, '
        '{"class_id": 0, "class": "drone", "score": 0.250000, "xyxy": [0.0000, 0.0000, 12.0000, 9.0000]}]}'
    )


def test_json_line_of_nothing_and_of_a_frame() -> None:
    """No detections are an empty list; a video frame has its number."""
    line = json_line("v.mp4", 7, (64, 48), "emulated", Detections.empty(), NAMES)

    assert json.loads(line) == {
        "source": "v.mp4", "frame": 7, "width": 64, "height": 48, "engine": "emulated", "detections": []
    }  # fmt: skip


def test_json_line_survives_any_name() -> None:
    """Quotes, line ends, other alphabets and names that are not UTF-8: one ASCII line that reads back equal."""
    source, name = 'in/"a"\n\udcff.jpg', "犬\x1b\u2028\\"

    line = json_line(source, None, (1, 1), "float", FOUND[:1], {1: name})

    assert line.isascii() and "\n" not in line
    assert json.loads(line)["source"] == source and json.loads(line)["detections"][0]["class"] == name


def test_json_line_keeps_a_thousandth_of_a_pixel() -> None:
    """Every float32 coordinate up to 8192 comes back within 0.001 px, every score within 1e-6."""
    rng = np.random.default_rng(0)
    many = Detections(
        rng.uniform(0, 8192, (500, 4)).astype(np.float32), rng.random(500).astype(np.float32), np.zeros(500, int)
    )

    read = json.loads(json_line("a", None, (8192, 8192), "float", many, NAMES))["detections"]

    assert np.abs(np.array([d["xyxy"] for d in read]) - many.xyxy).max() < 1e-3
    assert np.abs(np.array([d["score"] for d in read]) - many.score).max() < 1e-6


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


def test_class_folders_are_safe_and_different() -> None:
    """Names from a model cannot leave `crops`, clash by letter case, or be too long for a file system."""
    names = {
        0: "../../etc",
        1: "a/b",
        2: "a b",
        3: "A_B",
        4: "",
        5: "...",
        6: "犬",
        7: "x" * 300,
        8: "con\x00\n",
        9: "-",
    }

    folders = class_folders(names)

    assert folders[0] == "etc" and folders[6] == "犬" and folders[1] == "a_b"
    assert len({f.casefold() for f in folders.values()}) == len(names)
    for folder in folders.values():
        assert folder and len(folder.encode()) <= 255 and not set(folder) & set("/\\\0\n.")


class Run:
    """A run over two small pictures, one below a folder."""

    def __init__(self, tmp_path: Path, wanted: Wanted | None = None, engine: str = "float") -> None:
        self.folder = tmp_path / "out"
        self.wanted = wanted or Wanted()
        self.engine = engine
        self.items = [Item(tmp_path / n, f"in/{n}", PurePosixPath(n)) for n in ("a.png", "s/b.png")]

    def open(self) -> Outputs:
        plan = plan_run(self.folder, self.items, images=self.wanted.images, crops=self.wanted.crops)
        return Outputs(plan, self.items, self.engine, NAMES, self.wanted)

    def finish(self) -> None:
        with self.open() as outputs:
            for index in range(2):
                outputs.write(index, np.full((40, 50, 3), 90, np.uint8), FOUND)
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
    assert (record["format"], record["model"], record["files"]) == (1, "m.onnx", ["a.png", "s/b.png"])
    assert record["tool"].startswith("hefkit ")


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        pytest.param(Wanted(images=False), [], id="no images"),
        pytest.param(
            Wanted(images=False, crops=True),
            ["crops/bird/a-1.jpg", "crops/bird/b-1.jpg", "crops/drone/a-2.jpg", "crops/drone/b-2.jpg"],
            id="crops only",
        ),
    ],
)
def test_what_is_written(tmp_path: Path, wanted: Wanted, expected: list[str]) -> None:
    """`--no-images` and `--save-crop`; a crop's number is the detection's rank in its picture."""
    run = Run(tmp_path, wanted)

    run.finish()

    assert run.files() == sorted([*expected, "detections.jsonl", "run.json"])


def test_crops_come_from_the_photograph(tmp_path: Path) -> None:
    """A crop shows the object, not the box and label drawn over it."""
    run = Run(tmp_path, Wanted(crops=True))

    run.finish()

    cut = cv2.imread(str(run.folder / "crops/bird/a-1.jpg"))
    assert cut.shape == (19, 30, 3) and np.abs(cut.astype(int) - 90).max() <= 2


@pytest.mark.parametrize(("engine", "stamped"), [("emulated", True), ("float", False), ("hailort", False)])
def test_only_emulation_is_stamped(tmp_path: Path, engine: str, stamped: bool) -> None:
    """The lower left corner of a picture says so when no chip and no float model made the boxes."""
    run = Run(tmp_path, engine=engine)

    run.finish()

    corner = cv2.imread(str(run.folder / "a.png"))[-5:, :5]
    assert (corner < 90).any() == stamped


def test_a_second_run_replaces_the_first(tmp_path: Path) -> None:
    """The same folder again: our files are replaced, the user's others stay."""
    run = Run(tmp_path)
    run.finish()
    (run.folder / "notes.txt").write_text("mine")
    (run.folder / "detections.jsonl").write_text("old")

    run.finish()

    assert (run.folder / "detections.jsonl").read_text() != "old"
    assert run.files() == ["a.png", "detections.jsonl", "notes.txt", "run.json", "s/b.png"]


def test_the_lines_appear_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sees `detections.jsonl` sees the pictures that it speaks of."""
    moved: list[str] = []
    replace = files.os.replace
    monkeypatch.setattr(files.os, "replace", lambda a, b: (moved.append(Path(b).name), replace(a, b)))

    Run(tmp_path).finish()

    assert moved == ["a.png", "run.json", "b.png", "detections.jsonl"]


def test_a_failed_run_leaves_everything(tmp_path: Path) -> None:
    """An error between two pictures: what was there before is there, and nothing else."""
    run = Run(tmp_path)
    run.finish()
    before = {name: (run.folder / name).read_bytes() for name in run.files()}

    with pytest.raises(KeyboardInterrupt), run.open() as outputs:
        outputs.write(0, np.zeros((9, 9, 3), np.uint8), FOUND)
        raise KeyboardInterrupt

    assert {name: (run.folder / name).read_bytes() for name in run.files()} == before


def test_a_failed_first_run_leaves_no_folder(tmp_path: Path) -> None:
    """A folder made for a run that failed is gone again."""
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


def test_lines_are_on_disk_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is held back until the end: after many pictures the staged file has grown."""
    run = Run(tmp_path, Wanted(images=False))

    with run.open() as outputs:
        for _ in range(200):
            outputs.write(0, np.zeros((9, 9, 3), np.uint8), FOUND)
        [staged] = run.folder.glob(".hefkit-partial-*/detections.jsonl")
        size = staged.stat().st_size

    assert size > 10_000


def test_what_opencv_cannot_encode_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder that gives up is an error, not a missing picture."""
    monkeypatch.setattr(sinks.cv2, "imencode", lambda suffix, image: (False, None))

    with pytest.raises(DataError, match="cannot encode a picture of 50x40"):
        Run(tmp_path).finish()
