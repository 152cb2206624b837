"""`calib_set.npy`, written picture by picture and read back: the whole array may be larger than the memory."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

import numpy as np

from hefkit.workshop.calibration.stage import damaged

HEADER_BYTES = 128  # of a .npy of format 1.0: 10 bytes, then the description, padded to a multiple of 64


def npy_header(count: int, size: tuple[int, int]) -> bytes:
    """The header of a uint8 array (count, H, W, 3): always HEADER_BYTES long, so that the count can be set at the end.

    The layout is that of numpy.lib.format: magic, version 1.0, length (two bytes), a Python dict, spaces, a line feed.
    """
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({count}, {size[0]}, {size[1]}, 3), }}"
    length = HEADER_BYTES - 10
    return b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little") + text.encode("ascii").ljust(length - 1) + b"\n"


class ArrayFile:
    """A new .npy, for `with`; `append` writes a picture and compares the file with it."""

    def __init__(self, path: Path, size: tuple[int, int]) -> None:
        self._size = size
        self._count = 0
        self._file = open(path, "w+b", buffering=0)  # noqa: SIM115 (closed by __exit__)
        self._file.write(npy_header(0, size))
        self._read = np.empty((*size, 3), np.uint8)

    def append(self, tensor: np.ndarray, source: str) -> None:
        """Add (H, W, 3) uint8 RGB, made from `source`. Raises DataError where the file differs from it."""
        at = HEADER_BYTES + self._count * tensor.nbytes
        left = tensor.reshape(-1).data
        while left:  # a call writes at most 2 GB, and less on a disk that gets full
            left = left[self._file.write(left) :]
        got = os.preadv(self._file.fileno(), [self._read.data], at)
        if got != tensor.nbytes or not _same(self._read, tensor):
            raise damaged(source)
        self._count += 1

    def __enter__(self) -> ArrayFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if kind is None:
                self._file.seek(0)
                self._file.write(npy_header(self._count, self._size))


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays have the same bytes, eight compared at once."""
    a, b = one.reshape(-1), other.reshape(-1)
    whole = a.size & ~7
    return np.array_equal(a[:whole].view(np.uint64), b[:whole].view(np.uint64)) and np.array_equal(a[whole:], b[whole:])
