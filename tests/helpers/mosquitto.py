"""A real MQTT broker on loopback, and a subscriber."""

from __future__ import annotations

import getpass
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.helpers.waiting import wait_for


def find_mosquitto() -> str | None:
    """Debian puts it where only root looks."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")


def free_port() -> int:
    """One that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Broker:
    """mosquitto, which can be stopped, frozen and started again on the same port; it remembers nothing."""

    def __init__(self, program: str, folder: Path, *settings: str) -> None:
        self.port = free_port()
        self._program, self._config = program, folder / "mosquitto.conf"
        # started by root, it would become a user who cannot read our folder
        lines = [f"user {getpass.getuser()}", f"listener {self.port} 127.0.0.1", "persistence false", *settings]
        if not any(line.startswith("allow_anonymous") for line in lines):
            lines.append("allow_anonymous true")
        self._config.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Returns when it can be reached."""
        self._process = subprocess.Popen(
            [self._program, "-c", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for(self._reached)

    def _reached(self) -> bool:
        assert self._process is not None and self._process.poll() is None, "mosquitto has ended"
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def signal(self, number: int) -> None:
        """Such as SIGSTOP."""
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> None:
        """Kill it without a goodbye to its clients."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class Message(NamedTuple):
    """As it arrived."""

    topic: str
    payload: str
    retained: bool  # was there before we came


class Listener:
    """A subscriber that remembers every message on some topics."""

    def __init__(self, port: int, *topics: str, prepare: Callable[[Any], object] = lambda client: None) -> None:
        from paho.mqtt import client as paho

        self.heard: list[Message] = []
        self._ready = threading.Event()
        self._client: Any = (
            paho.Client(paho.CallbackAPIVersion.VERSION2) if hasattr(paho, "CallbackAPIVersion") else paho.Client()
        )
        prepare(self._client)
        self._client.on_message = self._heard
        self._client.on_subscribe = lambda *args: self._ready.set()
        self._client.on_connect = lambda client, *args: client.subscribe([(topic, 0) for topic in topics or ("#",)])
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("localhost", port)
        self._client.loop_start()
        assert self._ready.wait(10), "no broker"

    def _heard(self, client: Any, userdata: Any, message: Any) -> None:
        self.heard.append(Message(message.topic, message.payload.decode("utf-8"), bool(message.retain)))

    def on(self, topic: str) -> list[str]:
        """The payloads of one topic, in order."""
        return [message.payload for message in self.heard if message.topic == topic]

    def wait_on(self, topic: str, payload: str | None = None, seconds: float = 15.0) -> None:
        """Until something, or this payload as the newest one, was heard."""
        wait_for(lambda: self.on(topic)[-1:] and payload in (None, self.on(topic)[-1]), seconds)

    def retained(self) -> dict[str, str]:
        """What the broker remembered when we came; wait for it to be sent first."""
        time.sleep(0.3)
        return {message.topic: message.payload for message in self.heard if message.retained}

    def close(self) -> None:
        """Leave."""
        self._client.disconnect()
        self._client.loop_stop()
        if (sock := self._client.socket()) is not None:  # it was about to come back
            sock.close()
        del self._client  # breaks a cycle: paho closes its other sockets when the client is freed
