"""Cameras on the Pi's own connector, through picamera2. On a Pi 5 the ISP also scales the picture for the model.

The names of libcamera's formats mean a little-endian word: 'RGB888' lies in memory as B, G, R, and 'BGR888' as R, G, B
(picamera2 0.3.36, request.py). The second stream may be RGB on a Pi 5 (PiSP) only. On a Pi 4 (VC4) it must be YUV420
(picamera2.py, check_camera_config), so there the letterbox scales, as for every other camera.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import os
from typing import Any

from hefkit.cameras.camera import Shot
from hefkit.cameras.deadline import Late, within
from hefkit.cameras.source import CameraSource
from hefkit.detect.preprocess import plan
from hefkit.errors import DeviceError
from hefkit.spec import InputSpec
from hefkit.text import counted, log, one_line

OPEN_S = 5.0  # an idle Pi 5 takes 1 s
READ_S = 3.0
CLOSE_S = 2.0
BUFFERS = 6  # frames; with fewer than 4 the camera waits for us
PICTURE, SMALL = "RGB888", "BGR888"  # in memory B, G, R for OpenCV, and R, G, B for the model
INSTALL = "sudo apt install python3-picamera2, and run with the system's python3 or a venv with --system-site-packages"

# suppress libcamera's messages on stderr, except warnings and errors
os.environ.setdefault("LIBCAMERA_LOG_LEVELS", "*:WARN")


class CsiCamera:
    """A started Picamera2. Both pictures of a Shot come from one exposure."""

    def __init__(self, camera: Any, name: str, *, has_small: bool) -> None:
        self.name = name
        self._camera, self._has_small = camera, has_small

    def read(self) -> Shot | None:
        """The next exposure; None when none comes, for example with a loose cable."""
        try:
            request = self._camera.capture_request(wait=READ_S)
        except (concurrent.futures.TimeoutError, concurrent.futures.CancelledError, RuntimeError):
            return None
        try:
            # copies, because the camera's own buffers must go back to it soon
            picture = request.make_array("main")
            small = request.make_array("lores") if self._has_small else None
        finally:
            request.release()
        return Shot(picture, small)

    def close(self) -> None:
        """Stop the camera; a call that hangs goes on in a thread of its own."""
        with contextlib.suppress(Exception):
            within(CLOSE_S, f"{self.name} closing", functools.partial(_close, self._camera))


def open_csi(source: CameraSource, spec: InputSpec, size_wh: tuple[int, int], fps: float) -> CsiCamera:
    """Open the camera of this number; it streams when this returns.

    Args:
        source: of kind "csi".
        spec: the model's input, for which the second stream is scaled.
        size_wh: of the picture.
        fps: fixed, which also limits the exposure time.

    Raises:
        DeviceError: picamera2 or the camera is missing, or the camera is in use.
    """
    library = _picamera2()
    start = functools.partial(_start, library, source, spec, size_wh, fps)
    try:
        return within(OPEN_S, source.name, start, undo=CsiCamera.close)
    except Late:
        raise DeviceError(
            f"the camera {source.name} has not answered within {OPEN_S:g} s; check that both ends of its cable sit "
            "firmly, then restart the Pi"
        ) from None


def _picamera2() -> Any:
    try:
        import picamera2
    except ImportError as exc:
        raise DeviceError(f"the source csi needs picamera2 ({one_line(exc)}); expected on a Pi: {INSTALL}") from exc
    except ValueError as exc:  # the system's compiled modules were built for another numpy
        raise DeviceError(
            f"picamera2 cannot be imported ({one_line(exc)}); expected the system's numpy, but pip has "
            "installed another one; remove it with: python3 -m pip uninstall numpy"
        ) from exc
    return picamera2


def _start(library: Any, source: CameraSource, spec: InputSpec, size_wh: tuple[int, int], fps: float) -> CsiCamera:
    _check_listed(library.Picamera2.global_camera_info(), source)
    try:
        camera = _acquire(library.Picamera2, source.number)
    except (RuntimeError, IndexError) as exc:
        raise DeviceError(_start_failure(source, exc)) from exc
    try:
        small_wh = _configure(camera, spec, size_wh, fps)
        camera.start()
    except (RuntimeError, OSError) as exc:
        with contextlib.suppress(Exception):
            _close(camera)
        raise DeviceError(_start_failure(source, exc)) from exc
    _log_streams(camera, source.name, small_wh, fps)
    return CsiCamera(camera, source.name, has_small=small_wh is not None)


def _check_listed(cameras: list[dict[str, Any]], source: CameraSource) -> None:
    """Raise DeviceError if there is no such camera. libcamera lists USB cameras too, behind the others."""
    own = [camera for camera in cameras if "/usb" not in camera.get("Id", "")]
    if source.number < len(own):
        return
    found = f"{counted(len(own), 'camera')} found" if own else "no camera found"
    raise DeviceError(
        f"there is no camera {source.name}: {found} on the Pi's connectors; expected one that `rpicam-hello "
        "--list-cameras` shows; switch the Pi off and check the cable; a USB camera has the source usb"
    )


def _acquire(kind: Any, number: int) -> Any:
    """Picamera2(number). If the camera is in use, also close the pipe that picamera2 leaves open then.

    The live detector tries again every few seconds, perhaps for days, and would run out of file handles.
    """
    camera = kind.__new__(kind)
    try:
        camera.__init__(number)
    except (RuntimeError, IndexError):
        with contextlib.suppress(Exception):
            _close_failed(camera)
        raise
    return camera


def _close_failed(camera: Any) -> None:
    if camera.is_open:  # it failed after it had acquired the camera
        camera.close()
        return
    camera.notifymeread.close()
    os.close(camera.notifyme_w)


def _configure(camera: Any, spec: InputSpec, size_wh: tuple[int, int], fps: float) -> tuple[int, int] | None:
    """Set up two streams where the ISP can scale for the model, else one; returns the second one's size."""
    small_wh = isp_size(size_wh, spec) if camera.platform.name == "PISP" else None
    granted = _apply(camera, size_wh, small_wh, fps)
    if granted["main"]["format"] != PICTURE:
        raise RuntimeError(f"it gives pictures as {granted['main']['format']}; expected {PICTURE}")
    if small_wh is None:
        return None
    lores = granted["lores"]
    if (lores["format"], lores["size"]) == (SMALL, isp_size(granted["main"]["size"], spec)):
        return small_wh
    log.warning(
        "the camera scales to %dx%d %s, which does not fit; the letterbox scales instead", *lores["size"], SMALL
    )
    _apply(camera, size_wh, None, fps)
    return None


