"""Names of results: SOURCE's own, without clashes, and never over a file that is not ours."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

import pytest

from hefkit.errors import UsageError
from hefkit.pictures.find import RECORD
from hefkit.pictures.sources import Item
from hefkit.results.folder import OutputOptions, default_folder, plan_run, unique, write_record


def items(*relatives: str, root: Path = Path("in")) -> list[Item]:
    """Items of a folder `in`."""
    return [Item(root / r, f"in/{r}", PurePosixPath(r)) for r in relatives]


def pictures(folder: Path, *relatives: str) -> list[str]:
    """Planned names of annotated pictures."""
    return [str(p) for p in plan_run(folder, items(*relatives), OutputOptions()).pictures]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(["a.jpg", "s/a.jpg", "s/t/a.PNG"], ["a.jpg", "s/a.jpg", "s/t/a.PNG"], id="the same tree"),
        pytest.param(["a.jpg", "a.jpg", "a.jpg"], ["a.jpg", "a-2.jpg", "a-3.jpg"], id="the same twice"),
        pytest.param(["a.jpg", "A.JPG"], ["a.jpg", "A-2.JPG"], id="letter case"),
        pytest.param(["a.jpg", "a.png"], ["a.jpg", "a.png"], id="other suffix"),
        pytest.param(["a.ppm", "b.avif", "c.mpo"], ["a.jpg", "b.jpg", "c.jpg"], id="OpenCV cannot write it"),
        pytest.param(["a.heic", "a.jpg"], ["a.jpg", "a-2.jpg"], id="clash after the suffix changed"),
        pytest.param(["a.jpg", "a.jpg", "a-2.jpg"], ["a.jpg", "a-3.jpg", "a-2.jpg"], id="a real a-2 keeps its name"),
        pytest.param(["crops/a.jpg", "labels/b.jpg"], ["crops-2/a.jpg", "labels-2/b.jpg"], id="folders of ours"),
        pytest.param(["Detections.jsonl/a.jpg"], ["Detections.jsonl-2/a.jpg"], id="a folder called like our file"),
        pytest.param(["coco.json/a.jpg"], ["coco.json-2/a.jpg"], id="a folder called like a format's file"),
    ],
)
def test_picture_names(tmp_path: Path, given: list[str], expected: list[str]) -> None:
    """Results keep SOURCE's tree and names where they can."""
    assert pictures(tmp_path, *given) == expected


def test_ten_thousand_equal_names() -> None:
    """Clashes are resolved without trying every number again."""
    names = unique([PurePosixPath("a.jpg")] * 10_000)

    assert len(set(names)) == 10_000 and str(names[-1]) == "a-10000.jpg"


def test_crops_of_equal_stems_stay_apart(tmp_path: Path) -> None:
    """x/a.jpg, y/a.png and a-2.jpg: their crops share a folder, so their stems must differ."""
    given = items("x/a.jpg", "y/a.png", "a-2.jpg", "s/" + "é" * 120 + ".jpg", "..jpg")

    stems = plan_run(tmp_path, given, OutputOptions(crops=True)).stems

    assert stems[:3] == ["a", "a-3", "a-2"] and len(set(stems)) == 5
    assert all(len(f"{stem}-30000.jpg".encode()) <= 255 and "/" not in stem for stem in stems)


def test_default_folder_counts_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """runs/predict/NAME, then NAME-2; the name is the model's without `.emulated`."""
    monkeypatch.chdir(tmp_path)

    assert default_folder(Path("x/drones.emulated.onnx")) == Path("runs/predict/drones")
    Path("runs/predict/drones").mkdir(parents=True)
    assert default_folder(Path("drones.onnx")) == Path("runs/predict/drones-2")


@pytest.mark.parametrize(
    ("save_dir", "source", "relative"),
    [
        pytest.param("photos", "photos", "a.jpg", id="the source itself"),
        pytest.param("photos", "photos/in", "a.jpg", id="another photograph of that name in its parent"),
    ],
)
def test_photographs_are_never_overwritten(tmp_path: Path, save_dir: str, source: str, relative: str) -> None:
    """A run folder that holds the user's own pictures of the same names is refused before anything is written."""
    for folder in {save_dir, source}:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "a.jpg").touch()
    given = items(relative, root=tmp_path / source)

    with pytest.raises(UsageError, match="--save-dir"):
        plan_run(tmp_path / save_dir, given, OutputOptions())
    assert plan_run(tmp_path / save_dir, given, OutputOptions(images=False)), "without pictures nothing is in danger"


