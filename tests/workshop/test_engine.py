"""ONNX engines: a float YOLO cut on the fly, and an emulated one that must match its spec."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hefkit.detect.decode import decode_all
from hefkit.detect.engine import EngineOptions
from hefkit.errors import ModelError, UsageError
from hefkit.open_model import open_engine
from hefkit.spec import HeadSpec, InputSpec, ModelSpec, OutputSpec
from hefkit.workshop.engine import EmulatedEngine, FloatEngine, open_onnx
from tests.helpers.tiny_onnx import drawn, head_tensors, network_input, run_onnx, save, tiny_yolo

SIZE = (32, 64)
CLASSES = 2


class TestFloat:
    """kind "float": the network as exported, without rounding."""

    @pytest.mark.parametrize(
        "options",
        [
            pytest.param({}, id="DFL"),
            pytest.param({"family": "ltrb", "tail": "topk"}, id="distances, end to end"),
            pytest.param({"tail": "nms", "named": False}, id="NMS inside, nameless"),
            pytest.param({"half": True}, id="float16"),
            pytest.param({"size": (64, 96), "dynamic": "batch"}, id="dynamic batch, not square"),
        ],
    )
    def test_gives_what_the_whole_network_computes_there(self, options: dict[str, Any], tmp_path: Path) -> None:
        model = tiny_yolo(**options)
        size = options.get("size", (64, 64))
        pictures = np.stack([drawn(size, seed) for seed in range(3)])

        with open_onnx(save(model, tmp_path / "tiny.onnx")) as engine:
            batches = engine.infer(pictures)
            spec = engine.spec

        assert (engine.kind, spec.kind, spec.input.size) == ("float", "float", size)
        for picture, tensors in zip(pictures, batches, strict=True):
            feed = network_input(picture, "float16" if options.get("half") else "float32")
            for got, expected, out in zip(
                tensors, run_onnx(model, feed, *head_tensors()), spec.head.outputs, strict=True
            ):
                assert (got.shape, got.dtype) == (out.shape, np.float32) and got.flags.c_contiguous
                np.testing.assert_allclose(
                    got, expected[0].transpose(1, 2, 0), atol=0.02 if options.get("half") else 1e-5
                )

    def test_spec_is_complete(self, tmp_path: Path) -> None:
        path = save(tiny_yolo(family="ltrb", tail="topk", names="{0: 'drone'}"), tmp_path / "tiny.onnx")

        spec = open_onnx(path).spec

        assert spec.input == InputSpec((64, 64))
        assert spec.head.nms_free and spec.head.num_classes == 3
        assert spec.names == {0: "drone", 1: "class1", 2: "class2"}
        assert spec.source == {"file": "tiny.onnx", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}

    def test_decodes_to_boxes_of_the_raw_predictions(self, tmp_path: Path) -> None:
        model = tiny_yolo(boxes="xyxy")
        picture = drawn((64, 64), 3)

        with open_engine(save(model, tmp_path / "tiny.onnx")) as engine:
            xyxy, scores = decode_all(engine.infer(picture[None])[0], engine.spec.head)

        raw = run_onnx(model, network_input(picture))[0][0].T
        np.testing.assert_allclose(np.hstack([xyxy, scores]), raw, atol=1e-3)

    def test_dynamic_size_needs_a_decision(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"dynamic size.*compile_to_hef\.py with --imgsz, or export"):
            open_onnx(save(tiny_yolo(dynamic="size"), tmp_path / "tiny.onnx"))

    @pytest.mark.parametrize(
        "batch",
        [
            pytest.param(np.zeros((1, 64, 96, 3), np.uint8), id="another size"),
            pytest.param(np.zeros((64, 64, 3), np.uint8), id="no batch"),
            pytest.param(np.zeros((1, 3, 64, 64), np.uint8), id="channels first"),
            pytest.param(np.zeros((1, 64, 64, 3), np.float32), id="floats"),
        ],
    )
    def test_other_batches_are_bugs(self, batch: np.ndarray, tmp_path: Path) -> None:
        engine = open_onnx(save(tiny_yolo(), tmp_path / "tiny.onnx"))

        with pytest.raises(ValueError, match=r"expected \(N, 64, 64, 3\) uint8"):
            engine.infer(batch)

    def test_empty_batch_and_two_closes(self, tmp_path: Path) -> None:
        engine = open_onnx(save(tiny_yolo(), tmp_path / "tiny.onnx"))

        assert engine.infer(np.zeros((0, 64, 64, 3), np.uint8)) == []
        engine.close()
        engine.close()
        with pytest.raises(ValueError, match="closed"):
            engine.infer(np.zeros((1, 64, 64, 3), np.uint8))


def emulated_head() -> tuple[OutputSpec, ...]:
    """Two scales of an imagined ltrb head with two classes, 8 and 16 bit."""
    return tuple(
        OutputSpec(
            role, s, (SIZE[0] // s, SIZE[1] // s, channels), f"/{role}{s}", f"{role}{s}", activation, dtype, 0.5, 3
        )
        for s in (8, 16)
        for role, channels, activation, dtype in (("box", 4, "none", "uint16"), ("cls", CLASSES, "sigmoid", "uint8"))
    )


def emulated_model(outputs: tuple[OutputSpec, ...], input_name: str = "images") -> onnx.ModelProto:
    """uint8 NHWC in, codes out: every output is the picture, thinned out, its channels red, green, red, ..."""
    nodes, weights = [], []
    for i, out in enumerate(outputs):
        ends = f"rows{i}", f"channels{i}"
        picked = np.arange(out.shape[2]) % 2
        weights += [numpy_helper.from_array(picked, ends[1])]
        for name, values in (("start", [0, 0]), ("end", list(SIZE)), ("axes", [1, 2]), ("steps", [out.stride] * 2)):
            weights.append(numpy_helper.from_array(np.asarray(values), f"{name}{i}"))
        thinned = [input_name, f"start{i}", f"end{i}", f"axes{i}", f"steps{i}"]
        code = TensorProto.UINT16 if out.dtype == "uint16" else TensorProto.UINT8
        nodes += [
            helper.make_node("Slice", thinned, [f"thin{i}"]),
            helper.make_node("Gather", [f"thin{i}", ends[1]], [f"picked{i}"], axis=3),
            helper.make_node("Cast", [f"picked{i}"], [out.stream or ""], to=code),
        ]
    values = [
        helper.make_tensor_value_info(
            out.stream or "", TensorProto.UINT16 if out.dtype == "uint16" else TensorProto.UINT8, (1, *out.shape)
        )
        for out in outputs
    ]
    image = helper.make_tensor_value_info(input_name, TensorProto.UINT8, (1, *SIZE, 3))
    graph = helper.make_graph(nodes, "emulated", [image], values, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


Edit = Callable[[dict[str, Any]], object]


def write_emulated(
    folder: Path,
    model: onnx.ModelProto | None = None,
    spec: Edit = lambda value: None,
    notes: dict[str, str] | None = None,
) -> Path:
    """The pair NAME.emulated.onnx and NAME.emulated.json, as compile_to_hef.py --emulate writes it."""
    head = HeadSpec("ltrb", CLASSES, 1, (8, 16), False, emulated_head())
    value = ModelSpec("emulated", InputSpec(SIZE), head, {0: "drone", 1: "bird"}).to_json()
    spec(value)
    text = json.dumps(value).encode()
    (folder / "toy.emulated.json").write_bytes(text)
    model = model or emulated_model(emulated_head())
    own = {"hefkit.kind": "emulated", "hefkit.format": "1", "hefkit.spec_sha256": hashlib.sha256(text).hexdigest()}
    helper.set_model_props(model, own | (notes or {}))
    return save(model, folder / "toy.emulated.onnx")


class TestEmulated:
    """kind "emulated": codes, as a chip returns them."""

    def test_returns_codes_in_the_order_of_the_spec(self, tmp_path: Path) -> None:
        pictures = np.stack([drawn(SIZE, seed) for seed in (0, 1)])

        with open_engine(write_emulated(tmp_path)) as engine:
            results = engine.infer(pictures)

        assert (engine.kind, engine.spec.names) == ("emulated", {0: "drone", 1: "bird"})
        for picture, tensors in zip(pictures, results, strict=True):
            for tensor, out in zip(tensors, emulated_head(), strict=True):
                expected = picture[:: out.stride, :: out.stride][..., np.arange(out.shape[2]) % 2]
                assert tensor.dtype == np.dtype(out.dtype)
                np.testing.assert_array_equal(tensor, expected)

    def test_names_may_be_replaced(self, tmp_path: Path) -> None:
        assert open_onnx(write_emulated(tmp_path), EngineOptions({0: "a", 1: "b"})).spec.names == {0: "a", 1: "b"}

    def test_spec_must_be_there(self, tmp_path: Path) -> None:
        path = write_emulated(tmp_path)
        (tmp_path / "toy.emulated.json").unlink()

        with pytest.raises(ModelError, match=r"toy.emulated.json.*beside the model"):
            open_onnx(path)

    def test_spec_of_another_compilation(self, tmp_path: Path) -> None:
        path = write_emulated(tmp_path)
        spec = tmp_path / "toy.emulated.json"
        spec.write_text(spec.read_text() + " ")  # one byte is enough

        with pytest.raises(ModelError, match="do not belong together"):
            open_onnx(path)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            pytest.param({"notes": {"hefkit.format": "2"}}, "format '2', this hefkit reads '1'", id="format"),
            pytest.param({"notes": {"hefkit.spec_sha256": ""}}, "do not belong together", id="no hash"),
            pytest.param({"spec": lambda v: v.update(kind="hef")}, "is for a hef", id="kind"),
            pytest.param({"spec": lambda v: v.update(format=7)}, "format is 7", id="format of the spec"),
            pytest.param(
                {"model": emulated_model(emulated_head()[:2])},
                "3 inputs and outputs, its spec names 5",
                id="outputs missing",
            ),
            pytest.param(
                {"model": emulated_model((*emulated_head()[:2], *emulated_head()[:1:-1]))},
                r"'cls16' of .* is uint8 \[1, 2, 4, 2\], its spec says uint16 \[1, 2, 4, 4\]",
                id="outputs in another order",
            ),
            pytest.param({"model": emulated_model(emulated_head(), "x")}, "called 'x', expected 'images'", id="input"),
            pytest.param(
                {"spec": lambda v: v["head"]["outputs"][0].update(dtype="uint8")},
                r"'box8' of .* is uint16 .* its spec says uint8",
                id="width of the codes",
            ),
        ],
    )
    def test_what_does_not_fit_its_spec_is_refused(self, options: dict[str, Any], words: str, tmp_path: Path) -> None:
        path = write_emulated(tmp_path, **options)

        with pytest.raises(ModelError, match=words):
            open_onnx(path)


def test_names_are_of_this_model(tmp_path: Path) -> None:
    """Classes that the user leaves out get numbers; names of a larger model are refused."""
    path = save(tiny_yolo(classes=3), tmp_path / "tiny.onnx")

    assert open_onnx(path, EngineOptions({1: "b"})).spec.names == {0: "class0", 1: "b", 2: "class2"}
    with pytest.raises(UsageError, match="name for class 3, but the model has 3 classes"):
        open_onnx(path, EngineOptions({0: "a", 3: "d"}))


def test_flags_are_checked_before_anything_runs(tmp_path: Path) -> None:
    """`check` sees the finished spec, and what it raises is what the user is told."""
    seen = []

    def check(spec: ModelSpec) -> None:
        seen.append(dict(spec.names))
        raise UsageError("no")

    with pytest.raises(UsageError, match="no"):
        open_onnx(save(tiny_yolo(classes=2), tmp_path / "tiny.onnx"), EngineOptions(check=check))
    assert seen == [{0: "thing0", 1: "thing1"}]


def test_the_metadata_choose_the_engine(tmp_path: Path) -> None:
    assert isinstance(open_onnx(write_emulated(tmp_path)), EmulatedEngine)
    assert isinstance(open_onnx(save(tiny_yolo(), tmp_path / "toy.emulated.onnx")), FloatEngine)
