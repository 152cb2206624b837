"""Dependencies point one way: scripts -> workshop -> Pi rooms -> errors. Read off the sources, then tried.

The Pi rooms are what is copied to a Raspberry Pi, so they are also imported where nothing but numpy and OpenCV is
left, and their tests run once more with the Pi's own versions of the two (`make test` makes that environment).
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import ROOT

WORKSTATION_SCRIPTS = {"prepare_calibration", "compile_to_hef"}
PI_SCRIPTS = {"hailo_inference", "working_hailo_detector", "validate_hef"}

# the rooms where a package may be imported, inside a function that cannot do without it
LATE = {
    "tqdm": {"hefkit.results.progress"},
    "yaml": {"hefkit.names", "hefkit.workshop.calibration.dataset"},
    "xxhash": {"hefkit.hef.xxh3"},
    "picamera2": {"hefkit.cameras.csi"},
    "aiohttp": {"hefkit.web.server"},
    "paho": {"hefkit.mqtt.link"},
    "hailo_platform": {"hefkit.hailo.runtime"},
    "hailo_sdk_client": {"hefkit.workshop.dfc.dfc_worker"},
    "tensorflow": {"hefkit.workshop.dfc.dfc_worker"},  # comes with the SDK
}
WORKSHOP_PACKAGES = {"onnx", "onnxruntime", "google"}  # google.protobuf comes with onnx
DOORS = {
    ("hefkit.open_model", "open_engine", "hefkit.workshop"),
    ("hefkit.open_model", "open_engine", "hefkit.workshop.engine"),
    ("hefkit.open_model", "open_engine", "hefkit.hailo.runtime"),
}

BLOCKED = ("onnx", "onnxruntime", "hailo_sdk_client", "hailo_platform", "tqdm", "yaml", "picamera2", "aiohttp", "paho")
PI_PYTHON = ROOT / ".venv-pi" / "bin" / "python"


@dataclass(frozen=True)
class Import:
    """One imported module; `function` is the outermost function around it, or None at module level."""

    module: str
    function: str | None

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]


def imports(path: Path) -> list[Import]:
    """Everything a file imports, wherever in it; type-only imports count as module level."""
    return list(_imports(ast.parse(path.read_text(encoding="utf-8")), None))


def _imports(node: ast.AST, function: str | None) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, function) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0 and child.module, "imports are absolute here"
            yield from (Import(_resolved(child.module, alias.name), function) for alias in child.names)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _imports(child, function or child.name)
        else:
            yield from _imports(child, function)


def _resolved(module: str, name: str) -> str:
    """`from hefkit import cli` imports the room hefkit.cli; `from hefkit import __version__` only hefkit."""
    inner = f"{module}.{name}"
    return inner if inner in PI_ROOMS or inner in WORKSHOP or inner in TESTS else module


def modules(folder: str) -> dict[str, Path]:
    """Dotted name -> file, of the modules in a folder and the folders below it."""
    files = sorted(p.relative_to(ROOT) for p in (ROOT / folder).rglob("*.py"))
    return {".".join(p.parent.parts if p.stem == "__init__" else p.with_suffix("").parts): ROOT / p for p in files}


WORKSHOP = modules("hefkit/workshop")
PI_ROOMS = {name: path for name, path in modules("hefkit").items() if name not in WORKSHOP}
TESTS = {name: path for name, path in modules("tests").items() if not name.startswith("tests.doubles.")}
SCRIPTS = {p.stem: p for p in sorted(ROOT.glob("*.py"))}


def test_every_script_is_on_a_side() -> None:
    """A new script must say whether it goes to the Pi."""
    assert set(SCRIPTS) <= WORKSTATION_SCRIPTS | PI_SCRIPTS


@pytest.mark.parametrize("room", PI_ROOMS)
def test_pi_rooms_need_numpy_and_opencv_only(room: str) -> None:
    """Module level: standard library, numpy, cv2, other Pi rooms. Late: the packages of LATE, and two doors."""
    allowed = sys.stdlib_module_names | {"numpy", "cv2"}
    for found in imports(PI_ROOMS[room]):
        late = found.function is not None and room in LATE.get(found.package, ())
        door = (room, found.function, found.module) in DOORS
        assert found.package in allowed or found.module in PI_ROOMS or late or door, found


@pytest.mark.parametrize("room", WORKSHOP)
def test_workshop_rooms_add_onnx(room: str) -> None:
    """The workshop may use every room, onnx and onnxruntime, but no script."""
    allowed = sys.stdlib_module_names | {"numpy", "cv2"} | WORKSHOP_PACKAGES
    for found in imports(WORKSHOP[room]):
        late = found.function is not None and room in LATE.get(found.package, ())
        assert found.package in allowed or found.module in {**PI_ROOMS, **WORKSHOP} or late, found


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_thin(script: str) -> None:
    """A script imports rooms and the standard library; one that goes to the Pi imports no workshop room."""
    rooms = PI_ROOMS if script in PI_SCRIPTS else {**PI_ROOMS, **WORKSHOP}
    for found in imports(SCRIPTS[script]):
        assert found.package in sys.stdlib_module_names or found.module in rooms, found


@pytest.mark.parametrize("room", ["hefkit", "hefkit.errors"])
def test_the_ground_floor_imports_no_room(room: str) -> None:
    """Everything else stands on these two."""
    assert not [found for found in imports(PI_ROOMS[room]) if found.package == "hefkit"]


def test_no_room_imports_a_room_that_imports_it() -> None:
    """There is an order in which all rooms can be read, late imports included; only the doors are left out."""
    graph = {
        room: {
            found.module
            for found in imports(path)
            if found.package == "hefkit" and (room, found.function, found.module) not in DOORS
        }
        for room, path in {**PI_ROOMS, **WORKSHOP}.items()
    }

    order = list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the rooms

    assert order.index("hefkit.errors") < order.index("hefkit.open_model") < order.index("hefkit.workshop.engine")


def test_imports_are_found_at_every_depth(tmp_path: Path) -> None:
    """The reader of this test itself: nothing that hides in a function, a class or a branch escapes it."""
    source = tmp_path / "room.py"
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
    """Every Pi room and every script of both sides, imported in one process without the blocked packages."""
    names = [*PI_ROOMS, *sorted(PI_SCRIPTS & set(SCRIPTS))]
    done = subprocess.run(
        [str(python), "-c", IMPORT_ALL, json.dumps([BLOCKED, names])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        env=bare_environment(),
    )
    assert (done.returncode, done.stderr) == (0, "")
    result: dict[str, object] = json.loads(done.stdout)
    return result


def bare_environment() -> dict[str, str]:
    """Ours without what would lead another interpreter to our packages, or to another pytest's settings."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYTEST_"))}


