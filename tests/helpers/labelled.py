"""A small labelled dataset, and engines that find given boxes in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hefkit.detect.engine import Engine
from tests.helpers.fake_engine import FakeEngine, engine_that_finds
from tests.helpers.pictures import noise, write

BOX = (12.0, 12.0, 44.0, 44.0)  # of class 1, in every picture of 64 x 64
LABEL = "1 0.4375 0.4375 0.5 0.5\n"


def dataset(folder: Path, count: int = 4, label: str = LABEL, names: str = "[car, drone, bird]") -> Path:
    """`count` pictures of noise, each with the object BOX; the path of its data.yaml."""
    for i in range(count):
        write(folder / "images" / "val" / f"{i}.png", noise(64, 64, i))
        (folder / "labels" / "val").mkdir(parents=True, exist_ok=True)
        (folder / "labels" / "val" / f"{i}.txt").write_text(label)
    path = folder / "data.yaml"
    path.write_text(f"path: .\nval: images/val\nnames: {names}\n")
    return path


@contextmanager
def opened(engines: Mapping[str, FakeEngine], path: Path) -> Iterator[Engine]:
    """What `validate` is given: the file's name chooses the engine."""
    with engines[path.name] as engine:
        yield engine


def float_engine() -> FakeEngine:
    """Finds BOX."""
    return engine_that_finds((1, 0.9, BOX))


def int8_engine(score: float = 0.8, box: tuple[float, float, float, float] = BOX, class_id: int = 1) -> FakeEngine:
    """Finds it too, or what it is told to find."""
    return engine_that_finds((class_id, score, box), kind="emulated")
