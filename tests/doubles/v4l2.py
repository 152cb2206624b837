"""A strict double of USB cameras: the kernel's answers about /dev/videoN, and OpenCV's V4L2 capture of them.

Its rules come from OpenCV's cap_v4l.cpp (4.6 to 5) and the kernel's videodev2.h: number and size of each ioctl; each
pixel format has its own sizes and rates; width and height take effect only together; the rate cannot be set while it
streams; the buffers have one owner; every failure is the same silent False.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest

QUERYCAP, REQBUFS = 0x80685600, 0xC0145608
CAPTURE, META_CAPTURE, DEVICE_CAPS = 0x1, 0x800000, 0x80000000
SELECT_S = 0.01  # in the place of OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT
MJPG, YUYV = (int.from_bytes(code, "little") for code in (b"MJPG", b"YUYV"))

Formats = dict[int, dict[tuple[int, int], int]]  # FOURCC -> size -> the highest rate
WEBCAM: Formats = {
    YUYV: {(640, 480): 30, (1280, 720): 10},
    MJPG: {(640, 480): 30, (1280, 720): 30, (1920, 1080): 30},
}


@dataclass
class Node:
    """One /dev/videoN, and its faults."""

    bus: str = "usb-0000:01:00.0-1.3"
    driver: str = "uvcvideo"
    caps: int = CAPTURE
    formats: Formats = field(default_factory=lambda: WEBCAM)
    mode: int = 0o660  # 0: this user may not open it
    video: bool = True  # False: it does not know the ioctls
    busy: bool = False
    pictures: float = float("inf")  # after so many nothing comes
    damaged: tuple[int, ...] = ()  # of them, JPEGs that cannot be decoded
    hangs: threading.Event | None = None  # opening it takes until then
    owner: Capture | None = None
    opened: int = 0  # times OpenCV opened it


class Machine:
    """The nodes of a machine; a test unplugs a camera by deleting its node."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}

    def plug(self, path: str, **facts: Any) -> Node:
        self.nodes[path] = Node(**facts)
        return self.nodes[path]

    # --- the kernel ---

    def open(self, path: str, flags: int) -> int:
        assert flags & os.O_RDWR and flags & os.O_NONBLOCK
        if path not in self.nodes:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        if not self.nodes[path].mode:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        self._handles = [*getattr(self, "_handles", []), path]
        return 1000 + len(self._handles) - 1

    def close(self, handle: int) -> None:
        assert self._handles[handle - 1000]
        self._handles[handle - 1000] = ""

    def ioctl(self, handle: int, request: int, argument: bytearray) -> int:
        node = self.nodes[self._handles[handle - 1000]]
        if not node.video:
            raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))
        size = request >> 16 & 0x3FFF
        assert len(argument) == size, f"the kernel would write {size} bytes into {len(argument)}"
        if request == QUERYCAP:
            facts = (node.driver.encode(), b"HD Camera", node.bus.encode(), 0x060100)
            argument[:] = struct.pack("=16s32s32sIII12x", *facts, CAPTURE | META_CAPTURE | DEVICE_CAPS, node.caps)
        else:
            assert request == REQBUFS and struct.unpack("=IIIII", argument)[:3] == (0, 1, 1)
            if node.busy or node.owner is not None:
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return 0

    def handles_left(self) -> list[str]:
        return [path for path in getattr(self, "_handles", []) if path]


class Capture:
    """cv2.VideoCapture(path, cv2.CAP_V4L2)."""

    machine: ClassVar[Machine]

    def __init__(self, path: str, backend: int) -> None:
        assert type(path) is str and backend == cv2.CAP_V4L2, "any other backend would be tried as well"
        self._node: Node | None = None
        node = self.machine.nodes.get(path)
        if node is None or not node.mode or not node.caps & CAPTURE:
            return
        node.opened += 1
        if node.hangs is not None:
            node.hangs.wait(30)
        if node.busy or node.owner is not None:
            return
        self._path, self._node, node.owner = path, node, self
        self._format = next(iter(node.formats))
        self._size, self._wanted = (640, 480), (0, 0)
        self._fps, self._buffers, self._streams, self._read = 30, 4, False, 0

    def isOpened(self) -> bool:
        return self._node is not None

    def set(self, prop: int, value: float) -> bool:
        node = self._node
        if node is None:
            return False
        if prop == cv2.CAP_PROP_FPS and self._streams:
            return False  # VIDIOC_S_PARM: busy
        self._streams = False
        if prop == cv2.CAP_PROP_FOURCC:
            if int(value) not in node.formats:
                return False
            self._format = int(value)
        elif prop in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT):
            wide = prop == cv2.CAP_PROP_FRAME_WIDTH
            self._wanted = (int(value), self._wanted[1]) if wide else (self._wanted[0], int(value))
            if 0 in self._wanted:
                return True
            self._size, self._wanted = self._wanted, (0, 0)
        elif prop == cv2.CAP_PROP_FPS:
            self._fps = int(value)
        elif prop == cv2.CAP_PROP_BUFFERSIZE:
            if not 1 <= value <= 10:
                return False
            self._buffers = int(value)
        else:
            raise AssertionError(f"V4L2 has no property {prop}")
        self._grant(node)
        return True

    def _grant(self, node: Node) -> None:
        """Choose the nearest size of the pixel format; a rate that was lowered stays low."""
        sizes = node.formats[self._format]
        self._size = min(sizes, key=lambda size: abs(size[0] - self._size[0]) + abs(size[1] - self._size[1]))
        self._fps = min(self._fps, sizes[self._size])

    def get(self, prop: int) -> float:
        if self._node is None:
            return 0.0
        return {
            cv2.CAP_PROP_FOURCC: float(self._format),
            cv2.CAP_PROP_FRAME_WIDTH: float(self._size[0]),
            cv2.CAP_PROP_FRAME_HEIGHT: float(self._size[1]),
            cv2.CAP_PROP_FPS: float(self._fps),
            cv2.CAP_PROP_BUFFERSIZE: float(self._buffers),
        }[prop]

    def read(self) -> tuple[bool, np.ndarray | None]:
        if self._node is None or self._path not in self.machine.nodes:
            return False, None  # VIDIOC_DQBUF: no such device
        self._streams = True
        if self._read >= self._node.pictures:
            time.sleep(SELECT_S)
            return False, None
        self._read += 1
        if self._read - 1 in self._node.damaged:
            return False, None
        return True, np.full((self._size[1], self._size[0], 3), (self._read - 1) % 256, np.uint8)

    def release(self) -> None:
        if self._node is not None:
            self._node.owner = None
        self._node = None


@contextmanager
def plugged(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A machine that has only the plugged nodes, for hefkit.cameras.v4l2 and for OpenCV."""
    from hefkit.cameras import v4l2

    machine = Machine()
    Capture.machine = machine
    kernel = type("os", (), {name: getattr(os, name) for name in ("O_RDWR", "O_NONBLOCK", "O_CLOEXEC")})
    kernel.open, kernel.close = staticmethod(machine.open), staticmethod(machine.close)  # type: ignore[attr-defined]
    monkeypatch.setattr(v4l2, "os", kernel)
    monkeypatch.setattr(v4l2.fcntl, "ioctl", machine.ioctl)
    monkeypatch.setattr(Path, "glob", lambda self, pattern: (Path(path) for path in machine.nodes))
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    yield machine
    assert not machine.handles_left(), "a node was left open"
