"""Open any live camera: CSI, USB or network. A video file is a `FileCamera`.

    source = parse_source("rtsp://user:password@10.0.0.7/stream")  # before anything is opened
    camera = open_camera(source, spec.input)
    while (shot := camera.read()) is not None: ...
    camera.close()

No call waits longer than 5 s, except for the first picture of an RTSP camera, which may take 10 s.
"""

from __future__ import annotations

from hefkit.cameras.camera import Camera
from hefkit.cameras.csi import open_csi
from hefkit.cameras.net import open_net
from hefkit.cameras.source import CameraSource
from hefkit.cameras.usb import open_usb
from hefkit.spec import InputSpec

SIZE_WH = (1280, 720)  # pixels; asked of cameras that offer several sizes
FPS = 30.0  # frames a second


def open_camera(
    source: CameraSource,
    spec: InputSpec,
    *,
    size_wh: tuple[int, int] = SIZE_WH,
    fps: float = FPS,
) -> Camera:
    """Open a camera; it streams when this returns.

    Args:
        source: a live one, from `parse_source`.
        spec: the model's input; a `csi` camera scales the picture for it.
        size_wh, fps: asked of CSI and USB cameras, which choose the nearest that they have.

    Raises:
        DeviceError: it is missing, in use or broken, or does not answer.
    """
    if source.kind == "csi":
        return open_csi(source, spec, size_wh, fps)
    if source.kind == "usb":
        return open_usb(source, size_wh, fps)
    return open_net(source)
