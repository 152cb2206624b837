"""Reading a calibration set back: both forms, and everything that may be wrong with them."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hefkit.errors import DataError
from hefkit.pictures.sources import find_items
from hefkit.spec import InputSpec
from hefkit.workshop.calibration.make import SetRequest, make_set
from hefkit.workshop.calibration.read import CalibrationSet
from tests.helpers.pictures import encode, noise, write

SIZE = (32, 48)


def make(folder: Path, count: int = 6, file_format: str = "png", fit: str = "letterbox") -> Path:
    """A set of `count` pictures as prepare_calibration.py writes it."""
    photos = folder.with_name(f"{folder.name} photos")
    for i in range(count):
        write(photos / f"{i:03d}.png", noise(50, 40, seed=i))
    request = SetRequest(str(photos), folder, InputSpec(SIZE, fit), count, "first", 0, file_format, 1)
    make_set(request, find_items(str(photos)))
    return folder


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest of a set."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("file_format", ["png", "npy"])
def test_a_folder(tmp_path: Path, file_format: str) -> None:
    """Pictures in the manifest's order, uint8 RGB of the input's size; fit and digest come with them."""
    folder = make(tmp_path / "set", file_format=file_format, fit="stretch")
    manifest = json.loads((folder / "manifest.json").read_bytes())

    found = CalibrationSet(folder, SIZE)

    assert (len(found), found.available, found.fit, found.digest) == (6, 6, "stretch", manifest["digest"])
    for i, (picture, entry) in enumerate(zip(found, manifest["images"], strict=True)):
        assert (picture.shape, picture.dtype, picture.flags.c_contiguous) == ((*SIZE, 3), np.uint8, True)
        assert np.array_equal(picture, found[i])
        # stretched from 50x40 to 48x32: nearly the photograph itself, so blue and red cannot be exchanged unseen
        seed = int(Path(entry["source"]).stem)
        middle = noise(48, 32, seed=seed)[8:24, 8:40, ::-1].astype(int)
        assert np.abs(picture[8:24, 8:40] - middle).mean() < 6


def test_png_and_npy_hold_the_same(tmp_path: Path) -> None:
    """One digest, equal pictures; the array alone, named directly, is the same set."""
    png, npy = make(tmp_path / "a"), make(tmp_path / "b", file_format="npy")
    sets = [CalibrationSet(p, SIZE) for p in (png, npy, npy / "calib_set.npy")]

    assert len({s.digest for s in sets}) == 1 and {s.fit for s in sets} == {"letterbox"}
    for pictures in zip(*sets, strict=True):
        assert all(np.array_equal(pictures[0], p) for p in pictures)


@pytest.mark.parametrize("kind", ["png", "npy", "array", "bare array", "bare pictures"])
def test_the_files_of_a_set_are_the_set(tmp_path: Path, kind: str) -> None:
    """Copied into another folder they give the same pictures and the same facts; pictures for people are not needed."""
    path = make(tmp_path / "set", file_format="png" if kind in ("png", "bare pictures") else "npy")
    if kind == "bare pictures":
        for file in (*path.glob("*.j*"), path / "coverage.png"):
            file.unlink()
        for file in path.glob("calib_*.png"):
            file.rename(file.with_name(f"mine_{file.name}"))
    elif kind != "png" and kind != "npy":
        path = path / "calib_set.npy"
    if kind == "bare array":
        path = path.rename(tmp_path / "mine.npy")
    found = CalibrationSet(path, SIZE)
    (tmp_path / "copy").mkdir()

    for file in found.files:
        shutil.copy(file, tmp_path / "copy")

    again = CalibrationSet(tmp_path / "copy" / (path.name if path.is_file() else ""), SIZE)
    assert (again.digest, again.fit, len(again)) == (found.digest, found.fit, 6)
    assert not (tmp_path / "copy" / "preview.jpg").exists()


def test_a_bare_array(tmp_path: Path) -> None:
    """Made by hand, without a manifest: nothing is known of its fit, and the digest is computed."""
    array = np.stack([noise(48, 32, seed=i) for i in range(3)])
    np.save(tmp_path / "mine.npy", array)

    found = CalibrationSet(tmp_path / "mine.npy", SIZE)

    assert (len(found), found.fit) == (3, None) and len(str(found.digest)) == 64
    assert np.array_equal(found[2], array[2])


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_whole_numbers_as_floats(tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: type) -> None:
    """What the SDK's own examples save: the same pictures and digest as uint8, with a sentence."""
    array = np.stack([noise(48, 32, seed=i) for i in range(3)])
    np.save(tmp_path / "bytes.npy", array)
    np.save(tmp_path / "floats.npy", array.astype(kind))
    caplog.set_level("INFO", "hefkit")

    floats, plain = (CalibrationSet(tmp_path / f"{name}.npy", SIZE) for name in ("floats", "bytes"))

    assert floats.digest == plain.digest and floats[1].dtype == np.uint8
    assert f"{np.dtype(kind)}, its whole numbers are used" in caplog.text
    assert caplog.text.count("how the pictures were fitted and chosen is unknown") == 2


