"""Weights as signed codes with one scale a channel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from hefkit.workshop.emulator.codes import output_axis, quantize_weight


@given(st.integers(0, 10_000), st.sampled_from([8, 16]), st.sampled_from([0, 1]))
@settings(max_examples=100, deadline=None)
def test_every_channel_has_its_own_levels(seed: int, bits: int, axis: int) -> None:
    """Codes are symmetric, the largest magnitude takes the last one, and no weight is off by more than half a step."""
    rng = np.random.default_rng(seed)
    weight = (rng.normal(0, 1, (3, 5, 2, 2)) * rng.uniform(1e-3, 1e3, (3, 5, 1, 1))).astype(np.float32)
    found = quantize_weight(weight, axis, bits)

    last = 2 ** (bits - 1) - 1
    assert found.codes.dtype == np.dtype(f"int{bits}") and found.codes.shape == weight.shape
    assert found.scale.shape == (weight.shape[axis],) and found.scale.dtype == np.float32
    channels = np.moveaxis(found.codes, axis, 0).reshape(weight.shape[axis], -1).astype(int)
    assert (np.abs(channels).max(axis=1) == last).all()
    errors = np.moveaxis(np.abs(found.real().astype(np.float64) - weight), axis, 0).reshape(weight.shape[axis], -1)
    # half a step, and what float32 loses in a division and a product: with 16 bit that is no longer nothing
    lost = (
        2 * np.finfo(np.float32).eps * np.abs(np.moveaxis(weight, axis, 0)).reshape(weight.shape[axis], -1).max(axis=1)
    )
    assert (errors.max(axis=1) <= found.scale.astype(np.float64) * 0.5 + lost).all()


def test_codes_by_hand() -> None:
    """Peaks 1.27 and 2.54: steps of 0.01 and 0.02."""
    weight = np.float32([[1.27, -0.5, 0.004], [0.02, -2.54, 0.05]])
    found = quantize_weight(weight, 0)

    np.testing.assert_allclose(found.scale, [0.01, 0.02], rtol=1e-6)
    assert found.codes[0].tolist() == [127, -50, 0]
    assert found.codes[1].tolist()[:2] == [1, -127]


def test_a_channel_of_zeros() -> None:
    """A pruned channel gets scale 1 and codes 0, not a division by zero."""
    found = quantize_weight(np.float32([[0, 0], [1, -1]]), 0)

    assert found.scale[0] == 1 and not found.codes[0].any()
    np.testing.assert_allclose(found.real(), [[0, 0], [1, -1]])


def test_scaling_costs_no_precision() -> None:
    """A gain goes into the scales; the codes stay."""
    weight = np.random.default_rng(0).normal(0, 1, (4, 3, 1, 1)).astype(np.float32)
    found = quantize_weight(weight, 0)
    gain = np.array([0.5, 1, 2, 1.25])

    scaled = found.scaled(gain)

    assert np.array_equal(scaled.codes, found.codes)
    np.testing.assert_allclose(scaled.real(), found.real() * gain[:, None, None, None], rtol=1e-6)


AXES = {
    "Conv": ("Conv", {}, (8, 4, 3, 3), 0),
    "depthwise Conv": ("Conv", {"group": 8}, (8, 1, 3, 3), 0),
    "ConvTranspose": ("ConvTranspose", {}, (4, 8, 2, 2), 1),
    "grouped ConvTranspose": ("ConvTranspose", {"group": 4}, (4, 2, 2, 2), None),
    "Gemm": ("Gemm", {}, (4, 8), 1),
    "transposed Gemm": ("Gemm", {"transB": 1}, (8, 4), 0),
    "MatMul": ("MatMul", {}, (4, 8), 1),
}


@pytest.mark.parametrize("op, attributes, shape, expected", AXES.values(), ids=AXES.keys())
def test_output_axis(op: str, attributes: dict[str, int], shape: tuple[int, ...], expected: int | None) -> None:
    """Which axis of a weight counts output channels."""
    node = helper.make_node(op, ["x", "w"], ["y"], **attributes)

    assert output_axis(node, np.zeros(shape, np.float32)) == expected
