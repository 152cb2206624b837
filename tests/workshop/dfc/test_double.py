"""The double of the SDK: as strict as public evidence shows the real one to be, unimportable, and honest.

A double that lets a wrong call pass would prove nothing about the driver, so its own refusals are tested, in the only
way in which it can be reached: through the executable of its environment.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import tarfile
from typing import Any

import numpy as np
import pytest

from hefkit.hef.file import read_hef
from hefkit.workshop.dfc.client import QUANTIZED
from tests.helpers.sdk import make_sdk
from tests.helpers.sdk_run import SCRIPT, Bench

START = """\
import json, sys
from pathlib import Path
import numpy as np
from hailo_sdk_client import ClientRunner, InferenceContext, CalibrationDataType
from hailo_sdk_client.exposed_definitions import States, SUPPORTED_HW_ARCHS
onnx, nodes, pictures, script = sys.argv[1], json.loads(sys.argv[2]), np.load(sys.argv[3]), sys.argv[4]
runner = ClientRunner(hw_arch="hailo8")
"""
PARSE = "runner.translate_onnx_model(onnx, 'net', end_node_names=nodes)\n"
LOAD = "runner.load_model_script(script)\n"
QUANTIZE = "runner.optimize(pictures.astype(np.float32))\n"


def run(bench: Bench, program: str, script: str = SCRIPT, **behaviour: Any) -> tuple[int, str, str]:
    """A program in the double's environment: exit status, stdout, the last line of stderr."""
    python = make_sdk(bench.folder, **behaviour)
    arguments = [str(bench.network), json.dumps(bench.layout.end_nodes), str(bench.calibration.path), script]
    done = subprocess.run(
        [str(python), "-c", START + program, *arguments], cwd=bench.folder, capture_output=True, text=True, timeout=120
    )
    lines = done.stderr.strip().splitlines()
    return done.returncode, done.stdout, lines[-1] if lines else ""


def test_nobody_can_import_it_here() -> None:
    """Neither the tests' process nor a user's has it on its path."""
    assert importlib.util.find_spec("hailo_sdk_client") is None
    assert importlib.util.find_spec("double_parts") is None


