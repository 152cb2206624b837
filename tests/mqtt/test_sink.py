"""The MQTT sink with a real broker: what it publishes, and that a failing broker never stops detection."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hefkit.detect.detections import Detections
from hefkit.errors import ToolchainError, UsageError
from hefkit.live.addresses import Broker as Address
from hefkit.live.filesinks import live_line
from hefkit.live.state import Controls, LiveStats, jpeg
from hefkit.mqtt import link as mqttlink
from hefkit.mqtt import sink as mqtt
from hefkit.mqtt.messages import Topics
from hefkit.mqtt.sink import MqttSink
from tests.conftest import ROOT
from tests.helpers.fake_live import NAMES, live_result
from tests.helpers.mosquitto import Broker, Listener, find_mosquitto
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.xdist_group("clock")  # it looks at the clock: one process for all such files

BASE = "garden/cam"
NOTHING = Detections.empty()
TWO = Detections(np.array([[1, 1, 9, 9], [2, 2, 9, 9]], np.float32), np.array([0.9, 0.8], np.float32), np.array([0, 0]))

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def mosquitto() -> str:
    """The broker's program."""
    program = find_mosquitto()
    if program is None:
        pytest.skip("no MQTT broker here: apt-get install mosquitto")
    return program


@pytest.fixture
def start(mosquitto: str, tmp_path: Path) -> Iterator[Callable[..., Broker]]:
    """Starts brokers with further settings, and ends them."""
    started: list[Broker] = []

    def run(*settings: str) -> Broker:
        started.append(Broker(mosquitto, tmp_path, *settings))
        return started[-1]

    yield run
    for broker in started:
        broker.stop()


@pytest.fixture
def broker(start: Callable[..., Broker]) -> Broker:
    """A broker that asks for no credentials."""
    return start()


@pytest.fixture
def listen() -> Iterator[Callable[..., Listener]]:
    """Makes listeners, and disconnects them."""
    made: list[Listener] = []

    def run(*args: Any, **more: Any) -> Listener:
        made.append(Listener(*args, **more))
        return made[-1]

    yield run
    for listener in made:
        listener.close()


