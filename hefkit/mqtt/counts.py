"""How many objects there are, for MQTT: counted over a while, for the classes that have a sensor."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from hefkit.mqtt.messages import Discovery, Topics, class_words
from hefkit.text import log

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
