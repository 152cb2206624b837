"""Exports that were edited: wrapped, converted, optimised, or with the tail of another application."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from hefkit.errors import ModelError
from hefkit.workshop.emulator.build import Emulator
from hefkit.workshop.heads.discover import discover
from hefkit.workshop.heads.proof import prove
from hefkit.workshop.network.file import OnnxFile, load_onnx
from tests.helpers.tiny_onnx import drawn, network_input, run_onnx, save, tiny_yolo

Open = Callable[[onnx.ModelProto], OnnxFile]
ANCHORS = (64, 16, 4)  # of strides 8, 16, 32 in 64x64
ALL = sum(ANCHORS)


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    """Write a model and open it as compile_to_hef.py would."""
    return lambda model: load_onnx(save(model, tmp_path / "model.onnx"))


def constant(model: onnx.ModelProto, name: str, value: object, dtype: type = np.float32) -> str:
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, dtype), name))
    return name


def ending(model: onnx.ModelProto, nodes: list[onnx.NodeProto], outputs: dict[str, list[int]]) -> onnx.ModelProto:
    """Further nodes below a model, and its outputs from then on."""
    model.graph.node.extend(nodes)
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items())
    return model


def beginning(model: onnx.ModelProto, nodes: list[onnx.NodeProto], image: str) -> onnx.ModelProto:
    """Nodes before a model that make its old input of the new one, `image`."""
    old = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *old])
    model.graph.input[0].name = image
    return model


def preselected(classes: int = 3) -> onnx.ModelProto:
    """The 20 anchors with the best scores, for an NMS that the application does."""
    model = tiny_yolo(classes=classes)
    raw = model.graph.output[0].name
    i64 = {k: constant(model, f"t_{k}", v, np.int64) for k, v in {"k": [20], "0": [0], "1": [1], "4": [4]}.items()}
    end = constant(model, "t_end", [4 + classes], np.int64)
    nodes = [
        helper.make_node("Slice", [raw, i64["4"], end, i64["1"]], ["t_scores"]),
        helper.make_node("ReduceMax", ["t_scores"], ["t_best"], axes=[1], keepdims=0),
        helper.make_node("TopK", ["t_best", i64["k"]], ["t_values", "t_indices"]),
        helper.make_node("Squeeze", ["t_indices"], ["t_flat"], axes=[0]),
        helper.make_node("Gather", [raw, "t_flat"], ["top"], axis=2),
    ]
    return ending(model, nodes, {"top": [1, 4 + classes, 20]})


@pytest.mark.parametrize("classes", [2, 3])
def test_picking_candidates_does_not_make_a_head_one_to_one(classes: int, opened: Open) -> None:
    """A top-k without an NMS in the graph, yet every object keeps its many boxes: they must be suppressed here."""
    file = opened(preselected(classes))
    layout = discover(file)
    assert not layout.nms_free
    assert prove(file, layout).max_abs_px < 0.01


def test_an_nms_of_a_plugin_is_an_nms(opened: Open) -> None:
    model = preselected()
    split = constant(model, "e_split", [4, 3], np.int64)
    nodes = [
        helper.make_node("Transpose", ["top"], ["e_t"], perm=[0, 2, 1]),
        helper.make_node("Slice", ["e_t", "t_0", "t_4", constant(model, "e_2", [2], np.int64)], ["e_boxes"]),
        helper.make_node("Slice", ["e_t", "t_4", "t_end", "e_2"], ["e_scores"]),
        helper.make_node("EfficientNMS_TRT", ["e_boxes", "e_scores"], ["num", "boxes", "scores", "labels"]),
    ]
    assert split
    file = opened(ending(model, nodes, {"num": [1, 1], "boxes": [1, 20, 4], "scores": [1, 20], "labels": [1, 20]}))
    assert not discover(file).nms_free


@pytest.mark.parametrize("tail", ["none", "nms", "topk"])
def test_one_to_one_is_what_ends_in_class_numbers_of_a_top_k(tail: str, opened: Open) -> None:
    assert discover(opened(tiny_yolo(tail=tail))).nms_free == (tail == "topk")


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_deepstream_s_best_class_is_not_taken_for_raw_predictions(classes: int, opened: Open) -> None:
    """Boxes, best score, its class: with one or two classes that has as many columns as raw predictions."""
    model = tiny_yolo(classes=classes, boxes="xyxy")
    nodes = [
        helper.make_node("Transpose", [model.graph.output[0].name], ["d_t"], perm=[0, 2, 1]),
        helper.make_node("Split", ["d_t"], ["d_boxes", "d_scores"], axis=2, split=[4, classes]),
        helper.make_node("ReduceMax", ["d_scores"], ["d_best"], axes=[2]),
        helper.make_node("ArgMax", ["d_scores"], ["d_index"], axis=2),
        helper.make_node("Cast", ["d_index"], ["d_class"], to=TensorProto.FLOAT),
        helper.make_node("Concat", ["d_boxes", "d_best", "d_class"], ["detections"], axis=2),
    ]
    file = opened(ending(model, nodes, {"detections": [1, ALL, 6]}))
    layout = discover(file)
    assert layout.raw != ("detections",)
    assert (layout.num_classes, layout.nms_free) == (classes, False)
    assert prove(file, layout).max_abs_score < 1e-4


def test_the_coarsest_scale_may_come_first(opened: Open) -> None:
    model = tiny_yolo()
    order = np.concatenate([np.arange(80, 84), np.arange(64, 80), np.arange(64)])
    index = constant(model, "order", order, np.int64)
    raw = model.graph.output[0].name
    file = opened(
        ending(model, [helper.make_node("Gather", [raw, index], ["turned"], axis=2)], {"turned": [1, 7, ALL]})
    )
    layout = discover(file)
    assert (layout.raw, layout.strides) == (("turned",), (8, 16, 32))
    assert prove(file, layout).max_abs_px < 0.01


def test_any_other_order_is_refused(opened: Open) -> None:
    model = tiny_yolo()
    index = constant(model, "order", np.arange(ALL)[::-1], np.int64)
    raw = model.graph.output[0].name
    file = opened(
        ending(model, [helper.make_node("Gather", [raw, index], ["turned"], axis=2)], {"turned": [1, 7, ALL]})
    )
    with pytest.raises(ModelError, match="other predictions than the whole"):
        prove(file, discover(file))


@pytest.mark.parametrize(("operation", "number"), [("Div", 255.0), ("Mul", 1 / 255), ("Mul", [[[0.004]]] * 3)])
def test_a_division_by_255_in_the_graph_is_refused(operation: str, number: object, opened: Open) -> None:
    """Pictures of 0..1 would reach the first layer as 0..0.004, and nothing would ever be found."""
    model = tiny_yolo()
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["turned"], perm=[0, 1, 2, 3]),
        helper.make_node(operation, ["turned", constant(model, "number", number)], ["images"]),
    ]
    with pytest.raises(ModelError, match=r"scales its input by 1/25[05] itself .* takes pictures of 0 to 255"):
        opened(beginning(model, nodes, "pixels"))


def test_mean_and_deviation_in_the_graph_are_not(opened: Open) -> None:
    model = tiny_yolo()
    nodes = [
        helper.make_node("Sub", ["pixels", constant(model, "mean", [[[0.485]], [[0.456]], [[0.406]]])], ["centred"]),
        helper.make_node("Div", ["centred", constant(model, "std", [[[0.229]], [[0.224]], [[0.225]]])], ["images"]),
    ]
    file = opened(beginning(model, nodes, "pixels"))
    assert prove(file, discover(file)).max_abs_px < 0.01


def test_names_that_the_emulated_model_uses_itself(opened: Open) -> None:
    """A wrapper in front makes the old input `images` an inner tensor; the emulated model has an input of that name."""
    model = tiny_yolo()
    swap = helper.make_node("Gather", ["rgb", constant(model, "input/scale", [0, 1, 2], np.int64)], ["images"], axis=1)
    beginning(model, [swap], "rgb")
    for node in model.graph.node:  # a head that is called like another output, and a weight like something made
        node.input[:] = [{"raw_box_8": "cls8"}.get(n, n) for n in node.input]
        node.output[:] = [{"raw_box_8": "cls8"}.get(n, n) for n in node.output]
    emulated, exact = emulation(opened(model))
    for name, values in exact.items():
        assert np.abs(emulated[name] - values).max() < 0.1 * max(1.0, np.abs(values).max())


def emulation(file: OnnxFile) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Head tensors (1, C, H, W) of a picture from the emulated model, dequantised, and from the float one."""
    layout = discover(file)
    emulator = Emulator(file, layout, (0.0,) * 3, (255.0,) * 3, logits=True)
    pictures = [drawn((64, 64), seed) for seed in range(4)]
    emulator.measure(lambda: iter(pictures))
    model = emulator.quantize(lambda: iter(pictures))
    onnx.checker.check_model(model)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    codes = session.run(emulator.output_names(), {"images": pictures[0][None]})
    found = {}
    for name, code, output in zip(emulator.output_names(), codes, emulator.head_spec().outputs, strict=True):
        found[name] = ((code.astype(np.float32) - output.zero_point) * output.scale).transpose(0, 3, 1, 2)
    exact = run_onnx(file.model, network_input(pictures[0]), *layout.tensors)
    return found, dict(zip(emulator.output_names(), exact, strict=True))


