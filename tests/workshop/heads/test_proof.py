"""`prove` passes for real exports, and fails as soon as something is wrong; test_discover.py has every kind of export.

The reference inside `prove` is onnxruntime on the uncut graph; one test here reads that graph independently.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hefkit.detect.decode import decode_all
from hefkit.errors import ModelError
from hefkit.workshop.heads.discover import HeadLayout, discover
from hefkit.workshop.heads.proof import LIMITS, prove, synthetic_images
from hefkit.workshop.network.cut import cut
from hefkit.workshop.network.file import OnnxFile, load_onnx
from tests.helpers.tiny_onnx import drawn, network_input, run_onnx, save, tiny_yolo


def found(model: onnx.ModelProto, folder: Path, imgsz: tuple[int, int] | None = None) -> tuple[OnnxFile, HeadLayout]:
    """The opened file and its heads."""
    file = load_onnx(save(model, folder / "model.onnx"), imgsz)
    return file, discover(file)


def weight(model: onnx.ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change one initializer."""
    tensor = next(t for t in model.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), name))


def reader(model: onnx.ModelProto, kind: str) -> onnx.NodeProto:
    """The last node of a kind."""
    return next(n for n in reversed(model.graph.node) if n.op_type == kind)


@pytest.mark.parametrize("domain", ["", "TRT"], ids=["without a domain", "with its domain"])
def test_tensorrt_s_nms_below_the_heads_is_cut_away(domain: str, tmp_path: Path) -> None:
    """Only TensorRT can run this plugin; the raw predictions above it are the reference."""
    model = tiny_yolo(boxes="xyxy", ends="pair")
    boxes, scores = (output.name for output in model.graph.output)
    names = ["num_dets", "det_boxes", "det_scores", "det_classes"]
    model.graph.node.append(helper.make_node("EfficientNMS_TRT", [boxes, scores], names, domain=domain))
    if domain:
        model.opset_import.append(helper.make_opsetid(domain, 1))
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, "n"]) for n in names)

    file, layout = found(model, tmp_path)

    assert (layout.num_classes, layout.strides) == (3, (8, 16, 32))
    assert prove(file, layout).max_abs_px < 0.05


def test_cut_and_decode_agree_with_a_reading_of_our_own(tmp_path: Path) -> None:
    """output0 is (1, 4 + 3, 84): cx, cy, w, h, three scores."""
    model = tiny_yolo()
    file, layout = found(model, tmp_path)
    picture = network_input(drawn((64, 64), seed=7))
    raw = run_onnx(model, picture)[0][0].T  # (84, 7)
    centre, size = raw[:, :2], raw[:, 2:4]

    heads = [t[0].transpose(1, 2, 0).copy() for t in run_onnx(cut(file.model, layout.tensors), picture)]
    xyxy, scores = decode_all(heads, layout.to_head_spec())

    np.testing.assert_allclose(xyxy, np.hstack([centre - size / 2, centre + size / 2]), atol=1e-3)
    np.testing.assert_allclose(scores, raw[:, 4:], atol=1e-6)
    assert scores.max() > 0.5 > 0.05 > scores.min()  # the toy does see something


def swap_roles(layout: HeadLayout) -> HeadLayout:
    """Box and class tensors exchanged, where their shapes are equal."""
    convs = list(layout.convs)
    for i in range(0, len(convs), 2):
        box, cls = convs[i : i + 2]
        convs[i] = replace(cls, role="box")
        convs[i + 1] = replace(box, role="cls")
    return replace(layout, convs=tuple(convs))


def double_strides(layout: HeadLayout) -> HeadLayout:
    convs = tuple(replace(c, stride=2 * c.stride) for c in layout.convs)
    return replace(layout, convs=convs, strides=tuple(2 * s for s in layout.strides))


@pytest.mark.parametrize(
    ("options", "mutate"),
    [
        pytest.param({"classes": 64}, swap_roles, id="roles swapped, DFL"),
        pytest.param({"classes": 4, "family": "ltrb"}, swap_roles, id="roles swapped, distances"),
        pytest.param({}, double_strides, id="wrong strides"),
        pytest.param({"family": "ltrb", "half": True}, double_strides, id="wrong strides, float16"),
    ],
)
def test_a_wrong_layout_fails(
    options: dict[str, Any], mutate: Callable[[HeadLayout], HeadLayout], tmp_path: Path
) -> None:
    file, layout = found(tiny_yolo(**options), tmp_path)

    with pytest.raises(ModelError, match="other predictions than the whole ONNX"):
        prove(file, mutate(layout))


