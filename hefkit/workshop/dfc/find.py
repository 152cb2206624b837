"""Find the Python that has Hailo's SDK, without importing the SDK: the import takes seconds and loads TensorFlow."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hefkit.errors import ToolchainError
from hefkit.files import existing
from hefkit.signals import run_process
from hefkit.text import one_line
from hefkit.workshop.dfc.process import sdk_environment

MODULE = "hailo_sdk_client"
DISTRIBUTION = "hailo-dataflow-compiler"
VARIABLE = "HAILO_SDK_PYTHON"
SDK_VENV = Path(".venv_hailo_full", "bin", "python")
DOCKER_VENV = Path("/local/workspace/hailo_virtualenv/bin/python")  # in Hailo's own Docker image
# below the SDK's folder: libraries that its tools need and, on some systems, do not find
OR_TOOLS = Path("hailo_tools", "or-tools", "dependencies", "install", "lib")
PROBE_S = 120  # seconds; a slow disk may need some, although nothing large is imported

# must run on Python 3.8; -c puts the current folder first on sys.path, where a folder may have the SDK's name
PROBE = f"""
import importlib.util, json, platform, sys
sys.path[:] = [p for p in sys.path if p]
def version(name):
    try:
        from importlib.metadata import version
        return version(name)
    except Exception:
        return None
spec = importlib.util.find_spec({MODULE!r})
places = list(spec.submodule_search_locations or []) if spec else []
print(json.dumps({{
    "python": list(sys.version_info[:2]),
    "system": platform.system(),
    "machine": platform.machine(),
    "found": spec is not None,
    "place": places[0] if places else None,
    "numpy": version("numpy"),
    "sdk": version({DISTRIBUTION!r}),
}}))
"""

NO_SDK = (
    f"Hailo's Dataflow Compiler (the Python package {MODULE}) is not installed, and a HEF comes only from "
    "it; register at https://hailo.ai/developer-zone, download the wheel and install it on x86_64 Linux, or "
    "use --emulate for an INT8 model that runs without it"
)


@dataclass(frozen=True)
class Sdk:
    """A Python in which the SDK is installed."""

    python: Path
    why: str  # how it was found
    version: str | None  # of the SDK, from its package's metadata
    python_version: tuple[int, int]
    system: str
    machine: str
    site: Path | None = None  # the folder that holds its packages, such as hailo/lib/python3.10/site-packages

    def libraries(self) -> list[Path]:
        """Folders for LD_LIBRARY_PATH: of or-tools, and of the CUDA that pip installs."""
        if self.site is None:
            return []
        cuda = sorted(self.site.glob("nvidia/*/lib"))
        return [folder for folder in (self.site / OR_TOOLS, *cuda) if existing(folder)]

    def to_json(self) -> dict[str, object]:
        """For report.json."""
        return {
            "python": str(self.python),
            "found_by": self.why,
            "version": self.version,
            "python_version": ".".join(map(str, self.python_version)),
        }


def find_sdk(flag: Path | None = None) -> Sdk:
    """`--sdk-python`, HAILO_SDK_PYTHON, this interpreter, `.venv_hailo_full/bin/python`, Hailo's Docker, in that order.

    Raises:
        ToolchainError: none of them has the SDK, or the one that the user named does not.
    """
    named = [(flag, "--sdk-python"), (_path(os.environ.get(VARIABLE)), VARIABLE)]
    for path, why in named:
        if path is not None:
            return _probed(_interpreter(path, why), why, named=True)
    if importlib.util.find_spec(MODULE) is not None:
        return _probed(Path(sys.executable), "this Python", named=True)
    for venv in (SDK_VENV, DOCKER_VENV):
        if existing(venv):
            return _probed(venv.absolute(), str(venv), named=False)
    raise ToolchainError(NO_SDK)


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def _interpreter(path: Path, why: str) -> Path:
    """The executable for a path, a name on PATH, or the folder of an environment."""
    if existing(path) and path.is_dir():
        path = path / "bin" / "python"
    if path.name == str(path):  # a bare name, such as python3.10
        path = Path(shutil.which(path.name) or path)
    path = path.absolute()  # not resolved: the python of an environment is a link, and its place finds the packages
    if not existing(path) or path.is_dir():
        raise ToolchainError(
            f"{why} {path} does not exist; expected the Python of the environment in which Hailo's SDK is installed, "
            "such as hailo/bin/python; check the path"
        )
    return path


def _probed(python: Path, why: str, *, named: bool) -> Sdk:
    facts = _probe(python, why)
    if not facts.get("found"):
        where = f"{why} {python}" if named else str(python)
        raise ToolchainError(
            f"{where} has no Hailo SDK: its Python {'.'.join(map(str, facts['python']))} cannot find the package "
            f"{MODULE}; expected an environment with the SDK's wheel; install it there, or name another Python with "
            "--sdk-python"
        )
    if facts.get("numpy") is None:
        raise ToolchainError(
            f"{python} has Hailo's SDK but no numpy; expected a complete environment; install the SDK's wheel again"
        )
    site = Path(facts["place"]).parent if facts.get("place") else None
    if site is not None and "dist-packages" in site.parts:
        raise ToolchainError(
            f"{python} has Hailo's SDK in {one_line(site, 120)}, where the SDK does not find its own compiler at the "
            "end of a compilation; expected it below a site-packages; make an environment for it with python3 -m "
            "venv hailo, install the wheel there and name hailo/bin/python with --sdk-python"
        )
    version = facts.get("sdk")
    return Sdk(
        python=python,
        why=why,
        version=str(version) if version else None,
        python_version=(int(facts["python"][0]), int(facts["python"][1])),
        system=str(facts.get("system")),
        machine=str(facts.get("machine")),
        site=site,
    )


def _probe(python: Path, why: str) -> dict[str, Any]:
    try:
        done = run_process([str(python), "-c", PROBE], PROBE_S, cwd=os.sep, env=sdk_environment(python, {}))
        facts = json.loads(done.stdout.strip().splitlines()[-1]) if done.returncode == 0 else None
    except subprocess.TimeoutExpired as exc:
        raise ToolchainError(f"{why} {python} does not answer within {PROBE_S} s; expected a Python; try it") from exc
    except (OSError, ValueError, IndexError) as exc:
        raise ToolchainError(f"{why} {python} cannot be run as a Python: {one_line(exc)}; check the path") from exc
    if not isinstance(facts, dict) or not isinstance(facts.get("python"), list):
        raise ToolchainError(
            f"{why} {python} is not Python 3.8 or newer: {one_line(done.stderr or done.stdout)[-300:]}; expected the "
            "Python of the SDK's environment; check the path"
        )
    return facts
