"""The output of a HEF with decoded boxes -> detections in pixels of the input.

HailoRT (or the chip) decodes the boxes and computes NMS. Its YOLOv8 operation is always multi-label: a cell gives a
detection for every class that reaches the threshold. A box is suppressed by a better one of its class when their IoU is
the threshold *or more*. No flag changes this. Layouts and rules are from HailoRT 4.23,
net_flow/ops/nms_post_process.cpp and yolov8_bbox_only_post_process.hpp.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hefkit.detect.decode import MAX_CANDIDATES, Candidates, DecodeSettings, best_first
from hefkit.detect.detections import Detections
from hefkit.detect.nms import nms
from hefkit.errors import DeviceError, ModelError
from hefkit.hef.ranges import is_probability
from hefkit.spec import ModelSpec, NmsSpec

ROW = 5  # y_min, x_min, y_max, x_max, score
BOX = 4


class NmsDecoder:
    """Decodes the single output of such a HEF. It copies, so the buffer may be used again after the call.

    A call takes [the output], float32 of `spec.nms.shape`, and returns `Detections` in pixels of the input, best first.
    """

    def __init__(self, spec: ModelSpec, settings: DecodeSettings) -> None:
        assert spec.nms is not None
        self.nms: NmsSpec = spec.nms
        self.num_classes = spec.head.num_classes
        self.settings = settings
        height, width = spec.nms.image_size
        self._scale = np.array([width, height, width, height], np.float32)
        self._wanted: np.ndarray | None = None
        if settings.classes is not None:
            self._wanted = np.isin(np.arange(self.num_classes), settings.classes)

    def __call__(self, outputs: Sequence[np.ndarray]) -> Detections:
        """[float32 output] -> Detections, xyxy in pixels of the input (not clipped)."""
        [output] = outputs
        if output.shape != self.nms.shape or output.dtype != np.float32:
            raise ValueError(f"expected {self.nms.shape} float32, got {output.shape} {output.dtype}")
        yxyx, found = self._boxes_only(output) if self.nms.boxes_only else self._by_class(output)
        keep = np.isfinite(yxyx).all(axis=1) & (found.score >= np.float32(self.settings.conf))
        if self._wanted is not None:
            keep &= self._wanted[found.class_id]
        index = np.flatnonzero(keep)
        order = index[best_first(found.only(index))][:MAX_CANDIDATES]
        xyxy, found = yxyx[order][:, [1, 0, 3, 2]] * self._scale, found.only(order)
        kept = self._survivors(xyxy, found)
        return Detections(xyxy[kept], found.score[kept], found.class_id[kept])

    def _survivors(self, xyxy: np.ndarray, found: Candidates) -> np.ndarray | slice:
        """HailoRT computed NMS within each class; NMS across classes, or over all anchors, is computed here."""
        settings = self.settings
        if not (self.nms.boxes_only or settings.agnostic_nms):
            return slice(settings.max_det)
        return nms(xyxy, None if settings.agnostic_nms else found.class_id, settings.iou, settings.max_det)

    def _by_class(self, flat: np.ndarray) -> tuple[np.ndarray, Candidates]:
        """(n, 4) y_min x_min y_max x_max, and their scores: for each class a count, then as many rows."""
        offset, counts, rows = 0, [], []
        for class_id in range(self.num_classes):
            count = flat[offset]
            if not 0 <= count <= self.nms.max_per_class:  # (also refuses NaN)
                raise DeviceError(
                    f"HailoRT's output is damaged: it counts {count} boxes of class {class_id}; expected at most "
                    f"{self.nms.max_per_class}; check that driver and library have the same version "
                    "(validate_hef.py --device)"
                )
            end = offset + 1 + ROW * int(count)
            counts.append(int(count))
            rows.append(flat[offset + 1 : end])
            offset = end
        table = np.concatenate(rows).reshape(-1, ROW)
        class_ids = np.repeat(np.arange(self.num_classes), counts)
        return table[:, :BOX], Candidates(np.arange(len(table)), class_ids, table[:, BOX])

    def _boxes_only(self, output: np.ndarray) -> tuple[np.ndarray, Candidates]:
        """(n, 4) y_min x_min y_max x_max, and their scores; a row holds the box, then the score of every class."""
        table = output[0]
        scores = table[:, BOX:]
        low, high = (extreme.reduce(scores, axis=None, initial=0) for extreme in (np.fmin, np.fmax))  # without NaN
        if not is_probability(low, high):
            raise ModelError(
                f"the scores of {self.nms.stream} are not probabilities; expected a sigmoid behind the class outputs; "
                "compile the model again without bbox_decoding_only"
            )
        conf = np.float32(self.settings.conf)
        if self.settings.multi_label:
            anchor, class_id = np.nonzero(scores >= conf)
        else:
            best = scores.argmax(axis=1)
            anchor = np.flatnonzero(scores[np.arange(len(scores)), best] >= conf)
            class_id = best[anchor]
        return table[anchor, :BOX], Candidates(anchor, class_id, scores[anchor, class_id])
