"""How much rounding noise on a channel matters at the heads.

Rounding errors are treated as independent noise. Walking from the heads up, a weighted layer passes the energy
of its inputs on through its squared weights, and its activation scales it by the ratio of the variances behind
and before it. The result weighs channels when ranges are chosen: one that is small but multiplied by large
weights further down deserves fine steps more than one that is large and hardly used.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from hefkit.workshop.emulator.plan import RoundingPlan, RoundingPoint, constant_array
from hefkit.workshop.emulator.statistics import ChannelStats
from hefkit.workshop.network.graph import attribute

TINY = 1e-12
LARGEST_GAIN = 1.2  # SiLU's slope does not exceed 1.1; more is a variance too small to divide by


def channel_importance(plan: RoundingPlan, stats: Mapping[str, ChannelStats]) -> dict[str, np.ndarray]:
    """Rounded tensor -> (C,): how much a unit of noise energy on a channel brings to the heads.

    Noise that multiplies to 1 at a head is as large as that head's own variance.

    Args:
        stats: of every tensor in `measured_tensors(plan)`.
    """
    return _Walk(plan, stats).run()


def measured_tensors(plan: RoundingPlan) -> list[str]:
    """Tensors whose statistics the walk needs: all that carry the picture outside of activations."""
    inner = {p.inner for p in plan.points}
    names = {**dict.fromkeys(p.tensor for p in plan.points), **dict.fromkeys(inner)}
    for index in plan.graph.alive:
        node = plan.graph.nodes[index]
        if plan.is_moving(node):
            names.update(dict.fromkeys(o for o in node.output if o in plan.dynamic))
    return list(names)


class _Walk:
    def __init__(self, plan: RoundingPlan, stats: Mapping[str, ChannelStats]) -> None:
        self.plan = plan
        self.stats = stats
        self.energy: dict[str, np.ndarray] = {}
        self.layer_at = {p.node: p for p in plan.points}

    def run(self) -> dict[str, np.ndarray]:
        for output in self.plan.graph.output_names:
            variance = self.stats[output].variance
            self._add(output, np.full(len(variance), 1.0 / max(float(variance.mean()) * len(variance), TINY)))
        for index in reversed(self.plan.graph.alive):
            self._pass_up(index)
        return {p.tensor: self._known(p.tensor) for p in self.plan.points}

    def _known(self, tensor: str) -> np.ndarray:
        energy = self.energy.get(tensor)
        if energy is None or not np.isfinite(energy).all() or energy.sum() <= 0:
            return np.full(self._channels(tensor), TINY)  # nothing is known: all channels alike, none urgent
        return energy

    def _pass_up(self, index: int) -> None:
        node = self.plan.graph.nodes[index]
        point = self.layer_at.get(index)
        if point is not None:
            if point.tensor in self.energy:
                self._through_layer(node, point)
        elif self.plan.is_moving(node):
            self._through_moving(node)

    def _through_layer(self, node: onnx.NodeProto, point: RoundingPoint) -> None:
        energy = self.energy[point.tensor]
        if point.inner != point.tensor and point.inner in self.stats:
            before = np.maximum(self.stats[point.inner].variance, TINY)
            energy = energy * np.minimum(self.stats[point.tensor].variance / before, LARGEST_GAIN)
        if point.weight is not None:
            self._add(node.input[0], _through_weights(node, constant_array(self.plan, point.weight), energy))
        elif node.op_type == "Concat" and attribute(node, "axis", 0) == 1:
            self._split(node, energy)
        else:
            for name in self.plan.data_inputs(node):
                self._add(name, energy)

    def _split(self, node: onnx.NodeProto, energy: np.ndarray) -> None:
        """Undo a concatenation along the channels."""
        sizes = [len(self.stats[i].mean) if i in self.stats else 0 for i in node.input]
        if sizes.count(0) == 1:  # the picture itself, say: it is not measured, but its size follows
            sizes[sizes.index(0)] = len(energy) - sum(sizes)
        if sum(sizes) != len(energy):
            return
        for name, part in zip(node.input, np.split(energy, np.cumsum(sizes)[:-1]), strict=True):
            self._add(name, part)

    def _through_moving(self, node: onnx.NodeProto) -> None:
        parts = [self.energy.get(o) for o in node.output]
        if all(p is None for p in parts):
            return
        if node.op_type == "Split":
            filled = [np.zeros(self._channels(o)) if p is None else p for o, p in zip(node.output, parts, strict=True)]
            self._add(node.input[0], np.concatenate(filled))
        elif parts[0] is not None:
            self._add(node.input[0], parts[0])

    def _channels(self, tensor: str) -> int:
        return len(self.stats[tensor].mean) if tensor in self.stats else 1

    def _add(self, tensor: str, energy: np.ndarray) -> None:
        """Noise that reaches the heads on several ways adds up; unknown channel maps spread evenly."""
        if tensor not in self.stats:
            return
        channels = self._channels(tensor)
        if len(energy) != channels:
            energy = np.full(channels, float(energy.mean()))
        self.energy[tensor] = self.energy.get(tensor, np.zeros(channels)) + energy


def _through_weights(node: onnx.NodeProto, weight: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """Energy of the outputs -> energy of the input channels, by squared weights."""
    squared = weight.astype(np.float64) ** 2
    groups = attribute(node, "group", 1)
    if node.op_type == "Conv":  # (O, I / groups, ...)
        table = squared.reshape(*squared.shape[:2], -1).sum(axis=2) * energy[:, None]
        return table.reshape(groups, -1, squared.shape[1]).sum(axis=1).reshape(-1)
    if node.op_type == "ConvTranspose":  # (I, O / groups, ...)
        table = squared.reshape(*squared.shape[:2], -1).sum(axis=2)
        per_group = np.repeat(energy.reshape(groups, -1), len(squared) // groups, axis=0)
        return (table * per_group).sum(axis=1)
    return np.full(1, float(squared.mean() * energy.mean()))
