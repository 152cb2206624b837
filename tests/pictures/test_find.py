"""Image files below a folder: the same list on every machine."""

from __future__ import annotations

from pathlib import Path

from hefkit.pictures.find import find_images


def test_find_images_is_sorted_and_ignores_case(tmp_path: Path) -> None:
    """By relative path with /, as text: the same list on every machine."""
    names = ["b.JPG", "a/z.png", "a/Y.jpeg", "a-b/c.webp", "Z.tif", "c.heic", "d/e/f/g.bmp"]
    for name in [*names, "notes.txt", "a/b.jpg.part", ".hidden.jpg", ".git/x.png", "a/.cache/y.png", "movie.mp4"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    found = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)]

    assert found == sorted(names)


def test_find_images_follows_links_but_not_in_circles(tmp_path: Path) -> None:
    """A linked folder is searched, but each folder only once, and by its direct path if it has one."""
    outside = tmp_path / "outside"
    inside = tmp_path / "inside"
    for path in (outside / "o.jpg", inside / "real" / "r.jpg"):
        path.parent.mkdir(parents=True)
        path.touch()
    (inside / "a_link_to_outside").symlink_to(outside)
    (inside / "a_link_to_real").symlink_to(inside / "real")
    (inside / "real" / "up").symlink_to(inside)
    (inside / "loop.jpg").symlink_to(inside / "loop.jpg")

    found = [path.relative_to(inside).as_posix() for path in find_images(inside)]

    assert found == ["a_link_to_outside/o.jpg", "loop.jpg", "real/r.jpg"]
