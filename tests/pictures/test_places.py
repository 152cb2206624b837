"""Paths of another machine: a toy of every kind, and the real cases of ../shared/field."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from hefkit.errors import DataError
from hefkit.pictures.datayaml import detection_items, read_data_yaml
from hefkit.pictures.places import find_lines, find_place
from hefkit.pictures.sources import find_items
from hefkit.text import decoded
from tests.helpers.pictures import write


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def warnings(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What hefkit logs."""
    return caplog


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"x")


PLACES = {
    # name: (files, the yaml's folder, path:, the path as written, where it is, whether that is a guess)
    "as written": (["ds/train/images/1.jpg"], "ds", None, "train/images", "ds/train/images", False),
    "backslashes": (["ds/train/images/1.jpg"], "ds", None, "train\\images", "ds/train/images", False),
    "a dot and backslashes": (["ds/train/images/1.jpg"], "ds", None, ".\\train\\images", "ds/./train/images", False),
    "Roboflow": (["ds/train/images/1.jpg"], "ds", None, "../train/images", "ds/train/images", False),
    "Roboflow on Windows": (["ds/train/images/1.jpg"], "ds", None, "..\\train\\images", "ds/train/images", False),
    "Colab": (["ds/train/images/1.jpg"], "ds", None, "/content/set-1/train/images", "ds/train/images", True),
    "Kaggle": (["ds/a/train/1.jpg"], "ds", None, "/kaggle/input/a/train", "ds/a/train", True),
    "a drive": (["ds/train/images/1.jpg"], "ds", None, "C:\\Users\\me\\set\\train\\images", "ds/train/images", True),
    "a drive with slashes": (["ds/images/train/1.jpg"], "ds", None, "D:/set/images/train", "ds/images/train", True),
    "a Windows share": (["ds/val/1.jpg"], "ds", None, "\\\\server\\share\\set\\val", "ds/val", True),
    "below path:": (["ds/x/train/1.jpg"], "ds", "x", "train", "ds/x/train", False),
    "path: of the working directory": (["sets/x/train/1.jpg"], "cfg", "sets/x", "train", "sets/x/train", False),
    "path: on Windows": (["ds/x/y/train/1.jpg"], "ds", "x\\y", "train", "ds/x/y/train", False),
    "path: of Colab": (["ds/train/images/1.jpg"], "ds", "/content/set", "train/images", "ds/train/images", False),
    "path: is the set beside it": (["ds/x/train/1.jpg"], "ds", "/content/x", "train", "ds/x/train", True),
    "below the working directory": (["sets/x/train/1.jpg"], "cfg", None, "sets/x/train", "sets/x/train", False),
    "accents of macOS": (["ds/cafe\u0301/1.jpg"], "ds", None, "caf\u00e9", "ds/cafe\u0301", False),
    "the longest tail": (["ds/b/train/1.jpg", "ds/train/2.jpg"], "ds", None, "/a/b/train", "ds/b/train", True),
}  # fmt: skip


@pytest.mark.parametrize("files, folder, root, written, place, guessed", PLACES.values(), ids=PLACES.keys())
def test_a_path_is_found(
    here: Path, files: list[str], folder: str, root: str | None, written: str, place: str, guessed: bool
) -> None:
    """Without a word where the path says it; as a guess where only its tail does."""
    Path(folder).mkdir()
    touch(*files)

    assert find_place(written, folder, root) == (place, guessed)


def test_a_tail_does_not_lose_the_split(here: Path) -> None:
    """`valid/images` is not `images`: these may be the pictures that the model was trained on."""
    touch("ds/images/1.jpg", "ds/train/images/2.jpg")

    assert find_place("/content/set/valid/images", "ds") is None
    assert find_place("/content/set/images", "ds") == ("ds/images", True)


