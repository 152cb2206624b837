"""The arithmetic carried through a graph: which scales a tensor gets, by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from hefkit.workshop.emulator.plan import RoundingPlan
from hefkit.workshop.emulator.rounding import Groups, Rounder, Rounding, Storage
from hefkit.workshop.emulator.scales import TensorCodes
from tests.helpers.plans import measured, text_plan

BYTES = (255.0, 255.0, 255.0)


def two(activation: str, first: np.ndarray, second: np.ndarray, side: int = 4) -> RoundingPlan:
    """x (1, 3, side, side) of 0..1 -> Conv 1x1, activation -> r -> Conv 1x1 -> y."""
    return text_plan(
        f"c = Conv(x, w) {activation} y = Conv(r, v)", [1, 3, side, side],
        w=np.reshape(first, (*np.shape(first), 1, 1)), v=np.reshape(second, (*np.shape(second), 1, 1)),
    )  # fmt: skip


def choose(
    plan: RoundingPlan,
    storage: Storage | None = None,
    std: Sequence[float] = BYTES,
    probabilities: Sequence[str] = (),
    picture: np.ndarray | None = None,
) -> Rounding:
    """The rounding after one picture, white by default."""
    shape = [d.dim_value for d in plan.model.graph.input[0].type.tensor_type.shape.dim]
    seen = measured(plan, np.ones(shape) if picture is None else picture)
    return Rounder(plan, seen, std, probabilities).choose(storage or Storage())


# one white picture: c is the sum of a row
ROWS = np.float32([[1.0, 0, 0], [0.1, 0, 0]])


def test_equalisation_only_where_it_may_be() -> None:
    """Behind ReLU two channels of 1 and 0.1 may differ; behind SiLU, at an output, before an Add they share a scale."""
    relu = choose(two("r = Relu(c)", ROWS, np.float32([[1, 1]])))
    silu = choose(two("s = Sigmoid(c) r = Mul(c, s)", ROWS, np.float32([[1, 1]])))
    added = choose(
        text_plan("c = Conv(x, w) r = Relu(c) y = Add(r, r)", [1, 3, 4, 4], w=ROWS.reshape(2, 3, 1, 1))
    )  # fmt: skip

    # plain scales 1/255 and 0.1/255; both readers' weights are 1, so the floor is 1/255, but the second channel's
    # sums reach 0.1 only: it stays at 0.1/255, and its weights are as large as the first's
    assert relu.codes["r"].scale == pytest.approx([1 / 255, 0.1 / 255])
    assert np.shape(silu.codes["r"].scale) == np.shape(added.codes["r"].scale) == ()
    assert silu.codes["r"].scale == pytest.approx(1 / (1 + np.exp(-1)) / 255)
    assert np.shape(relu.codes["y"].scale) == ()
    assert np.unique(relu.numbers["r"].kernel_scale).size == 2
    assert np.unique(silu.numbers["r"].kernel_scale).size == 1


def test_an_equalised_tensor_reaches_its_reader() -> None:
    """S_in by channel: the reader's weights of 1 are 10 times finer where the scale is 10 times smaller."""
    found = choose(two("r = Relu(c)", ROWS, np.float32([[1, 1]]))).numbers["y"]

    assert found.kernel_scale.shape == (1, 2, 1, 1)
    assert found.kernel_scale[0, 1] == pytest.approx(10 * found.kernel_scale[0, 0], rel=1e-6)
    assert found.codes.ravel().tolist() == [127, 13]


def test_a_picture_has_the_scale_of_its_normalization() -> None:
    """Codes 0..255 times 1/std; three deviations give the weights of three channels three steps."""
    plan = two("r = Relu(c)", np.float32([[1, 1, 1], [0.5, 0.5, 0.5]]), np.float32([[1, 1]]))
    same, different = choose(plan), choose(plan, std=(50.0, 100.0, 200.0))

    assert np.unique(same.numbers["r"].kernel_scale[0]).size == 1
    first = different.numbers["r"].kernel_scale[0].ravel()
    assert first / first[0] == pytest.approx([1, 2, 4])  # K * S_out / S_in, S_in = 1 / std
    # the largest weight in units of S_out is the one of the largest S_in
    assert different.numbers["r"].codes[0].ravel() == pytest.approx([127, 63.5, 31.75], abs=0.6)


