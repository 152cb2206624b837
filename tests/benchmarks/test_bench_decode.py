"""The decode benchmark prints what its contract says and decodes what it times; nothing here is about time."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from hefkit.detect.decode import Decoder, DecodeSettings
from hefkit.errors import DataError
from hefkit.spec import HeadSpec
from tests.conftest import ROOT, Finished
from tests.helpers.heads import make_head, plain_decode, random_tensors

BENCH = "benchmarks/bench_decode.py"
KEYS = {"input", "ours_us", "reference_us", "ratio", "detections"}
COLD = {"ours_cold_us", "reference_cold_us", "ratio_cold"}
STAGES = ["scan", "boxes", "order", "nms"]
Run = Callable[..., Finished]


def module_at(path: Path) -> ModuleType:
    """A script as a module; nothing of it runs but its definitions."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def recorded(tmp_path: Path) -> tuple[Path, HeadSpec, list[np.ndarray]]:
    """A folder of tiny tensors, with its head and the tensors themselves."""
    head = make_head((64, 64), (8, 16), 2)
    tensors = random_tensors(head, np.random.default_rng(5))
    folder = tmp_path / "heads"
    folder.mkdir()
    lines = ["# name role stride height width features scale zero_point file"]
    for spec, tensor in zip(head.outputs, tensors, strict=True):
        name, role = f"{spec.role}{spec.stride}", {"box": "reg", "cls": "cls"}[spec.role]
        np.save(folder / f"{name}.npy", tensor)
        numbers = " ".join(map(str, [spec.stride, *spec.shape, spec.scale, spec.zero_point]))
        lines.append(f"{name} {role} {numbers} {name}.npy")
    (folder / "meta.txt").write_text("\n".join(lines) + "\n")
    return folder, head, tensors


def test_a_folder_gives_json_and_the_detections(
    run_script: Run, recorded: tuple[Path, HeadSpec, list[np.ndarray]], tmp_path: Path
) -> None:
    """The contract's keys, and a dump that equals loops over every anchor, class and pair of boxes."""
    folder, head, tensors = recorded
    dump = tmp_path / "new" / "found.txt"

    done = run_script(BENCH, folder, "--json", "--runs", 3, "--dump", dump)

    assert done.code == 0, done.err
    assert done.json.keys() >= KEYS | COLD and list(done.json["stage_us"]) == STAGES
    assert done.json["input"] == str(folder)
    assert done.json["ratio"] == pytest.approx(done.json["ours_us"] / done.json["reference_us"])
    expected = plain_decode(tensors, head, DecodeSettings(max_det=30_000, multi_label=True))
    rows = np.array([line.split() for line in dump.read_text().splitlines()], np.float64)
    assert done.json["detections"] == len(rows) == len(expected) > 5
    assert rows[:, 0].tolist() == [f.class_id for f in expected]
    assert np.abs(rows[:, 1] - [f.score for f in expected]).max() < 1e-5
    assert np.abs(rows[:, 2:] - [f.xyxy for f in expected]).max() < 1e-3


def test_a_person_gets_a_table(run_script: Run, recorded: tuple[Path, HeadSpec, list[np.ndarray]]) -> None:
    """Without --json: one row, each stage a column."""
    done = run_script(BENCH, recorded[0], "--runs", 2)

    assert done.code == 0 and all(stage in done.out for stage in STAGES)
    assert len(done.out.splitlines()) == 3