def test_a_file_of_another_working_directory(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """cfg/ds.yaml was used from the folder above: found from anywhere, as a guess."""
    touch("project/datasets/ds/train/1.jpg", "project/cfg/ds.yaml", "elsewhere/x")
    monkeypatch.chdir("elsewhere")
    folder = str(here / "project" / "cfg")

    assert find_place("train", folder, "./datasets/ds") == (f"{folder}/../datasets/ds/train", True)


def test_nothing_is_found_of_nothing(here: Path) -> None:
    """Paths without a name, and names that do not exist."""
    assert find_place("/nowhere/at/all", "ds") is None
    assert find_lines(["/content/a.jpg", ".."], "ds") == (["/content/a.jpg", "ds/.."], False)


def test_lines_of_darknet(here: Path, warnings: pytest.LogCaptureFixture) -> None:
    """CVAT and darknet write `data/obj_train_data/...`; the pictures lie beside the list. One line says so."""
    touch("set/obj_train_data/a.jpg", "set/obj_train_data/b.jpg")
    Path("set/train.txt").write_text(
        "data/obj_train_data/a.jpg\ndata/obj_train_data/gone.jpg\ndata/obj_train_data/b.jpg\n"
    )

    items = find_items("set/train.txt")

    assert [item.source for item in items] == [f"set/obj_train_data/{name}.jpg" for name in ("a", "gone", "b")]
    assert [r.getMessage() for r in warnings.records] == [
        "the list set/train.txt: its paths, such as data/obj_train_data/a.jpg, are not on this machine; "
        "taking set/obj_train_data/a.jpg"
    ]


@pytest.mark.parametrize(
    "raw",
    ["Stra\u00dfe.jpg\n".encode("latin-1"), b"\xff\xfe" + "Stra\u00dfe.jpg\r\n".encode("utf-16-le")],
    ids=["Latin-1", "UTF-16"],
)
@pytest.mark.parametrize("name", [os.fsencode("Stra\u00dfe.jpg"), b"Stra\xdfe.jpg"], ids=["UTF-8 disk", "Latin-1 disk"])
def test_lists_in_latin_1_or_utf_16(here: Path, raw: bytes, name: bytes) -> None:
    """An old editor or PowerShell wrote the list; the disk may have the name either way."""
    with open(os.path.join(os.fsencode("."), name), "wb"):
        pass
    Path("list.txt").write_bytes(raw)

    [item] = find_items("list.txt")

    assert os.fsencode(item.path) == name


def test_a_yaml_in_latin_1(here: Path) -> None:
    """Windows' code page in names and paths."""
    touch("Stra\u00dfe/1.jpg")
    Path("data.yaml").write_bytes("train: Stra\u00dfe\nnames: [B\u00e4r]\n".encode("latin-1"))

    data = read_data_yaml("data.yaml")

    assert [item.source for item in data.items("train")] == ["Stra\u00dfe/1.jpg"]
    assert data.described["names"] == ["B\u00e4r"]


def test_text_of_any_editor() -> None:
    """UTF-8 with and without a mark, UTF-16, Windows' code page, and bytes that it does not have."""
    text = "B\u00e4r"
    for raw in (text.encode(), text.encode("utf-8-sig"), text.encode("utf-16"), text.encode("cp1252")):
        assert decoded(raw) == text
    assert decoded(b"\x81\xe4") == "\x81\xe4"


def test_detection_takes_the_val_pictures(here: Path) -> None:
    """A data.yaml as SOURCE of detection; without val on this machine, another split."""
    write(Path("ds/train/images/1.jpg"))
    write(Path("ds/valid/images/2.jpg"))
    Path("ds/data.yaml").write_text("train: /content/train/images\nval: /content/valid/images\ntest: ../test/images\n")

    assert [item.source for item in detection_items("ds/data.yaml")] == ["ds/valid/images/2.jpg"]
    shutil.rmtree("ds/valid")
    assert [item.source for item in detection_items("ds/data.yaml")] == ["ds/train/images/1.jpg"]
    shutil.rmtree("ds/train")
    with pytest.raises(DataError, match=r"train is /content/train/images, which does not exist; looked for"):
        detection_items("ds/data.yaml")


REAL = {"a-backslash": ("data.yaml", False), "b-colab": ("data.yaml", True), "c-cwd": ("cfg/ds.yaml", False)}


@pytest.mark.parametrize("case", REAL)
@pytest.mark.parametrize("inside", [True, False], ids=["run inside it", "run elsewhere"])
def test_the_real_cases(
    shared: Path,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    warnings: pytest.LogCaptureFixture,
    case: str,
    inside: bool,
) -> None:
    """Four pictures of train each; a line says where a path was guessed."""
    folder, (yaml, guessed) = shared / "field" / "04-data-yaml" / case, REAL[case]
    if inside:
        monkeypatch.chdir(folder)

    items = read_data_yaml(yaml if inside else str(folder / yaml)).items("train")

    assert [Path(item.source).name for item in items] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert all("train" in Path(item.source).parts for item in items)
    assert [("not on this machine" in r.getMessage()) for r in warnings.records] == (
        [True] if guessed or (case == "c-cwd" and not inside) else []
    )