def test_pi_rooms_import_without_the_workstation() -> None:
    """Nothing of onnx, the SDK, HailoRT, tqdm or PyYAML is needed, and no workshop room comes along."""
    found = import_everything(Path(sys.executable))["modules"]

    assert isinstance(found, list) and "hefkit.open_model" in found
    assert not [name for name in found if name.startswith("hefkit.workshop")]


@pytest.fixture
def pi_python() -> Path:
    """Python with the libraries of Raspberry Pi OS (Debian 12); made by `make test` where Python <= 3.11 is there."""
    if not PI_PYTHON.exists():
        pytest.skip("no .venv-pi: `make test` makes it where there is a Python 3.10 or 3.11 (numpy 1.24 ends there)")
    return PI_PYTHON


def test_pi_rooms_import_with_the_pi_s_libraries(pi_python: Path) -> None:
    """numpy 1.24 and OpenCV 4.6."""
    found = import_everything(pi_python)

    assert str(found["numpy"]).startswith("1.24.") and str(found["cv2"]).startswith("4.6.")


def pi_test_files() -> list[Path]:
    """The test files that reach neither the workshop nor onnx, helpers included."""

    def reached(name: str, seen: set[str]) -> set[str]:
        for found in imports(TESTS[name]):
            if found.module not in seen:
                seen.add(found.module)
                if found.module in TESTS:
                    reached(found.module, seen)
        return seen

    def fits(name: str) -> bool:
        needed = reached(name, set())
        return not any(n.partition(".")[0] in WORKSHOP_PACKAGES or n.startswith("hefkit.workshop") for n in needed)

    own = {
        Path(__file__).stem,
        "test_readme",
        "test_real_road",
        "test_drone_dataset",
    }  # the workstation's, as processes
    return [
        TESTS[name]
        for name in TESTS
        if TESTS[name].stem.startswith("test_") and fits(name) and TESTS[name].stem not in own
    ]


def test_pi_rooms_work_with_the_pi_s_libraries(pi_python: Path) -> None:
    """The tests of the Pi rooms pass with numpy 1.24 and OpenCV 4.6 as they do with the newest."""
    files = pi_test_files()
    rooms = {path.stem.removeprefix("test_") for path in files}
    assert rooms >= set("decode nms preprocess images spec draw sinks sources names detector".split())  # noqa: SIM905

    done = subprocess.run(
        [str(pi_python), "-m", "pytest", "-p", "no:cacheprovider", *map(str, files)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        env=bare_environment(),
    )

    assert done.returncode == 0, done.stdout + done.stderr