def _apply(camera: Any, size_wh: tuple[int, int], small_wh: tuple[int, int] | None, fps: float) -> Any:
    """Configure the camera; returns the configuration as libcamera adjusted it to what the camera has."""
    configuration = camera.create_video_configuration(
        main={"size": size_wh, "format": PICTURE},
        lores={"size": small_wh, "format": SMALL} if small_wh else None,
        buffer_count=BUFFERS,
        queue=False,  # give the next exposure, not one that has waited for us
        controls={"FrameRate": fps},
    )
    camera.configure(configuration)
    return camera.camera_configuration()


def isp_size(size_wh: tuple[int, int], spec: InputSpec) -> tuple[int, int] | None:
    """Width and height to which the ISP scales a picture for the model; None where it cannot.

    Its sizes are even, and the second stream must not be larger than the first. A picture of 1280x720 for a model of
    640x640 is scaled to 640x360; for 415x415 to 414x232.
    """
    height, width = plan((size_wh[1], size_wh[0]), spec).resized_hw
    small_wh = width - width % 2, height - height % 2
    whole = spec.fit != "stretch" or small_wh == (width, height)  # a stretched picture has no border
    fits = 0 < small_wh[0] <= size_wh[0] and 0 < small_wh[1] <= size_wh[1]
    return small_wh if whole and fits else None


def _log_streams(camera: Any, name: str, small_wh: tuple[int, int] | None, fps: float) -> None:
    size_wh = camera.camera_configuration()["main"]["size"]
    scaled = f"isp (the camera scales to {small_wh[0]}x{small_wh[1]})" if small_wh else "letterbox"
    log.info("%s: %dx%d at %g frames a second; preprocess: %s", name, *size_wh, fps, scaled)


def _start_failure(source: CameraSource, exc: BaseException) -> str:
    """One sentence from the chain of exceptions; the last one, picamera2's own, gives the least information."""
    words = " ".join(_chain(exc))
    if "busy" in words.lower() or "acquire" in words:
        return (
            f"the camera {source.name} is in use by another program; close it (rpicam-*, another detector); "
            "`fuser -v /dev/media*` names it"
        )
    if isinstance(exc, IndexError) or "not found" in words:
        return f"the camera {source.name} was not found; switch the Pi off and check the cable"
    return f"the camera {source.name} cannot be started: {one_line(words)}; check the cable and restart the Pi"


def _chain(exc: BaseException | None) -> list[str]:
    words = []
    while exc is not None:
        words.append(str(exc))
        exc = exc.__cause__
    return words[::-1]


def _close(camera: Any) -> None:
    """Close the camera. Requests that never came are cancelled first, or the stop would wait for them forever."""
    with contextlib.suppress(Exception):
        camera.cancel_all_and_flush()
    camera.close()
