"""Who may see the web page, and how many connections there may be.

With a token, a request needs the token, or the cookie that replaces it. On loopback no token is needed, so that all
programs of this machine may ask. Pages of other web sites in this machine's browser may not: after DNS rebinding their
requests have a foreign name in `Host`, and when they post, a foreign `Origin`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import ipaddress
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from hefkit.errors import UsageError

MIN_TOKEN = 16  # characters; shorter tokens could be found by trying
TOKEN_FIELD = "token"


@dataclass(frozen=True)
class Request:
    """The parts of a request that `Guard` reads; `headers` is case-insensitive."""

    method: str
    headers: Mapping[str, str]
    cookies: Mapping[str, str]
    query: Mapping[str, str]


@dataclass(frozen=True)
class Refusal:
    """The HTTP status and the text of an answer to a refused request."""

    status: int
    text: str


FOREIGN_HOST = Refusal(403, "this name is not served here; open the page as http://localhost")
FOREIGN_PAGE = Refusal(403, "requests that another web site makes are refused")
NO_TOKEN = Refusal(
    401,
    "the token is missing or wrong; open the address that the detector printed at its start, or send the token as "
    "'Authorization: Bearer TOKEN'; after a link from another site, reload the page",
)


class Guard:
    """Decides whether a request is answered.

    Args:
        token: None: no token is asked for; for loopback only.
        host: the name or address that we serve on, as the user gave it.
        port: part of the cookie's name, because all ports of a host share their cookies.

    Raises:
        UsageError: the token is too short, or does not fit into a header.
    """

    def __init__(self, token: str | None, host: str, port: int) -> None:
        if token is not None and (len(token) < MIN_TOKEN or not all("!" <= c <= "~" for c in token)):
            raise UsageError(
                f"the token for the web page cannot be used; expected at least {MIN_TOKEN} letters, digits or signs "
                "of ASCII, without spaces"
            )
        self._token, self._host = token, host.lower()
        self.cookie_name = f"hefkit_{port}"
        # not the token itself, but the same after a restart with the same token
        self.cookie = hmac.new((token or "").encode(), b"hefkit web page", hashlib.sha256).hexdigest()

    def refusal(self, request: Request) -> Refusal | None:
        """Why this request is refused, or None."""
        if self._token is None and not self._is_ours(request.headers.get("Host", "")):
            return FOREIGN_HOST
        if self._token is not None and not self._knows_token(request):
            return NO_TOKEN
        return FOREIGN_PAGE if _caused_by_another_site(request) else None

    def enters(self, request: Request) -> bool:
        """Whether the address holds the right token, which should move into the cookie."""
        return self._token is not None and request.method == "GET" and self._is_token(request.query.get(TOKEN_FIELD))

    def enters_by_form(self, request: Request, given: str | None) -> bool:
        """Whether the form of this site was sent with the right token."""
        return self._is_token(given) and not _caused_by_another_site(request)

    def _knows_token(self, request: Request) -> bool:
        cookie = request.cookies.get(self.cookie_name, "")
        given = request.query.get(TOKEN_FIELD), _token_of(request.headers.get("Authorization", ""))
        return any([_same(cookie, self.cookie), *map(self._is_token, given)])

    def _is_token(self, given: str | None) -> bool:
        return self._token is not None and given is not None and _same(given, self._token)

    def _is_ours(self, host_header: str) -> bool:
        """Whether a Host header names this machine's loopback, or the host that we serve on."""
        name = _hostname(host_header)
        if name is None:
            return False
        if name in ("localhost", self._host) or name.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False


def new_token() -> str:
    """A random token, fit for addresses and headers."""
    return secrets.token_urlsafe(24)


def _same(given: str, wanted: str) -> bool:
    """Compare two texts in a time that depends on neither of them, nor on their lengths."""
    digests = (hashlib.sha256(text.encode("utf-8", "replace")).digest() for text in (given, wanted))
    return hmac.compare_digest(*digests)