def test_a_layer_of_four_channels_behind_a_picture_of_three() -> None:
    """Where channels no longer are the picture's, the largest 1/std serves all: no scale is guessed by position."""
    plan = text_plan(
        "k = Concat <axis: int = 1> (x, x) y = Conv(k, w)", [1, 3, 4, 4], w=np.ones((1, 6, 1, 1))
    )  # fmt: skip
    found = choose(plan, std=(50.0, 100.0, 200.0))

    assert found.codes["k"] == TensorCodes(pytest.approx(1 / 255), 0)  # a rounded tensor: 0..1 was measured
    assert np.unique(found.numbers["y"].kernel_scale).size == 1


def test_class_probabilities() -> None:
    """0..1 whatever was measured: 1/255, and 1/32767 in 15 bits."""
    plan = text_plan("c = Conv(x, w) y = Sigmoid(c)", [1, 3, 4, 4], w=np.ones((2, 3, 1, 1)))

    for wide, expected in ((frozenset[str](), TensorCodes(1 / 255, 0)), ({"y"}, TensorCodes(1 / 32767, 0, 15))):
        found = choose(plan, Storage(wide_outputs=frozenset(wide)), probabilities=["y"])
        assert found.codes["y"] == expected
        assert found.numbers["y"].output == expected
    plain = text_plan("s = Sigmoid(x) c = Conv(s, w) y = Relu(c)", [1, 3, 4, 4], w=np.ones((2, 3, 1, 1)))
    assert choose(plain, probabilities=["y"]).codes["y"].scale == 1 / 255


def test_fifteen_bits() -> None:
    """A wide output has 15-bit codes of the same range; a wide layer has 15-bit weights as well, and reads 15 bits."""
    plan = two("s = Sigmoid(c) r = Mul(c, s)", ROWS, np.float32([[1, 0.3]]))
    narrow = choose(plan)
    output = choose(plan, Storage(wide_outputs=frozenset({"r"})))
    layer = choose(plan, Storage(wide_layers=frozenset({"r"})))

    for found in (output, layer):
        assert found.codes["r"].bits == 15 and found.codes["y"] == narrow.codes["y"]
        assert found.codes["r"].scale == pytest.approx(narrow.codes["r"].scale * 255 / 32767)
    assert [n.codes.dtype for n in output.numbers.values()] == [np.int8, np.int8]
    assert [n.codes.dtype for n in layer.numbers.values()] == [np.int16, np.int8]
    # the step is the same whatever the input is called: K * S_out / S_in, with S_in of 15 bits
    assert np.abs(layer.numbers["r"].weight - ROWS[..., None, None]).max() < 1e-4
    assert np.abs(output.numbers["r"].weight - ROWS[..., None, None]).max() > 1e-4


def test_a_wide_tensor_without_weights() -> None:
    """An addition in 15 bits."""
    plan = text_plan("c = Conv(x, w) y = Add(c, c)", [1, 3, 4, 4], w=np.ones((2, 3, 1, 1)))

    assert choose(plan, Storage(wide_outputs=frozenset({"y"}))).codes["y"] == TensorCodes(
        pytest.approx(6 / 32767), 0, 15
    )


