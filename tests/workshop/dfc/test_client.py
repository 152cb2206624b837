"""The SDK as a process: its answers, its noise, its death, and that nothing of it is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hefkit.errors import DataError, ToolchainError
from hefkit.workshop.dfc.client import ARRAY_BYTES, FULL_PRECISION, QUANTIZED, CalibrationFile, Dfc, EmulationError
from hefkit.workshop.dfc.find import find_sdk
from hefkit.workshop.dfc.listen import LogTail, SdkListener
from hefkit.workshop.dfc.process import WorkerDied, WorkerProcess, sdk_environment
from tests.helpers.sdk import make_sdk
from tests.helpers.sdk_run import Bench


def test_every_call(fresh_bench: Bench) -> None:
    """Parse, script, full precision, quantise, emulate twice, compile: with the double, as with the real one."""
    with fresh_bench.dfc() as dfc:
        graph, outputs = fresh_bench.parse(dfc)
        fresh_bench.quantize(dfc, outputs)
        found = dfc.infer(QUANTIZED, fresh_bench.calibration.path, fresh_bench.folder / "t")
        exact = dfc.infer(FULL_PRECISION, fresh_bench.calibration.path, fresh_bench.folder / "t")
        size = dfc.compile(fresh_bench.folder / "toy.hef")

    assert [t.shape for t in found] == [(6, *c.shape) for c in fresh_bench.layout.convs]
    assert all(t.dtype == np.float32 for t in found) and not list(fresh_bench.folder.glob("t*.npy"))
    assert 0 < max(np.abs(a - b).max() for a, b in zip(found, exact, strict=True)) < 0.1
    assert (fresh_bench.folder / "toy.hef").stat().st_size == size
    assert dfc.listener.facts.entries == {"calibration": 6}
    assert [o.producer.split("/")[0] for o in graph.outputs] == ["toy"] * 6


def test_the_environment_is_settled_before_the_import(fresh_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs go to the run folder, the card is chosen; another interpreter does not look into our packages."""
    monkeypatch.setenv("PYTHONPATH", "/ours")
    monkeypatch.setenv("VIRTUAL_ENV", "/ours")
    other = sdk_environment(Path("/other/python"), {"CUDA_VISIBLE_DEVICES": "1"})
    same = sdk_environment(Path(sys.executable), {})

    assert "PYTHONPATH" not in other and "VIRTUAL_ENV" not in other and other["CUDA_VISIBLE_DEVICES"] == "1"
    assert same["PYTHONPATH"] == "/ours"
    with fresh_bench.dfc() as dfc:
        fresh_bench.parse(dfc)
        printed = dfc.log.read_text()
    assert "No GPU chosen" not in printed  # what the SDK says when it has to choose by itself
    assert (dfc.log.parent / "hailo_sdk.client.log").is_file()


def test_garbage_does_not_break_the_protocol(bench: Bench) -> None:
    """Binary noise, and lines that look like our own events, on the SDK's stdout and stderr."""
    noise = {moment: {"garbage": True} for moment in ("import", "parse", "script", "optimize", "infer", "compile")}
    with bench.dfc(at=noise) as dfc:
        _, outputs = bench.parse(dfc)
        bench.quantize(dfc, outputs)
        assert len(dfc.infer(QUANTIZED, bench.calibration.path, bench.folder / "t")) == 6
        assert dfc.compile(bench.folder / "toy.hef") > 0

    assert all(line.isprintable() for line in dfc.listener.last)


def test_a_log_without_line_ends_fills_no_memory(tmp_path: Path) -> None:
    """Lines are cut, carriage returns count as line ends, colours vanish."""
    log = tmp_path / "log"
    log.write_bytes(b"a\x1b[31mb\x1b[0m\n50%\r100%\r\n" + b"x" * 300_000)
    tail = LogTail(log)

    first = list(tail.new_lines())
    with open(log, "ab") as file:
        file.write(b"\nend\n")

    assert first[:3] == ["ab", "50%", "100%"] and max(map(len, first)) <= 2000
    assert list(tail.new_lines())[-1] == "end"
    tail.close()


