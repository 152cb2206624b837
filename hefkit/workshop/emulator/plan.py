"""Where a network rounds on the chip: the list of tensors that exist there as 8- or 16-bit codes.

A layer on the chip is a convolution with its bias and its activation; it writes one tensor, so there is no
rounding between a Conv and its SiLU. Element-wise operations and concatenations write their own tensor.
Moving or selecting values (max pooling, nearest resize, reshape, split ...) writes codes that were rounded
before. Everything is read from the graph's structure; names are not used.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx

from hefkit.workshop.network.cut import image_inputs
from hefkit.workshop.network.graph import Graph

# operations that carry weights when their second input is a constant
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# layers that the chip fuses with the activation behind them
FUSING = (*WEIGHTED, "Add", "Sub")
# operations whose results are among their input's values (or a zero, which every range holds)
# fmt: off
MOVING = frozenset(
    (
        "MaxPool", "Reshape", "Transpose", "Split", "Slice", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Pad",
        "Expand", "Gather", "DepthToSpace", "SpaceToDepth", "Dropout", "Tile", "Cast",
    )
)
# fmt: on
# element by element, as part of an activation: constants (slopes, bounds, scalars) do not count as inputs
# fmt: off
ELEMENTWISE = frozenset(
    (
        "Relu", "LeakyRelu", "PRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Swish", "Tanh", "Clip", "Elu", "Selu",
        "Celu", "Softplus", "Softsign", "Mish", "Gelu", "QuickGelu", "Erf", "Exp", "Neg", "Abs", "Sqrt", "Pow", "Add",
        "Sub", "Mul", "Div", "Min", "Max",
    )
)
# fmt: on
LONGEST_ACTIVATION = 12  # nodes; GELU spelled out takes eight


@dataclass(frozen=True)
class RoundingPoint:
    """A tensor that the chip stores as codes, and the layer that writes it."""

    tensor: str
    node: int  # index of the node that the layer begins with
    op: str  # its operation
    inner: str  # what that node computes, before the activation; equals `tensor` without one
    weight: str | None  # the constant it multiplies with, if any


class RoundingPlan:
    """The rounding points of a cut network (float32, NCHW), in graph order; its outputs are among them."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.graph = Graph(model)
        self.images = [v.name for v in image_inputs(model)]
        self.points = self._find_points()

    @cached_property
    def dynamic(self) -> set[str]:
        """Tensors that carry the picture; all others are constants."""
        return set(self.graph.propagate(dict.fromkeys(self.images, 1)))

    @cached_property
    def by_tensor(self) -> dict[str, RoundingPoint]:
        """Rounded tensor -> its point."""
        return {p.tensor: p for p in self.points}

    def data_inputs(self, node: onnx.NodeProto) -> list[str]:
        """A node's inputs without weights and other constants."""
        return [i for i in node.input if i in self.dynamic]

    def _find_points(self) -> list[RoundingPoint]:
        inside: set[str] = set()  # stays in the accumulators: between a layer and its activation
        points: dict[str, RoundingPoint] = {}
        for index in self.graph.alive:
            node = self.graph.nodes[index]
            if not any(o in self.dynamic for o in node.output) or self.is_moving(node):
                continue
            if any(o in inside or o in points for o in node.output):
                continue  # part of a layer that began further up
            tensor = self._written_by(node, inside)
            weight = node.input[1] if node.op_type in WEIGHTED and node.input[1] not in self.dynamic else None
            points[tensor] = RoundingPoint(tensor, index, node.op_type, node.output[0], weight)
        return [p for p in points.values() if p.tensor not in inside]

    def is_moving(self, node: onnx.NodeProto) -> bool:
        """Does the node leave the codes as they are (and at most change the scale by one number)?"""
        if node.op_type in ("Resize", "Upsample"):
            return all(a.s == b"nearest" for a in node.attribute if a.name == "mode")
        return node.op_type in MOVING or self._scales_by_one_number(node)

    def _scales_by_one_number(self, node: onnx.NodeProto) -> bool:
        if node.op_type not in ("Mul", "Div") or node.input[0] not in self.dynamic:
            return False
        other = None if node.input[1] in self.dynamic else self.graph.constant(node.input[1])
        return other is not None and other.size == 1

    def _written_by(self, node: onnx.NodeProto, inside: set[str]) -> str:
        """The tensor that the layer beginning at `node` writes; what lies before it is added to `inside`."""
        start = node.output[0]
        found: list[str] | None = None
        if node.op_type in ELEMENTWISE and len(self.data_inputs(node)) == 1:
            # an activation that no layer can take in is a layer of its own, also where several nodes make it up
            found = self._activation(self.data_inputs(node)[0], shared=True)
        if node.op_type in FUSING and (found is None or found == [start]):
            folded = self._folded(start)
            found = [*folded, *(self._activation((folded or [start])[-1], shared=False) or [])] or None
        elif found is not None and start not in found:
            found = None
        if found is None:
            return start
        inside.update({start, *found} - {found[-1]})
        return found[-1]

    def _folded(self, tensor: str) -> list[str]:
        """The tensors behind a layer that fold into its weights: of batch normalisation, of a constant a channel."""
        path = [tensor]
        while path[-1] not in self.graph.output_names:
            readers = self.graph.readers(path[-1])
            if len(readers) != 1 or not self._is_affine(readers[0]):
                break
            path.append(readers[0].output[0])
        return path[1:]

    def _is_affine(self, node: onnx.NodeProto) -> bool:
        if node.op_type == "BatchNormalization":
            return True
        if node.op_type not in ("Add", "Sub", "Mul", "Div") or self.data_inputs(node) != [node.input[0]]:
            return False
        return self._small_constants(node)

    def _small_constants(self, node: onnx.NodeProto) -> bool:
        """Are a node's constants one number, or one a channel? A whole map is an operand of its own."""
        constants = [self.graph.constant(i) for i in node.input if i and i not in self.dynamic]
        return all(c is not None and sum(side > 1 for side in c.shape) <= 1 for c in constants)

    def _activation(self, source: str, *, shared: bool) -> list[str] | None:
        """Follow element-wise nodes fed by `source` alone until their results meet in one tensor.

        Finds Relu as well as x * sigmoid(x) or x * clip(x + 3, 0, 6) / 6, because it asks only which tensors
        are still needed outside. With `shared`, others may read `source` too. Returns the tensors on the way,
        the result last, or None when there is no activation.
        """
        region = [source]
        first: list[str] | None = None
        for node in self._elementwise_below(source):
            region.append(node.output[0])
            open_ends = [t for t in region if self._read_outside(t, region) and not (shared and t == source)]
            if open_ends != [node.output[0]]:
                continue
            if not shared or len(self.data_inputs(node)) > 1:
                return self._past_scalars(region)[1:]
            # a Relu ends here, and the sigmoid of x * sigmoid(x) too: go on to a node where two results meet
            first = first or list(region)
        return None if first is None else self._past_scalars(first)[1:]

    def _elementwise_below(self, source: str) -> Iterable[onnx.NodeProto]:
        """Element-wise nodes computed from `source` alone, in graph order."""
        reached, count = {source}, 0
        for index in range(self.graph.producer.get(source, -1) + 1, len(self.graph.nodes)):
            node = self.graph.nodes[index]
            inputs = self.data_inputs(node)
            if not inputs or not set(inputs) <= reached or node.op_type not in ELEMENTWISE:
                continue
            if not self._small_constants(node):
                continue
            yield node
            reached.add(node.output[0])
            count += 1
            if count == LONGEST_ACTIVATION:
                return

    def _read_outside(self, tensor: str, region: list[str]) -> bool:
        return tensor in self.graph.output_names or any(n.output[0] not in region for n in self.graph.readers(tensor))

    def _past_scalars(self, region: list[str]) -> list[str]:
        """The region with the scalings by one number behind it, which fold into the layer."""
        while region[-1] not in self.graph.output_names:
            readers = self.graph.readers(region[-1])
            if len(readers) != 1 or not self._scales_by_one_number(readers[0]):
                break
            region.append(readers[0].output[0])
        return region


def constant_array(plan: RoundingPlan, name: str) -> np.ndarray:
    """A constant of the graph as float32; the plan has made sure that it is one."""
    value = plan.graph.constant(name)
    if value is None:
        raise ValueError(f"{name!r} is computed, not constant")
    return np.asarray(value, np.float32)
