"""The only way from a photograph to an input tensor, and back from its boxes.

Calibration, emulator, chip, validation and the live detector all call `letterbox` with the same frozen
`InputSpec`. Rounding follows ultralytics 8.4: each side rounds to whole pixels (at least 1), the padding
splits with round(x -/+ 0.1), and the way back divides by the true per-axis ratio of the rounded size.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from hefkit.spec import InputSpec


@dataclass(frozen=True)
class Transform:
    """Where the picture lies inside the input tensor; all in pixels."""

    original_hw: tuple[int, int]
    resized_hw: tuple[int, int]
    left: int
    top: int

    def to_original(self, xyxy: np.ndarray) -> np.ndarray:
        """Boxes (n, 4) in pixels of the input -> float32 pixels of the photograph, clipped to it."""
        (height, width), (new_h, new_w) = self.original_hw, self.resized_hw
        gain = np.array([new_w / width, new_h / height] * 2, np.float64)
        shift = np.array([self.left, self.top] * 2, np.float64)
        boxes = (np.asarray(xyxy, np.float64).reshape(-1, 4) - shift) / gain
        limit = np.array([width, height] * 2, np.float64)
        return np.clip(boxes, 0.0, limit).astype(np.float32)

    def to_input(self, xyxy: np.ndarray) -> np.ndarray:
        """Boxes (n, 4) in pixels of the photograph -> float32 pixels of the input."""
        (height, width), (new_h, new_w) = self.original_hw, self.resized_hw
        gain = np.array([new_w / width, new_h / height] * 2, np.float64)
        shift = np.array([self.left, self.top] * 2, np.float64)
        return (np.asarray(xyxy, np.float64).reshape(-1, 4) * gain + shift).astype(np.float32)


def plan(original_hw: tuple[int, int], spec: InputSpec) -> Transform:
    """Where a picture of this size will lie in the input."""
    (height, width), (in_h, in_w) = original_hw, spec.size
    if spec.fit == "stretch":
        return Transform(original_hw, (in_h, in_w), 0, 0)
    ratio = min(in_h / height, in_w / width)
    new_h, new_w = max(round(height * ratio), 1), max(round(width * ratio), 1)
    top, left = round((in_h - new_h) / 2 - 0.1), round((in_w - new_w) / 2 - 0.1)
    return Transform(original_hw, (new_h, new_w), left, top)


def letterbox(image_bgr: np.ndarray, spec: InputSpec, out: np.ndarray | None = None) -> tuple[np.ndarray, Transform]:
    """Photograph (h, w, 3) uint8 BGR -> (tensor (H, W, 3) uint8 RGB, Transform).

    Linear resize, the border filled with `pad_value`; with fit `stretch` the plain resize. `out`, a
    C-contiguous (H, W, 3) uint8 array, is written into and returned if given.
    """
    if image_bgr.ndim != 3 or image_bgr.shape[2] != 3 or image_bgr.dtype != np.uint8:
        raise ValueError(f"expected (h, w, 3) uint8 BGR, got {image_bgr.shape} {image_bgr.dtype}")
    transform = plan((image_bgr.shape[0], image_bgr.shape[1]), spec)
    (new_h, new_w), left, top = transform.resized_hw, transform.left, transform.top
    if image_bgr.shape[:2] != (new_h, new_w):
        image_bgr = cv2.resize(image_bgr, (new_w, new_h), interpolation=cv2.INTER_LINEAR)
    if out is None:
        out = np.empty((*spec.size, 3), np.uint8)
    out[:top] = out[top + new_h :] = spec.pad_value
    out[top : top + new_h, :left] = out[top : top + new_h, left + new_w :] = spec.pad_value
    # the colours change after the resize: at most H * W pixels, never the camera's full frame
    inner = out[top : top + new_h, left : left + new_w]
    written = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB, dst=inner)
    if written is not inner:  # OpenCV makes an array of its own where it cannot write into a view
        inner[...] = written
    return out, transform
