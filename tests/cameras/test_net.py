"""Network cameras against real servers: GStreamer's RTSP server as a process, and HTTP on loopback.

Every wait of the code has a limit; `soon` is only there so that a test of a limit that failed does not hang itself.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import pytest

from hefkit.cameras import net
from hefkit.cameras.camera import Camera
from hefkit.cameras.deadline import within
from hefkit.cameras.open import open_camera
from hefkit.cameras.source import parse_source
from hefkit.errors import DeviceError
from hefkit.spec import InputSpec
from tests.conftest import ROOT
from tests.helpers.loopback import encrypted, listening, mjpeg, saying, shade, silent
from tests.helpers.rtsp_server import PASSWORD, USER, missing, rtsp_server

SPEC = InputSpec((64, 64))
FAR_BEYOND_S = 60.0
LOGIN = "it wants a login; check the user name, the password and the path"
T = TypeVar("T")


def soon(action: Callable[[], T]) -> T:
    """What an action returns; a hang becomes a failure."""
    return within(FAR_BEYOND_S, "the test", action)


def opened(url: str) -> Camera:
    """The camera at an address."""
    return soon(lambda: open_camera(parse_source(url), SPEC))


def refusal(url: str) -> str:
    """The message with which an address is refused."""
    with pytest.raises(DeviceError) as refused:
        opened(url)
    return str(refused.value)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test or the module itself sets is taken back."""
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", "")
    monkeypatch.delenv("OPENCV_FFMPEG_THREADS", raising=False)


@pytest.fixture
def rtsp() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A real RTSP server, and its port."""
    if missing():
        pytest.skip(missing())
    with rtsp_server() as server:
        yield server


# --- RTSP ------------------------------------------------------------------------------------------------------------


def test_an_rtsp_stream(rtsp: tuple[subprocess.Popen[str], int]) -> None:
    """Frames come, in B, G, R; closing twice is allowed."""
    camera = opened(f"rtsp://127.0.0.1:{rtsp[1]}/cam")

    shots = [soon(camera.read) for _ in range(40)]  # more than were read while it was opened
    camera.close()
    camera.close()

    for shot in shots:
        assert shot is not None and shot.small is None
        assert shot.picture.shape == (240, 320, 3) and shot.picture.dtype == np.uint8
        blue, green, red = shot.picture[120, 160]
        assert red > 200 and blue < 50 and green < 50
    assert camera.name == f"rtsp://127.0.0.1:{rtsp[1]}/cam"


def test_a_killed_server_is_noticed_and_its_return_works(rtsp: tuple[subprocess.Popen[str], int]) -> None:
    """`read` says None, opening says why while the server is away, and works when the server is back."""
    process, port = rtsp
    url = f"rtsp://127.0.0.1:{port}/cam"
    camera = opened(url)
    assert soon(camera.read) is not None

    process.kill()
    process.wait()
    while soon(camera.read) is not None:
        pass  # what had arrived before
    camera.close()

    assert f"nothing listens at port {port}" in refusal(url)
    with rtsp_server(port):
        again = opened(url)
        assert soon(again.read) is not None
        again.close()


def test_a_server_that_stops_sending(rtsp: tuple[subprocess.Popen[str], int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection stands, nothing comes: `read` gives up, and so does the next attempt to open."""
    process, port = rtsp
    monkeypatch.setattr(net, "READ_S", 0.5)
    monkeypatch.setattr(net, "ASK_S", 0.3)
    camera = opened(f"rtsp://127.0.0.1:{port}/cam")
    assert soon(camera.read) is not None

    process.send_signal(signal.SIGSTOP)
    while soon(camera.read) is not None:
        pass
    soon(camera.close)

    assert "it accepts the connection but does not answer" in refusal(f"rtsp://127.0.0.1:{port}/cam")


def test_a_wrong_path(rtsp: tuple[subprocess.Popen[str], int]) -> None:
    """404 has its own sentence."""
    assert "it has no stream at this path" in refusal(f"rtsp://127.0.0.1:{rtsp[1]}/elsewhere")


