"""What is published, as topics and payloads: the counts, and the entities that Home Assistant makes of them.

    garden/cam/total                                          "2"      all of it retained
    garden/cam/counts/drone                                   "1"
    homeassistant/sensor/hefkit_garden_cam_0a1b2c/total/config   {"name": "Objects", "state_topic": ...}

Home Assistant's MQTT discovery (home-assistant.io, "MQTT", "Discovery messages") takes one retained message an entity,
on PREFIX/COMPONENT/NODE/OBJECT/config. All versions since 2017 understand that form, but not the newer one for whole
devices. The payload `None` means "unknown".
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hefkit import __version__
from hefkit.names import class_folders, readable
from hefkit.text import log, one_line

UNKNOWN = "None"
ONLINE, OFFLINE = "online", "offline"
MAX_NAME = 60  # characters of an entity's name
AWAY_S = 3.0  # a class has left after so long without an object: objects are missed in single frames
BLIND_S = 5.0  # without a frame for so long, the counts are unknown
ALL_CLASSES = 20  # in a model with more, a class gets its entity when it is first seen
MAX_CLASSES = 100  # classes with an entity

Message = tuple[str, str]  # topic and payload


@dataclass(frozen=True)
class Topics:
    """The topics of one detector, all below `base`; those that announce its entities are below `prefix`."""

    base: str
    prefix: str = "homeassistant"

    @property
    def availability(self) -> str:
        """`online` or `offline`."""
        return f"{self.base}/availability"

    @property
    def detections(self) -> str:
        """One JSON object a frame; not retained."""
        return f"{self.base}/detections"

    @property
    def state(self) -> str:
        """Rate, temperature and the like, as one JSON object."""
        return f"{self.base}/state"

    @property
    def total(self) -> str:
        """The number of objects."""
        return f"{self.base}/total"

    @property
    def snapshot(self) -> str:
        """The newest picture with objects, as a JPEG with boxes; retained."""
        return f"{self.base}/snapshot"

    @property
    def events(self) -> str:
        """A JSON object when a class appears and when it has left; not retained."""
        return f"{self.base}/events"

    @property
    def present(self) -> str:
        """`ON` while there is an object, else `OFF`."""
        return f"{self.base}/present"

    def count(self, class_word: str) -> str:
        """The number of objects of one class."""
        return f"{self.base}/counts/{class_word}"

    @property
    def node(self) -> str:
        """The detector's name in Home Assistant, a different one for every `base`."""
        word = re.sub(r"[^a-z0-9]+", "_", self.base.lower()).strip("_")[:40]
        return f"hefkit_{word}_{hashlib.sha256(self.base.encode()).hexdigest()[:6]}"


def class_words(names: Mapping[int, str]) -> dict[int, str]:
    """Class id -> a different word for each, of lower-case ASCII letters, digits, _ and -; fit for topics and ids."""
    return {i: word.lower() for i, word in class_folders({i: readable(n, i) for i, n in names.items()}).items()}


class Counts(NamedTuple):
    """The most objects that one frame showed; `total` is None when no frame has come for BLIND_S."""

    total: int | None
    by_class: Mapping[int, int]


