"""Discovery: heads are found in every kind of export by structure, and proven; other models are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper

from hefkit.errors import ModelError
from hefkit.workshop.heads.discover import HeadLayout, discover
from hefkit.workshop.heads.proof import HALF_LIMITS, prove
from hefkit.workshop.network.file import OnnxFile, load_onnx
from tests.conftest import ROOT
from tests.helpers.exports import EXPORTS
from tests.helpers.tiny_onnx import head_tensors, save, tiny_yolo
from tests.helpers.wrong_onnx import KINDS, wrong_onnx

Open = Callable[..., OnnxFile]


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    """Write a model and open it as compile_to_hef.py would."""

    def open_model(model: onnx.ModelProto, imgsz: tuple[int, int] | None = None) -> OnnxFile:
        return load_onnx(save(model, tmp_path / "model.onnx"), imgsz)

    return open_model


def refused(file: OnnxFile, end_nodes: list[str] | None = None) -> str:
    """The sentence that `discover` refuses a model with."""
    with pytest.raises(ModelError) as caught:
        discover(file, end_nodes)
    return str(caught.value)


def node_of(file: OnnxFile, tensor: str) -> str:
    return next(n.name for n in file.model.graph.node if tensor in n.output)


@pytest.mark.parametrize("options", EXPORTS.values(), ids=EXPORTS.keys())
def test_the_heads_of_every_kind_of_export_are_found_and_proven(options: dict[str, Any], opened: Open) -> None:
    """`head_tensors` knows where the builder put the heads; roles, shapes and strides follow from the options."""
    strides = options.get("strides", (8, 16, 32))
    height, width = options.get("size", (64, 64))
    classes = options.get("classes", 3)
    dfl = options.get("family", "dfl") == "dfl"
    reg_max = options.get("reg_max", 16) if dfl else 1

    file = opened(tiny_yolo(**options), (height, width) if options.get("dynamic") == "size" else None)
    layout = discover(file)

    assert list(layout.tensors) == head_tensors(strides)
    assert list(layout.end_nodes) == [node_of(file, t) for t in head_tensors(strides)]
    assert (layout.family, layout.reg_max) == ("dfl" if dfl else "ltrb", reg_max)
    assert (layout.num_classes, layout.strides) == (classes, strides)
    assert layout.nms_free == (options.get("tail") == "topk")
    assert layout.half == options.get("half", False)
    assert [(c.role, c.stride, c.shape) for c in layout.convs] == [
        (role, s, (height // s, width // s, channels))
        for s in strides
        for role, channels in (("box", 4 * reg_max), ("cls", classes))
    ]

    proof = prove(file, layout)

    # float32 has far less to round than the limits allow; test_proof.py is about the limits themselves
    px, score = HALF_LIMITS if options.get("half") else (1e-3, 1e-5)
    assert proof.max_abs_px <= px and proof.max_abs_score <= score
    assert proof.to_json() == {"max_abs_px": proof.max_abs_px, "max_abs_score": proof.max_abs_score, "images": 2}


def test_names_do_not_matter(opened: Open) -> None:
    """Class tensors called like boxes, and the other way round: nothing changes."""
    model = tiny_yolo(classes=64)
    swap = {f"raw_{a}_{s}": f"raw_{b}_{s}" for s in (8, 16, 32) for a, b in (("box", "cls"), ("cls", "box"))}
    for node in model.graph.node:
        node.name = f"/model.22/cv{len(node.name) % 3}.{node.name}"
        for names in (node.input, node.output):
            names[:] = [swap.get(name, name) for name in names]

    layout = discover(opened(model))

    assert list(layout.tensors) == [swap[t] for t in head_tensors()]


def test_dead_branches_are_ignored(opened: Open) -> None:
    """Exporters leave nodes behind that reach no output: a Conv below a head, a TopK, a Sigmoid on a box."""
    model = tiny_yolo()
    model.graph.initializer.extend(
        [
            helper.make_tensor("dead_weight", onnx.TensorProto.FLOAT, [1, 3, 1, 1], [1.0] * 3),
            helper.make_tensor("dead_count", onnx.TensorProto.INT64, [1], [1]),
        ]
    )
    model.graph.node.extend(
        [
            helper.make_node("Sigmoid", ["raw_box_8"], ["dead1"], name="dead1"),
            helper.make_node("Transpose", ["raw_box_8"], ["dead2"], name="dead2", perm=[0, 1, 3, 2]),
            helper.make_node("Conv", ["raw_cls_8", "dead_weight"], ["dead3"], name="dead3"),
            helper.make_node("TopK", ["raw_cls_16", "dead_count"], ["d4", "d5"], name="dead4"),
        ]
    )

    layout = discover(opened(model))

    assert list(layout.tensors) == head_tensors()
    assert not layout.nms_free


def test_layout_becomes_the_spec_of_float_tensors(opened: Open) -> None:
    head = discover(opened(tiny_yolo(family="ltrb", tail="topk", classes=2))).to_head_spec()

    assert (head.family, head.num_classes, head.reg_max, head.strides, head.nms_free) == (
        "ltrb",
        2,
        1,
        (8, 16, 32),
        True,
    )
    assert [(o.role, o.dtype, o.activation, o.shape) for o in head.outputs[:2]] == [
        ("box", "float32", "none", (8, 8, 4)),
        ("cls", "float32", "none", (8, 8, 2)),
    ]
    assert head.outputs[0].onnx_node.startswith("/net/Conv_")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("classify", "is a classifier"),
        ("segment", "is a segmentation model"),
        ("pose", "is a pose model"),
        ("obb", "oriented boxes"),
        ("anchor_based", "anchor-based detector"),
        ("yolox", "YOLOX with an objectness Conv"),
        ("transformer", "transformer decoder"),
        ("two_heads", "two heads"),
        ("training", "two heads"),
        ("no_sigmoid", "class scores do not enter a Sigmoid"),
        ("no_conv", "without a Conv that could be a head"),
    ],
)
def test_what_is_no_detector_is_named(kind: str, words: str, opened: Open) -> None:
    message = refused(opened(wrong_onnx(kind)))

    assert words in message
    assert "seen" in message and "expected one box and one class Conv at every scale" in message
    assert "\n" not in message


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith("cut_")])
@pytest.mark.parametrize("named", [False, True], ids=["searched", "with --end-nodes"])
def test_a_network_that_is_cut_already(kind: str, named: bool, opened: Open) -> None:
    """Nothing in the file can prove how its boxes are decoded; the cure is the uncut export, which passes."""
    file = opened(wrong_onnx(kind))
    with pytest.raises(ModelError) as caught:
        discover(file, [node_of(file, t) for t in head_tensors()] if named else None)

    assert "give the uncut export" in str(caught.value) and "--end-nodes" not in str(caught.value)
    assert "cut at its heads already" in str(caught.value) or kind == "cut_distances_sigmoid"
    uncut = opened(tiny_yolo(classes=5))
    assert prove(uncut, discover(uncut)).max_abs_px < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_end_nodes_are_advised_only_where_they_work(kind: str, opened: Open) -> None:
    """They take the detector out of a larger network; nothing else recommends them."""
    if kind == "quantised":
        return
    file = opened(wrong_onnx(kind))
    advised = "--end-nodes" in refused(file)

    assert advised == (kind in ("segment", "pose", "two_heads", "training"))
    if advised:
        names = head_tensors() if kind != "training" else [f"first_{t}" for t in head_tensors()]
        known = {n.output[0] for n in file.model.graph.node}
        layout = discover(file, [node_of(file, t if t in known else t.removeprefix("first_")) for t in names])
        assert prove(file, layout).max_abs_px < 0.05


def test_the_real_cut_network(shared: Path) -> None:
    """../shared/field: refused with the cure; the sample's own export, which it was cut from, passes."""
    with pytest.raises(ModelError, match=r"cut at its heads already.*give the uncut export"):
        discover(load_onnx(shared / "field" / "01-cut-onnx" / "cut.onnx"))

    uncut = load_onnx(ROOT / "examples" / "drone" / "drone.onnx")
    assert discover(uncut).num_classes == 2


