"""The drawn dataset of examples/drone: the same seed gives the same bytes, and every box is where its drone is."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hefkit.measure.labels import label_path, read_labels
from tests.conftest import ROOT, Finished, finished

pytestmark = pytest.mark.slow
drawn_once = pytest.mark.xdist_group("drone set")  # one process for both

Run = Callable[..., Finished]
SCRIPT = "examples/drone/make_dataset.py"
SAMPLE = ROOT / "examples" / "drone"
SMALL = 16  # pixels of the longer side


@pytest.fixture(scope="module")
def plans() -> Iterator[ModuleType]:
    """The module that decides what is in a picture."""
    sys.path.insert(0, str(SAMPLE))
    import drone_scenes.plans

    yield drone_scenes.plans
    sys.path.remove(str(SAMPLE))


@pytest.fixture(scope="module")
def pictures(plans: ModuleType) -> ModuleType:
    """The module that draws it."""
    import drone_scenes.pictures

    return drone_scenes.pictures


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def drawn(folder: Path, train: int, val: int, *flags: object) -> Path:
    """The set that the script draws, in a new interpreter: with another seed of `hash`."""
    words = ["--output", folder, "--train", train, "--val", val, "--json", *flags]
    done = finished(SCRIPT, *words, cwd=folder.parent)
    assert (done.code, done.json["pictures"]) == (0, {"train": train, "val": val}), done.err
    return folder


@pytest.fixture(scope="module")
def beginning(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first pictures of the set of the sample; they are only read."""
    return drawn(tmp_path_factory.mktemp("drawn") / "set", 2, 2)


@drawn_once
def test_the_same_seed_gives_the_same_bytes(beginning: Path, tmp_path: Path) -> None:
    """A larger set, drawn by another process, begins with the smaller one; another seed is another set."""
    a, other = (files(drawn(tmp_path / name, 1, 1, *seed)) for name, seed in (("a", ()), ("other", ("--seed", 12))))
    more = files(beginning)

    assert a.items() <= more.items() and (len(a), len(more)) == (5, 9)
    assert all(other[name] != data for name, data in a.items() if name.endswith(".jpg"))
    assert len(set(more.values())) == len(more), "every picture and every label is different"


def test_an_existing_set_is_left_alone(run_script: Run, tmp_path: Path) -> None:
    """A folder with something in it is refused, and still holds what it held."""
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.txt").write_text("mine")

    done = run_script(SCRIPT, "--output", tmp_path / "set", "--train", 1, "--val", 0)

    assert done.code == 2 and "is not empty" in done.errors[0]
    assert files(tmp_path / "set") == {"mine.txt": b"mine"}


@given(st.integers(0, 2**20), st.sampled_from(["train", "val"]), st.integers(0, 10_000))
@settings(max_examples=20)
def test_boxes_are_exact(pictures: ModuleType, plans: ModuleType, seed: int, split: str, index: int) -> None:
    """What covers a pixel is the difference of the same drone before white and before black. The box holds every pixel
    that is covered by a tenth or more, and has one in its first and last row and column."""
    plan = plans.make_plan(seed, split, index)
    near = pictures.scenery(plan)[1] if plan.foreground else None
    nothing, before = seen_through(pictures, dataclasses.replace(plan, drones=()), near)
    assert nothing == ()
    for drone in plan.drones:
        boxes, through = seen_through(pictures, dataclasses.replace(plan, drones=(drone,)), near)
        visible = before - through
        for x1, y1, x2, y2 in boxes:
            inside = visible[y1:y2, x1:x2]
            assert 0 <= x1 < x2 <= plan.size_wh[0] and 0 <= y1 < y2 <= plan.size_wh[1]
            assert min(side.max() for side in (inside[0], inside[-1], inside[:, 0], inside[:, -1])) >= 0.1 - 1e-4
            assert (visible >= 0.1 + 1e-4).sum() == (inside >= 0.1 + 1e-4).sum()


def seen_through(pictures: ModuleType, plan: Any, near: Any) -> tuple[tuple[Any, ...], np.ndarray]:
    """Boxes, and (H, W) the share of the background that is left of each pixel."""
    width, height = plan.size_wh
    black, white = np.zeros((height, width, 3), np.float32), np.ones((height, width, 3), np.float32)
    with mock.patch.object(pictures, "MIN_CONTRAST", 0):  # or its colour would depend on the background
        boxes = pictures.add_drones(black, plan, near)
        assert pictures.add_drones(white, plan, near) == boxes
    return boxes, (white - black).mean(axis=2)


