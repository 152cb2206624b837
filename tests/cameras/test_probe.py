"""The question that tells why an address cannot be opened: its form, and a sentence for every answer."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from hefkit.cameras.probe import Unreachable, ask, check_server, explain
from tests.helpers.loopback import Handler, encrypted, listening, request_head


def answered(status: str, headers: str = "", seen: list[str] | None = None) -> Handler:
    """A handler that answers one request."""

    def handler(connection: socket.socket) -> None:
        head = request_head(connection)
        if seen is not None:
            seen.append(head)
        connection.sendall(f"{status}\r\n{headers}\r\n".encode())

    return handler


def test_the_question_is_well_formed() -> None:
    """Method, address without credentials, and nothing of the password before it is wanted."""
    seen: list[str] = []
    with listening(answered("RTSP/1.0 200 OK", "CSeq: 1\r\n", seen)) as port:
        check_server(f"rtsp://me:s3cret@127.0.0.1:{port}/a/b?c=1", 5)
        assert ask(f"rtsp://me:s3cret@127.0.0.1:{port}/a/b?c=1", 5).status == 200

    expected = f"rtsp://127.0.0.1:{port}/a/b?c=1 RTSP/1.0\r\nCSeq: 1\r\n"
    assert seen[0].startswith(f"OPTIONS {expected}") and seen[1].startswith(f"DESCRIBE {expected}")
    assert "s3cret" not in "".join(seen) and "Authorization" not in "".join(seen)


def test_a_login_is_never_sent() -> None:
    """A server that wants one is asked once, and its answer is enough."""
    seen: list[str] = []
    offer = 'WWW-Authenticate: Basic realm="cam"\r\n'
    with listening(answered("HTTP/1.1 401 No", offer, seen)) as port:
        answer = ask(f"http://po%40re:p%40ss@127.0.0.1:{port}", 5)

    assert answer.status == 401
    [question] = seen
    assert question.startswith(f"GET / HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n")
    assert "Authorization" not in question and "po" not in question and "ss" not in question


@pytest.mark.parametrize(
    "status, headers, url, words",
    [
        ("RTSP/1.0 401 x", "", "rtsp://{}/x", "wants a user name and a password"),
        ("RTSP/1.0 401 x", "", "rtsp://a:b@{}/x", "wants a login; check the user name, the password and the path"),
        ("RTSP/1.0 403 x", "", "rtsp://a:b@{}/x", "wants a login; check the user name, the password and the path"),
        ("RTSP/1.0 404 x", "", "rtsp://{}/x", "no stream at this path"),
        ("RTSP/1.0 503 x", "", "rtsp://{}/x", "status 503"),
        ("RTSP/1.0 200 OK", "Content-Type: application/sdp\r\n", "rtsp://{}/x", "sends no picture"),
        (
            "HTTP/1.0 200 OK",
            "Content-Type: text/html; charset=utf-8\r\n",
            "http://{}/x",
            "is not a picture",
        ),
        ("RTSP/1.0 200 OK", "", "rtsp://{}/x", "sends no picture"),  # a server that names no content type
        ("HTTP/1.0 302 Found", "Location: /y\r\n", "http://{}/x", "status 302"),
    ],
)
def test_explanations(status: str, headers: str, url: str, words: str) -> None:
    """Every answer has its sentence."""
    with listening(answered(status, headers)) as port:
        full = url.format(f"127.0.0.1:{port}")
        assert words in explain(ask(full, 5), full)


MALFORMED = {
    "empty": b"",
    "a scheme alone": b"Digest",
    "an open quote": b'Digest realm="cam, nonce="abc',
    "commas": b"Digest ,,,=,=,",
    "no value": b"Digest realm=, nonce",
    "bytes": b'Basic realm="\xff\xfe\0\x1b[2J"',
    "long": b"Digest " + b"a=b," * 15_000,
    "no scheme": b'realm="cam"',
}


@pytest.mark.parametrize("offer", MALFORMED.values(), ids=MALFORMED.keys())
@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_a_malformed_offer_of_a_login(scheme: str, offer: bytes) -> None:
    """What the header says is not read, because no login is sent."""

    def camera(connection: socket.socket) -> None:
        request_head(connection)
        connection.sendall(scheme.upper().encode() + b"/1.0 401 No\r\nWWW-Authenticate: " + offer + b"\r\n\r\n")

    with listening(camera) as port:
        url = f"{scheme}://me:s3cret@127.0.0.1:{port}/x"
        assert explain(ask(url, 5), url) == "it wants a login; check the user name, the password and the path"


def test_an_endless_answer_is_not_read_to_its_end() -> None:
    """A server that never stops sending."""

    def flood(connection: socket.socket) -> None:
        while True:
            connection.sendall(b"x" * 4096)

    with listening(flood) as port, pytest.raises(Unreachable, match="its answer is neither RTSP nor HTTP"):
        check_server(f"rtsp://127.0.0.1:{port}/x", 5)


@pytest.mark.parametrize("scheme", ["rtsps", "https"])
def test_encrypted(scheme: str, tmp_path: Path) -> None:
    """A camera with a certificate of its own making; and one that speaks in the clear where TLS was expected."""
    language = {"rtsps": "RTSP/1.0", "https": "HTTP/1.0"}[scheme]

    with listening(encrypted(answered(f"{language} 404 No"), tmp_path)) as port:
        assert ask(f"{scheme}://127.0.0.1:{port}/x", 5).status == 404
    with (
        listening(answered(f"{language} 200 OK")) as port,
        pytest.raises(Unreachable, match=r"the connection broke|does not answer"),
    ):
        ask(f"{scheme}://127.0.0.1:{port}/x", 0.5)


def test_messages_name_no_address() -> None:
    """They are put behind the camera's masked name, and hold nothing of it themselves."""
    for url in ("rtsp://me:s3cret@127.0.0.1:1/x", "rtsp://me:s3cret@nowhere.invalid/x"):
        with pytest.raises(Unreachable) as refused:
            ask(url, 2)
        assert not re.search("s3cret|me:|127|nowhere", str(refused.value)) and urlsplit(url).password == "s3cret"
