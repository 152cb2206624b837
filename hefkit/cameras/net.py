"""Network cameras, RTSP and HTTP, through OpenCV's FFmpeg: over TCP, with limits on every wait.

Delay from the camera to `read`, measured on loopback with H.264 at 30 frames a second and a key frame every 2 s:
41 ms with one decoding thread, 140 ms with four, because FFmpeg then holds back one frame for each thread.
`fflags;nobuffer`, often recommended, drops the first key frame: the first picture comes up to 2 s later, and the stream
is not faster afterwards. `flags;low_delay` and `threads;1` among the capture options never reach the decoder.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import TypeVar

import cv2
import numpy as np

from hefkit.cameras.deadline import Late, within
from hefkit.cameras.opencv import STALL_S, CvCamera, read_with_retries, release
from hefkit.cameras.probe import Unreachable, ask, check_server, explain
from hefkit.cameras.source import CameraSource
from hefkit.errors import DeviceError

ASK_S = 1.0  # for each of the three steps of a question to the server
ASK_ALL_S = 3.5  # for the whole question, with the look-up of the host's name
OPEN_S = 3.0  # until an HTTP camera streams
KEY_FRAME_S = 10.0  # until the first picture of an RTSP camera: decoding begins at a key frame
READ_S = STALL_S

OPTIONS = {"rtsp_transport": "tcp", "analyzeduration": "1000000"}  # microseconds; FFmpeg's own default is 5 s
ONE_THREAD_PIXELS = 1920 * 1088  # larger pictures may be too much for one core

SENDER = (
    "no stream comes that OpenCV's FFmpeg can read; start the sender first (on a Pi: rpicam-vid -t 0 --inline -l -o "
    "tcp://0.0.0.0:8888), and check host and port"
)
SHORTER = "let the camera send a key frame every 1 to 2 s, and restart it"

T = TypeVar("T")

# FFmpeg's own messages hold the address with its password; OpenCV reads this when it first opens a stream
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


def open_net(source: CameraSource) -> CvCamera:
    """Open the stream at an address and read its first picture.

    Raises:
        DeviceError: nothing answers, the path or the password is wrong, or no picture comes.
    """
    _set_options()
    # An RTSP camera may need long for a key frame, so first see whether it answers at all. HTTP cameras send MJPEG,
    # where every picture is a key frame; many of them serve one viewer only, so they are not asked first
    if source.kind == "rtsp":
        _asked(source, check_server)
    try:
        capture, first = _opened(source, OPEN_S if source.kind == "http" else KEY_FRAME_S)
    except Late:
        raise DeviceError(_message(source, f"no picture came within {KEY_FRAME_S:g} s; {SHORTER}")) from None
    if first is None and source.kind == "stream":  # a question could take the sender's only connection
        raise DeviceError(_message(source, SENDER))
    if first is None:
        raise DeviceError(_message(source, explain(_asked(source, ask), source.url)))
    return CvCamera(capture, source.name, first, READ_S)


def _asked(source: CameraSource, question: Callable[[str, float], T]) -> T:
    """The server's answer. Raises DeviceError where nothing answers."""
    try:
        return within(ASK_ALL_S, f"{source.name} asking", functools.partial(question, source.url, ASK_S))
    except Unreachable as exc:
        raise DeviceError(_message(source, str(exc))) from None
    except Late:
        why = "its host name is not found, or it answers too slowly; check the network"
        raise DeviceError(_message(source, why)) from None


def _message(source: CameraSource, why: str) -> str:
    return f"the camera {source.name} cannot be opened: {why}"


def _opened(source: CameraSource, seconds: float) -> tuple[cv2.VideoCapture, np.ndarray | None]:
    """The stream and its first picture, which is None where the stream cannot be opened."""
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
    return capture, read_with_retries(capture, seconds) if capture.isOpened() else None


def _capture(source: CameraSource, open_s: float, *, one_thread: bool) -> cv2.VideoCapture:
    parameters = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, int(open_s * 1e3), cv2.CAP_PROP_READ_TIMEOUT_MSEC, int(READ_S * 1e3)]
    if one_thread:
        parameters += [cv2.CAP_PROP_N_THREADS, 1]
    return cv2.VideoCapture(source.url, cv2.CAP_FFMPEG, parameters)


def _can_choose_threads() -> bool:
    """False with OpenCV 4.6, which refuses the parameter, and where the user has chosen the number of threads."""
    return hasattr(cv2, "CAP_PROP_N_THREADS") and "OPENCV_FFMPEG_THREADS" not in os.environ


def _set_options() -> None:
    """Add our options to OPENCV_FFMPEG_CAPTURE_OPTIONS; those that the user has set stay."""
    own = os.environ.get("OPENCV_FFMPEG_CAPTURE_OPTIONS", "")
    given = [option for option in own.split("|") if option]
    names = {option.partition(";")[0] for option in given}
    missing = [f"{name};{value}" for name, value in OPTIONS.items() if name not in names]
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "|".join([*given, *missing])
