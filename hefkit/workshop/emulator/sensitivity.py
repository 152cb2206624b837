"""Which layers suffer most in 8 bits: measured, one at a time, at the heads.

Predictions from the weights alone were tried and are wrong by orders of magnitude in the first layers, where rounding
errors are not independent. So the network runs in float, except for one layer with rounded weights and output. The
network is divided into parts, and the float tensors between the parts are kept. So a run begins at the part with the
rounded layer.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from hefkit.workshop.emulator.layers import Layer, give_constant
from hefkit.workshop.emulator.plan import RoundingPlan
from hefkit.workshop.emulator.rounding import Rounding
from hefkit.workshop.emulator.scales import along_channels
from hefkit.workshop.emulator.statistics import Feed
from hefkit.workshop.network.cut import extract
from hefkit.workshop.network.session import in_parallel, open_session, run_session

PARTS = 8  # more save little time, and keep more tensors

Values = dict[str, np.ndarray]


@dataclass(frozen=True)
class _Part:
    """Some layers of the network: tensors that it reads and writes, and the tensors that it computes."""

    model: onnx.ModelProto
    session: ort.InferenceSession
    reads: Sequence[str]
    writes: Sequence[str]
    computed: frozenset[str]


class Sensitivity:
    """Runs the float network with chosen layers rounded.

    Args:
        feeds: a few pictures for the float network, at least one; all are kept.
    """

    def __init__(
        self, plan: RoundingPlan, rounding: Rounding, layers: Mapping[str, Layer], feeds: Sequence[Feed]
    ) -> None:
        self._rounding, self._layers = rounding, layers
        self._outputs = [o.name for o in plan.model.graph.output]
        self._parts: list[_Part] = []
        values = dict(feeds[0])
        for reads, writes in _fronts(plan):
            model = extract(plan.model, writes, {name: values[name] for name in reads})
            computed = frozenset(name for node in model.graph.node for name in node.output)
            self._parts.append(_Part(model, open_session(model, threads=1, arena=False), reads, writes, computed))
            _run(self._parts[-1], self._parts[-1].session, values)
        self._feeds = feeds
        self._exact = [self._heads(self._through(feed)) for feed in feeds]
        # of boxes and of classes, over all strides and pictures: a stride without an object has hardly any signal
        energies = [[float((t.astype(np.float64) ** 2).sum()) for t in heads] for heads in self._exact]
        sums = np.sum(energies, axis=0)
        self._energy = np.maximum([sums[0::2].sum(), sums[1::2].sum()], 1e-30)

    def by_layer(self, pictures: int) -> dict[str, float]:
        """Rounded tensor -> noise over signal at the heads when it and its layer's weights are rounded.

        Args:
            pictures: how many of the feeds are run, from the first on, once for each tensor.
        """
        values = [self._through(feed) for feed in self._feeds[:pictures]]

        def noise(tensor: str) -> float:
            sessions = self._sessions([tensor], [tensor])
            return sum(self._noise(sessions, picture, exact) for picture, exact in enumerate(values))

        tensors = list(self._rounding.codes)
        return dict(zip(tensors, in_parallel(noise, tensors), strict=True))

    def of(self, weights: Collection[str], outputs: Collection[str]) -> float:
        """Noise over signal with the weights and the outputs of these layers rounded."""
        sessions = [
            rounding or part.session
            for rounding, part in zip(self._sessions(weights, outputs), self._parts, strict=True)
        ]
        return sum(in_parallel(lambda i: self._noise(sessions, i, self._feeds[i]), range(len(self._feeds))))

    def _through(self, feed: Feed) -> Values:
        """Every tensor that the parts read and write for one picture, in float."""
        values = dict(feed)
        for part in self._parts:
            _run(part, part.session, values)
        return values

    def _heads(self, values: Values) -> list[np.ndarray]:
        return [values[name] for name in self._outputs]

    def _sessions(self, weights: Collection[str], outputs: Collection[str]) -> list[ort.InferenceSession | None]:
        """For each part the session that rounds; None for the parts before the first one that does."""
        found: list[ort.InferenceSession | None] = []
        for part in self._parts:
            own = [t for t in weights if t in self._rounding.numbers and self._layers[t].point.inner in part.computed]
            tensors = [t for t in outputs if t in part.computed]
            if own or tensors:
                found.append(open_session(self._rounded(part.model, own, tensors), threads=1, arena=False))
            else:
                found.append(part.session if any(found) else None)
        return found

    def _noise(self, sessions: Sequence[ort.InferenceSession | None], picture: int, before: Feed) -> float:
        """Noise over signal of a picture; `before`: what the parts of the first session and behind it read."""
        values = dict(before)
        for part, session in zip(self._parts, sessions, strict=True):
            if session is not None:
                _run(part, session, values)
        return sum(
            float(((found.astype(np.float64) - exact) ** 2).sum()) / self._energy[output % 2]
            for output, (found, exact) in enumerate(zip(self._heads(values), self._exact[picture], strict=True))
        )

    def _rounded(self, model: onnx.ModelProto, weights: Sequence[str], tensors: Sequence[str]) -> onnx.ModelProto:
        """A copy with rounded weights, and with a rounding behind each of the tensors."""
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        by_output = {node.output[0]: node for node in copy.graph.node}
        for tensor in weights:
            layer = self._layers[tensor]
            rounded = layer.restored(self._rounding.numbers[tensor].weight)
            give_constant(copy, by_output[layer.point.inner], 1, rounded)
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in copy.graph.node]
        del copy.graph.node[:]
        for node in nodes:
            copy.graph.node.append(node)
            for slot, name in enumerate(node.output):
                if name in tensors:
                    copy.graph.node[-1].output[slot] = f"{name}/exact"
                    self._append_rounding(copy, name)
        return copy

    def _append_rounding(self, model: onnx.ModelProto, tensor: str) -> None:
        """round(x / step) * step. Nothing is clipped: the ranges hold all that the calibration pictures give."""
        # only weighted layers have scales by channel; their tensors have as many axes as their weights
        axes = self._layers[tensor].weight.ndim if tensor in self._layers else 4
        step = along_channels(self._rounding.codes[tensor].scale, axes)
        for name, value in (("step", step), ("inverse", 1 / step)):
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), f"{tensor}/{name}"))
        model.graph.node.extend(
            [
                helper.make_node("Mul", [f"{tensor}/exact", f"{tensor}/inverse"], [f"{tensor}/steps"]),
                helper.make_node("Round", [f"{tensor}/steps"], [f"{tensor}/whole"]),
                helper.make_node("Mul", [f"{tensor}/whole", f"{tensor}/step"], [tensor]),
            ]
        )


def _run(part: _Part, session: ort.InferenceSession, values: Values) -> None:
    """Run a part on `values`, and write what it computes into them."""
    found = run_session(session, part.writes, {name: values[name] for name in part.reads})
    values.update(zip(part.writes, found, strict=True))


def _fronts(plan: RoundingPlan) -> Iterator[tuple[list[str], list[str]]]:
    """Divide the network into parts with as many rounded tensors each; (what a part reads, what it writes)."""
    graph = plan.graph
    last = [graph.producer[point.tensor] for point in plan.points]
    size = -(-len(last) // PARTS)
    ends = sorted({*(max(last[i : i + size]) for i in range(0, len(last) - size, size)), len(graph.nodes) - 1})
    made_in = {t: bisect_left(ends, graph.producer[t]) for t in plan.dynamic.difference(plan.images)}
    needed, fronts = set(graph.output_names), []
    for index in reversed(range(len(ends))):
        writes = sorted(t for t in needed if made_in.get(t) == index)
        earlier = {*plan.images, *(t for t, part in made_in.items() if part < index)}
        nodes = graph.above(writes, stop_at=earlier)
        reads = sorted({name for i in nodes for name in graph.inputs[i]} & earlier)
        needed.update(reads)
        if writes:
            fronts.append((reads, writes))
    return reversed(fronts)
