"""Bias correction on networks of one or two layers, where the damage is made on purpose."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from hefkit.workshop.emulator.codes import Quantization, from_range
from onnx import numpy_helper

from hefkit.detect.quant import dequantize, quantize
from hefkit.workshop.emulator.correction import Corrected, correct, picture_budget
from hefkit.workshop.emulator.plan import RoundingPlan

FINE = from_range(-40.0, 40.0, "uint16")  # rounds next to nothing
RNG = np.random.default_rng(3)
FIRST = RNG.normal(0, 1, (4, 3, 1, 1)).astype(np.float32)
SECOND = RNG.normal(0, 1, (5, 4, 3, 3)).astype(np.float32)
BIAS = RNG.normal(0, 1, 5).astype(np.float32)


def two_layers(second: str = "y = Conv <pads: ints = [1, 1, 1, 1]> (r, v, b)") -> RoundingPlan:
    """x (1, 3, 16, 16) -> Conv, Relu -> r -> a second layer -> y."""
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 13]> toy (float[1, 3, 16, 16] x) => (float[N, C, H, W] y) '
        f"{{ c = Conv(x, w) r = Relu(c) {second} }}"
    )
    weights = {"w": FIRST, "v": SECOND, "b": BIAS}
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in weights.items() if n in used)
    return RoundingPlan(model)


def pictures(count: int = 6) -> list[dict[str, np.ndarray]]:
    """Seeded noise."""
    rng = np.random.default_rng(0)
    return [{"x": rng.normal(0, 1, (1, 3, 16, 16)).astype(np.float32)} for _ in range(count)]


def conv(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, pad: int) -> np.ndarray:
    """(C, H, W) float64; by the book."""
    k = weight.shape[2]
    padded = np.pad(x.astype(np.float64), ((0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (k, k), axis=(1, 2))
    return np.einsum("oiyx,ihwyx->ohw", weight.astype(np.float64), windows) + bias[:, None, None]


def coarse(x: np.ndarray, q: Quantization) -> np.ndarray:
    """What the second layer reads on the chip."""
    return dequantize(quantize(x, q.scale, q.zero_point, q.dtype), q.scale, q.zero_point)


def second_layer(
    result: Corrected, feeds: list[dict[str, np.ndarray]], rough: Quantization
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(exact, quantised and corrected, quantised only), (5, all values) each."""
    exact, corrected, plain = [], [], []
    for feed in feeds:
        r = np.maximum(conv(feed["x"][0], FIRST, np.zeros(4), 0), 0)
        first = conv(feed["x"][0], result.weights["r"].real(), result.biases["r"], 0)
        rounded = coarse(np.maximum(first, 0).astype(np.float32), rough)
        exact.append(conv(r, SECOND, BIAS, 1))
        corrected.append(conv(rounded, result.weights["y"].real(), result.biases["y"], 1))
        plain.append(conv(rounded, SECOND, BIAS, 1))
    flat = [np.stack(v, axis=1).reshape(5, -1) for v in (exact, corrected, plain)]
    return flat[0], flat[1], flat[2]


def test_a_badly_rounded_input_gets_its_channel_means_back() -> None:
    """The first layer's output is clipped to half of its range; the second one's means come out right all the same.

    Measured on the pictures that the correction saw, the mean of every channel is exact but for float32.
    """
    rough = from_range(0.0, 1.5)
    plan = two_layers()
    result = correct(plan, {"r": rough, "y": FINE}, [], pictures())

    exact, corrected, plain = second_layer(result, pictures(), rough)

    assert np.abs(plain.mean(axis=1) - exact.mean(axis=1)).max() > 0.1, "or there was nothing to correct"
    np.testing.assert_allclose(corrected.mean(axis=1), exact.mean(axis=1), atol=1e-3)
    assert ((corrected - exact) ** 2).mean() < ((plain - exact) ** 2).mean()


def test_without_damage_nothing_changes() -> None:
    """Where rounding costs nothing, weights and biases stay what they were but for their own 8 bit."""
    plan = two_layers()
    result = correct(plan, {"r": FINE, "y": FINE}, ["r", "y"], pictures())

    np.testing.assert_allclose(result.weights["y"].real(), SECOND, atol=2e-3)
    np.testing.assert_allclose(result.biases["y"], BIAS, atol=5e-3)
    assert {w.codes.dtype for w in result.weights.values()} == {np.dtype(np.int16)}


