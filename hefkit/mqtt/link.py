"""A connection to an MQTT broker that comes back by itself; the only room that knows paho-mqtt (1.6 and 2.x).

One thread does everything: it connects, waits for the network and publishes. So nothing can pile up between threads:
whoever publishes asks `ready` first, and what the network has not taken yet is one message, not a queue.
"""

from __future__ import annotations

import contextlib
import secrets
import select
import socket
import ssl
import struct
import time
from collections.abc import Callable
from typing import Any

from hefkit.live.addresses import Broker
from hefkit.live.sinks import Trouble
from hefkit.text import log

KEEPALIVE_S = 20  # a broker that says nothing for up to twice as long is given up
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0  # between two attempts to connect
HANDSHAKE_S = 5.0  # as long as paho-mqtt waits for a connection
END_S = 0.5
# what paho-mqtt lets through: 1.6 some errors of sockets, and both what taking garbage apart ends with
TROUBLE = (OSError, ValueError, IndexError, struct.error)


class Link:
    """Connected, or on its way to it.

    Args:
        username: None: nobody in particular.
        will: the topic and payload that the broker publishes, retained, when we vanish.
        greet: called when a connection stands, the first time and every time again.
    """

    def __init__(
        self,
        broker: Broker,
        username: str | None,
        password: str | None,
        will: tuple[str, str],
        greet: Callable[[], None],
    ) -> None:
        self.connected = False
        self._open = False  # there is a connection, though perhaps no answer yet
        self._greet = greet
        self._will = will
        self._broker = broker
        self._trouble = Trouble(f"the MQTT broker {broker}")
        self._told = False
        self._refusal: str | None = None
        self._pause_s, self._due = FIRST_PAUSE_S, 0.0
        self._client = _client()
        self._client.on_connect = self._answered
        self._client.will_set(*will, qos=1, retain=True)
        if username is not None:
            self._client.username_pw_set(username, password)
        if broker.tls:
            self._client.tls_set_context(_tls())
        self._client.connect_async(broker.host, broker.port, KEEPALIVE_S)

    @property
    def ready(self) -> bool:
        """Whether a message would go out at once."""
        return self.connected and not self._client.want_write()

    def publish(self, topic: str, payload: str, retain: bool = False) -> None:
        """Send one message; when the connection breaks it is lost, and `connected` says so."""
        if self.connected:
            self._network(lambda: self._client.publish(topic, payload, 0, retain).rc)

    def step(self, wake: socket.socket, timeout_s: float) -> None:
        """Wait for the network, for a byte on `wake` or for the time, and do what the connection needs."""
        if not self._open:
            self._connect_when_due(wake, timeout_s)
            return
        self._wait(wake, timeout_s)
        for act in (self._client.loop_read, self._client.loop_write, self._client.loop_misc):
            if self._open:
                self._network(act)

    def close(self) -> None:
        """Say that we go, and go; the will is for those who cannot say it."""
        self.publish(*self._will, retain=True)
        until = time.monotonic() + END_S
        with contextlib.suppress(*TROUBLE):
            if self.connected:
                self._client.disconnect()
            while self._client.want_write() and self._client.socket() is not None and time.monotonic() < until:
                self._wait(None, END_S)
                self._client.loop_write()
        self.connected = self._open = False
        self._hang_up()

    def _connect_when_due(self, wake: socket.socket, timeout_s: float) -> None:
        rest_s = self._due - time.monotonic()
        if rest_s > 0:
            _poll([(wake, select.POLLIN)], min(rest_s, timeout_s))
            return
        # due again from the start of this attempt, unless it works
        self._due = time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        self._refusal = None
        try:
            self._client.reconnect()
        except TROUBLE as exc:  # a ValueError: a name that no resolver takes
            self._lost(getattr(exc, "strerror", None) or exc)
        else:
            self._open = True

    def _answered(self, client: Any, userdata: Any, flags: Any, reason: Any, *properties: Any) -> None:
        """The broker's answer; `reason` is a number in paho-mqtt 1.6, and an object in 2.x."""
        if getattr(reason, "is_failure", reason != 0):
            self._refusal = f"it refuses us: {_reason(reason)}"
            return
        self.connected = True
        self._pause_s = FIRST_PAUSE_S
        self._trouble.worked()
        if not self._told:
            self._told = True
            log.info("connected to the MQTT broker %s", self._broker)

    def _network(self, act: Callable[[], int]) -> None:
        """One step of paho's."""
        was = self.connected
        try:
            code = act()
        except TROUBLE as exc:
            self._hang_up()
            self._lost(getattr(exc, "strerror", None) or exc)
            return
        if self._client.socket() is None:
            self._lost(self._refusal or _words(code))
        elif self.connected and not was:
            self._greet()

    def _lost(self, reason: object) -> None:
        self.connected = self._open = False
        self._trouble.failed(reason)

    def _hang_up(self) -> None:
        sock = self._client.socket()
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.close()

    def _wait(self, wake: socket.socket | None, timeout_s: float) -> None:
        wanted = select.POLLIN | (select.POLLOUT if self._client.want_write() else 0)
        places = [(self._client.socket(), wanted)] + ([(wake, select.POLLIN)] if wake is not None else [])
        _poll(places, timeout_s)


def _poll(places: list[tuple[Any, int]], timeout_s: float) -> None:
    poll = select.poll()
    for sock, events in places:
        poll.register(sock, events)
    poll.poll(max(0.0, timeout_s) * 1000)


class _TlsSocket(ssl.SSLSocket):
    """Closed when its handshake fails, which paho-mqtt only forgets, and soon (1.6 waits as long as it keeps alive)."""

    def do_handshake(self, block: bool = False) -> None:
        self.settimeout(HANDSHAKE_S)
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


def _tls() -> ssl.SSLContext:
    """Trusts whom the system trusts, or whom the environment's SSL_CERT_FILE names."""
    context = ssl.create_default_context()
    context.sslsocket_class = _TlsSocket
    return context


def _client() -> Any:
    from paho.mqtt import client as paho

    name = f"hefkit-{secrets.token_hex(6)}"
    if hasattr(paho, "CallbackAPIVersion"):  # 2.0 and newer
        return paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=name)
    return paho.Client(client_id=name)


def _reason(code: Any) -> str:
    from paho.mqtt import client as paho

    return str(code if hasattr(code, "is_failure") else paho.connack_string(code)).rstrip(".").lower()


def _words(code: int) -> str:
    from paho.mqtt import client as paho

    return "the connection is lost" if code in (0, paho.MQTT_ERR_CONN_LOST) else paho.error_string(code).rstrip(".")