def test_quantised_models_are_refused(opened: Open) -> None:
    assert "quantised already (it holds DequantizeLinear, QuantizeLinear)" in refused(opened(wrong_onnx("quantised")))


def test_the_metadata_only_add_a_word(opened: Open) -> None:
    """A wrong task in the metadata changes nothing about a detector, and is quoted where there is none."""
    detector, classifier = tiny_yolo(), wrong_onnx("classify")
    helper.set_model_props(detector, {"task": "segment"})
    helper.set_model_props(classifier, {"task": "obb\n\x1b[2J"})

    assert discover(opened(detector)).num_classes == 3
    assert "is a classifier, task 'obb\\n\\x1b[2J' in its metadata" in refused(opened(classifier))


def test_other_dfl_weights_are_refused(opened: Open) -> None:
    model = tiny_yolo(bins=[0.5 * i for i in range(16)])

    assert "weights other than 0..15" in refused(opened(model))


@pytest.mark.parametrize("imgsz", [(80, 80), (64, 72)])
def test_a_size_that_the_strides_do_not_divide(imgsz: tuple[int, int], opened: Open) -> None:
    message = refused(opened(tiny_yolo(dynamic="size"), imgsz))

    assert f"{imgsz[0]}x{imgsz[1]}" in message and "multiples of the largest stride" in message


