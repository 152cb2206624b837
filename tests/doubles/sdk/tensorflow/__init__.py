"""The part of TensorFlow that the double of the SDK needs: a dataset from a generator, and where it computes."""

from __future__ import annotations

import types
from typing import Any, Callable, Iterator

import numpy as np
from double_parts.behaviour import wanted

float32 = np.dtype("float32")


class TensorSpec:
    """Shape and dtype of one tensor."""

    def __init__(self, shape: Any, dtype: Any = float32, name: Any = None) -> None:
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)


class Dataset:
    """Unbatched pairs (image, {})."""

    def __init__(self, generator: Callable[[], Iterator], signature: Any) -> None:
        self._generator = generator
        self.element_spec = signature

    @staticmethod
    def from_generator(generator: Callable[[], Iterator], *, output_signature: Any) -> Dataset:
        """A dataset; the signature is checked at every element."""
        if not callable(generator):
            raise TypeError("`generator` must be a Python callable.")
        if not isinstance(output_signature, tuple) or not isinstance(output_signature[0], TensorSpec):
            raise TypeError("`output_signature` must contain objects that are subclass of `tf.TypeSpec`")
        return Dataset(generator, output_signature)

    def __iter__(self) -> Iterator:
        spec = self.element_spec[0]
        for image, info in self._generator():
            if image.shape != spec.shape or image.dtype != spec.dtype:
                raise TypeError(f"`generator` yielded an element of shape {image.shape} where {spec.shape}")
            yield image, info


def ones(shape: Any) -> Any:
    """A tensor of ones."""
    return np.ones(shape, np.float32)


def _conv2d(x: Any, kernel: Any, strides: Any, padding: str) -> Any:
    device = wanted("device", "/device:CPU:0")
    if device == "broken":
        raise RuntimeError("No DNN in stream executor [Op:Conv2D]")
    return types.SimpleNamespace(device=f"/job:localhost/replica:0/task:0{device}")


nn = types.SimpleNamespace(conv2d=_conv2d)
data = types.SimpleNamespace(Dataset=Dataset)
