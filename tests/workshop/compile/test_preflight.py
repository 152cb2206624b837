"""The first stage on toys of what users pass: what is warned of, what is refused, and whether each cure works."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from hefkit.workshop.compile.run import Compilation, Options
from hefkit.workshop.engine import open_onnx
from hefkit.workshop.script.read import read_script
from tests.conftest import ROOT
from tests.helpers.tiny_onnx import save, tiny_yolo

Preflight = Callable[..., Compilation]


@pytest.fixture
def preflight(tmp_path: Path) -> Preflight:
    """Run the first stage on a model, or on a file."""

    def run(model: onnx.ModelProto | Path, **flags: Any) -> Compilation:
        path = model if isinstance(model, Path) else save(model, tmp_path / "toy.onnx")
        script = read_script(ROOT / "hailo_optimization.mscript")
        compilation = Compilation(
            Options(path, tmp_path / "out", tmp_path / "calib", script, tmp_path / "run", **flags)
        )
        compilation.preflight()
        return compilation

    return run


# --- class names in the ONNX -----------------------------------------------------------------------------------------

COUNTS = {
    "too many": ("{0: 'a', 1: 'b', 2: 'c', 3: 'd'}", "the ONNX has a name for class 3, but the model has 3 classes"),
    "too few": ("{0: 'a', 1: 'b'}", "the ONNX has names for 2 of the model's 3 classes"),
    "fitting": ("{0: 'a', 1: 'b', 2: 'c'}", None),
    "none": ("", None),
}


@pytest.mark.parametrize("names, words", COUNTS.values(), ids=COUNTS.keys())
def test_names_of_the_onnx_must_fit_its_classes(
    preflight: Preflight, caplog: pytest.LogCaptureFixture, names: str, words: str | None
) -> None:
    """The sentence of --names, as a warning; --names is its cure, for the compiler and for detection."""
    model = tiny_yolo(names=names)
    found = preflight(model).warnings

    assert len(found) == (words is not None) and all(words in text for text in found)
    assert preflight(model, names={0: "x", 1: "y", 2: "z"}).warnings == []


def test_detection_says_it_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A float model that is run as it is."""

    open_onnx(save(tiny_yolo(names="{0: 'a', 1: 'b'}"), tmp_path / "toy.onnx")).close()

    assert "the ONNX has names for 2 of the model's 3 classes" in caplog.text


@pytest.mark.slow
def test_the_real_model_with_three_names(shared: Path, preflight: Preflight) -> None:
    """../shared/field: two classes, three names."""
    run = preflight(shared / "field" / "10-names-metadata" / "three.onnx")

    assert [text for text in run.warnings if "a name for class 2, but the model has 2 classes" in text]
