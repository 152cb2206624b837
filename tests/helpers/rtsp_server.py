"""A real RTSP server on loopback: GStreamer's, in a process of the system's Python, which has its bindings.

    python3 rtsp_server.py PORT [basic|digest]   # prints its port when it listens; user "watcher", password "s3cret"

/cam is a red picture, 320x240, 30 frames a second, H.264 with a key frame a second (JPEG without an H.264 encoder).
"""

from __future__ import annotations

import contextlib
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

SYSTEM_PYTHON = "/usr/bin/python3"
PACKAGES = "python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good gstreamer1.0-plugins-bad"
USER, PASSWORD = "watcher", "s3cret"

PICTURE = "videotestsrc is-live=true pattern=red ! video/x-raw,width=320,height=240,framerate=30/1"
H264 = "openh264enc gop-size=30 ! h264parse ! rtph264pay name=pay0 pt=96 config-interval=1"
JPEG = "jpegenc ! rtpjpegpay name=pay0 pt=26"
CHECK = (
    "import gi; gi.require_version('Gst', '1.0'); gi.require_version('GstRtspServer', '1.0'); "
    "from gi.repository import Gst, GstRtspServer; Gst.init(None); "
    "assert all(Gst.ElementFactory.find(n) for n in ('videotestsrc', 'jpegenc', 'rtpjpegpay'))"
)


@functools.cache
def missing() -> str:
    """Why no server can run here; empty if one can."""
    with contextlib.suppress(OSError):
        if subprocess.run([SYSTEM_PYTHON, "-c", CHECK], capture_output=True, timeout=60).returncode == 0:
            return ""
    return f"no GStreamer RTSP server for {SYSTEM_PYTHON}: apt-get install {PACKAGES}"


@contextlib.contextmanager
def rtsp_server(port: int = 0, auth: str = "") -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A running server and its port; it is killed at the end."""
    command = [SYSTEM_PYTHON, __file__, str(port), *([auth] if auth else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def main() -> None:
    """Serve until killed. GStreamer is imported here, because the tests' own Python does not have it."""
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtsp", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtsp, GstRtspServer

    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(sys.argv[1])
    factory = GstRtspServer.RTSPMediaFactory()
    coder = H264 if Gst.ElementFactory.find("openh264enc") else JPEG
    factory.set_launch(f"( {PICTURE} ! {coder} )")
    factory.set_shared(True)
    if sys.argv[2:]:
        server.set_auth(_auth(sys.argv[2], GstRtsp, GstRtspServer))
        permissions = GstRtspServer.RTSPPermissions()
        permissions.add_permission_for_role("watchers", "media.factory.access", True)
        permissions.add_permission_for_role("watchers", "media.factory.construct", True)
        factory.set_permissions(permissions)
    server.get_mount_points().add_factory("/cam", factory)
    server.attach(None)
    sys.stdout.write(f"{server.get_bound_port()}\n")
    sys.stdout.flush()
    GLib.MainLoop().run()


def _auth(kind: str, rtsp: object, rtsp_server: object) -> object:
    token = rtsp_server.RTSPToken()  # type: ignore[attr-defined]
    token.set_string("media.factory.role", "watchers")
    auth = rtsp_server.RTSPAuth()  # type: ignore[attr-defined]
    if kind == "digest":
        auth.set_supported_methods(rtsp.RTSPAuthMethod.DIGEST)  # type: ignore[attr-defined]
        auth.add_digest(USER, PASSWORD, token)
    else:
        auth.add_basic(rtsp_server.RTSPAuth.make_basic(USER, PASSWORD), token)  # type: ignore[attr-defined]
    return auth


if __name__ == "__main__":
    sys.path[0] = str(Path("/nonexistent"))  # no helper may shadow a module that gi imports
    main()