def test_a_bare_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Pictures of the input's size without a manifest are taken by name, with a sentence; of another size refused."""
    for i in (2, 0, 1):
        write(tmp_path / "bare" / f"{i}.png", noise(48, 32, seed=i))
    caplog.set_level("INFO", "hefkit")

    found = CalibrationSet(tmp_path / "bare", SIZE)

    assert (len(found), found.fit) == (3, None)
    assert np.array_equal(found[2][..., ::-1], noise(48, 32, seed=2))
    assert "bare has no manifest: its 3 pictures are taken" in caplog.text
    with pytest.raises(DataError, match=r"pictures of 32x48, the model takes 64x64 .* --imgsz 64 64"):
        CalibrationSet(tmp_path / "bare", (64, 64))


def test_a_limit_takes_the_first(tmp_path: Path) -> None:
    """--num-samples: the first N in the manifest's order; more than there are is all; an index beyond is refused."""
    folder = make(tmp_path / "set")
    everything = list(CalibrationSet(folder, SIZE))

    some = CalibrationSet(folder, SIZE, 4)

    assert (len(some), some.available) == (4, 6)
    assert all(np.array_equal(a, b) for a, b in zip(some, everything, strict=False))
    assert len(CalibrationSet(folder, SIZE, 100)) == 6
    for index in (4, -1):
        with pytest.raises(IndexError):
            some[index]


# N -> held out: the last min(16, N / 5) from 80 on
SPLITS = {"79": (79, None), "80": (80, 16), "84": (84, 16), "400": (400, 16), "1": (1, None)}


@pytest.mark.parametrize("count, held", SPLITS.values(), ids=SPLITS.keys())
def test_held_out_pictures(tmp_path: Path, count: int, held: int | None) -> None:
    """Small sets are measured on themselves and say so; of large ones the last 16 are kept out."""
    np.save(tmp_path / "s.npy", np.zeros((count, 2, 2, 3), np.uint8))

    train, held_out, in_sample = CalibrationSet(tmp_path / "s.npy", (2, 2)).split()

    if held is None:
        assert (train, held_out, in_sample) == (list(range(count)), list(range(count)), True)
    else:
        assert (train, held_out, in_sample) == (list(range(count - held)), list(range(count - held, count)), False)


def test_the_limit_counts_for_the_split(tmp_path: Path) -> None:
    """--num-samples 80 of 200: 64 to calibrate with, 16 to measure on, and the other 120 in neither."""
    np.save(tmp_path / "s.npy", np.zeros((200, 2, 2, 3), np.uint8))

    train, held_out, in_sample = CalibrationSet(tmp_path / "s.npy", (2, 2), 80).split()

    assert (train, held_out, in_sample) == (list(range(64)), list(range(64, 80)), False)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "holds no manifest.json"),
    "no JSON": (lambda f: (f / "manifest.json").write_text("{"), "cannot be read as JSON"),
    "deep JSON": (lambda f: (f / "manifest.json").write_text("[" * 100_000), "cannot be read as JSON"),
    "a list": (lambda f: (f / "manifest.json").write_text("[]"), "not a manifest of format 1"),
    "another format": (lambda f: edit(f, lambda m: m.update(format=2)), "not a manifest of format 1"),
    "no images": (lambda f: edit(f, lambda m: m.pop("images")), "not a manifest of format 1"),
    "an empty list of images": (lambda f: edit(f, lambda m: m.update(images=[])), "is empty"),
    "no input": (lambda f: edit(f, lambda m: m.pop("input")), "input"),
    "BGR": (lambda f: edit(f, lambda m: m["input"].update(color="BGR")), "input.color"),
    "a size that is none": (lambda f: edit(f, lambda m: m["input"].update(size="big")), "input.size"),
    "another size": (lambda f: edit(f, lambda m: m["input"].update(size=[64, 48])), "pictures of 64x48"),
    "files outside": (lambda f: edit(f, lambda m: m["images"][1].update(file="../../etc/passwd")), "outside of it"),
    "an absolute file": (lambda f: edit(f, lambda m: m["images"][1].update(file="/etc/passwd")), "outside of it"),
    "a file that is not a name": (lambda f: edit(f, lambda m: m["images"][1].update(file=7)), "outside of it"),
    "a picture gone": (lambda f: (f / "calib_0003.png").unlink(), "calib_0003.png"),
    "a picture damaged": (lambda f: (f / "calib_0003.png").write_bytes(b"\x89PNG junk"), "calib_0003.png is damaged"),
    "a picture empty": (lambda f: (f / "calib_0003.png").write_bytes(b""), "calib_0003.png is damaged"),
    "a picture of another size": (
        lambda f: (f / "calib_0003.png").write_bytes(encode(noise(48, 48), ".png")),
        "pictures of 48x48",
    ),
    "a picture exchanged": (
        lambda f: (f / "calib_0003.png").write_bytes(encode(noise(48, 32, 99), ".png")),
        "digest differs",
    ),
    "the order changed": (lambda f: edit(f, lambda m: m["images"].reverse()), "digest differs"),
    "a picture left out": (lambda f: edit(f, lambda m: m["images"].pop()), "digest differs"),
    "the digest changed": (lambda f: edit(f, lambda m: m.update(digest="0" * 64)), "digest differs"),
}


