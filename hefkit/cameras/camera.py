"""TODO."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np


class Shot(NamedTuple):
    """What a camera gives: (h, w, 3) uint8 BGR, and perhaps the same view as (h, w, 3) uint8 RGB, scaled down."""

    picture: np.ndarray
    small: np.ndarray | None = None


class Camera(Protocol):
    """An opened source of frames. One thread opens, reads and closes it."""

    name: str  # as messages call it: without passwords

    def read(self) -> Shot | None:
        """Wait for the next frame; None when the source has ended, stalled or was unplugged."""

    def close(self) -> None:
        """Give the device or the connection back; never raises."""
