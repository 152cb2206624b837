"""Why a network camera's address cannot be opened: one question without a login, and a sentence for the answer.

FFmpeg knows the reason, but OpenCV does not pass it on. RTSP (RFC 2326) and HTTP messages have the same form, so one
question serves both: DESCRIBE or GET, and the status line of the answer. `ask` is called only after FFmpeg has failed:
GStreamer's server may refuse the next client after a DESCRIBE whose connection was closed. `check_server` asks
OPTIONS, which has no such effect.

User name and password are never sent. Some servers ask for the login before they look at the path; there a wrong
password and a wrong path get the same sentence.
"""

from __future__ import annotations

import re
import socket
import ssl
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
MAX_HEAD = 64 << 10  # bytes of status line and headers

_STATUS = re.compile(rb"(?:RTSP|HTTP)/\d\.\d (\d{3})\b")
_CONTENT_TYPE = re.compile(rb"^content-type:[ \t]*([\w.+-]+/[\w.+-]+)", re.IGNORECASE | re.MULTILINE)


class Answer(NamedTuple):
    """What the server answered."""

    status: int  # 200, 401, 404 ...
    content_type: str  # "text/html"; empty where the server does not name it


class Unreachable(Exception):
    """No answer. The message says why and what to do, and holds nothing of the address but its port."""


def check_server(url: str, timeout_s: float) -> None:
    """Return if an RTSP server answers OPTIONS, whatever the answer is.

    Raises:
        Unreachable: nothing answers, or not in RTSP.
    """
    _ask(urlsplit(url), "OPTIONS", timeout_s)


def ask(url: str, timeout_s: float) -> Answer:
    """Ask for the stream, without a login.

    Args:
        url: rtsp, rtsps, http or https, valid.
        timeout_s: for each of three steps: connect, send, receive. The look-up of the host's name has no limit.

    Raises:
        Unreachable: nothing answers, or neither in RTSP nor in HTTP.
    """
    parts = urlsplit(url)
    return _ask(parts, "GET" if _is_http(parts) else "DESCRIBE", timeout_s)


def explain(answer: Answer, url: str) -> str:
    """Why FFmpeg could not open the stream of a server that gave this answer, and what to do."""
    if answer.status in (401, 403):
        if urlsplit(url).username is None:
            return (
                "it wants a user name and a password; put them into HEFKIT_CAMERA_USERNAME and "
                "HEFKIT_CAMERA_PASSWORD, or write them as user:password@ before the host"
            )
        return "it wants a login; check the user name, the password and the path"
    if answer.status == 404:
        return "it has no stream at this path; look the path up in the camera's manual"
    if not 200 <= answer.status < 300:
        return f"it answers with status {answer.status}; check the path and the camera's settings"
    if answer.content_type.startswith("text/"):
        return f"it answers with {answer.content_type}, which is not a picture; give the address of the stream"
    return "it answers, but sends no picture that OpenCV's FFmpeg reads; expected H.264, H.265 or MJPEG"


def _ask(parts: SplitResult, method: str, timeout_s: float) -> Answer:
    port = parts.port or PORTS[parts.scheme.lower()]
    try:
        plain = socket.create_connection((parts.hostname or "", port), timeout_s)
        try:
            with _secured(plain, parts) as connection:
                return _exchange(connection, _question(parts, method))
        except TimeoutError:
            raise Unreachable("it accepts the connection but does not answer; restart the camera") from None
    except socket.gaierror:
        raise Unreachable("its host name is not known; check the spelling and the network") from None
    except ConnectionRefusedError:
        raise Unreachable(f"nothing listens at port {port}; is the camera on, and is the port right?") from None
    except TimeoutError:
        raise Unreachable(f"port {port} does not answer; is the camera on, and in this network?") from None
    except (OSError, ValueError) as exc:
        raise Unreachable(f"the connection broke ({_reason(exc)}); check the address and the camera") from None


def _secured(plain: socket.socket, parts: SplitResult) -> socket.socket:
    """TLS where the scheme asks for it. Cameras sign their own certificates, and FFmpeg does not check them either."""
    if parts.scheme.lower() not in ("rtsps", "https"):
        return plain
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        return context.wrap_socket(plain, server_hostname=parts.hostname)
    finally:
        plain.close()  # the TLS socket owns the connection now, or the handshake failed


def _exchange(connection: socket.socket, question: bytes) -> Answer:
    connection.sendall(question)
    head = b""
    while b"\r\n\r\n" not in head and len(head) < MAX_HEAD:
        if not (data := connection.recv(4096)):
            break
        head += data
    head = head.partition(b"\r\n\r\n")[0]
    if not head:
        raise ConnectionError("the camera closed it")
    if not (status := _STATUS.match(head)):
        raise Unreachable("its answer is neither RTSP nor HTTP; check the port")
    content_type = _CONTENT_TYPE.search(head)
    return Answer(int(status[1]), content_type[1].decode("ascii").lower() if content_type else "")


def _question(parts: SplitResult, method: str) -> bytes:
    """The request: for HTTP with the path, for RTSP with the whole address without the login."""
    host = parts.netloc.rpartition("@")[2]
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if _is_http(parts):
        lines = [f"{method} {path} HTTP/1.0", f"Host: {host}"]
    else:
        lines = [f"{method} {parts.scheme.lower()}://{host}{path} RTSP/1.0", "CSeq: 1", "Accept: application/sdp"]
    return "\r\n".join([*lines, "User-Agent: hefkit", "", ""]).encode("utf-8", "surrogateescape")


def _is_http(parts: SplitResult) -> bool:
    return parts.scheme.lower() in ("http", "https")


def _reason(exc: Exception) -> str:
    return (exc.strerror if isinstance(exc, OSError) else None) or str(exc) or type(exc).__name__