def test_raw_predictions_are_needed(opened: Open) -> None:
    """Heads with a Sigmoid, but nothing below that could be compared."""
    model = tiny_yolo()
    nodes = [helper.make_node("Sigmoid", [f"raw_cls_{s}"], [f"score_{s}"], name=f"s{s}") for s in (8, 16, 32)]
    nodes += [helper.make_node("Softmax", [f"four_{s}"], [f"bins_{s}"], name=f"b{s}", axis=3) for s in (8, 16, 32)]
    turns = [
        helper.make_node("Reshape", [f"raw_box_{s}", f"shape_{s}"], [f"four_{s}"], name=f"r{s}") for s in (8, 16, 32)
    ]
    shapes = [helper.make_tensor(f"shape_{s}", onnx.TensorProto.INT64, [4], [1, 4, -1, 16]) for s in (8, 16, 32)]
    last = max(i for i, n in enumerate(model.graph.node) if n.output[0].startswith("raw_"))
    del model.graph.node[last + 1 :]
    model.graph.node.extend([*turns, *nodes])
    model.graph.initializer.extend(shapes)
    del model.graph.output[:]
    for name in [f"{k}_{s}" for s in (8, 16, 32) for k in ("bins", "score")]:
        model.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None] * 4))

    assert "no tensor with the boxes and scores of all 84 anchors" in refused(opened(model))


class TestEndNodes:
    """--end-nodes replaces the search, not the checks."""

    def test_any_order_gives_the_contract_order(self, opened: Open) -> None:
        file = opened(tiny_yolo())
        nodes = [node_of(file, t) for t in head_tensors()]

        assert discover(file, nodes[::-1]) == discover(file)

    def test_chooses_one_of_two_heads(self, opened: Open) -> None:
        file = opened(wrong_onnx("two_heads"))
        layouts: list[HeadLayout] = []
        for prefix in ("", "first_"):
            layouts.append(discover(file, [node_of(file, prefix + t) for t in head_tensors()]))
            prove(file, layouts[-1])

        assert [t.removeprefix("first_") for t in layouts[1].tensors] == list(layouts[0].tensors)
        assert layouts[0].raw != layouts[1].raw

    def test_takes_the_detector_out_of_a_segmentation_model(self, opened: Open) -> None:
        file = opened(wrong_onnx("segment"))

        layout = discover(file, [node_of(file, t) for t in head_tensors()])

        assert prove(file, layout).max_abs_px < 0.05

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            pytest.param(lambda n: [*n[:5], "/net/Konv_77"], "no node '/net/Konv_77'.*did you mean", id="misspelt"),
            pytest.param(lambda n: [*n[:5], "raw_cls_32"], "'raw_cls_32' is a tensor.*'/net/Conv_", id="a tensor"),
            pytest.param(lambda n: [*n[:5], n[0]], "twice", id="one twice"),
            pytest.param(lambda n: n[:5], "do not pair up.*expected one box and one class", id="one missing"),
            pytest.param(lambda n: n[:4], "no tensor with the boxes.*left out: /net/Conv", id="a scale missing"),
            pytest.param(
                lambda n: [*n[:5], "/net/Concat_46"], "is a Concat; expected the name of a Conv", id="no Conv"
            ),
            pytest.param(lambda n: [*n[:5], "/net/Conv_0"], "is not a head Conv", id="a Conv of the backbone"),
        ],
    )
    def test_is_checked_just_as_hard(self, change: Callable[[list[str]], list[str]], words: str, opened: Open) -> None:
        model = tiny_yolo()
        concat = next(n for n in model.graph.node if n.op_type == "Concat")
        concat.name = "/net/Concat_46"
        file = opened(model)

        with pytest.raises(ModelError, match=words):
            discover(file, change([node_of(file, t) for t in head_tensors()]))

    def test_made_up_names_of_nameless_nodes_are_accepted(self, opened: Open) -> None:
        file = opened(tiny_yolo(named=False))

        assert discover(file, discover(file).end_nodes) == discover(file)
