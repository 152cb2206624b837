"""What each path of the web page answers; the only module that imports aiohttp (3.8 and newer), and late.

GET  /              the page                        GET  /stats     LiveStats as JSON
GET  /stream.mjpg   multipart/x-mixed-replace       GET  /healthz   200 while frames come, else 503
GET  /snapshot.jpg  the newest picture              POST /pause     {"paused": true}; without a body: toggles
A browser without the token gets a form, which it sends to POST /login.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hefkit.live.state import Controls, LiveStats
from hefkit.web.frames import BOUNDARY, Picture, Relay
from hefkit.web.guard import NO_TOKEN, TOKEN_FIELD, ConnectionLimit, Guard, Request
from hefkit.web.page import CONTENT_SECURITY_POLICY, LOGIN, LOGIN_PATH, LOGIN_POLICY, PAGE

POLICY = "Content-Security-Policy"
HEADERS = {
    "Cache-Control": "no-store",
    POLICY: CONTENT_SECURITY_POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "hefkit",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
COOKIE_SECONDS = 400 * 86400  # the longest time for which browsers keep a cookie
MAX_BODY = 4096  # bytes
WRONG_TOKEN_S = 0.5  # wait before a wrong token is answered


@dataclass(frozen=True)
class Bounds:
    """What all viewers together may use."""

    viewers: int = 16  # of the stream
    connections: int = 64  # those of viewers included
    stuck_s: float = 10.0  # a viewer that has not taken a whole frame after so long is dropped
    silent_s: float = 10.0  # so long without a complete request closes a connection
    repeat_s: float = 3.0  # without a new frame, the last one is sent again, which shows whether the viewer has gone
    stale_s: float = 10.0  # without a new frame for so long, /healthz answers 503


class WebServer:
    """The routes and the connections; made and used on the thread of one event loop."""

    def __init__(self, relay: Relay, guard: Guard, stats: LiveStats, controls: Controls, bounds: Bounds) -> None:
        from aiohttp import web

        self._web = web
        self._relay, self._guard, self._stats, self._controls, self._bounds = relay, guard, stats, controls, bounds
        self._viewers: set[asyncio.Task[None]] = set()
        self._closing = False
        self._begun = time.monotonic()
        self._listeners: list[asyncio.Server] = []
        bugs = logging.getLogger("hefkit-web.requests")
        bugs.addFilter(_is_bug)
        self._runner: Any = web.AppRunner(self._app(), access_log=None, logger=bugs, keepalive_timeout=30)

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Serve on bound sockets, which are closed with the server."""
        await self._runner.setup()
        self._limit = ConnectionLimit(self._runner.server, self._bounds.connections, self._bounds.silent_s)
        self._watch = asyncio.create_task(self._limit.close_silent())
        loop = asyncio.get_running_loop()
        for sock in sockets:
            self._listeners.append(await loop.create_server(self._limit.protocol, sock=sock, backlog=32))

    async def close(self) -> None:
        """Close every connection."""
        self._closing = True
        self._watch.cancel()
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            for sock in listener.sockets:
                # accept no more; asyncio would lose connections that it is just accepting if the listener closed now
                loop.remove_reader(sock.fileno())
        await asyncio.sleep(0.01)
        for listener in self._listeners:
            listener.close()
        for task in list(self._viewers):
            task.cancel()
        self._limit.abort_all()
        await self._runner.server.shutdown(0.2)
        await self._runner.cleanup()
        await asyncio.sleep(0.01)  # the loop closes the sockets in its next rounds

    def _app(self) -> Any:
        web = self._web

        @web.middleware  # sets an attribute of its function, which a bound method does not allow
        async def guarded(request: Any, handler: Any) -> Any:
            return await self._guarded(request, handler)

        app = web.Application(middlewares=[guarded], client_max_size=MAX_BODY)
        app.on_response_prepare.append(_add_headers)
        app.router.add_get("/", self._page)
        app.router.add_get("/stream.mjpg", self._stream, allow_head=False)
        app.router.add_get("/snapshot.jpg", self._snapshot, allow_head=False)
        app.router.add_get("/stats", self._statistics)
        app.router.add_get("/healthz", self._health)
        app.router.add_post("/pause", self._pause)
        return app

    async def _guarded(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        self._limit.asked(request.transport)
        asked = Request(request.method, request.headers, request.cookies, request.query)
        if request.method == "POST" and request.path == LOGIN_PATH:
            return await self._login(request, asked)
        refusal = self._guard.refusal(asked)
        if refusal is NO_TOKEN and request.method == "GET" and "text/html" in request.headers.get("Accept", ""):
            return self._form("This page needs the token.")
        if refusal is not None:
            response = self._web.Response(status=refusal.status, text=refusal.text + "\n")
            response.force_close()  # a connection without the token does not stay open
            return response
        self._limit.welcome(request.transport)
        if self._guard.enters(asked):
            return self._entered(request)
        return await handler(request)

    async def _login(self, request: Any, asked: Request) -> Any:
        """The form was sent: the token becomes the cookie, or the form comes again."""
        given = (await request.post()).get(TOKEN_FIELD)
        if self._guard.enters_by_form(asked, given if isinstance(given, str) else None):
            return self._entered(request)
        await asyncio.sleep(WRONG_TOKEN_S)
        return self._form("This is not the token.")

    def _form(self, words: str) -> Any:
        headers = {POLICY: LOGIN_POLICY}
        return self._web.Response(
            status=NO_TOKEN.status, text=LOGIN.format(words), content_type="text/html", charset="utf-8", headers=headers
        )

    def _entered(self, request: Any) -> Any:
        """Redirect to the same path without the token, which becomes a cookie."""
        # only the last part of the path: a whole one such as //elsewhere/ would lead to another site
        place = "./" + ("" if request.path == LOGIN_PATH else request.path.rpartition("/")[2])
        response = self._web.Response(status=303, headers={"Location": place})
        response.set_cookie(
            self._guard.cookie_name, self._guard.cookie, httponly=True, samesite="Strict", max_age=COOKIE_SECONDS
        )
        return response

    async def _page(self, request: Any) -> Any:
        return self._web.Response(text=PAGE, content_type="text/html", charset="utf-8")

    def _json(self, value: object, status: int = 200) -> Any:
        return self._web.json_response(value, status=status, dumps=_dumps)

    async def _statistics(self, request: Any) -> Any:
        own = {"viewers": len(self._viewers), "encodes": self._relay.encodes}
        return self._json({**self._stats.snapshot(self._controls.paused), "web": own})

    async def _health(self, request: Any) -> Any:
        age_s = time.monotonic() - (self._relay.put_at or self._begun)
        if self._controls.paused:
            status = "paused"
        elif age_s > self._bounds.stale_s:
            status = "stalled"
        else:
            status = "ok" if self._relay.put_at else "starting"
        return self._json({"status": status, "last_frame_s": round(age_s, 1)}, 503 if status == "stalled" else 200)

    async def _snapshot(self, request: Any) -> Any:
        picture = await self._relay.newest()
        if picture is None:
            return self._web.Response(status=503, text="there is no picture yet\n")
        name = f"hefkit-{datetime.fromtimestamp(picture.result.wall):%Y%m%d-%H%M%S}.jpg"
        headers = {"Content-Disposition": f'inline; filename="{name}"'}
        return self._web.Response(body=picture.data, content_type="image/jpeg", headers=headers)

    async def _pause(self, request: Any) -> Any:
        body = await request.read()
        try:
            wanted = json.loads(body)["paused"] if body else not self._controls.paused
        except (ValueError, KeyError, TypeError, RecursionError):
            wanted = None
        if not isinstance(wanted, bool):
            return self._web.Response(status=400, text='expected {"paused": true}, {"paused": false} or nothing\n')
        self._controls.pause(wanted)
        return self._json({"paused": wanted})

    async def _stream(self, request: Any) -> Any:
        if len(self._viewers) >= self._bounds.viewers:
            return self._web.Response(status=503, text=f"there are {len(self._viewers)} viewers already\n")
        response = self._web.StreamResponse(headers={"Content-Type": f"multipart/x-mixed-replace; boundary={BOUNDARY}"})
        task: Any = asyncio.current_task()
        self._viewers.add(task)
        try:
            await response.prepare(request)
            await self._show(response)
        except (asyncio.TimeoutError, ConnectionError):
            if request.transport is not None:
                request.transport.abort()  # an ordinary end would wait for the same viewer again
        finally:
            self._viewers.discard(task)
        return response

    async def _show(self, response: Any) -> None:
        """Send frames until an exception or the end; each is the newest when the viewer has taken the one before."""
        await response.write(f"--{BOUNDARY}\r\n".encode("ascii"))
        seen: Picture | None = None
        while not self._closing:
            picture = await self._relay.after(seen, self._bounds.repeat_s)
            if picture is not None:
                await asyncio.wait_for(response.write(picture.part), self._bounds.stuck_s)
            seen = picture


async def _add_headers(request: Any, response: Any) -> None:
    own = response.headers.get(POLICY)  # of the form
    response.headers.update(HEADERS)
    if own is not None:
        response.headers[POLICY] = own


def _is_bug(record: logging.LogRecord) -> bool:
    """Whether a log record is about our code: programs that scan for open ports send malformed requests."""
    from aiohttp.http_exceptions import HttpProcessingError

    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def _dumps(value: object) -> str:
    return json.dumps(value, allow_nan=False)
