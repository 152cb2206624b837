"""Streaming statistics of a float network's tensors over the calibration set.

Everything is reduced inside the graph, so a pass keeps a few numbers for each channel, and the memory does not grow
with the size of the tensors or of the set.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hefkit.workshop.network.cut import tensor_types
from hefkit.workshop.network.operators import opset
from hefkit.workshop.network.session import open_session, run_session

BINS = 2048
SAMPLES = 65_536  # values of a tensor that enter its histogram from one picture
_SUFFIXES = ("min", "max", "mean", "square")


@dataclass
class ChannelStats:
    """What one tensor does over the set; every array is (C,) float64, C = 1 for tensors without channels."""

    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    variance: np.ndarray

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest value seen."""
        return float(self.low.min()), float(self.high.max())


def channel_stats(
    model: onnx.ModelProto, tensors: Sequence[str], feeds: Iterable[Mapping[str, np.ndarray]]
) -> dict[str, ChannelStats]:
    """Range, mean and variance of each channel (axis 1) of each tensor, over all feeds."""
    shapes = {name: shape for name, (_, shape) in tensor_types(model, tensors).items()}
    session = open_session(_with_reductions(model, shapes))
    names = [f"{t}/{s}" for t in tensors for s in _SUFFIXES]
    totals: list[np.ndarray] = []
    count = 0
    for feed in feeds:
        values = [v.astype(np.float64).reshape(-1) for v in run_session(session, names, feed)]
        count += 1
        if not totals:
            totals = values
            continue
        for i, value in enumerate(values):
            merge = (np.minimum, np.maximum, np.add, np.add)[i % 4]
            totals[i] = merge(totals[i], value)
    stats = {}
    for t, name in enumerate(tensors):
        low, high, mean, square = totals[4 * t : 4 * t + 4]
        mean = mean / count
        stats[name] = ChannelStats(low, high, mean, np.maximum(square / count - mean**2, 0.0))
    return stats


def histograms(
    model: onnx.ModelProto,
    stats: Mapping[str, ChannelStats],
    weights: Mapping[str, np.ndarray],
    feeds: Iterable[Mapping[str, np.ndarray]],
) -> dict[str, np.ndarray]:
    """A histogram (BINS,) over `stats[t].range` for every tensor of `weights`, each channel counted by its weight."""
    tensors = list(weights)
    shapes = {name: shape for name, (_, shape) in tensor_types(model, tensors).items()}
    session = open_session(_with_samples(model, shapes))
    names = [f"{t}/sample" for t in tensors]
    totals = {t: np.zeros(BINS) for t in tensors}
    for feed in feeds:
        for name, sample in zip(tensors, run_session(session, names, feed), strict=True):
            weight = np.broadcast_to(np.asarray(weights[name])[:, None], sample.shape)
            totals[name] += _histogram(sample, stats[name].range, weight)
    return totals


def _histogram(values: np.ndarray, span: tuple[float, float], weight: np.ndarray) -> np.ndarray:
    low, high = span
    if high <= low:
        return np.zeros(BINS)
    index = ((values - np.float32(low)) * np.float32(BINS / (high - low))).astype(np.int32)
    np.clip(index, 0, BINS - 1, out=index)
    return np.bincount(index.reshape(-1), weight.reshape(-1), BINS)


def _with_reductions(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> onnx.ModelProto:
    """The model with four small outputs a tensor in place of its own outputs."""
    copy = _without_outputs(model)
    version = opset(model)
    for name, shape in shapes.items():
        axes = [a for a in range(len(shape)) if a != 1 or len(shape) < 3]
        square = f"{name}/squared"
        copy.graph.node.append(helper.make_node("Mul", [name, name], [square]))
        for suffix, op, source in zip(
            _SUFFIXES, ("ReduceMin", "ReduceMax", "ReduceMean", "ReduceMean"), (name, name, name, square), strict=True
        ):
            _append_reduction(copy, op, source, f"{name}/{suffix}", axes, version)
    return copy


def _append_reduction(model: onnx.ModelProto, op: str, source: str, result: str, axes: list[int], version: int) -> None:
    if version < 18:
        model.graph.node.append(helper.make_node(op, [source], [result], axes=axes, keepdims=0))
    else:  # from opset 18 on the axes are an input
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(axes, np.int64), f"{result}/axes"))
        model.graph.node.append(helper.make_node(op, [source, f"{result}/axes"], [result], keepdims=0))
    model.graph.output.append(helper.make_tensor_value_info(result, TensorProto.FLOAT, None))


def _with_samples(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> onnx.ModelProto:
    """The model with (C, n) samples of the tensors in place of its own outputs."""
    copy = _without_outputs(model)
    for name, shape in shapes.items():
        channels = shape[1] if len(shape) >= 3 else 1
        step = _sampling_step(math.prod(shape), shape[-1])
        constants = {
            "shape": [channels, -1],
            "start": [0],
            "end": [np.iinfo(np.int64).max],
            "axis": [1],
            "step": [step],
        }
        for suffix, value in constants.items():
            copy.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.int64), f"{name}/{suffix}"))
        flat, sample = f"{name}/flat", f"{name}/sample"
        copy.graph.node.append(helper.make_node("Reshape", [name, f"{name}/shape"], [flat]))
        copy.graph.node.append(
            helper.make_node("Slice", [flat, *(f"{name}/{s}" for s in ("start", "end", "axis", "step"))], [sample])
        )
        copy.graph.output.append(helper.make_tensor_value_info(sample, TensorProto.FLOAT, None))
    return copy


def _sampling_step(size: int, width: int) -> int:
    """Every how-many-th value to take; coprime to the width, or only some columns would ever be seen."""
    step = max(1, size // SAMPLES)
    while math.gcd(step, width) > 1:
        step += 1
    return step


def _without_outputs(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    return copy
