"""`diverse`: near-duplicates go out, rare classes and light come in, and the same seed gives the same set."""

from __future__ import annotations

import logging
import os
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
import pytest

from hefkit.pictures.sources import Item
from hefkit.results.progress import Progress
from hefkit.spec import InputSpec
from hefkit.workshop.calibration.choice import scan as scan_module
from hefkit.workshop.calibration.choice.cache import Cache, cache_file, stamp
from hefkit.workshop.calibration.choice.choose import diverse, near_duplicates, object_sizes
from hefkit.workshop.calibration.choice.coverage import figures, notes
from hefkit.workshop.calibration.choice.look import (
    RED_GREEN,
    THUMBNAIL,
    Look,
    look_at,
    look_at_targets,
    perceptual_hash,
    unpack,
)
from hefkit.workshop.calibration.choice.scan import Table, Threads, scan, table_of
from hefkit.workshop.calibration.make import SetRequest, make_set
from hefkit.workshop.calibration.sources import find_sources
from hefkit.workshop.calibration.stage import Workers
from tests.helpers.pictures import noise, write

SPEC = InputSpec((64, 64))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cache_file()


def scene(seed: int, size: tuple[int, int] = (320, 200)) -> np.ndarray:
    """(h, w, 3) uint8 BGR with structure: another seed is another scene."""
    rng = np.random.default_rng(seed)
    picture = cv2.resize(rng.integers(30, 226, (6, 9, 3), np.uint8), size, interpolation=cv2.INTER_CUBIC)
    for _ in range(6):
        centre = tuple(int(v) for v in rng.integers(0, size))
        cv2.circle(picture, centre, int(rng.integers(10, 50)), [int(v) for v in rng.integers(0, 256, 3)], -1)
    return picture


def again(picture: np.ndarray, seed: int) -> np.ndarray:
    """The next frame of a camera that does not move: noise, and a little more light."""
    rng = np.random.default_rng(seed)
    frame = picture * rng.uniform(0.99, 1.01) + rng.normal(0, 2, picture.shape)
    return np.clip(frame, 0, 255).astype(np.uint8)


def look(picture: np.ndarray, classes: tuple[int, ...] = (), share: float = 0.1, labelled: bool = True) -> Look:
    """A look at a picture with such objects."""
    seen = look_at(picture, (picture.shape[1], picture.shape[0]))
    objects = np.array(classes, np.uint16), np.full(len(classes), share, np.float32)
    return Look(seen.size_wh, seen.phash, seen.values, labelled and bool(classes), *objects)


def chosen(table: Table, wanted: int, seed: int = 0) -> list[int]:
    """The rows of the set."""
    return diverse(table, wanted, seed, SPEC, near_duplicates(table))[:wanted]


# --- the look --------------------------------------------------------------------------------------------------------


def test_a_hash_knows_a_scene_again() -> None:
    """Noise, another size and JPEG change few of the 64 bits, another scene many."""
    picture = cv2.cvtColor(scene(1), cv2.COLOR_BGR2GRAY)
    jpeg = cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_GRAYSCALE)
    half = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)

    def distance(other: np.ndarray) -> int:
        return (perceptual_hash(picture) ^ perceptual_hash(other)).bit_count()

    assert distance(picture) == 0
    assert max(distance(jpeg), distance(half)) <= 3
    assert min(distance(cv2.cvtColor(scene(seed), cv2.COLOR_BGR2GRAY)) for seed in range(2, 12)) > 12


def test_brightness_and_size_are_those_of_the_file(tmp_path: Path) -> None:
    """Read by reduced decoding, a JPEG of 2000 x 1000 has its own size and its own mean."""
    path = write(tmp_path / "a.jpg", np.full((1000, 2000, 3), 120, np.uint8))

    (packed,) = look_at_targets([(str(path), None)])

    assert isinstance(packed, bytes)
    seen = unpack(packed)
    assert seen.size_wh == (2000, 1000)
    assert abs(seen.values[0] * 40 - 120) < 1.5


def test_a_look_for_coverage_has_the_same_light() -> None:
    """What is only needed to choose is left out: the hash, and the colours of the picture and of its cells."""
    picture = scene(3)

    whole, light = look_at(picture, (320, 200)), look_at(picture, (320, 200), to_choose=False)

    assert (light.size_wh, light.phash) == ((320, 200), 0)
    np.testing.assert_array_equal(light.values[:RED_GREEN], whole.values[:RED_GREEN])
    assert not light.values[RED_GREEN:].any()
    assert whole.phash and whole.values[RED_GREEN:].any()


