"""Weight codes, shifts and biases by the compiler's rules: by hand, and as properties of any layer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hefkit.workshop.emulator.arithmetic import (
    ACCUMULATOR,
    HEADROOM,
    FloatLayer,
    LayerNumbers,
    bias_numbers,
    layer_numbers,
    layer_output,
    mac_shift,
    mantissa_up,
    weight_need,
    without_static_channels,
)
from hefkit.workshop.emulator.scales import LEVELS, TensorCodes, output_range

ONE_GROUP = np.zeros(1, int)
BITS = st.sampled_from([8, 15])


def layer_of(weight: list[list[float]], preactivation: list[float], activation: str = "relu") -> FloatLayer:
    """A dense layer whose output reaches as far as its pre-activation; biases of 0.3."""
    peak = np.float32(preactivation)
    return FloatLayer(np.float32(weight), np.full(len(peak), 0.3, np.float32), peak, 0 * peak, peak, activation)


def random_layer(seed: int, activation: str, groups: int) -> tuple[FloatLayer, np.ndarray]:
    """A convolution of 6 to 6 channels with weights of very different sizes, and its input scales."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(0, 1, (6, 6 // groups, 3, 3)) * rng.uniform(1e-3, 1, (6, 1, 1, 1))
    peak = rng.uniform(0.1, 30, 6)
    low = -peak * rng.uniform(0, 1) if activation in ("none", "silu") else np.zeros(6)
    layer = FloatLayer(weight.astype(np.float32), rng.normal(0, 1, 6).astype(np.float32), peak, low, peak * 0.9,
                       activation, groups, reader_peak=rng.uniform(0.01, 1, 6))  # fmt: skip
    return layer, rng.uniform(1e-3, 0.1, 6)


def test_a_layer_by_hand() -> None:
    """S_in 0.1, S_out 0.05: weights 1 and -0.5 are 2 and -1 there, so K is at least 2 / 127 = 516.03 * 2**-15."""
    layer = layer_of([[1.0, -0.5]], [10.0])
    found = layer_numbers(layer, 0.1, output=TensorCodes(0.05, 0))

    assert found.k.tolist() == [517 * 2.0**-15]
    assert found.kernel_scale.ravel().tolist() == pytest.approx([517 * 2.0**-15 * 0.05 / 0.1] * 2)
    assert found.codes.tolist() == [[127, -63]] and found.codes.dtype == np.int8
    # 10 / (0.05 * K) = 12676 steps fit in 16 bits without a shift
    assert (found.mac_shift, found.shift_delta, found.input_raise) == (0, 0.0, 1.0)
    assert found.bias_codes.tolist() == [380] and found.bias_factor == 1  # 0.3 / (0.05 * K) = 380.28
    assert found.bias.tolist() == pytest.approx([380 * 0.05 * 517 * 2.0**-15])
    assert found.weight.dtype == found.bias.dtype == np.float32


def test_a_shift_by_hand() -> None:
    """Sums of 4 * 32767 steps need two bits, and the headroom of 0.297 a third one; codes are the same."""
    small = layer_numbers(layer_of([[1.0, -0.5]], [10.0]), 0.1, output=TensorCodes(0.05, 0))
    peak = 4 * ACCUMULATOR[8] * 0.05 * 2 / 127
    found = layer_numbers(layer_of([[1.0, -0.5]], [peak]), 0.1, output=TensorCodes(0.05, 0))

    assert (found.mac_shift, found.bias_factor) == (3, 8)
    assert found.codes.tolist() == small.codes.tolist()
    assert found.bias_codes.tolist() == [round(380.28 / 8)]
    assert found.output_factor.tolist() == (found.k * 8).tolist()


def test_more_than_the_largest_shift() -> None:
    """Six bits are missing, four can be had: K grows by 2 + 0.297 bits, and the input is asked for half of them."""
    peak = 2**6 * ACCUMULATOR[8] * 0.05 * 2 / 127
    found = layer_numbers(layer_of([[1.0, -0.5]], [peak], "sigmoid"), 0.1, output=TensorCodes(0.05, 0))

    assert found.mac_shift == 4
    assert found.shift_delta == pytest.approx(2 + HEADROOM)
    assert found.k[0] == pytest.approx(2 / 127 * 2 ** (2 + HEADROOM))
    assert found.input_raise == pytest.approx(2 ** (1 + HEADROOM / 2))
    again = layer_numbers(layer_of([[1.0, -0.5]], [peak], "sigmoid"), 0.1 * found.input_raise, output=found.output)
    assert again.shift_delta == pytest.approx(found.shift_delta / 2)


def test_a_negative_peak_may_take_the_last_code() -> None:
    """-1.28 fits in -128 steps of 0.01, 1.28 does not fit in 127."""
    assert weight_need(np.array([[1.27, -1.28]]), ONE_GROUP, 8) == (pytest.approx([0.01]), 0)
    assert weight_need(np.array([[1.28, -1.27]]), ONE_GROUP, 8)[0] == pytest.approx([1.28 / 127])


