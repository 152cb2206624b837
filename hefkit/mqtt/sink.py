"""`--mqtt`: what is published, and when. Each frame: detections. Each second: counts, events. Then snapshot, state."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Mapping

from hefkit.cli import need
from hefkit.errors import UsageError
from hefkit.live.addresses import Broker, secret
from hefkit.live.filesinks import live_line, timestamp
from hefkit.live.state import Controls, LiveResult, LiveStats, jpeg
from hefkit.mqtt.link import Link
from hefkit.mqtt.messages import MAX_NAME, OFFLINE, ONLINE, Entities, PeakCounts, Presence, Topics
from hefkit.text import one_line

USERNAME, PASSWORD = "HEFKIT_MQTT_USERNAME", "HEFKIT_MQTT_PASSWORD"
WAITING = 30  # frames that may wait for the network; newer frames replace older ones
COUNTS_S = 1.0  # between two counts: a broker that stores them should not store every frame
STATE_S = 10.0  # between two states
SNAPSHOT_S = 5.0  # between two snapshots, unless a class appears
STATE_KEYS = ("model", "engine", "camera", "paused", "fps", "frames", "dropped", "reconnects", "temperature_c")
END_S = 1.0  # how long `close` waits


class MqttSink:
    """Publishes below `topic`, on a thread of its own.

    Args:
        broker: its address; the credentials come from HEFKIT_MQTT_USERNAME and HEFKIT_MQTT_PASSWORD, or from the files
            that HEFKIT_MQTT_USERNAME_FILE and HEFKIT_MQTT_PASSWORD_FILE name.
        topic: as `parse_topic` returns it; each detector of a broker needs its own.
        stats: published on `topic`/state.
        controls: whether the run is paused.
        discovery_prefix: of Home Assistant; None: no entity is announced.

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
    ) -> None:
        username, password = secret(USERNAME), secret(PASSWORD)
        if password is not None and username is None:
            raise UsageError(f"{PASSWORD} is set, but {USERNAME} is not; expected both or neither")
        need("paho")
        self._topics = Topics(topic, discovery_prefix or "")
        self._stats, self._controls = stats, controls
        self._lines: deque[str] = deque(maxlen=WAITING)
        self._peaks = PeakCounts()
        self._model: tuple[Mapping[int, str], str] | None = None  # names and engine
        self._entities: Entities | None = None
        self._connection = 0  # the one that `_retained` belongs to
        self._retained: dict[str, str] = {}  # topic -> payload that the broker has
        self._presence = Presence()
        self._seen: LiveResult | None = None  # the newest with objects that was not published as a snapshot
        self._next_counts = self._next_state = self._next_snapshot = 0.0
        self._closing, self._wake = False, threading.Event()
        self._link = Link(broker, username, password, (self._topics.availability, OFFLINE), self._wake.set)
        self._thread = threading.Thread(target=self._work, name="mqtt", daemon=True)
        self._thread.start()

    def put(self, result: LiveResult) -> None:
        """Queue a result; never waits for the network."""
        self._model = result.names, result.engine
        self._peaks.add(result.detections.class_id.tolist())
        self._lines.append(live_line(result))
        if len(result.detections):
            self._seen = result
        self._wake.set()

    def close(self) -> None:
        """Publish what waits, then `offline`, and end the thread."""
        self._closing = True
        self._wake.set()
        self._thread.join(END_S)

    # --- on the thread ----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while not self._closing:
                self._wake.wait(COUNTS_S / 4)
                self._wake.clear()
                self._publish()
            self._publish_lines()
        finally:
            self._link.close()

    def _publish(self) -> None:
        if self._link.connections != self._connection:
            self._republish()
        if not self._publish_lines():
            return
        now = time.monotonic()
        if now >= self._next_state:
            self._next_state = now + STATE_S
            stats = self._stats.snapshot(self._controls.paused)
            self._retain(self._topics.state, json.dumps({key: stats[key] for key in STATE_KEYS}))
        if now >= self._next_counts:
            self._next_counts = now + COUNTS_S
            self._publish_counts()
        if self._seen is not None and now >= self._next_snapshot:
            self._next_snapshot = now + SNAPSHOT_S
            result, self._seen = self._seen, None
            self._link.publish(self._topics.snapshot, jpeg(result.annotated), retain=True)

    def _republish(self) -> None:
        """There is a new connection: the broker may have forgotten what was published on the old one."""
        self._connection = self._link.connections
        self._retained.clear()
        self._retain(self._topics.availability, ONLINE)
        self._next_counts = self._next_state = 0.0

    def _publish_lines(self) -> bool:
        """Publish the waiting lines; False when the network takes no more."""
        while ready := self._link.ready():
            if not self._lines:
                break
            self._link.publish(self._topics.detections, self._lines.popleft())
        return ready

    def _publish_counts(self) -> None:
        if self._model is None:
            return
        if self._entities is None:
            self._entities = Entities(self._topics, self._stats.snapshot()["model"], *self._model)
        counts = self._peaks.take()
        messages = self._entities.announced(counts.by_class if counts else ())
        for topic, payload in messages if self._topics.prefix else ():
            self._retain(topic, payload)
        if counts is None:
            return
        for topic, payload in self._entities.states(counts):
            self._retain(topic, payload)
        for kind, class_id, count in self._presence.events(counts, time.monotonic()):
            name = one_line(self._model[0][class_id], MAX_NAME)
            event = {"event_type": kind, "class_id": class_id, "class": name, "count": count}
            self._link.publish(self._topics.events, json.dumps({**event, "timestamp": timestamp(time.time())}))
            self._next_snapshot = 0.0

    def _retain(self, topic: str, payload: str) -> None:
        """Publish a retained message, unless the broker has it already."""
        if self._retained.get(topic) != payload:
            self._retained[topic] = payload
            self._link.publish(topic, payload, retain=True)
