"""Level 1's bias correction on networks of two layers, where the damage is made on purpose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from hefkit.workshop.emulator.arithmetic import LayerNumbers
from hefkit.workshop.emulator.correction import corrected, picture_budget, real_values, round_to_codes
from hefkit.workshop.emulator.plan import RoundingPlan
from hefkit.workshop.emulator.rounding import Rounder, Rounding, Storage
from hefkit.workshop.emulator.scales import TensorCodes
from hefkit.workshop.emulator.statistics import extremes

ROUGH = TensorCodes(1.5 / 255, 0)  # clips what is above 1.5: about half of the range
RNG = np.random.default_rng(3)
FIRST = RNG.normal(0, 1, (4, 3, 1, 1)).astype(np.float32)
SECOND = RNG.normal(0, 1, (5, 4, 3, 3)).astype(np.float32)
BIAS = RNG.normal(0, 1, 5).astype(np.float32)
MATRIX = np.random.default_rng(1).normal(0, 1, (16, 16)).astype(np.float32)


def two_layers(second: str = "y = Conv <pads: ints = [1, 1, 1, 1]> (r, v, b)", **weights: np.ndarray) -> RoundingPlan:
    """x (1, 3, 16, 16) -> Conv, Relu -> r -> a second layer -> y."""
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 13]> toy (float[1, 3, 16, 16] x) => (float[N, C, H, W] y) '
        f"{{ c = Conv(x, w) r = Relu(c) {second} }}"
    )
    known = {"w": FIRST, "v": SECOND, "b": BIAS, "m": MATRIX, **weights}
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in known.items() if n in used)
    return RoundingPlan(model)


def pictures(count: int = 6) -> list[dict[str, np.ndarray]]:
    """Seeded noise, in codes of 1/128 as a chip would read it."""
    rng = np.random.default_rng(0)
    return [{"x": rng.integers(0, 256, (1, 3, 16, 16)).astype(np.float32) / 128} for _ in range(count)]


def rounded(plan: RoundingPlan, **codes: TensorCodes) -> tuple[Rounder, Rounding]:
    """Level 0's rounding, with other codes for some tensors."""
    names = list(dict.fromkeys(n for p in plan.points for n in (p.tensor, p.inner)))
    rounder = Rounder(plan, extremes(plan.model, names, pictures()), [128.0] * 3, [])
    found = rounder.choose(Storage())
    return rounder, Rounding({**found.codes, **codes}, found.numbers)


def correct(plan: RoundingPlan, **codes: TensorCodes) -> tuple[dict[str, LayerNumbers], dict[str, LayerNumbers]]:
    """(before, after)."""
    rounder, rounding = rounded(plan, **codes)
    return rounding.numbers, corrected(plan, rounding, rounder.layers, pictures())


