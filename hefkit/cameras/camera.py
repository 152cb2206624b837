"""The protocol of an opened camera, and one frame of it."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np


class Shot(NamedTuple):
    """One frame of a camera."""

    picture: np.ndarray  # (h, w, 3) uint8 BGR
    small: np.ndarray | None = None  # the same view as (h, w, 3) uint8 RGB, scaled for the model; csi on a Pi 5 only


class Camera(Protocol):
    """An opened source of frames. One thread opens, reads and closes it."""

    name: str  # for messages: without passwords

    def read(self) -> Shot | None:
        """Wait for the next frame; None when the source has ended, has stalled or was unplugged."""

    def close(self) -> None:
        """Close the device or the connection; a second call does nothing; never raises."""
