"""The worker's file: syntax of Python 3.8, no import that the SDK's environment has not, and run on an old Python.

The old environment (`.venv-old`: Python 3.8 or 3.9 with numpy 1.x and nothing else) is made by `make test` where there
is such a Python.
"""

from __future__ import annotations

import ast
import enum
import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hefkit.workshop.dfc.client import QUANTIZED, Dfc
from hefkit.workshop.dfc.find import find_sdk
from hefkit.workshop.dfc.process import WORKER
from tests.conftest import ROOT
from tests.helpers.imports import imports
from tests.helpers.onnx_net import network_input, run_onnx
from tests.helpers.sdk import DOUBLE, make_sdk
from tests.helpers.sdk_run import Bench

OLD_PYTHON = ROOT / ".venv-old" / "bin" / "python"
SDK_FILES = [WORKER, *sorted(DOUBLE.rglob("*.py"))]


@pytest.mark.parametrize("path", SDK_FILES, ids=lambda path: path.name)
def test_syntax_of_python_3_8(path: Path) -> None:
    """The oldest Python of a known SDK release; the double is held to the same."""
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))


def test_the_worker_needs_nothing_of_ours() -> None:
    """Standard library, numpy, the SDK and its TensorFlow, the latter two late."""
    found = imports(WORKER)

    allowed = sys.stdlib_module_names | {"numpy"}
    assert {i.top for i in found} - allowed == {"hailo_sdk_client", "tensorflow"}
    assert all(i.function is not None for i in found if i.top not in allowed)


def test_a_state_is_a_word_whatever_kind_of_enum_it_is() -> None:
    """Public sources name the members; their values may be texts or numbers."""
    word = runpy.run_path(str(WORKER), run_name="worker")["word"]
    texts = enum.Enum("texts", {"HAILO_MODEL": "hailo_model"})
    numbers = enum.Enum("numbers", {"HAILO_MODEL": 1})

    assert [word(v) for v in (texts.HAILO_MODEL, numbers.HAILO_MODEL, "Hailo_Model", None)] == ["hailo_model"] * 3 + [
        None
    ]


def test_our_folder_hides_no_module_of_the_sdk_s(tmp_path: Path) -> None:
    """Modules beside the worker are not found, by whatever name its folder is on the path; all others are."""
    folder, other = tmp_path / "folder", tmp_path / "other"
    for place in (folder, other):
        place.mkdir()
    worker = shutil.copy(WORKER, folder)
    (folder / "statistics.py").write_text("raise AssertionError('imported')\n")
    (other / "module_of_the_sdk.py").write_text("")
    (tmp_path / "link").symlink_to(folder)
    program = (
        f"import runpy, sys; sys.path[:0] = [{str(folder)!r}, {str(tmp_path / 'link')!r}, '', {str(other)!r}]\n"
        f"runpy.run_path({worker!r}, run_name='worker')\n"
        "import statistics, module_of_the_sdk; print(statistics.__file__)\n"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=folder, timeout=60)

    assert done.returncode == 0, done.stderr
    assert not done.stdout.strip().startswith(str(tmp_path))


def record_answers(bench: Bench) -> None:
    """Write down what the double shall answer where there is no onnxruntime: `FILE.recorded.npz`."""
    import hashlib

    facts = {
        "input_shape": [*bench.file.size, 3],
        "input_name": bench.file.input_name,
        "nodes": [
            {"name": f"conv{i + 1}", "type": "conv", "original_names": [c.node_name]}
            for i, c in enumerate(bench.layout.convs)
        ],
        "shapes": [list(c.shape) for c in bench.layout.convs],
    }
    arrays, keys = {}, []
    for picture in np.load(bench.calibration.path):
        normal = (picture / np.float32(255)).astype(np.float32)
        key = hashlib.sha256(normal.tobytes()).hexdigest()[:24]
        keys.append(key)
        heads = run_onnx(bench.file.model, network_input(picture), *bench.layout.tensors)
        arrays.update({f"{key}_{k}": t[0].transpose(1, 2, 0) for k, t in enumerate(heads)})
    np.savez(f"{bench.network}.recorded.npz", facts=json.dumps({**facts, "keys": keys}), **arrays)


def road(bench: Bench, python: Path | str) -> tuple[dict[str, object], list[np.ndarray], bytes]:
    """All calls on an interpreter: what it says of itself, the quantised tensors, the HEF."""
    sdk = find_sdk(make_sdk(bench.folder, "3.30.0", python=python, name=f"sdk-{Path(python).parts[-3]}"))
    work = bench.folder / f"run-{Path(python).parts[-3]}"
    work.mkdir()
    with Dfc(sdk, work, {"CUDA_VISIBLE_DEVICES": "99"}) as dfc:
        facts = dfc.start()
        graph = dfc.parse(bench.network, "toy", bench.layout.end_nodes, "hailo8", work / "p.har")
        bench.quantize(dfc, graph.matched(bench.layout, bench.file.size))
        tensors = [np.array(t) for t in dfc.infer(QUANTIZED, bench.calibration.path, work / "t")]
        dfc.compile(work / "toy.hef")
    return facts, tensors, (work / "toy.hef").read_bytes()


def test_the_worker_on_an_old_python(bench: Bench) -> None:
    """Python 3.8 and numpy 1.x, where TensorFlow's place is taken by the double's: the same codes, the same HEF."""
    if not OLD_PYTHON.exists():
        pytest.skip("no .venv-old: `make test` makes it where there is a Python 3.8 or 3.9")
    record_answers(bench)

    old, tensors, hef = road(bench, OLD_PYTHON)
    new, expected, new_hef = road(bench, sys.executable)

    assert str(old["python"]).startswith(("3.8.", "3.9.")) and str(old["numpy"]).startswith("1.")
    assert new["python"] == ".".join(map(str, sys.version_info[:3]))
    for a, b in zip(tensors, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    assert hef == new_hef
