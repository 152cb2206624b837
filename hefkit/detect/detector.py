"""One photograph in, boxes in its own pixels out: letterbox, engine, decode, way back."""

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
    """The decoder of a model: outputs of one picture -> Detections in pixels of the input, best first."""
    return Decoder(spec.head, settings) if spec.nms is None else NmsDecoder(spec, settings)


class Detector:
    """Runs one engine with one set of thresholds; the tables of the decoder are made once.

    `detect` does one picture after the other. A pipeline calls its two halves, `prepare` and `finish`, from two
    threads, with the engine between them.
    """

    def __init__(self, engine: Engine, settings: DecodeSettings) -> None:
        self.engine = engine
        self._decode = make_decoder(engine.spec, settings)

    def prepare(self, image_bgr: np.ndarray, out: np.ndarray, small_rgb: np.ndarray | None = None) -> Transform:
        """Fit a (h, w, 3) uint8 BGR picture into `out`, (H, W, 3) uint8 RGB of an engine's slot.

        `small_rgb` is the same view, scaled into the input by the camera (`preprocess: isp`), and saves the resize.
        """
        if small_rgb is not None:
            return place(small_rgb, (image_bgr.shape[0], image_bgr.shape[1]), self.engine.spec.input, out)
        return letterbox(image_bgr, self.engine.spec.input, out)[1]

    def finish(self, outputs: Sequence[np.ndarray], transform: Transform) -> Detections:
        """Tensors of one picture -> Detections in pixels of that picture, clipped to it, best first.

        A box that lay in the padding is clipped to an empty one at the picture's edge and stays: so does
        ultralytics', and a detection that vanishes here would make `--max-det` mean something else.
        """
        found = self._decode(outputs)
        return found.with_boxes(transform.to_original(found.xyxy))

    def detect(self, image_bgr: np.ndarray) -> tuple[Detections, Timings]:
        """(h, w, 3) uint8 BGR -> what `finish` says, and how long each stage took."""
        start = time.perf_counter()
        tensor = np.empty((*self.engine.spec.input.size, 3), np.uint8)
        transform = self.prepare(image_bgr, tensor)
        prepared = time.perf_counter()
        [outputs] = self.engine.infer(tensor[None])
        inferred = time.perf_counter()
        found = self.finish(outputs, transform)
        return found, Timings(prepared - start, inferred - prepared, time.perf_counter() - inferred)