@pytest.mark.parametrize("kind", ["basic", "digest"])
def test_passwords(kind: str) -> None:
    """The right one opens; a wrong one, none, and a wrong path have a sentence each; none is shown."""
    if missing():
        pytest.skip(missing())
    with rtsp_server(auth=kind) as (_, port):
        camera = opened(f"rtsp://{USER}:{PASSWORD}@127.0.0.1:{port}/cam")
        assert soon(camera.read) is not None
        camera.close()

        wrong = refusal(f"rtsp://{USER}:not-{PASSWORD}@127.0.0.1:{port}/cam")
        none = refusal(f"rtsp://127.0.0.1:{port}/cam")
        path = refusal(f"rtsp://{USER}:{PASSWORD}@127.0.0.1:{port}/elsewhere")

    assert f"rtsp://***@127.0.0.1:{port}/cam" in wrong and LOGIN in wrong
    assert "it wants a user name and a password" in none
    assert "it has no stream at this path" in path
    for text in (camera.name, wrong, none, path):
        assert PASSWORD not in text and USER not in text


@pytest.mark.parametrize("broken", ["401", "404", "silent", "no server", "not RTSP"])
def test_nothing_on_the_console_shows_the_password(broken: str) -> None:
    """Not even what OpenCV and FFmpeg print by themselves: a process's whole output."""
    handlers = {
        "401": saying(*[b'RTSP/1.0 401 No\r\nCSeq: 1\r\nWWW-Authenticate: Basic realm="x"\r\n\r\n'] * 9),
        "404": saying(*[b"RTSP/1.0 404 Not Found\r\nCSeq: 1\r\n\r\n"] * 9),
        "not RTSP": saying(b"SSH-2.0-OpenSSH_9.2p1\r\n"),
    }
    program = (
        "import sys; from hefkit.cameras.open import open_camera; from hefkit.cameras.source import parse_source; "
        "from hefkit.spec import InputSpec; open_camera(parse_source(sys.argv[1]), InputSpec((64, 64)))"
    )
    with listening(handlers.get(broken, silent)) as port:
        if broken == "no server":
            port = 1
        done = subprocess.run(
            [sys.executable, "-c", program, f"rtsp://{USER}:{PASSWORD}@127.0.0.1:{port}/cam"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=FAR_BEYOND_S,
        )

    output = done.stdout + done.stderr
    assert "hefkit.errors.DeviceError: the camera rtsp://***@127.0.0.1" in output
    assert PASSWORD not in output and USER not in output
    assert "WARN" not in output and "[rtsp" not in output


def test_a_description_without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that answers everything and sends no frame: the wait for a key frame has a limit too."""
    monkeypatch.setattr(net, "KEY_FRAME_S", 0.5)
    sdp = (
        b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 26\r\n"
        b"c=IN IP4 0.0.0.0\r\na=control:stream=0\r\n"
    )

    def ready(connection: socket.socket) -> None:
        while request := connection.recv(4096).decode("latin-1"):
            number = request.partition("CSeq: ")[2].partition("\r\n")[0]
            head = f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\nSession: 1\r\n"
            if request.startswith("DESCRIBE"):
                head += f"Content-Type: application/sdp\r\nContent-Length: {len(sdp)}\r\n"
            if request.startswith("SETUP"):
                head += "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
            body = sdp if request.startswith("DESCRIBE") else b""
            connection.sendall(head.encode() + b"\r\n" + body)

    with listening(ready) as port:
        message = refusal(f"rtsp://127.0.0.1:{port}/cam")

    assert "it answers, but sends no picture" in message or "no picture came within 0.5 s" in message


@pytest.mark.parametrize(
    "handler, words",
    [
        (silent, "it accepts the connection but does not answer"),
        (saying(b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n"), "its answer is neither RTSP nor HTTP"),
        (saying(b"RTSP/1.0 453 Not Enough Bandwidth\r\nCSeq: 1\r\n\r\n"), "it answers with status 453"),
        (lambda connection: None, "the connection broke"),
    ],
    ids=["silent", "another protocol", "refuses", "hangs up"],
)
def test_strange_servers(handler: Callable[[socket.socket], None], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What listens at the port need not be a camera."""
    if handler is silent:
        monkeypatch.setattr(net, "ASK_S", 0.3)
    with listening(handler) as port:
        message = refusal(f"rtsp://me:s3cret@127.0.0.1:{port}/cam")

    assert words in message and "s3cret" not in message


def test_an_unknown_host_name() -> None:
    """No address is found, or no name server answers: both have a limit."""
    message = refusal("rtsp://camera.invalid/cam")

    assert "host name is not" in message


# --- HTTP ------------------------------------------------------------------------------------------------------------


def test_mjpeg_over_http() -> None:
    """Every picture in order, the first one too, and None at the end of the stream."""
    with listening(mjpeg(12)) as port:
        camera = opened(f"http://127.0.0.1:{port}/live")
        pictures = []
        while (shot := soon(camera.read)) is not None:
            pictures.append(shot.picture)
        camera.close()

    assert [picture.shape for picture in pictures] == [(48, 64, 3)] * 12
    for index, picture in enumerate(pictures):
        assert np.abs(picture[24, 32].astype(int) - shade(index)).max() <= 4, index


def test_http_that_falls_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures, then none any more: `read` gives up."""
    monkeypatch.setattr(net, "READ_S", 0.5)
    with listening(mjpeg(60, then="silence", rate=200)) as port:
        camera = opened(f"http://127.0.0.1:{port}/live")
        while soon(camera.read) is not None:
            pass
        camera.close()


def test_http_that_is_no_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong path, a page for browsers, silence, no server: each has its own words."""
    monkeypatch.setattr(net, "OPEN_S", 0.5)
    monkeypatch.setattr(net, "ASK_S", 0.3)
    page = b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\nContent-Length: 20\r\n\r\n<html>Hello!!</html>"
    with listening(mjpeg(3)) as port:
        assert "it has no stream at this path" in refusal(f"http://127.0.0.1:{port}/elsewhere")
    with listening(saying(page)) as port:
        assert "it answers with text/html, which is not a picture" in refusal(f"http://127.0.0.1:{port}/")
    with listening(silent) as port:
        assert "does not answer" in refusal(f"http://127.0.0.1:{port}/")
    assert f"nothing listens at port {port}" in refusal(f"http://127.0.0.1:{port}/")


def test_pictures_over_https(tmp_path: Path) -> None:
    """A camera that signed its own certificate."""
    with listening(encrypted(mjpeg(5), tmp_path)) as port:
        camera = opened(f"https://127.0.0.1:{port}/live")
        shots = [soon(camera.read) for _ in range(6)]
        camera.close()

    assert [shot is None for shot in shots] == [False] * 5 + [True]


def test_http_passwords() -> None:
    """Basic authentication, as most cameras have it over HTTP."""
    with listening(mjpeg(500, password=PASSWORD)) as port:
        camera = opened(f"http://watcher:{PASSWORD}@127.0.0.1:{port}/live")
        assert soon(camera.read) is not None
        camera.close()
        assert LOGIN in refusal(f"http://watcher:no@127.0.0.1:{port}/live")
        assert "it wants a user name and a password" in refusal(f"http://127.0.0.1:{port}/live")


@pytest.mark.parametrize("login", ["", "me:s3cret@"])
@pytest.mark.parametrize("offer", [b"", b'Digest realm="cam, nonce="abc', b'Basic realm="\xff\0\x1b[2J"'])
def test_a_malformed_offer_of_a_login(offer: bytes, login: str) -> None:
    """FFmpeg reads it too; the refusal is one sentence, without the login."""
    answer = b"HTTP/1.0 401 Unauthorized\r\nWWW-Authenticate: " + offer + b"\r\nContent-Length: 0\r\n\r\n"
    with listening(saying(answer)) as port:
        message = refusal(f"http://{login}127.0.0.1:{port}/live")

    assert (LOGIN if login else "it wants a user name and a password") in message
    assert message.isprintable() and "s3cret" not in message


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For every cv2.VideoCapture that is opened: was one decoding thread asked for?"""
    asked: list[bool] = []
    real = cv2.VideoCapture

    def capture(url: str, backend: int, parameters: list[int]) -> cv2.VideoCapture:
        names = dict(zip(parameters[::2], parameters[1::2], strict=True))
        asked.append(names.get(getattr(cv2, "CAP_PROP_N_THREADS", None)) == 1)
        return real(url, backend, parameters)

    monkeypatch.setattr(cv2, "VideoCapture", capture)
    return asked


@pytest.mark.parametrize("size_wh, large", [((1920, 1080), False), ((2560, 1440), True)])
def test_a_large_picture_is_decoded_on_all_cores(size_wh: tuple[int, int], large: bool, one_thread: list[bool]) -> None:
    """One thread has the least delay; what may be too much for it is opened again, where OpenCV can choose."""
    with listening(mjpeg(500, size_wh=size_wh, rate=20)) as port:
        camera = opened(f"http://127.0.0.1:{port}/live")
        shot = soon(camera.read)
        camera.close()

    assert shot is not None and shot.picture.shape == (size_wh[1], size_wh[0], 3)
    can_choose = hasattr(cv2, "CAP_PROP_N_THREADS")
    assert one_thread == ([True, False][: 1 + large] if can_choose else [False])


def test_the_user_s_own_number_of_threads(monkeypatch: pytest.MonkeyPatch, one_thread: list[bool]) -> None:
    """OPENCV_FFMPEG_THREADS is OpenCV's own setting, and stays in force."""
    monkeypatch.setenv("OPENCV_FFMPEG_THREADS", "2")

    with listening(mjpeg(500)) as port:
        opened(f"http://127.0.0.1:{port}/live").close()

    assert one_thread == [False]


# --- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "own, expected",
    [
        ("", "rtsp_transport;tcp|analyzeduration;1000000"),
        ("rtsp_transport;udp", "rtsp_transport;udp|analyzeduration;1000000"),
        ("analyzeduration;5|x;y", "analyzeduration;5|x;y|rtsp_transport;tcp"),
    ],
)
def test_the_user_s_own_options_stay(own: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours are added where the user says nothing, once, however often a camera is opened."""
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", own)

    for _ in range(2):
        refusal("http://127.0.0.1:1/")

    assert os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] == expected


# --- a stream of another program --------------------------------------------------------------------------------------


def raw_pictures(connection: socket.socket) -> None:
    """MJPEG without a container, as `rpicam-vid --codec mjpeg -l -o tcp://...` sends it."""
    for index in range(400):
        _, data = cv2.imencode(".jpg", np.full((48, 64, 3), shade(index), np.uint8))
        connection.sendall(data.tobytes())


def test_a_stream_over_tcp() -> None:
    """Pictures come, and its end is the end."""
    with listening(raw_pictures) as port:
        camera = opened(f"tcp://127.0.0.1:{port}")
        shots = [camera.read() for _ in range(20)]
        camera.close()

    assert all(shot is not None and shot.picture.shape == (48, 64, 3) for shot in shots)


def test_a_stream_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens, or nothing is sent: a line within the limit, with the sender's command."""
    monkeypatch.setattr(net, "KEY_FRAME_S", 0.4)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert "start the sender first (on a Pi: rpicam-vid" in refusal(f"tcp://127.0.0.1:{port}")
    with listening(silent) as port:
        assert "cannot be opened" in refusal(f"tcp://127.0.0.1:{port}")
    assert "cannot be opened" in refusal("udp://127.0.0.1:47999")
