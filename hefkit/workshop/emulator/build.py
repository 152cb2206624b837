"""The INT8 emulator: an ONNX that computes what the chip is expected to compute.

Two steps, each a method: `measure` streams the calibration pictures through the float network; `quantize` chooses
ranges, corrects weights and returns the model. docs/emulator.md says where it rounds, and why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
import onnx

from hefkit.spec import HeadSpec
from hefkit.workshop.emulator.codes import Quantization, from_range, search
from hefkit.workshop.emulator.correction import correct, picture_budget
from hefkit.workshop.emulator.noise import channel_importance, measured_tensors
from hefkit.workshop.emulator.plan import RoundingPlan
from hefkit.workshop.emulator.qdq import INPUT, QdqWriter
from hefkit.workshop.emulator.sensitivity import head_noise
from hefkit.workshop.emulator.statistics import ChannelStats, channel_stats, histograms
from hefkit.workshop.heads.discover import HeadLayout
from hefkit.workshop.network.cut import cut
from hefkit.workshop.network.file import OnnxFile
from hefkit.workshop.network.floatnet import SIGMOID, rename_reserved, to_float32, upgrade_opset, with_sigmoids

AUTO_SHARE = 0.05  # of the tensors get 16 bit with `auto`: 6 of 122 were measured to be worth all of them

Pictures = Callable[[], Iterator[np.ndarray]]  # (H, W, 3) uint8 RGB each; called once a pass


@dataclass(frozen=True)
class Precision:
    """What is stored in 16 bit; everything else in 8."""

    outputs: frozenset[int] = frozenset()  # indices into head.outputs
    layers: frozenset[str] = frozenset()  # names of ONNX nodes, their weights included
    auto: bool = False


@dataclass
class Emulator:
    """Builds one emulated model.

    Attributes:
        mean, std: of the script's normalization, three numbers each, in 0..255.
        logits: leave the class tensors without the sigmoid.
    """

    file: OnnxFile
    layout: HeadLayout
    mean: Sequence[float]
    std: Sequence[float]
    precision: Precision = field(default_factory=Precision)
    logits: bool = False

    def __post_init__(self) -> None:
        network = upgrade_opset(to_float32(cut(self.file.model, self.layout.tensors)))
        self.tensors = list(self.layout.tensors)
        if not self.logits:
            self.tensors[1::2] = [t + SIGMOID for t in self.tensors[1::2]]
            network = with_sigmoids(network, self.layout.tensors[1::2])
        renamed = rename_reserved(network, {INPUT, *self.output_names()})
        self.tensors = [renamed.get(t, t) for t in self.tensors]
        self.plan = RoundingPlan(network)
        self.stats: dict[str, ChannelStats] = {}
        self.ranges: dict[str, Quantization] = {}
        self.corrected_on = 0
        self._importance: dict[str, np.ndarray] = {}
        self._histograms: dict[str, np.ndarray] = {}

    def unknown_layers(self) -> list[str]:
        """The names in `precision.layers` that this network does not have."""
        known = {self.plan.graph.nodes[p.node].name for p in self.plan.points}
        return sorted(self.precision.layers - known)

    def measure(self, pictures: Pictures) -> None:
        """Stream the set twice: ranges and variances, then histograms weighted by what matters at the heads."""
        self.stats = channel_stats(self.plan.model, measured_tensors(self.plan), self._feeds(pictures()))
        self._importance = channel_importance(self.plan, self.stats)
        self._histograms = histograms(self.plan.model, self.stats, self._importance, self._feeds(pictures()))

    def quantize(self, pictures: Pictures) -> onnx.ModelProto:
        """Choose every range, correct every layer, write the model; its outputs are named box8, cls8, ..."""
        feeds = list(islice(self._feeds(pictures()), picture_budget(self.plan)))
        self.ranges = {p.tensor: self._range(p.tensor) for p in self.plan.points}
        wide_layers = self._widen(feeds)
        corrected = correct(self.plan, self.ranges, wide_layers, feeds)
        self.corrected_on = corrected.pictures
        writer = QdqWriter(self.plan, self.ranges, corrected, mean=self.mean, std=self.std)
        return writer.write(self.file.size, list(zip(self.tensors, self.output_names(), strict=True)))

    def output_names(self) -> list[str]:
        """box8, cls8, box16 ..., in the order of the heads."""
        return [f"{c.role}{c.stride}" for c in self.layout.convs]

    def head_spec(self) -> HeadSpec:
        """The head as the emulated model returns it: dtype, scale, zero point and activation of every output."""
        head = self.layout.to_head_spec()
        outputs = []
        for output, tensor in zip(head.outputs, self.tensors, strict=True):
            q = self.ranges[tensor]
            activation = "sigmoid" if output.role == "cls" and not self.logits else "none"
            outputs.append(
                replace(output, dtype=q.dtype, scale=q.scale, zero_point=q.zero_point, activation=activation)
            )
        return replace(head, outputs=tuple(outputs))

    def wide_tensors(self) -> list[str]:
        """Tensors stored in 16 bit."""
        return [t for t, q in self.ranges.items() if q.dtype == "uint16"]

    def _feeds(self, pictures: Iterator[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        mean, std = (np.asarray(v, np.float32) for v in (self.mean, self.std))
        for picture in pictures:
            normal = (picture.astype(np.float32) - mean) / std
            yield {self.plan.images[0]: np.ascontiguousarray(normal.transpose(2, 0, 1)[None])}

    def _range(self, tensor: str) -> Quantization:
        low, high = self.stats[tensor].range
        if tensor in self.tensors[1::2] and not self.logits:
            return from_range(0.0, 1.0)  # the compiler forces it behind a sigmoid
        if tensor in self.tensors:
            # at the heads the rare strong values are the detections, and a search by squared error would clip them in
            # favour of the background: where objects are few and small that costs several points of mAP
            return from_range(low, high)
        return search(low, high, self._histograms[tensor])

    def _widen(self, feeds: Sequence[Mapping[str, np.ndarray]]) -> list[str]:
        """Give 16 bit to what was asked for; returns the tensors whose layer has 16-bit weights as well."""
        by_name = {self.plan.graph.nodes[p.node].name: p.tensor for p in self.plan.points}
        layers = [by_name[n] for n in self.precision.layers if n in by_name]
        wide = {*layers, *(self.tensors[i] for i in self.precision.outputs)}
        if self.precision.auto:
            wide.update(self._most_sensitive(feeds))
        self.ranges.update({t: self._wide_range(t) for t in wide})
        return layers

    def _wide_range(self, tensor: str) -> Quantization:
        probability = tensor in self.tensors[1::2] and not self.logits
        low, high = (0.0, 1.0) if probability else self.stats[tensor].range
        return from_range(low, high, "uint16")

    def _most_sensitive(self, feeds: Sequence[Mapping[str, np.ndarray]]) -> list[str]:
        """The tensors whose 8-bit rounding alone brings most noise to the heads."""
        noise = head_noise(self.plan, self.ranges, {t: self._wide_range(t) for t in self.ranges}, feeds)
        return sorted(noise, key=lambda t: -noise[t])[: max(1, round(AUTO_SHARE * len(noise)))]
