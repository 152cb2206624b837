"""How good is the quantised network? Its boxes and outputs are compared with those of the float ONNX.

The quantised network is our emulation, or the SDK's own emulation before the long compile. For the SDK's the spread of
box sizes is measured as well: if quantisation ruined the regression of a DFL head, classes and scores look right and
all boxes have one size (ultralytics, issue 25231). The agreement alone would show only a low recall.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import onnx

from hefkit.detect.decode import Decoder, DecodeSettings, decode_all
from hefkit.detect.detections import Detections
from hefkit.errors import ToolchainError
from hefkit.hef.ranges import is_probability
from hefkit.measure.accuracy import Agreement, compare_heads
from hefkit.results.progress import Progress
from hefkit.spec import HeadSpec
from hefkit.workshop.heads.discover import HeadLayout
from hefkit.workshop.heads.proof import heads_to_hwc, to_network_input
from hefkit.workshop.network.cut import cut
from hefkit.workshop.network.file import OnnxFile
from hefkit.workshop.network.session import open_session, run_session

SPREAD_ANCHORS = 100  # of a picture: those with the highest float scores
MIN_SPREAD = 0.05  # cells; where the float model's boxes vary less, the ratio says nothing
COLLAPSED = 0.25  # of the float model's spread
FEW_BOXES = 5
SAME_RECALL, SAME_DECIBEL = 0.9, 10.0  # in full precision the SDK must find what the ONNX finds
LOW_RECALL = 0.5

Pictures = Callable[[], Iterator[np.ndarray]]
Heads = tuple[list[np.ndarray], list[np.ndarray]]  # of one picture: the float network's, the quantised one's


class FloatHeads:
    """The pictures that quality is measured on, each with the float network's heads.

    Heads are large, so each iteration computes them again; the boxes of a whole iteration are kept.

    Args:
        pictures: called for an iterator over (H, W, 3) uint8 RGB.
        in_sample: the pictures took part in the calibration, so the figures are optimistic.
    """

    def __init__(self, file: OnnxFile, layout: HeadLayout, pictures: Pictures, *, in_sample: bool) -> None:
        self.spec = layout.to_head_spec()
        self.in_sample = in_sample
        self.pictures, self._file, self._tensors = pictures, file, layout.tensors
        self._session = open_session(cut(file.model, layout.tensors))
        self._decode = Decoder(self.spec, DecodeSettings())
        self._boxes: list[Detections] | None = None

    def __iter__(self) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
        """Each picture with its heads (H, W, C) float32, classes as logits."""
        boxes = []
        for picture in self.pictures():
            feed = {self._file.input_name: to_network_input(picture[None], self._file.dtype)}
            heads = heads_to_hwc(run_session(self._session, self._tensors, feed))
            boxes.append(self._decode(heads))
            yield picture, heads
        self._boxes = boxes

    def boxes(self) -> Iterator[tuple[np.ndarray, Detections]]:
        """Each picture with what the float network finds in it, in pixels of the input."""
        if self._boxes is None:
            deque(self, maxlen=0)
        assert self._boxes is not None
        return zip(self.pictures(), self._boxes, strict=True)


def compare_emulated(
    exact: FloatHeads, model: onnx.ModelProto, head: HeadSpec, bar: Progress | None = None
) -> dict[str, Any]:
    """The spec's `quality` object of our emulation; `head` is the emulated model's."""
    emulated = _Emulated(model)
    pairs = ((reference, emulated(picture)) for picture, reference in (bar or Progress()).each(exact))
    return compare_heads(pairs, exact.spec, head, in_sample=exact.in_sample)


def emulated_agreement(exact: FloatHeads, model: onnx.ModelProto, head: HeadSpec, most: int | None = None) -> Agreement:
    """Only the agreement of the boxes, on all pictures or the first `most`; later calls reuse the float boxes."""
    settings, emulated = DecodeSettings(), _Emulated(model)
    decode, agreement = Decoder(head, settings), Agreement(settings.conf)
    for picture, reference in islice(exact.boxes(), most):
        agreement.add(reference, decode(emulated(picture)))
    return agreement


class _Emulated:
    """An emulated model: (H, W, 3) uint8 RGB -> codes, (H, W, C) each, in the order of the heads."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._session, self._input = open_session(model), model.graph.input[0].name
        self._outputs = [output.name for output in model.graph.output]

    def __call__(self, picture: np.ndarray) -> list[np.ndarray]:
        return [tensor[0] for tensor in run_session(self._session, self._outputs, {self._input: picture[None]})]


def sorted_outputs(tensors: Sequence[np.ndarray], order: Sequence[int], head: HeadSpec) -> list[np.ndarray]:
    """The SDK's outputs in contract order.

    Args:
        tensors: (N, H, W, C), in the SDK's order.
        order: for each head the index of its output in the parsed graph.

    Raises:
        ToolchainError: the tensors are not those of the parsed graph.
    """
    if len(tensors) != len(order):
        raise ToolchainError(
            f"the SDK's emulation returned {len(tensors)} tensors, expected {len(order)}; try another SDK release"
        )
    found = [tensors[i] for i in order]
    if [t.shape[1:] for t in found] != [o.shape for o in head.outputs]:
        found = _by_shape(tensors, head)
    return found


