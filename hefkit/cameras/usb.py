"""USB cameras through OpenCV's V4L2: compressed pictures, one buffer.

OpenCV says "not opened" for every fault. So the kernel is asked for the reason, before and after.
"""

from __future__ import annotations

import errno
import functools
import os

import cv2
import numpy as np

from hefkit.cameras.deadline import Late, within
from hefkit.cameras.opencv import CvCamera, read_with_retries, release
from hefkit.cameras.source import CameraSource
from hefkit.cameras.v4l2 import is_busy, query, video_nodes
from hefkit.errors import DeviceError
from hefkit.text import log, one_line

OPEN_S = 4.0  # a webcam takes up to 2 s for its first picture
MJPG = cv2.VideoWriter_fourcc(*"MJPG")  # type: ignore[attr-defined]


def open_usb(source: CameraSource, size_wh: tuple[int, int], fps: float) -> CvCamera:
    """Open the USB camera of SOURCE; it streams when this returns.

    Args:
        source: of kind "usb"; without a path the first camera that delivers a picture.
        size_wh, fps: asked of the camera; if it gives others, a warning says so.

    Raises:
        DeviceError: none is attached, or it may not be opened, is in use, or delivers no picture.
    """
    if source.path is not None:
        return _open(str(source.path), size_wh, fps)
    failures = []
    for device in _usb_devices():
        try:
            return _open(device, size_wh, fps)
        except DeviceError as exc:
            failures.append(exc)
    raise failures[0]


def _usb_devices() -> list[str]:
    """The nodes of attached USB cameras."""
    found, refused = [], []
    nodes = video_nodes()
    for path in nodes:
        try:
            device = query(path)
        except PermissionError:
            refused.append(path)
        except OSError:
            continue
        else:
            found += [path] if device.usb and device.captures else []
    if not found and refused:
        raise DeviceError(_no_permission(refused[0]))
    if not found:
        others = f"none of the video devices here ({len(nodes)}) is one; " if nodes else ""
        raise DeviceError(
            f"no USB camera is attached; {others}expected one that `v4l2-ctl --list-devices` shows; plug it in, or "
            "use the source csi for a camera on the Pi's own connector"
        )
    return found


def _open(path: str, size_wh: tuple[int, int], fps: float) -> CvCamera:
    _check_node(path)
    start = functools.partial(_start, path, size_wh, fps)
    try:
        capture, first = within(OPEN_S, path, start, undo=lambda started: started[0].release())
    except Late:
        raise DeviceError(
            f"the camera {path} has not answered within {OPEN_S:g} s; unplug it and plug it in again; if that does not "
            "help, its driver hangs and the machine must be restarted"
        ) from None
    _log_granted(capture, path, size_wh, fps)
    return CvCamera(capture, path, first)


def _check_node(path: str) -> None:
    """Ask the kernel about the node; raises DeviceError if it is not a camera that this user may open."""
    try:
        device = query(path)
    except FileNotFoundError:
        there = ", ".join(video_nodes()) or "none"
        raise DeviceError(
            f"there is no {path}; video devices here: {there}; is the camera plugged in? the source usb takes the "
            "first one that delivers"
        ) from None
    except PermissionError:
        raise DeviceError(_no_permission(path)) from None
    except OSError as exc:
        raise DeviceError(_broken(path, exc)) from exc
    if not device.captures:
        raise DeviceError(
            f"{path} ({one_line(device.card)}) delivers no pictures: this node of the device is for metadata or "
            "output; use its first node, or the source usb"
        )


def _start(path: str, size_wh: tuple[int, int], fps: float) -> tuple[cv2.VideoCapture, np.ndarray]:
    """Open the camera, set the format, and read a frame to see that it works."""
    capture = cv2.VideoCapture(path, cv2.CAP_V4L2)
    if not capture.isOpened():
        raise DeviceError(_why_not(path))
    # MJPG first: USB 2 carries only 5 to 10 raw pictures a second above 640x480, and a camera offers sizes and rates
    # for each format. One buffer, because frames that wait in a queue are old
    capture.set(cv2.CAP_PROP_FOURCC, MJPG)
    capture.set(cv2.CAP_PROP_FRAME_WIDTH, size_wh[0])
    capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size_wh[1])
    capture.set(cv2.CAP_PROP_FPS, fps)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    first = read_with_retries(capture)
    if first is None:
        release(capture, path)  # before the question: a camera that we hold is busy too
        raise DeviceError(_why_not(path))
    return capture, first


def _why_not(path: str) -> str:
    if is_busy(path):
        return (
            f"the camera {path} is in use by another program; `fuser -v {path}` names it; close it, because only "
            "one program can read a camera"
        )
    return (
        f"the camera {path} can be opened but delivers no picture; expected one within {OPEN_S:g} s; unplug it and "
        "plug it in again, without a hub; `v4l2-ctl --list-formats-ext` shows what it offers"
    )


def _log_granted(capture: cv2.VideoCapture, path: str, size_wh: tuple[int, int], fps: float) -> None:
    got_wh = (int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)))
    got_fps, code = capture.get(cv2.CAP_PROP_FPS), int(capture.get(cv2.CAP_PROP_FOURCC))
    granted = f"{got_wh[0]}x{got_wh[1]} at {got_fps:g} frames a second, {_letters(code)}"
    if got_wh == size_wh and abs(got_fps - fps) < 1 and code == MJPG:
        log.info("%s: %s", path, granted)
    else:
        log.warning("%s gives %s; asked for %dx%d at %g, MJPG", path, granted, *size_wh, fps)


def _letters(code: int) -> str:
    """A FOURCC as text."""
    return one_line(code.to_bytes(4, "little", signed=code < 0).decode("latin-1"))


def _no_permission(path: str) -> str:
    return (
        f"{path} may not be opened by this user; expected a member of the group video; run: "
        "sudo usermod -aG video $USER, and log in again"
    )


def _broken(path: str, exc: OSError) -> str:
    if exc.errno == errno.ENOTTY:
        return f"{path} is not a video device; expected one that `v4l2-ctl --list-devices` shows"
    return f"{path} cannot be opened: {os.strerror(exc.errno or 0)}; unplug the camera and plug it in again"