def test_fifteen_bits_cover_the_range() -> None:
    """-1..3: zero would be 8191.75, so 8192, and 3 stays the last code."""
    need, zero_point = weight_need(np.array([[-1.0, 3.0]]), ONE_GROUP, 15)
    found = layer_numbers(layer_of([[-1.0, 3.0]], [10.0], "silu"), 1.0, 15, output=TensorCodes(1.0, 0, 15))

    assert zero_point == found.kernel_zero_point == 8192
    assert need.tolist() == [3 / (32767 - 8192)]
    assert found.codes.tolist() == [[0, 32767]] and found.codes.dtype == np.int16
    assert found.mac_shift == 0
    np.testing.assert_allclose(found.weight, [[-1.0, 3.0]], atol=1e-4)


def test_biases_of_fifteen_bit_layers() -> None:
    """Codes of 16 bits and one factor, the smallest; 30563738 = 25114 * 1217 is stored exactly."""
    codes, factor = bias_numbers(np.float32([100000, -5001]), np.float32([1, 1]), 0, 15)
    assert (codes.tolist(), factor) == ([25000, -1250], 4)
    codes, factor = bias_numbers(np.float32([30563738]), np.float32([1]), 0, 15)
    assert (codes.tolist(), factor) == ([1217], 25114)
    codes, factor = bias_numbers(np.float32([0, 0]), np.float32([1, 1]), 0, 15)
    assert (codes.tolist(), factor) == ([0, 0], 1)


@pytest.mark.parametrize(
    ("value", "mantissa", "exponent"),
    [(0.02936579, 963, -15), (596 / 8192, 596, -13), (1.0, 512, -9), (1023.5, 512, 1), (1 / 3, 683, -11)],
)
def test_ten_bits_of_mantissa(value: float, mantissa: int, exponent: int) -> None:
    """Up to the next of 512..1023 times a power of two; what is one already stays."""
    assert mantissa_up(np.array([value])).tolist() == [mantissa * 2.0**exponent]


