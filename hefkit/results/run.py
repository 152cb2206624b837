"""A run over files: every frame through the pipeline, into the outputs and the tally."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator

import cv2
import numpy as np

from hefkit.detect.detector import Detector
from hefkit.detect.pipeline import Result, detect
from hefkit.errors import DataError
from hefkit.pictures.frames import Frame
from hefkit.results.outputs import Outputs
from hefkit.results.progress import Progress
from hefkit.results.tally import Tally
from hefkit.text import one_line

NARROW = 3  # an aspect ratio beyond which the letterbox wastes most of the input


def run(frames: Generator[Frame, None, None], detector: Detector, outputs: Outputs, bar: Progress) -> Tally:
    """Detect in every frame and write the results; pictures that cannot be read are named and counted.

    Raises:
        DataError: not one of them can be read, or the disk is full.
    """
    cv2.setNumThreads(1)  # the stages share the cores; OpenCV's own threads would only get in each other's way
    tally = Tally()
    with contextlib.closing(detect(frames, detector)) as results:
        for result in results:
            _take(result, outputs, tally, bar)
            bar.step()
    if not tally.images:
        raise DataError(
            f"none of the images ({tally.failed}) can be read; expected at least one; see the warnings above"
        )
    if tally.narrow and detector.engine.spec.input.fit == "letterbox":
        bar.warn(
            "%d of %d images are longer than %d:1; fitting them in shrinks what they show, and small objects get lost",
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