@given(st.integers(0, 2**20), st.integers(0, 10_000))
@settings(max_examples=10)
def test_drones_are_drawn_where_there_is_a_box_and_nowhere_else(
    pictures: ModuleType, plans: ModuleType, seed: int, index: int
) -> None:
    """The picture with drones and the one without differ visibly in every box, and by less than a tenth outside of all;
    each drone has the box that it has alone."""
    plan = plans.make_plan(seed, "train", index)
    background, near = pictures.scenery(plan)  # once: it takes most of the time

    def with_drones(*drones: Any) -> tuple[np.ndarray, tuple[Any, ...]]:
        scene = background.copy()
        return scene, pictures.add_drones(scene, dataclasses.replace(plan, drones=drones), near)

    scene, boxes = with_drones(*plan.drones)
    change = np.abs(scene - with_drones()[0]).max(axis=2)

    alone = [with_drones(drone)[1] for drone in plan.drones]
    assert tuple(box for found in alone for box in found) == boxes
    for x1, y1, x2, y2 in boxes:
        assert change[y1:y2, x1:x2].max() >= 0.1
        change[y1:y2, x1:x2] = 0
    assert change.max() <= 0.1


def test_a_drone_shows_on_any_background(pictures: ModuleType, plans: ModuleType) -> None:
    """Before a flat wall of any brightness, its own as well."""
    for index in range(4):
        plan = plans.make_plan(0, "train", index)
        for level in np.linspace(0, 1, 11, dtype=np.float32):
            scene = np.full((plan.size_wh[1], plan.size_wh[0], 3), level, np.float32)
            for x1, y1, x2, y2 in pictures.add_drones(scene, plan, None):
                assert np.abs(scene[y1:y2, x1:x2] - level).max() >= 0.1, (index, level)


def test_a_box_is_the_outline_of_what_covers(plans: ModuleType) -> None:
    """A layer with 0.1 and more in rows 2-4 and columns 3-7 of a tile at (10, 20); fainter pixels do not count."""
    from drone_scenes.layers import Layer

    alpha = np.zeros((8, 12), np.float32)
    alpha[2, 3], alpha[4, 7], alpha[6, 10] = 0.1, 1.0, 0.09
    layer = Layer(np.zeros((8, 12, 3), np.float32), alpha, 10, 20)

    assert layer.box() == (13, 22, 18, 25)
    assert Layer(layer.colour, np.zeros_like(alpha), 0, 0).box() is None
    assert layer.inside((23, 16)).box() == (13, 22, 14, 23)  # cut off below and at the right
    assert layer.behind(np.ones((100, 100), np.float32)).box() is None


def test_the_set_is_as_hard_as_it_says(plans: ModuleType) -> None:
    """Of 1000 plans: a fifth of the drones below 16 pixels, objects that are not drones in a third of the pictures,
    both classes, every kind and weather, and pictures with nothing to find."""
    made = [plans.make_plan(0, "train", index) for index in range(1000)]
    drones = [drone for plan in made for drone in plan.drones]
    longer = np.array([drone.size for drone in drones])

    assert np.mean(longer < SMALL - 1) >= 0.2  # blur adds less than a pixel to these
    assert longer.min() >= 8 and longer.max() <= 200
    assert np.mean([bool(plan.others) for plan in made]) >= 1 / 3
    assert 0.05 <= np.mean([not plan.drones for plan in made]) <= 0.2
    assert 0.2 <= np.mean([plan.class_id for plan in made]) <= 0.4
    assert {drone.kind for drone in drones} == set(plans.DRONE_KINDS)
    assert {plan.weather for plan in made} == set(plans.WEATHER)
    assert {other.kind for plan in made for other in plan.others} == {"bird", "aeroplane", "lamp", "balloon"}


def boxes_of(folder: Path, split: str) -> list[tuple[Any, np.ndarray]]:
    """(class, sides in pixels) of every label of a split."""
    rows = []
    for picture in sorted((folder / "images" / split).glob("*.jpg")):
        height, width = cv2.imread(str(picture)).shape[:2]
        found = read_labels(label_path(picture), (width, height), 2)
        rows += list(zip(found.class_id.tolist(), found.xyxy[:, 2:] - found.xyxy[:, :2], strict=True))
    return rows


@drawn_once
def test_the_sample_is_the_beginning_of_the_set(beginning: Path) -> None:
    """The 48 committed pictures are the first of what the script draws: labels to the letter, pixels to what another
    release of OpenCV may round otherwise."""
    for split in ("train", "val"):
        for picture in sorted((beginning / "images" / split).glob("*.jpg")):
            committed = SAMPLE / "images" / split / picture.name
            assert label_path(committed).read_bytes() == label_path(picture).read_bytes()
            change = cv2.absdiff(cv2.imread(str(committed)), cv2.imread(str(picture)))
            assert change.mean() < 1.5
    assert (SAMPLE / "data.yaml").read_bytes() == (beginning / "data.yaml").read_bytes()


def test_the_sample_is_small_and_hard() -> None:
    """24 pictures of each split, two megabytes in all; both classes; a fifth of the objects below 16 pixels."""
    sizes = [p.stat().st_size for p in SAMPLE.glob("images/*/*.jpg")]
    assert len(sizes) == 48 and sum(sizes) <= 2_000_000

    for split in ("train", "val"):
        rows = boxes_of(SAMPLE, split)
        assert {class_id for class_id, _ in rows} == {0, 1}
        assert np.mean([sides.max() < SMALL for _, sides in rows]) >= 0.2
