"""Keep what OpenCV and its image libraries print off the terminal: our own errors replace it.

OpenCV itself is silenced when this is imported. But libpng and libjpeg write lines like "libpng warning: iCCP: known
incorrect sRGB profile" and "Corrupt JPEG data: 2 extraneous bytes before marker 0xd9" to C's `stderr`, with some USB
cameras for every frame, and OpenCV has no switch for it. A redirected file descriptor 2 would also hide what Python
and other threads print. So glibc's variable `stderr`, which only C code reads, points to /dev/null while a picture is
decoded. With OPENCV_LOG_LEVEL everything is printed.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
import threading
from collections.abc import Iterator

import cv2

_lock = threading.Lock()
_decoding = [0]  # blocks that are open, in all threads


@contextlib.contextmanager
def quiet_codecs() -> Iterator[None]:
    """Within the block, in any number of threads, libpng and libjpeg print nothing; on Linux with glibc only."""
    found = _c_stderr()
    if found is None:
        yield
        return
    variable, before, nowhere = found
    with _lock:
        _decoding[0] += 1
        variable.value = nowhere
    try:
        yield
    finally:
        with _lock:
            _decoding[0] -= 1
            if not _decoding[0]:
                variable.value = before


@functools.cache
def _c_stderr() -> tuple[ctypes.c_void_p, int | None, int] | None:
    """C's variable `stderr`, its value, and a FILE for /dev/null; None where it cannot or must not be changed."""
    if sys.platform != "linux" or "OPENCV_LOG_LEVEL" in os.environ:
        return None
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):  # in musl it is a constant
        return None
    libc.fopen.restype = ctypes.c_void_p
    nowhere = libc.fopen(os.devnull.encode(), b"w")
    variable = ctypes.c_void_p.in_dll(libc, "stderr")
    return (variable, variable.value, nowhere) if nowhere else None


def _quiet_opencv() -> None:
    holder = getattr(getattr(cv2, "utils", None), "logging", cv2)  # 4.6 has cv2.setLogLevel
    if "OPENCV_LOG_LEVEL" not in os.environ and hasattr(holder, "setLogLevel"):
        holder.setLogLevel(1)  # fatal


_quiet_opencv()