def test_quantization_groups() -> None:
    """Channels of 8, 1, 4, 2: in order 8 and 1 share a step, sorted 8 and 4 do."""
    weight = np.float32([[8, 0, 0], [1, 0, 0], [4, 0, 0], [2, 0, 0]])
    plan = two("s = Sigmoid(c) r = Mul(c, s)", weight, np.ones((1, 4), np.float32))
    steps = {
        by_range: choose(plan, Storage(groups={"r": Groups(2, by_range)})).numbers["r"].kernel_scale[:, 0].ravel()
        for by_range in (False, True)
    }
    one = choose(plan).numbers["r"].kernel_scale[:, 0].ravel()

    assert one == pytest.approx([8 / 127] * 4, rel=1e-6)
    assert steps[False] == pytest.approx(np.divide([8, 8, 4, 4], 127), rel=1e-6)
    assert steps[True] == pytest.approx(np.divide([8, 2, 8, 2], 127), rel=1e-6)
    more = choose(plan, Storage(groups={"r": Groups(99)})).numbers["r"].kernel_scale[:, 0].ravel()
    assert more == pytest.approx(np.divide([8, 1, 4, 2], 127), rel=1e-6)  # no more groups than channels
    same = choose(plan, Storage(groups={"r": Groups(1)})).numbers["r"].kernel_scale[:, 0].ravel()
    assert same.tolist() == one.tolist()


def wide_sums(activation: str) -> tuple[Rounding, Rounding]:
    """Two layers; the second sums 3,000 inputs, or takes one of them."""
    first = np.abs(np.random.default_rng(0).normal(0, 1, (3000, 3))).astype(np.float32)
    wide, narrow = (two(activation, first, second, side=1) for second in (np.ones((1, 3000)), np.eye(1, 3000)))
    return choose(wide), choose(narrow)


def test_a_reader_with_too_small_an_accumulator_raises_the_scales_before_it() -> None:
    """Sums of 3,000 codes of 255 times 127 need 4 bits of shift and more: the layer before gets larger scales.

    log2(sum / 32767) + 0.297 bits are missing, 4 are shifted; half of the rest is taken before, half here.
    """
    for activation in ("r = Relu(c)", "s = Sigmoid(c) r = Mul(c, s)"):
        raised, plain = wide_sums(activation)
        reader = raised.numbers["y"]
        missing = 2 * reader.shift_delta  # in the first walk

        assert reader.mac_shift == 4 and reader.shift_delta > 0.1
        ratio = np.median(np.asarray(raised.codes["r"].scale) / np.asarray(plain.codes["r"].scale))
        if activation.startswith("s"):  # the ranges are the same, so the scales tell directly
            assert ratio == pytest.approx(2 ** (missing / 2), rel=1e-6)
        assert plain.numbers["y"].shift_delta == 0
        assert raised.codes["r"].zero_point == plain.codes["r"].zero_point


def test_what_cannot_be_raised() -> None:
    """A picture has the scale it has: all that is missing stays in the reader's K."""
    plan = text_plan("c = Conv(x, w) y = Relu(c)", [1, 3000, 1, 1], w=np.ones((1, 3000, 1, 1)))
    found = choose(plan).numbers["y"]
    # 3000 * 255 codes of 127 each, in 16 bits
    missing = np.log2(3000 * 255 * 127 / 32767) + 0.297

    assert found.mac_shift == 4
    assert found.shift_delta == pytest.approx(missing - 4, abs=1e-3)


def test_static_channels_are_emptied() -> None:
    """A channel behind ReLU that never left zero loses its weights and its bias; that of a MatMul keeps them."""
    weight = np.float32([[1, 0, 0], [-5, 0, 0]])
    conv = choose(two("r = Relu(c)", weight, np.float32([[1, 1]]))).numbers["r"]
    dense = text_plan("c = MatMul(x, w) y = Relu(c)", [1, 3], w=weight.T)
    matmul = choose(dense).numbers["y"]

    assert conv.codes[:, 0].ravel().tolist() == [127, 0]
    assert matmul.codes[:, 0].ravel().tolist() == [25, -127] or matmul.codes[1, 0] in (-127, -128)


def test_a_chain_of_dense_layers() -> None:
    """Gemm behind Gemm is equalised like a Conv: a scale for each feature."""
    plan = text_plan(
        "c = Gemm(x, w) r = Relu(c) y = Gemm(r, v)", [1, 3], w=ROWS.T, v=np.ones((2, 1))
    )  # fmt: skip
    found = choose(plan)

    assert found.codes["r"].scale == pytest.approx([1 / 255, 0.1 / 255])
    assert found.numbers["y"].kernel_scale.shape == (1, 2)
