"""The JSON beside a model: it comes back as it was, and whatever contradicts itself is refused with a reason."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hefkit.errors import ModelError
from hefkit.spec import InputSpec, class_names
from hefkit.spec_file import input_from_json, read_spec, spec_from_json
from tests.helpers.heads import make_head, make_spec, per_feature

Json = dict[str, Any]


def full() -> Json:
    """A valid spec as parsed JSON: 64x32 input, two strides, two classes."""
    spec = make_spec(
        make_head((64, 32), (8, 16), 2),
        (64, 32),
        names={0: "drone", 1: "IR-drone"},
        source={"file": "m.onnx", "sha256": "0" * 64},
        calibration={"count": 64, "digest": "1" * 64},
        target={"arch": "hailo8", "sdk": None},
        script="normalization1 = normalization([0, 0, 0], [255, 255, 255])\n",
        quality={"recall": 0.9},
        tool="hefkit 0.1.0",
        created="2025-01-01T00:00:00+00:00",
    )
    return json.loads(json.dumps(spec.to_json()))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("reg_max", [1, 16])
@pytest.mark.parametrize("features", [False, True], ids=["one scale", "a scale per feature"])
def test_round_trip(tmp_path: Path, dtype: str, reg_max: int, features: bool) -> None:
    """A spec written as JSON reads back equal."""
    head = make_head(reg_max=reg_max, dtype=dtype)
    if features:
        head = per_feature(head, np.random.default_rng(0))
    spec = make_spec(head, names={0: "a", 1: "é", 2: "c\n"}, source={"file": "m.onnx"})
    (tmp_path / "m.json").write_text(json.dumps(spec.to_json()))

    assert read_spec(tmp_path / "m.json") == spec


def test_the_json_has_the_contract_keys() -> None:
    """Names and nesting of design section 4, nothing more and nothing less."""
    value = full()

    assert list(value) == [
        "format", "kind", "tool", "created", "input", "head", "names", "source", "calibration", "target", "script",
        "quality",
    ]  # fmt: skip
    assert value["input"] == {
        "size": [64, 32], "fit": "letterbox", "pad_value": 114, "color": "RGB", "dtype": "uint8", "layout": "NHWC"
    }  # fmt: skip
    assert list(value["head"]) == ["family", "num_classes", "reg_max", "strides", "nms_free", "outputs"]
    assert value["names"] == {"0": "drone", "1": "IR-drone"}
    first = value["head"]["outputs"][0]
    assert {k: first[k] for k in ("role", "stride", "shape", "stream", "activation", "dtype")} == {
        "role": "box", "stride": 8, "shape": [8, 4, 64], "stream": None, "activation": "none", "dtype": "uint8"
    }  # fmt: skip


def test_unknown_extra_keys_are_passed_over() -> None:
    """A later minor version may say more."""
    value = full()
    value["later"] = value["head"]["later"] = 1

    assert spec_from_json(value) == spec_from_json(full())


def at(*path: str | int) -> Callable[[Json, Any], None]:
    """A function that sets the value at a path of a parsed spec."""

    def change(value: Json, new: Any) -> None:
        here: Any = value
        for key in path[:-1]:
            here = here[key]
        here[path[-1]] = new

    return change


OUTPUT = ("head", "outputs", 0)


@pytest.mark.parametrize(
    ("change", "new", "message"),
    [
        pytest.param(at("format"), 2, "format is 2", id="format"),
        pytest.param(at("format"), None, "format is None", id="no format"),
        pytest.param(at("kind"), "float", "kind is 'float'", id="kind"),
        pytest.param(at("input"), None, "input is not a JSON object", id="no input"),
        pytest.param(at("input", "size"), [64], "input.size", id="one side"),
        pytest.param(at("input", "size"), [64, 0], "input.size is 0", id="no side"),
        pytest.param(at("input", "size"), [64, 32.0], "input.size is 32.0", id="side not whole"),
        pytest.param(at("input", "size"), [64, True], "input.size is True", id="side a boolean"),
        pytest.param(at("input", "size"), [64, 10**400], "input.size", id="absurd side"),
        pytest.param(at("input", "size"), [66, 32], r"expected box .* shape \[8, 4, 64\]", id="size against strides"),
        pytest.param(at("input", "fit"), "crop", "input.fit is 'crop'", id="fit"),
        pytest.param(at("input", "color"), "BGR", "input.color", id="colour"),
        pytest.param(at("input", "dtype"), "float32", "input.dtype", id="input dtype"),
        pytest.param(at("input", "layout"), "NCHW", "input.layout", id="layout"),
        pytest.param(at("input", "pad_value"), 256, "input.pad_value", id="pad"),
        pytest.param(at("head"), [], "head is not a JSON object", id="no head"),
        pytest.param(at("head", "family"), "ltrb", "head.reg_max is 16, expected 1 for direct", id="bins in ltrb"),
        pytest.param(at("head", "reg_max"), 1, "head.reg_max is 1, expected at least 2", id="no bins in dfl"),
        pytest.param(at("head", "family"), "anchors", "head.family", id="family"),
        pytest.param(at("head", "num_classes"), 3, "names has 2 entries for 3", id="class count against shapes"),
        pytest.param(at("head", "num_classes"), 10**9, "head.num_classes", id="absurd class count"),
        pytest.param(at("head", "reg_max"), 8, "shape", id="bins against shapes"),
        pytest.param(at("head", "strides"), [], "head.strides", id="no strides"),
        pytest.param(at("head", "strides"), [16, 8], "do not ascend", id="strides descend"),
        pytest.param(at("head", "strides"), [8, 8], "do not ascend", id="a stride twice"),
        pytest.param(at("head", "strides"), [8], "box and a class tensor for every stride", id="a stride too few"),
        pytest.param(at("head", "nms_free"), 0, "head.nms_free", id="nms_free"),
        pytest.param(at("head", "outputs"), {}, "head.outputs", id="outputs no list"),
        pytest.param(at(*OUTPUT), 3, r"head.outputs\[0\] is not a JSON object", id="output no object"),
        pytest.param(at(*OUTPUT, "role"), "cls", "expected box", id="role"),
        pytest.param(at(*OUTPUT, "stride"), 16, "expected box at stride 8", id="stride"),
        pytest.param(at(*OUTPUT, "shape"), [4, 8, 64], r"expected box .* shape \[8, 4, 64\]", id="H and W swapped"),
        pytest.param(at(*OUTPUT, "shape"), [8, 4], "shape", id="flat shape"),
        pytest.param(at(*OUTPUT, "onnx_node"), None, "onnx_node", id="no node"),
        pytest.param(at(*OUTPUT, "onnx_node"), "x" * 5000, "onnx_node", id="long node"),
        pytest.param(at(*OUTPUT, "stream"), 1, "stream", id="stream"),
        pytest.param(at(*OUTPUT, "activation"), "relu", "activation", id="activation"),
        pytest.param(at(*OUTPUT, "activation"), "sigmoid", "box tensor with an activation", id="activation on boxes"),
        pytest.param(at(*OUTPUT, "dtype"), "float32", "dtype", id="dtype"),
        pytest.param(at(*OUTPUT, "scale"), 0, "expected a number above 0", id="scale 0"),
        pytest.param(at(*OUTPUT, "scale"), -0.1, "expected a number above 0", id="scale negative"),
        pytest.param(at(*OUTPUT, "scale"), "0.1", "expected a number", id="scale a text"),
        pytest.param(at(*OUTPUT, "scale"), True, "expected a number", id="scale a boolean"),
        pytest.param(at(*OUTPUT, "scale"), float("inf"), "expected a number", id="scale infinite"),
        pytest.param(at(*OUTPUT, "scale"), 10**400, "expected a number", id="scale beyond floats"),
        pytest.param(at(*OUTPUT, "scale"), [0.1] * 63, "holds 63 numbers for 64 channels", id="scales too few"),
        pytest.param(at(*OUTPUT, "scale"), [0.1] * 63 + [0], "above 0", id="a scale of 0"),
        pytest.param(at(*OUTPUT, "zero_point"), float("nan"), "expected a number", id="zero point nan"),
        pytest.param(at(*OUTPUT, "zero_point"), [], "holds 0 numbers", id="zero points none"),
        pytest.param(at("names"), ["a", "b"], "names is not a JSON object", id="names a list"),
        pytest.param(at("names"), {"0": "a"}, "names has 1 entries for 2 classes", id="a name too few"),
        pytest.param(at("names"), {"0": "a", "2": "b"}, "names has the key '2'", id="a name too far"),
        pytest.param(at("names"), {"0": "a", "-1": "b"}, "names has the key", id="negative name"),
        pytest.param(at("names"), {"0": "a", "1" * 5000: "b"}, "names has the key", id="absurd key"),
        pytest.param(at("names"), {"0": "a", "1": 1}, "names", id="name no text"),
        pytest.param(at("names"), {"0": "a", "1": "b" * 201}, "at most 200 characters", id="long name"),
        pytest.param(at("names"), {"0": "a", "1": "\ud800"}, "half a character", id="lone surrogate"),
        pytest.param(at("names"), {"0": "a", "1": "b\0"}, "holds a NUL", id="NUL"),
        pytest.param(at("source"), "m.onnx", "source is not a JSON object", id="source"),
        pytest.param(at("calibration"), 64, "calibration is not a JSON object", id="calibration"),
        pytest.param(at("target"), None, "target is not a JSON object", id="target"),
        pytest.param(at("script"), 1, "script is not a text", id="script"),
        pytest.param(at("tool"), "x" * 2000, "tool is not a text", id="tool"),
        pytest.param(at("quality"), [], "quality is not a JSON object", id="quality"),
    ],
)
def test_a_contradiction_is_refused(change: Callable[[Json, Any], None], new: Any, message: str) -> None:
    """Every change that a decoder could trip over is named."""
    value = copy.deepcopy(full())
    change(value, new)

    with pytest.raises(ModelError, match=message):
        spec_from_json(value)


@pytest.mark.parametrize("key", ["kind", "input", "head", "names", "source", "target"])
def test_a_missing_part_is_refused(key: str) -> None:
    """No part has a silent default."""
    value = full()
    del value[key]

    with pytest.raises(ModelError, match=key):
        spec_from_json(value)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        pytest.param(None, "it must be beside the model", id="missing"),
        pytest.param(b"", "not valid JSON", id="empty"),
        pytest.param(b"\xff\xd8\xff\xe0", "not valid JSON", id="a JPEG"),
        pytest.param(b'{"format": 1', "not valid JSON", id="truncated"),
        pytest.param(b"[" * 100_000, "not valid JSON", id="nested without end"),
        pytest.param(b"[]", "the file is not a JSON object", id="a list"),
        pytest.param(b'{"format": 1, "kind": ' + b"[" * 960 + b"]" * 960 + b"}", "m.json", id="nested deeply"),
    ],
)
def test_files_that_are_no_spec(tmp_path: Path, raw: bytes | None, message: str) -> None:
    """Whatever lies there, the error names the file and is a ModelError."""
    path = tmp_path / "m.json"
    if raw is not None:
        path.write_bytes(raw)

    with pytest.raises(ModelError, match=message) as caught:
        read_spec(path)

    assert str(path) in str(caught.value)


def test_a_huge_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit on the size keeps a wrong file from filling the memory; a spec just below it is read."""
    text = json.dumps(full())
    (tmp_path / "m.json").write_text(text)

    monkeypatch.setattr("hefkit.spec_file.MAX_SPEC_BYTES", len(text))
    assert read_spec(tmp_path / "m.json").kind == "emulated"
    monkeypatch.setattr("hefkit.spec_file.MAX_SPEC_BYTES", len(text) - 1)
    with pytest.raises(ModelError, match="larger than"):
        read_spec(tmp_path / "m.json")


def test_input_spec_round_trip() -> None:
    """The manifest carries the same input object."""
    spec = InputSpec((416, 640), "stretch", 0)

    assert input_from_json(spec.to_json()) == spec


def test_nameless_classes_get_numbers() -> None:
    """`class1` where there is no name, or an empty one; names beyond the count are dropped."""
    assert class_names({0: "a", 2: "", 9: "z"}, 3) == {0: "a", 1: "class1", 2: "class2"}
