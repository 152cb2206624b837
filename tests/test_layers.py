"""Imports go one way, every package has a face, and no module or folder outgrows its reader.

The Pi packages (all of hefkit but hefkit/workshop) are what is copied to a Raspberry Pi, so they are also imported
where nothing but numpy and OpenCV is left. `make test-pi` runs their tests with the Pi's own versions of the two.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.helpers.imports import (
    OURS,
    PI,
    SCRIPTS,
    SHELL_SCRIPT,
    TESTS,
    WORKSHOP,
    WORKSTATION,
    imports,
    mirrored,
    needs_no_library,
    pi_test_files,
)

# each may import those before it; neighbours in a row do not know each other
LAYERS = (
    ("errors", "text"),
    ("signals",),
    ("files",),
    ("staging",),
    ("spec", "chips", "cli"),
    ("names", "spec_file"),
    ("pictures", "hef"),
    ("detect",),
    ("results", "cameras", "hailo"),
    ("measure", "live"),
    ("web", "mqtt"),
    ("workshop",),  # its __init__, which says what onnxruntime may do
    ("workshop.cluster",),
    ("workshop.network", "workshop.script", "workshop.calibration"),
    ("workshop.heads",),
    ("workshop.emulator", "workshop.dfc"),
    ("workshop.engine",),
    ("workshop.compile",),
    ("workshop.sweep",),
    ("open_model",),
)
PI_SCRIPTS = {"hailo_inference", "working_hailo_detector", "validate_hef"}
WORKSTATION_SCRIPTS = {"prepare_calibration", "compile_to_hef"}

# the modules where a package may be imported, inside a function that cannot do without it
LATE = {
    "tqdm": {"hefkit.results.progress"},
    "yaml": {"hefkit.names"},
    "PIL": {"hefkit.results.lettering"},
    "av": {"hefkit.pictures.writer"},
    "xxhash": {"hefkit.hef.container"},
    "distributed": {"hefkit.workshop.cluster", "hefkit.workshop.calibration.choice.cluster"},
    "dask": {"hefkit.workshop.cluster"},
    "fsspec": {"hefkit.workshop.calibration.remote"},
    "picamera2": {"hefkit.cameras.csi"},
    "aiohttp": {"hefkit.web.server"},
    "paho": {"hefkit.mqtt.link"},
    "matplotlib": {"hefkit.measure.report.plots"},
    "jinja2": {"hefkit.measure.report.page"},
    "hailo_platform": {"hefkit.hailo.runtime"},
    "hailo_sdk_client": {"hefkit.workshop.dfc.dfc_worker"},
    "tensorflow": {"hefkit.workshop.dfc.dfc_worker"},  # comes with the SDK
}
DOORS = {
    ("hefkit.open_model", "open_engine", "hefkit.workshop"),
    ("hefkit.open_model", "open_engine", "hefkit.workshop.engine"),
}

MAX_LINES = 300
MAX_MODULES = 14  # of a folder, its __init__ included

BLOCKED = (
    "onnx",
    "onnxruntime",
    "hailo_sdk_client",
    "hailo_platform",
    "tqdm",
    "yaml",
    "picamera2",
    "aiohttp",
    "paho",
    "PIL",
    "matplotlib",
    "jinja2",
)
PI_PYTHON = ROOT / ".venv-pi" / "bin" / "python"
PACKAGES = {name: path for name, path in OURS.items() if path.stem == "__init__" and name != "hefkit"}
MAPS = {"hefkit": OURS["hefkit"], **PACKAGES}


def unit(module: str) -> str:
    """What LAYERS calls a module: hefkit.hef.wire -> hef, hefkit.workshop.dfc.log -> workshop.dfc."""
    parts = module.split(".")[1:]
    return ".".join(parts[: 2 if parts[0] == "workshop" else 1])


def layer(module: str) -> int:
    """The place of a module in LAYERS; KeyError for a module that has none."""
    return {name: number for number, row in enumerate(LAYERS) for name in row}[unit(module)]


@pytest.mark.parametrize("name", [name for row in LAYERS for name in row])
def test_imports_go_one_way(name: str) -> None:
    """A module imports its own package and earlier layers, late imports included; so there is no circle of packages."""
    modules = [module for module in OURS if module != "hefkit" and unit(module) == name]
    assert modules
    for module in modules:
        for found in imports(OURS[module]):
            if found.module in OURS and found.module != "hefkit" and unit(found.module) != name:
                assert layer(found.module) < layer(module), (module, found)


def test_every_module_has_a_layer() -> None:
    """LAYERS has each of them once."""
    names = [name for row in LAYERS for name in row]
    assert len(names) == len(set(names)) and {unit(module) for module in OURS if module != "hefkit"} == set(names)


def test_pi_packages_need_numpy_and_opencv_only() -> None:
    """Module level: standard library, numpy, cv2, other Pi packages. Late: the packages of LATE, and the one door."""
    allowed = sys.stdlib_module_names | {"numpy", "cv2"}
    for module, path in PI.items():
        for found in imports(path):
            late = found.function is not None and module in LATE.get(found.top, ())
            door = (module, found.function, found.module) in DOORS
            assert found.top in allowed or found.module in PI or late or door, (module, found)


def test_the_workshop_adds_onnx() -> None:
    """The workshop may use every package, onnx and onnxruntime, but no script."""
    allowed = sys.stdlib_module_names | {"numpy", "cv2"} | WORKSTATION
    for module, path in WORKSHOP.items():
        for found in imports(path):
            late = found.function is not None and module in LATE.get(found.top, ())
            assert found.top in allowed or found.module in OURS or late, (module, found)


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_thin(script: str) -> None:
    """A script imports hefkit and the standard library; one that goes to the Pi imports nothing of the workshop."""
    assert script in PI_SCRIPTS | WORKSTATION_SCRIPTS, "a new script must say whether it goes to the Pi"
    for found in imports(SCRIPTS[script]):
        assert found.top in sys.stdlib_module_names or found.module in (PI if script in PI_SCRIPTS else OURS), found


# --- faces and sizes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", MAPS)
def test_the_docstring_is_the_map(package: str) -> None:
    """Every module and folder of a package has its line there, and nothing else has one."""
    folder = MAPS[package].parent
    there = {p.stem for p in folder.glob("*.py")} | {p.parent.name for p in folder.glob("*/__init__.py")}

    listed = re.findall(r"^    (\w+)(?:  +\S.*)$", docstring(package), re.MULTILINE)

    assert sorted(listed) == sorted(there - {"__init__"})


@pytest.mark.parametrize("package", [name for name in PACKAGES if name != "hefkit.workshop"])
def test_the_face_is_what_others_use(package: str) -> None:
    """`Others use:` names exactly the modules that other packages, scripts, examples and benchmarks import."""
    outside = [
        *(path for name, path in OURS.items() if not name.startswith(f"{package}.") and name != package),
        *SCRIPTS.values(),
        *(ROOT / "examples").rglob("*.py"),
        *(ROOT / "benchmarks").glob("*.py"),
    ]
    used = {found.module for path in outside for found in imports(path) if found.module.startswith(f"{package}.")}

    names = {name.removeprefix(f"{package}.") for name in used}  # a package inside has a face of its own

    [face] = re.findall(r"^Others use: ([\w,\s]+)\.$", docstring(package), re.MULTILINE)

    assert set(re.findall(r"\w+", face)) - {"nothing"} == {name for name in names if "." not in name}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_face_is_only_a_docstring(package: str) -> None:
    """`--help` without numpy forbids re-exports. The workshop's sets what onnxruntime may do, before it is imported."""
    tree = ast.parse(PACKAGES[package].read_text(encoding="utf-8"))
    assert len(tree.body) == 1 or package == "hefkit.workshop"