@given(st.integers(0, 10_000), BITS, st.sampled_from(["relu", "none", "silu", "sigmoid"]), st.sampled_from([1, 2, 6]))
def test_codes_fit_and_are_near(seed: int, bits: int, activation: str, groups: int) -> None:
    """No code is clipped, no weight is off by more than half a step, zero is exact; grouped and depthwise too."""
    layer, input_scale = random_layer(seed, activation, groups)
    layer.weight[0, 0, 0, 0] = 0
    found = layer_numbers(layer, input_scale, bits)
    steps = layer.weight.astype(np.float64) / found.kernel_scale + found.kernel_zero_point

    low, high = (-128, 127) if bits == 8 else (0, LEVELS[15])
    assert steps.min() > low - 0.51 and steps.max() < high + 0.51
    assert found.codes[0, 0, 0, 0] == found.kernel_zero_point and found.weight[0, 0, 0, 0] == 0
    # half a step, and what float32 loses at codes of 32767
    np.testing.assert_array_less(np.abs(found.weight - layer.weight) / found.kernel_scale, 0.505)
    # the same from the stated scales: K * S_out / S_in
    by_input = np.repeat(input_scale.reshape(groups, -1), 6 // groups, axis=0)
    stated = found.k[:, None] * np.broadcast_to(found.output.scale, (6,))[:, None] / by_input
    np.testing.assert_allclose(np.broadcast_to(found.kernel_scale[:, :, 0, 0], stated.shape), stated, rtol=1e-6)


@given(st.integers(0, 10_000), BITS, st.sampled_from(["relu", "silu"]))
def test_sums_fit(seed: int, bits: int, activation: str) -> None:
    """The largest pre-activation leaves the headroom in the accumulator, and a smaller shift would not have."""
    layer, input_scale = random_layer(seed, activation, 1)
    found = layer_numbers(layer, input_scale, bits)
    # a rounded-up K only makes sums smaller
    sums = np.log2((layer.preactivation / found.accumulator_scale).max() / ACCUMULATOR[bits])

    assert sums <= -HEADROOM + 1e-5
    if found.mac_shift and found.shift_delta == 0:
        assert sums > -HEADROOM - 1 - np.log2(1 + 1 / 512)


@given(st.integers(0, 10_000), st.sampled_from(["relu", "silu"]), st.floats(1.01, 100))
def test_larger_weights_need_a_larger_k(seed: int, activation: str, factor: float) -> None:
    """K never falls when weights and sums grow; behind ReLU it is at most 1/512 above the smallest that fits."""
    layer, input_scale = random_layer(seed, activation, 1)
    output = layer_output(layer, input_scale)
    small = layer_numbers(layer, input_scale, output=output)
    grown = replace(layer, weight=layer.weight * np.float32(factor), preactivation=layer.preactivation * factor)

    assert layer_numbers(grown, input_scale, output=output).k[0] >= small.k[0]
    if small.shift_delta == 0:
        largest = (np.abs(layer.weight) / small.kernel_scale).max()
        assert 126.4 if activation == "relu" else 126.99 <= largest <= 128.01


@given(st.integers(0, 10_000), BITS)
def test_biases_are_within_half_a_code(seed: int, bits: int) -> None:
    """15-bit codes fit in 16 bits; rounded to a step of the sum, then to a code, a bias is off by half of each."""
    layer, input_scale = random_layer(seed, "relu", 1)
    layer = replace(layer, bias=layer.bias * np.float32(10.0 ** (seed % 5)))
    found = layer_numbers(layer, input_scale, bits)

    halves = 0.5 * found.accumulator_scale.astype(np.float64) * (1 + (found.bias_factor >> found.mac_shift))
    assert (np.abs(found.bias - layer.bias.astype(np.float64)) <= halves + 1e-6 * np.abs(layer.bias)).all()
    if bits == 15:
        assert np.abs(found.bias_codes).max() <= 32767


def test_one_step_for_all_weights_behind_a_curve() -> None:
    """Behind SiLU a channel of small weights gets few codes; behind ReLU equalisation may help it."""
    layer, _ = random_layer(1, "silu", 1)
    found = layer_numbers(layer, 0.01)

    assert np.unique(found.kernel_scale).size == 1
    assert np.unique(layer_numbers(replace(layer, activation="relu"), 0.01).kernel_scale).size > 1
    assert np.unique(layer_numbers(replace(layer, reader_peak=None), 0.01).kernel_scale).size == 1


def test_quantization_groups_have_a_k_each() -> None:
    """Channels 0 and 2 are ten times as large as 1 and 3: with two groups the small ones get ten times finer steps."""
    weight = np.float32([[1.0, -0.4], [0.1, 0.07], [0.9, 0.3], [-0.05, 0.1]])
    layer = FloatLayer(weight, np.zeros(4, np.float32), np.full(4, 10.0), np.zeros(4), np.full(4, 10.0), "silu")
    one = layer_numbers(layer, 0.1)
    two = layer_numbers(layer, 0.1, weight_groups=np.array([0, 1, 0, 1]))

    assert np.unique(one.k).size == 1
    assert two.k[0] == two.k[2] == one.k[0] and two.k[1] == two.k[3] == pytest.approx(one.k[0] / 10)
    assert _error(two, weight) < _error(one, weight)
    assert two.mac_shift >= one.mac_shift


def _error(found: LayerNumbers, weight: np.ndarray) -> float:
    return float(np.abs(found.weight - weight)[[1, 3]].max())


def test_channels_that_never_leave_zero() -> None:
    """Their weights no longer decide K; a channel that rests at another value stays."""
    layer = layer_of([[0.5, 0.1], [9.0, 9.0], [0.2, 0.3]], [1.0, 1.0, 1.0])
    layer = replace(layer, low=np.float32([0, 0, 0.7]), high=np.float32([1, 0, 0.7]))
    found = without_static_channels(layer)

    assert found.weight.tolist() == np.float32([[0.5, 0.1], [0, 0], [0.2, 0.3]]).tolist()
    assert found.bias.tolist() == np.float32([0.3, 0, 0.3]).tolist()
    assert layer_numbers(found, 0.1).k[0] < layer_numbers(layer, 0.1).k[0] / 10


def test_a_layer_of_zeros() -> None:
    """Pruned or dead: codes of zero, no division by zero."""
    layer = layer_of([[0.0, 0.0]], [0.0])
    for bits in LEVELS:
        found = layer_numbers(replace(layer, bias=np.float32([0])), 0.1, bits)
        assert not found.weight.any() and not found.bias.any()
        assert np.isfinite(found.kernel_scale).all()
    assert mac_shift(np.ones(1), np.zeros(1), 8) == (0, 0.0)


def test_outputs() -> None:
    """Forced behind a sigmoid, plain behind a curve, raised where the reader asks for it."""
    layer = layer_of([[1.0, -0.5], [0.3, 0.2]], [10.0, 5.0], "sigmoid")
    assert layer_output(replace(layer, raised=2.0), 0.1) == TensorCodes(1 / 255, 0)
    assert layer_output(layer, 0.1, 15) == TensorCodes(1 / 32767, 0, 15)
    curve = replace(layer, activation="silu", low=np.float32([-0.28, 0]))
    assert layer_output(curve, 0.1) == output_range(np.float32(-0.28), 10.0)
    assert layer_output(replace(curve, raised=2.0), 0.1).scale == 2 * output_range(np.float32(-0.28), 10.0).scale


@pytest.mark.parametrize("name", ["sigmoid", "curve"])
def test_a_sigmoid_that_is_always_zero_keeps_its_bias(name: str) -> None:
    """Its logits are far below zero; without weights and bias every score would be one half."""
    zero = np.zeros(2, np.float32)
    layer = FloatLayer(
        weight=np.ones((2, 3, 1, 1), np.float32),
        bias=np.full(2, -100, np.float32),
        preactivation=np.full(2, 104, np.float32),
        low=zero,
        high=zero,
        activation=name,
    )

    assert without_static_channels(layer) is layer
    numbers = layer_numbers(layer, 1 / 255, output=output_range(0.0, 1.0))
    np.testing.assert_allclose(numbers.bias, -100, rtol=0.01)
