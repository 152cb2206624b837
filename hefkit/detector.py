"""One photograph in, boxes in its own pixels out: letterbox, engine, decode, way back."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np

from hefkit.decode import Decoder, DecodeSettings
from hefkit.detections import Detections
from hefkit.engines import Engine
from hefkit.preprocess import letterbox


class Timings(NamedTuple):
    """Wall seconds of the three stages."""

    preprocess: float
    infer: float
    decode: float


class Detector:
    """Runs one engine with one set of thresholds; the tables of the decoder are made once."""

    def __init__(self, engine: Engine, settings: DecodeSettings) -> None:
        self.engine = engine
        self._decode = Decoder(engine.spec.head, settings)

    def detect(self, image_bgr: np.ndarray) -> tuple[Detections, Timings]:
        """(h, w, 3) uint8 BGR -> Detections in pixels of that picture, clipped to it, best first.

        A box that lay in the padding is clipped to an empty one at the picture's edge and stays: so does
        ultralytics', and a detection that vanishes here would make `--max-det` mean something else.
        """
        start = time.perf_counter()
        tensor, transform = letterbox(image_bgr, self.engine.spec.input)  # (H, W, 3) uint8 RGB
        prepared = time.perf_counter()
        [outputs] = self.engine.infer(tensor[None])
        inferred = time.perf_counter()
        found = self._decode(outputs)
        found = found.with_boxes(transform.to_original(found.xyxy))
        done = time.perf_counter()
        return found, Timings(prepared - start, inferred - prepared, done - inferred)