FAILURES: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "raises at parse": (
        {"at": {"parse": {"raise": ["UnsupportedModelError", "no"]}}}, ToolchainError, "cannot translate the network",
    ),
    "killed at parse": ({"at": {"parse": {"kill": 9}}}, ToolchainError, "killed while parsing the network"),
    "crashes at parse": ({"at": {"parse": {"kill": 11}}}, ToolchainError, "SIGSEGV"),
    "leaves at parse": ({"at": {"parse": {"exit": 3}}}, ToolchainError, "exit status 3"),
    "import fails": ({"import_error": "No module named 'jax'"}, ToolchainError, "cannot be imported"),
    "killed at import": ({"at": {"import": {"kill": 9}}}, ToolchainError, "killed while starting"),
    "disk full": (
        {"at": {"parse": {"raise": ["OSError", "No space left on device"]}}}, DataError, "the disk became full",
    ),
    "unknown": ({"at": {"parse": {"raise": ["KeyError", "meta"]}}}, ToolchainError, "KeyError"),
    "asks a question": ({"at": {"parse": {"raise": ["EOFError", "EOF when reading a line"]}}}, ToolchainError, "EOF"),
}  # fmt: skip


@pytest.mark.parametrize("behaviour, error, words", FAILURES.values(), ids=FAILURES.keys())
def test_failures_become_sentences(bench: Bench, behaviour: dict[str, Any], error: type[Exception], words: str) -> None:
    """Whatever the SDK does, the driver ends with one line that names the log."""
    with pytest.raises(error, match=words) as caught, bench.dfc(**behaviour) as dfc:
        bench.parse(dfc)

    assert "sdk.log" in str(caught.value) and "\n" not in str(caught.value)


def test_calls_at_the_wrong_time(bench: Bench) -> None:
    """Compile before quantisation, emulation before it: the SDK's own words come through."""
    with bench.dfc() as dfc:
        bench.parse(dfc)
        with pytest.raises(EmulationError, match="not available"):
            dfc.infer(QUANTIZED, bench.calibration.path, bench.folder / "t")
        with pytest.raises(ToolchainError, match="not quantised"):
            dfc.compile(bench.folder / "toy.hef")
        assert not (bench.folder / "toy.hef").exists()


def test_compile_that_returns_no_bytes(bench: Bench) -> None:
    """A path instead of bytes is no HEF."""
    with bench.dfc(compile_returns="path") as dfc:
        _, outputs = bench.parse(dfc)
        bench.quantize(dfc, outputs)
        with pytest.raises(ToolchainError, match="compile\\(\\) returned str"):
            dfc.compile(bench.folder / "toy.hef")


FORMS = {
    "all forms": ([], "float32", 0),
    "no float32": (["float32"], "dataset", 1),
    "nothing but uint8": (["float32", "dataset"], "uint8", 2),
}


@pytest.mark.parametrize("refused, used, warned", FORMS.values(), ids=FORMS.keys())
def test_calibration_in_the_form_that_the_sdk_takes(
    bench: Bench, caplog: pytest.LogCaptureFixture, refused: list[str], used: str, warned: int
) -> None:
    """Public evidence leaves open what every release takes: a refused form is told, and the next is tried."""
    with bench.dfc(refuse_forms=refused) as dfc:
        _, outputs = bench.parse(dfc)
        bench.quantize(dfc, outputs)
        assert dfc.form == used
        assert dfc.listener.facts.entries["calibration"] == 6

    assert len([r for r in caplog.records if "trying another form" in r.getMessage()]) == warned


def test_calibration_that_no_form_helps(bench: Bench) -> None:
    """The last refusal is the error; a known failure is not tried again."""
    with bench.dfc(refuse_forms=["float32", "dataset", "uint8"]) as dfc:
        _, outputs = bench.parse(dfc)
        with pytest.raises(ToolchainError, match="kind uint8 is not supported"):
            bench.quantize(dfc, outputs)
    shape = np.load(bench.calibration.path)[:, :32]
    np.save(bench.folder / "small.npy", shape)
    with bench.dfc() as dfc:
        bench.parse(dfc)
        dfc.load_script(bench.script)
        with pytest.raises(ToolchainError, match="another shape"):
            dfc.quantize(CalibrationFile(bench.folder / "small.npy", 6, 1), bench.folder / "q.har")


def wrapped(name: str, message: str) -> dict[str, Any]:
    """An SDK whose optimisation fails in a child process."""
    return {"at": {"optimize": {"wrapped": [name, message]}}}


# name: (what goes wrong, words of the sentence)
NOT_THE_FORM: dict[str, tuple[dict[str, Any], str]] = {
    "a known failure of a child process": (
        wrapped("BadInputsShape", "Data shape (3, 64, 64) for layer x doesn't match network's input shape (64, 64, 3)"),
        "another shape",
    ),
    "a full memory, as the child says it": (wrapped("MemoryError", "Unable to allocate 4.69 GiB"), "memory is full"),
    "an unknown failure of a child process": (wrapped("KeyError", "'meta'"), "it said: KeyError: 'meta'"),
    "a refusal after the work has begun": ({"refuses_late": True}, "ValueError: calib dataset of dtype float32"),
    "another kind of exception": (
        {"at": {"optimize": {"raise": ["InternalError", "dataset of dtype float32"]}}}, "it said: InternalError"
    ),
}  # fmt: skip


