"""Layers in one form, and who reads a tensor: every operation that carries weights, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from hefkit.workshop.emulator.layers import Layer, find_layers, reader_peak, source_of
from tests.helpers.plans import text_plan

MAP = [1, 4, 8, 8]
SQUARE = np.eye(4).reshape(4, 4, 1, 1)


def only(body: str, shape: list[int], **constants: object) -> Layer:
    """The one layer of a graph."""
    [layer] = find_layers(text_plan(body, shape, **constants)).values()
    return layer


def random(*shape: int) -> np.ndarray:
    """A seeded weight."""
    return np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)


# body, shape of x, shape of the node's weight, place in it of the weight from input i to output o
ORDERS = {
    "Conv": ("y = Conv(x, w)", MAP, (6, 4, 3, 3), lambda o, i: (o, i)),
    "Conv in two groups": ("y = Conv <group: int = 2> (x, w)", MAP, (6, 2, 3, 3), lambda o, i: (o, i)),
    "depthwise Conv": ("y = Conv <group: int = 4> (x, w)", MAP, (4, 1, 3, 3), lambda o, i: (o, i)),
    "ConvTranspose": ("y = ConvTranspose(x, w)", MAP, (4, 6, 2, 2), lambda o, i: (i, o)),
    # outputs 0..2 read inputs 0 and 1, outputs 3..5 inputs 2 and 3
    "ConvTranspose in two groups": (
        "y = ConvTranspose <group: int = 2> (x, w)",
        MAP,
        (4, 3, 2, 2),
        lambda o, i: (2 * (o // 3) + i, o % 3),
    ),
    "Gemm": ("y = Gemm(x, w)", [1, 4], (4, 6), lambda o, i: (i, o)),
    "Gemm, transposed": ("y = Gemm <transB: int = 1> (x, w)", [1, 4], (6, 4), lambda o, i: (o, i)),
    "MatMul": ("y = MatMul(x, w)", [1, 5, 4], (4, 6), lambda o, i: (i, o)),
}


@pytest.mark.parametrize("body, shape, stored, place", ORDERS.values(), ids=ORDERS.keys())
def test_every_weight_is_output_first_and_goes_back(body, shape, stored, place) -> None:  # type: ignore[no-untyped-def]
    """(O, I of the group, ...), the same numbers; `restored` is the way back, for codes as well."""
    weight = random(*stored)
    layer = only(body, shape, w=weight)

    outputs, inputs = layer.weight.shape[:2]
    assert (outputs, inputs * layer.groups) == (stored[0] if outputs == 4 else 6, 4)
    for o in range(outputs):
        for i in range(inputs):
            assert np.array_equal(layer.weight[o, i], weight[place(o, i)])
    assert np.array_equal(layer.restored(layer.weight), weight)
    assert layer.restored(np.ones(layer.weight.shape, np.int8)).dtype == np.int8


@pytest.mark.parametrize("stored", [(3, 4, 6), (1, 3, 4, 6)])
def test_a_stack_of_matrices_has_one_scale(stored: tuple[int, ...]) -> None:
    """A weight of more than two axes is one row, and goes back to its shape."""
    layer = only("y = MatMul(x, w)", [1, 3, 5, 4], w=random(*stored))

    assert layer.weight.shape == (1, 1, np.prod(stored))
    assert np.array_equal(layer.restored(layer.weight), random(*stored))


def test_biases() -> None:
    """(O,): of the node, repeated where it is one number, zero where there is none."""
    assert only("y = Conv(x, w, b)", MAP, w=SQUARE, b=[1, 2, 3, 4]).bias.tolist() == [1, 2, 3, 4]
    assert only("y = Conv(x, w)", MAP, w=SQUARE).bias.tolist() == [0] * 4
    assert only("y = Gemm(x, w, b)", [1, 4], w=random(4, 3), b=[7]).bias.tolist() == [7, 7, 7]
    assert only("y = MatMul(x, w)", [1, 4], w=random(4, 3)).bias.dtype == np.float32


def test_depthwise() -> None:
    """One input channel each; a Conv of one channel is not one."""
    assert only("y = Conv <group: int = 4> (x, w)", MAP, w=random(8, 1, 3, 3)).depthwise
    assert not only("y = Conv <group: int = 2> (x, w)", MAP, w=random(4, 2, 3, 3)).depthwise
    assert not only("y = Conv(x, w)", [1, 1, 8, 8], w=random(4, 1, 3, 3)).depthwise


def test_peaks_by_input_channel() -> None:
    """The largest |weight| that reads each, over all outputs of its group."""
    weight = np.zeros((4, 2, 1, 1))
    weight[0, 0], weight[1, 0], weight[1, 1], weight[3, 1] = 1, -5, 2, -3  # inputs 0, 0, 1 and 3
    assert only("y = Conv <group: int = 2> (x, w)", MAP, w=weight).input_peak.tolist() == [5, 2, 0, 3]
    assert only("y = ConvTranspose(x, w)", MAP, w=np.diag([1, -2, 3, 4]).reshape(4, 4, 1, 1)).input_peak.tolist() == [
        1, 2, 3, 4
    ]  # fmt: skip


ACTIVATIONS = {
    "y = Conv(x, w)": "none",
    "c = Conv(x, w) y = Relu(c)": "relu",
    "c = Conv(x, w) y = LeakyRelu(c)": "leaky_relu",
    "c = Conv(x, w) y = Clip(c, zero, six)": "relu6",
    "c = Conv(x, w) y = Clip(c, zero, four)": "curve",
    "c = Conv(x, w) y = Sigmoid(c)": "sigmoid",
    "c = Conv(x, w) y = HardSwish(c)": "curve",
    "c = Conv(x, w) s = Sigmoid(c) y = Mul(c, s)": "curve",
    "c = Conv(x, w) r = Relu(c) y = Mul(r, four)": "curve",
}


@pytest.mark.parametrize("body, name", ACTIVATIONS.items())
def test_activations(body: str, name: str) -> None:
    """By the one node between the sum and the rounded tensor; whatever is more or unknown is a curve."""
    assert only(body, MAP, w=SQUARE, zero=0, six=6, four=4).activation == name


SOURCES = {
    "d = Conv(r, w)": ("r", 1.0),
    "m = MaxPool <kernel_shape: ints = [2, 2]> (r) d = Conv(m, w)": ("r", 1.0),
    "m = Mul(r, half) d = Conv(m, w)": ("m", 1.0),  # folds into the layer before: m is what that writes
    "k = MaxPool <kernel_shape: ints = [2, 2]> (r) m = Mul(k, half) d = Conv(m, w)": ("r", 0.5),
    "k = MaxPool <kernel_shape: ints = [2, 2]> (r) m = Div(k, half) n = Mul(m, half) p = Mul(n, half) d = Conv(p, w)": (
        "r", 0.5
    ),
    "k = Reshape(r, flat) d = MatMul(k, wm)": ("r", 1.0),
    "k, l = Split <axis: int = 1> (r) d = Conv(l, w2)": ("r", 1.0),
    "k = Concat <axis: int = 1> (r, r) d = Conv(k, w8)": ("k", 1.0),
}  # fmt: skip


@pytest.mark.parametrize("body, expected", SOURCES.items())
def test_what_a_layer_reads(body: str, expected: tuple[str, float]) -> None:
    """The rounded tensor above it, through nodes that move codes, and the number that they multiply with."""
    constants = {"w": SQUARE, "half": 0.5, "flat": np.array([1, 4, 64]), "wm": np.ones((64, 2)),
                 "w2": np.ones((2, 2, 1, 1)), "w8": np.ones((4, 8, 1, 1))}  # fmt: skip
    plan = text_plan(f"c = Conv(x, w) r = Relu(c) {body} y = Relu(d)", MAP, **constants)
    layer = find_layers(plan)["y"]

    assert (layer.source, layer.factor) == expected
    assert source_of(plan, "x") == ("x", 1.0)
    assert find_layers(plan)[plan.points[0].tensor].source == "x"


READERS = {
    # r is read by one layer, directly or through what keeps channels apart
    "y = Conv(r, v)": [4, 3, 2, 1],
    "k = MaxPool <kernel_shape: ints = [2, 2]> (r) y = Conv(k, v)": [4, 3, 2, 1],
    'k = Resize <mode: string = "nearest"> (r, , scales) y = Conv(k, v)': [4, 3, 2, 1],
    "y = Conv <group: int = 4> (r, d)": [1, 2, 3, 4],
    # by two: the larger of both counts
    "a = Conv(r, v) b = Conv <group: int = 4> (r, d) y = Concat <axis: int = 1> (a, b)": [4, 3, 3, 4],
    # a reader that cannot take a channel's factor into its weights
    "a = Conv(r, v) y = Add(r, a)": None,
    "y = Concat <axis: int = 1> (r, r)": None,
    "k, l = Split <axis: int = 1> (r) y = Conv(l, v2)": None,
    "k = Reshape(r, flat) y = MatMul(k, m)": None,
    "y = MatMul(r, m8)": None,  # its inputs lie along the last axis
    'k = Resize <mode: string = "linear"> (r, , scales) y = Conv(k, v)': None,
    "k = Mul(r, r) y = Conv(k, v)": None,
    # as a weight: nothing is known of what it multiplies
    "y = Conv(x, r)": None,
}


@pytest.mark.parametrize("body, expected", READERS.items())
def test_peaks_of_readers(body: str, expected: list[float] | None) -> None:
    """Largest |weight| by channel of r, or None where channels must share one scale."""
    constants = {"w": SQUARE, "v": np.diag([-4, 3, 2, 1]).reshape(4, 4, 1, 1), "v2": np.ones((1, 2, 1, 1)),
                 "d": np.reshape([1, -2, 3, 4], (4, 1, 1, 1)), "flat": np.array([1, 4, 64]), "m": np.ones((64, 2)),
                 "m8": np.ones((8, 2)), "scales": [1, 1, 2, 2]}  # fmt: skip
    used = {name: value for name, value in constants.items() if name in body.replace("(", " ").replace(")", " ")}
    plan = text_plan(f"c = Conv(x, w) r = Relu(c) {body}", MAP, **{"w": SQUARE, **used})
    found = reader_peak(plan, find_layers(plan), "r")

    assert (None if found is None else found.tolist()) == expected


def test_outputs_and_unread_tensors_are_not_equalised() -> None:
    """An output has one scale, also where a layer reads it; so has what nothing reads."""
    plan = text_plan("r = Relu(x) c = Conv(r, w) y = Conv(c, w)", MAP, outputs="c y", w=SQUARE)
    layers = find_layers(plan)

    assert reader_peak(plan, layers, "c") is None
    assert reader_peak(plan, layers, "y") is None
    assert reader_peak(plan, layers, "r").tolist() == [1] * 4  # type: ignore[union-attr]


def test_a_dense_layer_equalises() -> None:
    """Gemm behind Gemm: features are channels."""
    plan = text_plan("c = Gemm(x, w) r = Relu(c) y = Gemm(r, v)", [1, 4], w=random(4, 3), v=np.diag([1, 2, 5]))

    assert reader_peak(plan, find_layers(plan), "r").tolist() == [1, 2, 5]  # type: ignore[union-attr]


def test_a_weight_that_is_computed_is_no_layer() -> None:
    """Attention multiplies two tensors."""
    plan = text_plan("a = Conv(x, w) y = MatMul(a, a)", MAP, w=SQUARE)

    assert list(find_layers(plan)) == ["a"]