class PeakCounts:
    """The highest counts since they were last taken; one thread adds, another one takes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = time.monotonic()
        self._frames = self._total = 0
        self._by_class: dict[int, int] = {}

    def add(self, class_ids: list[int]) -> None:
        """Add one frame with objects of these classes."""
        with self._lock:
            self._last = time.monotonic()
            self._frames += 1
            self._total = max(self._total, len(class_ids))
            for class_id, count in Counter(class_ids).items():
                self._by_class[class_id] = max(self._by_class.get(class_id, 0), count)

    def take(self) -> Counts | None:
        """The counts since the last call; None without a new frame; unknown counts if the last frame is BLIND_S old."""
        with self._lock:
            if self._frames == 0:
                return Counts(None, {}) if time.monotonic() - self._last > BLIND_S else None
            counts = Counts(self._total, self._by_class)
            self._frames = self._total = 0
            self._by_class = {}
            return counts


class Presence:
    """Which classes are in view. A class appears with its first object and has left AWAY_S after its last one.

    Without a frame nothing is known, so nothing appears or leaves.
    """

    def __init__(self) -> None:
        self._seen: dict[int, float] = {}  # class id -> when it was last seen

    def events(self, counts: Counts, now: float) -> list[tuple[str, int, int]]:
        """What has happened since the last call: `appeared` or `left`, class id, number of objects."""
        if counts.total is None:
            return []
        here = {class_id: count for class_id, count in counts.by_class.items() if count}
        new = [("appeared", class_id, count) for class_id, count in here.items() if class_id not in self._seen]
        self._seen.update(dict.fromkeys(here, now))
        gone = [class_id for class_id, last in self._seen.items() if now - last > AWAY_S]
        for class_id in gone:
            del self._seen[class_id]
        return [*new, *(("left", class_id, 0) for class_id in gone)]


class Entities:
    """One detector's entities: the messages that announce them, and their states.

    In a model with at most ALL_CLASSES every class has a sensor; else those that were seen, up to MAX_CLASSES.

    Args:
        model: path of the model.
        names: class id -> name.
        engine: what runs the model, such as "hailort".
    """

    def __init__(self, topics: Topics, model: str, names: Mapping[int, str], engine: str) -> None:
        self._topics, self._names, self._words = topics, names, class_words(names)
        self._common = {
            "availability_topic": topics.availability,
            "device": {
                "identifiers": [topics.node],
                "name": f"hefkit {topics.base}",
                "manufacturer": "hefkit",
                "model": one_line(f"{Path(model).name} ({engine})", 100),
                "sw_version": __version__,
            },
            "origin": {"name": "hefkit", "sw_version": __version__},
        }
        self._announced = self._general()
        self._counted: dict[int, str] = {}  # class id -> topic of its count
        self._full = False
        if len(names) <= ALL_CLASSES:
            self._add(names)

    def announced(self, seen: Iterable[int]) -> list[Message]:
        """The messages that announce every entity, with those of classes that were seen for the first time."""
        self._add(class_id for class_id in seen if class_id not in self._counted)
        return self._announced

    def states(self, counts: Counts) -> list[Message]:
        """The states of the entities that depend on counts."""
        if counts.total is None:
            return [(topic, UNKNOWN) for topic in (self._topics.total, self._topics.present, *self._counted.values())]
        return [
            (self._topics.total, str(counts.total)),
            (self._topics.present, "ON" if counts.total else "OFF"),
            *((topic, str(counts.by_class.get(class_id, 0))) for class_id, topic in self._counted.items()),
        ]

    def _add(self, class_ids: Iterable[int]) -> None:
        for class_id in class_ids:
            if len(self._counted) == MAX_CLASSES:
                if not self._full:
                    log.warning("more than %d classes were seen; MQTT has no counts for the others", MAX_CLASSES)
                self._full = True
                return
            word = self._words[class_id]
            self._counted[class_id] = self._topics.count(word)
            name = one_line(self._names[class_id], MAX_NAME)
            self._announced.append(self._counter(f"count_{word}", name, self._topics.count(word)))

    def _general(self) -> list[Message]:
        """The messages that announce the entities that every detector has."""
        topics, diagnostic = self._topics, {"entity_category": "diagnostic", "state_class": "measurement"}
        return [
            self._entity("binary_sensor", "present", "Object present", topics.present, device_class="occupancy"),
            self._counter("total", "Objects", topics.total),
            self._entity("image", "snapshot", "Snapshot", None, image_topic=topics.snapshot, content_type="image/jpeg"),
            self._entity("event", "events", "Appeared or left", topics.events, event_types=["appeared", "left"]),
            self._entity(
                "sensor", "fps", "Frame rate", topics.state,
                value_template="{{ value_json.fps }}", unit_of_measurement="fps", icon="mdi:speedometer", **diagnostic,
            ),
            self._entity(
                "sensor", "temperature", "Chip temperature", topics.state,
                value_template="{{ value_json.temperature_c }}", unit_of_measurement="\u00b0C",
                device_class="temperature", **diagnostic,
            ),
        ]  # fmt: skip

    def _counter(self, key: str, name: str, state_topic: str) -> Message:
        return self._entity(
            "sensor", key, name, state_topic,
            unit_of_measurement="objects", state_class="measurement", icon="mdi:counter",
        )  # fmt: skip

    def _entity(self, component: str, key: str, name: str, state_topic: str | None, **more: Any) -> Message:
        node = self._topics.node
        state = {} if state_topic is None else {"state_topic": state_topic}
        config = {"name": name, "unique_id": f"{node}_{key}", **state, **more, **self._common}
        return f"{self._topics.prefix}/{component}/{node}/{key}/config", json.dumps(config)
