"""`--mqtt`: every frame's detections, counts that change slowly enough to be kept, and entities for Home Assistant."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections import deque
from collections.abc import Mapping

from hefkit.cli import need
from hefkit.errors import UsageError
from hefkit.live.addresses import Broker, secret
from hefkit.live.filesinks import live_line
from hefkit.live.state import Controls, LiveResult, LiveStats
from hefkit.mqtt.link import Link
from hefkit.mqtt.messages import OFFLINE, ONLINE, UNKNOWN, Classes, Seen, Topics

USERNAME, PASSWORD = "HEFKIT_MQTT_USERNAME", "HEFKIT_MQTT_PASSWORD"
WAITING = 30  # frames that may wait for the network; newer ones take their place
COUNTS_S = 1.0  # between two counts: what remembers them should not remember every frame
STATE_S = 10.0
STATE_KEYS = ("model", "engine", "camera", "paused", "fps", "frames", "dropped", "reconnects", "temperature_c")
END_S = 1.0


class MqttSink:
    """Publishes below `topic`; its thread does all that could wait.

    Args:
        broker: where; the credentials come from HEFKIT_MQTT_USERNAME and HEFKIT_MQTT_PASSWORD, or from the files that
            HEFKIT_MQTT_USERNAME_FILE and HEFKIT_MQTT_PASSWORD_FILE name.
        topic: as `parse_topic` gives it; another one for every detector of a broker.
        stats: what `topic`/state tells of.
        controls: knows whether we are paused.
        discovery_prefix: of Home Assistant; None: nothing is announced.
        max_rate: most messages a second on `topic`/detections; None: one a frame.

    Raises:
        UsageError: the credentials cannot be read.
        ToolchainError: paho-mqtt is missing.
    """

    def __init__(
        self,
        broker: Broker,
        topic: str,
        stats: LiveStats,
        controls: Controls,
        discovery_prefix: str | None = "homeassistant",
        max_rate: float | None = None,
    ) -> None:
        username, password = secret(USERNAME), secret(PASSWORD)
        if password is not None and username is None:
            raise UsageError(f"{PASSWORD} is set, but {USERNAME} is not; expected both or neither")
        need("paho")
        self._topics = Topics(topic, discovery_prefix or "")
        self._stats, self._controls = stats, controls
        self._least_gap_s = 1 / max_rate if max_rate else 0.0
        self._last_line = float("-inf")
        self._lines: deque[str] = deque(maxlen=WAITING)
        self._seen = Seen()
        self._model: tuple[Mapping[int, str], str] | None = None  # names and engine
        self._classes: Classes | None = None
        self._told: dict[str, str] = {}  # retained topic -> what the broker has
        self._next_counts = self._next_state = 0.0
        self._closing = False
        self._link = Link(broker, username, password, (self._topics.availability, OFFLINE), self._greet)
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._thread = threading.Thread(target=self._work, name="mqtt", daemon=True)
        self._thread.start()

    def put(self, result: LiveResult) -> None:
        """Note what was seen; never waits, whatever the network does."""
        self._model = result.names, result.engine
        self._seen.add(result.detections.class_id.tolist())
        if result.frame.captured - self._last_line >= self._least_gap_s:
            self._last_line = result.frame.captured
            self._lines.append(live_line(result))
            self._wake()

    def close(self) -> None:
        """Publish what waits, say that we are offline, end the thread."""
        self._closing = True
        self._wake()
        self._thread.join(END_S)
        self._wake_out.close()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it is awake; closed: nobody is there any more
            self._wake_out.send(b".")

    # --- the thread -------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while not self._closing:
                self._link.step(self._wake_in, COUNTS_S / 4)
                with contextlib.suppress(BlockingIOError):
                    self._wake_in.recv(4096)
                self._publish()
            self._publish_lines()
        finally:
            self._link.close()
            self._wake_in.close()

    def _greet(self) -> None:
        """A connection stands: whatever the broker had may be gone."""
        self._told.clear()
        self._retain(self._topics.availability, ONLINE)
        self._next_counts = self._next_state = 0.0

    def _publish(self) -> None:
        self._publish_lines()
        now = time.monotonic()
        if self._link.ready and now >= self._next_state:
            self._next_state = now + STATE_S
            stats = self._stats.snapshot(self._controls.paused)
            self._retain(self._topics.state, json.dumps({key: stats[key] for key in STATE_KEYS}))
        if self._link.ready and now >= self._next_counts:
            self._next_counts = now + COUNTS_S
            self._publish_counts()

    def _publish_lines(self) -> None:
        while self._link.ready:
            try:
                line = self._lines.popleft()
            except IndexError:
                return
            self._link.publish(self._topics.detections, line)

    def _publish_counts(self) -> None:
        if self._classes is None:
            if self._model is None:
                return
            self._classes = Classes(self._topics, self._stats.snapshot()["model"], *self._model)
        counts = self._seen.take()
        for topic, payload in self._classes.announced(counts.by_class if counts else ()):
            if self._topics.prefix:
                self._retain(topic, payload)
        if counts is None:
            return
        blind = counts.total is None
        self._retain(self._topics.total, UNKNOWN if blind else str(counts.total))
        self._retain(self._topics.present, UNKNOWN if blind else "ON" if counts.total else "OFF")
        for class_id, topic in self._classes.topics():
            self._retain(topic, UNKNOWN if blind else str(counts.by_class.get(class_id, 0)))

    def _retain(self, topic: str, payload: str) -> None:
        """Publish what is to be remembered, if it is news."""
        if self._told.get(topic) != payload:
            self._told[topic] = payload
            self._link.publish(topic, payload, retain=True)