def rounding_points(file: OnnxFile) -> int:
    return len(Emulator(file, discover(file), (0.0,) * 3, (255.0,) * 3).plan.points)


def test_weights_behind_a_cast_are_weights(opened: Open) -> None:
    """Converters to float16 leave them like that; the emulator quantises them as it does any others."""
    model, plain = tiny_yolo(), rounding_points(opened(tiny_yolo()))
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) in (1, 4) and tensor.name.startswith("w"):
            name, half = tensor.name, numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
            casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    assert casts
    file = opened(beginning(model, casts, "images"))
    assert rounding_points(file) == plain
    assert not discover(file).half  # it computes in float32
    emulated, exact = emulation(file)
    for name, values in exact.items():
        assert np.abs(emulated[name] - values).max() < 0.1 * max(1.0, np.abs(values).max())


@pytest.mark.parametrize("sizes", [4, [4, 4]])
def test_lists_of_tensors_become_slices(sizes: object, opened: Open) -> None:
    """PyTorch's unoptimised export of chunk(): the same predictions, and an emulation as of any other network."""
    model = tiny_yolo()
    node = next(n for n in model.graph.node if n.op_type == "Mul")  # of the stem, 8 channels
    inner = f"{node.output[0]}_whole"
    parts = [
        helper.make_node("SplitToSequence", [inner, constant(model, "sizes", sizes, np.int64)], ["parts"], axis=1),
        helper.make_node("SequenceAt", ["parts", constant(model, "first", 0, np.int64)], ["part0"]),
        helper.make_node("SequenceAt", ["parts", constant(model, "second", 1, np.int64)], ["part1"]),
        helper.make_node("Concat", ["part0", "part1"], [node.output[0]], axis=1),
    ]
    before = run_onnx(model, network_input(drawn((64, 64), 0)), model.graph.output[0].name)[0]
    node.output[0] = inner
    at = list(model.graph.node).index(node) + 1
    for offset, part in enumerate(parts):
        model.graph.node.insert(at + offset, part)
    file = opened(model)
    assert not [n for n in file.model.graph.node if n.op_type == "SequenceAt"]
    after = run_onnx(file.model, network_input(drawn((64, 64), 0)), file.model.graph.output[0].name)[0]
    np.testing.assert_array_equal(after, before)
    emulated, exact = emulation(file)
    for name, values in exact.items():
        assert np.abs(emulated[name] - values).max() < 0.1 * max(1.0, np.abs(values).max())


