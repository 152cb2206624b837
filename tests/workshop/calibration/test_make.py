"""Sources, selection, the set on disk, and what happens to a folder that is already there."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import hefkit.files
from hefkit.detect.preprocess import letterbox
from hefkit.errors import DataError, UsageError
from hefkit.pictures.read import read_image
from hefkit.spec import InputSpec
from hefkit.staging.stage import Staging
from hefkit.workshop.calibration.dataset import find_dataset
from hefkit.workshop.calibration.folder import check_target
from hefkit.workshop.calibration.make import SetRequest, make_set
from tests.helpers.pictures import encode, exif, noise, with_exif, write

INPUT = InputSpec((64, 96))


@pytest.fixture(autouse=True)
def informed() -> None:
    """What scripts tell, not only warnings."""
    logging.getLogger("hefkit").setLevel(logging.INFO)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve different pictures in nested folders; one turned by EXIF."""
    folder = tmp_path / "photos"
    for i in range(11):
        write(folder / ("day", "night")[i % 2] / f"p{i:02d}.jpg", noise(60 + i, 40 + 2 * i, seed=i))
    turned = with_exif(encode(noise(60, 40, seed=99), ".jpg"), exif(6))
    (folder / "turned.jpg").write_bytes(turned)
    return folder


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def found(root: Path, source: str = "", split: str | None = None) -> tuple[str, list[str]]:
    """The split in use, and the pictures relative to `root`, with no links or .. left."""
    dataset = find_dataset(str(root / source) if source else str(root), split, root / "no_output")
    real = os.path.realpath(root)
    return dataset.split, [os.path.relpath(os.path.realpath(i.path), real) for i in dataset.items]


def make(folder: Path, source: Path, old: list[Path] | None = None, **changes: Any) -> dict[str, Any]:
    """A small set of `source` in `folder`."""
    request = replace(SetRequest(str(source), folder, INPUT, 5, "random", 0, "png", 2), **changes)
    items = find_dataset(str(source), None, folder).items
    return make_set(request, items, old or [])