def _by_shape(tensors: Sequence[np.ndarray], head: HeadSpec) -> list[np.ndarray]:
    """The SDK returned another order than the graph's: sort by shape, which is unique in most networks."""
    by_shape = {t.shape[1:]: t for t in tensors}
    wanted = [o.shape for o in head.outputs]
    if len(by_shape) != len(tensors) or set(by_shape) != set(wanted):
        shapes = ", ".join(str(list(t.shape[1:])) for t in tensors)
        raise ToolchainError(
            f"the SDK's emulation returned tensors of the shapes {shapes}; expected "
            f"{', '.join(str(list(shape)) for shape in wanted)}; try another SDK release"
        )
    return [by_shape[shape] for shape in wanted]


def compare_sdk(exact: FloatHeads, tensors: Sequence[np.ndarray], *, baked: bool) -> dict[str, Any]:
    """The spec's `quality` object of the SDK's emulation, with `box_spread_ratio` and `class_activation`.

    Args:
        tensors: (N, H, W, C) float32 in contract order, already dequantised, as the SDK's emulation returns them; N
            may be less than the number of pictures.
        baked: the class tensors should be probabilities; `class_activation` says "none" if they are logits instead.
    """
    probabilities = baked and all(t.size and is_probability(float(t.min()), float(t.max())) for t in tensors[1::2])
    head = float_spec(exact.spec, probabilities)
    spread = Spread(exact.spec, head)

    def pictures() -> Iterator[Heads]:
        for i, (_, reference) in zip(range(len(tensors[0])), exact, strict=False):
            found = [np.ascontiguousarray(t[i], np.float32) for t in tensors]
            spread.add(reference, found)
            yield reference, found

    return {
        **compare_heads(pictures(), exact.spec, head, in_sample=exact.in_sample),
        "box_spread_ratio": spread.ratio,
        "class_activation": "sigmoid" if probabilities else "none",
    }


class Spread:
    """How much box sizes vary, in cells of their stride, at the same anchors of two models."""

    def __init__(self, exact: HeadSpec, found: HeadSpec) -> None:
        self._specs = exact, found
        self._cells = np.concatenate([np.full(o.shape[0] * o.shape[1], o.stride) for o in exact.outputs[0::2]])
        self._sizes: tuple[list[np.ndarray], list[np.ndarray]] = [], []

    def add(self, exact: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> None:
        """One picture: the heads of the float model, and the other's."""
        boxes, scores = decode_all(exact, self._specs[0])
        best = np.argsort(-scores.max(axis=1), kind="stable")[:SPREAD_ANCHORS]
        for sizes, xyxy in zip(self._sizes, (boxes, decode_all(found, self._specs[1])[0]), strict=True):
            sizes.append((xyxy[best, 2:] - xyxy[best, :2]) / self._cells[best, None])

    @property
    def ratio(self) -> float | None:
        """Standard deviation of the found sizes / of the exact ones; None where the exact ones hardly vary."""
        if not self._sizes[0]:
            return None
        exact, found = (float(np.concatenate(sizes).std()) for sizes in self._sizes)
        return round(found / exact, 4) if exact >= MIN_SPREAD else None


def collapsed(quality: dict[str, Any]) -> str | None:
    """Why this network must not be compiled, or None."""
    ratio = quality["box_spread_ratio"]
    if ratio is None or ratio >= COLLAPSED:
        return None
    return (
        f"the quantised network gives boxes of almost one size: their spread is {ratio:.2f} of the float model's, so "
        "its box regression is destroyed although classes and scores may look right; expected at least "
        f"{COLLAPSED}; use --optimization-level 0, or 2 with more and better pictures, then --precision-16 outputs"
    )


def check_full_precision(quality: dict[str, Any]) -> None:
    """Refuse (exit 5) a network that differs from the ONNX before any quantisation."""
    recall, boxes = quality["recall"], quality["boxes_float"]
    noisy = [o["snr_db"] for o in quality["outputs"] if o["snr_db"] is not None]
    found = ""
    if boxes >= FEW_BOXES and recall < SAME_RECALL:
        found = f"it finds {recall:.2f} of the boxes"
    elif noisy and min(noisy) < SAME_DECIBEL:
        found = f"one of its outputs is only {min(noisy):.0f} dB above the difference"
    if found:
        raise ToolchainError(
            "the network that Hailo's SDK made of the ONNX computes something else, before any quantisation: "
            f"{found}; expected the same; look at the normalization line of the script and at the order of colours, or "
            "export the model again with opset=11"
        )


def no_boxes(quality: Mapping[str, Any]) -> str:
    """The warning where recall is None."""
    return (
        f"the float model finds no box in the {quality['images']} pictures that agreement is measured on, so "
        "the quality of the quantised one is not known; take pictures with objects, and try hailo_inference.py with "
        "the float model on them"
    )


def low_agreement(quality: dict[str, Any]) -> str | None:
    """The warning of a run without --gate, or None."""
    recall = quality["recall"]
    if recall is None:
        return no_boxes(quality)
    if recall < LOW_RECALL:
        return (
            f"the quantised network keeps only {recall:.2f} of the float model's boxes; try --optimization-level 2, "
            "more and better pictures, or --precision-16 outputs"
        )
    return None


def float_spec(head: HeadSpec, probabilities: bool) -> HeadSpec:
    """The head of dequantised outputs: float32, classes as probabilities or logits."""
    outputs = tuple(
        replace(o, activation="sigmoid" if o.role == "cls" and probabilities else "none") for o in head.outputs
    )
    return replace(head, outputs=outputs)
