"""What a run did: pictures, detections by class, and the time of every stage."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from hefkit.text import one_line

STAGES = ("read", "preprocess", "infer", "decode", "write")


class Tally:
    """Grows by a few numbers a picture, whatever the pictures hold."""

    def __init__(self) -> None:
        self.images = 0
        self.failed = 0
        self.narrow = 0  # pictures far from the input's shape
        self.by_class: Counter[int] = Counter()
        self._seconds = {stage: array("d") for stage in STAGES}

    def add(self, class_ids: Iterable[int], **seconds: float) -> None:
        """One picture: the classes found in it and the seconds of each of STAGES."""
        self.images += 1
        self.by_class.update(class_ids)
        for stage in STAGES:
            self._seconds[stage].append(seconds[stage])

    @property
    def detections(self) -> int:
        """All detections of the run."""
        return self.by_class.total()

    def stage_ms(self) -> dict[str, float]:
        """Median milliseconds of every stage; at least one picture must be in."""
        return {stage: round(float(np.median(times)) * 1e3, 3) for stage, times in self._seconds.items()}

    def latency_ms(self) -> float:
        """Median milliseconds of one picture through all its stages, one after the other."""
        return round(float(np.median(np.sum(list(self._seconds.values()), axis=0))) * 1e3, 3)

    def class_lines(self, names: Mapping[int, str], most: int = 20) -> list[str]:
        """`12 person`, most frequent first; the rare rest in one line."""
        ranked = self.by_class.most_common()
        lines = [f"{count:7d}  {one_line(names[class_id], 60)}" for class_id, count in ranked[:most]]
        if len(ranked) > most:
            rest = sum(count for _, count in ranked[most:])
            lines.append(f"{rest:7d}  in {len(ranked) - most} more classes")
        return lines
