"""How many connections there are, and for how long they may say nothing: whoever reaches the port can open some."""

from __future__ import annotations

import asyncio
import time
from typing import Any


class Door:
    """Makes the protocols of a listening socket's connections.

    Args:
        server: aiohttp's low-level server, which makes them and knows which are connected.
        most: connections at a time; one more is hung up on.
        silent_s: how long one may take until its first request is complete.
    """

    def __init__(self, server: Any, most: int, silent_s: float) -> None:
        self._server, self._most, self._silent_s = server, most, silent_s
        self._new: set[Any] = set()  # made, but perhaps not connected yet
        self._silent: dict[Any, float] = {}  # protocol -> time.monotonic() when it was made

    def connection(self) -> asyncio.Protocol:
        """The protocol of a new connection."""
        there = {*self._server.connections, *self._new}
        if len(there) >= self._most:
            return _HangUp()
        self._silent = {protocol: since for protocol, since in self._silent.items() if protocol in there}
        protocol: Any = self._server()
        self._new.add(protocol)
        self._silent[protocol] = time.monotonic()
        asyncio.get_running_loop().call_later(0.1, self._new.discard, protocol)
        return protocol

    def spoke(self, protocol: Any) -> None:
        """It has asked for something."""
        self._silent.pop(protocol, None)

    async def settled(self) -> set[Any]:
        """The protocols of all connections, once those that were just being accepted have come; when nobody listens."""
        for _ in range(40):
            await asyncio.sleep(0.005)
            if all(protocol.transport is not None for protocol in self._new):
                break
        return {*self._server.connections, *self._new}

    async def watch(self) -> None:
        """Send away whoever says nothing, until cancelled."""
        while True:
            await asyncio.sleep(self._silent_s / 4)
            for protocol, since in list(self._silent.items()):
                if time.monotonic() - since > self._silent_s:
                    del self._silent[protocol]
                    protocol.force_close()


class _HangUp(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()
