"""The numbers of one layer, as Hailo's compiler computes them at level 0: weight codes, bias codes, shifts.

The chip adds q * (code - zp) in an accumulator, shifts the sum right by `mac_shift`, adds the bias and looks the
result up in a few linear pieces. One weight step of output channel o and input channel i is

    kernel_scale[o, i] = K * S_out[o] / S_in[i]

with one K a layer. An output channel has a step of its own only if its output has a scale of its own
(scales.equalised_scales): behind SiLU and sigmoid all weights of a layer share one step.

`layer_numbers` gives everything. The level has no effect here: level 1 corrects the biases afterwards, levels 2 to 4
change the weights before. Marks: [M] measured in archives of SDK 3.33 (hailo8, level 0), [I] inferred, not seen there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hefkit.workshop.emulator.scales import (
    LEVELS,
    TensorCodes,
    activation,
    equalised_scales,
    output_range,
    plain_scales,
    zero_point_up,
)

ACCUMULATOR = {8: 2**15 - 1, 15: 2**31 - 1}  # bits -> largest sum, after the shift [M]
MAX_MAC_SHIFT = {8: 4, 15: 0}  # [M]
HEADROOM = 0.297  # log2; fitted: the three layers that show it leave 0.29699 to 0.29701 [M]
MANTISSA = 10  # bits of an output factor's mantissa, the leading one included [M]
LARGEST_BIAS = 2**15 - 1  # of a 15-bit layer's bias codes [M]


@dataclass(frozen=True)
class FloatLayer:
    """A convolution or dense layer, with its ranges on the calibration pictures. O output, I input channels."""

    weight: np.ndarray  # (O, I / groups, ...) float32, BatchNormalization folded in
    bias: np.ndarray  # (O,) float32
    preactivation: np.ndarray  # (O,) largest |weight * input + bias|
    low: np.ndarray  # (O,) smallest output, behind the activation
    high: np.ndarray  # (O,) largest output
    activation: str = "none"  # a key of scales.ACTIVATIONS; any other name is a curve, such as SiLU
    groups: int = 1  # O for a depthwise convolution
    reader_peak: np.ndarray | None = None  # (O,) largest |weight| that reads each channel; None: not equalised
    raised: float = 1.0  # by how much the reader's `input_raise` makes the output scales larger


@dataclass(frozen=True)
class LayerNumbers:
    """What the compiler writes into the chip for one layer, and the real values of these integers."""

    codes: np.ndarray  # int8 (8 bits) or int16 (15 bits), the shape of the weight
    kernel_zero_point: int  # 0 for 8 bits
    kernel_scale: np.ndarray  # float32, broadcasts with the weight
    k: np.ndarray  # (O,) float64, equal within a quantization group
    mac_shift: int
    shift_delta: float  # log2 of what K had to grow because the largest mac_shift was not enough
    bias_codes: np.ndarray  # (O,) int64
    bias_factor: int
    accumulator_scale: np.ndarray  # (O,) float32, real value of one step of the shifted sum
    output: TensorCodes

    @property
    def weight(self) -> np.ndarray:
        """The float32 weight that the chip computes with."""
        codes = self.codes.astype(np.float32) - np.float32(self.kernel_zero_point)
        return (codes * self.kernel_scale).astype(np.float32)

    @property
    def bias(self) -> np.ndarray:
        """(O,) the float32 bias that the chip adds."""
        steps = self.bias_codes.astype(np.float64) * (self.bias_factor >> self.mac_shift)
        return (steps * self.accumulator_scale).astype(np.float32)

    @property
    def output_factor(self) -> np.ndarray:
        """(O,) `f`: output codes per step of the shifted sum, where the activation has slope one."""
        return self.k * 2.0**self.mac_shift

    @property
    def input_raise(self) -> float:
        """By how much the layer before should make its output scales larger; 1 where the accumulator is wide enough.

        Half of what is missing goes there (`FloatLayer.raised`), then half remains as `shift_delta` [M]. It is not
        known whether an input, or a tensor behind a curve, is raised as well [I]; if not, all of it stays here.
        """
        return float(2.0 ** (self.shift_delta / 2))


def layer_numbers(
    layer: FloatLayer,
    input_scale: float | np.ndarray,
    bits: int = 8,
    *,
    output: TensorCodes | None = None,
    weight_groups: np.ndarray | None = None,
) -> LayerNumbers:
    """All numbers of a layer.

    Args:
        input_scale: S_in, one number or (I,) by channel.
        bits: 8, or 15 for what a script calls a16_w16.
        output: S_out and zero point where they are known; otherwise `layer_output` chooses them.
        weight_groups: (O,) the group of each output channel with `quantization_groups`, which have a K each [I].
    """
    output = output or layer_output(layer, input_scale, bits)
    by_input, by_output = _input_scales(layer, input_scale), _output_scales(layer, output.scale)
    groups = np.zeros(len(layer.weight), int) if weight_groups is None else weight_groups
    need, kernel_zero_point = weight_need(layer.weight * by_input / by_output, groups, bits)
    shift, delta = mac_shift(need, layer.preactivation / output.scale, bits)
    factor = need * 2.0 ** (delta + shift)
    if activation(layer.activation).one_slope:
        factor = mantissa_up(factor)
    factor = factor.astype(np.float32)
    # in this order, in float32: equal to the last bit in all 13 layers, and 15-bit codes depend on it
    accumulator_scale = factor * by_output.reshape(-1)
    kernel_scale = (1 / by_input) * _along(factor / np.float32(2**shift) * by_output.reshape(-1), layer.weight)
    bias_codes, bias_factor = bias_numbers(layer.bias, accumulator_scale, shift, bits)
    return LayerNumbers(
        weight_codes(layer.weight, kernel_scale, kernel_zero_point, bits),
        kernel_zero_point,
        kernel_scale,
        factor.astype(np.float64) / 2.0**shift,
        shift,
        delta,
        bias_codes,
        bias_factor,
        accumulator_scale,
        output,
    )


def layer_output(layer: FloatLayer, input_scale: float | np.ndarray, bits: int = 8) -> TensorCodes:
    """S_out and zero point: forced behind a sigmoid, by channel with equalisation, else the measured range."""
    kind = activation(layer.activation)
    if kind.fixed_range is not None:
        return output_range(*kind.fixed_range, bits)
    if layer.reader_peak is None or not kind.homogeneous:
        return output_range(float(layer.low.min()), float(layer.high.max()), bits).raised(layer.raised)
    plain, zero_point = plain_scales(layer.low, layer.high, bits)
    weight = np.abs(layer.weight * _input_scales(layer, input_scale))
    peak = weight.reshape(len(weight), -1).max(axis=1)
    scales = equalised_scales(plain, layer.preactivation / LEVELS[bits], peak, layer.reader_peak)
    return TensorCodes(scales, zero_point, bits).raised(layer.raised)


def without_static_channels(layer: FloatLayer) -> FloatLayer:
    """The layer with weights and bias zero in channels that are zero on every calibration picture.

    The compiler does it in convolutions (all 122 channels that are zero) and not in dense layers (none of 102) [M]. All
    of them have a ReLU. A sigmoid that is zero on every picture has logits far below zero, and would be one half
    without its bias; so the rule is used only for functions with f(0) = 0 [I].
    """
    if not (activation(layer.activation).homogeneous or layer.activation == "relu6"):
        return layer
    static = (layer.low == 0) & (layer.high == 0)
    weight = np.where(_along(static, layer.weight), np.float32(0), layer.weight)
    return replace(layer, weight=weight, bias=np.where(static, np.float32(0), layer.bias))


def weight_need(normalised: np.ndarray, groups: np.ndarray, bits: int) -> tuple[np.ndarray, int]:
    """The smallest K with which weights w * S_in / S_out fit, and the code of a zero weight.

    8 bits: codes -128..127 around zero, so a negative peak may take the last code [M]. 15 bits: codes 0..32767 over
    the range, the zero point rounded up and the upper end kept, as for tensors [M].

    Args:
        normalised: (O, ...) weights in units of S_out / S_in.
        groups: (O,) the group of each output channel.

    Returns:
        need: (O,) float64, equal within a group.
    """
    rows = normalised.reshape(len(normalised), -1)
    high, low = np.zeros(groups.max() + 1), np.zeros(groups.max() + 1)
    np.maximum.at(high, groups, rows.max(axis=1))
    np.minimum.at(low, groups, rows.min(axis=1))
    zero_point = 0 if bits == 8 else zero_point_up(float(low.min()), float(high.max()), LEVELS[bits])
    upper, lower = (127, 128) if bits == 8 else (LEVELS[bits] - zero_point, zero_point)
    need = np.maximum(high / max(upper, 1), -low / max(lower, 1))
    return np.where(need > 0, need, float(need.max()) or 1.0)[groups], zero_point


def weight_codes(weight: np.ndarray, kernel_scale: np.ndarray, zero_point: int, bits: int) -> np.ndarray:
    """rint(w / kernel_scale + zero_point), in float32 as the compiler does it [M]: 15-bit codes depend on that."""
    codes = np.rint(weight.astype(np.float32) / kernel_scale + np.float32(zero_point))
    return np.clip(codes, -128, 127).astype(np.int8) if bits == 8 else np.clip(codes, 0, LEVELS[bits]).astype(np.int16)


def mac_shift(need: np.ndarray, preactivation: np.ndarray, bits: int) -> tuple[int, float]:
    """By how many bits sums are shifted right, and log2 of what K must grow where that is not enough [M].

    Example: the largest sum of an 8-bit layer is 100,000. log2(100,000 / 32,767) + HEADROOM = 1.91, so the shift is 2.

    Args:
        need: (O,) of weight_need.
        preactivation: (O,) largest |pre-activation| / S_out.
    """
    largest = float((preactivation / need).max()) / ACCUMULATOR[bits]
    if largest <= 0:
        return 0, 0.0
    missing = float(np.log2(largest)) + HEADROOM
    shift = int(np.clip(np.ceil(missing), 0, MAX_MAC_SHIFT[bits]))
    return shift, max(0.0, missing - MAX_MAC_SHIFT[bits])


def mantissa_up(value: np.ndarray) -> np.ndarray:
    """The next number m * 2**e with m in 512..1023 that is not smaller [M]: 0.02936579 -> 963 * 2**-15 = 0.02938843."""
    unit = 2.0 ** (np.floor(np.log2(value)) + 1 - MANTISSA)
    return np.ceil(value / unit) * unit


def bias_numbers(bias: np.ndarray, accumulator_scale: np.ndarray, shift: int, bits: int) -> tuple[np.ndarray, int]:
    """Bias codes and their common factor; codes * factor is in steps of the sum before the shift.

    8 bits: one code is one step of the shifted sum, the factor is 2**mac_shift [M]; no limit was seen. 15 bits: codes
    of 16 bits, so the factor is the smallest that lets the largest bias in [M]. A factor that divides all biases
    exactly is preferred [I: one layer of one channel, 30563738 = 25114 * 1217].

    Args:
        bias, accumulator_scale: (O,) float32.
    """
    steps = np.rint(bias.astype(np.float32) / accumulator_scale).astype(np.float64)
    if bits == 8:
        return steps.astype(np.int64), 2**shift
    smallest = max(1, int(np.ceil(np.abs(steps).max() / LARGEST_BIAS)))
    common = int(np.gcd.reduce(steps.astype(np.int64)))
    exact = [f for f in range(smallest, LARGEST_BIAS + 1) if common % f == 0] if common and smallest > 1 else []
    factor = exact[-1] if exact else smallest
    return np.rint(steps / factor).astype(np.int64), factor << shift


def _input_scales(layer: FloatLayer, input_scale: float | np.ndarray) -> np.ndarray:
    """S_in[i], float32, shaped to broadcast with the weight."""
    outputs, inputs = layer.weight.shape[:2]
    by_channel = np.broadcast_to(np.asarray(input_scale, np.float32), (inputs * layer.groups,))
    by_group = np.repeat(by_channel.reshape(layer.groups, inputs), outputs // layer.groups, axis=0)
    if layer.groups == 1:
        by_group = by_group[:1]
    return by_group.reshape(*by_group.shape, *[1] * (layer.weight.ndim - 2))


def _output_scales(layer: FloatLayer, output_scale: float | np.ndarray) -> np.ndarray:
    """S_out[o], float32, shaped to broadcast with the weight."""
    by_channel = np.broadcast_to(np.asarray(output_scale, np.float32), (len(layer.weight),))
    return _along(by_channel, layer.weight)


def _along(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(O,) -> shape that broadcasts along the first axis of the weight."""
    return values.reshape(-1, *[1] * (weight.ndim - 1))
