"""The emulated ONNX in its parts: codes of 15 bits, the sigmoid in pieces, steps by channel, the picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest

from hefkit.workshop.emulator.pieces import SIGMOID
from hefkit.workshop.emulator.plan import RoundingPlan
from hefkit.workshop.emulator.qdq import QdqWriter
from hefkit.workshop.emulator.rounding import Groups, Rounder, Rounding, Storage
from hefkit.workshop.emulator.scales import TensorCodes
from hefkit.workshop.network.session import open_session, run_session
from tests.helpers.plans import measured, text_plan

SIDE = 16
SHAPE = [1, 3, SIDE, SIDE]
EYE = np.eye(3).reshape(3, 3, 1, 1)
PICTURE = np.arange(3 * SIDE * SIDE).reshape(SIDE, SIDE, 3).astype(np.uint8)  # every code, in every channel


def written(
    plan: RoundingPlan,
    storage: Storage | None = None,
    std: Sequence[float] = (255.0,) * 3,
    mean: Sequence[float] = (0.0,) * 3,
    probabilities: Sequence[str] = (),
    codes: dict[str, TensorCodes] | None = None,
) -> tuple[onnx.ModelProto, Rounding]:
    """The emulated model, measured on black and white, and its rounding; outputs keep their names behind `out.`."""
    white = (255 - np.reshape(mean, (1, 3, 1, 1))) / np.reshape(std, (1, 3, 1, 1)) * np.ones(SHAPE)
    black = -np.reshape(mean, (1, 3, 1, 1)) / np.reshape(std, (1, 3, 1, 1)) * np.ones(SHAPE)
    rounder = Rounder(plan, measured(plan, white, black), std, probabilities)
    rounding = rounder.choose(storage or Storage())
    rounding = Rounding({**rounding.codes, **(codes or {})}, rounding.numbers)
    writer = QdqWriter(plan, rounder.layers, rounding, mean=mean, std=std, probabilities=probabilities)
    outputs = [(o.name, f"out.{o.name}") for o in plan.model.graph.output]
    return writer.write((SIDE, SIDE), outputs), rounding


def run(model: onnx.ModelProto, picture: np.ndarray = PICTURE, *tensors: str) -> list[np.ndarray]:
    """Outputs, or other tensors."""
    whole = onnx.ModelProto.FromString(model.SerializeToString())
    whole.graph.output.extend(onnx.ValueInfoProto(name=t) for t in tensors)
    return run_session(open_session(whole), tensors or [o.name for o in model.graph.output], {"images": picture[None]})


@pytest.mark.parametrize("by_channel", [False, True])
def test_codes_of_fifteen_bits_stop_at_32767(by_channel: bool) -> None:
    """Values beyond the range give the last code, though uint16 would hold more; values below give 0."""
    plan = text_plan("c = Conv(x, w, b) r = Relu(c) y = Conv(r, w)", SHAPE, w=EYE, b=[-0.5, 0, 0])
    scale: float | np.ndarray = np.array([1, 0.5, 0.25]) / 65534 if by_channel else 0.5 / 32767
    short = {"r": TensorCodes(scale, 0, 15), "y": TensorCodes(0.25 / 16000, 767, 15)}
    model, _ = written(plan, Storage(wide_layers=frozenset({"r", "y"})), codes=short)
    codes, output = run(model, PICTURE, "r/codes", "out.y")

    assert codes.dtype == output.dtype == np.uint16
    expected = np.clip(PICTURE / 255 - [0.5, 0, 0], 0, None) / scale
    assert (expected > 40000).any()
    np.testing.assert_allclose(codes[0].transpose(1, 2, 0), np.minimum(np.rint(expected), 32767), atol=1)
    # 65535 * 0.25 / 16000 would be 1.01: within what is computed, beyond what is stored
    assert output.max() == codes.max() == 32767 and output.min() == 767


def test_eight_bits_saturate() -> None:
    """0 and 255 beyond the range."""
    plan = text_plan("y = Conv(x, w, b)", SHAPE, w=EYE, b=[-0.5, 0, 0])
    [codes] = run(written(plan, codes={"y": TensorCodes(0.5 / 200, 10)})[0])

    assert codes.dtype == np.uint8 and (codes.min(), codes.max()) == (0, 255)
    assert codes[0, 0, 0].tolist() == [0, round(1 / 255 * 400) + 10, round(2 / 255 * 400) + 10]


def test_the_sigmoid_is_the_chip_s() -> None:
    """Within 0.0025 of the pieces, where they jump by 0.002 too; 0 and 1 outside, in codes."""
    plan = text_plan("c = Conv(x, w, b) y = Sigmoid(c)", SHAPE, w=40 * EYE, b=[-20, -19.9, -19.8])
    model, rounding = written(plan, probabilities=["y"])
    sums, found, codes = run(model, PICTURE, "c", "y", "y/codes")

    np.testing.assert_allclose(found, SIGMOID(sums), atol=0.0025)
    inside = np.abs(sums) < 5.5
    np.testing.assert_allclose(found[inside], SIGMOID(sums[inside]), atol=1e-6)
    assert np.abs(found - 1 / (1 + np.exp(-sums))).max() > 0.006  # it is not the exact one
    assert rounding.codes["y"] == TensorCodes(1 / 255, 0)
    assert set(codes[sums < -5.6]) == {0} and set(codes[sums > 5.6]) == {255}
    assert "Sigmoid" not in {n.op_type for n in model.graph.node}


def test_other_sigmoids_are_exact() -> None:
    """Those of a SiLU, of which no pieces have been seen."""
    plan = text_plan("c = Conv(x, w) s = Sigmoid(c) y = Mul(c, s)", SHAPE, w=4 * EYE)
    sums, found = run(written(plan)[0], PICTURE, "c", "y")

    np.testing.assert_allclose(found, sums / (1 + np.exp(-sums)), atol=1e-6)


WEIGHTS = np.random.default_rng(0).normal(0, 1, (6, 3, 3, 3)).astype(np.float32)
STEPS = {
    "one step": ("y = Conv(x, w)", WEIGHTS, {}, 0),
    "by output channel": ("y = Conv(x, w)", WEIGHTS, {"groups": {"y": Groups(3)}}, 1),
    "by input channel": ("y = Conv(x, w)", WEIGHTS, {"std": (50.0, 100.0, 200.0)}, 2),
    "by both": ("y = Conv(x, w)", WEIGHTS, {"std": (50.0, 100.0, 200.0), "groups": {"y": Groups(3)}}, 2),
    "depthwise": ("y = Conv <group: int = 3> (x, w)", WEIGHTS[:3, :1], {"std": (50.0, 100.0, 200.0)}, 1),
    "two outputs each": ("y = Conv <group: int = 3> (x, w)", WEIGHTS[:, :1], {"std": (50.0, 100.0, 200.0)}, 1),
    "transposed": ("y = ConvTranspose(x, w)", WEIGHTS[:3], {"std": (50.0, 100.0, 200.0)}, 1),
}


@pytest.mark.parametrize("body, weight, options, factors", STEPS.values(), ids=STEPS.keys())
def test_weights_are_codes_times_steps(body: str, weight: np.ndarray, options: dict, factors: int) -> None:  # type: ignore[type-arg]
    """The graph multiplies integer codes with few numbers, and the result is the float32 weight of the arithmetic."""
    groups = options.get("groups", {})
    model, rounding = written(
        text_plan(body, SHAPE, w=weight), Storage(groups=groups), std=options.get("std", (255.0,) * 3)
    )
    conv = next(n for n in model.graph.node if n.op_type.startswith("Conv"))
    [found] = run(model, PICTURE, conv.input[1])
    numbers = rounding.numbers["y"]

    expected = numbers.weight.swapaxes(0, 1) if conv.op_type == "ConvTranspose" else numbers.weight
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
    assert sum(n.op_type == "Mul" for n in model.graph.node) == factors
    stored = {t.name: t for t in model.graph.initializer}
    assert stored["y/weight_codes"].data_type == onnx.TensorProto.INT8
    floats = sum(np.prod(t.dims, dtype=int) for t in stored.values() if t.data_type == onnx.TensorProto.FLOAT)
    assert floats < weight.size / 2  # the file does not grow by a float a weight


@pytest.mark.parametrize("mean", [(0.0, 0.0, 0.0), (120.0, 110.0, 100.0)])
@pytest.mark.parametrize("std", [(255.0, 255.0, 255.0), (50.0, 100.0, 200.0)])
def test_the_picture_is_normalised_inside(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """(x - mean) / std by channel, from uint8 NHWC to float NCHW."""
    model, _ = written(text_plan("y = Conv(x, w)", SHAPE, w=EYE), mean=mean, std=std)
    [found] = run(model, PICTURE, "input/nchw")

    np.testing.assert_allclose(found[0].transpose(1, 2, 0), (PICTURE - np.array(mean)) / std, atol=1e-5)


def test_outputs_are_codes_nhwc() -> None:
    """Named as asked, (1, H, W, C), their numbers those of the rounding; nothing dequantises behind them."""
    plan = text_plan("y = Conv(x, w) z = Conv(y, w)", SHAPE, outputs="y z", w=EYE)
    model, rounding = written(plan)

    assert [o.name for o in model.graph.output] == ["out.y", "out.z"]
    assert [[d.dim_value for d in o.type.tensor_type.shape.dim] for o in model.graph.output] == [[1, SIDE, SIDE, 3]] * 2
    y, z = run(model)
    assert np.array_equal(y[0], np.rint(PICTURE / 255 / rounding.codes["y"].scale).astype(np.uint8))
    assert y.dtype == z.dtype == np.uint8
    dequantised = [n.input[0] for n in model.graph.node if n.op_type == "DequantizeLinear"]
    assert "y/codes" in dequantised and "z/codes" not in dequantised
    onnx.checker.check_model(model, full_check=True)