def _token_of(authorization: str) -> str | None:
    """The token of `Bearer TOKEN`, or the password of `Basic`: some video players can send nothing else."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(value.strip(), validate=True).decode("utf-8").partition(":")[2]
    except (binascii.Error, ValueError):
        return None


def _hostname(host_header: str) -> str | None:
    """`localhost:8080` -> `localhost`; `[::1]` -> `::1`. The port does not matter: SSH tunnels change it."""
    try:
        return urlsplit(f"//{host_header}").hostname
    except ValueError:
        return None


def _caused_by_another_site(request: Request) -> bool:
    """Whether a browser says that a page of another site made this request; links that a person follows are fine."""
    headers = request.headers
    site, mode = headers.get("Sec-Fetch-Site", ""), headers.get("Sec-Fetch-Mode", "")
    if request.method in ("GET", "HEAD"):
        return site in ("cross-site", "same-site") and mode != "navigate"
    origin = headers.get("Origin")
    if origin is not None:  # every browser sends it with a POST; "null" is never ours
        return origin.partition("://")[2] != headers.get("Host")
    return site not in ("", "same-origin", "none")


class ConnectionLimit:
    """Limits the connections of listening sockets, and the time until the first request of each.

    A connection is a stranger until a request on it has passed the guard. Where there are too many connections, the
    oldest stranger is closed for a new one, so strangers cannot lock out a viewer who has the token. Strangers of one
    address may have a quarter of the connections.

    Args:
        make_protocol: makes the asyncio protocol that serves one connection.
        most: connections at a time; further ones are closed at once where no stranger is left.
        silent_s: seconds until the first request must be complete; then the connection is closed.
    """

    def __init__(self, make_protocol: Callable[[], asyncio.Protocol], most: int, silent_s: float) -> None:
        self._make_protocol, self._most, self._silent_s = make_protocol, most, silent_s
        # transport -> time.monotonic() of its beginning, None after its first request
        self._open: dict[asyncio.Transport, float | None] = {}
        self._strangers: dict[asyncio.Transport, str] = {}  # transport -> its address, the oldest first

    def protocol(self) -> asyncio.Protocol:
        """The protocol of a new connection, for `loop.create_server`."""
        return _Connection(self, self._make_protocol())

    def opened(self, transport: asyncio.Transport) -> bool:
        """Count a new connection; at a limit the oldest stranger is closed for it. False if there is none to close."""
        peer = transport.get_extra_info("peername")
        address = str(peer[0]) if isinstance(peer, tuple) and peer else ""
        neighbours = [other for other, theirs in self._strangers.items() if theirs == address]
        oldest = None
        if len(neighbours) >= max(self._most // 4, 1):
            oldest = neighbours[0]
        elif len(self._open) >= self._most:
            oldest = next(iter(self._strangers), None)
            if oldest is None:
                return False
        if oldest is not None:
            self.closed(oldest)
            oldest.abort()
        self._open[transport] = time.monotonic()
        self._strangers[transport] = address
        return True

    def welcome(self, transport: asyncio.Transport | None) -> None:
        """Note that a request on a connection has passed the guard."""
        if transport is not None:
            self._strangers.pop(transport, None)

    def asked(self, transport: asyncio.Transport | None) -> None:
        """Note that a request came on a connection."""
        if transport in self._open:
            self._open[transport] = None

    def closed(self, transport: asyncio.Transport) -> None:
        """Forget a connection that has ended."""
        self._open.pop(transport, None)
        self._strangers.pop(transport, None)

    async def close_silent(self) -> None:
        """Close connections that stay silent, until cancelled."""
        while True:
            await asyncio.sleep(self._silent_s / 4)
            latest = time.monotonic() - self._silent_s
            for transport in [t for t, since in self._open.items() if since is not None and since < latest]:
                transport.abort()

    def abort_all(self) -> None:
        """Close every connection without sending what waits: a viewer that does not read would keep its own open."""
        for transport in self._open:
            transport.abort()


class _Connection(asyncio.Protocol):
    """Passes everything on to the protocol that serves, unless there are too many connections."""

    def __init__(self, limit: ConnectionLimit, inner: asyncio.Protocol) -> None:
        self._limit, self._inner = limit, inner

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self._served = transport, self._limit.opened(transport)
        if self._served:
            self._inner.connection_made(transport)
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._served:
            self._limit.closed(self._transport)
            self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()
