"""A connection to an MQTT broker that reconnects by itself; the only module that imports paho-mqtt (1.6 and 2.x).

paho's thread connects, reconnects, sends and pings. This module adds: the reason of a failure for the log, a bound on
the memory of messages that wait, a bound on the time to close, and care for errors that would end paho's thread.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from typing import Any

from hefkit.live.addresses import Broker
from hefkit.live.sinks import Trouble
from hefkit.text import log

KEEPALIVE_S = 20  # a broker that is silent for up to twice as long counts as lost
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0  # before attempts to reconnect; each pause is twice the one before
HANDSHAKE_S = 5.0  # as long as paho-mqtt waits for a connection
SEND_S = 0.1  # how long `ready` waits for the last message to leave
MAX_PACKET = 1 << 20  # bytes; what a broker sends us are a few bytes
END_S = 0.5  # for the last messages when closing
LOST = ("Unspecified error", "The connection was lost.")  # paho's words for an end without a reason
# what ends paho's thread: 1.6 lets some socket errors through, and both versions what malformed packets cause
ERRORS = (OSError, ValueError, IndexError, struct.error)


class Link:
    """A connection to a broker, or the attempts to get one.

    Args:
        username: None: connect without credentials.
        will: topic and payload that the broker publishes, retained, when the connection is lost.
        changed: called on paho's thread when a connection is made.
    """

    def __init__(
        self,
        broker: Broker,
        username: str | None,
        password: str | None,
        will: tuple[str, str],
        changed: Callable[[], None],
    ) -> None:
        self.connections = 0  # made so far; a new one means that messages may have been lost
        self._connected = False
        self._will, self._broker, self._changed = will, broker, changed
        self._trouble = Trouble(f"the MQTT broker {broker}")
        self._refusal: str | None = None
        self._last: tuple[int, Any] = (0, None)  # value of `connections`, and paho's record of the last message
        self._closing, self._ended = False, threading.Event()
        self._client = _client(self._lost)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.will_set(*will, qos=1, retain=True)
        self._client.reconnect_delay_set(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        if username is not None:
            self._client.username_pw_set(username, password)
        if broker.tls:
            self._client.tls_set_context(_tls())
        self._client.connect_async(broker.host, broker.port, KEEPALIVE_S)
        self._client.loop_start()

    def ready(self, timeout_s: float = SEND_S) -> bool:
        """Wait until the network has taken the last message; False without a connection, or when it takes too long.

        Publish only when ready: paho queues messages without a bound.
        """
        connection, message = self._last
        if self._connected and message is not None and connection == self.connections:
            with contextlib.suppress(ValueError, RuntimeError):  # lost with its connection
                message.wait_for_publish(timeout_s)
                return self._connected and message.is_published()
        return self._connected

    def publish(self, topic: str, payload: str | bytes, retain: bool = False) -> None:
        """Send one message; without a connection it is lost."""
        if self._connected:
            self._last = self.connections, self._client.publish(topic, payload, 0, retain)

    def close(self) -> None:
        """Publish the will and disconnect, both within about END_S."""
        self._closing = True
        self._ended.clear()  # an earlier connection may have set it
        self.publish(*self._will, retain=True)
        self._client.disconnect()
        if self._connected:
            self._ended.wait(END_S)
        _hang_up(self._client)  # a broker that reads nothing would keep paho's thread
        with contextlib.suppress(AttributeError):  # 2.x: its thread may end while loop_stop looks at it
            self._client.loop_stop()
        if (left := self._client.socket()) is not None:  # it was just being connected
            left.close()
        del self._client  # breaks a cycle of references: paho closes its other sockets when the client is freed

    # --- on paho's thread -------------------------------------------------------------------------------------------

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: Any, *properties: Any) -> None:
        """The broker's answer; `reason` is a number in paho-mqtt 1.6 and an object in 2.x."""
        if getattr(reason, "is_failure", reason != 0):
            self._refusal = f"it refuses us: {_words(reason, True)}"
            return
        self._trouble.worked()
        if self.connections == 0:
            log.info("connected to the MQTT broker %s", self._broker)
        self._connected = True
        self.connections += 1  # last: a thread that sees the new number may publish
        self._changed()

    def _on_disconnect(self, client: Any, userdata: Any, *more: Any) -> None:
        """The end of a connection; `more` is a number in paho-mqtt 1.6, and flags, reason and properties in 2.x."""
        self._ended.set()
        self._lost(self._refusal or _words(more[-2] if len(more) > 1 else more[0], False))

    def _lost(self, reason: object) -> None:
        """Note a lost connection, or one that could not be made."""
        self._connected, self._refusal = False, None
        if not self._closing:
            self._trouble.failed(reason)


def _client(lost: Callable[[object], None]) -> Any:
    """A paho client whose thread survives ERRORS and passes them to `lost`."""
    from paho.mqtt import client as paho

    class Client(paho.Client):
        def reconnect(self) -> Any:
            try:
                return super().reconnect()
            except ERRORS as exc:
                lost(_reason(exc))
                raise OSError from exc  # which paho's thread expects

        def loop_read(self, max_packets: int = 1) -> Any:
            return self._survive(super().loop_read, max_packets)

        def loop_write(self) -> Any:
            return self._survive(super().loop_write)

        def _sock_recv(self, bufsize: int) -> Any:
            if bufsize > MAX_PACKET:
                raise ValueError(f"it sends a packet of {bufsize / 1e6:.0f} MB; expected at most 1 MB")
            return super()._sock_recv(bufsize)

        def _survive(self, act: Callable[..., Any], *args: Any) -> Any:
            try:
                return act(*args)
            except ERRORS as exc:
                _hang_up(self)
                lost(_reason(exc))
                return paho.MQTT_ERR_CONN_LOST

    name = f"hefkit-{secrets.token_hex(6)}"
    if hasattr(paho, "CallbackAPIVersion"):  # 2.0 and newer
        return Client(paho.CallbackAPIVersion.VERSION2, client_id=name)
    return Client(client_id=name)


def _hang_up(client: Any) -> None:
    """Shut a client's connection down, if there is one; paho's thread then sees its end and closes the socket."""
    sock = client.socket()
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


class _TlsSocket(ssl.SSLSocket):
    """Closes when its handshake fails (paho leaves it open) or takes HANDSHAKE_S (paho 1.6 waits KEEPALIVE_S)."""

    def do_handshake(self, block: bool = False) -> None:
        self.settimeout(HANDSHAKE_S)
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


def _tls() -> ssl.SSLContext:
    """Trusts the system's authorities, or those in the file that the environment's SSL_CERT_FILE names."""
    context = ssl.create_default_context()
    context.sslsocket_class = _TlsSocket
    return context


def _reason(exc: Exception) -> object:
    return getattr(exc, "strerror", None) or exc


def _words(code: Any, refused: bool) -> str:
    """Why a broker refused a connection, or why one ended: a number in paho-mqtt 1.6, an object in 2.x."""
    from paho.mqtt import client as paho

    if hasattr(code, "is_failure"):
        text = str(code)
    else:
        text = paho.connack_string(code) if refused else paho.error_string(code)
    return "the connection is lost" if text in LOST else text.rstrip(".").lower()
