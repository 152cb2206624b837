"""The only way from a photograph to an input tensor, and back from its boxes.

Calibration, emulator, chip, validation and the live detector all call `letterbox` with the same frozen
`InputSpec`; `place` takes its part where a camera has scaled the picture itself, with the same geometry. Rounding
follows ultralytics 8.4: each side rounds to whole pixels (at least 1), the padding splits with round(x -/+ 0.1), and
the way back divides by the true per-axis ratio of the rounded size.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from hefkit.spec import InputSpec

SPARE = 1  # pixel a side that a camera's scaler may leave out: its sizes are even


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


def plan(original_hw: tuple[int, int], spec: InputSpec) -> Transform:
    """Where a picture of this size will lie in the input."""
    (height, width), (in_h, in_w) = original_hw, spec.size
    if spec.fit == "stretch":
        return Transform(original_hw, (in_h, in_w), 0, 0)
    ratio = min(in_h / height, in_w / width)
    return _centred(original_hw, (max(round(height * ratio), 1), max(round(width * ratio), 1)), spec)


def letterbox(image_bgr: np.ndarray, spec: InputSpec, out: np.ndarray | None = None) -> tuple[np.ndarray, Transform]:
    """Photograph (h, w, 3) uint8 BGR -> (tensor (H, W, 3) uint8 RGB, Transform).

    Linear resize, the border filled with `pad_value`; with fit `stretch` the plain resize. `out`, a
    C-contiguous (H, W, 3) uint8 array, is written into and returned if given.
    """
    _check_colour(image_bgr, "BGR")
    transform = plan((image_bgr.shape[0], image_bgr.shape[1]), spec)
    new_h, new_w = transform.resized_hw
    if image_bgr.shape[:2] != (new_h, new_w):
        image_bgr = cv2.resize(image_bgr, (new_w, new_h), interpolation=cv2.INTER_LINEAR)
    if out is None:
        out = np.empty((*spec.size, 3), np.uint8)
    # the colours change after the resize: at most H * W pixels, never the camera's full frame
    inner = _inside_border(out, transform, spec.pad_value)
    written = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB, dst=inner)
    if written is not inner:  # OpenCV makes an array of its own where it cannot write into a view
        inner[...] = written
    return out, transform


def place(small_rgb: np.ndarray, original_hw: tuple[int, int], spec: InputSpec, out: np.ndarray) -> Transform:
    """A picture that the camera has scaled already -> the middle of `out`; nothing is resized here.

    Args:
        small_rgb: (h, w, 3) uint8 RGB: the same view as the picture of size `original_hw`, as large as `plan`
            says or, as the scaler's sizes are even, one pixel smaller.
        out: (H, W, 3) uint8, written into: the rows of `small_rgb`, and `pad_value` around them.

    Returns:
        The way back to the picture of size `original_hw`.
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
    """A picture of this size in the middle of the input, rounded as ultralytics does."""
    top, left = (round((side - new) / 2 - 0.1) for side, new in zip(spec.size, resized_hw, strict=True))
    return Transform(original_hw, resized_hw, left, top)


def _inside_border(out: np.ndarray, transform: Transform, pad_value: int) -> np.ndarray:
    """The part of the input where the picture lies; the border around it is filled."""
    (new_h, new_w), left, top = transform.resized_hw, transform.left, transform.top
    out[:top] = out[top + new_h :] = pad_value
    out[top : top + new_h, :left] = out[top : top + new_h, left + new_w :] = pad_value
    return out[top : top + new_h, left : left + new_w]


def _check_colour(image: np.ndarray, order: str) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"expected (h, w, 3) uint8 {order}, got {image.shape} {image.dtype}")
