"""The Pi's own camera, against a strict double of picamera2: colours, geometry, and every way it can fail."""

from __future__ import annotations

import functools
import importlib
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hefkit.cameras import csi
from hefkit.cameras.camera import Camera
from hefkit.cameras.csi import isp_size
from hefkit.cameras.open import open_camera
from hefkit.cameras.source import parse_source
from hefkit.detect.decode import DecodeSettings
from hefkit.detect.detector import Detector
from hefkit.detect.preprocess import letterbox, plan
from hefkit.errors import DeviceError
from hefkit.spec import InputSpec
from tests.conftest import ROOT
from tests.helpers.fake_engine import engine_that_finds
from tests.helpers.overdue import join_overdue
from tests.helpers.pictures import in_input

SPEC = InputSpec((640, 640))


@pytest.fixture
def pi(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The double, importable as picamera2, with one camera; `pi.hardware` is what a test changes."""
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "doubles"))
    monkeypatch.delitem(sys.modules, "picamera2", raising=False)
    double = importlib.import_module("picamera2")
    yield double
    assert not double.hardware.opened, "a camera was left open"
    del sys.modules["picamera2"]


@functools.cache
def orange(size_wh: tuple[int, int]) -> np.ndarray:
    """RGB; numpy needs long to fill a picture with three numbers."""
    return np.full((size_wh[1], size_wh[0], 3), (200, 100, 0), np.uint8)


def scene(size_wh: tuple[int, int], exposure: int) -> np.ndarray:
    """RGB: orange, with a blue square at a quarter of the picture; brighter with every exposure."""
    picture = orange(size_wh).copy()
    picture[..., 2] = exposure % 50
    picture[size_wh[1] // 4 : size_wh[1] // 2, size_wh[0] // 4 : size_wh[0] // 2] = (10, 20, 250)
    return picture


def opened(source: str = "csi", spec: InputSpec = SPEC, **options: Any) -> Camera:
    """A camera."""
    return open_camera(parse_source(source), spec, **options)


def test_two_pictures_of_one_exposure(pi: Any) -> None:
    """The large one is B, G, R for OpenCV, the small one R, G, B for the model, of the same moment."""
    pi.hardware.scene = scene
    camera = opened()

    shots = [camera.read() for _ in range(20)]  # three times as many as there are buffers
    camera.close()

    for exposure, shot in enumerate(shots):
        assert shot is not None and shot.small is not None
        assert (shot.picture.shape, shot.small.shape) == ((720, 1280, 3), (360, 640, 3))
        assert shot.picture[0, 0].tolist() == [exposure, 100, 200]
        assert shot.small[0, 0].tolist() == [200, 100, exposure]
        assert shot.picture[270, 480].tolist() == [250, 20, 10]
        assert shot.small[135, 240].tolist() == [10, 20, 250]
    assert camera.name == "csi"


def test_the_detector_is_told_that_the_isp_scales(pi: Any, caplog: pytest.LogCaptureFixture) -> None:
    """`preprocess: isp`, with the size; a Pi 4 says letterbox."""
    with caplog.at_level("INFO", "hefkit"):
        opened().close()
        assert "csi: 1280x720 at 30 frames a second; preprocess: isp (the camera scales to 640x360)" in caplog.text
        caplog.clear()
        pi.Picamera2.platform = pi.Platform.VC4
        opened().close()

    assert "preprocess: letterbox" in caplog.text


def test_a_pi_4_has_no_small_picture(pi: Any) -> None:
    """Its second stream has no RGB; the letterbox scales, as for any other camera."""
    pi.Picamera2.platform = pi.Platform.VC4
    camera = opened()

    shot = camera.read()
    camera.close()

    assert shot is not None and shot.small is None and shot.picture.shape == (720, 1280, 3)


@pytest.mark.parametrize(
    "size_wh, spec, expected",
    [
        ((1280, 720), InputSpec((640, 640)), (640, 360)),
        ((1296, 972), InputSpec((640, 640)), (640, 480)),
        ((1280, 720), InputSpec((384, 640)), (640, 360)),
        ((1280, 720), InputSpec((320, 320)), (320, 180)),
        ((720, 1280), InputSpec((640, 640)), (360, 640)),
        ((1280, 720), InputSpec((415, 415)), (414, 232)),  # 415 x 233: even sizes only
        ((1280, 720), InputSpec((640, 640), "stretch"), (640, 640)),
        ((1280, 720), InputSpec((800, 800), "stretch"), None),  # 800 rows would exceed the picture's 720
        ((1280, 720), InputSpec((415, 415), "stretch"), None),  # an even size would leave a border
        ((640, 360), InputSpec((1280, 1280)), None),  # it cannot enlarge
        ((640, 480), InputSpec((640, 640)), (640, 480)),  # as large as the picture is allowed
    ],
)
def test_sizes_for_the_isp(size_wh: tuple[int, int], spec: InputSpec, expected: tuple[int, int] | None) -> None:
    """The picture's aspect, into the model's input, even, and not larger than the picture."""
    assert isp_size(size_wh, spec) == expected


@given(
    size_wh=st.tuples(st.integers(16, 2000), st.integers(16, 2000)),
    input_hw=st.tuples(st.integers(32, 1280), st.integers(32, 1280)),
    fit=st.sampled_from(["letterbox", "stretch"]),
)
def test_sizes_for_the_isp_follow_the_plan(size_wh: tuple[int, int], input_hw: tuple[int, int], fit: str) -> None:
    """The size is the letterbox's own, less at most one pixel to be even."""
    spec = InputSpec(input_hw, fit)
    planned_h, planned_w = plan(size_wh[::-1], spec).resized_hw

    small_wh = isp_size(size_wh, spec)

    if small_wh is not None:
        assert small_wh[0] % 2 == small_wh[1] % 2 == 0
        assert 0 <= planned_w - small_wh[0] <= 1 and 0 <= planned_h - small_wh[1] <= 1
        assert small_wh[0] <= size_wh[0] and small_wh[1] <= size_wh[1]


@pytest.mark.parametrize("spec", [InputSpec((640, 640)), InputSpec((415, 415)), InputSpec((640, 640), "stretch")])
def test_the_model_is_fed_what_the_letterbox_would_feed(pi: Any, spec: InputSpec) -> None:
    """The tensor made of the small picture and the one made of the large picture show the same thing, in RGB."""
    pi.hardware.scene = scene
    camera = opened(spec=spec)
    shot = camera.read()
    camera.close()
    assert shot is not None and shot.small is not None
    engine = engine_that_finds(size_hw=(64, 64))
    engine.spec = replace(engine.spec, input=spec)
    detector = Detector(engine, DecodeSettings())
    out = np.full((*spec.size, 3), 7, np.uint8)

    transform = detector.prepare(shot.picture, out, shot.small)

    expected, _ = letterbox(shot.picture, spec)
    different = np.abs(out.astype(int) - expected).max(axis=2) > 60
    # only where an edge falls on another pixel: the four sides of the square, and the picture's own border
    assert different.mean() < 0.01
    square = in_input(transform, np.array([[320, 180, 640, 360]]))[0]
    x1, y1, x2, y2 = (int(v) for v in square)
    assert (out[y1 + 2 : y2 - 2, x1 + 2 : x2 - 2] == (10, 20, 250)).all()


def test_what_libcamera_grants_is_looked_at(pi: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A second stream of another size or format than asked for is not taken for what it is not."""
    pi.hardware.granted = {"size": (608, 352)}

    camera = opened()
    shot = camera.read()
    camera.close()

    assert shot is not None and shot.small is None
    assert "the camera scales to 608x352 BGR888, which does not fit; the letterbox scales instead" in caplog.text


def test_the_second_camera(pi: Any) -> None:
    """csi:1 is the second one on the connectors; a USB camera, which libcamera lists too, is not counted."""
    pi.hardware.cameras = ["/base/usb/webcam", "/base/rp1/i2c@88000/imx708@1a", "/base/rp1/i2c@80000/imx477@1a"]

    camera = opened("csi:1")
    assert pi.hardware.opened == {2}
    camera.close()

    with pytest.raises(DeviceError, match=r"there is no camera csi:2: 2 cameras found on the Pi's connectors"):
        opened("csi:2")


def test_no_camera(pi: Any) -> None:
    """None attached, or only a USB camera."""
    pi.hardware.cameras = ["/base/usb/webcam"]

    with pytest.raises(DeviceError, match=r"there is no camera csi: no camera found .* check the cable"):
        opened()


def test_a_camera_in_use(pi: Any) -> None:
    """The cause is at the bottom of picamera2's chain; trying for days uses up no file handles."""
    pi.hardware.in_use = {0}
    before = len(os.listdir("/proc/self/fd"))

    for _ in range(20):
        with pytest.raises(DeviceError, match=r"csi is in use by another program; close it"):
            opened()

    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("step", ["configure", "start"])
def test_a_camera_that_does_not_start(pi: Any, step: str) -> None:
    """libcamera's own words are quoted in one line, and the camera is closed."""
    pi.hardware.fails_at = step
    words = {"configure": "Configuration failed", "start": "Input/output error"}[step]

    with pytest.raises(DeviceError, match=rf"csi cannot be started: .*{words}.*; check the cable"):
        opened()

    assert pi.hardware.log == ["closed"]


def test_a_loose_cable(pi: Any) -> None:
    """No exposure comes: None, a clean close, and a fresh start when it is plugged in again."""
    camera = opened()
    assert camera.read() is not None
    pi.hardware.loose_cable = True
    assert camera.read() is None
    camera.close()
    camera.close()

    pi.hardware.loose_cable = False
    again = opened()
    assert again.read() is not None
    again.close()


def test_buffers_go_back_even_when_a_copy_fails(pi: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is kept would starve the camera."""
    camera = opened()
    real = pi.CompletedRequest.make_array

    def failing(self: Any, name: str) -> np.ndarray:
        raise MemoryError

    for _ in range(8):
        monkeypatch.setattr(pi.CompletedRequest, "make_array", failing)
        with pytest.raises(MemoryError):
            camera.read()
    monkeypatch.setattr(pi.CompletedRequest, "make_array", real)

    assert camera.read() is not None
    camera.close()


def test_a_driver_that_hangs(pi: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening has a limit, and a camera that opens after it is closed again."""
    monkeypatch.setattr(csi, "OPEN_S", 0.1)
    release, closed = threading.Event(), threading.Event()
    start, close = pi.Picamera2.start, pi.Picamera2.close
    monkeypatch.setattr(pi.Picamera2, "start", lambda self: (release.wait(30), start(self)))
    monkeypatch.setattr(pi.Picamera2, "close", lambda self: (close(self), closed.set()))

    for _ in range(2):  # the second attempt does not wait for the first
        with pytest.raises(DeviceError, match=r"csi has not answered within 0\.1 s"):
            opened()
    release.set()
    join_overdue()

    assert closed.is_set() and not pi.hardware.opened


def test_closing_never_raises(pi: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of libcamera at the end is dropped."""
    camera = opened()
    close = pi.Picamera2.close

    def failing(self: Any) -> None:
        close(self)
        raise RuntimeError("Unable to stop preview.")

    monkeypatch.setattr(pi.Picamera2, "close", failing)
    camera.close()


@pytest.mark.parametrize(
    "broken, words",
    [
        ("raise ImportError('No module named libcamera')", "needs picamera2 .*sudo apt install python3-picamera2"),
        (
            "raise ValueError('numpy.dtype size changed, may indicate binary incompatibility')",
            "binary incompatibility.*pip uninstall numpy",
        ),
    ],
    ids=["missing", "another numpy"],
)
def test_picamera2_that_cannot_be_imported(
    broken: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not installed, or pip has put another numpy before the one it was built with."""
    (tmp_path / "picamera2.py").write_text(broken)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "picamera2", raising=False)

    with pytest.raises(DeviceError, match=words):
        opened()
