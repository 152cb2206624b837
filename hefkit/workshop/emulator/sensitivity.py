"""Which tensors suffer most in 8 bit: measured, one at a time, at the heads.

Predictions from the weights alone were tried and are wrong by orders of magnitude in the first layers, where
rounding errors are not independent. So the network is run with every tensor in 16 bit but one. Scales, zero
points and bounds are inputs of the graph, so that one session serves all the runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hefkit.workshop.emulator.codes import Quantization
from hefkit.workshop.emulator.plan import RoundingPlan
from hefkit.workshop.emulator.qdq import DOMAIN
from hefkit.workshop.network.session import open_session, run_session

PICTURES = 2


def head_noise(
    plan: RoundingPlan,
    narrow: Mapping[str, Quantization],
    wide: Mapping[str, Quantization],
    feeds: Sequence[Mapping[str, np.ndarray]],
) -> dict[str, float]:
    """Rounded tensor -> noise over signal, summed over the heads, when it alone is stored as in `narrow`.

    Args:
        narrow, wide: how every tensor is stored in 8 and in 16 bit.
        feeds: pictures for the float network; the first PICTURES are used.
    """
    model = _with_free_scales(plan, list(narrow))
    outputs = [o.name for o in model.graph.output]
    session = open_session(model)
    noise = dict.fromkeys(narrow, 0.0)
    for feed in feeds[:PICTURES]:
        settings = {name: value for t, q in wide.items() for name, value in _setting(t, q).items()}
        exact = run_session(session, outputs, {**feed, **settings})
        energy = [max(float((e.astype(np.float64) ** 2).sum()), 1e-30) for e in exact]
        for tensor in narrow:
            found = run_session(session, outputs, {**feed, **settings, **_setting(tensor, narrow[tensor])})
            noise[tensor] += sum(
                float(((f.astype(np.float64) - e) ** 2).sum()) / s for f, e, s in zip(found, exact, energy, strict=True)
            )
    return noise


def _setting(tensor: str, q: Quantization) -> dict[str, np.ndarray]:
    """The inputs that make the signed 16-bit pair behind `tensor` round as `q` says."""
    low, high = -q.zero_point * q.scale, (q.largest - q.zero_point) * q.scale
    # 8-bit codes keep their scale: minus the zero point they fit; 16-bit ones must reach the farther end
    scale = q.scale if q.dtype == "uint8" else max(-low, high) / np.iinfo(np.int16).max
    return {
        f"{tensor}/free_scale": np.asarray(scale, np.float32),
        f"{tensor}/low": np.asarray(low, np.float32),
        f"{tensor}/high": np.asarray(high, np.float32),
    }


def _with_free_scales(plan: RoundingPlan, tensors: Sequence[str]) -> onnx.ModelProto:
    """The float network with clip, Quantize and Dequantize behind every tensor, steered by inputs."""
    model = onnx.ModelProto()
    model.CopyFrom(plan.model)
    del model.graph.node[:]
    renamed: dict[str, str] = {}
    model.graph.initializer.append(numpy_helper.from_array(np.int16(0), "free/zero_point"))
    for index in plan.graph.alive:
        node = onnx.NodeProto()
        node.CopyFrom(plan.graph.nodes[index])
        for slot, name in enumerate(node.input):
            node.input[slot] = renamed.get(name, name)
        model.graph.node.append(node)
        for name in node.output:
            if name in tensors:
                renamed[name] = _append_pair(model, name)
    for output in model.graph.output:
        output.name = renamed[output.name]
    if not any(o.domain == DOMAIN for o in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return model


def _append_pair(model: onnx.ModelProto, tensor: str) -> str:
    clipped, codes, rounded = (f"{tensor}/free_{s}" for s in ("clipped", "codes", "rounded"))
    scale, low, high = f"{tensor}/free_scale", f"{tensor}/low", f"{tensor}/high"
    model.graph.input.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, []) for n in (scale, low, high))
    # Clip takes its bounds as inputs since opset 11, the oldest that is read
    model.graph.node.extend(
        [
            helper.make_node("Clip", [tensor, low, high], [clipped]),
            helper.make_node("QuantizeLinear", [clipped, scale, "free/zero_point"], [codes], domain=DOMAIN),
            helper.make_node("DequantizeLinear", [codes, scale, "free/zero_point"], [rounded], domain=DOMAIN),
        ]
    )
    return rounded
