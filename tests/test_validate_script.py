"""`validate_hef.py` as users run it: a process, its table, its words, its JSON and its exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hefkit.hef import read_hef
from hefkit.hefwords import FITS, describe, raw_heads
from tests.conftest import ROOT, Finished
from tests.helpers.tiny_hef import (
    HAILO8L,
    NET_FLOW,
    PERIPH,
    YOLO_ORDER,
    edge,
    f64,
    field,
    group,
    hef,
    hef_file,
    info,
    input_layer,
    net_flow_group,
    nms_op,
    yolo_hef,
    yolo_layers,
)

SCRIPT = "validate_hef.py"
Run = Callable[..., Finished]
VSTREAM_KEYS = {"name", "original_names", "shape", "dtype", "order", "scale", "zero_point"}
GROUP_KEYS = {"name", "contexts", "inputs", "outputs", "nms"}
KEYS = {"file", "arch", "sdk", "container_version", "digest_ok", "groups"}


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A Hailo-8 HEF of a 64x64 YOLO with 2 classes and raw heads."""
    path = tmp_path / "toy.hef"
    path.write_bytes(hef_file(yolo_hef()))
    return path


def spec_of_toy() -> dict[str, Any]:
    """The spec that belongs to `toy`."""
    outputs = [
        {
            "role": role,
            "stride": stride,
            "shape": [64 // stride, 64 // stride, channels],
            "onnx_node": f"/{role}/Conv",
            "stream": f"net/{role}{stride}",
            "activation": activation,
            "dtype": "uint8",
            "scale": 0.5,
            "zero_point": 3,
        }
        for stride in (8, 16, 32)
        for role, channels, activation in (("box", 64, "none"), ("cls", 2, "sigmoid"))
    ]
    head = {"family": "dfl", "num_classes": 2, "reg_max": 16, "strides": [8, 16, 32], "nms_free": False}
    size = {"size": [64, 64], "fit": "letterbox", "pad_value": 114, "color": "RGB", "dtype": "uint8", "layout": "NHWC"}
    return {
        "format": 1,
        "kind": "hef",
        "tool": "hefkit",
        "created": "",
        "input": size,
        "head": {**head, "outputs": outputs},
        "names": {"0": "a", "1": "b"},
        "source": {},
        "calibration": None,
        "target": {"arch": "hailo8", "sdk": None},
        "script": "",
        "quality": None,
    }


def test_json_has_the_contract_s_keys(run_script: Run, toy: Path) -> None:
    """Every key, its type and its value; JSON is all of stdout, words are on stderr."""
    done = run_script(SCRIPT, toy, "--json")

    result = done.json
    assert (done.code, len(done.out.splitlines())) == (0, 1)
    assert set(result) >= KEYS
    assert {k: result[k] for k in KEYS - {"groups"}} == {
        "file": str(toy),
        "arch": "hailo8",
        "sdk": "3.33.1",
        "container_version": 2,
        "digest_ok": True,
    }
    (only,) = result["groups"]
    assert set(only) >= GROUP_KEYS and (only["name"], only["contexts"], only["nms"]) == ("net", 1, None)
    assert only["inputs"] == [
        {
            "name": "net/input",
            "original_names": ["images"],
            "shape": [64, 64, 3],
            "dtype": "uint8",
            "order": "NHWC",
            "scale": 1.0,
            "zero_point": 0.0,
        }
    ]
    assert [s["name"] for s in only["outputs"]] == list(YOLO_ORDER)
    assert all(set(s) == VSTREAM_KEYS for s in only["outputs"])


def test_table_on_stdout_words_on_stderr(run_script: Run, toy: Path) -> None:
    """Without --json people get a table; with --quiet the table alone."""
    done, quiet = run_script(SCRIPT, toy), run_script(SCRIPT, toy, "--quiet")

    assert (done.code, quiet.code, quiet.err) == (0, 0, "")
    assert done.out == quiet.out and "net/cls32" in done.out and "64x64x3" in done.out and "{" not in done.out
    assert "runs on a Hailo-8;" in done.err
    assert "raw YOLO heads, strides 8, 16, 32; boxes with 16 bins a side, 2 classes" in done.err


def test_sdk_is_null_where_the_file_has_none(run_script: Run, toy: Path) -> None:
    """Unknown values are null, keys never missing."""
    toy.write_bytes(hef_file(hef(group(yolo_layers(), YOLO_ORDER), sdk="")))

    assert run_script(SCRIPT, toy, "--json").json["sdk"] is None


@pytest.mark.parametrize("version", [0, 1, 2, 3])
def test_wrong_digest_prints_json_and_exits_with_4(run_script: Run, toy: Path, version: int) -> None:
    """The one refusal that prints JSON."""
    toy.write_bytes(hef_file(yolo_hef(), version, digest=bytes({0: 16, 1: 4}.get(version, 8))))

    done = run_script(SCRIPT, toy, "--json")

    assert (done.code, done.json["digest_ok"], len(done.errors)) == (4, False, 1)
    assert "checksum" in done.errors[0] and len(done.json["groups"][0]["outputs"]) == 6


def test_a_wrong_digest_comes_before_a_wrong_spec(run_script: Run, toy: Path) -> None:
    """What a damaged file says proves nothing about its spec."""
    toy.write_bytes(hef_file(yolo_hef(), digest=bytes(8)))
    toy.with_suffix(".json").write_text("{}")

    done = run_script(SCRIPT, toy, "--json")

    assert (done.code, done.json["digest_ok"], "checksum" in done.errors[0]) == (4, False, True)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("truncated.hef", hef_file(yolo_hef())[:-1]),
        ("empty.hef", b""),
        ("text.hef", b"hello, I am no HEF at all\n" * 9),
        ("broken.hef", hef_file(yolo_hef() + b"\x0e")),
        ("control.hef", hef_file(hef(group([input_layer(), edge(info("a\x1b[2J\nb", 8, 8, 4))], [])))),
        ("float.onnx", b"\x08\x07"),
        ("model.txt", b""),
        ("missing.hef", None),
    ],
)
def test_refusals_print_one_line_and_no_json(run_script: Run, tmp_path: Path, name: str, data: bytes | None) -> None:
    """Exit 4, nothing on stdout, one sentence without control characters on stderr."""
    if data is not None:
        (tmp_path / name).write_bytes(data)

    done = run_script(SCRIPT, tmp_path / name, "--json")

    assert (done.code, done.out, len(done.err.splitlines())) == (4, "", 1)
    assert done.err.startswith("error: ") and "\x1b" not in done.err


