"""A run over files: every frame through the pipeline into the outputs, and the counts and times of the run."""

from __future__ import annotations

import contextlib
import time
from array import array
from collections import Counter
from collections.abc import Generator, Iterable, Mapping

import cv2
import numpy as np

from hefkit.detect.detector import Detector
from hefkit.detect.pipeline import Result, detect
from hefkit.errors import DataError
from hefkit.pictures.frames import Frame
from hefkit.results.outputs import Outputs
from hefkit.results.progress import Progress
from hefkit.text import one_line

NARROW = 3  # aspect ratio; beyond it most of the letterboxed input is padding


def run(frames: Generator[Frame, None, None], detector: Detector, outputs: Outputs, bar: Progress) -> Tally:
    """Detect in every frame and write the results; unreadable pictures are logged and counted.

    Raises:
        DataError: no picture can be read, or the disk is full.
    """
    cv2.setNumThreads(1)  # the stages run in parallel already; threads inside OpenCV would slow them down
    tally = Tally()
    with contextlib.closing(detect(frames, detector)) as results:
        for result in results:
            _take(result, outputs, tally, bar)
            bar.step()
            del result  # its picture may be large, and the next one is decoded meanwhile
    if not tally.images:
        raise DataError(
            f"none of the images ({tally.failed}) can be read; expected at least one; see the warnings above"
        )
    if tally.narrow and detector.engine.spec.input.fit == "letterbox":
        bar.warn(
            "%d of %d images are longer than %d:1; the letterbox makes them small, and small objects are not found",
            tally.narrow,
            tally.images,
            NARROW,
        )
    return tally


def _take(result: Result, outputs: Outputs, tally: Tally, bar: Progress) -> None:
    frame = result.frame
    if not isinstance(frame.picture, np.ndarray) or result.detections is None or result.timings is None:
        tally.failed += 1
        bar.warn("%s left out: %s", one_line(frame.source), one_line(frame.picture))
        return
    start = time.perf_counter()
    outputs.write(frame, result.detections)
    write_s = time.perf_counter() - start
    tally.add(result.detections.class_id.tolist(), read=frame.read_s, write=write_s, **result.timings._asdict())
    tally.narrow += max(frame.picture.shape[:2]) > NARROW * min(frame.picture.shape[:2])


STAGES = ("read", "preprocess", "infer", "decode", "write")


class Tally:
    """Counts and times of a run; grows by a few numbers per picture."""

    def __init__(self) -> None:
        self.images = 0
        self.failed = 0
        self.narrow = 0  # pictures beyond NARROW
        self.by_class: Counter[int] = Counter()
        self._seconds = {stage: array("d") for stage in STAGES}

    def add(self, class_ids: Iterable[int], **seconds: float) -> None:
        """Add a picture: the classes of its detections, and the seconds of each of STAGES."""
        self.images += 1
        self.by_class.update(class_ids)
        for stage in STAGES:
            self._seconds[stage].append(seconds[stage])

    @property
    def detections(self) -> int:
        """Number of detections of the run."""
        return self.by_class.total()

    def stage_ms(self) -> dict[str, float]:
        """Median milliseconds of every stage; needs at least one picture."""
        return {stage: round(float(np.median(times)) * 1e3, 3) for stage, times in self._seconds.items()}

    def latency_ms(self) -> float:
        """Median over the pictures of the sum of all stages, in milliseconds."""
        return round(float(np.median(np.sum(list(self._seconds.values()), axis=0))) * 1e3, 3)

    def class_lines(self, names: Mapping[int, str], most: int = 20) -> list[str]:
        """`12 person`, the most frequent class first; the classes after the first `most` share one line."""
        ranked = self.by_class.most_common()
        lines = [f"{count:7d}  {one_line(names[class_id], 60)}" for class_id, count in ranked[:most]]
        if len(ranked) > most:
            rest = [count for _, count in ranked[most:]]
            lines.append(f"{sum(rest):7d}  in {len(rest)} more {'class' if len(rest) == 1 else 'classes'}")
        return lines
