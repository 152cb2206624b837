"""A photograph -> boxes in its pixels: letterbox, engine, decoding, and the boxes scaled back."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from hefkit.detect.decode import Decoder, DecodeSettings
from hefkit.detect.detections import Detections
from hefkit.detect.engine import Engine
from hefkit.detect.hailo_nms import NmsDecoder
from hefkit.detect.preprocess import Transform, letterbox, place
from hefkit.spec import ModelSpec


class Timings(NamedTuple):
    """Wall seconds of the three stages."""

    preprocess: float
    infer: float
    decode: float


def make_decoder(spec: ModelSpec, settings: DecodeSettings) -> Callable[[Sequence[np.ndarray]], Detections]:
    """The decoder of a model: output tensors of one picture -> Detections in pixels of the input, best first."""
    return Decoder(spec.head, settings) if spec.nms is None else NmsDecoder(spec, settings)


class Detector:
    """One engine with one set of thresholds.

    `detect` does everything for one picture. The pipeline instead calls `prepare` in one thread and `finish` in
    another, and runs the engine between them.
    """

    def __init__(self, engine: Engine, settings: DecodeSettings) -> None:
        self.engine = engine
        self._decode = make_decoder(engine.spec, settings)

    def prepare(self, image_bgr: np.ndarray, out: np.ndarray, small_rgb: np.ndarray | None = None) -> Transform:
        """Fit a (h, w, 3) uint8 BGR picture into `out`, (H, W, 3) uint8 RGB of an engine's slot.

        `small_rgb` is the same view, already scaled by the camera (`preprocess: isp`); it replaces the resize.
        """
        if small_rgb is not None:
            return place(small_rgb, (image_bgr.shape[0], image_bgr.shape[1]), self.engine.spec.input, out)
        return letterbox(image_bgr, self.engine.spec.input, out)[1]

    def finish(self, outputs: Sequence[np.ndarray], transform: Transform) -> Detections:
        """Tensors of one picture -> Detections in pixels of that picture, clipped to it, best first.

        A box inside the padding becomes an empty box at the edge of the picture. It is kept, as ultralytics keeps it:
        removing it here would change the meaning of `--max-det`.
        """
        found = self._decode(outputs)
        return found.with_boxes(transform.to_original(found.xyxy))

    def detect(self, image_bgr: np.ndarray) -> tuple[Detections, Timings]:
        """(h, w, 3) uint8 BGR -> Detections as `finish` returns them, and the time of each stage."""
        start = time.perf_counter()
        tensor = np.empty((*self.engine.spec.input.size, 3), np.uint8)
        transform = self.prepare(image_bgr, tensor)
        prepared = time.perf_counter()
        [outputs] = self.engine.infer(tensor[None])
        inferred = time.perf_counter()
        found = self.finish(outputs, transform)
        return found, Timings(prepared - start, inferred - prepared, time.perf_counter() - inferred)
