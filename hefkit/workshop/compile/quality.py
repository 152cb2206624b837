"""The SDK's own emulation against the float ONNX, before the long compile: boxes, scores, and the spread of box sizes.

Of a DFL head whose regression was ruined by the quantisation, classes and scores look right and all boxes have one
size (ultralytics, issue 25231). Matching boxes alone would call that a low recall; the spread says what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hefkit.detect.decode import Decoder, DecodeSettings, decode_all
from hefkit.detect.quant import sigmoid
from hefkit.errors import ToolchainError
from hefkit.hef.ranges import is_probability
from hefkit.measure.accuracy import Agreement, SignalToNoise
from hefkit.spec import HeadSpec
from hefkit.workshop.emulator.agreement import nothing_compared
from hefkit.workshop.heads.discover import HeadLayout
from hefkit.workshop.heads.proof import heads_to_hwc, to_network_input
from hefkit.workshop.network.cut import cut
from hefkit.workshop.network.file import OnnxFile
from hefkit.workshop.network.session import open_session, run_session

SPREAD_ANCHORS = 100  # a picture, those of the highest float scores
MIN_SPREAD = 0.05  # cells; boxes of a float model that are more alike tell nothing
COLLAPSED = 0.25  # of the float model's spread
FEW_BOXES = 5
SAME_RECALL, SAME_DECIBEL = 0.9, 10.0  # in full precision the SDK must find what the ONNX finds
LOW_RECALL = 0.5

Pictures = Callable[[], Iterator[np.ndarray]]


class FloatHeads:
    """The float network's heads of the pictures that quality is measured on, computed anew for each comparison.

    Args:
        pictures: called for an iterator over (H, W, 3) uint8 RGB.
        in_sample: the pictures took part in the calibration, so the figures flatter.
    """

    def __init__(self, file: OnnxFile, layout: HeadLayout, pictures: Pictures, *, in_sample: bool) -> None:
        self.spec = layout.to_head_spec()
        self.in_sample = in_sample
        self._file, self._tensors, self._pictures = file, layout.tensors, pictures
        self._session = open_session(cut(file.model, layout.tensors))

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        """For each picture the heads (H, W, C) float32, classes as logits."""
        for picture in self._pictures():
            feed = {self._file.input_name: to_network_input(picture[None], self._file.dtype)}
            yield heads_to_hwc(run_session(self._session, self._tensors, feed))


def sorted_outputs(tensors: Sequence[np.ndarray], order: Sequence[int], head: HeadSpec) -> list[np.ndarray]:
    """The SDK's outputs in contract order.

    Args:
        tensors: (N, H, W, C), in the SDK's order.
        order: for each head the index of its output in the parsed graph.

    Raises:
        ToolchainError: other tensors than the parsed graph has.
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
    """Another order than the graph's: as long as every shape is there once, nothing is ambiguous."""
    by_shape = {t.shape[1:]: t for t in tensors}
    wanted = [o.shape for o in head.outputs]
    if len(by_shape) != len(tensors) or set(by_shape) != set(wanted):
        shapes = ", ".join(str(list(t.shape[1:])) for t in tensors)
        raise ToolchainError(
            f"the SDK's emulation returned tensors of the shapes {shapes}; expected "
            f"{', '.join(str(list(shape)) for shape in wanted)}; try another SDK release"
        )
    return [by_shape[shape] for shape in wanted]


def compare(exact: FloatHeads, tensors: Sequence[np.ndarray], *, baked: bool) -> dict[str, Any]:
    """The spec's `quality` object, and `box_spread_ratio`.

    Args:
        tensors: (N, H, W, C) float32 in contract order, already dequantised, as the SDK's emulation returns them.
        baked: the class tensors should be probabilities; where they are logits all the same, that is noted.
    """
    probabilities = baked and all(t.size and is_probability(float(t.min()), float(t.max())) for t in tensors[1::2])
    settings = DecodeSettings()
    head = _float_spec(exact.spec, probabilities)
    exact_decoder, decoder = Decoder(exact.spec, settings), Decoder(head, settings)
    agreement, spread = Agreement(settings.conf), Spread(exact.spec, head)
    noise = [SignalToNoise() for _ in head.outputs]
    for i, reference in zip(range(len(tensors[0])), exact, strict=False):  # perhaps only the first of them
        found = [np.ascontiguousarray(t[i], np.float32) for t in tensors]
        agreement.add(exact_decoder(reference), decoder(found))
        spread.add(reference, found)
        for meter, a, b, output in zip(noise, reference, found, head.outputs, strict=True):
            meter.add(sigmoid(a) if output.activation == "sigmoid" else a, b)
    outputs = [
        {"role": o.role, "stride": o.stride, "snr_db": None if n.decibel is None else round(n.decibel, 2)}
        for o, n in zip(head.outputs, noise, strict=True)
    ]
    return {
        **agreement.to_json(),
        "in_sample": exact.in_sample,
        "outputs": outputs,
        "box_spread_ratio": spread.ratio,
        "class_activation": "sigmoid" if probabilities else "none",
    }


class Spread:
    """How much box sizes vary, in cells, at the same anchors in two models."""

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
        """Standard deviation of the found sizes / of the exact ones; None where the exact ones are all alike."""
        if not self._sizes[0]:
            return None
        exact, found = (float(np.concatenate(sizes).std()) for sizes in self._sizes)
        return round(found / exact, 4) if exact >= MIN_SPREAD else None


def collapsed(quality: dict[str, Any]) -> str | None:
    """Why this quantisation must not be compiled, or None."""
    ratio = quality["box_spread_ratio"]
    if ratio is None or ratio >= COLLAPSED:
        return None
    return (
        f"the quantised network gives boxes of almost one size: their spread is {ratio:.2f} of the float model's, so "
        "its box regression is destroyed although classes and scores may look right; expected at least "
        f"{COLLAPSED}; use --optimization-level 0, or 2 with more and better pictures, then --precision-16 outputs"
    )


def check_full_precision(quality: dict[str, Any]) -> None:
    """Refuse (exit 5) a network that differs before any quantisation: then it is not the ONNX."""
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


def low_agreement(quality: dict[str, Any]) -> str | None:
    """What to warn of when nobody has set a gate."""
    recall = quality["recall"]
    if recall is None:
        return nothing_compared(quality)
    if recall < LOW_RECALL:
        return (
            f"the quantised network keeps only {recall:.2f} of the float model's boxes; try --optimization-level 2, "
            "more and better pictures, or --precision-16 outputs"
        )
    return None


def _float_spec(head: HeadSpec, probabilities: bool) -> HeadSpec:
    outputs = tuple(
        replace(o, activation="sigmoid" if o.role == "cls" and probabilities else "none") for o in head.outputs
    )
    return replace(head, outputs=outputs)
