"""Calibration data in the forms that the SDK is known to accept."""

from __future__ import annotations

import os
from typing import Any, Iterator

import numpy as np


class BadInputsShape(Exception):
    """Data of another shape than the network's input."""


def samples(data: Any, layer: str, shape: tuple, refused: list[str]) -> Iterator[np.ndarray]:
    """Images (H, W, C), float32, 0..255; raises for an unknown or refused form and for another shape."""
    import tensorflow as tf

    if callable(data):
        data = data()
        if not isinstance(data, tf.data.Dataset):
            raise TypeError("Unsupported calibration data: a callable must return a tf.data.Dataset")
    if isinstance(data, dict):
        if set(data) != {layer}:
            raise ValueError(f"Unsupported calibration data: keys {sorted(data)}, expected {layer}")
        data = data[layer]
    if isinstance(data, str):
        data = _from_path(data)
    if isinstance(data, tf.data.Dataset):
        _allowed("dataset", refused)
        images: Iterator[Any] = (image for image, _ in data)
    elif isinstance(data, np.ndarray) and data.dtype in (np.float32, np.uint8):
        _allowed(data.dtype.name, refused)
        if data.ndim != 4:
            raise BadInputsShape(_words(data.shape, layer, shape))
        images = iter(data)
    else:
        raise TypeError(f"Unsupported calibration data of type {type(data).__name__}")
    for image in images:
        if tuple(image.shape) != tuple(shape):
            raise BadInputsShape(_words(image.shape, layer, shape))
        yield np.asarray(image, np.float32)


def _from_path(path: str) -> np.ndarray:
    if os.path.isdir(path):
        return np.stack([np.load(os.path.join(path, f)) for f in sorted(os.listdir(path)) if f.endswith(".npy")])
    if not path.endswith((".npy", ".npz")):
        raise ValueError(f"Unsupported calibration data: {path}")
    return np.load(path)


def _allowed(form: str, refused: list[str]) -> None:
    if form in refused:
        raise TypeError(f"Calibration data of kind {form} is not supported by this version")


def _words(found: tuple, layer: str, shape: tuple) -> str:
    return f"Data shape {tuple(found)} for layer {layer} doesn't match network's input shape {tuple(shape)}"
