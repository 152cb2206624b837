"""The pipeline's benchmark: honest about its simulated chip, and to the letter of its JSON."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.helpers.pictures import write

pytestmark = pytest.mark.slow

BENCHMARK = ROOT / "benchmarks" / "bench_pipeline.py"


@pytest.fixture
def chip(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A simulated chip of 20 ms and two slots."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from simulated_chip import SimulatedChip

    return SimulatedChip(0.02, 2, 3, 1)


def run(*args: object) -> dict[str, Any]:
    """The object that --json prints."""
    done = subprocess.run(
        [sys.executable, BENCHMARK, *map(str, args), "--json"], capture_output=True, text=True, check=True, timeout=120
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_json_has_the_contract_keys(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A result for each service time: frames, share, medians of every stage, memory."""
    monkeypatch.syspath_prepend(str(BENCHMARK.parent))
    monkeypatch.setattr("hefkit.measure.speed.WARM_UP", 10)
    bench_pipeline = importlib.import_module("bench_pipeline")
    monkeypatch.setattr(bench_pipeline, "OBJECTS", 5)

    bench_pipeline.main(["--service-ms", "1", "2", "--frames", "40", "--json"])

    results = json.loads(capsys.readouterr().out)["results"]
    assert [r["service_ms"] for r in results] == [1, 2]
    for result in results:
        assert list(result)[:5] == ["service_ms", "frames", "share", "stage_ms", "rss_mb"]
        assert list(result["stage_ms"]) == ["read", "preprocess", "infer", "decode", "write"]
        assert result["frames"] == 40 and result["rss_mb"] > 10
        # (1.2: the chip alone is measured over as few pictures here, and a busy machine disturbs either)
        assert 0 < result["share"] < 1.2 and 0 < result["share_annotated"] < 1.2
        assert result["rate"] <= 1.2e3 / result["service_ms"]


def test_other_photographs(tmp_path: Path) -> None:
    """--images takes a folder of one's own."""
    write(tmp_path / "a.jpg")

    assert run("--service-ms", 1, "--frames", 10, "--images", tmp_path)["images"] == str(tmp_path)


def test_the_simulated_chip_keeps_its_own_time(chip: Any) -> None:
    """Two pictures at once take twice the time of one; a caller that comes late finds both done."""
    start = time.perf_counter()
    for slot in chip.slots:
        chip.submit(slot, 1)
    first, second = (slot.due - start for slot in chip.slots)
    assert second - first == pytest.approx(0.02, abs=1e-6) and first >= 0.02

    time.sleep(0.045)
    before = time.perf_counter()
    for slot in chip.slots:
        chip.result(slot)
    assert chip.slots[1].due < before, "nothing was waited for"


def test_the_simulated_chip_does_not_catch_up(chip: Any) -> None:
    """Idle time is lost: a picture that comes late is done late."""
    chip.submit(chip.slots[0], 1)
    chip.result(chip.slots[0])
    time.sleep(0.03)

    now = time.perf_counter()
    chip.submit(chip.slots[0], 1)

    assert chip.slots[0].due >= now + 0.02


def test_the_simulated_chip_returns_real_sized_tensors(chip: Any) -> None:
    """Six tensors of a 640x640 YOLO, copied into the slot: the caller may keep them until it submits again."""
    [tensors] = chip.infer(np.zeros((1, 640, 640, 3), np.uint8))

    assert [t.shape for t in tensors] == [(s, s, c) for s in (80, 40, 20) for c in (64, 3)]
    assert all(np.shares_memory(t, mine) for t, mine in zip(tensors, chip.slots[0].outputs, strict=True))
