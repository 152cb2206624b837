"""What a graph does to its input before the first layer, in every form that exporters write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hefkit.errors import ModelError
from hefkit.workshop.heads.discover import discover
from hefkit.workshop.heads.proof import prove
from hefkit.workshop.network.file import load_onnx
from tests.helpers.tiny_onnx import save, tiny_yolo

Nodes = Callable[["Front"], list[onnx.NodeProto]]
BGR = np.eye(3)[::-1]
N255 = 1 / 255
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
GREY = [0.299, 0.587, 0.114]


class Front:
    """Nodes from the input `pixels` to `images`, and their constants."""

    def __init__(self) -> None:
        self.weights: list[onnx.TensorProto] = []

    def const(self, value: object, dtype: type = np.float32) -> str:
        """A constant."""
        name = f"front{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def ints(self, *values: int) -> str:
        """A list of whole numbers."""
        return self.const(values, np.int64)


def node(op: str, inputs: Sequence[str], outputs: Sequence[str] = ("images",), **settings: Any) -> onnx.NodeProto:
    return helper.make_node(op, list(inputs), list(outputs), name=f"front/{op}/{outputs[0]}", **settings)


def conv(front: Front, matrix: Any, bias: Any = None) -> onnx.NodeProto:
    weight = [front.const(np.asarray(matrix)[:, :, None, None])]
    return node("Conv", ["pixels", *weight, *([] if bias is None else [front.const(bias)])], kernel_shape=[1, 1])


def norm(front: Front, scale: Any, shift: Any, mean: Any, variance: Any) -> onnx.NodeProto:
    return node("BatchNormalization", ["pixels", *map(front.const, (scale, shift, mean, variance))], epsilon=0.0)


def channels_last(front: Front) -> list[onnx.NodeProto]:
    """Transpose, Slice by -1, a matrix product, and back."""
    return [
        node("Transpose", ["pixels"], ["a"], perm=[0, 2, 3, 1]),
        node("Slice", ["a", front.ints(-1), front.ints(-(2**62)), front.ints(-1), front.ints(-1)], ["b"]),
        node("MatMul", ["b", front.const(np.eye(3) * N255)], ["c"]),
        node("Transpose", ["c"], ["images"], perm=[0, 3, 1, 2]),
    ]


def one_by_one(front: Front) -> list[onnx.NodeProto]:
    """Every channel by a Gather of its own, as a wrapper in PyTorch (`torch.stack`) is exported."""
    nodes = []
    for i, channel in enumerate((2, 1, 0)):
        nodes.append(node("Gather", ["pixels", front.const(channel, np.int64)], [f"g{i}"], axis=1))
        nodes.append(node("Unsqueeze", [f"g{i}"], [f"u{i}"], axes=[1]))
    return [*nodes, node("Concat", ["u0", "u1", "u2"], axis=1)]


WRONG: dict[str, tuple[Nodes, str]] = {
    "Div": (lambda f: [node("Div", ["pixels", f.const(255)])], "scales its input by 1/255"),
    "Mul by channel": (
        lambda f: [node("Mul", ["pixels", f.const(np.full((1, 3, 1, 1), N255))])],
        "scales its input by 1/255",
    ),
    "BatchNormalization": (
        lambda f: [norm(f, np.ones(3), np.zeros(3), np.zeros(3), np.full(3, 255.0**2))],
        "scales its input by 1/255",
    ),
    "1x1 convolution": (lambda f: [conv(f, np.eye(3) * N255)], "scales its input by 1/255"),
    "depthwise convolution": (
        lambda f: [node("Conv", ["pixels", f.const(np.full((3, 1, 1, 1), N255))], group=3)],
        "scales its input by 1/255",
    ),
    "mean and deviation of 0..255": (
        lambda f: [conv(f, np.diag(N255 / STD), -MEAN / STD)],
        r"scales its input by 1/57 .*pictures of 0 to 255",
    ),
    "two steps": (
        lambda f: [node("Mul", ["pixels", f.const(1 / 16)], ["a"]), node("Mul", ["a", f.const(1 / 16)])],
        "scales its input by 1/256",
    ),
    "Gather": (lambda f: [node("Gather", ["pixels", f.ints(2, 1, 0)], axis=1)], "reverses the colours of its input"),
    "Gather from behind": (
        lambda f: [node("Gather", ["pixels", f.ints(-1, -2, -3)], axis=1)],
        "reverses the colours of its input",
    ),
    "Slice": (
        lambda f: [node("Slice", ["pixels", f.ints(-1), f.ints(-(2**62)), f.ints(1), f.ints(-1)])],
        "reverses the colours of its input",
    ),
    "Split and Concat": (
        lambda f: [node("Split", ["pixels"], ["a", "b", "c"], axis=1), node("Concat", ["c", "b", "a"], axis=1)],
        "reverses the colours of its input",
    ),
    "convolution that reverses": (lambda f: [conv(f, BGR)], "reverses the colours of its input"),
    "Gather one by one": (one_by_one, "reverses the colours of its input"),
    "both": (channels_last, r"reverses the colours and scales its input by 1/255 .*BGR pictures of 0 to 255"),
    "green first": (
        lambda f: [node("Gather", ["pixels", f.ints(1, 0, 2)], axis=1)],
        "changes the order of the colours",
    ),
    "grey": (lambda f: [conv(f, [GREY, GREY, GREY])], "mixes the colours of its input"),
    "negative": (lambda f: [node("Sub", [f.const(1), "pixels"])], "inverts its input"),
}
RIGHT: dict[str, tuple[Nodes, bool]] = {
    # name: (nodes, whether a warning says that the network normalises)
    "nothing": (lambda f: [node("Identity", ["pixels"])], False),
    "there and back": (
        lambda f: [node("Mul", ["pixels", f.const(255)], ["a"]), node("Div", ["a", f.const(255)])],
        False,
    ),
    "reversed twice": (
        lambda f: [
            node("Gather", ["pixels", f.ints(2, 1, 0)], ["a"], axis=1),
            node("Gather", ["a", f.ints(2, 1, 0)], axis=1),
        ],
        False,
    ),
    "a clip that does nothing": (
        lambda f: [
            node("Mul", ["pixels", f.const(255)], ["a"]),
            node("Clip", ["a", f.const(0), f.const(255)], ["b"]),
            node("Mul", ["b", f.const(N255)]),
        ],
        False,
    ),
    "mean and deviation": (
        lambda f: [
            node("Sub", ["pixels", f.const(MEAN[:, None, None])], ["a"]),
            node("Div", ["a", f.const(STD[:, None, None])]),
        ],
        True,
    ),
    "BatchNormalization of 0..1": (lambda f: [norm(f, np.ones(3), np.zeros(3), MEAN, STD**2)], True),
    # a layer of the network: what it has learned is not preprocessing
    "1x1 layer": (lambda f: [node("Relu", ["a"]), conv(f, BGR - 0.1)][::-1], False),
}


def behind(build: Nodes, opset: int = 12) -> onnx.ModelProto:
    """A toy YOLO behind these nodes."""
    model, front = tiny_yolo(opset=opset), Front()
    nodes = build(front)
    if nodes[-1].op_type == "Relu":
        nodes[0].output[0] = "a"
    old = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *old])
    model.graph.initializer.extend(front.weights)
    model.graph.input[0].name = "pixels"
    return model


@pytest.mark.parametrize("build, words", WRONG.values(), ids=WRONG.keys())
def test_other_pictures_are_refused(build: Nodes, words: str, tmp_path: Path) -> None:
    """The check of the cut cannot see it. The node is named, and the cure is the same export without these nodes."""
    with pytest.raises(ModelError, match=words) as caught:
        load_onnx(save(behind(build), tmp_path / "toy.onnx"))

    assert "front/" in str(caught.value) and "export again without preprocessing in the graph" in str(caught.value)
    cured = load_onnx(save(tiny_yolo(), tmp_path / "cured.onnx"))
    assert prove(cured, discover(cured)).max_abs_px < 0.01 and cured.warnings == ()


@pytest.mark.parametrize("build, warned", RIGHT.values(), ids=RIGHT.keys())
def test_pictures_of_0_to_1_pass(build: Nodes, warned: bool, tmp_path: Path) -> None:
    """The whole map counts, not its parts."""
    file = load_onnx(save(behind(build), tmp_path / "toy.onnx"))

    assert [("shifts and scales its input itself" in text) for text in file.warnings] == [True] * warned
    assert prove(file, discover(file)).max_abs_px < 0.01


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_every_opset(opset: int, tmp_path: Path) -> None:
    """Axes and sizes are attributes in older opsets and inputs in newer ones."""
    split = {"num_outputs": 3} if opset >= 18 else {}

    def build(front: Front) -> list[onnx.NodeProto]:
        return [
            node("Split", ["pixels"], ["r", "g", "b"], axis=1, **split),
            node("Concat", ["b", "g", "r"], axis=1),
        ]

    with pytest.raises(ModelError, match="reverses the colours"):
        load_onnx(save(behind(build, opset), tmp_path / "toy.onnx"))


def test_a_plain_network_has_no_map(tmp_path: Path) -> None:
    """Toys in every type and form: nothing is said of them."""
    for i, kinds in enumerate(({}, {"half": True}, {"simplified": False}, {"opset": 18})):
        assert load_onnx(save(tiny_yolo(**kinds), tmp_path / f"{i}.onnx")).warnings == ()  # type: ignore[arg-type]


def test_the_map_is_what_onnxruntime_computes(tmp_path: Path) -> None:
    """A chain of everything: matrix and offset against the values of one pixel."""
    from hefkit.workshop.network.graph import Graph
    from hefkit.workshop.network.inputmap import _reached

    front, rng = Front(), np.random.default_rng(5)
    matrix, bias = rng.normal(size=(3, 3)), rng.normal(size=3)
    nodes = [
        node("Mul", ["pixels", front.const(3)], ["a"]),
        node("Conv", ["a", front.const(matrix[:, :, None, None]), front.const(bias)], ["b"]),
        node("Sub", [front.const(rng.normal(size=(3, 1, 1))), "b"], ["c"]),
        node("BatchNormalization", ["c", *(front.const(rng.uniform(0.5, 2, 3)) for _ in range(4))], ["d"]),
        node("Gather", ["d", front.ints(1, 2, 0)], ["e"], axis=1),
        node("MaxPool", ["e"], ["out"], kernel_shape=[2, 2]),
    ]
    shape = [1, 3, 4, 4]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None), helper.make_tensor_value_info("e", 1, None)],
        front.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)

    [found] = _reached(Graph(model), "pixels")

    import onnxruntime as ort

    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for colour in rng.uniform(0, 1, (5, 3)):
        picture = np.broadcast_to(colour[None, :, None, None], shape).astype(np.float32)
        [seen] = session.run(["e"], {"pixels": picture})
        assert found.matrix @ colour + found.offset == pytest.approx(seen[0, :, 1, 2], rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("name, words", [("bn255", "scales its input by 1/255"), ("gatherbgr", "reverses the colours")])
def test_the_real_cases(shared: Path, name: str, words: str) -> None:
    """../shared/field: "check passed", and then no boxes."""
    with pytest.raises(ModelError, match=words):
        load_onnx(shared / "field" / "08-input-map" / f"{name}.onnx")