def conv(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, pad: int) -> np.ndarray:
    """(C, H, W) float64; by the book."""
    k = weight.shape[2]
    padded = np.pad(x.astype(np.float64), ((0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (k, k), axis=(1, 2))
    return np.einsum("oiyx,ihwyx->ohw", weight.astype(np.float64), windows) + bias[:, None, None]


def second_layer(numbers: dict[str, LayerNumbers]) -> tuple[np.ndarray, np.ndarray]:
    """(exact, as the chip computes it with these numbers and r clipped), (5, all values) each."""
    exact, found = [], []
    for feed in pictures():
        r = np.maximum(conv(feed["x"][0], FIRST, np.zeros(4), 0), 0)
        first = np.maximum(conv(feed["x"][0], numbers["r"].weight, numbers["r"].bias, 0), 0)
        read = np.clip(np.rint(first / ROUGH.scale), 0, 255) * ROUGH.scale
        exact.append(conv(r, SECOND, BIAS, 1))
        found.append(conv(read, numbers["y"].weight, numbers["y"].bias, 1))
    return np.stack(exact, axis=1).reshape(5, -1), np.stack(found, axis=1).reshape(5, -1)


def test_a_badly_rounded_input_gets_its_channel_means_back() -> None:
    """The first layer's output is clipped; the second one's means come out right all the same.

    Measured on the pictures that the correction saw, the mean of a channel is off by half a step of its bias at most.
    """
    before, after = correct(two_layers(), r=ROUGH)

    exact, plain = second_layer(before)
    _, better = second_layer(after)

    assert np.abs(plain.mean(axis=1) - exact.mean(axis=1)).max() > 0.5, "or there was nothing to correct"
    steps = after["y"].accumulator_scale * (after["y"].bias_factor >> after["y"].mac_shift)
    assert steps.max() < 0.05
    assert (np.abs(better.mean(axis=1) - exact.mean(axis=1)) <= 0.5 * steps + 1e-4).all()
    assert ((better - exact) ** 2).mean() < ((plain - exact) ** 2).mean()


def test_without_damage_nothing_changes() -> None:
    """Where rounding shifts next to nothing, biases stay but for a few steps."""
    weight = FIRST.copy()
    weight[[1, 2]] *= -1  # else two channels are always zero, and the compiler empties them
    before, after = correct(two_layers(w=weight))

    for tensor in ("r", "y"):  # by less than one code of what the layer writes
        assert (np.abs(after[tensor].bias - before[tensor].bias) < after[tensor].output.scale).all()
    assert (np.abs(after["y"].bias - BIAS) < after["y"].output.scale).all()


def test_only_biases_change_and_stay_codes() -> None:
    """Weight codes, scales and shifts are level 0's; a bias is a whole number of steps."""
    before, after = correct(two_layers(), r=ROUGH)

    assert list(after) == list(before) == ["r", "y"]
    for tensor in after:
        same = replace(after[tensor], bias_codes=before[tensor].bias_codes, bias_factor=before[tensor].bias_factor)
        for name, value in vars(same).items():
            assert np.array_equal(value, vars(before[tensor])[name]), name
        assert after[tensor].bias_codes.dtype == np.int64
        assert after[tensor].bias_factor == before[tensor].bias_factor == 2 ** before[tensor].mac_shift
    assert not np.array_equal(after["y"].bias_codes, before["y"].bias_codes)


def test_a_conv_without_bias_gets_one() -> None:
    """The chip has a bias for every layer, so it takes the correction."""
    # a channel of small weights loses them: one step for the whole layer, because SiLU follows
    weight = FIRST.copy()
    weight[1] = [[[0.011]], [[0.012]], [[0.0]]]
    weight[0] = 8.0
    plan = two_layers("s = Sigmoid(c) y = Mul(c, s)", w=weight)
    before, after = correct(plan)

    assert not before["y"].bias.any() and not before["y"].codes[1].any()
    # the mean of 0.011 x0 + 0.012 x1, x uniform in 0..2: 0.023; to half a step
    assert after["y"].bias[1] == pytest.approx(0.023, abs=0.5 * float(after["y"].accumulator_scale[1]) + 1e-3)


def test_shared_weights_are_corrected_for_each_layer() -> None:
    """Two Convs read one weight and one bias, of inputs with different damage: each gets numbers of its own."""
    plan = two_layers(
        "p = Conv <pads: ints = [1, 1, 1, 1]> (r, v, b) k = MaxPool <kernel_shape: ints = [1, 1]> (r) "
        "n = Sigmoid(k) q = Conv <pads: ints = [1, 1, 1, 1]> (n, v, b) y = Add(p, q)"
    )
    stored = [t.SerializeToString() for t in plan.model.graph.initializer]

    _, after = correct(plan, r=ROUGH, n=TensorCodes(0.6 / 255, 0))

    assert not np.allclose(after["p"].bias, after["q"].bias, atol=0.1)
    assert [t.SerializeToString() for t in plan.model.graph.initializer] == stored


def test_a_dead_channel_is_left_alone() -> None:
    """Weights of zero: no NaN, and the bias it had."""
    dead = SECOND.copy()
    dead[2] = 0
    before, after = correct(two_layers(v=dead), r=ROUGH)

    assert not after["y"].weight[2].any() and after["y"].bias_codes[2] == before["y"].bias_codes[2]
    assert all(np.isfinite(n.bias).all() for n in after.values())


def test_a_matmul_has_no_bias_to_correct() -> None:
    """Its numbers stay."""
    before, after = correct(two_layers("y = MatMul(r, m)"), r=ROUGH)

    assert after["y"] is before["y"]


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


def test_codes_of_a_tensor() -> None:
    """Half to even, saturated at 255 and at 32767; scales by channel along axis 1, and back."""
    values = np.float32([[[[0.25, -9.0]], [[0.25, 9000.0]]]])
    narrow = round_to_codes(values, TensorCodes(np.array([0.1, 0.5]), 3))
    wide = round_to_codes(values, TensorCodes(0.125, 100, 15))

    assert (narrow.dtype, narrow.ravel().tolist()) == (np.uint8, [5, 0, 3, 255])
    assert (wide.dtype, wide.ravel().tolist()) == (np.uint16, [102, 28, 102, 32767])
    assert real_values(narrow, TensorCodes(np.array([0.1, 0.5]), 3)).ravel() == pytest.approx([0.2, -0.3, 0, 126])


def test_the_order_of_tensors_does_not_matter() -> None:
    """Nothing depends on the order of a dict."""
    plan = two_layers()
    rounder, rounding = rounded(plan, r=ROUGH)
    turned = Rounding(dict(reversed(rounding.codes.items())), dict(reversed(rounding.numbers.items())))

    first, second = (corrected(plan, r, rounder.layers, pictures(2)) for r in (rounding, turned))

    for name in ("r", "y"):
        assert np.array_equal(first[name].bias, second[name].bias)
