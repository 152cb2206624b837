"""The checksum of newer HEFs: our XXH3-64 against numbers and bytes of the real one."""

from __future__ import annotations

import builtins
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hefkit.hef.xxh3 import Xxh3, new_xxh3

# xxhash 4.1.0, xxh3_64 of pattern(length)
XXH3 = [
    (0, 0x2D06800538D394C2),
    (1, 0xC44BDFF4074EECDB),
    (3, 0x3698B80191E625F9),
    (4, 0x2E4AC2F1C52157FC),
    (8, 0x60E1BAA91347A1F2),
    (9, 0x9C88FC32C37B56CB),
    (16, 0x8626370B70D8AC70),
    (17, 0xAA7A5F479409A664),
    (32, 0x1ED9BB5B41379435),
    (33, 0x38FF1A94BB31AC15),
    (65, 0x5D4779001B0690F8),
    (97, 0xC80A1025FFC8C91D),
    (128, 0x040E97756280237A),
    (129, 0xF0F4DC98CE461DFD),
    (144, 0x9BFAE94463011DE1),
    (240, 0x8ACECB90BE72B9C3),
    (241, 0x82D3EBF50A3E9C42),
    (257, 0x83BEFC0D38002E1B),
    (1023, 0xFE812964EF2122C0),
    (1024, 0xE0D9A4F5E97C2B48),
    (1025, 0x378D5047C554941D),
    (1088, 0xC9E71B469DA0AD11),
    (1089, 0x808FFC1743E296F9),
    (2048, 0x6720D1BF7D983F75),
    (2049, 0x5FBCA4F9CEC0D76D),
    (100003, 0x6E8B6AA2E29A7850),
]


def pattern(length: int) -> bytes:
    """Bytes without a short period."""
    i = np.arange(length)
    return ((i * 31 + (i >> 8) * 7) % 251).astype(np.uint8).tobytes()


@pytest.mark.parametrize(("length", "expected"), XXH3)
@pytest.mark.parametrize("piece", [None, 1000, 1024])
def test_xxh3_equals_the_real_one(length: int, expected: int, piece: int | None) -> None:
    """Every branch of the algorithm, at once and in pieces, against numbers of the xxhash package."""
    data = pattern(length)
    hasher = Xxh3()

    for start in range(0, length, piece or length or 1):
        hasher.update(data[start : start + (piece or length)])

    assert hasher.intdigest() == expected


def test_xxh3_byte_by_byte() -> None:
    """Pieces shorter than a stripe, and a digest that is asked for more than once."""
    hasher = Xxh3()
    for value in pattern(1089):
        hasher.update(bytes([value]))

    assert [hasher.intdigest(), hasher.intdigest()] == [0x808FFC1743E296F9] * 2


@given(data=st.binary(max_size=3000), cuts=st.lists(st.integers(0, 3000), max_size=6))
def test_pieces_make_no_difference(data: bytes, cuts: list[int]) -> None:
    """However the bytes come, empty pieces included."""
    at_once, in_pieces = Xxh3(), Xxh3()
    at_once.update(data)
    ends = sorted(min(cut, len(data)) for cut in cuts)
    for start, end in zip([0, *ends], [*ends, len(data)], strict=True):
        in_pieces.update(data[start:end])

    assert in_pieces.intdigest() == at_once.intdigest()


@pytest.mark.parametrize("megabytes", [4, 32])
def test_memory_does_not_grow_with_the_input(megabytes: int) -> None:
    """A few times the size of a piece, for a file as large as a real HEF as well."""
    piece = bytes(1 << 18)
    hasher = Xxh3()
    tracemalloc.start()
    try:
        for _ in range(megabytes * 4):
            hasher.update(piece)
        hasher.intdigest()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 4 << 20


def test_without_the_package_ours_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """`xxhash` is optional."""
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "xxhash":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)

    assert isinstance(new_xxh3(), Xxh3)


def test_the_package_agrees_where_it_is_installed() -> None:
    """All lengths around the limits of the branches."""
    xxhash = pytest.importorskip("xxhash", reason="the xxhash package is optional")
    for length in [*range(0, 1100, 7), 2047, 2048, 2049, 70000]:
        hasher = Xxh3()
        hasher.update(pattern(length))
        assert hasher.intdigest() == xxhash.xxh3_64(pattern(length)).intdigest(), length
