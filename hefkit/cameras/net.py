"""Network cameras, RTSP and HTTP, through OpenCV's FFmpeg: over TCP, with limits on every wait.

Measured on loopback, H.264 at 30 frames a second, a key frame every 2 s, from the picture's making to `read`:
decoding on one thread 41 ms, on four 140 ms, for FFmpeg then keeps a frame a thread. `fflags;nobuffer`, often
recommended, throws away the first key frame and so delays the first picture by up to 2 s; the stream is not faster
afterwards. `flags;low_delay` and `threads;1` among the capture options never reach the decoder.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import TypeVar

import cv2
import numpy as np

from hefkit.cameras import probe as netprobe
from hefkit.cameras.deadline import Late, within
from hefkit.cameras.opencv import STALL_S, CvCamera, quiet_opencv, read_patiently, release
from hefkit.cameras.source import CameraSource
from hefkit.errors import DeviceError

ASK_S = 1.0  # for each step of the question whether anybody is there
ASK_ALL_S = 3.5
OPEN_S = 3.0  # for the server to describe its stream
KEY_FRAME_S = 10.0  # for the first picture of a server that has answered: decoding begins at a key frame
READ_S = STALL_S

OPTIONS = {"rtsp_transport": "tcp", "analyzeduration": "1000000"}  # microseconds; FFmpeg's 5 s outlast many key frames
ONE_THREAD_PIXELS = 1920 * 1088  # larger pictures may be too much for one core

SHORTER = "let the camera send a key frame every 1 to 2 s, and restart it"

T = TypeVar("T")

# FFmpeg's own words name the address with its password; read when OpenCV first opens a stream
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


def open_net(source: CameraSource) -> CvCamera:
    """The stream at an address, with its first picture on the way.

    Raises:
        DeviceError: nobody answers, the path or the password is wrong, or no picture comes.
    """
    quiet_opencv()
    _set_options()
    # an RTSP server that answers may take long for a key frame, one that does not is given up soon. Every picture of
    # MJPEG over HTTP is a key frame, and small cameras serve one viewer, so that one is not asked
    if source.kind == "rtsp":
        _answered(source, netprobe.greet)
    try:
        capture, first = _opened(source, KEY_FRAME_S if source.kind == "rtsp" else OPEN_S)
    except Late:
        raise DeviceError(_message(source, f"no picture came within {KEY_FRAME_S:g} s; {SHORTER}")) from None
    if first is None:
        raise DeviceError(_message(source, netprobe.explain(_answered(source, netprobe.ask), source.url)))
    return CvCamera(capture, source.name, first, READ_S)


def _answered(source: CameraSource, question: Callable[[str, float], T]) -> T:
    """What the server says. Raises DeviceError where nobody does."""
    try:
        return within(ASK_ALL_S, f"{source.name} asking", functools.partial(question, source.url, ASK_S))
    except netprobe.Unreachable as exc:
        raise DeviceError(_message(source, str(exc))) from None
    except Late:
        why = "its host name is not found, or it answers too slowly; check the network"
        raise DeviceError(_message(source, why)) from None


def _message(source: CameraSource, why: str) -> str:
    return f"the camera {source.name} cannot be opened: {why}"


def _opened(source: CameraSource, seconds: float) -> tuple[cv2.VideoCapture, np.ndarray | None]:
    """The stream and its first picture, or None and why not is still to be found out."""
    start = functools.partial(_start, source, seconds)
    capture, first = within(seconds + 0.5, source.name, start, undo=lambda started: started[0].release())
    if first is None:
        release(capture, source.name)
    return capture, first


def _start(source: CameraSource, seconds: float) -> tuple[cv2.VideoCapture, np.ndarray | None]:
    capture = _capture(source, seconds, one_thread=_can_choose_threads())
    width, height = capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
    if width * height > ONE_THREAD_PIXELS and _can_choose_threads():
        capture.release()
        capture = _capture(source, seconds, one_thread=False)
    return capture, read_patiently(capture, seconds) if capture.isOpened() else None


def _capture(source: CameraSource, open_s: float, *, one_thread: bool) -> cv2.VideoCapture:
    parameters = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, int(open_s * 1e3), cv2.CAP_PROP_READ_TIMEOUT_MSEC, int(READ_S * 1e3)]
    if one_thread:
        parameters += [cv2.CAP_PROP_N_THREADS, 1]
    return cv2.VideoCapture(source.url, cv2.CAP_FFMPEG, parameters)


def _can_choose_threads() -> bool:
    """Not with OpenCV 4.6, which refuses a parameter that it does not know, and not against the user's own choice."""
    return hasattr(cv2, "CAP_PROP_N_THREADS") and "OPENCV_FFMPEG_THREADS" not in os.environ


def _set_options() -> None:
    """OPENCV_FFMPEG_CAPTURE_OPTIONS: what the user says there stays, ours is added."""
    own = os.environ.get("OPENCV_FFMPEG_CAPTURE_OPTIONS", "")
    given = [option for option in own.split("|") if option]
    names = {option.partition(";")[0] for option in given}
    missing = [f"{name};{value}" for name, value in OPTIONS.items() if name not in names]
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "|".join([*given, *missing])
