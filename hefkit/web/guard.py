"""Who may see the web page: the token, the cookie that it becomes, and requests that other web sites cause.

On loopback everybody on this machine may look, unless a token was given. What must be kept out there is a web page
from elsewhere in this machine's browser: it gives its own name in `Host` after DNS rebinding, and its own `Origin`
when it posts.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from hefkit.errors import UsageError

MIN_TOKEN = 16  # characters: what cannot be found by trying
TOKEN_FIELD = "token"


@dataclass(frozen=True)
class Request:
    """What of a request decides; names of headers as a case-insensitive mapping gives them."""

    method: str
    headers: Mapping[str, str]
    cookies: Mapping[str, str]
    query: Mapping[str, str]


@dataclass(frozen=True)
class Refusal:
    """An HTTP status and the sentence that goes with it."""

    status: int
    text: str


FOREIGN_HOST = Refusal(403, "this name is not served here; open the page as http://localhost")
FOREIGN_PAGE = Refusal(403, "requests that another web site causes are refused")
NO_TOKEN = Refusal(
    401,
    "the token is missing or wrong; open the address that the detector printed at its start, or send the token as "
    "'Authorization: Bearer TOKEN'; after a link from another site, reload the page",
)


class Guard:
    """Decides over every request.

    Args:
        token: None: whoever reaches us may see everything; for loopback only.
        host: that we serve on, as the user named it.
        port: goes into the cookie's name: cookies of one host are shared by all its ports.

    Raises:
        UsageError: a token that is too short, or that does not fit into a header.
    """

    def __init__(self, token: str | None, host: str, port: int) -> None:
        if token is not None and (len(token) < MIN_TOKEN or not all("!" <= c <= "~" for c in token)):
            raise UsageError(
                f"the token for the web page cannot be used; expected at least {MIN_TOKEN} letters, digits or signs "
                "of ASCII, without spaces"
            )
        self._token, self._host = token, host.lower()
        self.cookie_name = f"hefkit_{port}"
        # the cookie is not the token itself, and yet outlives a restart with the same token
        self.cookie = hmac.new((token or "").encode(), b"hefkit web page", hashlib.sha256).hexdigest()

    def refusal(self, request: Request) -> Refusal | None:
        """Why this request gets nothing, or None."""
        if self._token is None and not self._is_ours(request.headers.get("Host", "")):
            return FOREIGN_HOST
        if self._token is not None and not self._knows_token(request):
            return NO_TOKEN
        return FOREIGN_PAGE if _caused_by_another_site(request) else None

    def enters(self, request: Request) -> bool:
        """Whether the right token stands in the address, from where it should move into the cookie."""
        return self._token is not None and request.method == "GET" and self._is_token(request.query.get(TOKEN_FIELD))

    def _knows_token(self, request: Request) -> bool:
        cookie = request.cookies.get(self.cookie_name, "")
        given = request.query.get(TOKEN_FIELD), _token_of(request.headers.get("Authorization", ""))
        return any([_same(cookie, self.cookie), *map(self._is_token, given)])

    def _is_token(self, given: str | None) -> bool:
        return self._token is not None and given is not None and _same(given, self._token)

    def _is_ours(self, host_header: str) -> bool:
        """Whether a Host header names this machine's loopback, or the host that we were told to serve on."""
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
    """A token that nobody guesses, fit for addresses and headers."""
    return secrets.token_urlsafe(24)


def _same(given: str, wanted: str) -> bool:
    """Compare in a time that tells nothing, not even a length."""
    digests = (hashlib.sha256(text.encode("utf-8", "replace")).digest() for text in (given, wanted))
    return hmac.compare_digest(*digests)


def _token_of(authorization: str) -> str | None:
    """The token of `Bearer TOKEN`; or the password of `Basic`, which is all that some players can send."""
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
    """`localhost:8080` -> `localhost`; `[::1]` -> `::1`. The port is not looked at: SSH tunnels change it."""
    try:
        return urlsplit(f"//{host_header}").hostname
    except ValueError:
        return None


def _caused_by_another_site(request: Request) -> bool:
    """Whether a browser says that a page from elsewhere is behind this; links that a person follows are fine."""
    headers = request.headers
    site, mode = headers.get("Sec-Fetch-Site", ""), headers.get("Sec-Fetch-Mode", "")
    if request.method in ("GET", "HEAD"):
        return site in ("cross-site", "same-site") and mode != "navigate"
    origin = headers.get("Origin")
    if origin is not None:  # every browser sends it with a POST; "null" is nobody's
        return origin.partition("://")[2] != headers.get("Host")
    return site not in ("", "same-origin", "none")
