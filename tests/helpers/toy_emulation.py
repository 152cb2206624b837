"""A handmade emulated model: an ONNX that returns the same codes for every picture, and its spec."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hefkit.spec import ModelSpec
from tests.helpers.heads import make_head, make_spec


def write_emulation(folder: Path, names: dict[int, str] | None = None) -> Path:
    """Write toy.emulated.onnx and its JSON for a 64x64 input; it finds one object of class 1 in every picture.

    Stride 8, distances of 2 cells (85 * 6 / 255) around the centre (28, 28): the box 12, 12, 44, 44, score 1.
    """
    head = make_head((64, 64), (8,), 3, 1)
    box, cls = np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3), np.uint8)
    box[3, 3], cls[3, 3, 1] = 85, 255
    spec = make_spec(head, names=names or {0: "car", 1: "drone", 2: "bird"}, source={"file": "toy.onnx"})
    return write_model(folder / "toy.emulated.onnx", spec, [box, cls])


def write_model(path: Path, spec: ModelSpec, tensors: list[np.ndarray]) -> Path:
    """Write the two files of an emulated model that returns these codes."""
    text = json.dumps(spec.to_json())
    path.with_suffix(".json").write_text(text)
    graph = helper.make_graph(
        [helper.make_node("Identity", [f"codes{i}"], [f"out{i}"]) for i in range(len(tensors))],
        "toy",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, [1, *spec.input.size, 3])],
        [helper.make_tensor_value_info(f"out{i}", TensorProto.UINT8, [1, *t.shape]) for i, t in enumerate(tensors)],
        [numpy_helper.from_array(t[None], f"codes{i}") for i, t in enumerate(tensors)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    digest = hashlib.sha256(text.encode()).hexdigest()
    helper.set_model_props(model, {"hefkit.kind": "emulated", "hefkit.format": "1", "hefkit.spec_sha256": digest})
    onnx.save(model, str(path))
    return path
