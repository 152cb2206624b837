"""compile_to_hef.py --sweep from end to end: toys on clusters of two workers. Needs dask."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from compile_to_hef import main
from hefkit.workshop.sweep.folder import SweepFolder
from tests.conftest import ROOT, Finished
from tests.helpers.dask_settings import FEWER_CYCLES
from tests.helpers.labelled import dataset
from tests.helpers.sdk import make_sdk
from tests.helpers.tiny_onnx import save, tiny_yolo
from tests.scripts.test_compile_emulated import npy_set

DASK = importlib.util.find_spec("distributed") is not None
one_process = pytest.mark.xdist_group("dask")  # Dask is imported once
needs_dask = pytest.mark.skipif(not DASK, reason="distributed is not installed: pip install 'dask[distributed]'")
Sweep = Callable[..., Finished]


@pytest.fixture(scope="module")
def yolo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float toy YOLO of 64x64."""
    return save(tiny_yolo(), tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture
def sweep(tmp_path: Path, yolo: Path, monkeypatch: pytest.MonkeyPatch, run_here: Callable[..., Finished]) -> Sweep:
    """`sweep(text of the file, *flags)`: main() in this process, in the test's folder, with twelve pictures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    npy_set(tmp_path / "set.npy", 12)

    def run(text: str, *flags: object) -> Finished:
        Path("sweep.yaml").write_text(text)
        words = [yolo, "--calib", "set.npy", "--sweep", "sweep.yaml" if text else "auto", "--json", *flags]
        done = run_here("compile_to_hef.py", *words, cwd=tmp_path)
        assert "Traceback" not in done.err, done.err
        return done

    return run


@contextlib.contextmanager
def cluster(*environments: dict[str, str]) -> Iterator[Any]:
    """A scheduler on the loopback interface with a worker for each environment: processes that are forked."""
    import dask
    from distributed import Nanny, Scheduler, SpecCluster

    fixed = {"host": "127.0.0.1", "nthreads": 1, "memory_limit": 0}
    workers = {i: {"cls": Nanny, "options": {**fixed, "env": env}} for i, env in enumerate(environments)}
    page = {"cls": Scheduler, "options": {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}}
    with dask.config.set(FEWER_CYCLES), SpecCluster(workers=workers, scheduler=page, silence_logs=50) as both:
        yield both


MISUSES = {
    "a budget without a sweep": (["--budget", "5"], "--budget needs --sweep"),
    "a cluster without a sweep": (["--scheduler", "tcp://127.0.0.1:9"], "--scheduler needs --sweep"),
    "a check": (["--sweep", "auto", "--check"], "--check is for one compilation"),
    "only parsing": (["--sweep", "auto", "--parse-only"], "--parse-only is for one compilation"),
    "only parsing an emulation": (["--emulate", "--parse-only"], "does not go with --emulate"),
}


@pytest.mark.parametrize("flags, words", MISUSES.values(), ids=MISUSES.keys())
def test_flags_that_do_not_go_together(flags: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 2, before anything is opened."""
    with pytest.raises(SystemExit) as ended:
        main(["gone.onnx", *flags])

    assert ended.value.code == 2 and words in capsys.readouterr().err


def test_the_file_is_checked_before_the_model(sweep: Sweep, tmp_path: Path) -> None:
    """Exit 2 for the file, although the calibration set is missing too; nothing is written."""
    done = sweep("levels: [0]\n", "--emulate", "--calib", "gone")

    assert (done.code, done.out) == (2, "") and "it has the key 'levels'" in done.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(DASK, reason="distributed is installed here")
def test_without_dask_the_package_is_named(sweep: Sweep) -> None:
    """Exit 5, and the command that installs it."""
    done = sweep("optimization-level: [0]\n", "--emulate")

    assert done.code == 5 and "pip install 'dask[distributed]'" in done.err


@needs_dask
@one_process
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_lost_worker_a_failure_and_a_second_call(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker is killed after the first result: all candidates end. The one that must fail is a row with its reason.

    The second call compiles nothing but that one, ranks the same, and the output is the winner's model.
    """
    keep, kept = SweepFolder.keep, []
    text = (
        "optimization-level: [0]\ncandidates:\n"
        "  - {name: broken, precision-16: no_such_layer}\n  - {name: logits, logits: true}\n"
    )
    data = dataset(tmp_path / "data", 2)
    with cluster({}, {}) as both:

        def killing(self: SweepFolder, job: Any, outcome: Any) -> Any:
            kept.append(job.name)
            if len(kept) == 1:
                computing = {a for a, state in both.scheduler.workers.items() if state.processing}
                nannies = sorted(both.workers.values(), key=lambda nanny: nanny.worker_address in computing)
                os.kill(nannies[-1].pid, signal.SIGKILL)
            return keep(self, job, outcome)

        monkeypatch.setattr(SweepFolder, "keep", killing)
        flags = ["--emulate", "--data", data, "--scheduler", both.scheduler_address]
        first = sweep(text, *flags)
        kept_first = list(kept)
        second = sweep(text, *flags)

    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert "its worker was lost; it starts again on another one" in first.err
    rows = {row["name"]: row for row in first.json["rows"]}
    assert {name: row["status"] for name, row in rows.items()} == {
        "level0": "done", "logits": "done", "broken": "failed"
    }  # fmt: skip
    assert rows["broken"]["exit_code"] == 2 and "no_such_layer" in rows["broken"]["error"]
    assert sorted(kept_first) == ["broken", "level0", "logits"] and kept[3:] == ["broken"]
    assert [r["name"] for r in second.json["rows"]] == [r["name"] for r in first.json["rows"]]
    assert [r["reused"] for r in second.json["rows"]] == [True, True, False]
    best = first.json["rows"][0]
    assert best["name"] == first.json["best"] and best["map50"] is not None
    assert (tmp_path / "best.emulated.onnx").read_bytes() == Path(best["model"]).read_bytes()
    assert (tmp_path / "best.emulated.json").is_file()
    assert json.loads((tmp_path / "runs/sweep/tiny/sweep.json").read_bytes())["rows"] == second.json["rows"]
    assert list((tmp_path / "cache/hefkit/sweep/jobs").iterdir()) == []


@needs_dask
@one_process
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_sdk_is_on_one_of_two_workers(sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsed once, two candidates resume from that HAR; the worker without the SDK is named and gets nothing.

    The second call finds the SDK on this machine, and makes the report that the first call could not make.
    """
    sdk = make_sdk(tmp_path, contexts=1)
    monkeypatch.setenv("HAILO_SDK_PYTHON", str(tmp_path / "gone"))
    gone = {"HAILO_SDK_PYTHON": str(tmp_path / "gone")}
    text = "precision-16: [none, outputs]\n"
    with cluster({"HAILO_SDK_PYTHON": str(sdk)}, gone) as both:
        flags = ["--scheduler", both.scheduler_address, "--output", "drone", "--data", dataset(tmp_path / "data", 2)]
        done = sweep(text, *flags)
        monkeypatch.setenv("HAILO_SDK_PYTHON", str(sdk))
        again = sweep(text, *flags)

    assert (done.code, again.code) == (0, 0), done.err + again.err
    assert "gets no candidates" in done.err and "gone does not exist" in done.err
    folder = tmp_path / "runs" / "sweep" / "drone"
    assert [row["status"] for row in done.json["rows"]] == ["done", "done"]
    for row in done.json["rows"]:
        job = json.loads((folder / row["name"] / "run" / "job.json").read_bytes())
        log = (folder / row["name"] / "run" / "sdk.log").read_text()
        assert job["har"] == "parsed.har" and f"--har {folder}".replace(f"{tmp_path}/", "") in row["command"]
        assert "resumed from parsed.har, a parsed network" in (folder / row["name"] / "log.txt").read_text(), log
    assert (folder / "parsed-hailo8" / "run" / "tiny.parsed.har").is_file()
    assert (tmp_path / "drone.hef").read_bytes() == Path(done.json["rows"][0]["model"]).read_bytes()
    assert all(row["reused"] for row in again.json["rows"]) and "parsing the network" not in again.err
    assert (
        done.json["report"] is None and "the same command on a machine with the SDK makes only the report" in done.err
    )
    assert again.json["report"] == "runs/sweep/drone/report.html" and (folder / "report.html").is_file()
    assert {row["name"]: round(row["fps_estimate"]) for row in done.json["rows"]} == {"8bit": 133, "out16": 67}


@needs_dask
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_ctrl_c_keeps_what_is_done_and_leaves_no_process(yolo: Path, tmp_path: Path) -> None:
    """Exit 130 after the first candidate; its record is there, and no process works in the cache any more."""
    npy_set(tmp_path / "set.npy", 12)
    levels = "".join(f"  - {{name: c{i}, num-samples: 12, script-lines: ['# {i}']}}\n" for i in range(6))
    (tmp_path / "sweep.yaml").write_text("candidates:\n" + levels)
    command = [sys.executable, str(ROOT / "compile_to_hef.py"), str(yolo), "--emulate", "--calib", "set.npy"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    with subprocess.Popen(
        [*command, "--sweep", "sweep.yaml"], cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment,
        start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith("[1/6]"):
                os.killpg(process.pid, signal.SIGINT)  # as a terminal does: every process of the group gets it
        assert process.wait(60) == 130 and "Traceback" not in "".join(said), "".join(said)

    assert list((tmp_path / "runs/sweep/tiny").glob("c*/candidate.json"))
    until = time.monotonic() + 20
    while (left := working_in(tmp_path)) and time.monotonic() < until:
        time.sleep(0.1)
    assert left == [] and list((tmp_path / "cache/hefkit/sweep/jobs").iterdir()) == []


def working_in(folder: Path) -> list[str]:
    """Command lines of the processes whose working directory is below a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if Path(os.readlink(process / "cwd")).is_relative_to(folder):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


@needs_dask
@one_process
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_auto_on_this_machine(sweep: Sweep, tmp_path: Path) -> None:
    """The forecast orders the candidates, and a cluster is started here; the second call needs neither."""
    done = sweep("", "--emulate", "--output", "toy")
    again = sweep("", "--emulate", "--output", "toy")

    assert (done.code, again.code) == (0, 0), done.err
    assert "forecast on 8 pictures" in done.err and "forecast on" not in again.err
    assert all(row["reused"] for row in again.json["rows"])
    assert {"level0-8bit-sigmoid", "level0-8bit-logits", "level0-out16-sigmoid", "level0-out16-logits"} <= {
        row["name"] for row in done.json["rows"]
    }
    assert "of the boxes shared" in done.err and (tmp_path / "toy.emulated.onnx").is_file()