def test_a_look_survives_packing(tmp_path: Path) -> None:
    """What goes to the cache and over the network comes back whole."""
    before = look(scene(3), (4, 4, 70), 0.25)

    after = unpack(before.pack())

    assert (after.size_wh, after.phash, after.labelled) == (before.size_wh, before.phash, before.labelled)
    np.testing.assert_array_equal(after.values, before.values)
    assert (after.class_id.tolist(), after.share.tolist()) == ([4, 4, 70], [0.25] * 3)


def test_labels_beside_the_pictures_are_read(tmp_path: Path) -> None:
    """images/ -> labels/; a file with a mistake counts as none; an unreadable picture has its reason."""
    for name in ("good", "bad", "none"):
        write(tmp_path / "images" / f"{name}.jpg", scene(5))
    (tmp_path / "images" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "good.txt").write_text("2 0.5 0.5 0.5 0.2\n0 0.5 0.5 1 1\n")
    (tmp_path / "labels" / "bad.txt").write_text("2 0.5 0.5 320 200\n")
    names = ("good", "bad", "none", "broken")

    found = look_at_targets([(str(tmp_path / "images" / f"{name}.jpg"), None) for name in names])

    good, bad, none = (unpack(f) for f in found[:3] if isinstance(f, bytes))
    assert (good.labelled, good.class_id.tolist()) == (True, [2, 0])
    np.testing.assert_allclose(good.share, [0.1, 1.0], rtol=1e-4)
    assert (bad.labelled, none.labelled, len(bad.class_id)) == (False, False, 0)
    assert "end marker" in str(found[3])


# --- the choice ------------------------------------------------------------------------------------------------------


def test_the_frames_of_one_morning_are_one_picture() -> None:
    """Ninety frames of a still camera and ten scenes: eleven pictures, and the eleven are all there."""
    still = scene(100)
    table = table_of([look(again(still, i)) for i in range(90)] + [look(scene(i)) for i in range(10)])

    near = near_duplicates(table)

    assert near.tolist() == [False] + [True] * 89 + [False] * 10
    assert sorted(chosen(table, 11)) == [0, *range(90, 100)]


def test_the_same_scene_by_night_is_not_a_duplicate() -> None:
    """The hash does not see brightness, the choice does; nor is a frame one where another class appears."""
    day = scene(7)
    night = (day * 0.3).astype(np.uint8)
    table = table_of([look(day, (0,)), look(night, (0,)), look(again(day, 1), (0, 5)), look(again(day, 2), (0,))])

    assert near_duplicates(table).tolist() == [False, False, False, True]


def test_duplicates_fill_a_set_that_would_be_too_small() -> None:
    """Fewer different pictures than asked for: the others come after all."""
    table = table_of([look(again(scene(1), i)) for i in range(6)] + [look(scene(2))])

    assert sorted(chosen(table, 4))[-1] == 6
    assert len(set(chosen(table, 4))) == 4
    assert sorted(diverse(table, 4, 0, SPEC, near_duplicates(table))) == list(range(7))


def test_rare_classes_small_objects_and_empty_scenes_are_there() -> None:
    """Class 9 in 2 of 200 pictures, small objects in 5, nothing in 8: a set of 16 has each, with any seed."""
    looks = [look(scene(i), (0,), 0.5) for i in range(185)]
    looks += [look(scene(i), (0, 9), 0.5) for i in range(200, 202)]
    looks += [look(scene(i), (0,), 0.01) for i in range(300, 305)]
    looks += [look(scene(i)) for i in range(400, 408)]
    table = table_of(looks)

    for seed in range(5):
        rows = set(chosen(table, 16, seed))

        assert rows & {185, 186}, seed
        assert len(rows & set(range(187, 192))) >= 2, seed  # an eighth
        assert 1 <= len(rows & set(range(192, 200))) <= 4, seed  # at most a quarter


def test_the_spread_reaches_the_ends() -> None:
    """Of 100 pictures in the middle, one dark, one bright and one colourful: the three are among the first five."""
    table = table_of(
        [look(np.full((40, 60, 3), 120 + i % 7, np.uint8)) for i in range(100)]
        + [look(np.full((40, 60, 3), value, np.uint8)) for value in (5, 250)]
        + [look(np.full((40, 60, 3), (0, 0, 230), np.uint8))]
    )

    order = diverse(table, 5, 0, SPEC, np.zeros(103, bool))

    assert {100, 101, 102} < set(order[:5])