REFUSED = {
    "unknown chip": ("ClientRunner(hw_arch='hailo10h')", SCRIPT, "ValueError: Unsupported hw_arch hailo10h"),
    "unknown argument of the constructor": ("ClientRunner(arch='hailo8')", SCRIPT, "TypeError"),
    "unknown argument of the parser": (
        "runner.translate_onnx_model(onnx, 'net', end_nodes=nodes)", SCRIPT, "TypeError",
    ),
    "a Path for the network": (
        "runner.translate_onnx_model(Path(onnx), 'net', end_node_names=nodes)", SCRIPT, "TypeError",
    ),
    "a tensor for a node": (
        "runner.translate_onnx_model(onnx, 'net', end_node_names=['raw_box_8'])", SCRIPT, "MisspellNodeError",
    ),
    "compile before quantisation": (PARSE + "runner.compile()", SCRIPT, "BackendRuntimeException: Model requires"),
    "optimize before parsing": ("runner.optimize(pictures)", SCRIPT, "InvalidStateException"),
    "optimize with a level": (PARSE + "runner.optimize(pictures, optimization_level=2)", SCRIPT, "TypeError"),
    "optimize twice": (PARSE + LOAD + QUANTIZE + QUANTIZE, SCRIPT, "InvalidStateException"),
    "float64 pictures": (PARSE + "runner.optimize(pictures.astype(float))", SCRIPT, "TypeError: Unsupported"),
    "channels first": (
        PARSE + LOAD + "runner.optimize(pictures.transpose(0, 3, 1, 2))", SCRIPT, "BadInputsShape: Data shape (3, 64",
    ),
    "a dict with another layer": (PARSE + "runner.optimize({'x': pictures})", SCRIPT, "ValueError: Unsupported"),
    "emulation before quantisation": (
        PARSE + "with runner.infer_context(InferenceContext.SDK_QUANTIZED): pass", SCRIPT, "RuntimeError",
    ),
    "unknown argument of infer": (
        PARSE + LOAD + QUANTIZE + "with runner.infer_context(InferenceContext.SDK_QUANTIZED) as c:\n"
        "    runner.infer(c, pictures, batch=1)", SCRIPT, "TypeError",
    ),
    "more pictures than there are": (
        PARSE + LOAD + QUANTIZE, SCRIPT.replace("calibset_size=6", "calibset_size=64"), "ValueError: calibset_size 64",
    ),
    "fine-tuning with more pictures than there are": (
        PARSE + LOAD + QUANTIZE, SCRIPT + "post_quantization_optimization(finetune, policy=enabled, dataset_size=64)\n",
        "ValueError: finetune: dataset_size 64 is larger",
    ),
    "level 2 without enough pictures": (
        PARSE + LOAD + QUANTIZE, SCRIPT.replace("optimization_level=0", "optimization_level=2"),
        "ValueError: finetune: dataset_size 1024 is larger",
    ),
    "AdaRound without enough pictures": (
        PARSE + LOAD + QUANTIZE, SCRIPT.replace("optimization_level=0", "optimization_level=4"),
        "ValueError: adaround: dataset_size 1024 is larger",
    ),
    "a command of nobody's": (PARSE + LOAD, "enable_loose_mode\n" + SCRIPT, "BackendScriptParserException"),
    "bare normalization": (
        PARSE + LOAD, SCRIPT.replace("normalization1 = ", ""), "BackendScriptParserException",
    ),
    "a feature of nobody's": (
        PARSE + LOAD, SCRIPT + "model_optimization_config(bias_correction, policy=enabled)\n",
        "BackendScriptParserException: 'bias_correction' is not a valid MOConfigCommand",
    ),
    "a layer of nobody's": (
        PARSE + LOAD, SCRIPT + "change_output_activation(conv999, sigmoid)\n", "AllocatorScriptParserException",
    ),
    "an inner layer as output": (
        PARSE + LOAD, SCRIPT + "change_output_activation(conv1, sigmoid)\n", "AllocatorScriptParserException",
    ),
    "a precision of nobody's": (
        PARSE + LOAD, SCRIPT + "quantization_param(conv1, precision_mode=float16)\n", "AllocatorScriptParserException",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def refusals(pristine: Bench, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each program of REFUSED raises, all of them tried in one process."""
    cases = {name: (program, script + "\n") for name, (program, script, _) in REFUSED.items()}
    program = (
        f"for name, (program, script) in json.loads({json.dumps(cases)!r}).items():\n"
        "    runner = ClientRunner(hw_arch='hailo8')\n"
        "    try:\n        exec(program)\n        text = 'nothing'\n"
        "    except Exception as exc:\n        text = f'{type(exc).__name__}: {exc}'\n"
        "    print('RESULT', json.dumps([name, text]))\n"
    )
    code, out, last = run(pristine.copy(tmp_path_factory.mktemp("double")), program)
    assert code == 0, last
    return dict(json.loads(line[7:]) for line in out.splitlines() if line.startswith("RESULT "))


@pytest.mark.parametrize("name", REFUSED)
def test_it_refuses(refusals: dict[str, str], name: str) -> None:
    """Unknown arguments, wrong types, wrong order, unknown words in a script."""
    assert REFUSED[name][2] in refusals[name]


def test_it_accepts_what_published_code_does(bench: Bench) -> None:
    """Every attested form of calibration data and of the script."""
    again = "runner = ClientRunner(hw_arch='hailo8'); " + PARSE
    forms = {
        "float32": "pictures.astype(np.float32)",
        "uint8": "pictures",
        "dict": "{'net/input_layer1': pictures.astype(np.float32)}",
        "file": "sys.argv[3]",
        "dataset": "lambda: tf.data.Dataset.from_generator(lambda: ((p.astype(np.float32), {}) for p in pictures), "
        "output_signature=(tf.TensorSpec(shape=(64, 64, 3), dtype=tf.float32), {}))",
    }
    program = "import tensorflow as tf\n" + "".join(
        f"{again}runner.load_model_script(script)\nrunner.optimize({form})\nprint('ok', {name!r}, runner.state)\n"
        for name, form in forms.items()
    )

    code, out, last = run(bench, program + "print(sorted(SUPPORTED_HW_ARCHS))")

    assert code == 0, last
    assert [line for line in out.splitlines() if line.startswith("ok")] == [f"ok {n} quantized_model" for n in forms]
    assert out.splitlines()[-1] == "['hailo8', 'hailo8l', 'hailo8r']"


IMPLICIT = {
    "no card, few pictures": ("99", "level to 0", "(1024), and there's no available GPU"),
    "a card, few pictures": ("0", "level to 1 (the accuracy", "less data than the recommended amount (1024)"),
}


@pytest.mark.parametrize("card, level, why", IMPLICIT.values(), ids=IMPLICIT.keys())
def test_an_implicit_level_falls(bench: Bench, card: str, level: str, why: str) -> None:
    """What a script leaves open depends on graphics card and pictures, and one line among many says so."""
    program = f"import os; os.environ['CUDA_VISIBLE_DEVICES'] = {card!r}\n" + PARSE + LOAD + QUANTIZE

    code, out, last = run(
        bench, program, "\n".join(line for line in SCRIPT.splitlines() if "flavor" not in line) + "\n"
    )

    assert code == 0, last
    told = [line for line in out.splitlines() if "optimization level" in line]
    assert len(told) == 1 and level in told[0] and told[0].endswith(why)


def test_a_har_survives(bench: Bench) -> None:
    """Saved after quantisation and loaded: the same codes; the files in it are those of a real one."""
    with bench.dfc() as dfc:
        _, outputs = bench.parse(dfc)
        bench.quantize(dfc, outputs)
        before = [np.array(t) for t in dfc.infer(QUANTIZED, bench.calibration.path, bench.folder / "t")]
    with bench.dfc() as dfc:
        dfc.start()
        graph, facts = dfc.open_har(bench.folder / "toy.quantized.har", "hailo8")
        after = dfc.infer(QUANTIZED, bench.calibration.path, bench.folder / "t")

    assert (facts["state"], facts["hw_arch"]) == ("quantized_model", "hailo8")
    assert "change_output_activation" in facts["script"]
    assert [o.producer for o in graph.outputs] == [o.producer for o in outputs]
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)
    with tarfile.open(bench.folder / "toy.quantized.har") as archive:
        assert archive.getnames() == ["toy.hn", "toy.npz", "toy.metadata.json", "toy.alls"]


@pytest.mark.parametrize("arch", ["hailo8", "hailo8l"])
def test_its_hef_is_a_file_that_says_it_is_fake(bench: Bench, arch: str) -> None:
    """Read by the same reader as any other HEF, and marked where nobody can miss it."""
    with bench.dfc() as dfc:
        dfc.start()
        graph = dfc.parse(bench.network, "toy", bench.layout.end_nodes, arch, bench.folder / "toy.parsed.har")
        bench.quantize(dfc, graph.matched(bench.layout, bench.file.size), wide=True)
        dfc.compile(bench.folder / "toy.hef")

    hef = read_hef(bench.folder / "toy.hef")

    assert (hef.arch, hef.digest_ok) == (arch, True) and "FAKE" in str(hef.sdk)
    assert b"THIS IS NOT A HEF" in (bench.folder / "toy.hef").read_bytes()
    streams = hef.groups[0].outputs
    assert [(s.shape, s.dtype) for s in streams] == [(c.shape, "uint16") for c in bench.layout.convs]
    assert [s.original_names[0] for s in streams] == list(bench.layout.end_nodes)
