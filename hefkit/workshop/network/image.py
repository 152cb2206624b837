"""The image input of an ONNX: exactly one, RGB, channels first, of fixed size."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto

from hefkit.errors import ModelError
from hefkit.text import one_line
from hefkit.workshop.network.cut import image_inputs, shape_of

DTYPES: dict[int, str] = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16"}


def find_image_input(path: Path, model: onnx.ModelProto) -> onnx.ValueInfoProto:
    """The one input that is not a weight.

    Raises:
        ModelError: several inputs, or one of another rank, type, channel count or batch than an image.
    """
    inputs = image_inputs(model)
    if len(inputs) != 1:
        seen = ", ".join(v.name for v in inputs) or "none"
        raise ModelError(f"{path} has {len(inputs)} inputs ({one_line(seen)}); expected one image; export a plain YOLO")
    image = inputs[0]
    shape, where = shape_of(image), f"the input {image.name!r} of {path}"
    if len(shape) != 4:
        raise ModelError(f"{where} has {len(shape)} dimensions; expected an image (1, 3, height, width)")
    dtype = image.type.tensor_type.elem_type
    if dtype not in DTYPES:
        name = TensorProto.DataType.Name(dtype).lower()
        raise ModelError(f"{where} is {name}; expected float32 or float16; export without preprocessing in the graph")
    _check_channels(where, shape)
    if shape[0] > 1:
        raise ModelError(f"{where} has batch {shape[0]}; expected 1; export again with batch=1")
    return image


def _check_channels(where: str, shape: tuple[int, ...]) -> None:
    channels = shape[1]
    if channels == 3 or (channels == 0 and shape[3] != 3):  # 0: dynamic
        return
    if shape[3] == 3:
        raise ModelError(f"{where} is NHWC {list(shape)}; expected (1, 3, height, width); export with channels first")
    raise ModelError(f"{where} has {channels} channel(s); expected 3, red, green and blue; train and export with RGB")


def fix_size(path: Path, image: onnx.ValueInfoProto, imgsz: tuple[int, int] | None) -> tuple[int, int]:
    """Write batch 1, three channels and the size into the input; returns (H, W) in pixels.

    Args:
        imgsz: (H, W) for an input with dynamic size; must agree with a fixed one.

    Raises:
        ModelError: no size is known, or the two differ.
    """
    height, width = shape_of(image)[2:]
    if imgsz is None and min(height, width) <= 0:
        raise ModelError(
            f"{path} was exported with dynamic size; expected a fixed one; "
            "give it to compile_to_hef.py with --imgsz, or export again with dynamic=False"
        )
    for fixed, wanted, what in zip((height, width), imgsz or (0, 0), ("height", "width"), strict=True):
        if fixed > 0 and wanted and fixed != wanted:
            raise ModelError(
                f"{path} has the fixed {what} {fixed}, but --imgsz asks for {wanted}; leave --imgsz out or export again"
            )
    size = imgsz or (height, width)
    dims = image.type.tensor_type.shape.dim
    for dim, value in zip(dims, (1, 3, *size), strict=True):
        dim.dim_value = value  # clears a dim_param, they share a oneof
    return size
