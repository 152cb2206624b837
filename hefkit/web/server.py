"""What the web page's addresses answer; the only room that knows aiohttp (3.8 and newer), which it imports late.

GET  /              the page                        GET  /stats     LiveStats as JSON
GET  /stream.mjpg   multipart/x-mixed-replace       GET  /healthz   200 while all is well, else 503
GET  /snapshot.jpg  the newest picture              POST /pause     {"paused": true}; without a body: the other way
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
from hefkit.web import guard as webguard
from hefkit.web.door import Door
from hefkit.web.frames import BOUNDARY, Picture, Relay
from hefkit.web.guard import Guard
from hefkit.web.page import CONTENT_SECURITY_POLICY, PAGE

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "hefkit",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
COOKIE_SECONDS = 400 * 86400  # browsers keep none for longer
MAX_BODY = 4096

log = logging.getLogger("hefkit-web")  # for bugs, with their traceback


@dataclass(frozen=True)
class Bounds:
    """What viewers may take."""

    viewers: int = 16  # of the stream
    connections: int = 64  # all of them
    stuck_s: float = 10.0  # a viewer that takes no byte of a frame for so long is dropped
    silent_s: float = 10.0  # so is a connection that asks for nothing
    repeat_s: float = 3.0  # the last frame is sent again, so that it shows who has gone
    stale_s: float = 10.0  # without a frame for so long, /healthz says 503


class WebServer:
    """The routes, and the connections of one event loop; made and used on that loop's thread."""

    def __init__(self, relay: Relay, guard: Guard, stats: LiveStats, controls: Controls, bounds: Bounds) -> None:
        from aiohttp import web

        self._web = web
        self._relay, self._guard, self._stats, self._controls, self._bounds = relay, guard, stats, controls, bounds
        self._viewers: set[asyncio.Task[None]] = set()
        self._closing = False
        self._begun = time.monotonic()
        self._listeners: list[asyncio.Server] = []
        quiet = logging.getLogger("hefkit-web.requests")
        quiet.addFilter(_is_no_bad_request)
        self._runner = web.AppRunner(self._app(), access_log=None, logger=quiet, keepalive_timeout=30)

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Serve on bound sockets, which are closed with the server."""
        await self._runner.setup()
        self._door = Door(self._runner.server, self._bounds.connections, self._bounds.silent_s)
        self._watch = asyncio.create_task(self._door.watch())
        loop = asyncio.get_running_loop()
        for sock in sockets:
            self._listeners.append(await loop.create_server(self._door.connection, sock=sock, backlog=32))

    async def close(self) -> None:
        """Drop everybody."""
        self._closing = True
        self._watch.cancel()
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            for sock in listener.sockets:
                # accept no more, but let those in who are at the door: closed at once, asyncio loses them half made
                loop.remove_reader(sock.fileno())
        await asyncio.sleep(0.01)
        for listener in self._listeners:
            listener.close()
        # before anybody is cancelled: with its handler a connection forgets its transport
        transports = [protocol.transport for protocol in await self._door.settled()]
        for task in list(self._viewers):
            task.cancel()
        server: Any = self._runner.server
        await server.shutdown(0.2)
        for transport in transports:
            if transport is not None:
                transport.abort()  # a close would wait until a viewer that never reads has read
        await self._runner.cleanup()
        await asyncio.sleep(0.01)  # the loop closes the sockets in its next rounds

    def _app(self) -> Any:
        web = self._web

        @web.middleware  # which marks what it is given, and a bound method takes no mark
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
        self._door.spoke(request.protocol)
        asked = webguard.Request(request.method, request.headers, request.cookies, request.query)
        refusal = self._guard.refusal(asked)
        if refusal is not None:
            return self._web.Response(status=refusal.status, text=refusal.text + "\n")
        if self._guard.enters(asked):
            return self._entered(request)
        return await handler(request)

    def _entered(self, request: Any) -> Any:
        """The token leaves the address bar and becomes a cookie."""
        # the last part of the path alone: a full one such as //elsewhere/ would lead there
        place = "./" + request.path.rpartition("/")[2]
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
                request.transport.abort()  # a polite end would wait for the same viewer again
        finally:
            self._viewers.discard(task)
        return response

    async def _show(self, response: Any) -> None:
        """Frame after frame, the newest when the viewer has taken the last one; ends with an exception."""
        await response.write(f"--{BOUNDARY}\r\n".encode("ascii"))
        seen: Picture | None = None
        while not self._closing:
            picture = await self._relay.after(seen, self._bounds.repeat_s)
            if picture is not None:
                await asyncio.wait_for(response.write(picture.part), self._bounds.stuck_s)
            seen = picture


async def _add_headers(request: Any, response: Any) -> None:
    response.headers.update(HEADERS)


def _is_no_bad_request(record: logging.LogRecord) -> bool:
    """Whether this is about us: whatever scans the network for open ports sends garbage, and is no news."""
    from aiohttp.http_exceptions import HttpProcessingError

    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def _dumps(value: object) -> str:
    return json.dumps(value, allow_nan=False)
