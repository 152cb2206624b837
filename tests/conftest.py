"""Fixtures of many tests: the scripts as processes, the double of HailoRT, and the real inputs in ../shared."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import pytest

from hefkit.cli import run_main
from hefkit.hef.file import Hef, read_hef
from tests.helpers.waiting import wait_for
from tests.helpers.warm import Forked, Warm

# No deadline, because a busy machine is not a bug. CI runs the same examples every time, hypothesis' own default;
# other machines run new ones, so that a person can look into a new counterexample.
hypothesis.settings.register_profile("hefkit", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("hefkit")

AsHef = Callable[[bytes], Hef]

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
DOUBLES = ROOT / "tests" / "doubles"  # of packages that are not installed; on the path of the tests that need them


def pytest_configure() -> None:
    """Ctrl-C must reach the scripts that tests start, even if pytest itself was started with `nohup` or `&`."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True)
class Finished:
    """A script that has ended: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The object that `--json` printed as the last line of stdout."""
        return json.loads(self.out.splitlines()[-1])

    @property
    def errors(self) -> list[str]:
        """The `error: ...` lines of stderr."""
        return [line for line in self.err.splitlines() if line.startswith("error: ")]


# all modules of hefkit, but for the one that runs in the SDK's Python
MODULES = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in (ROOT / "hefkit").rglob("[!_]*.py")]
WARM = Warm(
    "numpy", "cv2", "onnx", "onnxruntime", *(m for m in MODULES if not m.endswith("dfc_worker")),
    "numpy.random", "xxhash", "yaml", "tests.helpers.warm_up", path=[str(ROOT)], may_add=[str(DOUBLES)],
)  # fmt: skip


_numbers = itertools.count()


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty folder; it stays where the test failed. Pytest's own reads the names of all earlier ones first."""
    name, failed = re.sub(r"\W", "_", request.node.name)[:30], request.session.testsfailed
    path = tmp_path_factory.mktemp(f"{name}{next(_numbers)}", numbered=False)
    yield path
    if request.session.testsfailed == failed:
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def run_script(tmp_path: Path) -> Callable[..., Finished]:
    """Run a script of the project as a process, in an empty working directory (or `cwd`).

    `fresh`: in a new interpreter, for what depends on its start or on the seed of `hash`; else forked from a warm one
    (tests/helpers/warm.py). Benchmarks measure their own process, so they are always fresh, as are the examples.
    """

    def run(script: str, *args: object, cwd: Path | None = None, **more: Any) -> Finished:
        return finished(script, *args, cwd=cwd or tmp_path / "cwd", **more)

    return run


