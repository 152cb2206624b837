"""One pass of a model over the pictures: everything that accuracy and agreement need, and no picture is kept.

The outputs are decoded twice: with a confidence of 0.001 and several classes an anchor, as average precision wants it,
and as a user detects (0.25, the best class), for agreement. Memory grows by a few kB a picture.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from hefkit.detect.decode import DecodeSettings
from hefkit.detect.detections import Detections
from hefkit.detect.detector import Detector, make_decoder
from hefkit.detect.engine import Engine
from hefkit.detect.pipeline import detect
from hefkit.detect.preprocess import Transform
from hefkit.errors import DataError
from hefkit.measure.coco import AveragePrecision
from hefkit.measure.labels import LabelFiles
from hefkit.pictures.frames import read_photographs
from hefkit.pictures.sources import Item
from hefkit.results.progress import Progress
from hefkit.spec import ModelSpec
from hefkit.text import log, one_line

LOW_CONF = 0.001  # as in the validation of ultralytics: lower scores hardly change average precision


@dataclass
class ModelRun:
    """What one model found."""

    model: Path
    engine: str  # "hailort" | "emulated" | "float"
    spec: ModelSpec
    found: list[Detections | None] = field(default_factory=list)  # of each picture at 0.25; None: not readable
    truth: list[Detections] = field(default_factory=list)  # with labels: those of each picture; empty: not readable
    meter: AveragePrecision | None = None  # with labels only
    seconds: float = 0.0

    @property
    def images(self) -> int:
        """Pictures that could be read."""
        return sum(found is not None for found in self.found)


class _Twice(Detector):
    """Detects at LOW_CONF, and appends what is found at 0.25 to `strict`, in the order of the pictures."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, DecodeSettings(conf=LOW_CONF, multi_label=True))
        self._strictly = make_decoder(engine.spec, DecodeSettings())
        self.strict: deque[Detections] = deque()

    def finish(self, outputs: Sequence[np.ndarray], transform: Transform) -> Detections:
        found = self._strictly(outputs)
        self.strict.append(found.with_boxes(transform.to_original(found.xyxy)))
        return super().finish(outputs, transform)


def run_model(model: Path, engine: Engine, items: Sequence[Item], labels: LabelFiles | None, bar: Progress) -> ModelRun:
    """Detect in all pictures; with labels average precision is measured too.

    Raises:
        DataError: no picture can be read.
    """
    cv2.setNumThreads(1)  # the stages run in parallel already
    run = ModelRun(model, engine.kind, engine.spec)
    twice = None if labels is None else _Twice(engine)
    if labels is not None:
        run.meter = AveragePrecision(engine.spec.head.num_classes)
    start = time.perf_counter()
    with contextlib.closing(detect(read_photographs(items), twice or Detector(engine, DecodeSettings()))) as results:
        for result in results:
            item, picture, found = items[result.frame.index], result.frame.picture, result.detections
            if not isinstance(picture, np.ndarray) or found is None:
                bar.warn("%s left out: %s", one_line(item.source), one_line(picture))
                run.found.append(None)
                run.truth.append(Detections.empty())
            elif twice is None or labels is None or run.meter is None:
                run.found.append(found)
            else:
                run.truth.append(labels.of(item.path, (picture.shape[1], picture.shape[0])))
                run.meter.add(run.truth[-1], found)
                run.found.append(twice.strict.popleft())
            bar.step()
            del result, picture  # it may be large, and the next one is decoded meanwhile
    run.seconds = time.perf_counter() - start
    if not run.images:
        raise DataError(f"none of the {len(items)} pictures can be read; expected at least one; see the warnings above")
    log.info("  %s: %d pictures in %.1f s", one_line(model), run.images, run.seconds)
    return run