def test_sizes_are_those_in_the_input() -> None:
    """A tenth of 1280 x 640: letterboxed into 640 it is 143 pixels wide, large; stretched into 64, small."""
    table = table_of([look(np.zeros((640, 1280, 3), np.uint8), (0,), 0.1)])

    assert object_sizes(table, InputSpec((640, 640))).tolist() == [2]
    assert object_sizes(table, InputSpec((64, 64), "stretch")).tolist() == [0]


# --- the scan and its cache ------------------------------------------------------------------------------------------


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    """Forty pictures and one that cannot be read."""
    paths = [write(tmp_path / "in" / f"{i:02d}.jpg", scene(i, (64, 48))) for i in range(40)]
    paths.append(tmp_path / "in" / "99.jpg")
    paths[-1].write_bytes(b"")
    return [Item(path, str(path), PurePosixPath(path.name)) for path in paths]


def looked(items: list[Item], monkeypatch: pytest.MonkeyPatch) -> tuple[Table, int]:
    """A scan, and how many pictures were opened."""
    opened: list[str] = []

    def watch(targets: Any) -> Any:
        opened.extend(path for path, _ in targets)
        return look_at_targets(targets)

    monkeypatch.setattr(scan_module, "look_at_targets", watch)
    with Workers(3) as workers:
        return scan(items, Threads(workers), Progress()), len(opened)