@pytest.mark.parametrize("behaviour, words", NOT_THE_FORM.values(), ids=NOT_THE_FORM.keys())
def test_only_a_refused_form_is_tried_in_another(
    bench: Bench, caplog: pytest.LogCaptureFixture, behaviour: dict[str, Any], words: str
) -> None:
    """Else hours of fine-tuning would run three times, and float32 would be blamed."""
    with bench.dfc(**behaviour) as dfc:
        _, outputs = bench.parse(dfc)
        with pytest.raises(ToolchainError, match=words):
            bench.quantize(dfc, outputs)

    assert "trying another form" not in caplog.text
    assert dfc.log.read_text().count("Saved HAR") == 1


def test_large_sets_are_not_turned_into_one_array() -> None:
    """1024 pictures of 640x640 are 5 GB as float32: these go through a generator."""
    small, large = (CalibrationFile(Path("x"), 1, n) for n in (ARRAY_BYTES, ARRAY_BYTES + 1))

    assert (small.forms()[0], large.forms()[0]) == ("float32", "dataset")
    assert sorted(small.forms()) == sorted(large.forms())


def test_an_sdk_without_the_full_precision_call(bench: Bench) -> None:
    """Optional: `optimize` does it by itself."""
    with bench.dfc(no_full_precision=True) as dfc:
        _, outputs = bench.parse(dfc)
        dfc.load_script(bench.script)
        assert dfc.full_precision(bench.calibration) is False
        bench.quantize(dfc, outputs)


# --- what the SDK prints, and what it does not ------------------------------------------------------------------------


