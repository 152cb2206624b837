"""Batch normalisation becomes part of the convolution before it, where that changes nothing."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from hefkit.workshop.network.floatnet import fold_batch_norm
from tests.helpers.onnx_net import run_onnx

RNG = np.random.default_rng(0)
CONSTANTS = {
    "w": RNG.normal(0, 1, (4, 4, 3, 3)), "wd": RNG.normal(0, 1, (4, 1, 3, 3)), "b": RNG.normal(0, 1, 4),
    "gain": RNG.uniform(0.2, 3, 4) * [1, -1, 1, 1], "shift": RNG.normal(0, 1, 4), "mean": RNG.normal(0, 1, 4),
    "var": RNG.uniform(0.01, 4, 4), "p": RNG.normal(0, 1, 4),
}  # fmt: skip
PICTURE = RNG.normal(0, 1, (1, 4, 8, 8)).astype(np.float32)
BN = "BatchNormalization <epsilon: float = 0.1> "


def network(body: str, outputs: str = "y") -> onnx.ModelProto:
    """A graph from `x`, (1, 4, 8, 8)."""
    results = ", ".join(f"float[N, C, H, W] {o}" for o in outputs.split())
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 15]> toy (float[1, 4, 8, 8] x) => ({results}) {{ {body} }}'
    )
    read = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.float32(value), name) for name, value in CONSTANTS.items() if name in read
    )
    return model


# body, outputs, BatchNormalizations that stay
FOLDED = {
    "behind a bias": (f"c = Conv(x, w, b) y = {BN}(c, gain, shift, mean, var)", "y", 0),
    "without a bias": (f"c = Conv(x, w) n = {BN}(c, gain, shift, mean, var) y = Relu(n)", "y", 0),
    "depthwise": (f"c = Conv <group: int = 4> (x, wd) y = {BN}(c, gain, shift, mean, var)", "y", 0),
    "the usual epsilon": ("c = Conv(x, w) y = BatchNormalization(c, gain, shift, mean, var)", "y", 0),
    "one weight, two convolutions": (
        f"c = Conv(x, w) d = Conv(x, w) n = {BN}(c, gain, shift, mean, var) "
        f"m = {BN}(d, shift, gain, shift, var) y = Add(n, m)",
        "y",
        0,
    ),
    "a chain": (
        f"c = Conv(x, w) n = {BN}(c, gain, shift, mean, var) r = Relu(n) d = Conv(r, w) "
        f"y = {BN}(d, shift, gain, shift, var)",
        "y",
        0,
    ),
    "weights behind an Identity": (f"k = Identity(w) c = Conv(x, k) y = {BN}(c, gain, shift, mean, var)", "y", 0),
    "twice": (f"c = Conv(x, w) n = {BN}(c, gain, shift, mean, var) y = {BN}(n, shift, gain, shift, var)", "y", 1),
    "others read the convolution": (
        f"c = Conv(x, w) n = {BN}(c, gain, shift, mean, var) r = Relu(c) y = Add(n, r)", "y", 1
    ),
    "the convolution is an output": (f"c = Conv(x, w) y = {BN}(c, gain, shift, mean, var)", "c y", 1),
    "behind a transposed convolution": (f"c = ConvTranspose(x, w) y = {BN}(c, gain, shift, mean, var)", "y", 1),
    "behind nothing": (f"y = {BN}(x, gain, shift, mean, var)", "y", 1),
    "computed numbers": (
        f"s = GlobalAveragePool(x) h = Flatten <axis: int = 2> (s) z = ReduceSum <keepdims: int = 0> (h) "
        f"g = Add(gain, z) c = Conv(x, w) y = {BN}(c, g, shift, mean, var)",
        "y",
        1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("body, outputs, left", FOLDED.values(), ids=FOLDED.keys())
def test_outputs_stay_the_same(body: str, outputs: str, left: int) -> None:
    """Folded or not, the network computes what it computed; the given model is not changed."""
    model = network(body, outputs)
    before = model.SerializeToString()

    folded = fold_batch_norm(model)

    assert model.SerializeToString() == before
    assert sum(n.op_type == "BatchNormalization" for n in folded.graph.node) == left
    assert [o.name for o in folded.graph.output] == outputs.split()
    onnx.checker.check_model(folded)
    for found, expected in zip(run_onnx(folded, PICTURE), run_onnx(model, PICTURE), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_numbers_by_hand() -> None:
    """gain / sqrt(variance + epsilon) into the weights, (bias - mean) times that plus the shift into the bias."""
    folded = fold_batch_norm(network(f"c = Conv(x, w, b) y = {BN}(c, gain, shift, mean, var)"))
    [conv] = folded.graph.node
    values = {t.name: numpy_helper.to_array(t) for t in folded.graph.initializer}
    gain = CONSTANTS["gain"] / np.sqrt(CONSTANTS["var"] + 0.1)

    assert (conv.op_type, conv.output[0]) == ("Conv", "y")
    np.testing.assert_allclose(values[conv.input[1]], CONSTANTS["w"] * gain[:, None, None, None], rtol=1e-5)
    np.testing.assert_allclose(
        values[conv.input[2]], (CONSTANTS["b"] - CONSTANTS["mean"]) * gain + CONSTANTS["shift"], rtol=1e-5, atol=1e-6
    )


def test_one_in_training_stays() -> None:
    """It normalises with the picture's own mean: no constant can do that."""
    body = "c = Conv(x, w) y, m, v = BatchNormalization <training_mode: int = 1> (c, gain, shift, mean, var)"
    assert [n.op_type for n in fold_batch_norm(network(body)).graph.node] == ["Conv", "BatchNormalization"]
