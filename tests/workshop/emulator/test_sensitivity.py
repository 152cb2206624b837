"""Which layer is to blame: one that is made bad on purpose must be found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from hefkit.workshop.emulator.arithmetic import LayerNumbers
from hefkit.workshop.emulator.plan import RoundingPlan
from hefkit.workshop.emulator.rounding import Rounder, Rounding, Storage
from hefkit.workshop.emulator.scales import TensorCodes
from hefkit.workshop.emulator.sensitivity import PICTURES, Sensitivity
from tests.helpers.plans import measured, text_plan

RNG = np.random.default_rng(0)
WEIGHTS = {name: RNG.normal(0, 0.5, (4, 4, 1, 1)) for name in "abcd"}
BODY = (
    "t = Conv(x, a) ts = Sigmoid(t) p = Mul(t, ts) q = Conv(p, b) r = Relu(q) "
    "u = Conv(r, c) v = Add(u, p) y = Conv(v, d) z = Conv(v, a)"
)


def pictures(count: int = 3) -> list[np.ndarray]:
    """Codes 0..255 over 255."""
    return [np.random.default_rng(i).integers(0, 256, (1, 4, 8, 8)) / 255 for i in range(count)]


def prepared() -> tuple[RoundingPlan, Rounder, Rounding]:
    """Five layers and an addition, at level 0."""
    plan = text_plan(BODY, [1, 4, 8, 8], outputs="y z", **WEIGHTS)
    rounder = Rounder(plan, measured(plan, *pictures()), [255.0] * 3, [])
    return plan, rounder, rounder.choose(Storage())


def sensitivity(codes: Mapping[str, TensorCodes] | None = None, **numbers: LayerNumbers) -> Sensitivity:
    """With some codes and numbers in place of the right ones."""
    plan, rounder, rounding = prepared()
    changed = Rounding({**rounding.codes, **(codes or {})}, {**rounding.numbers, **numbers})
    return Sensitivity(plan, changed, rounder.layers, [{"x": p.astype(np.float32)} for p in pictures()])


def spoilt(tensor: str) -> LayerNumbers:
    """A layer whose weights have four bits less."""
    numbers = prepared()[2].numbers[tensor]
    return replace(numbers, codes=(numbers.codes // 16 * 16).astype(np.int8))


@pytest.mark.parametrize("bad", ["p", "r", "u", "y", "z"])
def test_bad_weights_are_found(bad: str) -> None:
    """The layer whose weights lost four bits brings most of the noise; the others bring what they brought before."""
    good, found = sensitivity().by_layer(), sensitivity(**{bad: spoilt(bad)}).by_layer()

    assert max(found, key=lambda t: found[t]) == bad
    assert found[bad] > 10 * good[bad]
    for tensor in set(found) - {bad}:
        assert found[tensor] == pytest.approx(good[tensor], rel=1e-3)


@pytest.mark.parametrize("bad", ["p", "r", "v", "y"])
def test_bad_tensors_are_found(bad: str) -> None:
    """The same for a tensor with few codes, a sum included."""
    codes = prepared()[2].codes[bad]
    rough = TensorCodes(np.multiply(codes.scale, 16), codes.zero_point // 16)
    found = sensitivity({bad: rough}).by_layer()

    assert max(found, key=lambda t: found[t]) == bad and list(found) == ["p", "r", "u", "v", "y", "z"]


def test_noise_of_one_output_by_hand() -> None:
    """y rounded alone: its squared rounding errors over its squares, both summed over the two pictures used."""
    plan, _, rounding = prepared()
    scale = float(rounding.codes["y"].scale)
    noise = signal = 0.0
    for picture in pictures()[:PICTURES]:
        t = np.einsum("oi,nihw->nohw", WEIGHTS["a"][:, :, 0, 0], picture)
        p = t / (1 + np.exp(-t))
        r = np.maximum(np.einsum("oi,nihw->nohw", WEIGHTS["b"][:, :, 0, 0], p), 0)
        v = np.einsum("oi,nihw->nohw", WEIGHTS["c"][:, :, 0, 0], r) + p
        y = np.einsum("oi,nihw->nohw", WEIGHTS["d"][:, :, 0, 0], v)
        noise += ((np.rint(y / scale) * scale - y) ** 2).sum()
        signal += (y**2).sum()

    assert sensitivity().of((), ["y"]) == pytest.approx(noise / signal, rel=0.01)
    assert sensitivity().of((), ()) < 1e-6 * noise / signal
    assert [o.name for o in plan.model.graph.output] == ["y", "z"]


def test_weights_and_tensors_apart() -> None:
    """`of` rounds what it is asked to round: spoilt weights show with the weights only."""
    bad = sensitivity(r=spoilt("r"))
    weights, tensors = bad.of(["p", "r", "u", "y", "z"], ()), bad.of((), ["p", "r", "u", "v", "y", "z"])

    assert weights > 10 * tensors > 0
    assert bad.of(["p", "u", "y", "z"], ()) < weights / 10


def test_scales_by_channel_of_dense_layers() -> None:
    """A tensor of two axes with a step for each feature: rounded along features, not along pictures."""
    plan = text_plan(
        "c = Gemm(x, w) r = Relu(c) y = Gemm(r, v)", [1, 3],
        w=[[1, 0.01], [0, 0], [0, 0]], v=[[1], [1]],
    )  # fmt: skip
    picture = np.float32([[1, 0, 0]])
    rounder = Rounder(plan, measured(plan, picture), [255.0] * 3, [])
    rounding = rounder.choose(Storage())
    rough = TensorCodes(np.array([0.6, 0.005]), 0)  # 1 -> 2 steps of 0.6, 0.01 -> 2 steps of 0.005
    meter = Sensitivity(
        plan, Rounding({**rounding.codes, "r": rough}, rounding.numbers), rounder.layers, [{"x": picture}]
    )

    assert np.shape(rounding.codes["r"].scale) == (2,)
    # y = 1.2 + 0.01 in place of 1.01
    assert meter.of((), ["r"]) == pytest.approx((0.2 / 1.01) ** 2, rel=1e-3)


def test_a_stride_without_signal_does_not_decide() -> None:
    """Class tensors of two strides, one always near 0: its noise is counted beside the signal of the other.

    Outputs are a box and a class tensor of each stride, in turn. The first class tensor is 0.02, rounded to 0; the
    second is 10, rounded to 9: (0.02**2 + 1) / (0.02**2 + 10**2). Each for itself would give 1 + 0.01.
    """
    plan = text_plan(
        "a = Conv(x, one) b = Conv(x, small) c = Conv(x, one) d = Conv(x, ten)", [1, 1, 1, 1], outputs="a b c d",
        one=[[[[1]]]], small=[[[[0.02]]]], ten=[[[[10]]]],
    )  # fmt: skip
    picture = np.ones((1, 1, 1, 1), np.float32)
    rounder = Rounder(plan, measured(plan, picture), [255.0] * 3, [])
    rounding = rounder.choose(Storage())
    codes = {**rounding.codes, "b": TensorCodes(1.0, 0), "d": TensorCodes(9.0, 0)}
    meter = Sensitivity(plan, Rounding(codes, rounding.numbers), rounder.layers, [{"x": picture}])

    assert meter.of((), ["b", "d"]) == pytest.approx((0.02**2 + 1) / (0.02**2 + 100), rel=1e-3)
