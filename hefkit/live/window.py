"""`--show`: the live picture in a window, and its keys."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping

import cv2

from hefkit.errors import UsageError
from hefkit.live.state import LiveResult

TITLE = "hefkit"
QUIT, SAVE, RECORD = "q", "s", "r"
ESCAPE = 27


def has_display() -> bool:
    """Whether a window could be shown; other systems than Linux are assumed to have a display."""
    return not sys.platform.startswith("linux") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


class Window:
    """A sink that shows the annotated picture; OpenCV demands that only the main thread uses it.

    Args:
        keys: what the keys QUIT, SAVE and RECORD call; a key that is missing does nothing.

    Raises:
        UsageError: this OpenCV has no windows.
    """

    def __init__(self, keys: Mapping[str, Callable[[], None]]) -> None:
        self._keys = keys
        self._open = True
        try:
            cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        except cv2.error as exc:
            raise UsageError(
                "--show: this OpenCV cannot open a window; opencv-python has windows, opencv-python-headless has none; "
                "use --web instead"
            ) from exc

    def put(self, result: LiveResult) -> None:
        """Show a result, and do what a pressed key asks for."""
        if self._open:
            cv2.imshow(TITLE, result.annotated)
            self.poll()

    def poll(self) -> None:
        """Do what a pressed key asks for; a closed window is a QUIT. Without this call the window freezes."""
        if not self._open:
            return
        key = cv2.waitKey(1) & 0xFF
        name = QUIT if key == ESCAPE else chr(key).lower()
        if cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) < 1:
            name = QUIT
        if name in self._keys:
            self._keys[name]()

    def close(self) -> None:
        """Close the window; calling it twice is allowed."""
        if self._open:
            self._open = False
            cv2.destroyWindow(TITLE)
