"""The web page in a real browser: the picture moves, the buttons work, hostile names stay text."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from hefkit.detect.detections import Detections
from hefkit.live.addresses import WebAddress
from hefkit.live.state import Controls, LiveStats
from hefkit.web.sink import WebSink
from tests.helpers.chromium import Tab, browser, find_chromium, new_tab
from tests.helpers.fake_live import live_result

pytestmark = pytest.mark.xdist_group("clock")  # it looks at the clock: one process for all such files

HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>\'"&lt;'
NAMES = {0: "drone", 1: HOSTILE}
FOUND = Detections(
    np.array([[8, 8, 60, 60], [70, 70, 90, 90], [10, 70, 50, 99]], np.float32),
    np.array([0.9, 0.6, 0.5], np.float32),
    np.array([0, 1, 0]),
)
# what the picture shows in one place, read back from the page
PIXEL = """(() => {
  const canvas = document.createElement("canvas"), image = document.getElementById("picture");
  if (!image.naturalWidth) return null;
  canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  return context.getImageData(canvas.width - 2, canvas.height - 2, 1, 1).data[0];
})()"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a running browser; each test has a tab with cookies of its own."""
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with browser(program, tmp_path_factory.mktemp("browser") / "profile") as port:
        yield port


class Live:
    """A detector that sees the same three objects in every frame; frames grow brighter, and wrap."""

    def __init__(self, address: WebAddress, token: str | None) -> None:
        self.controls, self.stats = Controls(), LiveStats("best.emulated.onnx", "garden")
        self.stats.model("emulated", NAMES)
        self.stats.camera("open")
        self.stats.temperature(51.2)
        self.stats.dropped(7)
        self.sink = WebSink(address, self.stats, self.controls, token)
        self.number = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.04):
            self.controls.wait_while_paused(0.1)
            if not self.controls.paused:
                self.number += 1
                result = replace(live_result(self.number, found=FOUND, size_wh=(320, 240)), names=NAMES)
                self.sink.put(result)
                self.stats.add(result, 0.001)

    def close(self) -> None:
        """End it."""
        self._stop.set()
        self._thread.join()
        self.sink.close()


@pytest.fixture
def live() -> Iterator[Live]:
    """On loopback."""
    running = Live(WebAddress("127.0.0.1", 0), None)
    yield running
    running.close()


@contextlib.asynccontextmanager
async def page(chromium: int, url: str) -> AsyncIterator[Tab]:
    """The page, open and with its first statistics."""
    async with new_tab(chromium) as tab:
        await tab.open(url)
        await tab.until("document.getElementById('frames').textContent")
        yield tab


def test_the_page_lives(chromium: int, live: Live) -> None:
    """Picture, rate, latencies, counts, temperature; the browser has nothing to complain of."""

    async def watch() -> None:
        async with page(chromium, f"http://127.0.0.1:{live.sink.port}/") as tab:
            seen = {await tab.until(PIXEL)}
            deadline = time.monotonic() + 15
            while len(seen) < 8 and time.monotonic() < deadline:
                seen.add(await tab.evaluate(PIXEL))
            assert len(seen) >= 8, "the picture stands still"

            await tab.until("Number(document.getElementById('fps').textContent) > 1")
            text = await tab.evaluate("document.body.innerText")
            for words in ("best.emulated.onnx", "INT8 emulation", "garden", "51 °C", "25 ms", "preprocess"):
                assert words in text, words
            rows = await tab.evaluate(
                "[...document.querySelectorAll('#classes tr')].map(r => [...r.cells].map(c => c.textContent))"
            )
            assert [(name, now) for name, now, _ in rows] == [("drone", "2"), (HOSTILE, "1")]
            assert await tab.evaluate("document.getElementById('dropped').textContent") == "7"
            assert await tab.evaluate("document.getElementById('state').textContent") == "live"
            assert await tab.evaluate("window.hacked") is None
            assert await tab.evaluate("document.images.length") == 1
            assert tab.said == []

    asyncio.run(watch())


def test_pause_and_snapshot(chromium: int, live: Live, tmp_path: Path) -> None:
    """Clicked with the mouse: processing stops and goes on, and a picture lands in the downloads."""
    downloads = tmp_path / "downloads"
    downloads.mkdir()

    async def watch() -> None:
        async with page(chromium, f"http://127.0.0.1:{live.sink.port}/") as tab:
            place = {"browserContextId": tab.context, "downloadPath": str(downloads)}
            await tab.call("Browser.setDownloadBehavior", behavior="allow", **place)
            await tab.click("#pause")
            await tab.until("document.getElementById('state').textContent === 'paused'")
            assert live.controls.paused
            assert await tab.evaluate("document.getElementById('pause').textContent") == "Resume"
            await asyncio.sleep(0.3)
            number = live.number

            await tab.click("#snapshot")
            for _ in range(200):
                if list(downloads.glob("*.jpg")):
                    break
                await asyncio.sleep(0.05)
            [saved] = downloads.glob("hefkit-*.jpg")
            picture = cv2.imread(str(saved))
            assert picture.shape == (240, 320, 3)
            assert abs(int(picture[-2, -2, 0]) - number % 256) <= 2
            assert live.number == number

            await tab.click("#pause")
            await tab.until("document.getElementById('state').textContent === 'live'")
            assert not live.controls.paused
            assert tab.said == []

    asyncio.run(watch())


def test_a_phone(chromium: int, live: Live) -> None:
    """In a small window nothing is cut off at the side, and picture and buttons come first."""

    async def watch() -> None:
        async with page(chromium, f"http://127.0.0.1:{live.sink.port}/") as tab:
            await tab.size(320, 568, mobile=True)
            await tab.until(PIXEL)
            widths = await tab.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
            places = await tab.evaluate(
                "['picture', 'pause', 'fps'].map(id => document.getElementById(id).getBoundingClientRect().bottom)"
            )
            assert widths == [320, 320]
            assert places == sorted(places) and places[1] <= 568

    asyncio.run(watch())


def test_the_token_in_the_browser(chromium: int) -> None:
    """It vanishes from the address, no script can read the cookie, and the stream, the figures and pause work."""
    running = Live(WebAddress("0.0.0.0", 0), "a-token-of-the-tests")

    async def watch() -> None:
        url = f"http://127.0.0.1:{running.sink.port}/"
        async with new_tab(chromium) as tab:
            await tab.open(url)
            assert "This page needs the token." in await tab.evaluate("document.body.innerText")
            await tab.open(f"{url}?token=a-token-of-the-tests")
            await tab.until("document.getElementById('frames').textContent")
            assert await tab.evaluate("location.href") == url
            assert await tab.evaluate("document.cookie") == ""
            await tab.until(PIXEL)
            await tab.click("#pause")
            await tab.until("document.getElementById('state').textContent === 'paused'")
            assert running.controls.paused

    try:
        asyncio.run(watch())
    finally:
        running.close()


def test_it_comes_back(chromium: int, live: Live) -> None:
    """A page that was open when the detector was restarted goes on by itself."""

    async def watch() -> None:
        async with page(chromium, f"http://127.0.0.1:{live.sink.port}/") as tab:
            await tab.until(PIXEL)
            live.close()
            await tab.until("document.getElementById('state').textContent === 'no connection'")
            again: Any = Live(WebAddress("127.0.0.1", live.sink.port), None)
            try:
                await tab.until("document.getElementById('state').textContent === 'live'")
                before = await tab.until(PIXEL)
                await tab.until(f"{PIXEL} !== {before}")
            finally:
                again.close()

    asyncio.run(watch())
