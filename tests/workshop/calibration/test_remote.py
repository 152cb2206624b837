"""Pictures in archives and buckets: the same set as from the same pictures in a folder. fsspec is optional."""

from __future__ import annotations

import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hefkit.errors import DataError, ToolchainError
from hefkit.spec import InputSpec
from hefkit.workshop.calibration.make import SetRequest, make_set
from hefkit.workshop.calibration.remote import is_remote, label_url
from hefkit.workshop.calibration.sources import find_sources
from tests.helpers.pictures import noise, write

fsspec = pytest.importorskip("fsspec", reason="fsspec is optional: pip install fsspec")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A YOLO dataset: eight pictures in two splits, one of them damaged, with labels."""
    root = tmp_path / "data"
    for i in range(8):
        place = f"{'train' if i < 6 else 'val'}/{i}"
        write(root / "images" / f"{place}.png", noise(40 + i, 50, seed=i))
        label = root / "labels" / f"{place}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(f"{i % 3} 0.5 0.5 0.2 0.{i + 1}\n")
    (root / "images" / "train" / "broken.jpg").write_bytes(b"not a picture")
    return root


@pytest.fixture
def memory() -> Iterator[Any]:
    """A file system of fsspec that stands for a bucket."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    yield files


def made(source: str, out: Path) -> dict[str, Any]:
    """A diverse set of every picture of the train split."""
    found = find_sources([source], None, out)
    request = SetRequest(source, out, InputSpec((32, 32)), 5, "diverse", 0, "npy", 2, val=found.val)
    return make_set(request, found.items)


@pytest.mark.parametrize("kind", ["zip", "tar", "memory"])
def test_the_same_set_as_from_a_folder(kind: str, photos: Path, tmp_path: Path, memory: Any) -> None:
    """Pictures, order, digest, labels, splits and what is left out do not depend on where the pictures lie."""
    if kind == "memory":
        memory.put(str(photos), "/bucket/data", recursive=True)
        source = "memory://bucket/data"
    else:
        archive = tmp_path / f"data.{kind}"
        with zipfile.ZipFile(archive, "w") if kind == "zip" else tarfile.open(archive, "w") as file:
            for path in sorted(photos.rglob("*.*")):
                name = str(path.relative_to(tmp_path))
                file.write(path, name) if isinstance(file, zipfile.ZipFile) else file.add(path, name)
        source = f"{kind}://data::{archive}"
    local, remote = made(str(photos), tmp_path / "local"), made(source, tmp_path / "remote")

    assert remote["digest"] == local["digest"]
    assert remote["coverage"] == local["coverage"] and sum(remote["coverage"]["selection"]["classes"].values()) == 5
    assert [i["sha256"] for i in remote["images"]] == [i["sha256"] for i in local["images"]]
    assert [s["reason"] for s in remote["skipped"]] == [s["reason"] for s in local["skipped"]] != []
    first = remote["images"][0]["source"]
    assert first.startswith(source.split("::")[0]) and first.endswith(source.partition("::")[2])
    assert not list(tmp_path.glob("memory*"))


def test_a_second_look_is_not_needed(photos: Path, tmp_path: Path, memory: Any, caplog: Any) -> None:
    """The cache knows a picture by its URL, size and time; a changed one is looked at again."""
    memory.put(str(photos), "/bucket/data", recursive=True)
    made("memory://bucket/data/images/train", tmp_path / "one")
    memory.pipe("/bucket/data/images/train/0.png", (photos / "images" / "train" / "1.png").read_bytes() + b" ")
    with caplog.at_level("INFO", "hefkit"):
        made("memory://bucket/data/images/train", tmp_path / "two")

    assert "6 pictures known from earlier runs, 1 to look at" in caplog.text


def test_patterns_and_single_pictures(photos: Path, tmp_path: Path, memory: Any) -> None:
    """A star is allowed in a URL, in an archive as well."""
    memory.put(str(photos), "/bucket/data", recursive=True)

    def sources(source: str) -> list[str]:
        return [item.source for item in find_sources([source], "all", tmp_path / "out").items]

    assert sources("memory://bucket/data/images/val/*.png") == [
        "memory://bucket/data/images/val/6.png", "memory://bucket/data/images/val/7.png",
    ]  # fmt: skip
    assert sources("memory://bucket/data/images/val/7.png") == ["memory://bucket/data/images/val/7.png"]


@pytest.mark.parametrize(
    "source, words",
    [
        ("zip://::gone.zip", "it does not exist"),
        ("memory://nothing", "has no pictures"),
        ("madeup://bucket", "madeup"),
        ("tar://::", "cannot be read"),
    ],
)
def test_wrong_urls(source: str, words: str, tmp_path: Path) -> None:
    """One line that says what is wrong."""
    with pytest.raises(DataError, match=words):
        find_sources([source], None, tmp_path)


@pytest.mark.parametrize(
    "missing, source, words",
    [
        ("fsspec", "s3://bucket/photos", "python3 -m pip install fsspec"),
        ("s3fs", "s3://bucket/photos", "Install s3fs"),
    ],
)
def test_packages_that_are_missing(
    missing: str, source: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fsspec, or what fsspec needs for this kind of URL: a sentence with the package, exit code 5."""
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ToolchainError, match=words):
        find_sources([source], None, tmp_path)


def test_what_is_a_url() -> None:
    """Web pages, cameras and paths are not."""
    assert is_remote("s3://bucket/photos") and is_remote("zip://images::photos.zip")
    for other in ("https://x/y.jpg", "rtsp://cam", "photos", "C:/photos", "/data/a:b"):
        assert not is_remote(other)


def test_label_files_lie_beside() -> None:
    """`images` becomes `labels` inside the archive only."""
    assert label_url("zip://a/images/1.jpg::s3://images/b.zip") == "zip://a/labels/1.txt::s3://images/b.zip"
