"""Measurements on a few pictures that show why a quantised model differs from its float model.

Three kinds of evidence. Experiments: the float model is run on the same pictures with one mistake made on purpose (red
and blue swapped, the other fit); if the quantised model agrees better with that, it was compiled or is used with this
mistake. The raw heads: noise and reach of each output tensor, and the boxes and scores of both models at the same
anchors, where boxes can be compared although they do not overlap. Classes: the class that the quantised model gives to
most boxes of each class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hefkit.detect.decode import Decoder, DecodeSettings, decode_all
from hefkit.detect.detections import Detections
from hefkit.detect.engine import Engine
from hefkit.detect.preprocess import letterbox
from hefkit.detect.quant import dequantize, sigmoid
from hefkit.measure.accuracy import Agreement, SignalToNoise, match_boxes
from hefkit.pictures.header import UnreadableImage
from hefkit.pictures.read import read_image
from hefkit.pictures.sources import Item
from hefkit.spec import CODE_DTYPES, HeadSpec, OutputSpec

SAMPLE, SAMPLE_OF_GOOD = 16, 8  # pictures, spread over all; fewer are enough for the noise of a good model's outputs
CONF = 0.25
SWAPPED, OTHER_FIT = "swapped", "other fit"
FAINT = 0.05  # span; a class tensor with less shows no object
MIN_CLASS_PAIRS = 5  # boxes of a class, from which its other name is believed


@dataclass
class Evidence:
    """The measurements of one quantised model; None where the model cannot show it."""

    images: int = 0
    recall: float | None = None  # of the float model's boxes, on these pictures
    experiments: dict[str, float | None] = field(default_factory=dict)  # name -> recall against the changed float model
    outputs: list[dict[str, Any]] = field(default_factory=list)  # role, stride, snr_db, reach (model's span / float's)
    dark: float | None = None  # the box tensors' span on nearly black pictures / the span of their codes
    width_ratio: list[float] = field(default_factory=list)  # at the anchors where the float model finds something
    score_shift: list[float] = field(default_factory=list)
    score_drop: float | None = None  # at those anchors, share whose score fell below half


def gather(
    reference: Engine, engine: Engine, items: Sequence[Item], found: Sequence[Detections | None], *, good: bool = False
) -> Evidence:
    """Run both models on up to SAMPLE pictures, or SAMPLE_OF_GOOD.

    Args:
        reference: the float model.
        engine: the quantised one; a chip is asked through its slots only.
        found: of every picture what the quantised model found at CONF.
        good: the model is good, so no mistake is looked for: the raw heads only.
    """
    sample = Sampler(reference, engine, good=good)
    readable = [i for i, boxes in enumerate(found) if boxes is not None]
    count = min(SAMPLE_OF_GOOD if good else SAMPLE, len(readable))
    for place in np.unique(np.linspace(0, len(readable) - 1, count).astype(int)).tolist():
        index = readable[place]
        ours = found[index]
        try:
            picture = read_image(items[index].path)
        except UnreadableImage:
            continue
        if ours is not None:
            sample.add(picture, ours)
    return sample.evidence()


class Sampler:
    """Collects the evidence picture by picture."""

    def __init__(self, reference: Engine, engine: Engine, *, good: bool = False) -> None:
        self._reference, self._engine, self._good = reference, engine, good
        self._decode = Decoder(reference.spec.head, DecodeSettings(conf=CONF))
        fit = reference.spec.input.fit
        other = replace(reference.spec.input, fit="stretch" if fit == "letterbox" else "letterbox")
        mistakes = {} if good else {SWAPPED: reference.spec.input, OTHER_FIT: other}
        self._inputs = {"": reference.spec.input, **mistakes}
        self._agreements = {name: Agreement(CONF) for name in self._inputs}
        self._raw = engine.spec.nms is None and _comparable(reference.spec.head, engine.spec.head)
        self._tensors = [_Tensor(o) for o in engine.spec.head.outputs] if self._raw else []
        self._widths: list[np.ndarray] = []
        self._shifts: list[np.ndarray] = []
        self._scores: list[np.ndarray] = []
        self._images = 0

    def add(self, picture: np.ndarray, ours: Detections) -> None:
        """One picture (h, w, 3) uint8 BGR, and what the quantised model finds in it."""
        self._images += 1
        heads = []
        for name, spec in self._inputs.items():
            tensor, transform = letterbox(picture, spec)
            if name == SWAPPED:
                tensor = np.ascontiguousarray(tensor[..., ::-1])
            [outputs] = self._reference.infer(tensor[None])
            exact = self._decode(outputs)
            self._agreements[name].add(exact.with_boxes(transform.to_original(exact.xyxy)), ours)
            heads.append(outputs)
        if self._raw:
            self._add_raw(picture, heads[0])

    def _add_raw(self, picture: np.ndarray, exact: Sequence[np.ndarray]) -> None:
        found = infer_one(self._engine, letterbox(picture, self._engine.spec.input)[0])
        for tensor, a, b in zip(self._tensors, exact, found, strict=True):
            tensor.add(a, b)
        if not self._good:
            [dark] = self._reference.infer(letterbox(picture, self._reference.spec.input)[0][None] // 255)
            for tensor, values in zip(self._tensors, dark, strict=True):
                tensor.add_dark(values)
        boxes, scores = decode_all(exact, self._reference.spec.head)
        ours, our_scores = decode_all(found, self._engine.spec.head)
        best = np.flatnonzero(scores.max(axis=1) >= CONF)
        width, our_width = (np.maximum(b[best, 2] - b[best, 0], 1e-3) for b in (boxes, ours))
        which = scores[best].argmax(axis=1)
        self._widths.append(our_width / width)
        self._scores.append(scores[best, which])
        self._shifts.append(our_scores[best, which] - scores[best, which])

    def evidence(self) -> Evidence:
        """All that was seen."""
        found = Evidence(self._images, self._agreements[""].recall)
        found.experiments = {name: agreement.recall for name, agreement in self._agreements.items() if name}
        found.outputs = [tensor.to_json() for tensor in self._tensors]
        boxes = [t.dark for t in self._tensors if t.spec.role == "box" and t.dark is not None]
        found.dark = float(np.median(boxes)) if boxes and not self._good else None
        if self._widths:
            scores, shifts = np.concatenate(self._scores), np.concatenate(self._shifts)
            found.width_ratio = np.concatenate(self._widths).tolist()
            found.score_shift = shifts.tolist()
            found.score_drop = float((scores + shifts < scores / 2).mean()) if len(scores) else None
        return found


class _Tensor:
    """Noise and reach of one output tensor."""

    def __init__(self, spec: OutputSpec) -> None:
        self.spec = spec
        self._noise = SignalToNoise()
        self._exact, self._found, self._dark = _Span(), _Span(), _Span()

    def add(self, exact: np.ndarray, found: np.ndarray) -> None:
        real = found if found.dtype == np.float32 else dequantize(found, self.spec.scale, self.spec.zero_point)
        exact = sigmoid(exact) if self.spec.activation == "sigmoid" else exact
        self._noise.add(exact, real)
        self._exact.add(exact)
        self._found.add(real)

    def add_dark(self, values: np.ndarray) -> None:
        self._dark.add(sigmoid(values) if self.spec.activation == "sigmoid" else values)

    @property
    def dark(self) -> float | None:
        """Span of the float tensor on nearly black pictures / span of the codes; None for a float tensor."""
        if self.spec.dtype not in CODE_DTYPES or np.size(self.spec.scale) > 1:
            return None
        codes = float(np.max(self.spec.scale)) * CODE_DTYPES[self.spec.dtype]
        return self._dark.width / codes if codes else None

    def to_json(self) -> dict[str, Any]:
        decibel, exact = self._noise.decibel, self._exact.width
        if self.spec.activation == "sigmoid" and exact < FAINT:  # no object of this size in the pictures
            decibel, exact = None, 0.0
        return {
            "role": self.spec.role,
            "stride": self.spec.stride,
            "snr_db": None if decibel is None else round(decibel, 2),
            "reach": round(self._found.width / exact, 4) if exact else None,
        }


class _Span:
    """The lowest and the highest value of many tensors."""

    def __init__(self) -> None:
        self._low, self._high = np.inf, -np.inf

    def add(self, values: np.ndarray) -> None:
        self._low, self._high = min(self._low, float(values.min())), max(self._high, float(values.max()))

    @property
    def width(self) -> float:
        return max(self._high - self._low, 0.0)


def other_names(pairs: Sequence[tuple[Detections, Detections]]) -> dict[int, int]:
    """Class of the reference -> the other class that most of its boxes have in the model; empty where all agree.

    Boxes are matched without regard to their class.
    """
    votes: dict[int, dict[int, int]] = {}
    for exact, found in pairs:
        one, two = (Detections(b.xyxy, b.score, np.zeros(len(b), np.int64)) for b in (exact, found))
        for i, j in match_boxes(one, two):
            count = votes.setdefault(int(exact.class_id[i]), {})
            count[int(found.class_id[j])] = count.get(int(found.class_id[j]), 0) + 1
    called = {}
    for class_id, count in votes.items():
        most = max(count, key=lambda other: count[other])
        if most != class_id and count[most] >= MIN_CLASS_PAIRS and 2 * count[most] > sum(count.values()):
            called[class_id] = most
    return called


def infer_one(engine: Engine, tensor: np.ndarray) -> list[np.ndarray]:
    """One input tensor through a slot of any engine; the outputs are copies."""
    slot = engine.slots[0]
    slot.inputs[0] = tensor
    engine.submit(slot, 1)
    [outputs] = engine.result(slot)
    return [np.array(output) for output in outputs]


def _comparable(exact: HeadSpec, found: HeadSpec) -> bool:
    """Whether both have the same tensors, so that they can be compared value by value."""
    return [(o.role, o.shape) for o in exact.outputs] == [(o.role, o.shape) for o in found.outputs]
