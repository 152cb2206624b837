"""A real browser without a screen, driven over its DevTools protocol (chromedevtools.github.io)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp

from tests.helpers.waiting import wait_for

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--hide-scrollbars",
    "--remote-debugging-port=0", "--proxy-server=direct://", "about:blank",
)  # fmt: skip
START_S = 60.0


def find_chromium() -> str | None:
    """Path of the program, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Tab:
    """One page; `said` collects its log entries and exceptions, `context` is the id of its cookies and downloads."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, context: str = "") -> None:
        self.said: list[str] = []
        self.context = context
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self._socket:
            found = message.json()
            if "id" in found:
                self._answers.pop(found["id"]).set_result(found)
            elif found["method"] == "Log.entryAdded":
                self.said.append(found["params"]["entry"]["text"])
            elif found["method"] == "Runtime.exceptionThrown":
                self.said.append(str(found["params"]["exceptionDetails"]))

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one command and return its result."""
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        answer = await asyncio.wait_for(self._answers[number], 30)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    async def open(self, url: str) -> None:
        """Open a URL and wait until the document is parsed; a stream in it continues to load."""
        for domain in ("Page", "Log", "Runtime"):
            await self.call(f"{domain}.enable")
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState !== 'loading'")

    async def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        answer = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, script: str, seconds: float = 15.0) -> Any:
        """Wait until an expression is true; returns its value."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while not (value := await self.evaluate(script)):
            assert loop.time() < deadline, (script, self.said)
            await asyncio.sleep(0.05)
        return value

    async def click(self, selector: str) -> None:
        """Click with the mouse in the middle of an element."""
        box = await self.evaluate(
            f"(() => {{ const e = document.querySelector('{selector}'); e.scrollIntoView();"
            " const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    async def size(self, width: int, height: int, mobile: bool = False) -> None:
        """Set the size of the window in pixels."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile
        )

    async def screenshot(self, path: Path) -> None:
        """Save what the window shows."""
        data = await self.call("Page.captureScreenshot", format=path.suffix[1:].replace("jpg", "jpeg"))
        path.write_bytes(base64.b64decode(data["data"]))


@contextlib.contextmanager
def browser(program: str, profile: Path) -> Iterator[int]:
    """Start the browser with an empty profile; the port where it is driven. End it afterwards."""
    environment = {**os.environ, "HOME": str(profile), "no_proxy": "*"}
    process = subprocess.Popen(
        [program, f"--user-data-dir={profile}", *FLAGS],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment,
    )  # fmt: skip
    file = profile / "DevToolsActivePort"

    def listens() -> bool:
        assert process.poll() is None, "the browser did not start"
        return file.exists() and "\n" in file.read_text()

    try:
        wait_for(listens, START_S)
        yield int(file.read_text().split()[0])
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.asynccontextmanager
async def new_tab(port: int) -> AsyncIterator[Tab]:
    """An empty page with cookies and a cache of its own, which go with it."""
    address = f"http://127.0.0.1:{port}"
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{address}/json/version") as answer:
            url = (await answer.json())["webSocketDebuggerUrl"]
        async with session.ws_connect(url) as control:
            whole = Tab(control)
            own = (await whole.call("Target.createBrowserContext"))["browserContextId"]
            target = (await whole.call("Target.createTarget", url="about:blank", browserContextId=own))["targetId"]
            async with session.ws_connect(f"{address}/devtools/page/{target}", max_msg_size=64 << 20) as socket:
                tab = Tab(socket, own)
                yield tab
            await tab._reader
            await whole.call("Target.disposeBrowserContext", browserContextId=own)
        await whole._reader


@contextlib.asynccontextmanager
async def browser_tab(program: str, profile: Path) -> AsyncIterator[Tab]:
    """A page of a browser that is started for it."""
    with browser(program, profile) as port:
        async with new_tab(port) as tab:
            yield tab