def test_without_a_folder_it_makes_its_own(run_script: Run) -> None:
    """Four inputs: 80 classes with 0, 30 and 150 objects, and two classes with 30."""
    done = run_script(BENCH, "--json", "--runs", 1)

    results = done.json["results"]
    assert [r["input"].split()[0] for r in results] == ["80", "80", "80", "2"]
    assert all(r.keys() >= KEYS for r in results)
    found = [r["detections"] for r in results]
    assert found[0] == 0 and 20 < found[1] < 60 and 100 < found[2] < 300 and 20 < found[3] < 60


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda folder: (folder / "meta.txt").unlink(), id="no meta.txt"),
        pytest.param(lambda folder: (folder / "cls8.npy").unlink(), id="a file is missing"),
        pytest.param(lambda folder: (folder / "cls8.npy").write_bytes(b"\x93NUMPY"), id="a file is cut off"),
        pytest.param(lambda folder: np.save(folder / "cls8.npy", np.zeros(7, np.uint8)), id="another size"),
        pytest.param(lambda folder: np.save(folder / "cls8.npy", np.zeros(128)), id="no codes"),
        pytest.param(lambda folder: (folder / "meta.txt").write_text("box8 reg 8\n"), id="a short line"),
        pytest.param(lambda folder: (folder / "meta.txt").write_text("# nothing\n"), id="no tensors"),
        pytest.param(lambda folder: (folder / "meta.txt").write_bytes(b"\xff\xfe"), id="no text"),
    ],
)
def test_bad_folders_are_one_line(
    capsys: pytest.CaptureFixture[str],
    recorded: tuple[Path, HeadSpec, list[np.ndarray]],
    spoil: Callable[[Path], object],
) -> None:
    """What cannot be read is named, with the exit code of bad data."""
    spoil(recorded[0])

    with pytest.raises(DataError) as refused:
        module_at(ROOT / BENCH).main([str(recorded[0]), "--runs", "1"])

    assert refused.value.exit_code == 3 and "\n" not in str(refused.value) and capsys.readouterr() == ("", "")


def test_a_bad_folder_as_a_process(run_script: Run, tmp_path: Path) -> None:
    """The same sentence on stderr, and nothing else."""
    done = run_script(BENCH, tmp_path, "--runs", 1)

    assert done.code == 3 and len(done.errors) == 1 == len(done.err.splitlines())


@pytest.mark.parametrize("flags", [["--runs", "0"], ["--dump", "x.txt"]], ids=["no runs", "dump of several inputs"])
def test_bad_flags(run_script: Run, flags: list[str]) -> None:
    """Usage errors are found before anything is timed."""
    done = run_script(BENCH, *flags)

    assert done.code == 2 and len(done.errors) == 1


@pytest.mark.parametrize("folder", ["heads_80c_0obj", "heads_80c_30obj", "heads_80c_150obj"])
def test_the_baseline_is_the_pinned_one(folder: str, shared: Path) -> None:
    """The float decode that ours is held against gives, bit by bit, what the decode beside the project gives."""
    pinned = module_at(shared / "bench" / "reference_decode.py")
    bench = module_at(ROOT / BENCH)
    head, tensors = bench.read_tensors(shared / "bench" / folder)

    ours = bench.float_decode(head, tensors)

    for mine, theirs in zip(ours, pinned.decode(pinned.load(shared / "bench" / folder)), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("reg_max", [1, 16])
def test_the_baseline_decodes_what_we_decode(reg_max: int) -> None:
    """On heads with and without bins the two that are timed find the same."""
    bench = module_at(ROOT / BENCH)
    head = make_head((64, 96), (8, 16), 3, reg_max)
    tensors = random_tensors(head, np.random.default_rng(2))

    class_id, score, xyxy = bench.float_decode(head, tensors)

    expected = Decoder(head, DecodeSettings(max_det=30_000, multi_label=True))(tensors)
    order = np.lexsort([class_id, -score])
    assert class_id[order].tolist() == expected.class_id.tolist() and len(order) > 5
    assert np.abs(xyxy[order] - expected.xyxy).max() < 1e-3


def test_real_heads_give_hailorts_number_of_boxes(run_script: Run, shared: Path) -> None:
    """The tensors beside the project, as the contract runs them."""
    done = run_script(BENCH, shared / "bench" / "heads_80c_30obj", "--json", "--runs", 2)

    assert json.loads(done.out.splitlines()[-1])["detections"] == 38
