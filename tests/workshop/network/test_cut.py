"""Cutting: the piece computes what the whole computed there, and holds nothing else."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hefkit import __version__
from hefkit.errors import ModelError
from hefkit.workshop.network.cut import cut, extract, shape_of, tensor_types
from tests.helpers.tiny_onnx import drawn, head_tensors, network_input, run_onnx, tiny_yolo


def value(name: str, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def small_model(
    nodes: list[onnx.NodeProto], outputs: list[str], weights: tuple[onnx.TensorProto, ...] = ()
) -> onnx.ModelProto:
    """A model with the input `images` (1, 3, 4, 4)."""
    graph = helper.make_graph(nodes, "g", [value("images", 1, 3, 4, 4)], [value(o) for o in outputs], list(weights))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
@pytest.mark.parametrize("backwards", [False, True])
def test_outputs_are_what_the_whole_computes_in_the_order_asked_for(half: bool, backwards: bool) -> None:
    model = tiny_yolo(half=half)
    tensors = head_tensors()[:: -1 if backwards else 1]
    picture = network_input(drawn((64, 64)), "float16" if half else "float32")

    piece = cut(model, tensors)

    assert [o.name for o in piece.graph.output] == tensors
    for got, expected in zip(run_onnx(piece, picture), run_onnx(model, picture, *tensors), strict=True):
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)


def test_outputs_are_typed_and_the_versions_stay() -> None:
    model = tiny_yolo(opset=16, size=(64, 96))

    piece = cut(model, head_tensors())

    onnx.checker.check_model(piece, full_check=True)
    assert [shape_of(o) for o in piece.graph.output][:3] == [(1, 64, 8, 12), (1, 3, 8, 12), (1, 64, 4, 6)]
    assert {o.type.tensor_type.elem_type for o in piece.graph.output} == {TensorProto.FLOAT}
    assert (piece.opset_import[0].version, piece.ir_version) == (16, model.ir_version)
    assert (piece.producer_name, piece.producer_version) == ("hefkit.cut", __version__)
    assert [i.name for i in piece.graph.input] == ["images"]


def test_nothing_below_the_cut_is_kept() -> None:
    model = tiny_yolo(tail="nms")

    piece = cut(model, head_tensors())

    kinds = {n.op_type for n in piece.graph.node}
    assert not kinds & {"Softmax", "NonMaxSuppression", "Reshape", "Transpose"}
    read = {name for n in piece.graph.node for name in n.input}
    assert {t.name for t in piece.graph.initializer} <= read


def test_the_piece_shares_nothing_with_the_whole() -> None:
    model = tiny_yolo()
    before = model.SerializeToString()

    piece = cut(model, head_tensors())
    piece.graph.node[0].name = "changed"
    piece.graph.initializer[0].ClearField("raw_data")

    assert model.SerializeToString() == before


def test_shapes_that_only_running_tells() -> None:
    """A Reshape whose shape is computed from values: inference gives up, a black image does not."""
    nodes = [
        helper.make_node("ReduceMax", ["images"], ["peak"], keepdims=0),  # 0 for a black image
        helper.make_node("Cast", ["peak"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Sub", ["whole", "one"], ["rest"]),
        helper.make_node("Unsqueeze", ["rest", "axis"], ["shape"]),
        helper.make_node("Reshape", ["images", "shape"], ["flat"]),
    ]
    weights = (
        helper.make_tensor("one", TensorProto.INT64, [], [1]),
        helper.make_tensor("axis", TensorProto.INT64, [1], [0]),
    )

    piece = cut(small_model(nodes, ["flat"], weights), ["flat"])

    assert shape_of(piece.graph.output[0]) == (48,)


@pytest.mark.parametrize("dynamic", ["no", "size"])
def test_tensor_types_of_computed_shapes(dynamic: str) -> None:
    model = tiny_yolo(simplified=False, dynamic=dynamic, opset=17)
    model.graph.input[0].CopyFrom(value("images", 1, 3, 64, 64))
    del model.graph.output[0].type.tensor_type.shape.dim[:]

    types = tensor_types(model, ["raw_box_8", model.graph.output[0].name])

    assert list(types.values()) == [(TensorProto.FLOAT, (1, 64, 8, 8)), (TensorProto.FLOAT, (1, 7, 84))]


def test_thousands_of_nodes_in_a_row() -> None:
    """Walks are loops: no recursion limit is met."""
    names = ["images", *(f"t{i}" for i in range(5000))]
    nodes = [helper.make_node("Identity", [a], [b]) for a, b in pairwise(names)]

    piece = cut(small_model(nodes, ["t4999"]), ["t4998"])

    assert len(piece.graph.node) == 4999


def test_what_a_branch_captures_is_kept() -> None:
    """The bodies of If read tensors of the outer graph without naming them as inputs."""

    def body(kind: str) -> onnx.GraphProto:
        out = value(f"{kind}_out", 1, 3, 4, 4)
        return helper.make_graph([helper.make_node(kind, ["outer"], [f"{kind}_out"])], kind, [], [out])

    nodes = [
        helper.make_node("Neg", ["images"], ["outer"]),
        helper.make_node("If", ["yes"], ["y"], then_branch=body("Abs"), else_branch=body("Exp")),
        helper.make_node("Relu", ["y"], ["z"]),
    ]
    model = small_model(nodes, ["z"], (helper.make_tensor("yes", TensorProto.BOOL, [], [True]),))

    piece = cut(model, ["y"])

    assert [n.op_type for n in piece.graph.node] == ["Neg", "If"]
    (got,) = run_onnx(piece, np.full((1, 3, 4, 4), 2, np.float32))
    np.testing.assert_array_equal(got, np.full((1, 3, 4, 4), 2, np.float32))


def test_extract_takes_a_piece_from_the_middle() -> None:
    """A piece between a head tensor and its Sigmoid does not need the picture."""
    model = tiny_yolo()
    logits = np.linspace(-3, 3, 3 * 64, dtype=np.float32).reshape(1, 3, 8, 8)
    score = next(n for n in model.graph.node if n.op_type == "Reshape" and n.input[0] == "raw_cls_8").output[0]

    piece = extract(model, [score], {"raw_cls_8": logits})

    assert [i.name for i in piece.graph.input] == ["raw_cls_8"]
    np.testing.assert_array_equal(run_onnx(piece, logits)[0], logits.reshape(1, 3, 64))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        pytest.param([], "nothing to cut", id="none"),
        pytest.param("raw_box_8", "a list of tensor names", id="a text instead of a list"),
        pytest.param([""], "without a name", id="empty name"),
        pytest.param(["raw_box_8", "raw_box_8"], "twice at 'raw_box_8'", id="doubled"),
        pytest.param(["raw_box_8", "nowhere", "neither"], "no tensor 'nowhere', 'neither'", id="unknown"),
        pytest.param(["/net/Conv_0"], "no tensor '/net/Conv_0'", id="a node"),
    ],
)
def test_bad_names_are_refused(names: list[str], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        cut(tiny_yolo(), names)
