"""The double of Hailo's SDK as a separate environment: an executable that runs Python with the double on its path.

    python = make_sdk(tmp_path, version="3.33.1", four_bit=["conv5"])
    run_script("compile_to_hef.py", ..., "--sdk-python", python)

The interpreter of the tests cannot import the double; its folder is only on the path of that executable.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest

from hefkit.signals import run_process
from hefkit.workshop.dfc import find, process
from tests.conftest import ROOT
from tests.helpers.warm import Forked, Warm

DOUBLE = ROOT / "tests" / "doubles" / "sdk"
# it runs on the tests' Python; known releases end with 3.12, and an unknown release is only a warning
SDK_VERSION = "3.33.1" if sys.version_info < (3, 13) else "3.35.0"


def make_sdk(
    folder: Path,
    version: str = SDK_VERSION,
    *,
    python: Path | str = sys.executable,
    name: str = "sdk",
    **behaviour: Any,
) -> Path:
    """An SDK environment below `folder`; returns its Python.

    Args:
        version: of its package's metadata and `hailo_sdk_client.__version__`.
        behaviour: its faults; see tests/doubles/sdk/double_parts/behaviour.py.
    """
    home = folder / name
    info = home / "site" / f"hailo_dataflow_compiler-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: hailo-dataflow-compiler\nVersion: {version}\n")
    (home / "behaviour.json").write_text(json.dumps(behaviour))
    executable = home / "bin" / "python"
    executable.parent.mkdir()
    variables = {"PYTHONPATH": f"{home / 'site'}:{DOUBLE}", "HAILO_DOUBLE": str(home / "behaviour.json")}
    words = " ".join(f'{key}="{value}"' for key, value in variables.items())
    executable.write_text(f'#!/bin/sh\n{words} exec "{python}" "$@"\n')
    executable.chmod(0o755)
    if str(python) == sys.executable:
        _variables[executable], _versions[executable] = variables, version
    return executable


_variables: dict[Path, dict[str, str]] = {}  # that an executable sets
_versions: dict[Path, str] = {}  # of the SDK of an executable
_answers: dict[str, subprocess.CompletedProcess[str]] = {}  # of a version to the question what it is
# what the worker and the double import, and the parts of the double that do nothing when they are imported
_WARM = Warm(
    "numpy", "onnx", "onnxruntime", "dataclasses", "encodings.cp437", "faulthandler", "gzip", "hashlib",
    "importlib.metadata", "inspect", "mmap", "queue", "tarfile", "traceback",
    *(f"double_parts.{path.stem}" for path in (DOUBLE / "double_parts").glob("[!_]*.py")), path=[str(DOUBLE)],
)  # fmt: skip


def fork_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the SDK's processes be forked from a warm interpreter: a sixth of the work of starting one.

    The question what an environment is goes to a new interpreter, but once only: environments of one version differ in
    their folders and their faults, which are not in the answer.
    """
    monkeypatch.setattr(find, "run_process", _asked)
    warm = SimpleNamespace(Popen=_started, DEVNULL=subprocess.DEVNULL, STDOUT=subprocess.STDOUT)
    monkeypatch.setattr(process, "subprocess", warm)


def _asked(command: Sequence[str], *limits: float, **settings: Any) -> subprocess.CompletedProcess[str]:
    version = _versions.get(Path(command[0]))
    if version is None:
        return run_process(command, *limits, **settings)
    if version not in _answers:
        _answers[version] = run_process(command, *limits, **settings)
    return _answers[version]


def _started(
    command: Sequence[str],
    *,
    cwd: Path,
    env: dict[str, str],
    stdin: int,
    stdout: IO[bytes],
    stderr: int,
    pass_fds: Sequence[int],
    start_new_session: bool,
) -> subprocess.Popen[bytes] | Forked:
    variables = _variables.get(Path(command[0]))
    if variables is None or sys.platform != "linux":
        return subprocess.Popen(
            command, cwd=cwd, env=env, stdin=stdin, stdout=stdout, stderr=stderr, pass_fds=pass_fds,
            start_new_session=start_new_session,
        )  # fmt: skip
    assert (stdin, stderr) == (subprocess.DEVNULL, subprocess.STDOUT)
    with open(os.devnull) as nothing:
        files = {0: nothing.fileno(), 1: stdout.fileno(), 2: stdout.fileno(), **{n: n for n in pass_fds}}
        return _WARM.start(
            command[1:], cwd=cwd, environment={**env, **variables}, files=files, own_session=start_new_session
        )
