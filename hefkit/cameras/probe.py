"""What is the matter with a network camera's address? FFmpeg knows, and OpenCV keeps it to itself.

RTSP (RFC 2326) and HTTP share the form of their messages and their authentication (RFC 2617), so one question does
for both: DESCRIBE or GET, and the status line of the answer. It is asked to explain a failure; FFmpeg opens the
stream. Before, only OPTIONS may be asked: a server that has just described a stream to somebody who then hung up
may refuse the next one (seen with GStreamer's).
"""

from __future__ import annotations

import hashlib
import http.client
import io
import re
import socket
import ssl
from base64 import b64encode
from email.message import Message
from secrets import token_hex
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import parse_http_list, parse_keqv_list

PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
MAX_HEAD = 64 << 10  # bytes of status line and headers


class Answer(NamedTuple):
    """What the other side said."""

    status: int  # 200, 401, 404 ...
    headers: Message


class Unreachable(Exception):
    """No answer; says what was the matter and what to do."""


def greet(url: str, timeout_s: float) -> None:
    """Is an RTSP server there? Whatever it answers will do.

    Raises:
        Unreachable: nobody answers, or not in this language.
    """
    parts = urlsplit(url)
    _asked(parts, "OPTIONS", "", timeout_s)


def ask(url: str, timeout_s: float) -> Answer:
    """Ask for the stream, with the credentials of the address where they are wanted.

    Args:
        url: rtsp, rtsps, http or https, valid.
        timeout_s: for each step; there are three, or six where credentials are wanted. The look-up of the host's name
            has no limit.

    Raises:
        Unreachable: nobody answers, or not in this language.
    """
    parts = urlsplit(url)
    method = "GET" if _is_http(parts) else "DESCRIBE"
    answer = _asked(parts, method, "", timeout_s)
    if answer.status == 401 and parts.username is not None:
        authorization = _authorization(parts, method, _target(parts), answer.headers)
        answer = _asked(parts, method, authorization, timeout_s) if authorization else answer
    return answer


def explain(answer: Answer, url: str) -> str:
    """Why a stream whose server gave this answer cannot be opened, and what to do."""
    parts = urlsplit(url)
    if answer.status in (401, 403):
        if parts.username is None:
            return "it wants a user name and a password; write them as user:password@ before the host"
        return "it refuses the user name or the password; check both, as written for the camera's own page"
    if answer.status == 404:
        return "it has no stream of this path; look the path up in the camera's manual"
    if not 200 <= answer.status < 300:
        return f"it answers with status {answer.status}; check the path and the camera's settings"
    kind = answer.headers.get_content_type()
    if kind.startswith("text/"):
        return f"it answers with {kind}, which is no picture; give the address of the stream, not of its page"
    return "it answers, but sends no picture that OpenCV's FFmpeg reads; expected H.264, H.265 or MJPEG"


def _asked(parts: SplitResult, method: str, authorization: str, timeout_s: float) -> Answer:
    port = parts.port or PORTS[parts.scheme.lower()]
    try:
        plain = socket.create_connection((parts.hostname or "", port), timeout_s)
        try:
            with _secured(plain, parts) as connection:
                return _exchange(connection, _question(parts, method, authorization))
        except TimeoutError:
            raise Unreachable("it accepts the connection and says nothing; restart the camera") from None
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
        plain.close()  # it has handed the connection over, or the handshake failed


def _exchange(connection: socket.socket, question: bytes) -> Answer:
    connection.sendall(question)
    head = b""
    while b"\r\n\r\n" not in head and len(head) < MAX_HEAD:
        if not (data := connection.recv(4096)):
            break
        head += data
    status, _, rest = head.partition(b"\r\n")
    if not (found := re.match(rb"(?:RTSP|HTTP)/\d\.\d (\d{3})\b", status)):
        raise ValueError("it speaks another language")
    return Answer(int(found[1]), http.client.parse_headers(io.BytesIO(rest)))


def _question(parts: SplitResult, method: str, authorization: str) -> bytes:
    if _is_http(parts):
        lines = [f"{method} {_target(parts)} HTTP/1.0", f"Host: {_host(parts)}"]
    else:
        lines = [f"{method} {_target(parts)} RTSP/1.0", "CSeq: 1", "Accept: application/sdp"]
    lines.append("User-Agent: hefkit")
    if authorization:
        lines.append(f"Authorization: {authorization}")
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")


def _is_http(parts: SplitResult) -> bool:
    return parts.scheme.lower() in ("http", "https")


def _host(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2]


def _target(parts: SplitResult) -> str:
    """What is asked for: the path, and for RTSP the whole address, never with the credentials."""
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return path if _is_http(parts) else f"{parts.scheme.lower()}://{_host(parts)}{path}"


def _authorization(parts: SplitResult, method: str, target: str, headers: Message) -> str:
    """The header that proves who we are, by digest where that is offered; empty where neither is."""
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    offers = {offer.partition(" ")[0].lower(): offer for offer in headers.get_all("WWW-Authenticate", [])}
    if "digest" in offers:
        return _digest(user, password, method, target, offers["digest"].partition(" ")[2], token_hex(8))
    if "basic" in offers:
        return "Basic " + b64encode(f"{user}:{password}".encode()).decode("ascii")
    return ""


def _digest(user: str, password: str, method: str, target: str, offer: str, cnonce: str) -> str:
    """RFC 2617, 3.2.2, with MD5, which is what cameras speak."""
    fields = parse_keqv_list(parse_http_list(offer))
    realm, nonce = fields.get("realm", ""), fields.get("nonce", "")
    said = {"username": user, "realm": realm, "nonce": nonce, "uri": target}
    secret, request = _md5(f"{user}:{realm}:{password}"), _md5(f"{method}:{target}")
    between = f"00000001:{cnonce}:auth:" if "qop" in fields else ""
    said["response"] = _md5(f"{secret}:{nonce}:{between}{request}")
    if "opaque" in fields:
        said["opaque"] = fields["opaque"]
    counted = f', qop=auth, nc=00000001, cnonce="{cnonce}"' if between else ""
    return "Digest " + ", ".join(f'{key}="{value}"' for key, value in said.items()) + counted


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _reason(exc: Exception) -> str:
    return (exc.strerror if isinstance(exc, OSError) else None) or str(exc) or type(exc).__name__
