"""Who gets the page: rows of requests as curl, browsers and attackers send them."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import pytest

from hefkit.errors import UsageError
from hefkit.web.guard import FOREIGN_HOST, FOREIGN_PAGE, NO_TOKEN, Guard, Refusal, Request, new_token

TOKEN = "0123456789abcdef"
OPEN = Guard(None, "127.0.0.1", 8080)
CLOSED = Guard(TOKEN, "0.0.0.0", 8080)


def request(method: str = "GET", *, host: str = "localhost:8080", headers: Mapping[str, str] | None = None,
            **more: Any) -> Request:  # fmt: skip
    """A request as aiohttp describes it."""
    return Request(method, {"Host": host, **(headers or {})}, more.get("cookies", {}), more.get("query", {}))


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8080", "LOCALHOST:9000", "127.0.0.1:8080", "127.9.9.9", "[::1]:8080", "cam.localhost:1"],
)
def test_loopback_by_its_names(host: str) -> None:
    """Whatever port: through an SSH tunnel it is another one."""
    assert OPEN.refusal(request(host=host)) is None


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "192.168.1.7:8080", "",
     "[::1", "0.0.0.0:8080", "localhost@evil.example", "[::ffff:8.8.8.8]"],
)  # fmt: skip
def test_dns_rebinding(host: str) -> None:
    """A foreign name that points to 127.0.0.1 is in the Host header, and is refused."""
    assert OPEN.refusal(request(host=host)) == FOREIGN_HOST


def test_the_host_that_we_serve_on() -> None:
    """Debian gives a machine's own name the address 127.0.1.1."""
    guard = Guard(None, "Shed-Pi", 8080)

    assert guard.refusal(request(host="shed-pi:8080")) is None
    assert guard.refusal(request(host="other-pi:8080")) == FOREIGN_HOST


def basic(text: str) -> str:
    """As a player sends user:password."""
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"headers": {"Authorization": f"Bearer {TOKEN}"}}, id="a header"),
        pytest.param({"headers": {"Authorization": f"bearer  {TOKEN} "}}, id="a header in another style"),
        pytest.param({"headers": {"Authorization": basic(f"anybody:{TOKEN}")}}, id="a player's password"),
        pytest.param({"query": {"token": TOKEN}}, id="the address"),
        pytest.param({"cookies": {"hefkit_8080": CLOSED.cookie}}, id="the cookie"),
        pytest.param({"headers": {"Authorization": f"Bearer {TOKEN}"}, "host": "shed-pi.local:8080"}, id="any name"),
    ],
)
def test_the_token_opens(more: dict[str, Any]) -> None:
    """Wherever it is sent."""
    assert CLOSED.refusal(request(**more)) is None


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"headers": {"Authorization": f"Bearer {TOKEN}x"}}, id="longer"),
        pytest.param({"headers": {"Authorization": f"Bearer {TOKEN[:-1]}"}}, id="shorter"),
        pytest.param({"headers": {"Authorization": TOKEN}}, id="without a scheme"),
        pytest.param({"headers": {"Authorization": "Bearer "}}, id="empty"),
        pytest.param({"headers": {"Authorization": f"Digest {TOKEN}"}}, id="another scheme"),
        pytest.param({"headers": {"Authorization": basic(TOKEN)}}, id="the token as a user"),
        pytest.param({"headers": {"Authorization": "Basic \xff!"}}, id="no base64"),
        pytest.param({"headers": {"Authorization": "Basic /w=="}}, id="no UTF-8"),
        pytest.param({"query": {"token": ""}}, id="an empty one in the address"),
        pytest.param({"query": {"token": CLOSED.cookie}}, id="the cookie's value in the address"),
        pytest.param({"query": {"token": "\ud800"}}, id="what cannot be encoded"),
        pytest.param({"cookies": {"hefkit_8080": TOKEN}}, id="the token as the cookie"),
        pytest.param({"cookies": {"hefkit_8081": CLOSED.cookie}}, id="another port's cookie"),
        pytest.param({"cookies": {"hefkit_8080": Guard(TOKEN[::-1], "::", 8080).cookie}}, id="another token's cookie"),
    ],
)
def test_nothing_else_does(more: dict[str, Any]) -> None:
    """401, on loopback too."""
    assert CLOSED.refusal(request(**more)) == NO_TOKEN
    assert not CLOSED.enters(request(**more))


@pytest.mark.parametrize(
    "method, headers, refused",
    [
        pytest.param("POST", {}, None, id="curl"),
        pytest.param("POST", {"Origin": "http://localhost:8080"}, None, id="our page"),
        pytest.param("POST", {"Origin": "https://localhost:8080"}, None, id="our page behind TLS"),
        pytest.param("POST", {"Sec-Fetch-Site": "same-origin"}, None, id="our page, without Origin"),
        pytest.param("POST", {"Origin": "http://evil.example"}, FOREIGN_PAGE, id="another site"),
        pytest.param("POST", {"Origin": "http://localhost:3000"}, FOREIGN_PAGE, id="another program of this machine"),
        pytest.param("POST", {"Origin": "null"}, FOREIGN_PAGE, id="a sandboxed page"),
        pytest.param("POST", {"Sec-Fetch-Site": "cross-site"}, FOREIGN_PAGE, id="another site, without Origin"),
        pytest.param("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, None, id="a link"),
        pytest.param("GET", {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, None, id="typed"),
        pytest.param("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, FOREIGN_PAGE, id="an <img>"),
        pytest.param("GET", {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}, FOREIGN_PAGE, id="other port"),
        pytest.param("GET", {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "no-cors"}, None, id="our own <img>"),
    ],
)
def test_other_web_sites(method: str, headers: dict[str, str], refused: Refusal | None) -> None:
    """What a page from elsewhere makes a browser send is refused, with and without a token."""
    assert OPEN.refusal(request(method, headers=headers)) == refused
    cookies = {"hefkit_8080": CLOSED.cookie}
    assert CLOSED.refusal(request(method, headers=headers, cookies=cookies)) == refused


def test_only_a_visit_moves_the_token_into_the_cookie() -> None:
    """A POST with the token in its address is answered, not redirected."""
    assert CLOSED.enters(request(query={"token": TOKEN}))
    assert not CLOSED.enters(request("POST", query={"token": TOKEN}))
    assert not OPEN.enters(request(query={"token": ""}))


def test_tokens_that_are_made() -> None:
    """192 random bits, which Guard accepts."""
    tokens = {new_token() for _ in range(100)}

    assert len(tokens) == 100
    assert all(len(token) == 32 and Guard(token, "::", 1) for token in tokens)


@pytest.mark.parametrize("token", ["", "short", "with a space in it", "with-ümlauts-in-it", "x" * 15, "line\nend" * 4])
def test_tokens_that_are_no_use(token: str) -> None:
    """Short ones can be found by trying; others do not fit into a header."""
    with pytest.raises(UsageError, match="token for the web page cannot be used") as caught:
        Guard(token, "::", 1)
    assert not token or token not in str(caught.value)
