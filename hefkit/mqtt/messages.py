"""Topics below the user's, and Home Assistant's MQTT discovery: its sensors without a line of configuration.

One retained message an entity, on PREFIX/COMPONENT/NODE/OBJECT/config (home-assistant.io, "MQTT", "Discovery
messages"). That form is understood by all versions since 2017; the newer one for whole devices is not. Home Assistant
takes the payload `None` for "unknown".
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
MAX_NAME = 60


@dataclass(frozen=True)
class Topics:
    """Everything that is published: below `base`, and below `prefix` what announces it; all retained but detections."""

    base: str
    prefix: str = "homeassistant"

    @property
    def availability(self) -> str:
        """`online` or `offline`."""
        return f"{self.base}/availability"

    @property
    def detections(self) -> str:
        """One JSON object a frame."""
        return f"{self.base}/detections"

    @property
    def state(self) -> str:
        """Rate, temperature and the like, as one JSON object."""
        return f"{self.base}/state"

    @property
    def total(self) -> str:
        """How many objects there are."""
        return f"{self.base}/total"

    @property
    def present(self) -> str:
        """`ON` while there is one."""
        return f"{self.base}/present"

    def count(self, class_word: str) -> str:
        """How many objects of one class there are."""
        return f"{self.base}/counts/{class_word}"

    @property
    def node(self) -> str:
        """Our name in Home Assistant: another one for every `base`."""
        word = re.sub(r"[^a-z0-9]+", "_", self.base.lower()).strip("_")[:40]
        return f"hefkit_{word}_{hashlib.sha256(self.base.encode()).hexdigest()[:6]}"


def class_words(names: Mapping[int, str]) -> dict[int, str]:
    """Class id -> a different word for each, of lower-case ASCII letters, digits, _ and -; fit for topics and ids."""
    return {i: word.lower() for i, word in class_folders({i: readable(n, i) for i, n in names.items()}).items()}


class Discovery:
    """The messages that announce one detector.

    Args:
        model: file name of the model, with the engine that runs it.
    """

    def __init__(self, topics: Topics, model: str) -> None:
        self._topics = topics
        self._common = {
            "availability_topic": topics.availability,
            "device": {
                "identifiers": [topics.node],
                "name": f"hefkit {topics.base}",
                "manufacturer": "hefkit",
                "model": one_line(model, 100),
                "sw_version": __version__,
            },
            "origin": {"name": "hefkit", "sw_version": __version__},
        }

    def general(self) -> list[tuple[str, str]]:
        """(topic, payload) of what every detector has."""
        topics, diagnostic = self._topics, {"entity_category": "diagnostic", "state_class": "measurement"}
        return [
            self._entity("binary_sensor", "present", "Object present", topics.present, device_class="occupancy"),
            self._count("total", "Objects", topics.total),
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

    def of_class(self, name: str, word: str) -> tuple[str, str]:
        """(topic, payload) of the sensor that counts one class."""
        return self._count(f"count_{word}", one_line(name, MAX_NAME), self._topics.count(word))

    def _count(self, key: str, name: str, state_topic: str) -> tuple[str, str]:
        return self._entity(
            "sensor", key, name, state_topic,
            unit_of_measurement="objects", state_class="measurement", icon="mdi:counter",
        )  # fmt: skip

    def _entity(self, component: str, key: str, name: str, state_topic: str, **more: Any) -> tuple[str, str]:
        node = self._topics.node
        config = {"name": name, "unique_id": f"{node}_{key}", "state_topic": state_topic, **more, **self._common}
        return f"{self._topics.prefix}/{component}/{node}/{key}/config", json.dumps(config)


BLIND_S = 5.0  # without a frame for so long, nobody knows what is there
ALL_CLASSES = 20  # of a model with more, a class is announced when it is first seen
MOST_CLASSES = 100


class Counts(NamedTuple):
    """The most objects that one frame showed; `total` is None where there were no frames for long."""

    total: int | None
    by_class: Mapping[int, int]


class Seen:
    """What was seen since somebody last asked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = time.monotonic()
        self._frames = self._total = 0
        self._by_class: dict[int, int] = {}

    def add(self, class_ids: list[int]) -> None:
        """One frame."""
        with self._lock:
            self._last = time.monotonic()
            self._frames += 1
            self._total = max(self._total, len(class_ids))
            for class_id, count in Counter(class_ids).items():
                self._by_class[class_id] = max(self._by_class.get(class_id, 0), count)

    def take(self) -> Counts | None:
        """The counts, and begin anew; None where there is nothing new to tell."""
        with self._lock:
            if self._frames == 0:
                return Counts(None, {}) if time.monotonic() - self._last > BLIND_S else None
            counts = Counts(self._total, self._by_class)
            self._frames = self._total = 0
            self._by_class = {}
            return counts


class Classes:
    """The classes that have a sensor: all of a small model, of a large one those that were seen, up to a limit."""

    def __init__(self, topics: Topics, model: str, names: Mapping[int, str], engine: str) -> None:
        self._topics, self._names, self._words = topics, names, class_words(names)
        self._discovery = Discovery(topics, f"{Path(model).name} ({engine})")
        self._announced = self._discovery.general()
        self._counted: dict[int, str] = {}
        self._full = False
        if len(names) <= ALL_CLASSES:
            self._add(names)

    def announced(self, seen: Iterable[int]) -> list[tuple[str, str]]:
        """(topic, payload) of every entity, those included for what has just been seen."""
        self._add(class_id for class_id in seen if class_id not in self._counted)
        return self._announced

    def topics(self) -> Iterable[tuple[int, str]]:
        """(class id, topic of its count)."""
        return self._counted.items()

    def _add(self, class_ids: Iterable[int]) -> None:
        for class_id in class_ids:
            if len(self._counted) == MOST_CLASSES:
                if not self._full:
                    log.warning("more than %d classes were seen: MQTT counts no further ones apart", MOST_CLASSES)
                self._full = True
                return
            word = self._words[class_id]
            self._counted[class_id] = self._topics.count(word)
            self._announced.append(self._discovery.of_class(self._names[class_id], word))
