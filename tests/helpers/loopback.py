"""Servers on loopback that a test controls: any answer to a connection, or pictures over HTTP."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

Handler = Callable[[socket.socket], None]


@contextlib.contextmanager
def listening(handler: Handler) -> Iterator[int]:
    """A port: `handler` gets each connection, which is closed after it; handlers end with the test."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        connections: list[socket.socket] = []

        def serve(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                handler(connection)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connections.append(server.accept()[0])
                    threads.append(threading.Thread(target=serve, args=(connections[-1],)))
                    threads[-1].start()

        threads = [threading.Thread(target=accept)]
        threads[0].start()
        try:
            yield server.getsockname()[1]
        finally:
            hang_up(server)
            for connection in connections:
                hang_up(connection)
            for thread in threads:
                thread.join()


def hang_up(connection: socket.socket) -> None:
    """Shut a socket down, which ends every call that waits for it."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def silent(connection: socket.socket) -> None:
    """Read everything and never answer."""
    while connection.recv(4096):
        pass


def saying(*answers: bytes) -> Handler:
    """A handler that gives one answer to each request, then none."""

    def answer(connection: socket.socket) -> None:
        for words in answers:
            if request_head(connection):
                connection.sendall(words)
        silent(connection)

    return answer


def request_head(connection: socket.socket) -> str:
    """The head of a request; empty when the other side has closed the connection."""
    head = b""
    while b"\r\n\r\n" not in head:
        if not (data := connection.recv(4096)):
            return ""
        head += data
    return head.decode("latin-1")


def encrypted(handler: Handler, folder: Path) -> Handler:
    """The same handler behind TLS with a self-signed certificate, as cameras have; skips without openssl."""
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=cam", "-days", "2"]
    try:
        files = ["-keyout", folder / "key", "-out", folder / "cert"]
        subprocess.run([*made, *files], check=True, capture_output=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("no openssl program to make a certificate with")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert", folder / "key")

    def answer(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            handler(secure)

    return answer


def mjpeg(
    pictures: int,
    then: str = "end",
    password: str = "",
    rate: float = 50.0,
    size_wh: tuple[int, int] = (64, 48),
) -> Handler:
    """An HTTP camera at /live: `pictures` pictures, each of another colour, then `then`: "end" or "silence"."""
    wanted = "Basic " + base64.b64encode(f"watcher:{password}".encode()).decode()

    def answer(connection: socket.socket) -> None:
        head = request_head(connection)
        if not head.startswith("GET /live "):
            connection.sendall(b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        elif password and f"Authorization: {wanted}\r\n" not in head:
            connection.sendall(
                b'HTTP/1.0 401 Unauthorized\r\nWWW-Authenticate: Basic realm="cam"\r\nContent-Length: 0\r\n\r\n'
            )
        else:
            connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=b\r\n\r\n")
            for index in range(pictures):
                connection.sendall(_part(index, size_wh))
                time.sleep(1 / rate)
            if then == "silence":
                silent(connection)

    return answer


def shade(index: int) -> tuple[int, int, int]:
    """B, G, R of the picture with this number."""
    return 40, 80, 120 + 10 * (index % 10)


def _part(index: int, size_wh: tuple[int, int]) -> bytes:
    _, data = cv2.imencode(".jpg", np.full((size_wh[1], size_wh[0], 3), shade(index), np.uint8))
    head = f"--b\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n".encode()
    return head + data.tobytes() + b"\r\n"