def test_a_random_weight_is_not_frozen(opened: Open) -> None:
    model = tiny_yolo()
    weight = next(t for t in model.graph.initializer if len(t.dims) == 4)
    noise = helper.make_node("RandomNormal", [], ["noise"], shape=list(weight.dims))
    reader = next(n for n in model.graph.node if weight.name in n.input)
    reader.input[list(reader.input).index(weight.name)] = "noise"
    file = opened(beginning(model, [noise], "images"))
    assert any("noise" in node.input for node in file.model.graph.node)


def test_idle_casts_do_not_part_a_conv_from_its_activation(opened: Open) -> None:
    """A converter that keeps Sigmoid in float32 puts Casts around each; in the emulation they are idle."""
    plain = rounding_points(opened(tiny_yolo(half=True)))
    model = tiny_yolo(half=True)
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        if node.op_type != "Sigmoid":
            model.graph.node.append(node)
            continue
        source, result = node.input[0], node.output[0]
        node.input[0], node.output[0] = f"{source}_32_{result}", f"{result}_32"
        model.graph.node.extend(
            [
                helper.make_node("Cast", [source], [node.input[0]], to=TensorProto.FLOAT),
                node,
                helper.make_node("Cast", [node.output[0]], [result], to=TensorProto.FLOAT16),
            ]
        )
    file = opened(model)
    assert rounding_points(file) == plain
    assert discover(file).half


@pytest.mark.parametrize(
    ("level", "refused"),
    [(ort.GraphOptimizationLevel.ORT_ENABLE_BASIC, False), (ort.GraphOptimizationLevel.ORT_ENABLE_ALL, True)],
)
def test_what_onnxruntime_saved(level: ort.GraphOptimizationLevel, refused: bool, tmp_path: Path) -> None:
    """At its default level it writes operators for the processor that it runs on."""
    options = ort.SessionOptions()
    options.graph_optimization_level, options.log_severity_level = level, 4
    options.optimized_model_filepath = str(tmp_path / "saved.onnx")
    model = tiny_yolo(width=16)
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    blocked = any("nchwc" in n.domain for n in onnx.load(tmp_path / "saved.onnx").graph.node)
    if refused and not blocked:
        pytest.skip("onnxruntime writes no blocked operators on this processor")
    if refused:
        with pytest.raises(ModelError, match="saved by onnxruntime with all its optimisations"):
            load_onnx(tmp_path / "saved.onnx")
    else:
        file = load_onnx(tmp_path / "saved.onnx")
        assert prove(file, discover(file)).max_abs_px < 0.01