def write_run(folder: Path, *names: str, crops: bool = False) -> None:
    """What a finished run leaves."""
    plan = plan_run(folder, [], OutputOptions(crops=crops))
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    write_record(folder / RECORD, plan, names, {"images": len(names)})


def test_results_of_an_earlier_run_are_replaced(tmp_path: Path) -> None:
    """run.json remembers which pictures are ours, over several runs into the same folder."""
    out = tmp_path / "out"
    write_run(out, "a.jpg", "s/b.jpg")
    write_run(out, "c.jpg")

    assert pictures(out, "a.jpg", "s/b.jpg", "c.jpg") == ["a.jpg", "s/b.jpg", "c.jpg"]
    assert json.loads((out / RECORD).read_text())["files"] == ["a.jpg", "c.jpg", "s/b.jpg"]
    (out / "d.jpg").touch()
    with pytest.raises(UsageError, match=r"d\.jpg exists and is not hefkit's"):
        pictures(out, "d.jpg")


def test_results_are_not_their_own_source(tmp_path: Path) -> None:
    """Detecting in a run folder's pictures and writing them back there would eat the input."""
    out = tmp_path / "out"
    write_run(out, "a.jpg")

    with pytest.raises(UsageError, match="is a source picture, and its result would replace it"):
        plan_run(out, items("a.jpg", root=out), OutputOptions())


def test_a_foreign_crops_folder_is_refused(tmp_path: Path) -> None:
    """Crops go only into a `crops` folder that an earlier run of ours made."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    write_run(ours, "crops/x/a-1.jpg", crops=True)
    (theirs / "crops").mkdir(parents=True)

    assert plan_run(ours, items("a.jpg"), OutputOptions(crops=True))
    with pytest.raises(UsageError, match="crops exists and is not hefkit's"):
        plan_run(theirs, items("a.jpg"), OutputOptions(crops=True))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        '{"tool": "other 1", "files": []}',
        '{"tool": 3}',
        "[" * 3000,
        '{"tool": "hefkit 9", "format": 2}',
    ],
    ids=["empty", "list", "object", "null", "other tool", "wrong type", "deep", "newer format"],
)
def test_a_foreign_record_is_not_replaced(tmp_path: Path, text: str) -> None:
    """A run.json that hefkit did not write, or that cannot be read, is not replaced."""
    (tmp_path / RECORD).write_text(text)

    with pytest.raises(UsageError, match="was not written by this version of hefkit"):
        pictures(tmp_path, "a.jpg")


@pytest.mark.parametrize(
    ("options", "theirs"),
    [
        pytest.param(OutputOptions(("coco",)), "coco.json", id="annotations"),
        pytest.param(OutputOptions(("csv",)), "detections.csv", id="a table"),
        pytest.param(OutputOptions(("jsonl",)), "detections.jsonl", id="lines"),
        pytest.param(OutputOptions(("txt",)), "labels/a.txt", id="labels of a dataset"),
        pytest.param(OutputOptions(images=False, video=True), "a.mp4", id="a video"),
    ],
)
def test_foreign_files_are_not_replaced(tmp_path: Path, options: OutputOptions, theirs: str) -> None:
    """A folder with the user's own annotations, labels or video is refused, unless they are not to be written."""
    (tmp_path / theirs).parent.mkdir(exist_ok=True)
    (tmp_path / theirs).touch()

    with pytest.raises(UsageError, match=f"{Path(theirs).parts[0]} exists and is not hefkit's"):
        plan_run(tmp_path, items("a.mov"), options)
    other = OutputOptions(("csv",)) if "csv" not in options.formats else OutputOptions(("coco",))
    assert plan_run(tmp_path, items("a.mov"), other)


def test_folders_of_an_earlier_run_stay_ours(tmp_path: Path) -> None:
    """Crops once, labels the next time, then both: run.json knows both folders."""
    for options in (OutputOptions(crops=True), OutputOptions(("txt",))):
        plan = plan_run(tmp_path, [], options)
        for name in options.folders:
            (tmp_path / name).mkdir()
        write_record(tmp_path / RECORD, plan, [], {})

    assert plan_run(tmp_path, items("a.jpg"), OutputOptions(("txt",), crops=True)).earlier_folders == [
        "crops",
        "labels",
    ]


def test_a_video_keeps_its_name(tmp_path: Path) -> None:
    """The annotated video is an .mp4, whatever the source was."""
    plan = plan_run(tmp_path, items("flight.MOV"), OutputOptions(images=False, video=True))

    assert [str(p) for p in plan.pictures] == ["flight.mp4"] and plan.stems == ["flight"]