@pytest.mark.parametrize("damage, words", DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_folders(tmp_path: Path, damage: Callable[[Path], object], words: str) -> None:
    """Refused when the set is opened, before any pass over it, with what is wrong."""
    folder = make(tmp_path / "set")
    damage(folder)

    with pytest.raises(DataError, match=words):
        CalibrationSet(folder, SIZE)


ARRAYS: dict[str, tuple[np.ndarray, str]] = {
    "floats of 0 to 1": (np.full((2, *SIZE, 3), 0.5, np.float32), "float32 of 0.5 to 0.5; expected whole numbers"),
    "floats beyond 255": (np.full((2, *SIZE, 3), 256, np.float32), "of 256 to 256"),
    "negative floats": (np.full((2, *SIZE, 3), -1, np.float32), "of -1 to -1"),
    "not a number": (np.full((2, *SIZE, 3), [0, 1, np.nan], np.float32), "expected whole numbers"),
    "float16": (np.zeros((2, *SIZE, 3), np.float16), "float16"),
    "channels first": (np.zeros((2, 3, *SIZE), np.uint8), "expected uint8"),
    "one picture": (np.zeros((*SIZE, 3), np.uint8), "expected uint8"),
    "grey": (np.zeros((2, *SIZE, 1), np.uint8), "expected uint8"),
    "another size": (np.zeros((2, 64, 64, 3), np.uint8), "pictures of 64x64"),
    "no picture": (np.zeros((0, *SIZE, 3), np.uint8), "is empty"),
    "objects": (np.array([{"a": 1}], dtype=object), "cannot be read as a NumPy array"),
}


@pytest.mark.parametrize("array, words", ARRAYS.values(), ids=ARRAYS.keys())
def test_arrays_that_are_no_set(tmp_path: Path, array: np.ndarray, words: str) -> None:
    """Only uint8 (N, H, W, 3) of the model's size; a pickle is refused, never loaded."""
    np.save(tmp_path / "s.npy", array, allow_pickle=True)

    with pytest.raises(DataError, match=words):
        CalibrationSet(tmp_path / "s.npy", SIZE)


def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    """What a hostile file would do on loading does not happen, be it an array of objects or a bare pickle."""
    mark = tmp_path / "it ran"

    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return open, (str(mark), "w")

    np.save(tmp_path / "s.npy", np.array([Hostile()], dtype=object), allow_pickle=True)
    (tmp_path / "bare.npy").write_bytes(pickle.dumps(Hostile()))

    for name in ("s.npy", "bare.npy"):
        with pytest.raises(DataError):
            CalibrationSet(tmp_path / name, SIZE)
        assert not mark.exists()


def test_truncated_and_several_arrays(tmp_path: Path) -> None:
    """Half a file, and an .npz under the wrong name."""
    np.save(tmp_path / "s.npy", np.zeros((4, *SIZE, 3), np.uint8))
    whole = (tmp_path / "s.npy").read_bytes()
    (tmp_path / "half.npy").write_bytes(whole[: len(whole) // 2])
    np.savez(tmp_path / "two.npz", a=np.zeros(3), b=np.zeros(3))
    (tmp_path / "two.npz").rename(tmp_path / "two.npy")

    for name, words in (("half.npy", "cannot be read"), ("two.npy", "several arrays")):
        with pytest.raises(DataError, match=words):
            CalibrationSet(tmp_path / name, SIZE)


@pytest.mark.parametrize("name, words", [("gone", "does not exist"), ("notes.txt", "is not a calibration set")])
def test_nothing_of_the_kind(tmp_path: Path, name: str, words: str) -> None:
    """A missing path names the command that makes a set; another file says what was expected."""
    (tmp_path / "notes.txt").write_text("words")

    with pytest.raises(DataError, match=words):
        CalibrationSet(tmp_path / name, SIZE)


def test_a_picture_that_vanishes_later_is_an_error(tmp_path: Path) -> None:
    """The check was at the start; a file that vanishes during the passes is still one sentence."""
    folder = make(tmp_path / "set")
    found = CalibrationSet(folder, SIZE)
    (folder / "calib_0001.png").unlink()

    with pytest.raises(DataError, match=r"calib_0001\.png"):
        list(found)