def test_no_module_outgrows_its_reader() -> None:
    """At most 300 lines, scripts too; at most 14 modules in a folder, 11 and 12 folders in hefkit/ itself."""
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in {**OURS, **SCRIPTS}.items()}
    assert not {name: n for name, n in lines.items() if n > MAX_LINES}
    for package, path in MAPS.items():
        files, folders = list(path.parent.glob("*.py")), list(path.parent.glob("*/__init__.py"))
        assert len(files) <= (11 if package == "hefkit" else MAX_MODULES), package
        assert len(folders) <= 12, package


def docstring(package: str) -> str:
    """The docstring of a package's __init__."""
    return ast.get_docstring(ast.parse(MAPS[package].read_text(encoding="utf-8"))) or ""


def test_imports_are_found_at_every_depth(tmp_path: Path) -> None:
    """The reader of this test itself: nothing that hides in a function, a class or a branch escapes it."""
    source = tmp_path / "module.py"
    source.write_text(
        "import os.path, cv2\n"
        "from hefkit import __version__, cli\n"
        "if os:\n    from onnx import helper\n"
        "class A:\n    def b(self):\n        def c():\n            import tqdm\n"
    )

    assert [(i.module, i.function) for i in imports(source)] == [
        ("os.path", None),
        ("cv2", None),
        ("hefkit", None),
        ("hefkit.cli", None),
        ("onnx", None),
        ("tqdm", "b"),
    ]


