"""Turn other forms of weights into plain initializers.

The search of the heads, the emulation and Hailo's parser need weights as initializers. Constant arithmetic (a weight
behind a Cast, a weight normalisation) is computed here; exporters without constant folding and converters to float16
leave it in the graph. Sparse weights become dense, lists of tensors become Slices.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import numpy_helper

from hefkit.errors import ModelError
from hefkit.workshop.network.cut import extract, image_inputs, zero_feed
from hefkit.workshop.network.graph import Graph, attribute
from hefkit.workshop.network.operators import STANDARD
from hefkit.workshop.network.session import open_session, run_session

# random, more than arithmetic, or a sign of a quantised model, which a later check must still find
UNFOLDED = frozenset(
    ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial", "Dropout")
) | frozenset(("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "If", "Loop", "Scan", "SequenceMap"))
MAX_DENSE_BYTES = 256 << 20  # bytes of one weight
FLOATS = ("float16", "float32", "float64")


def fold_constants(model: onnx.ModelProto) -> None:
    """Compute the float operands that do not depend on the picture and store them as initializers; `model` is changed.

    Nodes that are no longer needed stay in the graph.

    Raises:
        ModelError: onnxruntime cannot compute an operand.
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
    """Convert sparse initializers (pruned networks) to dense ones; `model` is changed.

    Raises:
        ModelError: a weight whose shape claims more than MAX_DENSE_BYTES.
    """
    for sparse in model.graph.sparse_initializer:
        values = numpy_helper.to_array(sparse.values)
        if math.prod(sparse.dims) * values.itemsize > MAX_DENSE_BYTES:
            raise ModelError(
                f"the sparse weight {sparse.values.name!r} claims the shape {list(sparse.dims)}; expected at most "
                f"{MAX_DENSE_BYTES >> 20} MiB; the file is damaged, export it again"
            )
        places = numpy_helper.to_array(sparse.indices)  # of the flattened tensor, or a row of indices for each
        if places.ndim == 2:
            places = np.ravel_multi_index(tuple(places.T), tuple(sparse.dims))
        dense = np.zeros(tuple(sparse.dims), values.dtype)
        dense.flat[places] = values
        model.graph.initializer.append(numpy_helper.from_array(dense, sparse.values.name))
    del model.graph.sparse_initializer[:]


def _operands(model: onnx.ModelProto) -> list[str]:
    """Computed tensors that do not depend on the picture and are read by nodes that do."""
    graph = Graph(model)
    dynamic = graph.propagate({v.name: 1 for v in image_inputs(model)}, lambda index, mask: mask)
    unfolded: dict[str, int] = {}
    for index in graph.alive:
        node = graph.nodes[index]
        special = node.op_type in UNFOLDED or node.domain not in STANDARD
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
    """Replace SequenceAt of SplitToSequence, PyTorch's unoptimised chunk(), by Slice; `model` is changed.

    Neither the chip nor its compiler knows lists of tensors.
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
    """Start and end of a part; None where they depend on the tensor's size."""
    if parts is None or index is None or index.size != 1 or int(index.item()) < 0:
        return None
    place = int(index.item())
    if parts.ndim == 0:  # equal parts of that size, the last perhaps shorter
        return place * int(parts), (place + 1) * int(parts)
    return int(parts[:place].sum()), int(parts[: place + 1].sum())