def test_random_weights_hide_no_wrong_roles(tmp_path: Path) -> None:
    """Heads that give the same for every picture: only the random head tensors show which role is which."""
    model = tiny_yolo(classes=64)
    for node in model.graph.node:
        if node.output[0].startswith("raw_"):
            weight(model, node.input[1], np.zeros_like)
            weight(model, node.input[2], np.zeros_like)
    file, layout = found(model, tmp_path)

    assert prove(file, layout).max_abs_px < LIMITS[0]
    with pytest.raises(ModelError, match="other predictions"):
        prove(file, swap_roles(layout))


def bins_of_another_kind(dfl: str) -> onnx.ModelProto:
    return tiny_yolo(dfl=dfl, bins=[i + 0.05 * (i == 9) for i in range(16)])


def anchors_without_the_half(family: str) -> onnx.ModelProto:
    model = tiny_yolo(family=family)
    weight(model, next(n for n in model.graph.node if n.op_type == "Sub").input[0], lambda a: a - np.float32(0.5))
    return model


def scores_times(factor: float) -> onnx.ModelProto:
    """Something below the Sigmoid: a combination of class and objectness, say."""
    model = tiny_yolo(style="per_scale", ends="pair")
    turned = reader(model, "Transpose")
    model.graph.initializer.append(numpy_helper.from_array(np.float32(factor), "factor"))
    before = next(i for i, n in enumerate(model.graph.node) if n is turned or n == turned)
    model.graph.node.insert(before, onnx.helper.make_node("Mul", [turned.input[0], "factor"], ["scaled"], name="scale"))
    model.graph.node[before + 1].input[0] = "scaled"
    return model


def objectness_of(value: float) -> onnx.ModelProto:
    model = tiny_yolo(style="per_scale", ends="objectness")
    ones = next(n for n in reversed(model.graph.node) if n.op_type == "Add" and n.input[1].startswith("c"))
    weight(model, ones.input[1], lambda a: a * np.float32(value))
    return model


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(lambda: bins_of_another_kind("matmul"), id="other DFL weights, MatMul"),
        pytest.param(lambda: bins_of_another_kind("mulsum"), id="other DFL weights, ReduceSum"),
        pytest.param(lambda: anchors_without_the_half("dfl"), id="anchors at corners, DFL"),
        pytest.param(lambda: anchors_without_the_half("ltrb"), id="anchors at corners, distances"),
        pytest.param(lambda: scores_times(0.99), id="scores scaled by one percent"),
        pytest.param(lambda: objectness_of(0.9), id="objectness that is not one"),
    ],
)
def test_other_arithmetic_fails(model: Callable[[], onnx.ModelProto], tmp_path: Path) -> None:
    file, layout = found(model(), tmp_path)

    with pytest.raises(ModelError, match="other predictions than the whole ONNX"):
        prove(file, layout)


def test_scores_that_are_not_scaled_pass(tmp_path: Path) -> None:
    """The twin of the scaled ones: the same graph with a factor of one."""
    file, layout = found(scores_times(1.0), tmp_path)

    assert prove(file, layout).max_abs_score < LIMITS[1]


@pytest.mark.parametrize(
    ("half", "shift", "passes"),
    [(False, 0.04, True), (False, 0.06, False), (True, 0.5, True), (True, 1.6, False)],
)
def test_the_limits_are_those_of_the_contract(half: bool, shift: float, passes: bool, tmp_path: Path) -> None:
    """Boxes moved by some hundredths of a pixel: 0.05 px are allowed, 1 px for float16."""
    model = tiny_yolo(boxes="xyxy", half=half)
    concat = reader(model, "Concat")
    shift_by = np.asarray(shift, np.float16 if half else np.float32)
    model.graph.initializer.append(numpy_helper.from_array(shift_by, "shift"))
    where = len(model.graph.node) - 1
    model.graph.node.insert(where, onnx.helper.make_node("Add", [concat.input[0], "shift"], ["moved"], name="move"))
    model.graph.node[where + 1].input[0] = "moved"
    file, layout = found(model, tmp_path)

    if passes:
        assert prove(file, layout).max_abs_px == pytest.approx(shift, abs=0.2 if half else 1e-3)
    else:
        with pytest.raises(ModelError, match="other predictions"):
            prove(file, layout)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_broken_weights_are_refused(bad: float, tmp_path: Path) -> None:
    model = tiny_yolo()
    weight(model, model.graph.node[0].input[2], lambda a: np.full_like(a, bad))
    file, layout = found(model, tmp_path)

    with pytest.raises(ModelError, match="NaN or infinite"):
        prove(file, layout)


