"""Float network against its emulation on the same pictures: boxes, scores, and the noise of each output."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx

from hefkit.detect.decode import Decoder, DecodeSettings
from hefkit.detect.quant import dequantize, sigmoid
from hefkit.measure.accuracy import Agreement, SignalToNoise
from hefkit.spec import HeadSpec, OutputSpec
from hefkit.workshop.heads.discover import HeadLayout
from hefkit.workshop.heads.proof import heads_to_hwc, to_network_input
from hefkit.workshop.network.cut import cut
from hefkit.workshop.network.file import OnnxFile
from hefkit.workshop.network.session import open_session, run_session


def nothing_compared(quality: Mapping[str, Any]) -> str:
    """What to warn of where recall is None."""
    return (
        f"the float model finds no box in the {quality['images']} pictures that agreement is measured on, so "
        "nothing is known of the quantised one; take pictures with objects, and try hailo_inference.py with the float "
        "model on them"
    )


def measure_agreement(
    file: OnnxFile,
    layout: HeadLayout,
    emulated: onnx.ModelProto,
    head: HeadSpec,
    pictures: Iterable[np.ndarray],
    *,
    in_sample: bool,
) -> dict[str, Any]:
    """The spec's `quality` object.

    Args:
        head: of the emulated model.
        pictures: (H, W, 3) uint8 RGB of the input size.
        in_sample: the pictures took part in the calibration, so the figures flatter.
    """
    settings = DecodeSettings()
    exact_decoder, decoder = Decoder(layout.to_head_spec(), settings), Decoder(head, settings)
    exact_session, session = open_session(cut(file.model, layout.tensors)), open_session(emulated)
    names = [o.name for o in emulated.graph.output]
    agreement, noise = Agreement(settings.conf), [SignalToNoise() for _ in head.outputs]
    for picture in pictures:
        feed = {file.input_name: to_network_input(picture[None], file.dtype)}
        exact = heads_to_hwc(run_session(exact_session, layout.tensors, feed))
        found = [t[0] for t in run_session(session, names, {emulated.graph.input[0].name: picture[None]})]
        agreement.add(exact_decoder(exact), decoder(found))
        for meter, e, f, output in zip(noise, exact, found, head.outputs, strict=True):
            meter.add(
                sigmoid(e) if output.activation == "sigmoid" else e, dequantize(f, output.scale, output.zero_point)
            )
    outputs = [_output(o, n) for o, n in zip(head.outputs, noise, strict=True)]
    return {**agreement.to_json(), "in_sample": in_sample, "outputs": outputs}


def _output(output: OutputSpec, noise: SignalToNoise) -> dict[str, Any]:
    decibel = noise.decibel
    return {"role": output.role, "stride": output.stride, "snr_db": None if decibel is None else round(decibel, 2)}
