"""A video file as a camera: every frame once, or again and again."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np

from hefkit.cameras.camera import Shot
from hefkit.cameras.source import CameraSource
from hefkit.pictures.video import open_video, read_video


class FileCamera:
    """Frames of a video, as fast as they are read.

    Args:
        source: of kind "file".
        loop: start again at the end.

    Raises:
        DataError: OpenCV cannot read it; with `loop` `read` raises it too, if the file has been deleted.
    """

    def __init__(self, source: CameraSource, *, loop: bool = False) -> None:
        assert source.path is not None
        self.name = source.name
        self._video = open_video(source.path, source.name)
        self.fps: float | None = self._video.fps
        self._loop = loop
        self._frames = read_video(self._video)

    def read(self) -> Shot | None:
        """The next frame; None at the end."""
        frame = next(self._frames, None)
        if frame is None and self._loop:
            # without `frames` the warning about fewer frames than the header says comes once, not in every loop
            self._video = replace(self._video, frames=None)
            self._frames = read_video(self._video)
            frame = next(self._frames, None)
        if frame is None:
            return None
        assert isinstance(frame.picture, np.ndarray)
        return Shot(frame.picture)

    def close(self) -> None:
        """Close the file."""
        self._loop = False
        with contextlib.suppress(Exception):
            self._frames.close()
