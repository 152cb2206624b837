"""Boxes, scores and classes of one image, as parallel arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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


@dataclass(frozen=True)
class NamedDetections(Detections):
    """The detections that the Python API returns: with the names of the model's classes and the kind of engine.

    Attributes:
        all_names: class id -> name, of every class of the model.
        engine: "hailort", "emulated" or "float".
    """

    all_names: Mapping[int, str] = field(default_factory=dict, repr=False)
    engine: str = ""

    @property
    def names(self) -> list[str]:
        """The class name of each detection."""
        return [self.all_names.get(i, f"class{i}") for i in self.class_id.tolist()]

    def __getitem__(self, index: np.ndarray | slice) -> NamedDetections:
        """A selection by mask, index array or slice."""
        return self._with(super().__getitem__(index))

    def with_boxes(self, xyxy: np.ndarray) -> NamedDetections:
        """The same detections with other coordinates."""
        return self._with(super().with_boxes(xyxy))

    def _with(self, found: Detections) -> NamedDetections:
        return NamedDetections(found.xyxy, found.score, found.class_id, self.all_names, self.engine)
