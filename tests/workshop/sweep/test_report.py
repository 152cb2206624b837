"""The report of a sweep with the SDK: two candidates of the double, compiled as a worker does it, side by side."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from compile_to_hef import main, parse_args, resolve
from hefkit.cli import run_main
from hefkit.workshop.compile import sdk_engine
from hefkit.workshop.compile.run import Compilation
from hefkit.workshop.sweep.report import compare
from tests.helpers.labelled import dataset
from tests.helpers.sdk import SDK_VERSION, fork_the_worker, make_sdk
from tests.helpers.tiny_onnx import save, tiny_yolo
from tests.scripts.test_compile_emulated import npy_set

CANDIDATES = {"plain": [], "wide": ["--precision-16", "outputs"]}
WORDS = ["toy.onnx", "--calib", "set.npy", "--data", "data/data.yaml", "--quiet"]
pytest.importorskip("jinja2")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the network, three labelled pictures, the SDK, and both candidates in the folder of a sweep."""
    folder = tmp_path_factory.mktemp("compiled")
    with pytest.MonkeyPatch.context() as patched:
        fork_the_worker(patched)
        patched.chdir(folder)
        save(tiny_yolo(), Path("toy.onnx"))
        npy_set(Path("set.npy"), 8)
        dataset(Path("data"), 3)
        sdk = make_sdk(folder)
        for name, flags in CANDIDATES.items():
            places = ["--output", f"sweep/{name}/{name}", "--run-dir", f"sweep/{name}/run", "--sdk-python", str(sdk)]
            assert run_main(main, [*WORDS, *places, *flags]) == 0
    return folder


@pytest.fixture
def run(compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compilation:
    """Past the preflight, in a copy of that folder."""
    fork_the_worker(monkeypatch)
    shutil.copytree(compiled, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    sdk = str(compiled / "sdk" / "bin" / "python")
    words = [*WORDS, "--output", "best", "--sweep", "auto", "--run-dir", "sweep", "--sdk-python", sdk]
    made = Compilation(resolve(parse_args(words)))
    made.preflight()
    return made


def models(*names: str) -> list[Path]:
    """Those of the candidates."""
    return [Path("sweep", name, f"{name}.hef") for name in names]


def test_the_figures_are_those_of_the_compilation(run: Compilation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each model as --data measured it before it was compiled; the page says whose figures they are."""
    monkeypatch.setattr(sdk_engine, "CHUNK", 2)  # of three pictures

    page = compare(run, models("wide", "plain"))

    assert page == Path("sweep/report.html") and run.warnings == []
    found = json.loads(Path("sweep/report.json").read_bytes())
    for model, name in zip(found["models"], ["wide", "plain"], strict=True):
        [before] = json.loads(Path("sweep", name, "run", "report.json").read_bytes())["accuracy"]["models"]
        assert model == {**before, "model": f"sweep/{name}/{name}.hef"} and model["engine"] == "emulated"
    assert found["models"][0]["agreement"] != found["models"][1]["agreement"]
    text = page.read_text()
    assert "(emulated by Hailo&#39;s SDK, not the chip)" in text
    assert text.count("<td>emulated by Hailo&#39;s SDK</td>") == 2
    assert "those of Hailo&#39;s SDK" in text and "they are not of the chip" in text
    assert not list(Path("sweep").rglob("*.npy")) and not list(Path("sweep").rglob(".hefkit*"))


def test_what_cannot_be_emulated_is_a_warning(run: Compilation, tmp_path: Path) -> None:
    """No SDK here, another version of it, one that fails, a network that is gone: no page, one sentence, no error."""
    failing = {"infer": {"raise": ["RuntimeError", "out of memory"]}}
    sdks = {
        "the same command on a machine with the SDK makes only the report": tmp_path / "none",
        f"with the SDK {SDK_VERSION}, this machine has 3.32.0": make_sdk(tmp_path, "3.32.0", name="other"),
        "the SDK does not emulate its network: RuntimeError: out of memory": make_sdk(tmp_path, name="bad", at=failing),
    }

    for words, sdk in sdks.items():
        run.options = replace(run.options, sdk_python=sdk)
        assert compare(run, models("plain", "wide")) is None
        assert words in run.warnings[-1] and run.warnings[-1].startswith("no report of the winner beside")
    Path("sweep/plain/run/plain.quantized.har").unlink()
    assert compare(run, models("plain", "wide")) is None
    assert "plain.quantized.har is missing" in run.warnings[-1] and len(run.warnings) == 4
    assert not Path("sweep/report.html").exists()
