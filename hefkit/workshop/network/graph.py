"""Name -> object indexes of an ONNX graph, and walks over it. Every walk is a loop: graphs can be deep."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from functools import cached_property

import numpy as np
import onnx
from onnx import numpy_helper

from hefkit.errors import ModelError

# read only the shape of a tensor: anchors made from Shape(x) do not depend on the values of x
SHAPE_ONLY = frozenset({"Shape", "Size"})
_BODIES = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)


class Graph:
    """The main graph of a model; nodes are numbered in file order, which is topological in a valid ONNX."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes: list[onnx.NodeProto] = list(model.graph.node)
        self.inputs: list[list[str]] = [_read_by(node) for node in self.nodes]
        self.producer: dict[str, int] = {out: i for i, node in enumerate(self.nodes) for out in node.output if out}
        self.initializer: dict[str, onnx.TensorProto] = {t.name: t for t in model.graph.initializer}
        self.output_names: list[str] = [v.name for v in model.graph.output]

    @cached_property
    def consumers(self) -> dict[str, list[int]]:
        """Tensor -> nodes that read it."""
        found: dict[str, list[int]] = {}
        for index, names in enumerate(self.inputs):
            for name in names:
                found.setdefault(name, []).append(index)
        return found

    @cached_property
    def alive(self) -> list[int]:
        """Nodes that reach an output, in file order; exporters leave others in the file."""
        return sorted(self.above(self.output_names))

    def readers(self, tensor: str) -> list[onnx.NodeProto]:
        """Nodes that read a tensor."""
        return [self.nodes[i] for i in self.consumers.get(tensor, ())]

    def above(self, tensors: Iterable[str], stop_at: Iterable[str] = ()) -> set[int]:
        """Nodes that the tensors are computed from; the walk ends at the tensors in `stop_at`."""
        stop, seen = set(stop_at), set()
        todo = [self.producer[t] for t in tensors if t in self.producer and t not in stop]
        while todo:
            index = todo.pop()
            if index in seen:
                continue
            seen.add(index)
            todo += [self.producer[t] for t in self.inputs[index] if t in self.producer and t not in stop]
        return seen

    def propagate(self, seeds: dict[str, int], through: Callable[[int, int], int] | None = None) -> dict[str, int]:
        """Carry bit masks down the alive nodes: tensor -> the union of the masks it is computed from.

        Args:
            seeds: tensor -> its own mask; masks from above it are ignored.
            through: (node, union of its inputs) -> mask of its outputs; by default the union, 0 behind Shape.
        """
        masks = dict(seeds)
        for index in self.alive:
            mask = 0
            for name in self.inputs[index]:
                mask |= masks.get(name, 0)
            mask = through(index, mask) if through else self.by_value(index, mask)
            for out in self.nodes[index].output:
                if mask and out and out not in seeds:
                    masks[out] = mask
        return masks

    def below(self, tensors: Iterable[str], through: Callable[[int, int], int] | None = None) -> list[onnx.NodeProto]:
        """Alive nodes that read the tensors or what is computed from them, in file order."""
        masks = self.propagate(dict.fromkeys(tensors, 1), through)
        return [self.nodes[i] for i in self.alive if any(masks.get(name) for name in self.inputs[i])]

    def by_value(self, index: int, mask: int) -> int:
        """The rule of `propagate` that follows values and not shapes."""
        return 0 if self.nodes[index].op_type in SHAPE_ONLY else mask

    def constant(self, name: str) -> np.ndarray | None:
        """The value of an initializer or of a Constant node, also behind Identity; None for computed tensors."""
        while name not in self.initializer:
            if name not in self.producer:
                return None
            node = self.nodes[self.producer[name]]
            if node.op_type == "Constant":
                return _constant_value(node)
            if node.op_type != "Identity":
                return None
            name = node.input[0]
        try:
            return numpy_helper.to_array(self.initializer[name])
        except ValueError as exc:  # the ONNX checker does not compare the data with the shape
            raise ModelError(f"the weights {name!r} are damaged: {exc}; export the model again") from exc


def sort_nodes(model: onnx.ModelProto) -> None:
    """Bring the nodes into topological order, as ONNX demands; float16 converters append their Casts at the end.

    A sorted graph stays as it is. A graph with a cycle stays too; the checker refuses it.
    """
    graph = Graph(model)
    waits_for = [{graph.producer[t] for t in names if t in graph.producer} for names in graph.inputs]
    if all(index > max(above, default=-1) for index, above in enumerate(waits_for)):
        return
    ready = [i for i, above in enumerate(waits_for) if not above]
    heapq.heapify(ready)  # the lowest old number first, so that the order stays close to the old one
    order = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for reader in {r for out in graph.nodes[index].output for r in graph.consumers.get(out, ())}:
            waits_for[reader].discard(index)
            if not waits_for[reader]:
                heapq.heappush(ready, reader)
    if len(order) < len(graph.nodes):
        return
    nodes = [onnx.NodeProto.FromString(graph.nodes[i].SerializeToString()) for i in order]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def name_nodes(model: onnx.ModelProto) -> list[str]:
    """Give nodes without a name, or with one that is taken, a unique name: the Hailo compiler finds nodes by name.

    Returns the new names.
    """
    taken: set[str] = set()
    given = []
    for index, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"hefkit_{node.op_type}_{index}"
            given.append(node.name)
        taken.add(node.name)
    return given


def _read_by(node: onnx.NodeProto) -> list[str]:
    """Tensors that a node reads, those captured by the bodies of If and Loop included."""
    names = list(filter(None, node.input))
    todo = _bodies(node)
    while todo:
        body = todo.pop()
        names += [v.name for v in body.output]  # a body may return a tensor of the outer graph unchanged
        for inner in body.node:
            names += filter(None, inner.input)
            todo += _bodies(inner)
    return names


def _bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [g for a in node.attribute if a.type in _BODIES for g in (a.g, *a.graphs)]


def _constant_value(node: onnx.NodeProto) -> np.ndarray | None:
    for attribute in node.attribute:
        if attribute.name == "value":
            return numpy_helper.to_array(attribute.t)
        if attribute.name in ("value_float", "value_int", "value_floats", "value_ints"):
            return np.asarray(onnx.helper.get_attribute_value(attribute))
    return None


def attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    """An integer attribute of a node."""
    return next((int(a.i) for a in node.attribute if a.name == name), default)