@pytest.fixture
def run_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Finished]]:
    """As `run_script`, but in this process: for what depends on arguments and files, not on a process of its own."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(script: str, *args: object, cwd: Path | None = None, **env: str) -> Finished:
        folder = cwd or tmp_path / "cwd"
        folder.mkdir(exist_ok=True)
        capfd.readouterr()
        with monkeypatch.context() as patch:
            patch.chdir(folder)
            patch.setattr(sys, "argv", [str(ROOT / script)])  # the name in messages
            for name, value in env.items():
                patch.setenv(name, value)
            try:
                code = run_main(importlib.import_module(Path(script).stem).main, [*map(str, args)])
            except SystemExit as ended:  # argparse
                code = int(ended.code or 0)
        return Finished(code, *capfd.readouterr())

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


def finished(
    script: str,
    *args: object,
    cwd: Path,
    stdin: str = "",
    fresh: bool = False,
    stop: tuple[int, Callable[[str], object]] | None = None,
    **env: str,
) -> Finished:
    """Run a script of the project to its end; see `run_script`.

    `stop`: a signal that it gets as soon as the function returns something true; the function is called with what
    stands on stderr so far.
    """
    cwd.mkdir(exist_ok=True)
    command, environment = [str(ROOT / script), *map(str, args)], {**os.environ, **env}
    with contextlib.ExitStack() as opened:
        files = [opened.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8")) for _ in range(3)]
        files[0].write(stdin)
        files[0].seek(0)
        process = start_script(command, cwd, environment, [file.fileno() for file in files], fresh=fresh)
        if stop is not None:
            _stop(process.pid, files[2].fileno(), *stop)
        code = process.wait(600)
        for file in files[1:]:
            file.seek(0)
        out, err = files[1].read(), files[2].read()
    assert "Traceback" not in err, err
    return Finished(code, out, err)


def _stop(pid: int, stderr: int, number: int, reached: Callable[[str], object]) -> None:
    """See `finished`; a script that fails before gets the signal as well, and its own exit code shows it."""

    def now() -> object:
        text = os.pread(stderr, 1 << 20, 0).decode(errors="replace")
        return reached(text) or "error: " in text

    try:
        wait_for(now, 60)
        os.kill(pid, number)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise


def start_script(
    command: list[str], cwd: Path, environment: dict[str, str], files: list[int], *, fresh: bool
) -> subprocess.Popen[bytes] | Forked:
    """Start a script; `files` become its stdin, stdout and stderr."""
    own = Path(command[0]).parent != ROOT
    if not (fresh or own) and WARM.can_run(environment):
        return WARM.start(command, cwd=cwd, environment=environment, files=dict(enumerate(files)))
    return subprocess.Popen(
        [sys.executable, *command], cwd=cwd, env=environment, stdin=files[0], stdout=files[1], stderr=files[2]
    )


@pytest.fixture
def as_hef(tmp_path: Path) -> AsHef:
    """Write bytes to a file and read it as a HEF."""

    def write_and_read(data: bytes) -> Hef:
        path = tmp_path / "toy.hef"
        path.write_bytes(data)
        return read_hef(path)

    return write_and_read


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> None:
    """What prepare_calibration.py remembers of pictures does not go to the user's own cache.

    matplotlib's list of fonts takes half a second, so it stays for the next run.
    """
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    cache = getattr(pytestconfig, "cache", None)  # a plugin of pytest, which may be switched off
    if cache is not None:
        with contextlib.suppress(OSError):
            os.environ["MPLCONFIGDIR"] = str(cache.mkdir("matplotlib"))


@pytest.fixture(autouse=True)
def same_environment() -> Iterator[None]:
    """Remove what a test leaves in the environment, as Dask does; scripts are forked in the usual one only."""
    before = set(os.environ)
    yield
    for name in set(os.environ) - before - {"PYTEST_CURRENT_TEST"}:
        del os.environ[name]


@pytest.fixture(autouse=True)
def fresh_logging() -> None:
    """Each test begins with the logger of a new process: a script that runs in this process changes it, in a test or in
    a fixture of a whole file."""
    log = logging.getLogger("hefkit")
    log.handlers[:], log.propagate = [], True
    log.setLevel(logging.NOTSET)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An empty file system of two megabytes; `fill` fills it."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no tmpfs can be mounted here: not root, or not allowed")
    yield small
    subprocess.run(["umount", str(small)], check=True)


def fill(disk: Path, leave: int = 0) -> None:
    """Write to a small disk until at most `leave` bytes are free."""
    with open(disk / "brim", "wb", buffering=0) as file, contextlib.suppress(OSError):
        while shutil.disk_usage(disk).free > leave:
            file.write(bytes(4096))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real inputs beside the checkout; without it the tests that need it are skipped."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared beside this checkout: real models and photographs are not here")
    return SHARED


_double: dict[str, ModuleType] = {}  # what the double computes with is imported once; tests without it do not see it


@pytest.fixture
def chip(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The double of HailoRT in this process: its `control`, with a working Hailo-8. A broken rule fails the test."""
    monkeypatch.syspath_prepend(str(DOUBLES))
    monkeypatch.setenv("HAILORT_LOGGER_PATH", "NONE")
    monkeypatch.setenv("HAILORT_CONSOLE_LOGGER_LEVEL", "critical")
    sys.modules.update(_double)
    control = importlib.import_module("hailo_double.control")
    control.reset()
    yield control
    broken = list(control.violations)
    for name in [n for n in sys.modules if n.partition(".")[0] in ("hailo_platform", "hailo_double")]:
        module = sys.modules.pop(name)
        if name.startswith("hailo_double"):
            _double[name] = module
    assert not broken


@pytest.fixture
def chip_env(tmp_path: Path) -> Iterator[Callable[..., dict[str, str]]]:
    """Environment of a script that uses the double: `run_script(..., **chip_env(queue_size=4))`."""
    broken = tmp_path / "broken_rules"

    def make(**settings: Any) -> dict[str, str]:
        return {
            "PYTHONPATH": str(DOUBLES),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "HAILO_DOUBLE": json.dumps({"violations": str(broken), **settings}),
        }

    yield make
    assert not broken.exists() or broken.read_text() == ""