def sources(manifest: dict[str, Any]) -> list[str]:
    return [image["source"] for image in manifest["images"]]


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`, hidden ones included."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# --- sources -------------------------------------------------------------------------------------------

FOLDERS = {
    # name: (files, --split, split in use, pictures)
    "plain and nested": (("b/2.jpg", "a.png"), None, "all", ["a.png", "b/2.jpg"]),
    "ultralytics": (
        ("images/train/1.jpg", "images/val/2.jpg", "labels/train/1.txt"),
        None,
        "train",
        ["images/train/1.jpg"],
    ),
    "ultralytics, val": (("images/train/1.jpg", "images/val/2.jpg"), "val", "val", ["images/val/2.jpg"]),
    "ultralytics, all": (
        ("images/train/1.jpg", "images/val/2.jpg", "extra/3.jpg"),
        "all",
        "all",
        ["extra/3.jpg", "images/train/1.jpg", "images/val/2.jpg"],
    ),
    "roboflow": (("train/images/1.jpg", "valid/images/2.jpg"), None, "train", ["train/images/1.jpg"]),
    "roboflow, validation": (
        ("train/images/1.jpg", "valid/images/2.jpg"),
        "validation",
        "val",
        ["valid/images/2.jpg"],
    ),
    "coco": (("images/train2017/1.jpg", "images/val2017/2.jpg"), None, "train", ["images/train2017/1.jpg"]),
    "only train": (("images/train/1.jpg", "other/2.jpg"), None, "train", ["images/train/1.jpg"]),
    "two bare splits": (("train/1.jpg", "test/2.jpg", "x/3.jpg"), None, "train", ["train/1.jpg"]),
    "vehicles, one of them a train": (("bus/1.jpg", "train/2.jpg"), None, "all", ["bus/1.jpg", "train/2.jpg"]),
    "several datasets": (
        ("a/images/train/1.jpg", "b/train/images/2.jpg", "b/valid/images/3.jpg"),
        None,
        "train",
        ["a/images/train/1.jpg", "b/train/images/2.jpg"],
    ),
    "no train at all": (
        ("images/val/1.jpg", "images/test/2.jpg"),
        None,
        "all",
        ["images/test/2.jpg", "images/val/1.jpg"],
    ),
}


@pytest.mark.parametrize("files, asked, split, pictures", FOLDERS.values(), ids=FOLDERS.keys())
def test_folders(tmp_path: Path, files: list[str], asked: str | None, split: str, pictures: list[str]) -> None:
    """The usual layouts are understood, and everything else is simply a folder of pictures."""
    touch(tmp_path, *files)

    assert found(tmp_path, split=asked) == (split, pictures)


def test_the_images_folder_of_a_dataset_has_its_splits(tmp_path: Path) -> None:
    """SOURCE may be the dataset or its `images`."""
    touch(tmp_path, "images/train/1.jpg", "images/Val/2.jpg")

    assert found(tmp_path, "images", "val") == ("val", ["images/Val/2.jpg"])


@pytest.mark.parametrize(
    "files, words",
    [
        (("images/train/1.jpg", "images/test/2.jpg"), "it has train, test"),
        (("1.jpg",), "not divided into splits"),
    ],
    ids=["others", "none"],
)
def test_a_missing_split_names_those_that_are_there(tmp_path: Path, files: list[str], words: str) -> None:
    """Asking for val where there is none is an error, never another split."""
    touch(tmp_path, *files)

    with pytest.raises(DataError, match=words):
        found(tmp_path, split="val")


YAMLS = {
    # name: (the file, where it lies, --split, pictures)
    "beside its folders": ("train: images/train\nval: images/val\n", "data.yaml", None, ["images/train/1.jpg"]),
    "val": ("train: images/train\nval: images/val\n", "data.yaml", "val", ["images/val/2.jpg"]),
    "valid": ("train: images/train\nvalid: images/val\n", "data.yml", "valid", ["images/val/2.jpg"]),
    "all": ("train: images/train\nval: images/val\n", "d.yaml", "all", ["images/train/1.jpg", "images/val/2.jpg"]),
    "path relative": ("path: ..\ntrain: images/train\n", "conf/data.yaml", None, ["images/train/1.jpg"]),
    "path absolute": ("path: ROOT\ntrain: images/train\n", "conf/data.yaml", None, ["images/train/1.jpg"]),
    "roboflow's dots": ("train: ../images/train\n", "data.yaml", None, ["images/train/1.jpg"]),
    "dots that are true": ("train: ../images/train\n", "conf/data.yaml", None, ["images/train/1.jpg"]),
    "several folders": (
        "train: [images/train, images/val, images/train/1.jpg]\n",
        "data.yaml",
        None,
        ["images/train/1.jpg", "images/val/2.jpg"],
    ),
    "a text list": ("train: lists/t.txt\n", "data.yaml", None, ["images/val/2.jpg", "extra/3.png"]),
    "test never downloaded": (
        "train: images/train\nval: images/val\ntest: images/test\n",
        "data.yaml",
        "all",
        ["images/train/1.jpg", "images/val/2.jpg"],
    ),
    "no train": ("val: images/val\n", "data.yaml", None, ["images/val/2.jpg"]),
    "empty values": ("train: images/train\nval:\ntest: ''\n", "data.yaml", None, ["images/train/1.jpg"]),
    "BOM and CRLF": ("\ufefftrain: images/train\r\nnames: [a]\r\n", "data.yaml", None, ["images/train/1.jpg"]),
}


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """images/train, images/val, and a text list with comments, blanks, CRLF and a BOM."""
    touch(tmp_path, "images/train/1.jpg", "images/val/2.jpg", "extra/3.png")
    (tmp_path / "lists").mkdir()
    lines = "\ufeff# chosen by hand\r\n../images/val/2.jpg\r\n\r\n  ../extra/3.png \r\n../extra/3.png\r\n"
    (tmp_path / "lists" / "t.txt").write_bytes(lines.encode())
    return tmp_path


@pytest.mark.parametrize("text, name, split, pictures", YAMLS.values(), ids=YAMLS.keys())
def test_data_yaml(dataset: Path, text: str, name: str, split: str | None, pictures: list[str]) -> None:
    """Paths start at the yaml's folder, then at its `path:`; Roboflow's wrong `../` is forgiven last."""
    (dataset / name).parent.mkdir(exist_ok=True)
    (dataset / name).write_bytes(text.replace("ROOT", str(dataset)).encode())

    assert sorted(found(dataset, name, split)[1]) == sorted(pictures)


BAD_YAMLS = {
    "no split named": ("names: [a]\n", "names no pictures"),
    "folder missing": ("train: images/nowhere\n", "looked for"),
    "not a mapping": ("- a\n- b\n", "not a dataset file"),
    "empty": ("", "not a dataset file"),
    "broken": ("train: [a\n", "not valid YAML"),
    "not text": ("\udc80abc", "is not a dataset file"),
    "python object": ("train: !!python/object/apply:os.getcwd []\n", "names no pictures"),
    "deep": ("[" * 800, "not valid YAML"),
    "number": ("train: 7\n", "train is 7"),
    "mapping": ("train: {a: b}\n", "expected a path"),
    "half of a surrogate pair": ('train: "\\ud800"\n', "expected a path"),
    "path is half of a surrogate pair": ('path: "\\ud800"\ntrain: images/train\n', "expected a path"),
    "path is a mapping": ("path: {a: 3}\ntrain: images/train\n", "path is not text"),
}


@pytest.mark.parametrize("text, words", BAD_YAMLS.values(), ids=BAD_YAMLS.keys())
def test_a_bad_data_yaml_says_what_is_wrong(dataset: Path, text: str, words: str) -> None:
    """Whatever the yaml holds, the answer is one sentence."""
    (dataset / "data.yaml").write_bytes(text.encode("utf-8", "surrogateescape"))

    with pytest.raises(DataError, match=words):
        found(dataset, "data.yaml")


def test_text_list(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Comments, blanks, CRLF and BOM; relative to the list, else to the working directory; each file once."""
    touch(dataset, "here/4.jpg")
    with open(dataset / "lists" / "t.txt", "ab") as file:
        file.write(b"4.jpg\n" + os.fsencode(dataset / "images/train/1.jpg") + b"\n")
    monkeypatch.chdir(dataset / "here")

    split, pictures = found(dataset, "lists/t.txt")

    assert split == "all"
    assert sorted(pictures) == ["extra/3.png", "here/4.jpg", "images/train/1.jpg", "images/val/2.jpg"]


def test_our_own_output_inside_the_source_is_left_out(photos: Path) -> None:
    """`prepare_calibration.py .` twice does not calibrate with its own first result, nor through a link."""
    own = photos / "calibration_data"
    write(own / "calib_0000.png")
    (photos / "alias").symlink_to(own)

    dataset = find_dataset(str(photos), None, own)

    assert len(dataset.items) == 12
    (photos / "list.txt").write_text("calibration_data/calib_0000.png\n")
    with pytest.raises(DataError, match="only pictures that hefkit made"):
        find_dataset(str(photos / "list.txt"), None, own)


# --- the set -------------------------------------------------------------------------------------------


def test_the_set_is_what_the_manifest_says(photos: Path, tmp_path: Path) -> None:
    """Pixels, hashes, sizes after EXIF and the digest, each computed once more from the files."""
    out = tmp_path / "out"

    manifest = make(out, photos, count=12)

    assert manifest == json.loads((out / "manifest.json").read_bytes())
    assert list(manifest) == (
        "format created tool source seed select input count images skipped coverage digest".split()  # noqa: SIM905
    )
    assert manifest["format"] == 1
    assert manifest["tool"].startswith("hefkit ")
    assert abs((datetime.now(timezone.utc) - datetime.fromisoformat(manifest["created"])).total_seconds()) < 600
    assert manifest["input"] == INPUT.to_json()
    assert (manifest["count"], manifest["skipped"]) == (12, [])
    assert set(sources(manifest)) == {str(p) for p in photos.rglob("*.jpg")}
    digest = hashlib.sha256()
    for i, image in enumerate(manifest["images"]):
        assert image["file"] == f"calib_{i:04d}.png"
        assert image["sha256"] == hashlib.sha256(Path(image["source"]).read_bytes()).hexdigest()
        photo = read_image(image["source"])
        assert (image["width"], image["height"]) == (photo.shape[1], photo.shape[0])
        stored = cv2.imread(str(out / image["file"]))[..., ::-1]
        np.testing.assert_array_equal(stored, letterbox(photo, INPUT)[0])
        digest.update(np.ascontiguousarray(stored).tobytes())
    assert manifest["digest"] == digest.hexdigest()
    turned = manifest["images"][sources(manifest).index(str(photos / "turned.jpg"))]
    assert (turned["width"], turned["height"]) == (40, 60)
    assert sorted(snapshot(out)) == sorted(
        [f"calib_{i:04d}.png" for i in range(12)] + ["coverage.png", "manifest.json", "preview.jpg"]
    )


def test_npy_holds_the_same_set(photos: Path, tmp_path: Path) -> None:
    """One uint8 NHWC RGB array, the same digest, and every image names it."""
    png = make(tmp_path / "png", photos)
    npy = make(tmp_path / "npy", photos, file_format="npy")

    array = np.load(tmp_path / "npy" / "calib_set.npy")
    assert (array.shape, array.dtype) == ((5, 64, 96, 3), np.uint8)
    assert {image["file"] for image in npy["images"]} == {"calib_set.npy"}
    assert npy["digest"] == png["digest"] == hashlib.sha256(array.tobytes()).hexdigest()
    assert sources(npy) == sources(png)
    assert sorted(snapshot(tmp_path / "npy")) == ["calib_set.npy", "coverage.png", "manifest.json", "preview.jpg"]


@pytest.mark.parametrize("select", ["diverse", "random", "first"])
def test_workers_change_nothing(photos: Path, tmp_path: Path, select: str) -> None:
    """One worker and seven draw the same pictures in the same order, also with unreadable ones among them."""
    for name in ("day/p03x.jpg", "a.jpg", "zz.png"):
        (photos / name).write_bytes(b"no picture")

    one = make(tmp_path / "one", photos, select=select, workers=1, count=10)
    seven = make(tmp_path / "seven", photos, select=select, workers=7, count=10)

    assert {**one, "created": ""} == {**seven, "created": ""}


def test_random_is_the_seeded_shuffle_of_the_sorted_paths(photos: Path, tmp_path: Path) -> None:
    """Random(seed).shuffle over the sorted list, the first N: the choice can be computed again."""
    import random

    expected = sorted(str(p) for p in photos.rglob("*.jpg"))
    random.Random(3).shuffle(expected)

    assert sources(make(tmp_path / "out", photos, seed=3)) == expected[:5]


def test_seeds_differ_and_repeat(photos: Path, tmp_path: Path) -> None:
    """The same seed gives the same set on a second run, another one another set."""
    sets = [make(tmp_path / str(i), photos, seed=seed)["digest"] for i, seed in enumerate((0, 0, 1))]

    assert sets[0] == sets[1] != sets[2]


def test_first_takes_the_first_and_shuffles_them(photos: Path, tmp_path: Path) -> None:
    """The compiler takes the first `calibset_size`: even `first` must not put all of one folder in front."""
    in_order = sorted(str(p) for p in photos.rglob("*.jpg"))[:8]

    manifest = make(tmp_path / "out", photos, select="first", count=8)

    assert sorted(sources(manifest)) == in_order
    assert sources(manifest) != in_order


def test_unreadable_pictures_are_replaced_and_named(photos: Path, tmp_path: Path, caplog: Any) -> None:
    """The next candidates take their place; the manifest and stderr say which and why."""
    (photos / "a.jpg").write_bytes(b"")
    half = (photos / "day" / "p00.jpg").read_bytes()
    (photos / "b.jpg").write_bytes(half[: len(half) // 2])

    manifest = make(tmp_path / "out", photos, select="first", count=4)

    assert manifest["count"] == 4
    assert [s["source"] for s in manifest["skipped"]] == [str(photos / "a.jpg"), str(photos / "b.jpg")]
    assert manifest["skipped"][0]["reason"] == "the file is empty"
    assert "end marker" in manifest["skipped"][1]["reason"]
    assert "a.jpg is left out: the file is empty" in caplog.text


def test_fewer_than_asked_are_all_taken_with_a_warning(photos: Path, tmp_path: Path, caplog: Any) -> None:
    """A small dataset is not an error."""
    assert make(tmp_path / "out", photos, count=64)["count"] == 12
    assert "only 12 usable pictures, 64 were asked for" in caplog.text


def test_no_usable_picture_leaves_no_folder(tmp_path: Path) -> None:
    """None at all is an error, and the output that was to be made is not there afterwards."""
    touch(tmp_path, "in/a.jpg", "in/b.png")

    with pytest.raises(DataError, match="none of the 2 pictures"):
        make(tmp_path / "new" / "out", tmp_path / "in")

    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "size, shape, warned",
    [((200, 64), INPUT.size, False), ((300, 60), (64, 64), True), ((60, 300), (64, 64), True)],
    ids=["3.1 : 1 into a wide input", "panorama", "tower"],
)
def test_long_pictures_are_warned_about_once(
    tmp_path: Path, caplog: Any, size: tuple[int, int], shape: tuple[int, int], warned: bool
) -> None:
    """Beyond 3:1 of the input's own shape, letterboxing shrinks the picture; one line for all of them."""
    for i in range(3):
        write(tmp_path / "in" / f"{i}.png", noise(*size, seed=i))

    make(tmp_path / "out", tmp_path / "in", count=3, input=InputSpec(shape))

    assert caplog.text.count("beyond 3:1") == warned
    assert ("3 of 3 pictures" in caplog.text) == warned


def test_a_size_that_no_yolo_takes_is_warned_about(photos: Path, tmp_path: Path, caplog: Any) -> None:
    """The coarsest head has stride 32."""
    make(tmp_path / "out", photos, count=1, input=InputSpec((64, 100)))

    assert "not a multiple of 32" in caplog.text


def test_the_preview_shows_the_set_in_order(tmp_path: Path) -> None:
    """Eight thumbnails a row, at most 64, each in its place with its colours the right way round."""
    colours = {f"{i:02d}.png": (3 * i, 255 - 3 * i, 90) for i in range(70)}  # BGR
    for name, colour in colours.items():
        write(tmp_path / "in" / name, np.full((8, 8, 3), colour, np.uint8))

    manifest = make(tmp_path / "out", tmp_path / "in", count=70, input=InputSpec((32, 32)))

    sheet = cv2.imread(str(tmp_path / "out" / "preview.jpg"))
    assert sheet.shape == (8 * 164 + 4, 8 * 164 + 4, 3)
    for index in (0, 9, 63):
        centre = sheet[4 + index // 8 * 164 + 80, 4 + index % 8 * 164 + 80].astype(int)
        expected = colours[os.path.basename(sources(manifest)[index])]
        assert np.abs(centre - expected).max() < 12


def test_names_in_any_script_and_encoding(tmp_path: Path) -> None:
    """A name that is not valid UTF-8 still makes a manifest that is valid JSON."""
    folder = os.fsencode(tmp_path / "in")
    os.mkdir(folder)
    for name in ("größe 写真.png".encode(), b"latin-\xe4.png"):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(encode(noise(20, 20), ".png"))

    make(tmp_path / "out", tmp_path / "in", count=2)

    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text("ascii"))
    assert {os.path.basename(os.fsencode(s)) for s in sources(manifest)} == set(os.listdir(folder))


# --- the folder that is already there ------------------------------------------------------------------


def target(out: Path, overwrite: bool, count: int = 5, source: str = "elsewhere", kind: str = "png") -> list[str]:
    return sorted(p.name for p in check_target(out, [source], count, kind, overwrite=overwrite))


def test_a_new_or_empty_folder_needs_no_overwrite(tmp_path: Path) -> None:
    """Nothing there, or only what a killed run of ours left."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "left" / ".hefkit-partial-1").mkdir(parents=True)

    for name in ("new/deep", "empty", "left"):
        assert target(tmp_path / name, False) == []
    assert not (tmp_path / "new").exists()


def test_overwrite_removes_the_old_set_and_nothing_else(photos: Path, tmp_path: Path) -> None:
    """A smaller set replaces a larger one; notes, and even a photograph put there, stay as they are."""
    out = tmp_path / "out"
    make(out, photos, count=6)
    touch(out, "notes.txt", "holiday.jpg", "sub/calib_0000.png")

    with pytest.raises(UsageError, match="not empty"):
        target(out, False)
    old = check_target(out, [str(photos)], 2, "npy", overwrite=True)
    make(out, photos, old, count=2, file_format="npy")

    assert sorted(snapshot(out)) == sorted(
        [
            "calib_set.npy",
            "coverage.png",
            "manifest.json",
            "preview.jpg",
            "notes.txt",
            "holiday.jpg",
            "sub/calib_0000.png",
        ]
    )
    assert (out / "holiday.jpg").read_bytes() == b"x"


MANIFESTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "none": lambda m: None,
    "not JSON": lambda m: b"{",
    "a list": lambda m: [m],
    "of another program": lambda m: {"name": "app", "icons": ["a.png"]},
    "another format": lambda m: {**m, "format": 2},
    "no digest": lambda m: {k: v for k, v in m.items() if k != "digest"},
    "images is not a list": lambda m: {**m, "images": "a.png"},
    "images of text": lambda m: {**m, "images": ["a.png"]},
    "deep": lambda m: b"[" * 100_000,
}


@pytest.mark.parametrize("overwrite", [False, True], ids=["plain", "--overwrite"])
@pytest.mark.parametrize("manifest", MANIFESTS)
def test_pictures_without_a_manifest_of_ours_are_never_touched(
    photos: Path, tmp_path: Path, manifest: str, overwrite: bool
) -> None:
    """--output ~/photos is a slip of the hand, not an order to delete."""
    out = tmp_path / "out"
    content = MANIFESTS[manifest](make(out, photos, count=1))
    (out / "manifest.json").unlink()
    if content is not None:
        (out / "manifest.json").write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())

    with pytest.raises(UsageError, match="photographs"):
        target(out, overwrite)


def test_photographs_in_sub_folders_protect_the_folder_too(tmp_path: Path) -> None:
    """2024/summer/1.jpg below --output is enough."""
    touch(tmp_path, "out/2024/summer/1.JPG")

    with pytest.raises(UsageError, match="photographs"):
        target(tmp_path / "out", True)


def test_an_old_manifest_cannot_name_files_elsewhere(photos: Path, tmp_path: Path) -> None:
    """Only plain names inside the folder are ours to remove; paths, hidden names and folders are not."""
    out = tmp_path / "out"
    manifest = make(out, photos, count=1)
    touch(tmp_path, "victim.txt", "out/.hidden", "out/folder/x")
    names = ["../victim.txt", str(tmp_path / "victim.txt"), "folder/x", "folder", ".hidden", "..", "", None, 3, "a\0"]
    manifest["images"] += [{"file": name} for name in names] + [{}]
    (out / "manifest.json").write_text(json.dumps(manifest))

    assert target(out, True) == ["calib_0000.png", "coverage.png", "manifest.json", "preview.jpg"]


@pytest.mark.parametrize(
    "name, kind, refused",
    [
        ("calib_0003.png", "png", True),
        ("calib_0003.png", "npy", False),
        ("calib_set.npy", "npy", True),
        ("calib_0005.png", "png", False),
    ],
    ids=["would be replaced", "other format", "array", "beyond the set"],
)
def test_a_foreign_file_with_one_of_our_names_stays(
    photos: Path, tmp_path: Path, name: str, kind: str, refused: bool
) -> None:
    """What the old manifest does not name is not ours, whatever it is called."""
    out = tmp_path / "out"
    make(out, photos, count=2)
    touch(out, name)

    if refused:
        with pytest.raises(UsageError, match=name):
            target(out, True, kind=kind)
    else:
        assert name not in target(out, True, kind=kind)


@pytest.mark.parametrize("source", ["out", "out/calib_0000.png", "out/../out", "alias"])
def test_the_output_is_never_the_source(photos: Path, tmp_path: Path, source: str) -> None:
    """Neither itself nor something in it, however it is spelled."""
    make(tmp_path / "out", photos, count=1)
    (tmp_path / "alias").symlink_to("out")

    with pytest.raises(UsageError, match="lies in the output"):
        target(tmp_path / "out", True, source=str(tmp_path / source))


class Stop(BaseException):
    """Stands for Ctrl-C or SIGTERM."""


@pytest.mark.parametrize("moment", ["stage.letterbox", "make.contact_sheet", "make.json.dumps"])
def test_a_failing_run_leaves_the_folder_as_it_was(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Whenever it stops before the last move, the old set is still there byte for byte."""
    out = tmp_path / "out"
    make(out, photos, count=3)
    before = snapshot(out)
    old = check_target(out, [str(photos)], 5, "png", overwrite=True)

    def stop(*args: object, **options: object) -> None:
        raise Stop

    monkeypatch.setattr(f"hefkit.workshop.calibration.{moment}", stop)
    with pytest.raises(Stop):
        make(out, photos, old, seed=1)

    assert snapshot(out) == before


def test_a_signal_waits_until_the_set_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM in the middle of the moves: all files come to their place first, then the run ends."""

    def stop(number: int, frame: object) -> None:
        raise Stop

    def move(source: Path, place: Path) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        real_replace(source, place)

    real_replace = os.replace
    monkeypatch.setattr(hefkit.files.os, "replace", move)
    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(Stop), Staging(tmp_path / "out") as stage:
            touch(stage.path, "a", "b", "manifest.json")
            stage.commit(last="manifest.json")
    finally:
        signal.signal(signal.SIGTERM, before)

    assert sorted(snapshot(tmp_path / "out")) == ["a", "b", "manifest.json"]
