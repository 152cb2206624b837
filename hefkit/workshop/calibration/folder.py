"""The folder of a calibration set: names of its files, whether hefkit may write there, which old files it may remove.

Standard library only: an output that we must not touch is refused before numpy and OpenCV are needed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hefkit.errors import UsageError
from hefkit.files import check_writable, entries, existing, explained, is_plain, own_json
from hefkit.pictures.find import COVERAGE, MANIFEST, PREVIEW, iter_images
from hefkit.staging.journal import settle

ARRAY = "calib_set.npy"
FILE_FORMATS = ("png", "npy")
SELECTIONS = ("diverse", "random", "first")
FORMAT = 1  # of the manifest


def picture_names(count: int, file_format: str) -> list[str]:
    """The file of each picture of a set, in order; with npy they share one."""
    if file_format == "npy":
        return [ARRAY] * count
    return [picture_name(i) for i in range(count)]


def picture_name(index: int) -> str:
    """The PNG of one picture."""
    return f"calib_{index:04d}.png"


def check_target(output: Path, sources: Sequence[str], count: int, file_format: str, *, overwrite: bool) -> list[Path]:
    """Refuse an output that cannot or must not be written; returns the files of the old set, which may be removed.

    Raises:
        UsageError: not writable; a SOURCE lies in it; not empty without `overwrite`; it holds pictures or
            files that are not of an old set of ours.
    """
    inside = os.path.realpath(output)
    for source in (s for s in sources if Path(os.path.realpath(s)).is_relative_to(inside)):
        raise UsageError(
            f"the source {source} lies in the output {output}; expected a source outside of it; choose another --output"
        )
    check_writable(output)
    settle(output)
    with explained(output):
        if not output.is_dir() or not entries(output):
            return []
        manifest = read_manifest(output)
        foreign = None if manifest else next(iter_images(output), None)
    if foreign:
        raise UsageError(
            f"{output} holds pictures ({foreign.name}) but no manifest of hefkit, so they may be your photographs; "
            "choose another --output"
        )
    if not overwrite:
        raise UsageError(f"{output} is not empty; choose another --output, or replace the set with --overwrite")
    old = _old_files(output, manifest)
    _check_no_clash(output, old, count, file_format)
    return old


def files_to_replace(output: Path, old: Sequence[Path], count: int, file_format: str) -> list[Path]:
    """The files of the set that is in `output` at the moment of the commit; `old` are those at the start of the run.

    Raises:
        UsageError: another run has made a set since, where there was none; a file has a name that we write.
    """
    manifest = output / MANIFEST
    if manifest.exists() and manifest not in old:
        raise UsageError(
            f"another run has made a set in {output} meanwhile; choose another --output, or replace it with --overwrite"
        )
    now = _old_files(output, read_manifest(output))  # another run may have replaced the set, with other names
    _check_no_clash(output, now, count, file_format)
    return now


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a set that hefkit made; None where there is none."""
    value = own_json(folder / MANIFEST)
    if value.get("format") != FORMAT or not isinstance(value.get("digest"), str):
        return None
    images = value.get("images")
    if not isinstance(images, list) or not all(isinstance(image, dict) for image in images):
        return None
    return value


def _old_files(output: Path, manifest: dict[str, Any] | None) -> list[Path]:
    """The manifest, then the files that it names; without its manifest the folder is not a set any more."""
    if manifest is None:
        return []
    # the names come from a file: only plain ones, so that nothing outside the folder is ever removed
    named = [image.get("file") for image in manifest["images"]]
    names = [name for name in named if is_plain(name) and not name.startswith(".") and not set("/\\") & set(name)]
    paths = [output / name for name in dict.fromkeys([MANIFEST, PREVIEW, COVERAGE, *names])]
    return [path for path in paths if path.is_symlink() or path.is_file()]


def _check_no_clash(output: Path, old: list[Path], count: int, file_format: str) -> None:
    """Refuse where a file that is not of the old set, and therefore stays, has a name that we are going to write."""
    ours = {path.name for path in old}
    for name in (*dict.fromkeys(picture_names(count, file_format)), PREVIEW, COVERAGE, MANIFEST):
        path = output / name
        if name not in ours and (path.is_symlink() or existing(path)):
            raise UsageError(f"{path} exists but is not of the old set; move it away, or choose another --output")