# --- the same, tried -------------------------------------------------------------------------------------------------

IMPORT_ALL = """
import importlib, json, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is blocked", name=name)

BLOCKED, names = json.loads(sys.argv[1])
sys.meta_path.insert(0, Blocked())
for name in BLOCKED:
    try:
        importlib.import_module(name)
    except ImportError:
        continue
    raise SystemExit(f"{name} was not blocked")
for name in names:
    importlib.import_module(name)
import cv2, numpy
print(json.dumps({"numpy": numpy.__version__, "cv2": cv2.__version__, "modules": sorted(sys.modules)}))
"""


def import_everything(python: Path) -> dict[str, object]:
    """Every Pi module and every script of both sides, imported in one process without the blocked packages."""
    names = [*PI, *sorted(PI_SCRIPTS & set(SCRIPTS))]
    done = subprocess.run(
        [str(python), "-c", IMPORT_ALL, json.dumps([BLOCKED, names])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        env={k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYTEST_"))},
    )
    assert (done.returncode, done.stderr) == (0, "")
    result: dict[str, object] = json.loads(done.stdout)
    return result


def test_pi_packages_import_without_the_workstation() -> None:
    """Nothing of onnx, the SDK, HailoRT, tqdm or PyYAML is needed, and nothing of the workshop comes along."""
    found = import_everything(Path(sys.executable))["modules"]

    assert isinstance(found, list) and "hefkit.open_model" in found
    assert not [name for name in found if name.startswith("hefkit.workshop")]


def test_pi_packages_import_with_the_pi_s_libraries() -> None:
    """numpy 1.24 and OpenCV 4.6, those of Raspberry Pi OS (Debian 12)."""
    if not PI_PYTHON.exists():
        pytest.skip("no .venv-pi: `make test` makes it where there is a Python 3.10 or 3.11 (numpy 1.24 ends there)")
    found = import_everything(PI_PYTHON)

    assert str(found["numpy"]).startswith("1.24.") and str(found["cv2"]).startswith("4.6.")


def test_test_pi_runs_the_tests_of_every_pi_package() -> None:
    """`make test-pi` leaves out what needs onnx, and as a whole only packages that need no library."""
    files = pi_test_files()

    assert {path.parent.name for path in files} >= {unit(name) for name in PACKAGES if name in PI} - {"hef", "staging"}
    assert not [path for path in files if "workshop" in path.parts]


RUN_ONCE = sorted({module for test in TESTS if needs_no_library(test) for module in mirrored(test)})


def test_what_test_pi_leaves_out_needs_no_library() -> None:
    """All of it is imported where no package is installed, and the rule tells what needs one, late imports included."""
    code = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"
    done = subprocess.run([sys.executable, "-S", "-c", code, *RUN_ONCE], cwd=ROOT, capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")
    assert {"hefkit.hef.wire", "hefkit.staging.stage", "hefkit.cli", "hefkit.cameras.source"} <= {*RUN_ONCE}
    needs = {
        "detect.nms",
        "pictures.writer",
        "web.sink",
        "mqtt.sink",
        "measure.report.plots",
        "hailo.runtime",
        "cameras.csi",
    }
    assert not {f"hefkit.{name}" for name in needs} & {*RUN_ONCE}


@pytest.mark.parametrize("name", SHELL_SCRIPT)
def test_single_tests_that_test_pi_leaves_out_are_there(name: str) -> None:
    """A test that gets another name is not left out any more, without a word of pytest."""
    file, _, test = name.partition("::")
    functions = [node.name for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)]

    assert test in functions and ROOT / file in pi_test_files()
