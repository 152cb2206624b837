"""The one door to every camera: CSI, USB, network, file.

    source = parse_source("rtsp://user:password@10.0.0.7/stream")  # before anything is opened
    camera = open_camera(source, spec.input)
    while (shot := camera.read()) is not None: ...
    camera.close()

No call waits longer than 5 s, but for the first picture of an RTSP camera, which may take 10 s.
"""

from __future__ import annotations

from hefkit.cameras.camera import Camera
from hefkit.cameras.csi import open_csi
from hefkit.cameras.file import FileCamera
from hefkit.cameras.net import open_net
from hefkit.cameras.source import CameraSource
from hefkit.cameras.usb import open_usb
from hefkit.spec import InputSpec

SIZE_WH = (1280, 720)  # of the picture, asked of cameras that offer several
FPS = 30.0


def open_camera(
    source: CameraSource,
    spec: InputSpec,
    *,
    loop: bool = False,
    size_wh: tuple[int, int] = SIZE_WH,
    fps: float = FPS,
) -> Camera:
    """Open a camera; it streams when this returns.

    Args:
        source: what `parse_source` made of the user's words.
        spec: the model's input; `csi` lets the camera scale the picture into it.
        loop: a file begins again at its end.
        size_wh, fps: asked of CSI and USB cameras, which grant what they have.

    Raises:
        DeviceError: it is missing, in use or broken, or nobody answers.
        DataError: a file that is no video.
    """
    if source.kind == "csi":
        return open_csi(source, spec, size_wh, fps)
    if source.kind == "usb":
        return open_usb(source, size_wh, fps)
    if source.kind == "file":
        return FileCamera(source, loop=loop)
    return open_net(source)
