"""Compute what a graph computes from its constants alone: weights behind a Cast, a weight normalisation, a scale.

Exporters without constant folding and converters to float16 leave such nodes behind. Discovery, emulation and Hailo's
parser look for weights, and find arithmetic.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import numpy_helper

from hefkit.errors import ModelError
from hefkit.workshop.network.cut import extract, image_inputs, zero_feed
from hefkit.workshop.network.graph import Graph, attribute
from hefkit.workshop.network.session import open_session, run_session

# not the same every time, or more than arithmetic, or (quantised weights) a thing that others must see and refuse
UNFOLDED = frozenset(
    ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial", "Dropout")
) | frozenset(("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "If", "Loop", "Scan", "SequenceMap"))
MAX_DENSE_BYTES = 2 << 30
FLOATS = ("float16", "float32", "float64")


def fold_constants(model: onnx.ModelProto) -> None:
    """Give every node that sees the picture its float operands as initializers; `model` is changed.

    Nodes that nothing needs any more stay, as dead ones do in any export.

    Raises:
        ModelError: onnxruntime cannot compute them.
    """
    names = _operands(model)
    if not names:
        return
    values = run_session(open_session(extract(model, names)), names, zero_feed(model))
    taken = {t.name for t in model.graph.initializer} | {o for n in model.graph.node for o in n.output}
    folded = {}
    for name, value in zip(names, values, strict=True):
        new = f"{name}_folded"
        if getattr(value, "dtype", None) is None or value.dtype.name not in FLOATS or new in taken:
            continue
        model.graph.initializer.append(numpy_helper.from_array(value, new))
        folded[name] = new
    for node in model.graph.node:
        for slot, name in enumerate(node.input):
            node.input[slot] = folded.get(name, name)


def dense_weights(model: onnx.ModelProto) -> None:
    """Sparse initializers (pruned networks) become plain ones, which Hailo's parser and all here read.

    Raises:
        ModelError: a few bytes that claim to be more than a whole ONNX may hold.
    """
    for sparse in model.graph.sparse_initializer:
        values = numpy_helper.to_array(sparse.values)
        if math.prod(sparse.dims) * values.itemsize > MAX_DENSE_BYTES:
            raise ModelError(
                f"the sparse weight {sparse.values.name!r} claims the shape {list(sparse.dims)}; expected at most "
                f"{MAX_DENSE_BYTES >> 30} GiB; the file is damaged, export it again"
            )
        places = numpy_helper.to_array(sparse.indices)  # of the flattened tensor, or a row of indices for each
        if places.ndim == 2:
            places = np.ravel_multi_index(tuple(places.T), tuple(sparse.dims))
        dense = np.zeros(tuple(sparse.dims), values.dtype)
        dense.flat[places] = values
        model.graph.initializer.append(numpy_helper.from_array(dense, sparse.values.name))
    del model.graph.sparse_initializer[:]


def _operands(model: onnx.ModelProto) -> list[str]:
    """Computed tensors that do not depend on the picture, read by nodes that do."""
    graph = Graph(model)
    dynamic = graph.spread({v.name: 1 for v in image_inputs(model)}, lambda index, mask: mask)
    unfolded: dict[str, int] = {}
    for index in graph.alive:
        node = graph.nodes[index]
        special = node.op_type in UNFOLDED or node.domain not in ("", "ai.onnx")
        if special or any(unfolded.get(name) for name in graph.inputs[index]):
            unfolded.update(dict.fromkeys(node.output, 1))
    found = {}
    for index in graph.alive:
        if not any(name in dynamic for name in graph.inputs[index]):
            continue
        for name in graph.nodes[index].input:
            if name in graph.producer and name not in dynamic and name not in unfolded:
                found[name] = graph.constant(name) is None
    return [name for name, computed in found.items() if computed]


def slices_for_sequences(model: onnx.ModelProto) -> None:
    """Turn SequenceAt of SplitToSequence, PyTorch's unoptimised chunk(), into Slices; `model` is changed.

    Lists of tensors are nothing that a chip or its compiler works with.
    """
    graph = Graph(model)
    for node in model.graph.node:
        if node.op_type != "SequenceAt" or node.input[0] not in graph.producer:
            continue
        split = graph.nodes[graph.producer[node.input[0]]]
        if split.op_type != "SplitToSequence" or len(split.input) < 2:
            continue
        bounds = _bounds(graph.constant(split.input[1]), graph.constant(node.input[1]))
        if bounds is None:
            continue
        names = [f"{node.output[0]}_{end}" for end in ("start", "end", "axis")]
        for name, value in zip(names, (*bounds, attribute(split, "axis", 0)), strict=True):
            model.graph.initializer.append(numpy_helper.from_array(np.array([value], np.int64), name))
        node.op_type = "Slice"
        node.input[:] = [split.input[0], *names]


def _bounds(parts: np.ndarray | None, index: np.ndarray | None) -> tuple[int, int] | None:
    """Start and end of a part; None where they cannot be told without the tensor's size."""
    if parts is None or index is None or index.size != 1 or int(index.item()) < 0:
        return None
    place = int(index.item())
    if parts.ndim == 0:  # equal parts of that size, the last perhaps shorter
        return place * int(parts), (place + 1) * int(parts)
    return int(parts[:place].sum()), int(parts[: place + 1].sum())
