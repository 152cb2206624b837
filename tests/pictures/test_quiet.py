"""What OpenCV, libpng and libjpeg print stays off the terminal; what others print does not."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from hefkit.pictures import quiet
from hefkit.pictures.header import UnreadableImage
from hefkit.pictures.read import decode_image
from tests.conftest import ROOT
from tests.helpers.pictures import encode, noise
from tests.helpers.waiting import wait_for

JPEG, PNG = encode(noise(40, 30), ".jpg"), encode(noise(40, 30), ".png")
SCAN = JPEG.index(b"\xff\xda") + 100
PIXELS = PNG.index(b"IDAT") + 40


@pytest.fixture(autouse=True)
def no_decoder() -> None:
    """A reader or a camera that an earlier test has left may still be decoding, until its own time limit."""
    wait_for(lambda: not [t for t in threading.enumerate() if t.name.startswith(("reader", "call ", "grabber"))], 40)


def chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")


# what libjpeg and libpng print of these, in the releases tried: see test_the_libraries_would_print
NOISY = {
    "bytes before the end of a JPEG": JPEG[:-2] + bytes(9) + JPEG[-2:],
    "a JPEG with damaged codes": JPEG[:SCAN] + b"\xfe" * 60 + JPEG[SCAN + 60 :],
    "a JPEG that lacks its end": JPEG[: len(JPEG) // 2] + b"\xff\xd9",
    "a PNG with a damaged profile": PNG[:33] + chunk(b"iCCP", b"x\0\0" + zlib.compress(b"no profile")) + PNG[33:],
    "a PNG with a wrong checksum": PNG[:33] + chunk(b"tEXt", b"a\0b")[:-1] + b"!" + PNG[33:],
    "a PNG with damaged pixels": PNG[:PIXELS] + b"\xff" * 60 + PNG[PIXELS + 60 :],
}


def decode_all() -> None:
    """Decode each picture, or be refused."""
    for data in NOISY.values():
        with contextlib.suppress(UnreadableImage):
            decode_image(data)


def test_the_libraries_would_print(capfd: pytest.CaptureFixture[str]) -> None:
    """Without hefkit around it OpenCV prints raw lines of both libraries; else the next tests would show nothing."""
    for data in NOISY.values():
        with contextlib.suppress(cv2.error):
            cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)

    printed = capfd.readouterr().err
    assert "Corrupt JPEG data" in printed and "libpng" in printed


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing reaches file descriptor 2, from any of several threads."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: decode_all(), range(8)))

    assert capfd.readouterr().err == ""


def test_what_others_print(capfd: pytest.CaptureFixture[str]) -> None:
    """Python prints also meanwhile; C code prints again afterwards, also after nested blocks and errors."""
    libc = ctypes.CDLL(None)
    perror = lambda: libc.perror(b"from C")  # noqa: E731
    with contextlib.suppress(ZeroDivisionError), quiet.quiet_codecs():
        with quiet.quiet_codecs():
            perror()
        perror()
        os.write(2, b"from Python\n")
        raise ZeroDivisionError
    assert capfd.readouterr().err == "from Python\n"
    perror()

    assert capfd.readouterr().err.startswith("from C: ")


@pytest.mark.parametrize("asked", ["", "WARNING"])
def test_messages_of_opencv(asked: str, tmp_path: Path) -> None:
    """All are left out, unless OPENCV_LOG_LEVEL asks for them."""
    (tmp_path / "a.jpg").write_bytes(NOISY["bytes before the end of a JPEG"])
    program = (
        "import sys, cv2; from hefkit.pictures.read import read_image; "
        "cv2.VideoCapture('/nonexistent.mp4', cv2.CAP_V4L2); cv2.imread('/nonexistent.png'); read_image(sys.argv[1])"
    )
    environment = {"PATH": "/usr/bin:/bin", **({"OPENCV_LOG_LEVEL": asked} if asked else {})}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "a.jpg")],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    assert done.returncode == 0
    assert ("WARN" in done.stderr, "Corrupt JPEG" in done.stderr) == (bool(asked),) * 2
    assert bool(done.stderr) == bool(asked)
