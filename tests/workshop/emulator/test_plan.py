"""Where a network rounds: small graphs in ONNX's own text, and the tensors that the chip would store."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from hefkit.workshop.emulator.plan import RoundingPlan, constant_array

# weights that the graphs may name: every one is 4 -> 4 channels
WEIGHTS = {
    "w": np.ones((4, 4, 1, 1), np.float32),
    "w3": np.ones((4, 4, 3, 3), np.float32),
    "wd": np.ones((4, 1, 3, 3), np.float32),
    "m": np.ones((4, 4), np.float32),
    "half": np.float32(0.5).reshape(()),
    "three": np.float32(3).reshape(()),
    "six": np.float32(6).reshape(()),
    "zero": np.float32(0).reshape(()),
    "vector": np.ones((1, 4, 1, 1), np.float32),
    "one": np.ones(4, np.float32),
    "map": np.ones((1, 4, 8, 8), np.float32),
    "rows": np.array([0, 4, -1], np.int64),
    "scales": np.array([1, 1, 2, 2], np.float32),
    "slope": np.float32([0.1]).reshape(1, 1, 1),
}


def plan(body: str, outputs: str = "y") -> RoundingPlan:
    """The plan of a graph from `x`, (1, 4, 8, 8)."""
    used = {name: value for name, value in WEIGHTS.items() if name in body.replace("(", " ").replace(")", " ")}
    results = ", ".join(f"float[N, C, H, W] {o}" for o in outputs.split())
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 14]> toy (float[1, 4, 8, 8] x) => ({results}) {{ {body} }}'
    )
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in used.items())
    return RoundingPlan(model)


CASES = {
    "Conv alone": ("y = Conv(x, w)", "y"),
    "Conv and ReLU": ("c = Conv(x, w) y = Relu(c)", "y"),
    "Conv and LeakyReLU": ("c = Conv(x, w) y = LeakyRelu(c)", "y"),
    "Conv and PReLU": ("c = Conv(x, w) y = PRelu(c, slope)", "y"),
    "Conv and Clip (ReLU6)": ("c = Conv(x, w) y = Clip(c, zero, six)", "y"),
    "Conv and Sigmoid": ("c = Conv(x, w) y = Sigmoid(c)", "y"),
    "Conv and SiLU": ("c = Conv(x, w) s = Sigmoid(c) y = Mul(c, s)", "y"),
    "Conv and SiLU, the other way round": ("c = Conv(x, w) s = Sigmoid(c) y = Mul(s, c)", "y"),
    "Conv and HardSwish as one node": ("c = Conv(x, w) y = HardSwish(c)", "y"),
    "Conv and HardSwish spelled out": (
        "c = Conv(x, w) a = Add(c, three) k = Clip(a, zero, six) p = Mul(c, k) y = Div(p, six)",
        "y",
    ),
    "Conv and Mish spelled out": ("c = Conv(x, w) s = Softplus(c) t = Tanh(s) y = Mul(c, t)", "y"),
    "Conv, batch normalisation and SiLU": (
        "c = Conv(x, w) b = BatchNormalization(c, one, one, one, one) s = Sigmoid(b) y = Mul(b, s)",
        "y",
    ),
    "Conv, its bias as an Add, and SiLU": (
        "c = Conv(x, w) b = Add(c, vector) s = Sigmoid(b) y = Mul(b, s)",
        "y",
    ),
    "an Add of a whole constant map is a layer": ("c = Conv(x, w) a = Add(c, map) y = Conv(a, w)", "c a y"),
    "two layers in a row": ("c = Conv(x, w) r = Relu(c) d = Conv(r, wd) y = Relu(d)", "r y"),
    "depthwise, then pointwise without activation": ("c = Conv <group: int = 4> (x, wd) y = Conv(c, w)", "c y"),
    "transposed Conv": ("c = ConvTranspose(x, w) y = Relu(c)", "y"),
    "a Conv output read twice is stored itself": (
        "c = Conv(x, w) r = Relu(c) s = Conv(c, w) y = Add(r, s)",
        "c r s y",
    ),
    "SiLU of a Conv that another reads": (
        "c = Conv(x, w) s = Sigmoid(c) m = Mul(c, s) d = Conv(c, w) y = Add(m, d)",
        "c m d y",
    ),
    "x * sigmoid(x) of a Concat is a layer of its own": (
        "a = Conv(x, w) b = Conv(x, w) k = Concat <axis: int = 1> (a, b) s = Sigmoid(k) y = Mul(k, s)",
        "a b k y",
    ),
    "Add of two layers": ("a = Conv(x, w) b = Conv(a, w) y = Add(a, b)", "a b y"),
    "Add and ReLU": ("a = Conv(x, w) b = Conv(a, w) s = Add(a, b) y = Relu(s)", "a b y"),
    "Mul of two layers (attention gate)": ("a = Conv(x, w) b = Conv(a, w) g = Sigmoid(b) y = Mul(a, g)", "a g y"),
    "Mul by a number folds into the layer": ("a = Conv(x, w) r = Relu(a) y = Mul(r, half)", "y"),
    "Mul by a number between layers": ("a = Conv(x, w) m = Mul(a, half) y = Conv(m, w)", "m y"),
    "Mul by a vector is a layer": ("a = Conv(x, w) y = Mul(a, vector)", "y"),
    "max pooling moves": ("a = Conv(x, w) y = MaxPool <kernel_shape: ints = [2, 2]> (a)", "a"),
    "average pooling computes": ("a = Conv(x, w) y = AveragePool <kernel_shape: ints = [2, 2]> (a)", "a y"),
    "global average computes": ("a = Conv(x, w) y = GlobalAveragePool(a)", "a y"),
    "nearest Resize moves": ('a = Conv(x, w) y = Resize <mode: string = "nearest"> (a, , scales)', "a"),
    "linear Resize computes": ('a = Conv(x, w) y = Resize <mode: string = "linear"> (a, , scales)', "a y"),
    "Reshape, Transpose and Split move": (
        "a = Conv(x, w) f = Reshape(a, rows) t = Transpose <perm: ints = [0, 2, 1]> (f) "
        "b, c = Split <axis: int = 2> (t) y = Concat <axis: int = 2> (c, b)",
        "a y",
    ),
    "attention": (
        "a = Conv(x, w) f = Reshape(a, rows) t = Transpose <perm: ints = [0, 2, 1]> (f) "
        "k = MatMul(f, t) n = Mul(k, half) p = Softmax <axis: int = 2> (n) y = MatMul(p, f)",
        "a n p y",  # the scaling by a number folds into the MatMul before it
    ),
    "MatMul with weights": ("a = MatMul(x, x) y = MatMul(a, m)", "a y"),
    "Relu of a Concat": (
        "a = Conv(x, w) k = Concat <axis: int = 1> (a, x) r = Relu(k) y = MaxPool <kernel_shape: ints = [2, 2]> (r)",
        "a k r",
    ),
    "HardSwish of a Concat, spelled out": (
        "a = Conv(x, w) v = Concat <axis: int = 1> (a, x) "
        "b = Add(v, three) k = Clip(b, zero, six) p = Mul(v, k) y = Div(p, six)",
        "a v y",
    ),
    "a graph of Constants only below the picture": ("c = Conv(x, w) k = Identity(w) y = Conv(c, k)", "c y"),
}


@pytest.mark.parametrize("body, expected", CASES.values(), ids=CASES.keys())
def test_rounding_points(body: str, expected: str) -> None:
    """The tensors that exist as codes, in the order of the graph."""
    assert [p.tensor for p in plan(body).points] == expected.split()


def test_a_point_knows_its_layer() -> None:
    """For a Conv with SiLU: the node, what it computes before the activation, and its weight."""
    [point] = plan("c = Conv(x, w3) s = Sigmoid(c) y = Mul(c, s)").points

    assert (point.tensor, point.node, point.op, point.inner, point.weight) == ("y", 0, "Conv", "c", "w3")


def test_computed_weights_are_no_weights() -> None:
    """MatMul of two activations has none; Gemm-like MatMul with a constant has."""
    first, second = plan("a = MatMul(x, x) y = MatMul(a, m)").points

    assert (first.weight, second.weight) == (None, "m")


def test_outputs_are_rounding_points_even_inside_an_activation() -> None:
    """A head tensor that an activation reads as well is stored: both of them leave the network."""
    found = plan("c = Conv(x, w) y = Relu(c)", outputs="c y")

    assert [p.tensor for p in found.points] == ["c", "y"]


def test_names_play_no_part() -> None:
    """The same graph under other names has the same points, position by position."""
    body = "c = Conv(x, w) s = Sigmoid(c) p = Mul(c, s) d = Conv(p, w) y = Add(p, d)"
    other = body
    for old, new in (("c ", "Sigmoid_1 "), ("(c", "(Sigmoid_1"), ("p ", "Conv_7 "), ("(p", "(Conv_7")):
        other = other.replace(old, new)

    assert other != body
    assert [p.node for p in plan(other).points] == [p.node for p in plan(body).points]


def test_constants_behind_identity_are_found() -> None:
    """A weight that passes an Identity is still a constant, as float32; a computed tensor is refused."""
    graph = plan("c = Conv(x, w) k = Identity(w) y = Conv(c, k)")

    assert constant_array(graph, "k").dtype == np.float32
    with pytest.raises(ValueError, match="computed"):
        constant_array(graph, "c")