def test_the_first_start_is_explained_in_one_line(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """The SDK checks the machine, prints a table of errors, and asks a question that nobody can answer."""
    caplog.set_level("INFO", "hefkit")

    with bench.dfc(first_start=True) as dfc:
        bench.parse(dfc)

    told = [r.getMessage() for r in caplog.records if "first start" in r.getMessage()]
    assert len(told) == 1 and "it continues by itself" in told[0]
    assert "16 GB" not in caplog.text and "CUDNN" not in caplog.text and "Unsupported release" not in caplog.text
    assert "The SDK requires 16 GB of RAM" in dfc.log.read_text()


def test_a_line_in_colours_counts(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """The level's tag may be coloured inside its brackets; a harmless error is not shown."""
    log = tmp_path / "log"
    log.write_text(
        "[\x1b[33mwarning\x1b[0m] Reducing optimization level to 1 because there's less data\n"
        "[\x1b[31merror\x1b[0m] Error has occured during the layer latency calculation\n"
    )
    caplog.set_level("INFO", "hefkit")
    listener, tail = SdkListener(), LogTail(log)

    for line in tail.new_lines():
        listener.line(line)
    tail.close()

    assert listener.facts.reduced_to == 1 and "latency" not in caplog.text
    assert "SDK warning: Reducing optimization level to 1" in caplog.text


def test_processes_of_a_run_share_the_log(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Each reads only its own lines; what is on the console already is not shown again."""
    caplog.set_level("INFO", "hefkit")
    shown: set[str] = set()
    sdk, folder = find_sdk(make_sdk(bench.folder)), bench.folder / "run"
    folder.mkdir()
    for _ in range(2):
        dfc = Dfc(sdk, folder, {"CUDA_VISIBLE_DEVICES": "99"}, shown)
        with dfc:
            bench.parse(dfc)

    assert dfc.log.read_text().count("Translation completed") == 2
    assert sum("Translation completed" in line for line in dfc.listener.last) == 1
    assert caplog.text.count("Translation completed") == 1


class Clock:
    """A clock and the processor time of the SDK, both set by the test."""

    now = cpu = 0.0


def test_a_silent_and_idle_sdk_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """After ten minutes without a line and without work; one that works in silence is left alone, nothing is killed."""
    clock = Clock()
    monkeypatch.setattr("hefkit.workshop.dfc.listen.time.monotonic", lambda: clock.now)
    listener = SdkListener()
    listener.begin_step()

    def pass_minutes(minutes: int, share: float) -> int:
        before = caplog.text.count("it may hang")
        for _ in range(minutes * 6):
            clock.now, clock.cpu = clock.now + 10, clock.cpu + 10 * share
            listener.tick(lambda: clock.cpu)
        return caplog.text.count("it may hang") - before

    assert pass_minutes(60, 0.9) == 0, "it computes"
    assert pass_minutes(9, 0.0) == 0, "not for long"
    assert pass_minutes(30, 0.001) == 1, "told once"
    listener.line("[info] something")
    assert pass_minutes(8, 0.0) == 0 and pass_minutes(5, 0.0) == 1, "and again after a line"
    assert "Ctrl-C" in caplog.text


def test_processor_time_is_that_of_all_its_processes(fresh_bench: Bench) -> None:
    """The SDK computes in child processes, which the watch must see."""
    with fresh_bench.dfc() as dfc:
        fresh_bench.parse(dfc)

        used = dfc._worker._cpu_s()

    assert 0.01 < used < 60


# --- its end ----------------------------------------------------------------------------------------------------------


def alive(pid: int) -> bool:
    """A process that runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until_gone(pid: int) -> bool:
    """Gone within some seconds."""
    end = time.monotonic() + 20
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not alive(pid)


def hanging(folder: Path, how: str) -> tuple[WorkerProcess, int]:
    """A worker that hangs in the import, and the pid of a child that it has started."""
    pid_file = folder / "child.pid"
    python = make_sdk(folder, at={"import": [{"child": str(pid_file)}, {"hang": how}]})
    worker = WorkerProcess(python, folder, sdk_environment(python, {}), SdkListener())
    while not pid_file.exists() or not pid_file.read_text():
        time.sleep(0.02)
    return worker, int(pid_file.read_text())


@pytest.mark.parametrize("how", ["to Ctrl-C", "deaf"])
def test_nothing_is_left_behind(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that hangs, and the process that it has started, end with us, also when they are deaf to SIGTERM."""
    monkeypatch.setattr("hefkit.workshop.dfc.process.GRACE_S", 0.3)
    worker, child = hanging(tmp_path, how)
    pid = worker.pid

    with pytest.raises(KeyboardInterrupt), worker:
        raise KeyboardInterrupt

    assert wait_until_gone(pid) and wait_until_gone(child)


def test_a_driver_that_is_killed_takes_its_worker_along(tmp_path: Path) -> None:
    """SIGKILL leaves us no time to clean up: the worker sees the end of the pipe, and ends its group."""
    pid_file = tmp_path / "child.pid"
    python = make_sdk(tmp_path, at={"import": [{"child": str(pid_file)}, {"hang": "deaf"}]})
    program = (
        "import sys, os; from pathlib import Path\n"
        "from hefkit.workshop.dfc.process import WorkerProcess, sdk_environment\n"
        "from hefkit.workshop.dfc.listen import SdkListener\n"
        f"python, folder = Path({str(python)!r}), Path({str(tmp_path)!r})\n"
        "worker = WorkerProcess(python, folder, sdk_environment(python, {}), SdkListener())\n"
        "print(worker.pid, flush=True)\n"
        "worker.wait()\n"
    )
    driver = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=Path.cwd())
    assert driver.stdout is not None
    pid = int(driver.stdout.readline())
    while not pid_file.exists() or not pid_file.read_text():
        time.sleep(0.02)
    child = int(pid_file.read_text())

    driver.send_signal(signal.SIGKILL)
    driver.wait()
    driver.stdout.close()

    assert wait_until_gone(pid) and wait_until_gone(child)


def test_a_worker_that_nobody_asked_to_leave(tmp_path: Path) -> None:
    """Its exit status comes back, and so does the group: its child is ended."""
    pid_file = tmp_path / "child.pid"
    python = make_sdk(tmp_path, at={"import": [{"child": str(pid_file)}, {"exit": 7}]})
    worker = WorkerProcess(python, tmp_path, sdk_environment(python, {}), SdkListener())

    with pytest.raises(WorkerDied) as caught, worker:
        worker.wait()

    assert caught.value.returncode == 7
    assert wait_until_gone(int(pid_file.read_text()))


def test_an_idle_worker_ends_by_itself(fresh_bench: Bench) -> None:
    """At a regular end nobody is killed: the commands' pipe closes, and the worker returns 0."""
    dfc = fresh_bench.dfc()
    with dfc:
        dfc.start()

    assert dfc._worker._process.returncode == 0


def test_the_worker_leads_a_session_of_its_own(fresh_bench: Bench) -> None:
    """Ctrl-C in our terminal must not reach it: the SDK would swallow it and carry on."""
    with fresh_bench.dfc() as dfc:
        dfc.start()
        assert os.getsid(dfc._worker.pid) == os.getpgid(dfc._worker.pid) == dfc._worker.pid != os.getsid(0)
