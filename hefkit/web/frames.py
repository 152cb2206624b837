"""The newest picture for any number of viewers: encoded once, when the first one asks for it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from hefkit.live.state import LiveResult, jpeg

BOUNDARY = "hefkit-frame"


@dataclass(frozen=True, eq=False)
class Picture:
    """One frame as a JPEG, and as a part of a multipart/x-mixed-replace stream."""

    result: LiveResult
    data: bytes
    part: bytes


class Relay:
    """Hands the results of the main thread to the coroutines of one event loop, as pictures.

    Nothing is queued: a coroutine gets the newest frame, so a slow viewer misses frames and delays no other viewer.
    Without a viewer nothing is encoded.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.encodes = 0
        self.put_at: float | None = None  # time.monotonic() of the newest result
        self._loop = loop
        self._newest: LiveResult | None = None
        self._waiting = 0
        self._arrived = asyncio.Event()
        self._picture: Picture | None = None
        self._turn = asyncio.Lock()
        # a thread of its own: the loop serves viewers while a picture is encoded
        self._encoder = ThreadPoolExecutor(max_workers=1, thread_name_prefix="web encoder")

    def put(self, result: LiveResult) -> None:
        """Replace the newest result, from any thread; does not wait."""
        self._newest, self.put_at = result, time.monotonic()
        # set, then ask who waits; `_newer` counts itself first and then looks, so that no result is missed
        if self._waiting:
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._arrived.set()
        self._arrived = asyncio.Event()

    async def newest(self) -> Picture | None:
        """The newest frame, encoded; None before the first."""
        async with self._turn:
            result = self._newest
            if result is None:
                return None
            if self._picture is None or self._picture.result is not result:
                self._picture = await self._loop.run_in_executor(self._encoder, self._encode, result)
            return self._picture

    async def after(self, seen: Picture | None, patience_s: float) -> Picture | None:
        """The newest frame as soon as it is not `seen` any more, at the latest after `patience_s`."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._newer(seen), patience_s)
        return await self.newest()

    async def _newer(self, seen: Picture | None) -> None:
        self._waiting += 1
        try:
            while self._newest is (None if seen is None else seen.result):
                await self._arrived.wait()
        finally:
            self._waiting -= 1

    def _encode(self, result: LiveResult) -> Picture:
        self.encodes += 1
        data = jpeg(result.annotated)
        head = f"Content-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n".encode("ascii")
        # the next boundary goes with this picture: browsers show a part when they see its end
        return Picture(result, data, head + data + f"\r\n--{BOUNDARY}\r\n".encode("ascii"))

    def close(self) -> None:
        """End the encoder's thread; nothing may ask for a picture any more."""
        self._encoder.shutdown()
