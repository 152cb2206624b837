"""`validate_hef.py` as users run it: a process, its table, its words, its JSON and its exit code."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Finished, finished
from tests.helpers.hef_kinds import KINDS
from tests.helpers.tiny_hef import (
    YOLO_ORDER,
    checked,
    edge,
    field,
    group,
    hef,
    hef_file,
    info,
    input_layer,
    yolo_hef,
    yolo_layers,
)
from validate_hef import main, parse_args

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
        "digest_ok": checked(2, True),
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


def test_a_folder_with_one_hef(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """../shared/field: ultralytics' `best_hailo_model`; the names in its metadata.yaml are of another model."""
    assert main([str(shared / "field" / "11-ultralytics-hailo-folder" / "best_hailo_model")]) == 0

    printed = capsys.readouterr()
    assert "best.hef" in printed.out and "HAILO_NMS_BY_CLASS  80x5x100" in printed.out
    assert "80 classes" in printed.err


def test_sdk_is_null_where_the_file_has_none(run_here: Run, toy: Path) -> None:
    """Unknown values are null, keys never missing."""
    toy.write_bytes(hef_file(hef(group(yolo_layers(), YOLO_ORDER), sdk="")))

    assert run_here(SCRIPT, toy, "--json").json["sdk"] is None


@pytest.mark.parametrize("version", [0, 1, 2, 3])
def test_wrong_digest_prints_json_and_exits_with_4(run_here: Run, toy: Path, version: int) -> None:
    """The one refusal that prints JSON."""
    toy.write_bytes(hef_file(yolo_hef(), version, digest=bytes({0: 16, 1: 4}.get(version, 8))))

    done = run_here(SCRIPT, toy, "--json")

    assert done.json["digest_ok"] is checked(version, False) and len(done.json["groups"][0]["outputs"]) == 6
    if checked(version, False) is None:
        assert (done.code, done.errors) == (0, []) and "the checksum was not checked" in done.err
    else:
        assert (done.code, len(done.errors)) == (4, 1) and "checksum" in done.errors[0]


def test_without_xxhash_the_checksum_is_not_checked(run_script: Run, toy: Path, tmp_path: Path) -> None:
    """It is null in the JSON, and the words say so; the rest goes on, spec included."""
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "xxhash.py").write_text("raise ImportError('xxhash')\n")
    toy.write_bytes(hef_file(yolo_hef(), digest=bytes(8)))
    toy.with_suffix(".json").write_text(json.dumps(spec_of_toy()))

    shown = run_script(SCRIPT, toy, PYTHONPATH=str(tmp_path / "without"))
    done = run_script(SCRIPT, toy, "--json", PYTHONPATH=str(tmp_path / "without"))

    assert (done.code, done.json["digest_ok"], done.json["spec"]) == (0, None, str(toy.with_suffix(".json")))
    assert "container  version 2, checksum not checked" in shown.out
    assert "the checksum was not checked: the Python package xxhash is missing" in shown.err


def test_a_wrong_digest_comes_before_a_wrong_spec(run_here: Run, toy: Path) -> None:
    """A damaged file is not compared with its spec."""
    toy.write_bytes(hef_file(yolo_hef(), 1, digest=bytes(4)))
    toy.with_suffix(".json").write_text("{}")

    done = run_here(SCRIPT, toy, "--json")

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
def test_refusals_print_one_line_and_no_json(run_here: Run, tmp_path: Path, name: str, data: bytes | None) -> None:
    """Exit 4, nothing on stdout, one sentence without control characters on stderr."""
    if data is not None:
        (tmp_path / name).write_bytes(data)

    done = run_here(SCRIPT, tmp_path / name, "--json")

    assert (done.code, done.out, len(done.err.splitlines())) == (4, "", 1)
    assert done.err.startswith("error: ") and "\x1b" not in done.err


def test_an_onnx_is_refused(run_here: Run, tmp_path: Path) -> None:
    """Emulated models are not inspected yet."""
    (tmp_path / "m.emulated.onnx").write_bytes(b"")

    assert "only HEF files can be inspected" in run_here(SCRIPT, tmp_path / "m.emulated.onnx").errors[0]


