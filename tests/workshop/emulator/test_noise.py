"""Predicted importance of channels against what noise really does."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from hefkit.workshop.emulator.noise import channel_importance, measured_tensors
from hefkit.workshop.emulator.plan import RoundingPlan
from hefkit.workshop.emulator.statistics import channel_stats

RNG = np.random.default_rng(5)


def plan(body: str, outputs: str = "y", **weights: np.ndarray) -> RoundingPlan:
    """A graph from `x`, (1, 4, 8, 8)."""
    results = ", ".join(f"float[N, C, H, W] {o}" for o in outputs.split())
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 13]> toy (float[1, 4, 8, 8] x) => ({results}) {{ {body} }}'
    )
    model.graph.initializer.extend(numpy_helper.from_array(np.float32(w), n) for n, w in weights.items())
    return RoundingPlan(model)


def importance(graph: RoundingPlan) -> dict[str, np.ndarray]:
    """On seeded noise."""
    feeds = [{"x": RNG.normal(0, 1, (1, 4, 8, 8)).astype(np.float32)} for _ in range(4)]
    return channel_importance(graph, channel_stats(graph.model, measured_tensors(graph), feeds))


def eye(*values: float) -> np.ndarray:
    """A 1x1 Conv that scales every channel by itself."""
    return np.diag(values).reshape(len(values), len(values), 1, 1)


def test_large_weights_below_make_a_channel_important() -> None:
    """Noise on channel i reaches the head through weight i squared: 1, 4, 9, 16."""
    found = importance(plan("c = Conv(x, w) y = Conv(c, v)", w=eye(1, 1, 1, 1), v=eye(1, 2, 3, 4)))["c"]

    np.testing.assert_allclose(found / found[0], [1, 4, 9, 16], rtol=1e-5)


def test_a_channel_that_nothing_uses_is_worth_nothing() -> None:
    """Zero weights below: its rounding may be as coarse as it likes."""
    found = importance(plan("c = Conv(x, w) y = Conv(c, v)", w=eye(1, 1, 1, 1), v=eye(1, 1, 0, 1)))["c"]

    assert found[2] <= 1e-6 * found[0]


def test_depthwise_and_grouped_convolutions() -> None:
    """Depthwise: each channel by its own taps. Two groups: a channel feeds the outputs of its group only."""
    taps = np.zeros((4, 1, 3, 3))
    taps[:, 0, 1, 1] = [1, 2, 3, 4]
    taps[1, 0, 0, 0] = 2  # 2^2 + 2^2 = 8
    found = importance(plan("c = Conv(x, w) y = Conv <group: int = 4> (c, d)", w=eye(1, 1, 1, 1), d=taps))["c"]
    np.testing.assert_allclose(found / found[0], [1, 8, 9, 16], rtol=1e-5)

    grouped = np.float32([[1, 0], [0, 2], [3, 0], [0, 0]]).reshape(4, 2, 1, 1)
    found = importance(plan("c = Conv(x, w) y = Conv <group: int = 2> (c, g)", w=eye(1, 1, 1, 1), g=grouped))["c"]
    np.testing.assert_allclose(found / found[0], [1, 4, 9, 0], rtol=1e-5, atol=1e-6)


def test_two_ways_to_the_head_add_up() -> None:
    """A tensor that two layers read: 1 + 2^2 = 5 on channel 0, 1 + 0 on the others."""
    graph = plan("c = Conv(x, w) a = Conv(c, w) b = Conv(c, v) y = Add(a, b)", w=eye(1, 1, 1, 1), v=eye(2, 0, 0, 0))

    found = importance(graph)["c"]

    np.testing.assert_allclose(found / found[1], [5, 1, 1, 1], rtol=1e-5)


@pytest.mark.parametrize(
    "body",
    [
        "a = Conv(x, w) c = Conv(x, w) k = Concat <axis: int = 1> (a, c) y = Conv(k, v)",
        "a = Conv(x, w) c = Conv(x, w) m = MaxPool <kernel_shape: ints = [1, 1]> (c) "
        "k = Concat <axis: int = 1> (a, m) y = Conv(k, v)",
    ],
    ids=["directly", "behind a MaxPool"],
)
def test_a_concat_keeps_its_parts_apart(body: str) -> None:
    """The second part's channels get the weights 5 to 8 of the layer below."""
    found = importance(plan(body, w=eye(1, 1, 1, 1), v=eye(1, 2, 3, 4, 5, 6, 7, 8)))["c"]

    np.testing.assert_allclose(found / found[0], np.array([5, 6, 7, 8]) ** 2 / 25, rtol=1e-5)


def test_every_rounded_tensor_has_finite_positive_importance() -> None:
    """Dead channels, constant outputs and heads of different sizes: numbers that a histogram can be weighed with."""
    graph = plan("c = Conv(x, w) r = Relu(c) y = Conv(r, v) z = Mul(r, y)", "y z", w=eye(0, 0, 1, 1), v=eye(1, 0, 0, 1))

    found = importance(graph)

    assert set(found) == {p.tensor for p in graph.points}
    for values in found.values():
        assert values.shape == (4,) and np.isfinite(values).all() and values.sum() > 0 and (values >= 0).all()
