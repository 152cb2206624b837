"""The buffers of a slot. The ring itself is tested through the engine, in test_runtime.py."""

from __future__ import annotations

import mmap

import pytest

from hefkit.hailo.ring import checked_buffer, page_aligned


@pytest.mark.parametrize("shape", [(1, 64, 64, 3), (8, 416, 416, 3), (1, 1, 1, 3)])
def test_page_aligned(shape: tuple[int, ...]) -> None:
    """Begins at a page, is contiguous, writeable and zero."""
    array = page_aligned(shape)

    assert array.ctypes.data % mmap.PAGESIZE == 0
    assert array.shape == shape and array.flags.c_contiguous and array.flags.writeable and not array.any()


def test_checked() -> None:
    """A buffer that HailoRT would misread is a bug of ours, and raises before HailoRT sees it."""
    good = page_aligned((4, 4, 3))
    assert checked_buffer(good, (4, 4, 3), "uint8", "x") is good
    for bad in (good[:2], good.view("int8"), good[:, :, ::-1], good.transpose(1, 0, 2)):
        with pytest.raises(ValueError, match=r"^x: expected"):
            checked_buffer(bad, (4, 4, 3), "uint8", "x")
    good.flags.writeable = False
    with pytest.raises(ValueError, match="writeable"):
        checked_buffer(good, (4, 4, 3), "uint8", "x")
