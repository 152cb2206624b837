"""The web page's server, asked over real sockets: answers, refusals, and what viewers cost."""

from __future__ import annotations

import base64
import gc
import hashlib
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from hefkit.errors import ToolchainError, UsageError
from hefkit.live.addresses import WebAddress
from hefkit.live.state import Controls, LiveStats
from hefkit.web import frames as webframes
from hefkit.web import server
from hefkit.web.server import Bounds
from hefkit.web.sink import WebSink
from hefkit.web.token_file import token_in
from tests.helpers.fake_live import NAMES, live_result
from tests.helpers.viewers import Viewer, ask, connections, listening, stuck_viewer
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.xdist_group("clock")  # it looks at the clock: one process for all such files

LOCAL = WebAddress("127.0.0.1", 0)
EVERYWHERE = WebAddress("0.0.0.0", 0)
TOKEN = "a-token-of-the-tests"
PATHS = ("/", "/stream.mjpg", "/snapshot.jpg", "/stats", "/healthz", "/pause", "/nothing-here")
STRIPES = np.random.default_rng(1).integers(0, 256, (480, 640, 3), np.uint8)  # makes a large JPEG


@pytest.fixture
def controls() -> Controls:
    """What the page pauses."""
    return Controls()


@pytest.fixture
def stats() -> LiveStats:
    """What the page shows."""
    stats = LiveStats("model.onnx", "cam")
    stats.model("emulated", NAMES)
    return stats


Serve = Callable[..., WebSink]


