"""Which layers suffer most in 8 bits: measured, one at a time, at the heads.

Predictions from the weights alone were tried and are wrong by orders of magnitude in the first layers, where rounding
errors are not independent. So the network runs in float but for one layer, whose weights and output are rounded. The
weights and steps are inputs of the graph, so that one session serves all the runs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from hefkit.workshop.emulator.layers import Layer
from hefkit.workshop.emulator.plan import RoundingPlan
from hefkit.workshop.emulator.rounding import Rounding
from hefkit.workshop.emulator.scales import along_channels
from hefkit.workshop.emulator.statistics import Feed
from hefkit.workshop.network.session import in_parallel, open_session, run_session

PICTURES = 2
EXACT = 2.0**-12  # of a step: so fine that nothing is lost beside 8 bits


class Sensitivity:
    """Runs the float network with chosen layers rounded.

    Args:
        feeds: pictures for the float network; the first PICTURES are used.
    """

    def __init__(
        self, plan: RoundingPlan, rounding: Rounding, layers: Mapping[str, Layer], feeds: Sequence[Feed]
    ) -> None:
        self._rounding, self._feeds = rounding, feeds[:PICTURES]
        self._float = {_weight(t): layer.restored(layer.weight) for t, layer in layers.items()}
        self._rounded = {_weight(t): layers[t].restored(n.weight) for t, n in rounding.numbers.items()}
        model = _steered(plan, list(rounding.codes), layers)
        self._outputs = [o.name for o in model.graph.output]
        self._session = open_session(model, threads=1)
        self._axes = {t: layer.weight.ndim for t, layer in layers.items()}
        self._exact_steps = {k: v for t in rounding.codes for k, v in self._steps(t, EXACT).items()}
        self._exact = [self._run(feed, (), ()) for feed in self._feeds]
        # of boxes and of classes, over all strides and pictures: a stride without an object has hardly any signal
        energies = [[float((t.astype(np.float64) ** 2).sum()) for t in heads] for heads in self._exact]
        sums = np.sum(energies, axis=0)
        self._energy = np.maximum([sums[0::2].sum(), sums[1::2].sum()], 1e-30)

    def by_layer(self) -> dict[str, float]:
        """Rounded tensor -> noise over signal, summed over the heads, when it and its layer's weights are rounded."""
        tensors = list(self._rounding.codes)
        jobs = [(tensor, picture) for tensor in tensors for picture in range(len(self._feeds))]
        noise = dict.fromkeys(tensors, 0.0)
        found = in_parallel(lambda job: self._noise([job[0]], [job[0]], job[1]), jobs)
        for (tensor, _), value in zip(jobs, found, strict=True):
            noise[tensor] += value
        return noise

    def of(self, weights: Collection[str], outputs: Collection[str]) -> float:
        """Noise over signal with the weights and the outputs of these layers rounded."""
        return sum(in_parallel(lambda i: self._noise(weights, outputs, i), range(len(self._feeds))))

    def _noise(self, weights: Collection[str], outputs: Collection[str], picture: int) -> float:
        found = self._run(self._feeds[picture], weights, outputs)
        return sum(
            float(((f.astype(np.float64) - e) ** 2).sum()) / self._energy[output % 2]
            for output, (f, e) in enumerate(zip(found, self._exact[picture], strict=True))
        )

    def _run(self, feed: Feed, weights: Collection[str], outputs: Collection[str]) -> list[np.ndarray]:
        inputs = {**feed, **self._exact_steps, **self._float}
        inputs |= {_weight(t): self._rounded[_weight(t)] for t in weights if _weight(t) in self._rounded}
        for tensor in outputs:
            inputs |= self._steps(tensor, 1.0)
        return run_session(self._session, self._outputs, inputs)

    def _steps(self, tensor: str, factor: float) -> dict[str, np.ndarray]:
        """The inputs that make `tensor` round to `factor` of its steps; () or (C, 1, 1) float32.

        Nothing is clipped: the ranges hold all that the calibration pictures give.
        """
        # only weighted layers have scales by channel; their tensors have as many axes as their weights
        step = along_channels(self._rounding.codes[tensor].scale, self._axes.get(tensor, 4)) * np.float32(factor)
        return {f"{tensor}/step": np.asarray(step), f"{tensor}/inverse": np.asarray(1 / step)}


def _weight(tensor: str) -> str:
    return f"{tensor}/free_weight"


def _steered(plan: RoundingPlan, tensors: Collection[str], layers: Mapping[str, Layer]) -> onnx.ModelProto:
    """The float network with a rounding behind every tensor and free weights, steered by inputs."""
    model = onnx.ModelProto()
    model.CopyFrom(plan.model)
    del model.graph.node[:]
    renamed: dict[str, str] = {}
    by_node = {layer.point.node: tensor for tensor, layer in layers.items()}
    for index in plan.graph.alive:
        node = onnx.NodeProto()
        node.CopyFrom(plan.graph.nodes[index])
        for slot, name in enumerate(node.input):
            node.input[slot] = renamed.get(name, name)
        if index in by_node:
            tensor = by_node[index]
            shape = layers[tensor].restored(layers[tensor].weight).shape
            model.graph.input.append(helper.make_tensor_value_info(_weight(tensor), TensorProto.FLOAT, shape))
            node.input[1] = _weight(tensor)
        model.graph.node.append(node)
        for name in node.output:
            if name in tensors:
                renamed[name] = _append_rounding(model, name)
    for output in model.graph.output:
        output.name = renamed[output.name]
    used = {name for node in model.graph.node for name in node.input}
    kept = [t for t in model.graph.initializer if t.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model


def _append_rounding(model: onnx.ModelProto, tensor: str) -> str:
    """round(x * inverse) * step; returns the rounded tensor's name."""
    step, inverse = f"{tensor}/step", f"{tensor}/inverse"
    model.graph.input.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in (step, inverse))
    steps, whole, rounded = (f"{tensor}/free_{s}" for s in ("steps", "whole", "rounded"))
    model.graph.node.extend(
        [
            helper.make_node("Mul", [tensor, inverse], [steps]),
            helper.make_node("Round", [steps], [whole]),
            helper.make_node("Mul", [whole, step], [rounded]),
        ]
    )
    return rounded