def test_a_second_run_opens_nothing(items: list[Item], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a picture or a label file that has changed is looked at again."""
    first, opened = looked(items, monkeypatch)
    again, reopened = looked(items, monkeypatch)

    assert (opened, reopened) == (41, 0)
    np.testing.assert_array_equal(first.values, again.values)
    np.testing.assert_array_equal(first.phash, again.phash)
    assert first.reasons == again.reasons == {40: "the file is empty"}

    write(items[3].path, scene(77))
    items[5].path.with_suffix(".txt").write_text("1 0.5 0.5 0.1 0.1\n")
    changed, reopened = looked(items, monkeypatch)
    assert reopened == 2
    assert changed.object_row.tolist() == [5]


def test_an_interrupted_scan_goes_on(items: list[Item], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was seen before Ctrl-C is not looked at again."""

    class Interrupted(Threads):
        def look(self, groups: Any) -> Any:
            for number, result in super().look(groups):
                if number == 1:
                    raise KeyboardInterrupt
                yield number, result

    with pytest.raises(KeyboardInterrupt), Workers(1) as workers:
        scan(items, Interrupted(workers), Progress())

    assert looked(items, monkeypatch)[1] == 41 - scan_module.CHUNK


def test_a_cache_that_cannot_be_used_costs_time_only(
    items: list[Item], cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not a database, or a folder that cannot be made: a word, and the same table."""
    cache.parent.mkdir(parents=True)
    cache.write_bytes(b"not a database" * 100)

    assert looked(items, monkeypatch)[1] == 41
    monkeypatch.setenv("XDG_CACHE_HOME", os.devnull)
    assert looked(items, monkeypatch)[1] == 41


def test_a_cache_knows_by_size_and_time(cache: Path, tmp_path: Path) -> None:
    """A name without the same stamp is unknown; a missing file has no stamp."""
    path = str(write(tmp_path / "a.png"))
    with Cache(cache) as first:
        first.remember([(path, stamp(path), b"seen"), ("gone", stamp("gone"), "reason")])
    with Cache(cache) as second:
        assert second.known([(path, stamp(path)), (path, "1 1"), ("gone", None)]) == {0: b"seen"}


# --- whole sets ------------------------------------------------------------------------------------------------------


def make(source: Path, out: Path, **changes: Any) -> dict[str, Any]:
    """A diverse set."""
    found = find_sources([str(source)], None, out)
    request = SetRequest(str(source), out, SPEC, 8, "diverse", 0, "png", 2, names=found.names, val=found.val)
    for name, value in changes.items():
        object.__setattr__(request, name, value)
    return make_set(request, found.items)


def test_coverage_says_what_is_lacking(cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Dark, few, a class without objects, a picture that also stands in val: each in the manifest and on stderr."""
    caplog.set_level(logging.INFO, "hefkit")
    for i in range(10):
        write(tmp_path / "d" / "images" / "train" / f"{i}.png", (scene(i, (64, 64)) * 0.2).astype(np.uint8))
        label = tmp_path / "d" / "labels" / "train" / f"{i}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(f"{i % 2} 0.5 0.5 0.4 0.4\n")
    val = tmp_path / "d" / "images" / "val"
    val.mkdir()
    for i in range(10):
        (val / f"copy{i}.png").write_bytes((tmp_path / "d" / "images" / "train" / f"{i}.png").read_bytes())
    (tmp_path / "d" / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat, dog, bird]\n")

    manifest = make(tmp_path / "d" / "data.yaml", tmp_path / "out")

    coverage = manifest["coverage"]
    assert coverage["in_val"] == 8
    assert coverage["dataset"]["classes"] == {"0": 5, "1": 5}
    assert coverage["dataset"]["pictures"] == 10 and coverage["selection"]["pictures"] == 8
    assert coverage["selection"]["without_objects"] == 0
    words = " | ".join(coverage["notes"])
    for part in ("all pictures are dark", "no object of 1 class (bird)", "only 8 pictures", "8 of 8", "one resolution"):
        assert part in words
    assert all(note in caplog.text for note in coverage["notes"])
    assert cv2.imread(str(tmp_path / "out" / "coverage.png")) is not None


def test_classes_that_the_set_lacks_are_named() -> None:
    """More classes than pictures: the sentence names some and counts the others."""
    every = table_of([look(scene(i), (i,)) for i in range(20)])

    warnings, _ = notes(figures(every.rows([3, 4]), SPEC), figures(every, SPEC), {0: "zero"}, 0, 0)

    assert any("lacks 18 classes (zero, class 1, class 2, class 5" in text for text in warnings)
    assert any("and 10 more" in text for text in warnings)


def test_several_sources_make_one_set(cache: Path, tmp_path: Path) -> None:
    """Two folders, one named twice: every file once."""
    for i in range(3):
        write(tmp_path / "a" / f"{i}.jpg", scene(i))
        write(tmp_path / "b" / f"{i}.jpg", scene(10 + i))

    found = find_sources([str(tmp_path / name) for name in ("a", "b", "a")], None, tmp_path / "out")

    assert [item.source for item in found.items] == [str(tmp_path / d / f"{i}.jpg") for d in "ab" for i in range(3)]


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Forty frames: five scenes, each shown for eight frames."""
    path = tmp_path / "walk.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (160, 96))  # type: ignore[attr-defined]
    for i in range(40):
        writer.write(again(scene(i // 8, (160, 96)), i))
    writer.release()
    return path


@pytest.mark.parametrize("file_format", ["png", "npy"])
@pytest.mark.parametrize("select", ["diverse", "random", "first"])
def test_frames_of_a_video(cache: Path, tmp_path: Path, video: Path, select: str, file_format: str) -> None:
    """`diverse` finds the five scenes; the pixels are those of the frames that the manifest names."""
    manifest = make(video, tmp_path / "out", count=5, select=select, file_format=file_format)

    names = [image["source"] for image in manifest["images"]]
    numbers = [int(name.removeprefix(f"{video} frame ")) for name in names]
    scenes = {number // 8 for number in numbers}
    assert {"diverse": scenes == set(range(5)), "first": set(numbers) == set(range(5)), "random": True}[select]
    capture = cv2.VideoCapture(str(video))
    frames = [capture.read()[1] for _ in range(40)]
    for index, number in enumerate(numbers):
        if file_format == "png":
            tensor = cv2.imread(str(tmp_path / "out" / f"calib_{index:04d}.png"))[..., ::-1]
        else:
            tensor = np.load(tmp_path / "out" / "calib_set.npy")[index]
        expected = cv2.resize(frames[number], (64, 38))[..., ::-1]
        np.testing.assert_array_equal(tensor[13:51], expected)
    assert {(image["width"], image["height"]) for image in manifest["images"]} == {(160, 96)}
    assert len({image["sha256"] for image in manifest["images"]}) == 1  # of the video


def test_bccd_has_every_class_with_sixteen(cache: Path, shared: Path, tmp_path: Path) -> None:
    """Platelets are in two of three pictures only; the smallest sets have them too."""
    source = shared / "datasets" / "bccd" / "data.yaml"
    for count in (4, 16):
        manifest = make(source, tmp_path / str(count), count=count)
        assert set(manifest["coverage"]["selection"]["classes"]) == {"0", "1", "2"}


def test_noise_of_every_kind_has_finite_numbers() -> None:
    """One pixel, a line, black, white: no division by zero anywhere."""
    pictures: list[np.ndarray] = [
        np.zeros((1, 1, 3), np.uint8), np.zeros((1, THUMBNAIL, 3), np.uint8), np.full((9, 9, 3), 255, np.uint8),
    ]  # fmt: skip
    for picture in [*pictures, noise(40, 30)]:
        assert np.isfinite(look(picture).values).all()
