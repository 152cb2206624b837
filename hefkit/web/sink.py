"""The sink of `--web`: listens, finds the token, and serves on a thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
import sys
import threading
from concurrent.futures import Future

from hefkit.cli import need
from hefkit.errors import UsageError
from hefkit.live.addresses import WebAddress, host_port, secret
from hefkit.live.state import Controls, LiveResult, LiveStats
from hefkit.text import log
from hefkit.web.frames import Relay
from hefkit.web.guard import TOKEN_FIELD, Guard, new_token
from hefkit.web.server import Bounds, WebServer
from hefkit.web.token_file import TOKEN_VARIABLE

# the kernel's buffer of a connection; without a bound it grows to megabytes, and a slow viewer sees old frames
SEND_BUFFER_BYTES = 128 << 10
END_S = 2.0  # how long `close` waits for the thread


class WebSink:
    """Serves the page as soon as it is made.

    Args:
        address: where to listen; outside of loopback every request needs the token.
        stats: shown on the page.
        controls: what the button on the page pauses.
        token: None: from HEFKIT_WEB_TOKEN or the file that HEFKIT_WEB_TOKEN_FILE names; if neither is set, none is
            needed on loopback, and elsewhere a token is made and printed.
        bounds: what viewers may use.

    Raises:
        UsageError: the port is in use, the address is not one of this machine, or the token cannot be used.
        ToolchainError: aiohttp is missing.
    """

    def __init__(
        self,
        address: WebAddress,
        stats: LiveStats,
        controls: Controls,
        token: str | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        given = token if token is not None else secret(TOKEN_VARIABLE)
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(sock) for sock in bound_sockets(address)]
            self.port: int = sockets[0].getsockname()[1]
            private = all(_is_loopback(sock) for sock in sockets)
            self.token = given if given is not None or private else new_token()
            guard = Guard(self.token, address.host, self.port)
            need("aiohttp")
            self._start(sockets, guard, stats, controls, bounds or Bounds())
            stack.pop_all()
        self._print_address(address, given)

    def _start(
        self, sockets: list[socket.socket], guard: Guard, stats: LiveStats, controls: Controls, bounds: Bounds
    ) -> None:
        ready: Future[None] = Future()

        async def serve() -> None:
            loop = asyncio.get_running_loop()
            self._loop, self._stop, self._relay = loop, asyncio.Event(), Relay(loop)
            server = WebServer(self._relay, guard, stats, controls, bounds)
            await server.start(sockets)
            try:
                ready.set_result(None)
                await self._stop.wait()
            finally:
                await server.close()
                self._relay.close()

        def run() -> None:
            try:
                asyncio.run(serve())
            except BaseException as exc:
                if ready.done():
                    raise
                ready.set_exception(exc)

        self._closed = False
        self._thread = threading.Thread(target=run, name="web", daemon=True)
        self._thread.start()
        ready.result()

    def put(self, result: LiveResult) -> None:
        """Take the newest result; neither encodes nor waits."""
        if not self._closed:
            self._relay.put(result)

    def close(self) -> None:
        """Close every connection and end the thread."""
        if not self._closed:
            self._closed = True
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(END_S)

    def _print_address(self, address: WebAddress, given: str | None) -> None:
        """Print where the page is. A token that we made is printed with `--quiet` too: it is nowhere else."""
        host = address.host
        with contextlib.suppress(ValueError):
            host = socket.gethostname() if ipaddress.ip_address(host).is_unspecified else host
        url = f"http://{host_port(host, self.port)}/"
        if self.token is None or given is not None:
            log.info("the web page is at %s%s", url, "" if given is None else "; it asks for the token")
        else:
            sys.stderr.write(f"the web page is at {url}?{TOKEN_FIELD}={self.token}\n")


def bound_sockets(address: WebAddress) -> list[socket.socket]:
    """A listening socket for each address that the host name stands for.

    Raises:
        UsageError: it cannot listen there.
    """
    with contextlib.ExitStack() as stack:
        try:
            found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            sockets = [stack.enter_context(_bound(family, place)) for family, _, _, _, place in dict.fromkeys(found)]
        except (OSError, UnicodeError) as exc:  # UnicodeError: not a name that can be looked up
            raise UsageError(_refused(address, exc)) from exc
        stack.pop_all()
    return sockets


def _bound(family: int, place: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)  # connections inherit it
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(place)
        sock.listen(32)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _refused(address: WebAddress, exc: OSError | UnicodeError) -> str:
    code = getattr(exc, "errno", None)
    if code == errno.EADDRINUSE:
        return f"cannot serve on {address}: another program listens there; expected a free port; choose another"
    if code in (errno.EACCES, errno.EPERM):
        return f"cannot serve on {address}: ports below 1024 are for the system; choose a higher one"
    why = getattr(exc, "strerror", None) or exc
    return f"cannot serve on {address}: {why}; expected an address of this machine, such as 127.0.0.1 or 0.0.0.0"


def _is_loopback(sock: socket.socket) -> bool:
    return ipaddress.ip_address(sock.getsockname()[0].partition("%")[0]).is_loopback
