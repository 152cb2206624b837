"""SOURCE on the command line means the same photographs, in the same order, on every machine."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import pytest

from hefkit.errors import DataError
from hefkit.pictures.sources import Item, find_items, is_video


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*names: str) -> None:
    """Empty files below the working directory: nothing here opens a picture."""
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def sources(items: list[Item]) -> list[str]:
    """What results will call the items."""
    return [item.source for item in items]


def relatives(items: list[Item]) -> list[str]:
    """Where their pictures will lie."""
    return [str(item.relative) for item in items]


def test_pictures_that_hefkit_made_are_left_out(here: Path) -> None:
    """Results with boxes in them, calibration sets, pictures of the live detector; others beside them stay."""
    touch("in/a.jpg", "in/set/calib_0000.png", "in/set/preview.jpg", "in/set/mine.png", "in/hefkit.jpg")
    touch("in/out/a.jpg", "in/out/sub/b.jpg", "in/out/crops/cat/a-1.jpg", "in/out/new.jpg", "in/else/c.jpg")
    touch("in/live/hefkit-20261125-120000-000000.jpg")
    record = {"tool": "hefkit 0.1", "format": 1}
    run = {**record, "files": ["a.jpg", "sub/b.jpg"], "folders": ["crops"]}
    Path("in/out/run.json").write_text(json.dumps(run))
    Path("in/set/manifest.json").write_text(json.dumps({**record, "images": [{"file": "calib_0000.png"}, 3]}))
    Path("in/else/run.json").write_text(json.dumps({"tool": "something", "files": ["c.jpg"]}))

    mine = ["a.jpg", "else/c.jpg", "hefkit.jpg", "out/new.jpg", "set/mine.png"]
    assert relatives(find_items("in")) == relatives(find_items("in/**/*")) == mine


def test_pictures_that_hefkit_made_may_be_named(here: Path) -> None:
    """A user who names their folder, or one of them, wants them."""
    touch("out/a.jpg")
    Path("out/run.json").write_text(json.dumps({"tool": "hefkit 0.1", "files": ["a.jpg"], "folders": []}))

    assert sources(find_items("out")) == sources(find_items("out/a.jpg")) == ["out/a.jpg"]
    with pytest.raises(DataError, match="contains only pictures that hefkit made"):
        find_items(".")


def test_crops_are_never_photographs(here: Path) -> None:
    """`--save-dir` may be the folder of the photographs; the folder of the live detector may be named."""
    touch("in/a.jpg", "in/crops/cat/a-1.jpg", "live/hefkit-20261125-120000-000000.jpg")
    Path("in/run.json").write_text(json.dumps({"tool": "hefkit 0.1", "files": [], "folders": ["crops"]}))

    assert relatives(find_items("in")) == relatives(find_items("in/**/*.jpg")) == ["a.jpg"]
    assert relatives(find_items("live")) == ["hefkit-20261125-120000-000000.jpg"]


def test_one_image(here: Path) -> None:
    """A file is called as it was given, and its result has its bare name."""
    touch("in/a.jpg")

    [item] = find_items("./in/a.jpg")
    assert (item.source, str(item.relative)) == ("./in/a.jpg", "a.jpg")


@pytest.mark.parametrize(
    ("given", "first"),
    [
        pytest.param("in", "in/a-b/x.png", id="plain"),
        pytest.param("in/", "in/a-b/x.png", id="slash at the end"),
        pytest.param("./in", "./in/a-b/x.png", id="dot in front"),
        pytest.param("../{cwd}/in", "../{cwd}/in/a-b/x.png", id="through the parent"),
    ],
)
def test_folder(here: Path, given: str, first: str) -> None:
    """A folder is searched recursively, sorted by relative path, named as it was given."""
    touch("in/b.jpg", "in/a/y.JPG", "in/a-b/x.png", "in/notes.txt", "in/.hidden/z.jpg")

    items = find_items(given.format(cwd=here.name))

    # "-" sorts before "/", so a-b/ comes before a/
    assert relatives(items) == ["a-b/x.png", "a/y.JPG", "b.jpg"]
    assert items[0].source == first.format(cwd=here.name)
    assert all(item.path.is_file() for item in items)


def test_absolute_folder(here: Path) -> None:
    """An absolute SOURCE gives absolute sources."""
    touch("in/b.jpg")

    assert sources(find_items(str(here / "in"))) == [str(here / "in" / "b.jpg")]


def test_results_are_not_photographs(here: Path) -> None:
    """What lies in an excluded folder below the source is left out; the source itself never is."""
    touch("a.jpg", "out/a.jpg", "runs/predict/m/a.jpg", "outer/b.jpg")
    ours = [Path("out"), here / "runs" / "predict"]

    assert relatives(find_items(".", exclude=ours)) == ["a.jpg", "outer/b.jpg"]
    assert relatives(find_items("**/*.jpg", exclude=ours)) == ["a.jpg", "outer/b.jpg"]
    assert relatives(find_items("out", exclude=ours)) == ["a.jpg"]
    assert relatives(find_items("runs/predict/m", exclude=ours)) == ["a.jpg"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        pytest.param("in/*.jpg", ["a.jpg", "b.jpg"], id="star"),
        pytest.param("in/**/*.jpg", ["a.jpg", "b.jpg", "sub/c.jpg"], id="two stars"),
        pytest.param("in/*", ["a.jpg", "b.jpg"], id="folders and other files are passed over"),
        pytest.param("in/[ab].jpg", ["a.jpg", "b.jpg"], id="set"),
        pytest.param("i?/sub/*.jpg", ["in/sub/c.jpg"], id="wildcard in a folder"),
        pytest.param("*/a.jpg", ["in/a.jpg"], id="wildcard first"),
    ],
)
def test_glob(here: Path, pattern: str, expected: list[str]) -> None:
    """A pattern's pictures keep the tree below the part without wildcards, sorted by it."""
    touch("in/b.jpg", "in/a.jpg", "in/sub/c.jpg", "in/notes.md")

    items = find_items(pattern)

    assert relatives(items) == expected
    assert all(Path(s).is_file() for s in sources(items))


