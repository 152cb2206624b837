"""From a photograph to the input tensor, and from boxes in the input back to the photograph.

Calibration, emulator, chip, validation and the live detector all call `letterbox` with the same frozen `InputSpec`.
Where a camera has scaled the picture, `place` replaces it, with the same geometry. Rounding follows ultralytics 8.4:
each side is rounded to whole pixels (at least 1), the padding is split with round(x -/+ 0.1), and the way back divides
by the true ratio of each axis, after rounding.

Example, 1280 x 720 into 640 x 640: resized to 640 x 360, 140 rows of padding above and below; the box
(50, 240, 150, 340) of the input is (100, 200, 300, 400) in the photograph.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from hefkit.spec import InputSpec

SPARE = 1  # pixel per side that a picture scaled by a camera may be smaller: its sizes are even


@dataclass(frozen=True)
class Transform:
    """Where the picture lies in the input tensor; all values in pixels."""

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


def plan(original_hw: tuple[int, int], spec: InputSpec) -> Transform:
    """Where a picture of this size lies in the input."""
    (height, width), (in_h, in_w) = original_hw, spec.size
    if spec.fit == "stretch":
        return Transform(original_hw, (in_h, in_w), 0, 0)
    ratio = min(in_h / height, in_w / width)
    return _centred(original_hw, (max(round(height * ratio), 1), max(round(width * ratio), 1)), spec)


def letterbox(image_bgr: np.ndarray, spec: InputSpec, out: np.ndarray | None = None) -> tuple[np.ndarray, Transform]:
    """Photograph (h, w, 3) uint8 BGR -> (tensor (H, W, 3) uint8 RGB, Transform).

    Linear resize, and a border of `pad_value`; with fit `stretch` only the resize. If `out`, a C-contiguous (H, W, 3)
    uint8 array, is given, the tensor is written into it.
    """
    _check_colour(image_bgr, "BGR")
    transform = plan((image_bgr.shape[0], image_bgr.shape[1]), spec)
    new_h, new_w = transform.resized_hw
    if image_bgr.shape[:2] != (new_h, new_w):
        image_bgr = cv2.resize(image_bgr, (new_w, new_h), interpolation=cv2.INTER_LINEAR)
    if out is None:
        out = np.empty((*spec.size, 3), np.uint8)
    # BGR to RGB after the resize: then it is at most H * W pixels, not the full photograph
    inner = _inside_border(out, transform, spec.pad_value)
    written = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB, dst=inner)
    if written is not inner:  # OpenCV makes an array of its own where it cannot write into a view
        inner[...] = written
    return out, transform


def place(small_rgb: np.ndarray, original_hw: tuple[int, int], spec: InputSpec, out: np.ndarray) -> Transform:
    """Copy a picture that the camera has scaled into the middle of `out`; nothing is resized.

    Args:
        small_rgb: (h, w, 3) uint8 RGB, the same view as the picture of size `original_hw`. Its size is that of `plan`,
            or one pixel smaller per side, because the camera's scaler gives even sizes.
        out: (H, W, 3) uint8, written into: `small_rgb`, and `pad_value` around it.

    Returns:
        The Transform for boxes of the picture of size `original_hw`.
    """
    _check_colour(small_rgb, "RGB")
    planned = plan(original_hw, spec)
    transform = _centred(original_hw, (small_rgb.shape[0], small_rgb.shape[1]), spec)
    spare = [wanted - got for wanted, got in zip(planned.resized_hw, transform.resized_hw, strict=True)]
    if min(spare) < 0 or max(spare) > (0 if spec.fit == "stretch" else SPARE):
        raise ValueError(f"expected a picture scaled to {planned.resized_hw}, got {small_rgb.shape}")
    _inside_border(out, transform, spec.pad_value)[...] = small_rgb
    return transform


def _centred(original_hw: tuple[int, int], resized_hw: tuple[int, int], spec: InputSpec) -> Transform:
    """A picture of this size in the middle of the input, rounded as ultralytics does it."""
    top, left = (round((side - new) / 2 - 0.1) for side, new in zip(spec.size, resized_hw, strict=True))
    return Transform(original_hw, resized_hw, left, top)


def _inside_border(out: np.ndarray, transform: Transform, pad_value: int) -> np.ndarray:
    """Fill the border and return the part of the input where the picture lies."""
    (new_h, new_w), left, top = transform.resized_hw, transform.left, transform.top
    out[:top] = out[top + new_h :] = pad_value
    out[top : top + new_h, :left] = out[top : top + new_h, left + new_w :] = pad_value
    return out[top : top + new_h, left : left + new_w]


def _check_colour(image: np.ndarray, order: str) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"expected (h, w, 3) uint8 {order}, got {image.shape} {image.dtype}")
