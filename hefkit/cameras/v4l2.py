"""Ask the kernel about /dev/videoN, without OpenCV: what it is, and whether another program uses it. Linux only.

Numbers and layouts come from the kernel's header videodev2.h; they are the same on 32 and 64 bit.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

QUERYCAP = 0x80685600  # _IOR('V', 0, struct v4l2_capability)
CAPABILITY = struct.Struct("=16s32s32sIII12x")  # driver, card, bus_info, version, capabilities, device_caps
CAP_VIDEO_CAPTURE = 0x00000001
CAP_DEVICE_CAPS = 0x80000000  # device_caps describes this node, capabilities the whole device

REQBUFS = 0xC0145608  # _IOWR('V', 8, struct v4l2_requestbuffers)
REQUEST = struct.Struct("=IIIII")  # count, type, memory, capabilities, flags
TYPE_VIDEO_CAPTURE, MEMORY_MMAP = 1, 1

LOOPBACK = "v4l2 loopback"  # a driver for virtual cameras: a program gives their pictures


class Device(NamedTuple):
    """One node under /dev."""

    path: str
    card: str  # the maker's name
    usb: bool  # on the USB bus, or a loopback; the Pi's own video nodes are neither
    captures: bool  # delivers pictures; a webcam's second node, for metadata, does not


def video_nodes() -> list[str]:
    """All nodes, ordered by number: /dev/video0, /dev/video2, /dev/video10."""
    names = (path.name for path in Path("/dev").glob("video*"))
    numbers = sorted(int(name[5:]) for name in names if re.fullmatch(r"video[0-9]+", name))
    return [f"/dev/video{number}" for number in numbers]


def query(path: str) -> Device:
    """Ask what a node is.

    Raises:
        OSError: it does not exist, this user may not open it, or it is not a video device.
    """
    with _opened(path) as handle:
        answer = bytearray(CAPABILITY.size)
        fcntl.ioctl(handle, QUERYCAP, answer)
    driver, card, bus, _, all_caps, node_caps = CAPABILITY.unpack(answer)
    caps = node_caps if all_caps & CAP_DEVICE_CAPS else all_caps
    usb = _text(bus).startswith("usb") or _text(driver) == LOOPBACK
    return Device(path, _text(card), usb, bool(caps & CAP_VIDEO_CAPTURE))


def is_busy(path: str) -> bool:
    """Whether another program has the camera's buffers. Asking for zero buffers changes nothing."""
    try:
        with _opened(path) as handle:
            fcntl.ioctl(handle, REQBUFS, bytearray(REQUEST.pack(0, TYPE_VIDEO_CAPTURE, MEMORY_MMAP, 0, 0)))
    except OSError as exc:
        return exc.errno == errno.EBUSY
    return False


@contextmanager
def _opened(path: str) -> Iterator[int]:
    handle = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("utf-8", "replace")