def test_an_onnx_is_told_what_the_inspection_is_for(run_script: Run, tmp_path: Path) -> None:
    """Emulated models are not inspected yet."""
    (tmp_path / "m.emulated.onnx").write_bytes(b"")

    assert "HEF files" in run_script(SCRIPT, tmp_path / "m.emulated.onnx").errors[0]


def test_names_from_the_file_are_escaped(run_script: Run, toy: Path) -> None:
    """A terminal must not obey a model."""
    name = "a\x1b[2Jb"
    toy.write_bytes(hef_file(hef(group([input_layer(), edge(info(name, 8, 8, 4))], [name], name=name))))

    done = run_script(SCRIPT, toy)

    assert done.code == 0 and "\x1b" not in done.out + done.err and "a\\x1b[2Jb" in done.out


def test_spec_that_fits(run_script: Run, toy: Path) -> None:
    """Its path is in the JSON, and the words say so."""
    toy.with_suffix(".json").write_text(json.dumps(spec_of_toy()))

    done = run_script(SCRIPT, toy, "--json")

    assert (done.code, done.json["spec"]) == (0, str(toy.with_suffix(".json")))
    assert "fits" in done.err


def change(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change of the spec: `head.outputs.0.scale` to a value."""

    def apply(spec: dict[str, Any]) -> None:
        *parents, last = [int(k) if k.isdigit() else k for k in path.split(".")]
        item: Any = spec
        for key in parents:
            item = item[key]
        item[last] = value

    return apply


def other_classes(spec: dict[str, Any]) -> None:
    """A change of the spec: three classes."""
    spec["head"]["num_classes"] = 3
    spec["names"]["2"] = "c"
    for output in spec["head"]["outputs"][1::2]:
        output["shape"][2] = 3


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (change("kind", "emulated"), "kind emulated"),
        (change("target.arch", "hailo8l"), "hailo8l"),
        (change("head.outputs.0.stream", "net/conv1"), "net/conv1"),
        (change("head.outputs.0.dtype", "uint16"), "uint16"),
        (change("head.outputs.0.scale", 0.6), "scale"),
        (change("head.outputs.1.zero_point", [3, 4]), "zero point"),
        (other_classes, "[8, 8, 3]"),
        (change("format", 2), "format is 2"),
    ],
)
def test_spec_that_does_not_fit(run_script: Run, toy: Path, edit: Callable[[dict[str, Any]], None], words: str) -> None:
    """Exit 4, no JSON, and the difference by name."""
    spec = spec_of_toy()
    edit(spec)
    toy.with_suffix(".json").write_text(json.dumps(spec))

    done = run_script(SCRIPT, toy, "--json")

    assert (done.code, done.out) == (4, "") and words in done.errors[0]


def test_spec_whose_streams_are_unknown(run_script: Run, toy: Path) -> None:
    """`stream` may be null: then shape and type decide; one scale stands for equal ones per feature."""
    spec = spec_of_toy()
    spec["head"]["outputs"][0]["stream"] = None
    spec["head"]["outputs"][1]["scale"] = [0.5, 0.5]
    toy.with_suffix(".json").write_text(json.dumps(spec))

    assert run_script(SCRIPT, toy).code == 0


def test_usage_errors(run_script: Run) -> None:
    """No model, or a flag that there is not."""
    for args in ((), ("a.hef", "--benchmark"), ("a.hef", "--js")):
        done = run_script(SCRIPT, *args)
        assert (done.code, done.out, len(done.errors)) == (2, "", 1)


def test_help_imports_nothing_heavy() -> None:
    """`--help` answers where there is neither numpy nor cv2."""
    code = (
        "import sys, runpy\n"
        "for name in ('numpy', 'cv2', 'onnx', 'xxhash'): sys.modules[name] = None\n"
        "sys.argv = ['validate_hef.py', '--help']\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stderr) == (0, "") and "MODEL" in done.stdout


# --- the words -------------------------------------------------------------------------------------------------------


@pytest.fixture
def words(tmp_path: Path) -> Callable[[bytes], str]:
    """The sentences about a message."""

    def say(proto: bytes) -> str:
        path = tmp_path / "words.hef"
        path.write_bytes(hef_file(proto))
        return "\n".join(describe(read_hef(path)))

    return say


@pytest.mark.parametrize(
    ("number", "expected"),
    [(0, "Hailo-8; not on a Hailo-8L"), (5, "HailoRT 5"), (103, "HailoRT 5"), (4, "HailoRT 5"), (6, "HailoRT 5")],
)
def test_where_it_runs(words: Callable[[bytes], str], number: int, expected: str) -> None:
    """The matrix of HailoRT: 8 on 8; 10H and 15 from HailoRT 5."""
    layers = group(yolo_layers(), YOLO_ORDER)
    if number == 4:  # a chip with partial layouts
        layers = field(7, field(1, layers))

    assert expected in words(hef(layers, arch=number))


def test_an_8l_file_runs_on_both(words: Callable[[bytes], str]) -> None:
    """The one file for both Pi kits."""
    said = words(hef(field(7, field(1, group(yolo_layers(), YOLO_ORDER))), arch=HAILO8L))

    assert "Hailo-8L, and on a Hailo-8" in said


def test_every_chip_has_words() -> None:
    """No architecture is without a sentence."""
    from hefkit.hef import ARCHS

    assert set(ARCHS.values()) == set(FITS)


def test_sixteen_bit_outputs_are_named(words: Callable[[bytes], str]) -> None:
    """Boxes in 16 bits, classes in 8."""
    assert "16-bit outputs: net/box8, net/box16, net/box32" in words(yolo_hef(data_bytes=2))
    assert "16-bit" not in words(yolo_hef())


def test_nms_in_words(words: Callable[[bytes], str]) -> None:
    """Kind, strides, classes and thresholds."""
    decoders = b"".join(field(4, field(1, s) + field(2, 1) + field(3, 2)) for s in (8, 16))
    op = nms_op(12, f64(1, 64) + f64(2, 64) + decoders, [11])
    proto = hef(net_flow_group(yolo_layers(), [op], [(1, 11)], [*YOLO_ORDER, "net/nms"]), extensions=(PERIPH, NET_FLOW))

    said = words(proto)

    assert "NMS inside (yolov8" in said and "strides 8, 16, 2 classes" in said
    assert "scores from 0.25, IoU up to 0.75, at most 10 boxes a class" in said


@pytest.mark.parametrize(
    ("channels", "names", "expected"),
    [
        ((64, 80), ("", ""), (64, 80)),
        ((4, 80), ("", ""), (4, 80)),
        ((80, 64), ("/cv2.0/Conv", "/cv3.0/Conv"), (80, 64)),  # names beat the usual channels
        ((64, 64), ("", ""), (64, 64)),
        ((32, 80), ("", ""), (None, None)),
        ((32, 80), ("/cv2.0/Conv", "/cv3.0/Conv"), (32, 80)),
    ],
)
def test_boxes_and_classes_by_name_then_by_channels(
    tmp_path: Path, channels: tuple[int, int], names: tuple[str, str], expected: tuple[int | None, int | None]
) -> None:
    """Told where it is certain enough for words, left open where it is not."""
    layers = [input_layer()]
    for cells in (8, 4, 2):
        for role, count, original in zip(("x", "y"), channels, names, strict=True):
            layers.append(edge(info(f"{role}{cells}", cells, cells, count, names=[original] if original else [])))
    order = [f"{role}{cells}" for cells in (8, 4, 2) for role in ("x", "y")]
    path = tmp_path / "heads.hef"
    path.write_bytes(hef_file(hef(group(layers, order))))

    heads = raw_heads(read_hef(path).groups[0])

    assert heads is not None
    assert (heads.strides, heads.box_channels, heads.classes) == ((8, 16, 32), *expected)


def test_a_classifier_is_no_yolo(words: Callable[[bytes], str]) -> None:
    """One vector of scores."""
    assert "no YOLO heads" in words(hef(group([input_layer(), edge(info("out", 1, 1, 1000, fmt=2))], ["out"])))
