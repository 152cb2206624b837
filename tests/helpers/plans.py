"""Rounding plans of small graphs in ONNX's own text."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from hefkit.workshop.emulator.plan import RoundingPlan
from hefkit.workshop.emulator.statistics import Extremes, extremes


def text_plan(body: str, shape: list[int], outputs: str = "y", opset: int = 14, **constants: object) -> RoundingPlan:
    """The plan of a graph from `x`; constants are the initializers that it names.

    Vectors of int64, as numpy arrays, are shapes and stay; everything else becomes float32.
    """
    results = ", ".join(f"float[A, B, C, D] {o}" for o in outputs.split())
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}]> toy (float[{", ".join(map(str, shape))}] x) => ({results}) '
        f"{{ {body} }}"
    )
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")  # of any number of axes
    for name, value in constants.items():
        is_shape = isinstance(value, np.ndarray) and value.dtype == np.int64 and value.ndim == 1
        array = np.asarray(value, np.int64 if is_shape else np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return RoundingPlan(model)


def measured(plan: RoundingPlan, *pictures: np.ndarray) -> dict[str, Extremes]:
    """Ranges of all tensors that the emulator measures."""
    names = list(dict.fromkeys(n for p in plan.points for n in (p.tensor, p.inner)))
    return extremes(plan.model, names, [{"x": np.asarray(p, np.float32)} for p in pictures])