def test_codes_are_those_of_the_float_weights() -> None:
    """A correction goes into scales and biases only; eight bits a weight, -127..127."""
    result = correct(two_layers(), {"r": from_range(0.0, 1.5), "y": FINE}, [], pictures())
    peak = np.abs(SECOND).reshape(5, -1).max(axis=1)

    assert result.weights["y"].codes.dtype == np.int8
    expected = np.rint(SECOND / (peak / 127)[:, None, None, None])
    assert np.abs(result.weights["y"].codes - expected).max() <= 1  # a tie may fall either way
    assert (result.weights["y"].scale > 0).all()


def test_a_conv_without_bias_gets_one() -> None:
    """The first layer has no bias; the chip has one for every layer, so it takes the correction."""
    result = correct(two_layers(), {"r": from_range(0.0, 1.5), "y": FINE}, [], pictures())

    assert result.biases["r"].shape == (4,) and result.biases["r"].dtype == np.float32
    assert set(result.weights) == set(result.biases) == {"r", "y"}


def test_shared_weights_are_corrected_for_each_layer() -> None:
    """Two Convs read one weight and one bias, of inputs with different damage: each gets numbers of its own."""
    plan = two_layers(
        "p = Conv <pads: ints = [1, 1, 1, 1]> (r, v, b) m = MaxPool <kernel_shape: ints = [1, 1]> (r) "
        "n = Sigmoid(m) q = Conv <pads: ints = [1, 1, 1, 1]> (n, v, b) y = Add(p, q)"
    )
    before = [t.SerializeToString() for t in plan.model.graph.initializer]
    ranges = {"r": from_range(0.0, 1.5), "n": from_range(0.0, 0.6), "p": FINE, "q": FINE, "y": FINE}

    result = correct(plan, ranges, [], pictures())

    assert not np.array_equal(result.biases["p"], result.biases["q"])
    assert np.array_equal(result.weights["p"].codes, result.weights["q"].codes)
    assert [t.SerializeToString() for t in plan.model.graph.initializer] == before


def test_a_dead_channel_is_left_alone() -> None:
    """A channel that is always zero has no slope: no NaN, no infinite gain."""
    plan = two_layers()
    for tensor in plan.model.graph.initializer:
        if tensor.name == "v":
            dead = SECOND.copy()
            dead[2] = 0
            tensor.CopyFrom(numpy_helper.from_array(dead, "v"))
    result = correct(RoundingPlan(plan.model), {"r": from_range(0.0, 1.5), "y": FINE}, [], pictures())

    assert not result.weights["y"].real()[2].any()
    assert result.biases["y"][2] == pytest.approx(BIAS[2], abs=1e-4)
    for value in (*(w.scale for w in result.weights.values()), *result.biases.values()):
        assert np.isfinite(value).all()


def test_a_matmul_with_weights_is_quantised() -> None:
    """Gemm and MatMul have no bias to correct, but their weights are codes as well, a scale a column."""
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 13]> toy (float[1, 3, 4, 4] x) => (float[N, C, H, W] y) '
        "{ c = Conv(x, w) y = MatMul(c, m) }"
    )
    matrix = np.random.default_rng(1).normal(0, 1, (4, 6)).astype(np.float32)
    model.graph.initializer.extend([numpy_helper.from_array(FIRST, "w"), numpy_helper.from_array(matrix, "m")])
    feeds = [{"x": np.ones((1, 3, 4, 4), np.float32)}]

    result = correct(RoundingPlan(model), {"c": FINE, "y": FINE}, [], feeds)

    assert result.weights["y"].scale.shape == (6,) and "y" not in result.biases
    np.testing.assert_allclose(result.weights["y"].real(), matrix, atol=np.abs(matrix).max() / 127 * 0.51)


def test_the_number_of_pictures_follows_the_size_of_the_tensors() -> None:
    """A toy takes the most that is ever useful, a wall of features at least one and fewer than a toy."""

    def wide(channels: int) -> RoundingPlan:
        model = onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["" : 13]> toy (float[1, 3, 640, 640] x) => (float[N, C, H, W] y) '
            "{ c = Conv(x, w) y = Relu(c) }"
        )
        model.graph.initializer.append(numpy_helper.from_array(np.ones((channels, 3, 1, 1), np.float32), "w"))
        return RoundingPlan(model)

    # one picture of the wall: 512 channels of 640 x 640 float32 are 839 MB
    assert 1 <= picture_budget(wide(512)) < picture_budget(wide(8)) <= picture_budget(two_layers())


def test_the_order_of_tensors_in_the_ranges_does_not_matter() -> None:
    """Nothing depends on the order of a dict."""
    ranges: Mapping[str, Quantization] = {"r": from_range(0.0, 1.5), "y": FINE}
    first = correct(two_layers(), ranges, [], pictures(2))
    second = correct(two_layers(), dict(reversed(ranges.items())), [], pictures(2))

    for name in ("r", "y"):
        assert np.array_equal(first.biases[name], second.biases[name])
