"""calib_set.npy on the disk: numpy reads it, and a byte that is not as it was written is an error."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hefkit.errors import DataError
from hefkit.pictures.sources import find_items
from hefkit.spec import InputSpec
from hefkit.workshop.calibration.array_file import HEADER_BYTES, ArrayFile, npy_header
from hefkit.workshop.calibration.make import SetRequest, make_set
from tests.helpers.pictures import noise, write


@pytest.mark.parametrize("count", [0, 1, 999_999])
def test_the_header_is_numpy_s(count: int) -> None:
    """Read by numpy itself; always of one length, so that the count can be written last."""
    header = npy_header(count, (8192, 8192))

    assert len(header) == HEADER_BYTES
    file = io.BytesIO(header)
    assert np.lib.format.read_magic(file) == (1, 0)
    assert np.lib.format.read_array_header_1_0(file) == ((count, 8192, 8192, 3), False, np.dtype(np.uint8))
    assert file.tell() == HEADER_BYTES


def test_pictures_come_back(tmp_path: Path) -> None:
    """Odd sizes too; the count is that of the pictures."""
    pictures = [noise(7, 5, seed=i) for i in range(4)]
    with ArrayFile(tmp_path / "a.npy", (5, 7)) as file:
        for picture in pictures:
            file.append(picture, "a")

    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), np.stack(pictures))


@pytest.mark.parametrize("file_format", ["png", "npy"])
def test_what_the_disk_changes_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_format: str) -> None:
    """One bit of one picture: the set is not made, and the picture is named."""
    write(tmp_path / "in" / "a.png", noise(40, 30))
    read_at, read = os.preadv, Path.read_bytes

    def flipped(file: int, buffers: Any, offset: int) -> int:
        count = read_at(file, buffers, offset)
        buffers[0][-1, -1, -1] ^= 1
        return count

    def flipped_file(path: Path) -> bytes:
        data = read(path)
        return data[:-1] + bytes([data[-1] ^ 1]) if path.name.startswith("staged-") else data

    monkeypatch.setattr(os, "preadv", flipped)
    monkeypatch.setattr(Path, "read_bytes", flipped_file)
    request = SetRequest("in", tmp_path / "out", InputSpec((32, 32)), 1, "random", 0, file_format, 1)

    with pytest.raises(DataError, match=r"made from .*a\.png is damaged on the disk"):
        make_set(request, find_items(str(tmp_path / "in")))

    assert not (tmp_path / "out").exists()