@pytest.fixture(autouse=True)
def logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The log; no credentials in the environment, and short pauses."""
    for name in ("USERNAME", "PASSWORD", "USERNAME_FILE", "PASSWORD_FILE"):
        monkeypatch.delenv(f"HEFKIT_MQTT_{name}", raising=False)
    monkeypatch.setattr(mqtt, "COUNTS_S", 0.1)
    monkeypatch.setattr(mqtt, "STATE_S", 0.3)
    monkeypatch.setattr(mqttlink, "FIRST_PAUSE_S", 0.1)
    monkeypatch.setattr(mqttlink, "LONGEST_PAUSE_S", 0.4)
    caplog.set_level(logging.INFO, "hefkit")
    return caplog


@pytest.fixture
def sink_for() -> Iterator[Callable[..., MqttSink]]:
    """Makes sinks for a port; in the end they are closed, and nothing of them is left."""
    made: list[MqttSink] = []

    def make(port: int, topic: str = BASE, tls: bool = False, stats: LiveStats | None = None, **more: Any) -> MqttSink:
        facts = stats or LiveStats("models/best.hef", "cam")
        facts.model("hailort", NAMES)
        made.append(MqttSink(Address("localhost" if tls else "127.0.0.1", port, tls), topic, facts, Controls(), **more))
        return made[-1]

    yield make
    for sink in made:
        sink.close()
    assert not [t.name for t in threading.enumerate() if t.name == "mqtt" or "hefkit" in t.name]


class TestPublished:
    """What a subscriber receives."""

    def test_every_frame(self, broker: Broker, listen: Make, sink_for: Make) -> None:
        """The keys of the JSON line, with the time of capture; in order, none missing, not retained."""
        listener = listen(broker.port)
        sink = sink_for(broker.port)
        results = [live_result(number) for number in range(200)]
        for number, result in enumerate(results):
            sink.put(result)
            # a busy machine may lag behind by a few, not by more than the sink's queue holds
            wait_for(lambda number=number: len(listener.on(f"{BASE}/detections")) > number - 4)
        wait_for(lambda: len(listener.on(f"{BASE}/detections")) == 200)
        lines = listener.on(f"{BASE}/detections")

        assert [json.loads(line)["frame"] for line in lines] == list(range(200))
        assert lines == [live_line(result) for result in results]
        assert json.loads(lines[0]) == {
            "source": "cam", "frame": 0, "width": 64, "height": 48, "engine": "float",
            "detections": [{"class_id": 1, "class": "bird", "score": 0.75, "xyxy": [8, 8, 24, 20]}],
            "timestamp": "2025-11-25T03:40:00.250Z", "latency_ms": 25.0,
        }  # fmt: skip
        assert f"{BASE}/detections" not in listen(broker.port).retained()

    def test_counts(self, broker: Broker, listen: Make, sink_for: Make) -> None:
        """Of every class and of all; when they change, and retained; unknown when frames stay away."""
        listener = listen(broker.port)
        sink = sink_for(broker.port)
        sink.put(live_result(found=TWO))
        listener.wait_on(f"{BASE}/counts/bird", "0")
        for _ in range(20):
            sink.put(live_result(found=TWO))
            time.sleep(0.02)
        wait_for(lambda: sink.put(live_result(found=NOTHING)) or listener.on(f"{BASE}/counts/drone")[-1] == "0")
        assert listener.on(f"{BASE}/counts/drone") == ["2", "0"]
        assert listener.on(f"{BASE}/counts/bird") == ["0"]
        assert listener.on(f"{BASE}/total") == ["2", "0"]
        assert listener.on(f"{BASE}/present") == ["ON", "OFF"]
        assert {f"{BASE}/total": "0", f"{BASE}/present": "OFF"}.items() <= listen(broker.port).retained().items()

    def test_counts_of_a_camera_that_is_gone(
        self, broker: Broker, listen: Make, sink_for: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The counts are unknown, which is None for Home Assistant."""
        monkeypatch.setattr("hefkit.mqtt.messages.BLIND_S", 0.2)
        listener = listen(broker.port)
        sink_for(broker.port).put(live_result())

        for topic in ("total", "present", "counts/bird", "counts/drone"):
            listener.wait_on(f"{BASE}/{topic}", "None")

    def test_state(self, broker: Broker, listen: Make, sink_for: Make) -> None:
        """Rate, temperature and the like; an unknown temperature is null."""
        listener = listen(broker.port)
        stats = LiveStats("models/best.hef", "cam")
        sink_for(broker.port, stats=stats)
        listener.wait_on(f"{BASE}/state")
        stats.temperature(55.5)
        stats.add(live_result(), 0.001)
        wait_for(lambda: '"temperature_c": 55.5' in listener.on(f"{BASE}/state")[-1])

        assert json.loads(listener.on(f"{BASE}/state")[0])["temperature_c"] is None
        assert json.loads(listener.on(f"{BASE}/state")[-1]) == {
            "model": "models/best.hef", "engine": "hailort", "camera": "opening", "paused": False, "fps": 0.0,
            "frames": 1, "dropped": 0, "reconnects": 0, "temperature_c": 55.5,
        }  # fmt: skip

    def test_home_assistant(self, broker: Broker, listen: Make, sink_for: Make) -> None:
        """Everything is announced once and retained; every state that an entity names is published and retained."""
        listener = listen(broker.port)
        sink = sink_for(broker.port)
        for _ in range(3):
            sink.put(live_result())
            listener.wait_on(f"{BASE}/counts/bird", "1")
        listener.wait_on(f"{BASE}/snapshot")
        node = Topics(BASE).node
        retained = listen(broker.port).retained()
        configs = {topic: json.loads(text) for topic, text in retained.items() if topic.endswith("/config")}

        assert set(configs) == {
            f"homeassistant/{place}/config"
            for place in (f"binary_sensor/{node}/present", f"sensor/{node}/total", f"sensor/{node}/fps",
                          f"image/{node}/snapshot", f"event/{node}/events",
                          f"sensor/{node}/temperature", f"sensor/{node}/count_drone", f"sensor/{node}/count_bird")
        }  # fmt: skip
        assert all(len(listener.on(topic)) == 1 for topic in configs)
        topics = {config.get("state_topic", config.get("image_topic")) for config in configs.values()}
        assert topics - {f"{BASE}/events"} <= set(retained)  # an event that has passed must not come again
        assert {config["availability_topic"] for config in configs.values()} == {f"{BASE}/availability"}
        assert len({config["unique_id"] for config in configs.values()}) == 8
        assert {config["device"]["model"] for config in configs.values()} == {"best.hef (float)"}

    def test_a_snapshot_and_events(
        self, broker: Broker, listen: Make, sink_for: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A picture with boxes when objects come, and an event when a class appears and when it has left."""
        monkeypatch.setattr("hefkit.mqtt.messages.AWAY_S", 0.5)
        listener = listen(broker.port)
        sink = sink_for(broker.port)
        result = live_result(found=TWO)
        sink.put(result)
        listener.wait_on(f"{BASE}/events")
        wait_for(lambda: sink.put(live_result(found=NOTHING)) or len(listener.on(f"{BASE}/events")) == 2)

        first, second = map(json.loads, listener.on(f"{BASE}/events"))
        assert {**first, "timestamp": ""} == {
            "event_type": "appeared", "class_id": 0, "class": "drone", "count": 2, "timestamp": "",
        }  # fmt: skip
        assert (second["event_type"], second["class"], second["count"]) == ("left", "drone", 0)
        picture = listener.on(f"{BASE}/snapshot")[0].encode("utf-8", "surrogateescape")
        assert picture == jpeg(result.annotated) and len(listener.on(f"{BASE}/snapshot")) == 1
        retained = listen(broker.port).retained()
        assert f"{BASE}/snapshot" in retained and f"{BASE}/events" not in retained

    def test_nothing_is_announced_without_a_prefix(self, broker: Broker, listen: Make, sink_for: Make) -> None:
        """The counts are published nevertheless."""
        listener = listen(broker.port)
        sink_for(broker.port, discovery_prefix=None).put(live_result())
        listener.wait_on(f"{BASE}/counts/bird", "1")

        assert not [message for message in listener.heard if not message.topic.startswith(f"{BASE}/")]

    def test_availability(self, broker: Broker, listen: Make, sink_for: Make) -> None:
        """online while we are there, offline after a clean end, retained both times."""
        sink = sink_for(broker.port)
        listener = listen(broker.port)
        listener.wait_on(f"{BASE}/availability", "online")
        sink.put(live_result())
        sink.close()
        listener.wait_on(f"{BASE}/availability", "offline")

        assert listen(broker.port).retained()[f"{BASE}/availability"] == "offline"
        assert len(listener.on(f"{BASE}/detections")) == 1  # what waited was sent first

    def test_the_last_will(self, broker: Broker, listen: Make, tmp_path: Path) -> None:
        """A detector that is killed says nothing; the broker says offline for it."""
        listener = listen(broker.port)
        code = (
            "import time; from hefkit.live.state import *; from hefkit.mqtt.sink import *; "
            "from hefkit.live.addresses import *\n"
            f"MqttSink(parse_mqtt_url('mqtt://127.0.0.1:{broker.port}'), '{BASE}', LiveStats('m', 's'), Controls())\n"
            "time.sleep(60)"
        )
        process = subprocess.Popen([__import__("sys").executable, "-c", code], cwd=ROOT)
        try:
            listener.wait_on(f"{BASE}/availability", "online", 30)
        finally:
            process.kill()
            process.wait()
        listener.wait_on(f"{BASE}/availability", "offline")


class TestTrouble:
    """Detection never waits, and everything comes back by itself."""

    def test_a_broker_that_is_stopped_and_started(
        self, broker: Broker, listen: Make, sink_for: Make, logged: pytest.LogCaptureFixture
    ) -> None:
        """Logged once, and once that it is over; results go on, and what a broker forgot is published again."""
        sink = sink_for(broker.port)
        first = listen(broker.port)
        sink.put(live_result(0))
        first.wait_on(f"{BASE}/total", "1")
        broker.stop()
        for number in range(1, 60):
            sink.put(live_result(number))
            time.sleep(0.005)
        wait_for(lambda: "; detection goes on" in logged.text)
        broker.start()
        second = listen(broker.port)
        for number in range(100, 110):
            sink.put(live_result(number))
        wait_for(lambda: [line for line in second.on(f"{BASE}/detections") if json.loads(line)["frame"] == 109])
        second.wait_on(f"{BASE}/total", "1")
        sink.put(live_result(200))
        sink.close()
        second.wait_on(f"{BASE}/availability", "offline")

        frames = [json.loads(line)["frame"] for line in second.on(f"{BASE}/detections")]
        assert frames == sorted(frames)
        assert 0 < len([frame for frame in frames if frame < 100]) <= 30  # the newest that waited
        assert frames[-1] == 200  # what waited was sent before the end
        assert second.on(f"{BASE}/availability") == ["online", "offline"]
        assert len([m for m in second.heard if m.topic.endswith("/config")]) == 8
        words = [r.getMessage() for r in logged.records]
        address = f"mqtt://127.0.0.1:{broker.port}"
        assert words[0] == f"connected to the MQTT broker {address}"
        assert words[1].startswith(f"the MQTT broker {address}: ") and words[1].endswith("; detection goes on")
        assert words[2].startswith(f"the MQTT broker {address} works again, after ")
        assert len(words) == 3

    def test_a_broker_that_is_not_there_yet(
        self, broker: Broker, listen: Make, sink_for: Make, logged: pytest.LogCaptureFixture
    ) -> None:
        """Detectors start before brokers after a power cut."""
        broker.stop()
        sink = sink_for(broker.port)
        sink.put(live_result())
        wait_for(lambda: "refused" in logged.text.lower())
        broker.start()

        listen(broker.port).wait_on(f"{BASE}/total", "1")
        assert logged.text.count("; detection goes on") == 1

    def test_a_broker_that_hangs(self, broker: Broker, listen: Make, sink_for: Make) -> None:
        """It keeps the connection and reads nothing: what cannot be sent is dropped, not queued."""
        sink = sink_for(broker.port)
        listener = listen(broker.port)
        listener.wait_on(f"{BASE}/availability", "online")
        broker.signal(signal.SIGSTOP)
        many = Detections(np.zeros((300, 4), np.float32), np.full(300, 0.5, np.float32), np.zeros(300, np.int64))
        result = live_result(found=many)
        before = 0
        for number in range(500):  # 16 MB of messages, 11 MB of them after the first measurement
            sink.put(result)
            if number % 50 == 0:
                time.sleep(0.01)
            if number == 150:
                before = resident_bytes()
        grown = resident_bytes() - before
        queued = sum(p["to_process"] for p in sink._link._client._out_packet)
        broker.signal(signal.SIGCONT)

        assert grown < 7e6
        assert queued < 1e6
        listener.wait_on(f"{BASE}/counts/drone", "300")

    def test_a_broker_that_refuses_us(
        self, start: Callable[..., Broker], sink_for: Make, logged: pytest.LogCaptureFixture
    ) -> None:
        """The broker's own word for it, once, without user or password."""
        broker = start("allow_anonymous false")
        sink = sink_for(broker.port)
        wait_for(lambda: "refuses us" in logged.text)
        time.sleep(0.5)  # some more attempts
        sink.put(live_result())

        assert "not authori" in logged.text.lower()
        assert len(logged.records) == 1

    def test_something_that_is_not_a_broker(
        self, sink_for: Make, logged: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It answers with something else, hangs up, or talks nonsense after a good beginning; we ask again."""
        monkeypatch.setattr(mqttlink, "LONGEST_PAUSE_S", 0.1)
        accepted = b"\x20\x02\x00\x00"
        answers = (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            b"",
            b"\x20\x02\x00",
            accepted + b"\x30\x01\x00",  # a PUBLISH too short for the length of its topic
            accepted + b"\x30\x04\x00\xff\xff\xff",  # and one whose topic is longer than itself
            accepted + b"\xf0\xff\xff\xff\xff\xff",  # no packet at all
            b"",
        )
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(20)
            sink = sink_for(server.getsockname()[1])
            for answer in answers:
                connection, _ = server.accept()
                sink.put(live_result())
                connection.sendall(answer)
                # hangs up with a reset, which reaches paho as another error than an end
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                time.sleep(0.02)
                connection.close()
            sink.close()

        assert logged.records[0].getMessage().endswith("; detection goes on")

    def test_a_huge_packet_is_refused(self, sink_for: Make, logged: pytest.LogCaptureFixture) -> None:
        """A packet may claim 256 MB; the connection is closed before that is read."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(20)
            sink = sink_for(server.getsockname()[1])
            connection, _ = server.accept()
            connection.sendall(b"\x20\x02\x00\x00\x30\xff\xff\xff\x7f\x00\x01a")
            wait_for(lambda: "a packet of 268 MB" in logged.text)
            connection.close()
            sink.close()

    @pytest.mark.parametrize("host", ["no-such-broker.invalid", "x" * 70])
    def test_a_name_that_does_not_exist(self, host: str, logged: pytest.LogCaptureFixture) -> None:
        """Perhaps it has one later."""
        sink = MqttSink(Address(host, 1883), BASE, LiveStats("m", "s"), Controls())
        sink.put(live_result())
        wait_for(lambda: logged.records)
        sink.close()

        assert f"mqtt://{host}:1883: " in logged.text

    def test_closing_while_the_broker_hangs(self, broker: Broker, listen: Make, sink_for: Make) -> None:
        """The thread ends nevertheless."""
        sink = sink_for(broker.port)
        listen(broker.port).wait_on(f"{BASE}/availability", "online")
        broker.signal(signal.SIGSTOP)
        many = Detections(np.zeros((300, 4), np.float32), np.full(300, 0.5, np.float32), np.zeros(300, np.int64))
        for _ in range(300):
            sink.put(live_result(found=many))
            time.sleep(0.001)
        sink.close()
        broker.signal(signal.SIGCONT)

        assert not [t.name for t in threading.enumerate() if t.name == "mqtt" or "hefkit" in t.name]
        sink.put(live_result())  # forgotten
        sink.close()


class TestCredentials:
    """From the environment or a file."""

    @pytest.fixture
    def closed(self, start: Callable[..., Broker], tmp_path: Path) -> Broker:
        """A broker that lets only ann in, with s3cret."""
        program = shutil.which("mosquitto_passwd")
        if program is None:
            pytest.skip("no mosquitto_passwd here")
        subprocess.run([program, "-c", "-b", str(tmp_path / "users"), "ann", "s3cret"], check=True, capture_output=True)
        (tmp_path / "users").chmod(0o644)
        return start("allow_anonymous false", f"password_file {tmp_path / 'users'}")

    @pytest.mark.parametrize("how", ["environment", "file"])
    def test_the_right_ones(
        self, how: str, closed: Broker, listen: Make, sink_for: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Let us in."""
        monkeypatch.setenv("HEFKIT_MQTT_USERNAME", "ann")
        if how == "file":
            (tmp_path / "password").write_text("s3cret\n")
            monkeypatch.setenv("HEFKIT_MQTT_PASSWORD_FILE", str(tmp_path / "password"))
        else:
            monkeypatch.setenv("HEFKIT_MQTT_PASSWORD", "s3cret")
        sink_for(closed.port)
        listener = listen(closed.port, prepare=lambda client: client.username_pw_set("ann", "s3cret"))

        listener.wait_on(f"{BASE}/availability", "online")

    def test_the_wrong_ones(
        self, closed: Broker, sink_for: Make, monkeypatch: pytest.MonkeyPatch, logged: pytest.LogCaptureFixture
    ) -> None:
        """Are refused, and not repeated."""
        monkeypatch.setenv("HEFKIT_MQTT_USERNAME", "ann")
        monkeypatch.setenv("HEFKIT_MQTT_PASSWORD", "wrong-s3cret")
        sink_for(closed.port)
        wait_for(lambda: "refuses us" in logged.text)

        assert "s3cret" not in logged.text and "ann" not in logged.text

    def test_a_password_without_a_user(self, sink_for: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        """Is a mistake."""
        monkeypatch.setenv("HEFKIT_MQTT_PASSWORD", "s3cret")

        with pytest.raises(UsageError, match="HEFKIT_MQTT_USERNAME is not"):
            sink_for(1)

    def test_tls(
        self, start: Callable[..., Broker], listen: Make, sink_for: Make, monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path, logged: pytest.LogCaptureFixture,
    ) -> None:  # fmt: skip
        """mqtts:// trusts the system's authorities; one's own is named by SSL_CERT_FILE."""
        openssl = shutil.which("openssl")
        if openssl is None:
            pytest.skip("no openssl here, which makes the certificate")
        key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
        subprocess.run(
            [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2",
             "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)],
            check=True, capture_output=True,
        )  # fmt: skip
        key.chmod(0o644)
        tmp_path.chmod(0o755)
        broker = start(f"certfile {certificate}", f"keyfile {key}")

        sink_for(broker.port, tls=True).close()
        sink = sink_for(broker.port, tls=True)
        wait_for(lambda: "certificate verify failed" in logged.text)
        sink.close()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        sink = sink_for(broker.port, tls=True)
        sink.put(live_result())
        trusting = ssl.create_default_context(cafile=str(certificate))
        listener = listen(broker.port, prepare=lambda client: client.tls_set_context(trusting))
        listener.wait_on(f"{BASE}/total", "1")


def test_without_paho(sink_for: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 5 and both ways to install it."""
    monkeypatch.setitem(__import__("sys").modules, "paho", None)

    with pytest.raises(ToolchainError, match=r"pip install paho-mqtt .*apt install python3-paho-mqtt"):
        sink_for(1)


def resident_bytes() -> int:
    """Memory of this process, as the kernel counts it."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
