"""A real MQTT broker on loopback, and a client that records messages."""

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
    """Path of the program, or None; Debian installs it in /usr/sbin."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")


def free_port() -> int:
    """A port that is free now; another program may take it."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Broker:
    """mosquitto on one port; it can be stopped, frozen and started again, and stores nothing on disk."""

    def __init__(self, program: str, folder: Path, *settings: str) -> None:
        self.port = free_port()
        self._program, self._config = program, folder / "mosquitto.conf"
        # started by root without this line, it changes to a user who cannot read our folder
        lines = [f"user {getpass.getuser()}", f"listener {self.port} 127.0.0.1", "persistence false", *settings]
        if not any(line.startswith("allow_anonymous") for line in lines):
            lines.append("allow_anonymous true")
        self._config.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it; returns when it accepts connections."""
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
        """Send a signal, such as SIGSTOP."""
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> None:
        """Kill it; clients get no message."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class Message(NamedTuple):
    """A message as it arrived."""

    topic: str
    payload: str
    retained: bool  # the broker had stored it before we subscribed


class Listener:
    """A client that records all messages of some topics, by default of all."""

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
        text = message.payload.decode("utf-8", "surrogateescape")  # a picture is not text
        self.heard.append(Message(message.topic, text, bool(message.retain)))

    def on(self, topic: str) -> list[str]:
        """The payloads of one topic, in order."""
        return [message.payload for message in self.heard if message.topic == topic]

    def wait_on(self, topic: str, payload: str | None = None, seconds: float = 15.0) -> None:
        """Wait for a message of the topic; with `payload` until it is the newest one."""
        wait_for(lambda: self.on(topic)[-1:] and payload in (None, self.on(topic)[-1]), seconds)

    def retained(self) -> dict[str, str]:
        """The retained messages that the broker sent after we subscribed: topic -> payload."""
        time.sleep(0.3)
        return {message.topic: message.payload for message in self.heard if message.retained}

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()
        if (sock := self._client.socket()) is not None:  # it was reconnecting
            sock.close()
        del self._client  # breaks a cycle: paho closes its other sockets when the client is freed