# a name that clears the screen, one of two lines, one that turns the writing direction, one that is a fake table row
HOSTILE = ["a\x1b[2Jb", "a\nb", "a\u202eb", "a\r\noutput  net/fake", "a\x00b", "\u200b", '"\\', "\ud7ff\U0001f600"]


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_names_from_the_file_are_escaped(run_here: Run, toy: Path, name: str) -> None:
    """A terminal must not obey a model: neither group, stream, original name nor SDK; JSON has them all as they are."""
    layers = [input_layer(), edge(info(name, 8, 8, 4, names=[name])), edge(info("b", 8, 8, 4))]
    groups = [group(layers, [name, "b"], name=f"{name}{i}") for i in range(2)]
    toy.write_bytes(hef_file(hef(*groups, sdk=name) + field(7, field(3, name))))

    done, as_json = run_here(SCRIPT, toy), run_here(SCRIPT, toy, "--json")

    assert (done.code, as_json.code) == (0, 0)
    assert all(line.isprintable() for line in [*done.out.split("\n"), *done.err.split("\n")])
    assert len(done.out.splitlines()) == 4 + 2 * 4  # file, chip, SDK, container; two groups of three streams
    assert as_json.out.isascii()
    last = as_json.json["groups"][1]
    assert (last["name"], last["outputs"][0]["name"], last["outputs"][0]["original_names"]) == (
        f"{name}0",
        name,
        [name],
    )
    assert (as_json.json["sdk"], as_json.json["external_resources"]) == (name, [name])


def test_a_hostile_name_in_a_refusal(run_here: Run, toy: Path) -> None:
    """The sentence stays one line."""
    toy.write_bytes(hef_file(hef(group([input_layer(), edge(info("a\x1b\nb", 8, 8, 4, fmt=9))], ["a"]))))

    done = run_here(SCRIPT, toy)

    assert (done.code, done.out, len(done.err.splitlines())) == (4, "", 1)
    assert "a\\x1b b has the unknown format 9" in done.err


# what --json prints of a file of each kind: (kind, path in the JSON, value)
CONTRACT: list[tuple[str, str, Any]] = [
    ("raw heads", "groups.0.nms", None),
    ("raw heads", "groups.0.outputs.1.scale", 0.5),
    ("raw heads", "groups.0.outputs.1.zero_point", 3.0),
    ("16 bit", "groups.0.outputs.0.dtype", "uint16"),
    ("two groups", "groups.0.name", "second"),
    ("Hailo-8L", "arch", "hailo8l"),
    ("Hailo-8L, NMS", "groups.0.nms.classes", 2),
    ("per feature", "groups.0.outputs.0.scale", [0.5, 0.25, 2.0]),
    ("per feature", "groups.0.outputs.0.zero_point", [1.0, 2.0, 3.0]),
    ("per feature", "groups.0.inputs.0.scale", [1.0, 1.0, 1.0]),
    ("planes", "groups.0.inputs.0.scale", None),
    ("NMS on the chip", "groups.0.outputs.0.order", "HAILO_NMS_BY_CLASS"),
    ("NMS on the chip", "groups.0.outputs.0.shape", [80, 5, 60]),
    ("NMS on the chip", "groups.0.outputs.0.scale", 1.0),
    ("NMS 12", "groups.0.outputs.0.scale", 1.0),
    ("NMS 12", "groups.0.outputs.0.zero_point", 0.0),
    ("NMS 12", "groups.0.outputs.0.dtype", "float32"),
    ("NMS 12", "groups.0.outputs.0.original_names", []),
    ("NMS 12", "groups.0.nms.image_size", [480, 640]),
    ("NMS 10", "groups.0.nms.image_size", None),
    ("argmax", "groups.0.outputs.0.shape", [8, 8]),
    ("GenAI", "external_resources", ["tokenizer.json"]),
    ("GenAI", "groups.0.outputs.0.shape", [8]),
]


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """What `--json` prints of a file of some kind; each kind is run once."""

    @functools.cache
    def run(kind: str) -> dict[str, Any]:
        folder = tmp_path_factory.mktemp("kind")
        (folder / "kind.hef").write_bytes(hef_file(KINDS[kind]()))
        done = finished(SCRIPT, folder / "kind.hef", "--json", cwd=folder)
        assert done.code == 0 and len(done.out.splitlines()) == 1
        return done.json

    return run