@pytest.fixture
def serve(stats: LiveStats, controls: Controls, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Makes sinks; in the end they are closed, and nothing of them is left."""
    monkeypatch.delenv("HEFKIT_WEB_TOKEN", raising=False)
    monkeypatch.delenv("HEFKIT_WEB_TOKEN_FILE", raising=False)
    made: list[WebSink] = []

    def make(address: WebAddress = LOCAL, token: str | None = None, **bounds: Any) -> WebSink:
        made.append(WebSink(address, stats, controls, token, Bounds(**bounds)))
        return made[-1]

    before = listening()
    yield make
    for sink in made:
        sink.close()
    assert not [t.name for t in threading.enumerate() if t.name.startswith("web")]
    assert listening() == before


@pytest.fixture
def encodes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every JPEG that is made."""
    made: list[int] = []
    real = webframes.jpeg
    monkeypatch.setattr(webframes, "jpeg", lambda picture: made.append(int(picture[-1, -1, 0])) or real(picture))
    return made


def web_facts(sink: WebSink) -> dict[str, int]:
    """What /stats says of the server itself."""
    found: dict[str, int] = json.loads(ask(sink.port, "/stats").body)["web"]
    return found


class TestAnswers:
    """Every address of the page."""

    def test_page(self, serve: Serve) -> None:
        """One document that loads nothing from elsewhere."""
        answer = ask(serve().port, "/")

        assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert b"stream.mjpg" in answer.body and b"http" not in answer.body
        for element in ("script", "style"):  # the policy lets the browser use exactly these two
            [inline] = re.findall(rf"<{element}>(.*?)</{element}>".encode(), answer.body, re.DOTALL)
            allowed = base64.b64encode(hashlib.sha256(inline).digest()).decode()
            assert f"{element}-src 'sha256-{allowed}'" in answer.headers["Content-Security-Policy"]
        assert len(re.findall(rb'(?:src|href)="(?!snapshot\.jpg|data:,)', answer.body)) == 0

    @pytest.mark.parametrize("path", PATHS)
    def test_headers(self, path: str, serve: Serve) -> None:
        """Nothing is kept, framed, sniffed or loaded from elsewhere, whatever the answer."""
        sink = serve()
        sink.put(live_result())
        if path == "/stream.mjpg":
            viewer = Viewer(sink.port)
            headers = viewer._answer.headers
            viewer.close()
        else:
            headers = ask(sink.port, path).headers

        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["Server"] == "hefkit"

    def test_stats(self, serve: Serve, stats: LiveStats, controls: Controls) -> None:
        """The snapshot as it is, and what the page costs."""
        sink = serve()
        for number in range(3):
            stats.add(live_result(number), 0.001)
        stats.temperature(47.5)
        controls.pause(True)

        answer = ask(sink.port, "/stats")
        shown = json.loads(answer.body)
        assert answer.headers["Content-Type"].startswith("application/json")
        assert shown.pop("web") == {"viewers": 0, "encodes": 0}
        shown.pop("uptime_s")
        expected = stats.snapshot(paused=True)
        expected.pop("uptime_s")
        assert shown == expected
        assert (shown["by_class"], shown["temperature_c"], shown["paused"]) == ({"bird": 3}, 47.5, True)

    def test_snapshot(self, serve: Serve) -> None:
        """The newest picture with its boxes, under a name that says when it was taken."""
        sink = serve()
        assert ask(sink.port, "/snapshot.jpg").status == 503

        for number in (10, 200):
            sink.put(live_result(number, size_wh=(320, 240)))
        answer = ask(sink.port, "/snapshot.jpg")

        picture = cv2.imdecode(np.frombuffer(answer.body, np.uint8), cv2.IMREAD_COLOR)
        assert answer.headers["Content-Type"] == "image/jpeg"
        assert re.fullmatch(r'inline; filename="hefkit-\d{8}-\d{6}\.jpg"', answer.headers["Content-Disposition"])
        assert picture.shape == (240, 320, 3)
        assert abs(int(picture[200, 200, 0]) - 200) <= 1
        assert np.ptp(picture[:60, :60]) > 100  # the box

    def test_stream(self, serve: Serve) -> None:
        """Parts of a multipart that never ends; a viewer who comes late sees the newest frame at once."""
        sink = serve(repeat_s=60)
        sink.put(live_result(40))
        viewer = Viewer(sink.port)
        first = viewer.frame()
        sink.put(live_result(90))
        second = viewer.frame()
        viewer.close()

        assert viewer.content_type == "multipart/x-mixed-replace; boundary=hefkit-frame"
        assert viewer.boundary == b"--hefkit-frame\r\n"
        assert [abs(int(f[-1, -1, 0]) - level) <= 1 for f, level in ((first, 40), (second, 90))] == [True, True]

    def test_health(self, serve: Serve, controls: Controls) -> None:
        """200 while frames come or the run is paused; 503 when they have stopped by themselves."""
        sink = serve(stale_s=0.3)
        assert ask(sink.port, "/healthz").status == 200
        assert json.loads(ask(sink.port, "/healthz").body)["status"] == "starting"
        sink.put(live_result())
        assert json.loads(ask(sink.port, "/healthz").body)["status"] == "ok"
        wait_for(lambda: ask(sink.port, "/healthz").status == 503)
        assert json.loads(ask(sink.port, "/healthz").body)["status"] == "stalled"
        controls.pause(True)
        assert ask(sink.port, "/healthz").status == 200

    @pytest.mark.parametrize(
        "before, body, status, after",
        [
            pytest.param(False, b'{"paused": true}', 200, True, id="pause"),
            pytest.param(True, b'{"paused": true}', 200, True, id="pause twice"),
            pytest.param(True, b'{"paused": false}', 200, False, id="resume"),
            pytest.param(False, b"", 200, True, id="the other way"),
            pytest.param(True, b"", 200, False, id="and back"),
            pytest.param(False, b'{"paused": 1}', 400, False, id="no boolean"),
            pytest.param(False, b"[]", 400, False, id="no object"),
            pytest.param(False, b"[" * 4000, 400, False, id="a bomb"),
            pytest.param(False, b"\xff", 400, False, id="no text"),
            pytest.param(False, b"x" * 10_000, 413, False, id="much too long"),
        ],
    )
    def test_pause(self, before: bool, body: bytes, status: int, after: bool, serve: Serve, controls: Controls) -> None:
        """Sets what is asked for, and answers with what is."""
        sink = serve()
        controls.pause(before)
        answer = ask(sink.port, "/pause", "POST", body)

        assert (answer.status, controls.paused) == (status, after)
        if status == 200:
            assert json.loads(answer.body) == {"paused": after}

    def test_other_methods(self, serve: Serve, controls: Controls) -> None:
        """A link cannot pause, and nothing can be put anywhere."""
        sink = serve()

        assert ask(sink.port, "/pause").status == 405
        assert ask(sink.port, "/", "POST").status == 405
        assert ask(sink.port, "/stats", "DELETE").status == 405
        assert not controls.paused


class TestAccess:
    """Who gets in; the rows of single requests are in test_guard.py."""

    def test_loopback_is_open_to_this_machine_only(self, serve: Serve) -> None:
        """No token, no socket on any other address, and a foreign name in Host gets nothing."""
        sink = serve()
        assert sink.token is None
        assert listening() == {"127.0.0.1"}
        for path in PATHS:
            answer = ask(sink.port, path, Host="evil.example")
            assert answer.status == 403 and b"localhost" in answer.body, path

    def test_a_page_from_elsewhere_cannot_pause(self, serve: Serve, controls: Controls) -> None:
        """The browser says where it comes from."""
        sink = serve()

        assert ask(sink.port, "/pause", "POST", Origin="http://evil.example").status == 403
        assert not controls.paused
        assert ask(sink.port, "/pause", "POST", Origin=f"http://127.0.0.1:{sink.port}").status == 200
        assert controls.paused

    def test_elsewhere_nothing_without_the_token(
        self, serve: Serve, controls: Controls, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """It is made, printed once, and asked for at every address."""
        sink = serve(EVERYWHERE)
        printed = capfd.readouterr().err
        assert sink.token is not None and len(sink.token) >= 32
        assert printed == f"the web page is at http://{socket.gethostname()}:{sink.port}/?token={sink.token}\n"

        for path in PATHS:
            for method in ("GET", "POST"):
                assert ask(sink.port, path, method).status == 401, path
                assert ask(sink.port, f"{path}?token={sink.token}x", method).status == 401, path
                assert ask(sink.port, path, method, Authorization="Bearer x").status == 401, path
        assert not controls.paused
        assert ask(sink.port, "/stats", Authorization=f"Bearer {sink.token}").status == 200
        assert ask(sink.port, "/pause", "POST", Authorization=f"Bearer {sink.token}").status == 200
        assert controls.paused
        assert capfd.readouterr().err == ""  # never again

    def test_every_start_makes_another(self, serve: Serve) -> None:
        """It cannot be known beforehand."""
        assert serve(EVERYWHERE).token != serve(EVERYWHERE).token

    @pytest.mark.parametrize("how", ["argument", "HEFKIT_WEB_TOKEN", "HEFKIT_WEB_TOKEN_FILE"])
    def test_a_given_token_is_used_and_not_printed(
        self, how: str, serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
        capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
    ) -> None:  # fmt: skip
        """From the environment or a file; on loopback it is asked for as well."""
        (tmp_path / "token").write_text(TOKEN + "\n")
        if how != "argument":
            monkeypatch.setenv(how, str(tmp_path / "token") if how.endswith("FILE") else TOKEN)
        caplog.set_level(logging.DEBUG)
        sink = serve(token=TOKEN if how == "argument" else None)

        assert ask(sink.port, "/stats").status == 401
        assert ask(sink.port, "/stats", Authorization=f"Bearer {TOKEN}").status == 200
        printed = capfd.readouterr()
        assert TOKEN not in printed.err + printed.out + caplog.text

    def test_a_browser_without_the_token_gets_a_form(self, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
        """The form brings the cookie, a wrong token the form again; another site cannot send it."""
        monkeypatch.setattr(server, "WRONG_TOKEN_S", 0.01)
        sink = serve(EVERYWHERE, token=TOKEN)

        form = ask(sink.port, "/", Accept="text/html,*/*;q=0.8")
        assert form.status == 401 and b'<form method="post" action="login">' in form.body
        assert "form-action 'self'" in form.headers["Content-Security-Policy"]
        assert ask(sink.port, "/stats", Accept="application/json").body.startswith(b"the token is missing")

        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        wrong = ask(sink.port, "/login", "POST", f"token={TOKEN}x".encode(), **kind)
        assert wrong.status == 401 and b"This is not the token." in wrong.body and "Set-Cookie" not in wrong.headers
        foreign = ask(sink.port, "/login", "POST", f"token={TOKEN}".encode(), Origin="http://evil.example", **kind)
        assert foreign.status == 401 and "Set-Cookie" not in foreign.headers

        right = ask(sink.port, "/login", "POST", f"token={TOKEN}".encode(), **kind)
        assert (right.status, right.headers["Location"]) == (303, "./")
        assert ask(sink.port, "/stats", Cookie=right.headers["Set-Cookie"].partition(";")[0]).status == 200

    def test_a_token_that_lasts(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Serve) -> None:
        """Made once, for its owner only; then the same after every start. A variable beside it is refused."""
        path = tmp_path / "new" / "web.token"
        token = token_in(path)
        assert len(token) >= 32 and path.read_text() == f"{token}\n" and path.stat().st_mode & 0o777 == 0o600
        assert [p.name for p in path.parent.iterdir()] == ["web.token"]
        assert token_in(path) == token
        assert ask(serve(token=token).port, "/stats", Authorization=f"Bearer {token}").status == 200

        monkeypatch.setenv("HEFKIT_WEB_TOKEN", TOKEN)
        with pytest.raises(UsageError, match="both given; expected one of them"):
            token_in(path)
        monkeypatch.delenv("HEFKIT_WEB_TOKEN")
        with pytest.raises(UsageError, match="cannot write"):
            token_in(tmp_path / "new" / "web.token" / "below")

    def test_from_the_address_into_the_cookie(self, serve: Serve) -> None:
        """The redirect leads to the same place without the token; the cookie alone then opens everything."""
        sink = serve(EVERYWHERE, token=TOKEN)
        sink.put(live_result())
        answer = ask(sink.port, f"/?token={TOKEN}&x=1")
        assert (answer.status, answer.headers["Location"], answer.body) == (303, "./", b"")
        cookie = answer.headers["Set-Cookie"]
        assert cookie.startswith(f"hefkit_{sink.port}=") and TOKEN not in cookie
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}

        value = cookie.partition(";")[0]
        for path in ("/", "/stats", "/snapshot.jpg", "/healthz"):
            assert ask(sink.port, path, Cookie=value).status == 200, path
        viewer = Viewer(sink.port, Cookie=value)
        viewer.frame()
        viewer.close()
        # with the cookie, a page from elsewhere still cannot pause
        assert ask(sink.port, "/pause", "POST", Cookie=value, Origin="http://evil.example").status == 403

    @pytest.mark.parametrize(
        "path, place",
        [("/stats", "./stats"), ("//evil.example/x", "./x"), ("//evil.example", "./evil.example"), ("/%5c/", "./")],
    )
    def test_the_redirect_stays_here(self, path: str, place: str, serve: Serve) -> None:
        """Whatever stands in the address."""
        answer = ask(serve(EVERYWHERE, token=TOKEN).port, f"{path}?token={TOKEN}")

        assert (answer.status, answer.headers["Location"]) == (303, place)

    def test_the_cookie_outlives_a_restart(self, serve: Serve) -> None:
        """With the same token on the same port."""
        sink = serve(EVERYWHERE, token=TOKEN)
        value = ask(sink.port, f"/?token={TOKEN}").headers["Set-Cookie"].partition(";")[0]
        sink.close()
        again = serve(WebAddress("0.0.0.0", sink.port), token=TOKEN)

        assert ask(again.port, "/stats", Cookie=value).status == 200


class TestStart:
    """Errors are raised before anything else is opened."""

    def test_a_port_in_use(self, serve: Serve) -> None:
        """Named, with exit code 2."""
        port = serve().port

        with pytest.raises(UsageError, match=rf"cannot serve on 127\.0\.0\.1:{port}: another program listens there"):
            serve(WebAddress("127.0.0.1", port))

    @pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid", "x" * 70, "fe80::1%none"])
    def test_no_address_of_ours(self, host: str, serve: Serve) -> None:
        """An address of another machine, a name that does not exist."""
        with pytest.raises(UsageError, match=r"cannot serve on .*; expected an address of this machine"):
            serve(WebAddress(host, 0))

    def test_a_bad_token(self, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
        """The socket that was open for a moment is closed again."""
        before = listening()
        for token in ("", "short"):
            with pytest.raises(UsageError, match="at least 16"):
                serve(token=token)
        monkeypatch.setenv("HEFKIT_WEB_TOKEN", "short")
        with pytest.raises(UsageError, match="at least 16"):
            serve()
        assert listening() == before

    def test_without_aiohttp(self, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
        """Exit code 5 and both ways to install it."""
        monkeypatch.setitem(__import__("sys").modules, "aiohttp", None)

        with pytest.raises(ToolchainError, match=r"pip install aiohttp .*apt install python3-aiohttp"):
            serve()

    def test_ipv6(self, serve: Serve) -> None:
        """::1 is this machine too, and does not take the port of 127.0.0.1."""
        try:
            sink = serve(WebAddress("::1", 0))
        except UsageError:
            pytest.skip("this machine has no IPv6")
        assert sink.token is None and listening() == {"::1"}
        with pytest.raises(ConnectionRefusedError):
            ask(sink.port, "/stats")
        with socket.create_connection(("::1", sink.port), 5) as sock:
            sock.sendall(b"GET /healthz HTTP/1.0\r\nHost: [::1]\r\n\r\n")
            assert sock.recv(99).startswith(b"HTTP/1.0 200")


class TestViewers:
    """What many of them cost, and what bad ones can do."""

    @pytest.mark.parametrize("count", [1, 10])
    def test_one_encode_a_frame(self, count: int, serve: Serve, encodes: list[int]) -> None:
        """Every viewer sees every frame, and each was encoded once, however many viewers there are."""
        sink = serve(repeat_s=60)
        viewers = [Viewer(sink.port) for _ in range(count)]
        levels = list(range(20, 220, 10))
        for level in levels:
            sink.put(live_result(level))
            for viewer in viewers:
                viewer.frame_of(level)
        assert web_facts(sink) == {"viewers": count, "encodes": len(levels)}
        assert encodes == levels
        for viewer in viewers:
            viewer.close()

    def test_no_viewer_no_encode(self, serve: Serve, encodes: list[int]) -> None:
        """Nor when they have gone again."""
        sink = serve(repeat_s=0.05)
        for level in range(100):
            sink.put(live_result(level))
        assert encodes == []

        viewer = Viewer(sink.port)
        viewer.frame()
        viewer.close()
        wait_for(lambda: web_facts(sink)["viewers"] == 0)
        before = len(encodes)
        for level in range(100):
            sink.put(live_result(level))
            time.sleep(0.001)
        assert before <= 2 and len(encodes) == before

    def test_a_snapshot_shares_the_stream_s_encode(self, serve: Serve, encodes: list[int]) -> None:
        """And ten snapshots of one frame are one."""
        sink = serve(repeat_s=60)
        sink.put(live_result(50))
        viewer = Viewer(sink.port)
        viewer.frame()
        bodies = {ask(sink.port, "/snapshot.jpg").body for _ in range(10)}
        viewer.close()

        assert len(bodies) == 1 and encodes == [50]

    def test_a_viewer_that_never_reads(self, serve: Serve) -> None:
        """It loses frames: memory does not grow, and the others see all of them."""
        sink = serve(stuck_s=600)
        stuck = [stuck_viewer(sink.port) for _ in range(3)]
        viewer = Viewer(sink.port)
        wait_for(lambda: web_facts(sink)["viewers"] == 4)
        used = []
        for number in range(120):
            sink.put(big(number))
            viewer.frame()
            if number in (30, 119):
                used.append(resident_bytes())
        size = len(ask(sink.port, "/snapshot.jpg").body)
        facts = web_facts(sink)
        for sock in stuck:
            sock.close()
        viewer.close()

        assert facts["viewers"] == 4
        assert size > 200_000  # queued, 89 frames of three viewers would be over 53 MB
        assert used[1] - used[0] < 16e6, used

    def test_a_viewer_that_never_reads_is_dropped(self, serve: Serve) -> None:
        """After a while its place is free again."""
        sink = serve(stuck_s=0.2, viewers=1, repeat_s=0.05)
        stuck = stuck_viewer(sink.port)
        wait_for(lambda: web_facts(sink)["viewers"] == 1)
        for number in range(3):
            sink.put(big(number))
        wait_for(lambda: web_facts(sink)["viewers"] == 0)

        viewer = Viewer(sink.port)
        viewer.frame()
        viewer.close()
        wait_for(lambda: connections(sink.port) == 0)  # the connection is gone too, though its rest was not read
        stuck.close()

    def test_viewers_are_counted(self, serve: Serve) -> None:
        """One too many gets 503; when a viewer leaves, the next may come."""
        sink = serve(viewers=2, repeat_s=0.05)
        sink.put(live_result())
        two = [Viewer(sink.port) for _ in range(2)]
        for viewer in two:
            viewer.frame()
        refused = Viewer(sink.port)
        assert refused.status == 503
        refused.close()

        two.pop().close()
        wait_for(lambda: web_facts(sink)["viewers"] == 1)
        two.append(Viewer(sink.port))
        two[-1].frame()
        for viewer in two:
            viewer.close()

    def test_connections_are_counted(self, serve: Serve) -> None:
        """An address may have a quarter of them without having asked; then its oldest is closed for the newest."""
        sink = serve(connections=8, silent_s=600)
        silent = [socket.create_connection(("127.0.0.1", sink.port), 5) for _ in range(6)]
        assert [sock.recv(1) for sock in silent[:4]] == [b""] * 4
        for sock in silent[4:]:
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.recv(1)
        assert answers(sink.port)
        for sock in silent:
            sock.close()

    def test_strangers_do_not_lock_out(self, serve: Serve) -> None:
        """Connections without the token, however many, neither end a viewer who has it nor keep a new one out."""
        sink = serve(token="t" * 20, connections=4, silent_s=600)
        viewer = socket.create_connection(("127.0.0.1", sink.port), 5)
        ask = f"GET /stats HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {'t' * 20}\r\n\r\n".encode()
        for _ in range(3):
            viewer.sendall(ask)
            assert whole_answer(viewer).startswith(b"HTTP/1.1 200")
            strangers = [socket.create_connection(("127.0.0.1", sink.port), 5) for _ in range(20)]
            other = socket.create_connection(("127.0.0.1", sink.port), 5)
            other.sendall(ask)
            assert whole_answer(other).startswith(b"HTTP/1.1 200")
            for sock in (*strangers, other):
                sock.close()
        refused = socket.create_connection(("127.0.0.1", sink.port), 5)
        refused.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        data = b""
        while piece := refused.recv(4096):  # until the server closes it
            data += piece
        assert data.startswith(b"HTTP/1.1 401") and b"Connection: close" in data
        refused.close()
        viewer.close()

    def test_silent_connections_are_closed(self, serve: Serve) -> None:
        """Open connections without a request cannot keep others out; half a request does not count."""
        sink = serve(connections=16, silent_s=0.3)
        silent = [socket.create_connection(("127.0.0.1", sink.port), 5) for _ in range(4)]
        silent[0].sendall(b"GET / HTTP/1.1\r\nHost: loc")
        assert [sock.recv(1) for sock in silent] == [b""] * 4
        wait_for(lambda: answers(sink.port))
        for sock in silent:
            sock.close()

    def test_a_slow_viewer_sees_what_is_now(self, serve: Serve) -> None:
        """A viewer that falls behind by forty frames is shown two or three old ones, and then the newest."""
        sink = serve(stuck_s=600, repeat_s=60)
        slow, viewer = stuck_viewer(sink.port), Viewer(sink.port)
        for number in range(40):
            sink.put(big(number))
            viewer.frame()
        slow.settimeout(5)
        data = b""
        levels: list[int] = []
        while not levels or levels[-1] < 37:  # a JPEG keeps no exact values
            data += slow.recv(1 << 20)
            *parts, data = data.split(b"--hefkit-frame")
            levels += [level_of(part) for part in parts if b"\xff\xd9" in part]
        slow.close()
        viewer.close()

        assert len(levels) <= 4, levels

    def test_garbage_is_answered_and_not_logged(
        self, serve: Serve, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """Programs that scan for open ports send malformed requests; tracebacks of them would fill the journal."""
        sink = serve()
        garbage = [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"HELO x\r\n\r\n", b"GET / HTTP/9\r\n\r\n",
                   b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET / HTTP/1.1\r\n: x\r\n\r\n",
                   b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 70_000 + b"\r\n\r\n",
                   b"POST /pause HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n"]  # fmt: skip
        for data in garbage:
            with socket.create_connection(("127.0.0.1", sink.port), 5) as sock:
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                answer = b""
                try:
                    while more := sock.recv(4096):
                        answer += more
                except ConnectionResetError:
                    pass
                assert not answer or re.match(rb"HTTP/1\.[01] (4\d\d|501)", answer), (data, answer)
        assert ask(sink.port, "/stats").status == 200
        assert caplog.text == "" and capfd.readouterr().err == ""


class TestEnd:
    """Closing is quick, final and quiet."""

    def test_with_viewers_connected(self, serve: Serve) -> None:
        """Viewers that read and viewers that do not are disconnected; later results are ignored."""
        sink = serve(repeat_s=60, stuck_s=600)
        viewers = [Viewer(sink.port) for _ in range(3)]
        stuck = stuck_viewer(sink.port)
        wait_for(lambda: web_facts(sink)["viewers"] == 4)
        for number in range(3):
            sink.put(big(number))
            for viewer in viewers:
                viewer.frame()
        idle = socket.create_connection(("127.0.0.1", sink.port))
        sink.close()

        assert not [t.name for t in threading.enumerate() if t.name.startswith("web")]
        for viewer in viewers:
            with pytest.raises((EOFError, ConnectionError, __import__("http.client").client.IncompleteRead)):
                while True:
                    viewer.frame()
            viewer.close()
        sink.put(live_result())
        sink.close()
        with pytest.raises(ConnectionRefusedError):
            ask(sink.port, "/stats")
        stuck.close()
        idle.close()

    def test_with_connections_that_have_just_come(self, serve: Serve) -> None:
        """They are closed in every state of being accepted: no socket is left for the garbage collector."""
        for delay in (0.0, 0.0002, 0.0005, 0.001) * 3:
            sink = serve()
            coming = [socket.create_connection(("127.0.0.1", sink.port)) for _ in range(5)]
            time.sleep(delay)
            sink.close()
            for sock in coming:
                sock.close()
        gc.collect()

    def test_right_after_the_start(self, serve: Serve) -> None:
        """Before the first connection."""
        for _ in range(5):
            serve().close()


def whole_answer(sock: socket.socket) -> bytes:
    """One answer, head and body; aiohttp 3.8 sends them apart."""
    data = b""
    while not (found := re.search(rb"Content-Length: (\d+)\r\n.*?\r\n\r\n", data, re.DOTALL)) or (
        len(data) < found.end() + int(found[1])
    ):
        piece = sock.recv(4096)
        assert piece, "the server closed the connection"
        data += piece
    return data


def answers(port: int) -> bool:
    """Whether one more connection is accepted."""
    try:
        return ask(port, "/stats").status == 200
    except ConnectionError:
        return False


def big(number: int) -> Any:
    """A result whose picture makes a JPEG of some hundred kilobytes."""
    result = live_result(number, size_wh=(640, 480))
    result.picture[:] = STRIPES
    result.picture[-8:, -8:] = number % 256
    return result


def level_of(part: bytes) -> int:
    """The number that `big` wrote into a frame's corner."""
    data = part[part.index(b"\xff\xd8") :]
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return int(picture[-3:, -3:].mean().round())


def resident_bytes() -> int:
    """Memory of this process, as the kernel counts it."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
