"""Memory that HailoRT reads and writes: laid out and checked by us, because HailoRT itself compares nothing but bytes.

A buffer of a wrong size is noticed by `run_async` alone, which then shuts the model down for good (HailoRT 4.23,
net_flow/pipeline/infer_model.cpp).
"""

from __future__ import annotations

import math
import mmap

import numpy as np


def page_aligned(shape: tuple[int, ...]) -> np.ndarray:
    """Zeroed uint8 that begins at a page (16 KiB on a Pi 5): the DMA need not copy its head.

    The array keeps the pages alive.
    """
    size = math.prod(shape)
    return np.frombuffer(mmap.mmap(-1, max(size, 1)), np.uint8)[:size].reshape(shape)


def checked(array: np.ndarray, shape: tuple[int, ...], dtype: str, name: str) -> np.ndarray:
    """The array itself; ValueError (a bug of ours) where HailoRT would misread it."""
    if array.shape != shape or array.dtype != np.dtype(dtype):
        raise ValueError(f"{name}: expected {shape} {dtype}, got {array.shape} {array.dtype}")
    if not array.flags.c_contiguous or not array.flags.writeable:
        raise ValueError(f"{name}: expected contiguous and writeable memory")
    return array
