"""The archive benchmark prints what its contract says, for any layers, and never ends in a traceback."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hefkit.cli import run_main
from tests.conftest import ROOT, Finished
from tests.helpers.toy_archive import CHAIN, ToyLayer, write_archive

Bench = Callable[..., Finished]
KEYS = {"name", "bits", "codes_equal", "k_ratio", "zero_point_equal", "bias_equal", "mac_shift_equal", "range_ratio",
        "why", "predicted"}  # fmt: skip
PREDICTED = {"scale_median_ratio", "scale_worst_ratio", "kernel_snr_db", "kernel_snr_db_archive"}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Bench]:
    """`bench(*arguments)`: its main() in this process."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import bench_archives

    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments: object) -> Finished:
        capsys.readouterr()
        code = run_main(bench_archives.main, list(map(str, arguments)))
        return Finished(code, *capsys.readouterr())

    yield run
    signal.signal(signal.SIGTERM, before)


def test_every_kind_of_layer(run_script: Bench, tmp_path: Path) -> None:
    """Convolution, depthwise, grouped, dense behind a map, ReLU, none, SiLU, sigmoid, 8 and 15 bits; two archives."""
    folders = [write_archive(tmp_path / name, seed=seed) for seed, name in enumerate(("one", "two"))]
    done = run_script("benchmarks/bench_archives.py", *folders, "--json")

    assert done.code == 0
    assert set(done.json) == {"archives"} and [a["name"] for a in done.json["archives"]] == ["one", "two"]
    for archive in done.json["archives"]:
        assert set(archive) == {"name", "layers"}
        assert [r["name"] for r in archive["layers"]] == [f"toy/{n.name}" for n in CHAIN if len(n.shape) > 1]
        for row in archive["layers"]:
            assert set(row) == KEYS and set(row["predicted"]) == PREDICTED
            assert row["codes_equal"] == row["bias_equal"] == 1 and row["mac_shift_equal"] is True
            assert row["k_ratio"] == pytest.approx(1, abs=1e-6)
            assert all(math.isfinite(v) for v in row["predicted"].values())


def test_what_is_not_understood_has_a_reason(bench: Bench, tmp_path: Path) -> None:
    """An unknown kind is a row without figures; the layers behind it are still compared and predicted."""
    layers = list(CHAIN)
    layers[3] = ToyLayer("add1", "ew_add", "dw1")
    layers[4] = replace(layers[4], reads="add1")
    rows = _rows(bench, write_archive(tmp_path / "toy", layers))

    assert rows["add1"]["why"] == "layers of kind 'ew_add' are not understood"
    assert rows["add1"]["codes_equal"] is None and set(rows["add1"]["predicted"].values()) == {None}
    assert rows["conv2"]["codes_equal"] == 1 and rows["fc2"]["predicted"]["scale_median_ratio"] is not None


def test_an_input_that_does_not_exist(bench: Bench, tmp_path: Path) -> None:
    """The layer is compared, but not predicted; the layers behind it start from the archive's scales."""
    folder = write_archive(tmp_path / "toy")
    described = json.loads((folder / "hn.json").read_text())
    described["layers"]["toy/conv2"]["input"] = ["elsewhere"]
    (folder / "hn.json").write_text(json.dumps(described))
    rows = _rows(bench, folder)

    assert rows["conv2"]["codes_equal"] == 1 and rows["conv2"]["zero_point_equal"] is None
    assert rows["conv2"]["why"] == "not predicted: the scales of its input are not known"
    assert rows["conv3"]["predicted"]["scale_median_ratio"] is not None


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("fpo", "kernel"),
        ("fpo", "bias"),
        ("q", "kernel"),
        ("q", "limvals_out"),
        ("ho", "conv_op/weight_bits"),
        ("ho", "conv_op/kernel_scale"),
        ("ho", "stats/preact/max"),
        ("ho", "layer_params/output_scales"),
    ],
)
def test_a_missing_array_is_a_reason(bench: Bench, tmp_path: Path, file: str, key: str) -> None:
    """The row says which array is missing; other layers keep their figures."""
    folder = write_archive(tmp_path / "toy")
    path = folder / f"{file}.npz"
    with np.load(path) as arrays:
        kept = {name: arrays[name] for name in arrays.files if name != f"toy/dw1/{key}:0"}
    np.savez(path, **kept)
    rows = _rows(bench, folder)

    assert f"{file}.npz has no {key}" in rows["dw1"]["why"]
    assert rows["conv1"]["codes_equal"] == rows["fc2"]["codes_equal"] == 1


def test_weights_of_four_bits(bench: Bench, tmp_path: Path) -> None:
    """Compression is not understood, and the row says so."""
    folder = write_archive(tmp_path / "toy")
    with np.load(folder / "ho.npz") as arrays:
        changed = {**arrays, "toy/conv1/conv_op/weight_bits:0": np.float32(4)}
    np.savez(folder / "ho.npz", **changed)

    assert "weights of 4 bits" in _rows(bench, folder)["conv1"]["why"]


def test_a_difference_is_named(bench: Bench, tmp_path: Path) -> None:
    """One code and one bias of the archive are changed; both shares drop and `why` names them."""
    folder = write_archive(tmp_path / "toy")
    with np.load(folder / "q.npz") as arrays:
        changed = dict(arrays)
    changed["toy/conv3/kernel:0"][0, 0, 0, 0] ^= 1
    changed["toy/conv3/bias:0"][0] += 1
    np.savez(folder / "q.npz", **changed)
    row = _rows(bench, folder)["conv3"]

    assert row["codes_equal"] == pytest.approx(29 / 30) and row["bias_equal"] == pytest.approx(4 / 5)
    assert "weight codes differ with the same K; bias codes or their factor differ" in row["why"]


def test_weights_that_the_compiler_changed(bench: Bench, tmp_path: Path) -> None:
    """The codes are compared with what was quantised; `why` says that it is not the float network's."""
    folder = write_archive(tmp_path / "toy")
    with np.load(folder / "fpo.npz") as arrays:
        changed = dict(arrays)
    changed["toy/conv3/kernel:0"][0, 0, 0, 2] *= 0.5
    np.savez(folder / "fpo.npz", **changed)
    row = _rows(bench, folder)["conv3"]

    assert row["codes_equal"] == 1
    assert "the compiler changed the weights of 1 channel in a way not known" in row["why"]


def test_the_table(bench: Bench, tmp_path: Path) -> None:
    """Without --json: a line a layer under the archive's name."""
    lines = bench(write_archive(tmp_path / "toy")).out.splitlines()

    assert lines[0] == "toy" and len(lines) == 2 + sum(len(n.shape) > 1 for n in CHAIN)
    assert lines[2].split()[:4] == ["conv1", "8", "100.000%", "1.0000000"]


def test_a_folder_that_is_not_an_archive(bench: Bench, tmp_path: Path) -> None:
    """One line, exit 3."""
    done = bench(tmp_path, "--json")

    assert done.code == 3 and len(done.errors) == 1 and "hn.json cannot be read" in done.errors[0]


def _rows(bench: Bench, folder: Path) -> dict[str, dict]:
    done = bench(folder, "--json")
    assert done.code == 0, done.err
    return {row["name"].removeprefix("toy/"): row for row in done.json["archives"][0]["layers"]}