class TestPictures:
    """What goes through the networks."""

    def test_two_synthetic_ones_always_the_same(self) -> None:
        first, second = synthetic_images((64, 96))

        assert first.shape == second.shape == (64, 96, 3) and first.dtype == np.uint8
        assert (first != second).any() and first.std() > 10
        np.testing.assert_array_equal(first, synthetic_images((64, 96))[0])

    @pytest.mark.parametrize(("given", "used"), [(0, 2), (1, 3), (2, 4), (5, 4)])
    def test_the_first_two_given_are_used_as_well(self, given: int, used: int, tmp_path: Path) -> None:
        file, layout = found(tiny_yolo(), tmp_path)

        proof = prove(file, layout, [drawn((64, 64), seed) for seed in range(given)])

        assert proof.images == used

    def test_must_have_the_size_of_the_input(self, tmp_path: Path) -> None:
        file, layout = found(tiny_yolo(), tmp_path)

        with pytest.raises(ValueError, match=r"expected \(64, 64, 3\) uint8"):
            prove(file, layout, [drawn((64, 96))])


# file -> family, classes, strides, NMS-free, end nodes of the box and the class branch
OWN = ("/model.{m}/cv2.{i}/cv2.{i}.2/Conv", "/model.{m}/cv3.{i}/cv3.{i}.2/Conv")
ONE = ("/model.{m}/one2one_cv2.{i}/one2one_cv2.{i}.2/Conv", "/model.{m}/one2one_cv3.{i}/one2one_cv3.{i}.2/Conv")
NMS = tuple("/model" + name for name in OWN)
REAL: dict[str, tuple[str, int, tuple[int, ...], bool, int, tuple[str, ...]]] = {
    "bccd_416.onnx": ("dfl", 3, (8, 16, 32), False, 22, OWN),
    "leyolo_nano_640.onnx": ("dfl", 80, (8, 16, 32), False, 35, tuple(n.replace(".2/", ".3/") for n in OWN)),
    "graphs/yolo11.onnx": ("dfl", 2, (8, 16, 32), False, 23, OWN),
    "graphs/yolo11_nms.onnx": ("dfl", 2, (8, 16, 32), False, 23, NMS),
    "graphs/yolo26.onnx": ("ltrb", 2, (8, 16, 32), True, 23, ONE),
    "graphs/yolo26_nms.onnx": ("ltrb", 2, (8, 16, 32), False, 23, NMS),
    "graphs/yolov10.onnx": ("dfl", 2, (8, 16, 32), True, 23, ONE),
    "graphs/yolov5.onnx": ("dfl", 2, (8, 16, 32), False, 24, OWN),
    "graphs/yolov6.onnx": ("dfl", 2, (8, 16, 32), False, 28, OWN),
    "graphs/yolov8.onnx": ("dfl", 2, (8, 16, 32), False, 22, OWN),
    "graphs/yolov8_nms.onnx": ("dfl", 2, (8, 16, 32), False, 22, NMS),
    "graphs/yolov8p2.onnx": ("dfl", 2, (4, 8, 16, 32), False, 28, OWN),
}


@pytest.mark.parametrize("name", REAL)
def test_real_exports_are_found_and_proven(name: str, shared: Path) -> None:
    family, classes, strides, nms_free, module, branches = REAL[name]

    file = load_onnx(shared / "models" / name)
    layout = discover(file)
    proof = prove(file, layout)

    assert (layout.family, layout.num_classes, layout.strides, layout.nms_free) == (family, classes, strides, nms_free)
    assert list(layout.end_nodes) == [b.format(m=module, i=i) for i in range(len(strides)) for b in branches]
    assert proof.max_abs_px < 1e-3 and proof.max_abs_score < 1e-5


def test_no_real_export_is_left_out(shared: Path) -> None:
    """The table above names every ONNX in the folder, so each of them is found and proven by the test before."""
    models = shared / "models"

    assert sorted(p.relative_to(models).as_posix() for p in models.rglob("*.onnx")) == sorted(REAL)