@pytest.mark.parametrize(("kind", "path", "value"), CONTRACT, ids=[f"{k}: {p}" for k, p, _ in CONTRACT])
def test_json_of_every_kind(printed: Callable[[str], dict[str, Any]], kind: str, path: str, value: Any) -> None:
    """Values, and their types as JSON has them."""
    item: Any = printed(kind)
    for key in path.split("."):
        item = item[int(key) if key.isdigit() else key]

    assert item == value and type(item) is type(value)


NMS_KEYS = {"kind", "classes", "score_threshold", "iou_threshold", "max_per_class", "image_size"}


@pytest.mark.parametrize("kind", sorted({row[0] for row in CONTRACT}))
def test_no_key_is_ever_missing(printed: Callable[[str], dict[str, Any]], kind: str) -> None:
    """Unknown values are null."""
    result = printed(kind)

    assert result.keys() >= KEYS
    for group_ in result["groups"]:
        assert group_.keys() >= GROUP_KEYS
        assert all(stream.keys() >= VSTREAM_KEYS for stream in group_["inputs"] + group_["outputs"])
        assert group_["nms"] is None or group_["nms"].keys() >= NMS_KEYS


def test_spec_that_fits(run_here: Run, toy: Path) -> None:
    """Its path is in the JSON, and the words say so."""
    toy.with_suffix(".json").write_text(json.dumps(spec_of_toy()))

    done = run_here(SCRIPT, toy, "--json")

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
def test_spec_that_does_not_fit(run_here: Run, toy: Path, edit: Callable[[dict[str, Any]], None], words: str) -> None:
    """Exit 4, no JSON, and the difference by name."""
    spec = spec_of_toy()
    edit(spec)
    toy.with_suffix(".json").write_text(json.dumps(spec))

    done = run_here(SCRIPT, toy, "--json")

    assert (done.code, done.out) == (4, "") and words in done.errors[0]


def test_spec_whose_streams_are_unknown(run_here: Run, toy: Path) -> None:
    """`stream` may be null: then shape and type decide; one scale stands for equal ones per feature."""
    spec = spec_of_toy()
    spec["head"]["outputs"][0]["stream"] = None
    spec["head"]["outputs"][1]["scale"] = [0.5, 0.5]
    toy.with_suffix(".json").write_text(json.dumps(spec))

    assert run_here(SCRIPT, toy).code == 0


def test_usage_errors(run_here: Run) -> None:
    """No model, a flag of another one, or a flag that there is not."""
    for args in ((), ("a.hef", "--source", "x"), ("a.hef", "--js")):
        done = run_here(SCRIPT, *args)
        assert (done.code, done.out, len(done.errors)) == (2, "", 1)


MISUSED = {
    "a reference without pictures": (["a.onnx", "--reference", "b.onnx"], "--reference needs pictures"),
    "two sources": (["a.onnx", "--data", "d.yaml", "--source", "x"], "both name pictures"),
    "pictures without a second model": (["a.onnx", "--source", "x"], "--source needs --reference ONNX"),
    "two models to inspect": (["a.hef", "b.hef"], "several models need --data"),
    "a split of nothing": (["a.hef", "--split", "val"], "--split is for --data"),
    "a report of an inspection": (["a.hef", "--report", "r"], "--report needs --data"),
    "a gate on labels without labels": (["a.hef", "--gate-map50", "0.5"], "--gate-map50 needs --data"),
    "a gate on the share without a float model": (["a.hef", "--data", "d", "--gate-kept", "1"], "--gate-kept needs"),
    "a gate on agreement without a float model": (
        ["a.hef", "--data", "d", "--gate-recall", "1"],
        "--gate-recall needs",
    ),
    "a gate above 1": (["a.hef", "--data", "d", "--gate-map50", "90"], "out of range"),
    "device and data": (["a.hef", "--data", "d", "--device"], "--device and --benchmark are for a HEF alone"),
}


@pytest.mark.parametrize("args, words", MISUSED.values(), ids=MISUSED.keys())
def test_flags_that_do_not_go_together(args: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, exit 2, and nothing is opened."""
    with pytest.raises(SystemExit) as refused:
        parse_args(args)

    error = capsys.readouterr().err
    assert refused.value.code == 2 and words in error and error.count("\n") == 1


def test_a_missing_model_comes_before_missing_labels(run_here: Run) -> None:
    """Exit 4 before 3."""
    done = run_here(SCRIPT, "none.onnx", "--data", "none.yaml")

    assert done.code == 4 and "none.onnx does not exist" in done.errors[0]


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