def test_operators_of_onnxruntime_give_a_warning(opened: Open, caplog: pytest.LogCaptureFixture) -> None:
    """SiLU as QuickGelu: emulated with as few roundings as SiLU, and a warning about Hailo's compiler."""
    plain, model = rounding_points(opened(tiny_yolo())), tiny_yolo()
    graph = model.graph
    sigmoids = {n.output[0]: n for n in graph.node if n.op_type == "Sigmoid"}
    for node in list(graph.node):
        gate = next((sigmoids[n] for n in node.input if n in sigmoids), None)
        if node.op_type == "Mul" and gate is not None and gate.input[0] in node.input:
            graph.node.remove(gate)
            position = list(graph.node).index(node)
            graph.node.remove(node)
            fused = helper.make_node("QuickGelu", [gate.input[0]], [node.output[0]], domain="com.microsoft", alpha=1.0)
            graph.node.insert(position, fused)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    with caplog.at_level(logging.WARNING):
        file = opened(model)
    assert "QuickGelu" in caplog.text
    assert rounding_points(file) == plain


def test_constants_outside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights as Constant nodes whose data lie beside the ONNX, opened from another folder."""
    folder = tmp_path / "there"
    folder.mkdir()
    model = tiny_yolo(simplified=False)
    onnx.save(
        model, folder / "model.onnx", save_as_external_data=True, location="model.data", convert_attribute=True,
        size_threshold=64,
    )  # fmt: skip
    assert (folder / "model.data").stat().st_size > 1000
    monkeypatch.chdir(tmp_path)
    file = load_onnx(folder / "model.onnx")
    assert prove(file, discover(file)).max_abs_px < 0.01


def test_channels_last_and_a_free_size(tmp_path: Path) -> None:
    model = tiny_yolo()
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, "h", "w", 3]))
    with pytest.raises(ModelError, match="NHWC"):
        load_onnx(save(model, tmp_path / "nhwc.onnx"), (64, 64))


def test_raw_heads_for_another_chip(opened: Open) -> None:
    """Rockchip's exports: boxes as bins, classes after their sigmoid, and the sum of these to skip cells quickly."""
    model = tiny_yolo()
    layout = discover(opened(model))
    nodes, outputs = [], {}
    for conv in layout.convs:
        name, (height, width, channels) = conv.tensor_name, conv.shape
        if conv.role == "box":
            outputs[name] = [1, channels, height, width]
            continue
        nodes.append(helper.make_node("Sigmoid", [name], [f"{name}_scores"]))
        nodes.append(helper.make_node("ReduceSum", [f"{name}_scores"], [f"{name}_sum"], axes=[1], keepdims=1))
        nodes.append(helper.make_node("Clip", [f"{name}_sum"], [f"{name}_any"]))
        outputs |= {f"{name}_scores": [1, channels, height, width], f"{name}_any": [1, 1, height, width]}
    file = opened(ending(model, nodes, outputs))
    with pytest.raises(ModelError, match="has been cut at its heads already"):
        discover(file)


def test_weights_in_bfloat16(tmp_path: Path) -> None:
    model = tiny_yolo()
    weight = next(t for t in model.graph.initializer if len(t.dims) == 4)
    half = helper.make_tensor(
        weight.name, TensorProto.BFLOAT16, weight.dims, numpy_helper.to_array(weight).ravel().tolist()
    )
    weight.CopyFrom(half)
    with pytest.raises(ModelError, match="bfloat16 weights"):
        load_onnx(save(model, tmp_path / "model.onnx"))


def test_a_sparse_weight_of_terabytes(opened: Open) -> None:
    """One number and a shape: refused before memory is asked for."""
    model = tiny_yolo()
    one, place = numpy_helper.from_array(np.ones(1, np.float32), "huge"), numpy_helper.from_array(np.zeros(1, np.int64))
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(one, place, [1 << 20, 1 << 20]))

    with pytest.raises(ModelError, match="claims the shape"):
        opened(model)


@pytest.mark.parametrize("flat", [True, False])
def test_sparse_weights_are_weights(flat: bool, opened: Open) -> None:
    """A pruned network may keep the values that are left, and where they belong: flattened, or row by row."""
    model = tiny_yolo()
    picture = network_input(drawn((64, 64)))
    expected = run_onnx(model, picture)
    weight = next(t for t in model.graph.initializer if len(t.dims) == 4)
    dense = numpy_helper.to_array(weight)
    places = np.flatnonzero(dense) if flat else np.argwhere(dense)
    values = numpy_helper.from_array(dense[dense != 0], weight.name)
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(places), list(weight.dims))
    model.graph.initializer.remove(weight)
    model.graph.sparse_initializer.append(sparse)
    file = opened(model)
    for ours, theirs in zip(run_onnx(file.model, picture), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert prove(file, discover(file)).max_abs_px < 0.01