def test_a_file_that_looks_like_a_pattern(here: Path) -> None:
    """What exists is not a pattern."""
    touch("a[1].jpg", "a1.jpg")

    assert sources(find_items("a[1].jpg")) == ["a[1].jpg"]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("b.jpg\nsub/a.jpg\n", id="plain"),
        pytest.param("b.jpg\r\nsub/a.jpg\r\n", id="Windows line ends"),
        pytest.param("\ufeffb.jpg\nsub/a.jpg", id="byte order mark, no line end"),
        pytest.param("# val\n\n  b.jpg  \n\t\nsub/a.jpg\n# end", id="comments and blanks"),
    ],
)
def test_list(here: Path, text: str) -> None:
    """A list keeps its order; paths are relative to its folder."""
    touch("lists/b.jpg", "lists/sub/a.jpg", "b.jpg")
    Path("lists/val.txt").write_bytes(text.encode())

    items = find_items("lists/val.txt")

    assert sources(items) == ["lists/b.jpg", "lists/sub/a.jpg"]
    assert relatives(items) == ["b.jpg", "sub/a.jpg"]


def test_list_paths_fall_back_to_the_working_directory(here: Path) -> None:
    """Paths that are not beside the list are looked for from where the script runs; absolute ones stay."""
    touch("images/a.jpg", "images/b.jpg", "lists/val.txt")
    absolute = str(here / "images" / "a.jpg")
    Path("lists/val.txt").write_text(f"images/a.jpg\n{absolute}\nimages/b.jpg\nnowhere.jpg\n")

    items = find_items("lists/val.txt")

    assert sources(items) == ["images/a.jpg", absolute, "images/b.jpg", "nowhere.jpg"]
    assert relatives(items) == ["images/a.jpg", "a.jpg", "images/b.jpg", "nowhere.jpg"]


def test_the_lines_of_a_list_share_one_base(here: Path) -> None:
    """A line that is missing beside the list is not taken from elsewhere: there may be another picture of its name."""
    touch("a.jpg", "lists/b.jpg", "lists/c.jpg")
    Path("lists/val.txt").write_text("a.jpg\nb.jpg\nc.jpg\n")

    assert sources(find_items("lists/val.txt")) == ["lists/a.jpg", "lists/b.jpg", "lists/c.jpg"]


@pytest.mark.parametrize("line", ["../../etc/a.jpg", "/etc/a.jpg", "x/../../a.jpg", "..", "/", "."])
def test_results_never_leave_the_run_folder(here: Path, line: str) -> None:
    """However a list spells a path, the relative path for the result stays below the run folder."""
    Path("l.txt").write_text(line + "\n")

    [item] = find_items("l.txt")

    assert not item.relative.is_absolute() and ".." not in item.relative.parts and item.relative.name


def test_list_on_stdin(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-` reads paths from stdin, relative to the working directory; names that are not UTF-8 survive."""
    touch("a.jpg")
    odd = os.fsdecode(b"\xff.jpg")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"# found\na.jpg\n\xff.jpg\n")))

    assert sources(find_items("-")) == ["a.jpg", odd]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        pytest.param("nowhere", "the source nowhere does not exist", id="missing"),
        pytest.param("x" * 5000, "does not exist", id="impossible name"),
        pytest.param("empty", "the folder empty contains no images", id="folder without images"),
        pytest.param("none*.jpg", r"the pattern none\*.jpg contains no images", id="pattern without match"),
        pytest.param("blank.txt", "the list blank.txt is empty", id="empty list"),
        pytest.param("binary.txt", "binary.txt is not a text list", id="binary list"),
        pytest.param("pipe", "neither a file nor a folder", id="pipe"),
    ],
)
def test_refused(here: Path, source: str, message: str) -> None:
    """A source without photographs is a DataError with one sentence."""
    touch("empty/readme.md", "blank.txt")
    Path("blank.txt").write_text("# nothing\n\n")
    Path("binary.txt").write_bytes(b"\x89PNG\0\0")
    os.mkfifo("pipe")

    with pytest.raises(DataError, match=message):
        find_items(source)


@pytest.mark.parametrize(
    ("source", "video"),
    [
        pytest.param("clip.MP4", True, id="by its suffix"),
        pytest.param("gone.mkv", True, id="even where it is missing"),
        pytest.param("a.jpg", False, id="photograph"),
        pytest.param("folder.mp4", False, id="a folder of that name"),
        pytest.param("*.mp4", False, id="a pattern"),
        pytest.param("-", False, id="a list on stdin"),
    ],
)
def test_what_is_a_video(here: Path, source: str, video: bool) -> None:
    """One video is one item; folders, patterns and lists contain photographs only."""
    touch("clip.MP4", "folder.mp4/a.jpg")

    assert is_video(source) == video
    if source == "clip.MP4":
        assert [(i.source, str(i.relative)) for i in find_items(source, videos=True)] == [("clip.MP4", "clip.MP4")]
        with pytest.raises(DataError, match=r"clip\.MP4 is a video; expected photographs"):
            find_items(source)
