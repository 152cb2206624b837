"""What the sources import, according to their syntax trees.

python -m tests.helpers.imports     prints for `make test-pi` the tests that the Pi's libraries may fail
"""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
WORKSTATION = {"onnx", "onnxruntime", "google"}  # google.protobuf comes with onnx
PROCESSES_OF_THE_WORKSTATION = {
    "tests.test_layers",
    "tests.test_readme",
    "tests.scripts.test_real_road",
    "tests.examples.test_drone_dataset",
    "tests.scripts.test_real_precision",
    "tests.scripts.test_prepare_calibration",
}  # they do not import the workshop, but run what does
SMALL = {"xxhash", "yaml"}  # the same wherever they are installed
SHELL_SCRIPT = (
    "tests/examples/test_deploy.py::test_over_a_real_sshd",
    "tests/examples/test_deploy.py::test_a_connection_that_breaks",
    "tests/examples/test_deploy.py::test_folders_of_the_user_stay",
    "tests/examples/test_deploy.py::test_wrong_variables",
)  # they end before a library is imported; test_twice_is_once runs what was copied with the Pi's


@dataclass(frozen=True)
class Import:
    """One imported module; `function` is the outermost function around it, or None at module level."""

    module: str
    function: str | None

    @property
    def top(self) -> str:
        """The name that `sys.modules` has for the whole package: `google` of `google.protobuf`."""
        return self.module.partition(".")[0]


def modules(folder: str) -> dict[str, Path]:
    """Dotted name -> file, of the modules in a folder and the folders below it."""
    files = sorted(p.relative_to(ROOT) for p in (ROOT / folder).rglob("*.py"))
    return {".".join(p.parent.parts if p.stem == "__init__" else p.with_suffix("").parts): ROOT / p for p in files}


OURS = modules("hefkit")
WORKSHOP = {name: path for name, path in OURS.items() if name.startswith("hefkit.workshop")}
PI = {name: path for name, path in OURS.items() if name not in WORKSHOP}
TESTS = {name: path for name, path in modules("tests").items() if not name.startswith("tests.doubles.")}
SCRIPTS = {path.stem: path for path in sorted(ROOT.glob("*.py"))}


@functools.cache
def imports(path: Path) -> tuple[Import, ...]:
    """Everything that a file imports, also inside functions; type-only imports count as module level."""
    return tuple(_imports(ast.parse(path.read_text(encoding="utf-8")), None))


def _imports(node: ast.AST, function: str | None) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, function) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0 and child.module, "imports are absolute here"
            yield from (Import(_resolved(child.module, alias.name), function) for alias in child.names)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _imports(child, function or child.name)
        elif isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):  # an expression has no import in it
            yield from _imports(child, function)


def _resolved(module: str, name: str) -> str:
    """`from hefkit import cli` imports the module hefkit.cli; `from hefkit import __version__` only hefkit."""
    inner = f"{module}.{name}"
    return inner if inner in OURS or inner in TESTS else module


def libraries(names: Iterable[str]) -> set[str]:
    """The installed packages that modules of hefkit reach, late imports included, without those of SMALL."""
    found, seen, waiting = set(), {"hefkit"}, [*names]  # `import hefkit` alone imports nothing
    while waiting:
        if (name := waiting.pop()) not in seen:
            seen.add(name)
            waiting += (i.module for i in imports(OURS[name]) if i.module in OURS)
            found |= {i.top for i in imports(OURS[name]) if i.module not in OURS}
    return found - sys.stdlib_module_names - SMALL


def mirrored(test: str) -> list[str]:
    """The module of a test file, hefkit.hef.wire for tests.hef.test_wire; where there is none, those of its package."""
    package, _, name = test.replace("tests", "hefkit", 1).rpartition(".")
    module = f"{package}.{name.removeprefix('test_')}"
    above = module if module in OURS else package
    return [name for name in OURS if f"{name}.".startswith(f"{above}.")]


def needs_no_library(test: str) -> bool:
    """Whether a test file is of a module that reaches no installed package: no version of one can fail it."""
    return bool(mirrored(test)) and not libraries(mirrored(test))


def pi_test_files() -> list[Path]:
    """The test files that import neither the workshop nor onnx, directly or through helpers, and need a library."""

    def reached(name: str, seen: set[str]) -> set[str]:
        for found in imports(TESTS[name]):
            if found.module not in seen:
                seen.add(found.module)
                if found.module in TESTS:
                    reached(found.module, seen)
        return seen

    def fits(name: str) -> bool:
        return not any(
            module.partition(".")[0] in WORKSTATION or module.startswith("hefkit.workshop")
            for module in reached(name, set())
        )

    chosen = (name for name in TESTS if TESTS[name].stem.startswith("test_") and fits(name))
    return [TESTS[name] for name in chosen if name not in PROCESSES_OF_THE_WORKSTATION and not needs_no_library(name)]


if __name__ == "__main__":
    files = [path.relative_to(ROOT) for path in pi_test_files()]
    print(*files, *(f"--deselect={name}" for name in SHELL_SCRIPT), sep="\n")  # noqa: T201 (prints for make)
