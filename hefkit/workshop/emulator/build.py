"""The INT8 emulator: an ONNX that computes what the chip is expected to compute.

Two steps, each a method: `measure` streams the calibration pictures through the float network; `quantize` chooses
codes and weights as the compiler does at the level asked for, and returns the model. docs/emulator.md says where it
rounds, and what is known of the compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
import onnx

from hefkit.spec import HeadSpec
from hefkit.workshop.emulator.correction import corrected, picture_budget
from hefkit.workshop.emulator.layers import Layer
from hefkit.workshop.emulator.plan import RoundingPlan
from hefkit.workshop.emulator.qdq import INPUT, STORED, QdqWriter
from hefkit.workshop.emulator.rounding import Groups, Rounder, Rounding, Storage
from hefkit.workshop.emulator.sensitivity import Sensitivity
from hefkit.workshop.emulator.statistics import Feed, extremes
from hefkit.workshop.heads.discover import HeadLayout
from hefkit.workshop.network.cut import cut
from hefkit.workshop.network.file import OnnxFile
from hefkit.workshop.network.floatnet import (
    SIGMOID,
    fold_batch_norm,
    rename_reserved,
    to_float32,
    upgrade_opset,
    with_sigmoids,
)

AUTO_NOISE = 0.9  # of the noise at the heads comes from the layers that `auto` stores in 16 bit
AUTO_LAYERS = 0.25  # of the layers at most
AUTO_PICTURES = 2  # each is run once for every layer
BLAMED = 5  # layers named as the cause of a bad forecast

Pictures = Callable[[], Iterator[np.ndarray]]  # (H, W, 3) uint8 RGB each; called once a pass


@dataclass(frozen=True)
class Precision:
    """What is stored in 16 bits, or with several weight scales a layer; all else has 8 bits and one scale.

    Attributes:
        outputs: in 16 bit (15 on the chip), indices into head.outputs.
        layers: in 16 bit, their weights included, names of ONNX nodes.
        auto: the layers that bring most noise to the heads, in 16 bit as well.
        conv_groups, depthwise_groups: weight scales a layer (`quantization_groups`), of ordinary and of depthwise
            convolutions.
        groups_by_range: channels are sorted by range before they are grouped; else grouped in order.
    """

    outputs: frozenset[int] = frozenset()
    layers: frozenset[str] = frozenset()
    auto: bool = False
    conv_groups: int = 1
    depthwise_groups: int = 1
    groups_by_range: bool = False


@dataclass(frozen=True)
class Blame:
    """Where the noise at the heads comes from; shares are of the summed noise of all layers, each rounded alone."""

    weights: float  # noise over signal with all weights rounded and all tensors exact
    tensors: float  # noise over signal with all tensors rounded and all weights exact
    layers: list[tuple[str, float]]  # (name of the ONNX node, share), the worst first
    depthwise: float  # share of the depthwise layers


@dataclass
class Emulator:
    """Builds one emulated model.

    Attributes:
        mean, std: of the script's normalization, three numbers each, in 0..255.
        logits: leave the class tensors without the sigmoid.
        level: 0, or 1 for bias correction as well; higher levels train and cannot be emulated.
    """

    file: OnnxFile
    layout: HeadLayout
    mean: Sequence[float]
    std: Sequence[float]
    precision: Precision = field(default_factory=Precision)
    logits: bool = False
    level: int = 0

    def __post_init__(self) -> None:
        network = fold_batch_norm(upgrade_opset(to_float32(cut(self.file.model, self.layout.tensors))))
        self.tensors = list(self.layout.tensors)
        if not self.logits:
            self.tensors[1::2] = [t + SIGMOID for t in self.tensors[1::2]]
            network = with_sigmoids(network, self.layout.tensors[1::2])
        renamed = rename_reserved(network, {INPUT, *self.output_names()})
        self.tensors = [renamed.get(t, t) for t in self.tensors]
        self.plan = RoundingPlan(network)
        self.corrected_on = 0
        self._rounder: Rounder | None = None
        self._rounding = Rounding({}, {})
        self._noisiest: frozenset[str] = frozenset()  # what `auto` chose

    @property
    def grouped(self) -> bool:
        """Whether some layers have several weight scales."""
        return self.precision.conv_groups > 1 or self.precision.depthwise_groups > 1

    def unknown_layers(self) -> list[str]:
        """Layer names asked for in 16 bit that this network does not have."""
        known = {self._name(p.tensor) for p in self.plan.points}
        return sorted(self.precision.layers - known)

    def measure(self, pictures: Pictures) -> None:
        """Stream the set once: the range of every tensor and of every sum before an activation."""
        names = [n for p in self.plan.points for n in ((p.tensor, p.inner) if p.weight else (p.tensor,))]
        found = extremes(self.plan.model, list(dict.fromkeys(names)), self._feeds(pictures()))
        self._rounder = Rounder(self.plan, found, self.std, self._probabilities())

    def quantize(self, pictures: Pictures) -> onnx.ModelProto:
        """Choose every code and weight, write the model; its outputs are named box8, cls8, ..."""
        rounder = self._measured()
        self._rounding = rounder.choose(self._storage(replace(self.precision, auto=False)))
        if self.precision.auto:
            self._noisiest = noisiest(self._sensitivity(islice(pictures(), AUTO_PICTURES)).by_layer(AUTO_PICTURES))
            self._rounding = rounder.choose(self._storage(self.precision))
        if self.level == 1:
            feeds = list(islice(self._feeds(pictures()), picture_budget(self.plan)))
            numbers = corrected(self.plan, self._rounding, rounder.layers, feeds)
            self._rounding = Rounding(self._rounding.codes, numbers)
            self.corrected_on = len(feeds)
        return self._model(self._rounding)

    def variant(self, precision: Precision) -> tuple[onnx.ModelProto, HeadSpec]:
        """Another model from the same measurement, at level 0, with its head.

        `auto` means what `quantize` chose, or, where it was not asked to, what `blame` found.
        """
        rounding = self._measured().choose(self._storage(precision))
        return self._model(rounding), self._head(rounding)

    def output_names(self) -> list[str]:
        """box8, cls8, box16 ..., in the order of the heads."""
        return [f"{c.role}{c.stride}" for c in self.layout.convs]

    def head_spec(self) -> HeadSpec:
        """The head as the emulated model returns it: dtype, scale, zero point and activation of every output."""
        return self._head(self._rounding)

    def _head(self, rounding: Rounding) -> HeadSpec:
        head = self.layout.to_head_spec()
        outputs = []
        for output, tensor in zip(head.outputs, self.tensors, strict=True):
            q = rounding.codes[tensor]
            activation = "sigmoid" if output.role == "cls" and not self.logits else "none"
            dtype, scale = np.dtype(STORED[q.bits]).name, float(np.float32(q.scale))
            outputs.append(replace(output, dtype=dtype, scale=scale, zero_point=q.zero_point, activation=activation))
        return replace(head, outputs=tuple(outputs))

    def wide_tensors(self) -> list[str]:
        """Tensors stored in 16 bit."""
        return [t for t, q in self._rounding.codes.items() if q.bits == 15]

    def wide_weights(self) -> tuple[list[str], int, int]:
        """Layers whose weights are stored in 16 bit (names of ONNX nodes), their weights, and all weights."""
        sizes = {t: n.codes.size for t, n in self._rounding.numbers.items()}
        wide = [t for t, n in self._rounding.numbers.items() if n.codes.dtype == np.int16]
        return [self._name(t) for t in wide], sum(sizes[t] for t in wide), sum(sizes.values())

    def blame(self, pictures: Pictures) -> Blame:
        """Measure, layer by layer, where the noise at the heads comes from.

        Args:
            pictures: a few; each single layer is measured on the first.
        """
        meter = self._sensitivity(pictures())
        noise = meter.by_layer(1)
        if not self.precision.auto:
            self._noisiest = noisiest(noise)
        total = sum(noise.values()) or 1.0
        worst = sorted(noise, key=lambda t: -noise[t])
        depthwise = sum(noise[t] for t, layer in self._layers().items() if layer.depthwise)
        return Blame(
            weights=meter.of(list(self._rounding.numbers), ()),
            tensors=meter.of((), list(self._rounding.codes)),
            layers=[(self._name(t), noise[t] / total) for t in worst[:BLAMED]],
            depthwise=depthwise / total,
        )

    def _layers(self) -> dict[str, Layer]:
        return self._measured().layers

    def _measured(self) -> Rounder:
        assert self._rounder is not None, "measure() comes first"
        return self._rounder

    def _name(self, tensor: str) -> str:
        return self.plan.graph.nodes[self.plan.by_tensor[tensor].node].name

    def _probabilities(self) -> list[str]:
        return [] if self.logits else self.tensors[1::2]

    def _model(self, rounding: Rounding) -> onnx.ModelProto:
        writer = QdqWriter(
            self.plan, self._layers(), rounding, mean=self.mean, std=self.std, probabilities=self._probabilities()
        )
        return writer.write(self.file.size, list(zip(self.tensors, self.output_names(), strict=True)))

    def _feeds(self, pictures: Iterator[np.ndarray]) -> Iterator[Feed]:
        mean, std = (np.asarray(v, np.float32) for v in (self.mean, self.std))
        for picture in pictures:
            normal = (picture.astype(np.float32) - mean) / std
            yield {self.plan.images[0]: np.ascontiguousarray(normal.transpose(2, 0, 1)[None])}

    def _storage(self, precision: Precision) -> Storage:
        groups = {}
        for tensor, layer in self._layers().items():
            count = precision.depthwise_groups if layer.depthwise else precision.conv_groups
            if count > 1:
                groups[tensor] = Groups(count, precision.groups_by_range)
        by_name = {self._name(p.tensor): p.tensor for p in self.plan.points}
        layers = {by_name[n] for n in precision.layers if n in by_name}
        layers |= self._noisiest if precision.auto else set()
        outputs = {self.tensors[i] for i in precision.outputs}
        return Storage(
            frozenset(outputs | (layers - set(self._layers()))), frozenset(layers & set(self._layers())), groups
        )

    def _sensitivity(self, pictures: Iterator[np.ndarray]) -> Sensitivity:
        return Sensitivity(self.plan, self._rounding, self._layers(), list(self._feeds(pictures)))


def noisiest(noise: Mapping[str, float]) -> frozenset[str]:
    """The layers that `auto` stores in 16 bit: few layers, most of the noise at the heads.

    Example: of eight layers with 60, 32, 4, 1, 1, 1, 1 and 0 % of the noise, the first two have 92 % and are chosen.

    Args:
        noise: layer -> noise over signal.
    """
    total, chosen = sum(noise.values()), set[str]()
    for layer in sorted(noise, key=lambda t: -noise[t])[: max(1, round(AUTO_LAYERS * len(noise)))]:
        if sum(noise[t] for t in chosen) >= AUTO_NOISE * total:
            break
        chosen.add(layer)
    return frozenset(chosen)
