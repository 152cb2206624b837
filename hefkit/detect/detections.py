"""Boxes, scores and classes of one image, as parallel arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Detections:
    """n detections, highest score first; n may be 0.

    Attributes:
        xyxy: (n, 4) float32: left, top, right, bottom, in pixels of the input or of the photograph; the function that
            returns it says which.
        score: (n,) float32, 0..1.
        class_id: (n,) int64.
    """

    xyxy: np.ndarray
    score: np.ndarray
    class_id: np.ndarray

    def __post_init__(self) -> None:
        n = len(self.score)
        if self.xyxy.shape != (n, 4) or self.score.shape != (n,) or self.class_id.shape != (n,):
            raise ValueError(
                f"expected (n, 4), (n,), (n,), got {self.xyxy.shape}, {self.score.shape}, {self.class_id.shape}"
            )

    def __len__(self) -> int:
        return len(self.score)

    def __getitem__(self, index: np.ndarray | slice) -> Detections:
        """A selection by mask, index array or slice."""
        return Detections(self.xyxy[index], self.score[index], self.class_id[index])

    @staticmethod
    def empty() -> Detections:
        """No detections."""
        return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))

    def with_boxes(self, xyxy: np.ndarray) -> Detections:
        """The same detections with other coordinates."""
        return Detections(xyxy, self.score, self.class_id)
