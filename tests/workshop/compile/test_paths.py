"""The name of the output, and the lines that copy everything to the Pi: they are run, and the copy is used."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hefkit.errors import ModelError, UsageError
from hefkit.workshop.compile.paths import HOST, SCRIPTS, check_model_exists, check_output, check_same_source, copy_lines
from tests.conftest import ROOT
from tests.helpers.chip_hef import write_hef
from tests.helpers.heads import make_head, make_spec
from tests.helpers.pictures import write

OUTPUTS = {
    "a name": ("m", "m"),
    "with .hef": ("m.hef", "m"),
    "with .emulated.onnx": ("m.emulated.onnx", "m"),
    "in capitals": ("M.HEF", "M"),
    "dots and a folder": ("sub/my.model-1", "sub/my.model-1"),
    "a suffix and nothing else": (".hef", ".hef"),
}


@pytest.mark.parametrize("given, expected", OUTPUTS.values(), ids=OUTPUTS.keys())
def test_names_of_the_output(given: str, expected: str) -> None:
    """The suffix is optional."""
    assert check_output(Path(given), Path("best.onnx")) == Path(expected)


# --- to the Pi --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        pytest.param(None, "made from an unknown ONNX", id="no spec"),
        pytest.param(
            {"source": {"file": "old.onnx", "sha256": "0" * 64}}, "from another ONNX (old.onnx)", id="another"
        ),
        pytest.param({"source": {"sha256": hashlib.sha256(b"onnx").hexdigest()}}, None, id="the same"),
    ],
)
@pytest.mark.parametrize("emulate", [False, True])
def test_a_model_of_the_default_name(
    tmp_path: Path, spec: dict[str, Any] | None, words: str | None, emulate: bool
) -> None:
    """Replaced only by a model from the same ONNX; the message says what to type."""
    source, name = tmp_path / "new one.onnx", tmp_path / "model"
    source.write_bytes(b"onnx")
    check_same_source(name, source, emulate=emulate)  # there is none yet
    model = tmp_path / ("model.emulated.onnx" if emulate else "model.hef")
    model.touch()
    if spec is not None:
        model.with_suffix(".json").write_text(json.dumps({"tool": "hefkit 0.1.0", **spec}))

    if words is None:
        check_same_source(name, source, emulate=emulate)
    else:
        with pytest.raises(UsageError, match=re.escape(words)) as caught:
            check_same_source(name, source, emulate=emulate)
        assert "type --output 'new one', or --output" in str(caught.value)
    check_same_source(name, source, emulate=not emulate)  # the other kind of model is not touched


def test_first_a_checkpoint_then_a_near_name(tmp_path: Path) -> None:
    """A .pt is answered with ultralytics' command, a mistyped path with the right one."""
    with pytest.raises(ModelError, match=r"yolo export model='my best\.pt' format=onnx imgsz=640 opset=13$"):
        check_model_exists(Path("my best.pt"))
    (tmp_path / "best.onnx").touch()
    with pytest.raises(ModelError, match=rf"does not exist; did you mean {tmp_path}/best\.onnx\?"):
        check_model_exists(tmp_path / "bets.onnx")


# `ssh HOST COMMAND ...` runs the command in the Pi's home, `scp FILE ... HOST:FOLDER` copies into a folder below it
SSH = """#!/bin/sh
[ "$1" = "$PI_HOST" ] || exit 255
shift
cd "$PI_HOME" && exec sh -c "$*"
"""
SCP = """#!/bin/sh
for last; do :; done
[ "${last%%:*}" = "$PI_HOST" ] || exit 255
while [ $# -gt 1 ]; do cp "$1" "$PI_HOME/${last#*:}" || exit 1; shift; done
"""
IMPORT_ALL = """
import importlib, json, pkgutil, sys
sys.modules.update(onnx=None, onnxruntime=None)  # from now on their import fails
import hefkit
names = [module.name for module in pkgutil.walk_packages(hefkit.__path__, "hefkit.")]
for name in names:
    importlib.import_module(name)
print(json.dumps([hefkit.__file__, names]))
"""
PYTHONS = {"this Python": Path(sys.executable), "the Pi's libraries": ROOT / ".venv-pi" / "bin" / "python"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The project in a folder whose name must be quoted, with caches."""
    folder = tmp_path / "my project"
    shutil.copytree(ROOT / "hefkit", folder / "hefkit")
    for script in SCRIPTS:
        shutil.copy(ROOT / script, folder)
    (folder / "hefkit" / "detect" / "__pycache__").mkdir(exist_ok=True)
    (folder / "hefkit" / "detect" / "__pycache__" / "old.pyc").write_bytes(b"")
    return folder


@pytest.mark.parametrize("python", PYTHONS.values(), ids=PYTHONS.keys())
def test_the_printed_lines_bring_a_detector_to_the_pi(
    python: Path, project: Path, tmp_path: Path, chip_env: Callable[..., dict[str, str]]
) -> None:
    """Run as they are printed; in the copy every module imports without onnx, and the HEF finds boxes."""
    if not python.exists():
        pytest.skip("no .venv-pi: `make test` makes it where there is a Python 3.10 or 3.11 (numpy 1.24 ends there)")
    home, programs, model = tmp_path / "home", tmp_path / "bin", tmp_path / "my model.hef"
    home.mkdir()
    programs.mkdir()
    for name, text in (("ssh", SSH), ("scp", SCP), ("python3", f'#!/bin/sh\nexec "{python}" "$@"\n')):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    write_hef(model, make_spec(make_head(reg_max=1)), None, beside=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    environment |= {"PATH": f"{programs}:{os.environ['PATH']}", "PI_HOME": str(home), "PI_HOST": HOST, **chip_env()}

    def run(command: str, folder: Path) -> str:
        done = subprocess.run(
            ["sh", "-ec", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    *lines, last = copy_lines(model, project, "4.23.0")
    assert "HailoRT 4.23.0" in " ".join(lines)
    for line in lines:
        if line.startswith("  "):
            run(line, tmp_path)

    here = {path.relative_to(home / "hefkit") for path in (home / "hefkit").rglob("*") if path.is_file()}
    expected = {path.relative_to(project) for path in project.rglob("*") if path.is_file()}
    expected = {path for path in expected if not {"workshop", "__pycache__"} & set(path.parts)}
    assert here == expected | {Path("my model.hef"), Path("my model.json")}
    for script in SCRIPTS:
        assert run(f"python3 {script} --help", home / "hefkit").startswith("usage: ")
    origin, names = json.loads(run(f"python3 -c '{IMPORT_ALL}'", home / "hefkit"))
    assert Path(origin) == home / "hefkit" / "hefkit" / "__init__.py"
    assert {"hefkit.open_model", "hefkit.hailo.runtime"} <= set(names)
    assert not [name for name in names if name.startswith("hefkit.workshop")]

    write(home / "hefkit" / "photos" / "white.png", np.full((64, 64, 3), 255, np.uint8))
    command = last.partition(": ")[2].replace("PHOTOS", "photos")
    run(f"{command} --save-dir found", home)
    [found] = (home / "hefkit" / "found" / "detections.jsonl").read_text().splitlines()
    assert json.loads(found)["engine"] == "hailort" and json.loads(found)["detections"]
