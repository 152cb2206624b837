"""Clients of the web page without a browser, and what this process listens on."""

from __future__ import annotations

import http.client
import ipaddress
import os
import socket
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

LISTEN = "0A"  # as the kernel writes it


class Answer(NamedTuple):
    """Of a server; `headers` is case-insensitive."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


def ask(port: int, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
    """One request on a connection of its own; `user_agent=...` becomes User-Agent."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


class Viewer:
    """A viewer of the stream."""

    def __init__(self, port: int, **headers: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        self._connection.request("GET", "/stream.mjpg", headers=headers)
        self._answer = self._connection.getresponse()
        self.status = self._answer.status
        self.content_type = self._answer.headers["Content-Type"]
        if self.status == 200:
            self.boundary = self._answer.readline()

    def frame(self) -> np.ndarray:
        """The next one, (h, w, 3) uint8 BGR; EOFError when the server has ended the stream."""
        length = 0
        while (line := self._answer.readline()) != b"\r\n":
            if not line:
                raise EOFError
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        data = self._answer.read(length)
        assert self._answer.read(2) == b"\r\n" and self._answer.readline() == self.boundary
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        return picture

    def frame_of(self, level: int) -> None:
        """Look at frames until the grey one comes whose pixels have this value."""
        while abs(int(self.frame()[-1, -1, 0]) - level) > 1:
            pass

    def close(self) -> None:
        """Go away."""
        self._answer.close()
        self._connection.close()


def stuck_viewer(port: int) -> socket.socket:
    """A socket that asks for the stream and never reads a byte of it."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", port))
    sock.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return sock


def listening() -> set[str]:
    """The addresses on which this process accepts TCP connections, read off /proc."""
    return {address for address, _, state in _own_sockets() if state == LISTEN}


def connections(port: int) -> int:
    """How many connections a server of this process holds open on a port."""
    return sum(found == port and state != LISTEN for _, found, state in _own_sockets())


def _own_sockets() -> list[tuple[str, int, str]]:
    """Local address, local port and state of every TCP socket of this process."""
    own = set()
    for fd in Path("/proc/self/fd").iterdir():
        try:
            own.add(os.readlink(fd))
        except OSError:  # closed meanwhile
            continue
    found = []
    for table in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
        lines = Path(table).read_text().splitlines()[1:] if os.path.exists(table) else []
        for fields in map(str.split, lines):
            if f"socket:[{fields[9]}]" in own:
                address, _, port = fields[1].partition(":")
                found.append((_address(address), int(port, 16), fields[3]))
    return found


def _address(digits: str) -> str:
    """The kernel prints words of 32 bits in the machine's byte order."""
    words = [int(digits[i : i + 8], 16) for i in range(0, len(digits), 8)]
    return str(ipaddress.ip_address(np.array(words, np.uint32).tobytes()))
