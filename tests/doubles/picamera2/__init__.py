"""A strict double of picamera2 0.3.36, as far as hefkit uses it; `hardware` is the Pi behind it.

Its rules come from picamera2's source (request.py, picamera2.py): keys and sizes of a configuration; a second stream
that is not larger than the first and not RGB on a Pi 4; controls that the camera has; the byte order of a format's
name; one owner for each camera; buffers that are used again after their request was released; no new exposure while
all buffers are held. A call that would wait forever in the real one is an AssertionError here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import TimeoutError
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import cv2
import numpy as np

RGB = ("RGB888", "BGR888", "XBGR8888", "XRGB8888", "RGB161616", "BGR161616")
YUV = ("YUV420", "YVU420", "NV12", "NV21", "YUYV", "YVYU", "UYVY", "VYUY")
CONTROLS = ("FrameDurationLimits", "NoiseReductionMode", "ExposureTime", "AnalogueGain", "ScalerCrop")


class Platform(Enum):
    """Pi 4 and before, Pi 5."""

    VC4 = 0
    PISP = 1


def black(size_wh: tuple[int, int], exposure: int) -> np.ndarray:
    """A scene: (h, w, 3) uint8 RGB of this size, at the exposure of this number."""
    return np.zeros((size_wh[1], size_wh[0], 3), np.uint8)


@dataclass
class Hardware:
    """The Pi: its cameras and their faults."""

    cameras: list[str] = field(default_factory=lambda: ["/base/axi/pcie@1000120000/rp1/i2c@88000/imx708@1a"])
    scene: Callable[[tuple[int, int], int], np.ndarray] = black
    in_use: set[int] = field(default_factory=set)  # by another process
    opened: set[int] = field(default_factory=set)  # by us
    fails_at: str = ""  # "configure" or "start"
    granted: dict[str, Any] = field(default_factory=dict)  # what libcamera changes in the second stream
    loose_cable: bool = False
    log: list[str] = field(default_factory=list)


hardware = Hardware()


class Picamera2:
    """One camera."""

    platform = Platform.PISP

    def __init__(
        self, camera_num: int = 0, verbose_console: Any = None, tuning: Any = None, allocator: Any = None
    ) -> None:
        self.notifyme_r, self.notifyme_w = os.pipe2(os.O_NONBLOCK)
        self.notifymeread = os.fdopen(self.notifyme_r, "rb")
        self.is_open = self.started = False
        number = self.global_camera_info()[camera_num]["Num"]  # IndexError where there is none
        if number in hardware.in_use | hardware.opened:
            busy = RuntimeError("Failed to acquire camera: Device or resource busy")
            raise RuntimeError("Camera __init__ sequence did not complete.") from busy
        hardware.opened.add(number)
        self._number, self.is_open = number, True
        self._configuration: dict[str, Any] = {}
        self._held: list[CompletedRequest] = []
        self._exposures = 0
        self._waiting = False

    @staticmethod
    def global_camera_info() -> list[dict[str, Any]]:
        cameras = [
            {"Model": name.partition("/")[0], "Location": 2, "Rotation": 180, "Id": name, "Num": number}
            for number, name in enumerate(hardware.cameras)
        ]
        return sorted(cameras, key=lambda camera: ("/usb" not in str(camera["Id"]), camera["Id"]), reverse=True)

    def create_video_configuration(
        self,
        main: dict[str, Any] | None = None,
        lores: dict[str, Any] | None = None,
        raw: dict[str, Any] | None = None,
        transform: Any = None,
        colour_space: Any = None,
        buffer_count: int = 6,
        controls: dict[str, Any] | None = None,
        display: str | None = "main",
        encode: str | None = "main",
        queue: bool = True,
        sensor: dict[str, Any] | None = None,
        use_case: str = "video",
    ) -> dict[str, Any]:
        first = _stream({"format": "XBGR8888", "size": (1280, 720), "preserve_ar": True}, main or {})
        second = {"format": "YUV420", "size": first["size"], "preserve_ar": False}
        return {
            "use_case": use_case,
            "buffer_count": buffer_count,
            "queue": queue,
            "main": first,
            "lores": None if lores is None else _stream(second, lores),
            "controls": {"FrameDurationLimits": (33333, 33333), **(controls or {})},
        }

    def configure(self, camera_config: dict[str, Any]) -> None:
        assert self.is_open, "configured after close"
        if self.started:
            raise RuntimeError("Camera must be stopped before configuring")
        _check_stream(camera_config["main"], "main")
        if camera_config["lores"] is not None:
            _check_stream(camera_config["lores"], "lores")
            _check_second(camera_config["lores"], camera_config["main"], self.platform)
        for name in camera_config["controls"]:
            if ("FrameDurationLimits" if name == "FrameRate" else name) not in CONTROLS:
                raise RuntimeError(f"Control {name} is not advertised by libcamera")
        if hardware.fails_at == "configure":
            raise RuntimeError(f"Configuration failed: {camera_config}")
        granted = {key: dict(camera_config[key]) for key in ("main", "lores") if camera_config[key] is not None}
        if "lores" in granted:
            granted["lores"].update(hardware.granted)
        self._configuration = {**camera_config, **granted}
        self._buffers = [
            {name: np.empty((stream["size"][1], stream["size"][0], 3), np.uint8) for name, stream in granted.items()}
            for _ in range(camera_config["buffer_count"])
        ]

    def camera_configuration(self) -> dict[str, Any]:
        return self._configuration

    def start(self, config: Any = None, show_preview: Any = False) -> None:
        assert self.is_open and self._configuration and config is None
        assert show_preview is not None, "no event loop would run"
        if hardware.fails_at == "start":
            raise RuntimeError("Failed to start camera: Input/output error")
        self.started = True

    def capture_request(self, wait: Any = None, signal_function: Any = None, flush: Any = None) -> CompletedRequest:
        assert self.is_open and self.started, "captured from a camera that is not running"
        assert wait is not True and wait is not None and wait > 0, "this would wait forever when no exposure comes"
        free = [buffers for buffers in self._buffers if all(buffers is not held.buffers for held in self._held)]
        if hardware.loose_cable or not free:
            self._waiting = True
            raise TimeoutError
        buffers = free[self._exposures % len(free)]
        for name, memory in buffers.items():
            memory[...] = _in_memory(self._configuration[name], self._exposures)
        self._exposures += 1
        self._held.append(CompletedRequest(self, buffers))
        return self._held[-1]

    def cancel_all_and_flush(self) -> None:
        self._waiting = False

    def close(self) -> None:
        if not self.is_open:
            return
        assert not self._waiting, "the stop would wait for a capture that never ends"
        hardware.opened.remove(self._number)
        hardware.log.append("closed")
        self.is_open = self.started = False
        self.notifymeread.close()
        os.close(self.notifyme_w)


class CompletedRequest:
    """One exposure, in memory that belongs to the camera."""

    def __init__(self, camera: Picamera2, buffers: dict[str, np.ndarray]) -> None:
        self._camera, self.buffers = camera, buffers
        self._references = 1

    def make_array(self, name: str) -> np.ndarray:
        if self._references < 1 or name not in self.buffers:
            raise RuntimeError(f"Stream {name!r} is not defined")
        return self.buffers[name].copy()

    def release(self) -> None:
        self._references -= 1
        if self._references < 0:
            raise RuntimeError("CompletedRequest: lock now has negative ref_count")
        self._camera._held = [held for held in self._camera._held if held is not self]


def _stream(defaults: dict[str, Any], updates: dict[str, Any]) -> dict[str, Any]:
    valid = ("format", "size", "stride", "preserve_ar")
    for key in updates:
        if key not in valid:
            raise ValueError(f"Bad key {key!r}: valid stream configuration keys are {valid}")
    stream = {**defaults, **updates}
    width, height = stream["size"]
    return {**stream, "size": (width - width % 2, height - height % 2)}


def _check_stream(stream: dict[str, Any], name: str) -> None:
    if stream["format"] not in RGB + YUV:
        raise RuntimeError(f"Bad format {stream['format']} in stream {name}")
    if type(stream["size"]) is not tuple or len(stream["size"]) != 2:
        raise RuntimeError(f"size in {name} stream should be (width, height)")
    if stream["size"][0] % 2 or stream["size"][1] % 2 or min(stream["size"]) < 2:
        raise RuntimeError("width and height should be even")


def _check_second(lores: dict[str, Any], main: dict[str, Any], platform: Platform) -> None:
    if lores["size"][0] > main["size"][0] or lores["size"][1] > main["size"][1]:
        raise RuntimeError("lores stream dimensions may not exceed main stream")
    if platform is Platform.VC4 and lores["format"] not in YUV:
        raise RuntimeError("lores stream must be YUV")


def _in_memory(stream: dict[str, Any], exposure: int) -> np.ndarray:
    """The scene, stretched to the stream's size as the ISP does, in the byte order of the format's name."""
    scene = hardware.scene((1920, 1080), exposure)  # RGB
    scaled = cv2.resize(scene, stream["size"], interpolation=cv2.INTER_AREA)
    orders = {"BGR888": scaled, "RGB888": scaled[..., ::-1]}
    return orders[stream["format"]]
