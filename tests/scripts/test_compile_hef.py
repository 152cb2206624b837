"""compile_to_hef.py with Hailo's SDK, for which a strict double in an environment of its own stands in.

Most runs call `main()` in this process and fork the double's processes from a warm interpreter; the whole road and the
signals run the script as a process, and start the double's interpreter as a user's run would.
"""

from __future__ import annotations

import errno
import json
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compile_to_hef import main
from hefkit.hef.file import read_hef
from hefkit.hef.words import check_spec
from hefkit.spec_file import read_spec
from tests.conftest import ROOT, Finished, fill, finished
from tests.helpers.proofs import prove_once
from tests.helpers.sdk import DOUBLE, SDK_VERSION, fork_the_worker, make_sdk
from tests.helpers.tiny_onnx import save, tiny_yolo
from tests.scripts.test_compile_emulated import npy_set

pytestmark = pytest.mark.xdist_group("compile_to_hef")  # many of them look at one run

SCRIPT = "compile_to_hef.py"
HEADINGS = [
    "[1/4] Parsing ONNX model",
    "[2/4] Optimizing model",
    "[3/4] Quantizing model (calibration)",
    "[4/4] Compiling to HEF",
]
SPEC_KEYS = "format kind tool created input head names source calibration target script quality".split()  # noqa: SIM905
RUN_KEYS = ["output", "run_dir", "stages", "proof", "warnings"]
RUN_FILES = {
    "job.json", "best.cut.onnx", "best.alls", "best.parsed.har", "best.parsed.har.json", "best.quantized.har",
    "best.quantized.har.json", "best.json", "report.json", "sdk.log", "hailo_sdk.client.log",
}  # fmt: skip


@pytest.fixture(scope="module")
def yolo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float toy YOLO of 64x64 with the classes thing0, thing1, thing2."""
    return save(tiny_yolo(), tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture(scope="module")
def calib(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine pictures of 64x64 as a bare array."""
    return npy_set(tmp_path_factory.mktemp("calib") / "set.npy", 9)


Compile = Callable[..., Finished]


@pytest.fixture
def compiled(
    yolo: Path, calib: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_here: Callable[..., Finished]
) -> Compile:
    """`compiled(*flags, sdk=..., onnx=..., **behaviour)`: one compilation to `best` in the test's folder."""
    fork_the_worker(monkeypatch)
    prove_once(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HAILO_SDK_PYTHON", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def run(
        *flags: object, sdk: Path | None = None, onnx: Path = yolo, data: Path = calib, **behaviour: Any
    ) -> Finished:
        python = sdk or make_sdk(tmp_path, name=f"sdk{len(list(tmp_path.glob('sdk*')))}", **behaviour)
        words = [onnx, "--calib", data, "--output", "best", "--sdk-python", python, "--json", *flags]
        return run_here(SCRIPT, *words, cwd=tmp_path)

    return run


HAR = "runs/compile/best/best.{}.har"  # parsed or quantized


@pytest.fixture
def made(road: tuple[Path, Finished], tmp_path: Path) -> Finished:
    """An earlier run with everything by default, in the test's folder: its result, its HARs, and what it said."""
    folder, done = road
    shutil.copytree(folder / "runs", tmp_path / "runs")
    for name in ("best.hef", "best.json"):
        shutil.copy(folder / name, tmp_path)
    return done


def files(folder: Path) -> set[str]:
    """Names in a folder."""
    return {path.name for path in folder.iterdir()}


# --- the road ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def road(yolo: Path, calib: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Finished]:
    """The script as a process, with everything by default: its folder, and what it said."""
    folder = tmp_path_factory.mktemp("road")
    make_sdk(folder, name=".venv_hailo_full")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("HAILO_SDK_PYTHON", raising=False)
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        done = finished(SCRIPT, yolo, "--calib", calib, "--output", "best", "--json", cwd=folder)
    assert done.code == 0, done.err
    return folder, done


def test_the_whole_road(road: tuple[Path, Finished]) -> None:
    """Four headings, HEF and spec, the contract's JSON, the run folder, and the lines that copy it all to the Pi."""
    folder, done = road

    assert [line for line in done.err.splitlines() if line.startswith("[")] == HEADINGS
    assert files(folder) == {".venv_hailo_full", "best.hef", "best.json", "runs"}
    assert files(folder / "runs" / "compile" / "best") == RUN_FILES
    assert list(done.json)[: len(SPEC_KEYS + RUN_KEYS)] == [*SPEC_KEYS, *RUN_KEYS]
    assert {k: done.json[k] for k in SPEC_KEYS} == json.loads((folder / "best.json").read_bytes())
    assert (done.json["output"], done.json["run_dir"]) == ("best.hef", "runs/compile/best")
    assert [f"[{i + 1}/4] {s['name']}" for i, s in enumerate(done.json["stages"])] == HEADINGS
    assert "  scp best.hef best.json user@raspberrypi.local:hefkit/" in done.err.splitlines()
    assert ("copy the model to the Pi (it needs HailoRT 4.23" in done.err) is (SDK_VERSION == "3.33.1")
    assert "-cf - hefkit | ssh user@raspberrypi.local tar -C hefkit -xf -" in done.err
    assert "CUDA_VISIBLE_DEVICES" in (folder / "runs/compile/best/job.json").read_text()


def test_hef_and_spec_belong_together(road: tuple[Path, Finished]) -> None:
    """Read back by the modules that the Pi uses; scales and zero points are those of the file."""
    folder, _ = road
    hef, spec = read_hef(folder / "best.hef"), read_spec(folder / "best.json")

    check_spec(hef, spec)
    assert (spec.kind, spec.target) == ("hef", {"arch": "hailo8", "sdk": SDK_VERSION})
    assert [(o.stream, o.dtype, o.scale, o.zero_point) for o in spec.head.outputs] == [
        (s.name, s.dtype, s.scale, s.zero_point) for s in hef.groups[0].outputs
    ]
    assert [(o.role, o.stride, o.activation) for o in spec.head.outputs] == [
        (role, stride, activation)
        for stride in (8, 16, 32)
        for role, activation in (("box", "none"), ("cls", "sigmoid"))
    ]
    assert spec.calibration is not None and spec.calibration["count"] == 9
    assert spec.quality is not None and spec.quality["recall"] > 0.9 and spec.quality["in_sample"] is True
    streams = [o.stream.rpartition("/")[2] for o in spec.head.outputs[1::2] if o.stream]
    for line in (
        "model_optimization_config(calibration, batch_size=8, calibset_size=9)",
        "model_optimization_flavor(optimization_level=0, compression_level=0)",
        *(f"change_output_activation({stream}, sigmoid)" for stream in streams),
    ):
        assert line in spec.script.splitlines()


def test_the_report_says_what_really_ran(road: tuple[Path, Finished]) -> None:
    """Beside the result: the SDK, its environment, and what its log said."""
    folder, done = road
    report = json.loads((folder / "runs/compile/best/report.json").read_bytes())

    assert {k: report[k] for k in done.json} == done.json and report["error"] is None
    assert report["sdk_run"]["pictures"] == {"calibration": 9} and report["contexts"] == 3
    assert (report["sdk"]["version"], report["sdk"]["found_by"]) == (SDK_VERSION, ".venv_hailo_full/bin/python")


def test_validate_hef_reads_it(road: tuple[Path, Finished], run_script: Callable[..., Finished]) -> None:
    """The next script of the road takes the pair, and shows that this HEF is a fake."""
    folder, _ = road
    done = run_script("validate_hef.py", folder / "best.hef", "--json")

    assert done.code == 0, done.err
    assert done.json["arch"] == "hailo8" and "FAKE" in done.json["sdk"]


# --- other networks ---------------------------------------------------------------------------------------------------

NETWORKS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "direct distances, NMS-free": ({"family": "ltrb", "tail": "topk"}, ()),
    "embedded NMS": ({"tail": "nms"}, ()),
    "float16": ({"half": True}, ()),
    "nameless nodes, dynamic size": ({"named": False, "dynamic": "size"}, ("--imgsz", "64")),
    "64 classes beside 64 box channels": ({"classes": 64}, ()),
}


@pytest.mark.parametrize("options, flags", NETWORKS.values(), ids=NETWORKS.keys())
def test_every_kind_of_network(
    compiled: Compile, tmp_path: Path, options: dict[str, Any], flags: tuple[str, ...]
) -> None:
    """The SDK gets the cut network, so that no tail, type, name or size of the export can trouble it."""
    onnx = save(tiny_yolo(**options), tmp_path / "net.onnx")

    done = compiled(*flags, onnx=onnx)

    assert done.code == 0, done.err
    check_spec(read_hef(tmp_path / "best.hef"), read_spec(tmp_path / "best.json"))
    # the toy's random 64 classes score alike everywhere, and rounding moves them over the threshold
    assert done.json["quality"]["recall"] > (0.8 if options.get("classes") == 64 else 0.9)


# --- flags ------------------------------------------------------------------------------------------------------------


def test_flags_reach_the_sdk(compiled: Compile, tmp_path: Path) -> None:
    """Level, fine-tuning, batch, number of pictures, chip, names, logits, 16 bit: in the script and in the HEF.

    And a gate that is met lets it pass.
    """
    done = compiled(
        "--optimization-level", 2, "--precision-16", "outputs", "--logits", "--batch-size", 4, "--num-samples", 7,
        "--hw-arch", "hailo8l", "--names", "car,drone,bird", "--gate", 0.5,
    )  # fmt: skip

    assert done.code == 0, done.err
    script = done.json["script"]
    for line in (
        "model_optimization_flavor(optimization_level=2, compression_level=0)",
        "model_optimization_config(calibration, batch_size=4, calibset_size=7)",
        "post_quantization_optimization(finetune, policy=enabled, dataset_size=7)",
    ):
        assert line in script.splitlines()
    assert "change_output_activation(" not in script.replace("# ", "")
    assert {o["dtype"] for o in done.json["head"]["outputs"]} == {"uint16"}
    assert {o["activation"] for o in done.json["head"]["outputs"]} == {"none"}
    assert done.json["names"] == {"0": "car", "1": "drone", "2": "bird"}
    assert (done.json["target"]["arch"], read_hef(tmp_path / "best.hef").arch) == ("hailo8l", "hailo8l")
    assert json.loads((tmp_path / "runs/compile/best/report.json").read_bytes())["sdk_run"]["pictures"] == {
        "calibration": 7, "finetune": 7
    }  # fmt: skip
    assert [w for w in done.json["warnings"] if "level 2 without a graphics card" in w]


def test_16_bit_by_name(compiled: Compile, road: tuple[Path, Finished]) -> None:
    """A layer by the SDK's name or by its ONNX node; `auto` leaves the choice to the SDK; an unknown one is exit 2."""
    first = road[1].json["head"]["outputs"]
    node, stream = first[0]["onnx_node"], first[2]["stream"].rpartition("/")[2]

    done = compiled("--precision-16", node, stream, "auto")
    wrong = compiled("--precision-16", "conv999")

    assert done.code == 0, done.err
    named = first[0]["stream"].rpartition("/")[2]
    assert f"quantization_param([{named}, {stream}], precision_mode=a16_w16)" in done.json["script"].splitlines()
    assert "auto_16bit_weights_ratio=0.05" in done.json["script"]
    assert [o["dtype"] for o in done.json["head"]["outputs"][:3]] == ["uint16", "uint8", "uint16"]
    assert (wrong.code, len(wrong.errors)) == (2, 1) and "no layer conv999" in wrong.errors[0]


def test_plain_distances_ask_for_16_bit(compiled: Compile, yolo: Path, tmp_path: Path) -> None:
    """A head as YOLO26's: one line before anything is compiled, unless 16-bit outputs are asked for."""
    distances = save(tiny_yolo(family="ltrb", tail="topk"), tmp_path / "distances.onnx")

    def told(onnx: Path, *flags: object) -> list[str]:
        done = compiled("--check", *flags, onnx=onnx)
        assert done.code == 0, done.err
        return [w for w in done.json["warnings"] if "add --precision-16 outputs" in w]

    assert len(told(distances)) == 1
    assert told(distances, "--precision-16", "outputs") == told(yolo) == []
    done = compiled("--precision-16", "outputs", onnx=distances)
    assert done.code == 0, done.err
    # 15 bits: a sigmoid has the scale 1/32767
    classes = [o for o in done.json["head"]["outputs"] if o["role"] == "cls"]
    assert {(o["dtype"], o["activation"]) for o in classes} == {("uint16", "sigmoid")}
    assert [o["scale"] for o in classes] == pytest.approx([1 / 32767] * 3)


SCRIPT_TEXT = """\
normalization1 = normalization([0.0, 0.0, 0.0], [255.0, 255.0, 255.0])
model_optimization_flavor(optimization_level=0, compression_level=0)
"""


def test_a_script_of_one_s_own(compiled: Compile, tmp_path: Path) -> None:
    """Its lines stay; its number of pictures and its compression are used, and reported."""
    script = tmp_path / "my.mscript"
    script.write_text(
        SCRIPT_TEXT + "model_optimization_config(calibration, calibset_size=4)\n"
        "model_optimization_config(compression_params, auto_4bit_weights_ratio=0)\n"
    )

    done = compiled("--script", script, "--precision-16", "auto")

    assert done.code == 0, done.err
    assert done.json["calibration"]["count"] == 4
    assert not [w for w in done.json["warnings"] if "calibrated with" in w]
    ratios = "model_optimization_config(compression_params, auto_4bit_weights_ratio=0, auto_16bit_weights_ratio=0.05)"
    assert ratios in done.json["script"].splitlines()
    refused = compiled("--script", script, four_bit=["conv5"])
    assert refused.code == 5 and "1 layer in 4 bit" in refused.errors[0]


def test_an_implicit_level_is_refused(compiled: Compile, tmp_path: Path) -> None:
    """Before the SDK is even looked for: with a DFL head and few pictures it would ruin the boxes."""
    script = tmp_path / "my.mscript"
    script.write_text(SCRIPT_TEXT.splitlines()[0] + "\n")

    refused = compiled("--script", script, sdk=Path("gone"))
    explicit = compiled("--script", script, "--optimization-level", 0, "--parse-only")

    assert refused.code == 4 and "1024" in refused.errors[0] and explicit.code == 0


def test_large_sets_are_measured_on_held_out_pictures(compiled: Compile, tmp_path: Path) -> None:
    """From 80 pictures on the last min(16, N/5) are kept out of what the SDK gets."""
    done = compiled(data=npy_set(tmp_path / "many.npy", 80))

    assert (done.code, done.json["calibration"]["count"]) == (0, 64)
    assert (done.json["quality"]["images"], done.json["quality"]["in_sample"]) == (16, False)
    job = json.loads((tmp_path / "runs/compile/best/job.json").read_bytes())
    assert (job["calibration"]["count"], job["calibration"]["measured_on"]) == (64, 16)


# --- resuming ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage, processes", [("parsed", 5), ("quantized", 3)])
def test_resuming_gives_the_same_hef(
    compiled: Compile, made: Finished, tmp_path: Path, stage: str, processes: int
) -> None:
    """From either HAR: the same bytes, the same spec, and a quantised one is not quantised again."""
    hef = (tmp_path / "best.hef").read_bytes()

    again = compiled("--har", HAR.format(stage), processes=str(tmp_path / "pids"))

    assert again.code == 0, again.err
    assert len((tmp_path / "pids").read_text().split()) == processes
    assert (tmp_path / "best.hef").read_bytes() == hef
    same = [key for key in SPEC_KEYS if key != "created"]
    assert {k: again.json[k] for k in same} == {k: made.json[k] for k in same}
    assert [line for line in again.err.splitlines() if line.startswith("[")] == HEADINGS
    quantized = "Starting Model Optimization" in (tmp_path / "runs/compile/best-2/sdk.log").read_text()
    assert quantized is (stage == "parsed")
    assert "Translation started" not in (tmp_path / "runs/compile/best-2/sdk.log").read_text()


def test_states_in_words_are_resumed(compiled: Compile, tmp_path: Path, road: tuple[Path, Finished]) -> None:
    """Archives say `quantized_model`, and `hailo har info` prints `Quantized Model`: either is known."""
    done = compiled(state_words=True)
    assert done.code == 0, done.err
    check_as_usual(tmp_path, road[0])

    for stage in ("parsed", "quantized"):
        done = compiled("--har", HAR.format(stage), state_words=True)
        assert done.code == 0, done.err


def test_only_parsing(compiled: Compile, tmp_path: Path) -> None:
    """The HAR and its record are there, nothing else is made, and a run resumes from it without parsing."""
    done = compiled("--parse-only")

    har = HAR.format("parsed")
    assert (done.code, done.json["output"]) == (0, None) and f"the parsed network: {har}" in done.err
    assert "[2/4]" not in done.err and not (tmp_path / "best.hef").exists()
    assert compiled("--har", har).code == 0 and (tmp_path / "best.hef").is_file()


OTHER_RUNS: dict[str, tuple[str, dict[str, Any], tuple[object, ...], str]] = {
    "another network": ("parsed", {"seed": 1}, (), "made from another ONNX"),
    "another chip": ("parsed", {}, ("--hw-arch", "hailo8l"), "is for hailo8, expected hailo8l"),
    "another level": ("quantized", {}, ("--optimization-level", "2"), "another model script: it lacks"),
    "other activations": ("quantized", {}, ("--logits",), "another model script: it has change_output_activation"),
    "16-bit outputs": ("quantized", {}, ("--precision-16", "outputs"), "another model script: it lacks quantization"),
}


@pytest.mark.parametrize("stage, options, flags, words", OTHER_RUNS.values(), ids=OTHER_RUNS.keys())
def test_a_har_of_another_run_is_refused(
    compiled: Compile, made: Finished, tmp_path: Path,
    stage: str, options: dict[str, Any], flags: tuple[object, ...], words: str,
) -> None:  # fmt: skip
    """Exit 4, what differs, and the earlier HEF as it was."""
    before = (tmp_path / "best.hef").read_bytes()
    onnx = save(tiny_yolo(**options), tmp_path / "other.onnx")

    done = compiled("--har", HAR.format(stage), *flags, onnx=onnx)

    assert (done.code, len(done.errors)) == (4, 1) and words in done.errors[0], done.err
    assert (tmp_path / "best.hef").read_bytes() == before


def test_a_har_without_a_record(compiled: Compile, made: Finished, tmp_path: Path) -> None:
    """Without our record: what the HAR itself says counts; what is not known is a warning and null."""
    for stage in ("parsed", "quantized"):
        (tmp_path / f"runs/compile/best/best.{stage}.har.json").unlink()

    parsed = compiled("--har", HAR.format("parsed"))
    quantized = compiled("--har", HAR.format("quantized"), "--num-samples", 6)

    assert (parsed.code, quantized.code) == (0, 0), parsed.err + quantized.err
    assert all(any("has no record beside it" in w for w in d.json["warnings"]) for d in (parsed, quantized))
    assert parsed.json["calibration"]["count"] == 9 and quantized.json["calibration"] is None
    assert [w for w in quantized.json["warnings"] if "another model script" in w and "calibset_size=6" in w]
    assert "calibset_size=9" in quantized.json["script"]


def test_a_file_that_is_not_a_har(compiled: Compile, calib: Path) -> None:
    """Exit 4 before anything else is looked at; with --emulate it is a usage error."""
    for path in ("gone.har", calib):
        done = compiled("--har", path)
        assert (done.code, len(done.errors)) == (4, 1) and str(path) in done.errors[0]
    with pytest.raises(SystemExit) as caught:
        main(["x.onnx", "--emulate", "--har", "x.har"])
    assert caught.value.code == 2


# --- a process a stage ------------------------------------------------------------------------------------------------


def test_each_stage_is_a_process_of_its_own(compiled: Compile, tmp_path: Path) -> None:
    """Parse, full-precision check, optimise, emulate, compile; each reads the HAR before it, and none is left."""
    done = compiled(processes=str(tmp_path / "pids"))

    assert done.code == 0, done.err
    pids = (tmp_path / "pids").read_text().split()
    assert len(pids) == len(set(pids)) == 5
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    printed = (tmp_path / "runs/compile/best/sdk.log").read_text()
    assert [printed.count(words) for words in ("Translation completed", "Starting Model Opt", "Building HEF")] == [
        1,
        1,
        1,
    ]
    assert printed.count("Loading model script commands") >= 3, "also before the compile"


def test_a_run_folder_begins_with_an_empty_log(compiled: Compile, tmp_path: Path) -> None:
    """The processes of one run share sdk.log; those of the run before are not in it."""
    assert compiled("--run-dir", "run", "--parse-only").code == 0
    assert (tmp_path / "run" / "sdk.log").read_text().count("Translation completed") == 1

    assert compiled("--run-dir", "run", "--parse-only").code == 0

    assert (tmp_path / "run" / "sdk.log").read_text().count("Translation completed") == 1


# --- what the evidence leaves open ------------------------------------------------------------------------------------

OPEN: dict[str, dict[str, Any]] = {
    "outputs in another order": {"reverse_outputs": True},
    "emulation in another order": {"reverse_emulation": True},
    "emulation as a dict, streams renamed": {"dict_emulation": True, "hef": {"name": "_out"}},
    "no ONNX names, emulation without the sigmoid": {"no_original_names": True, "raw_emulation": True},
    "no full-precision call": {"no_full_precision": True},
    "no float32 arrays": {"refuse_forms": ["float32"]},
    "nothing but uint8": {"refuse_forms": ["float32", "dataset"]},
    "garbage everywhere": {"at": {m: {"garbage": True} for m in ("import", "parse", "optimize", "infer", "compile")}},
    "not a word": {"silent": True},
    "the first start of a newer release": {"first_start": True, "version": "3.35.0"},
}


def check_as_usual(folder: Path, usual_folder: Path, suffix: str = "") -> None:
    """HEF and spec belong together, and are those of a usual run; `suffix`: of the names of the outputs."""
    spec, usual = read_spec(folder / "best.json"), read_spec(usual_folder / "best.json")
    check_spec(read_hef(folder / "best.hef"), spec)
    assert [(o.stream, o.scale, o.zero_point, o.activation) for o in spec.head.outputs] == [
        (f"{o.stream}{suffix}", o.scale, o.zero_point, o.activation) for o in usual.head.outputs
    ]
    assert spec.quality is not None and usual.quality is not None
    assert spec.quality["recall"] == pytest.approx(usual.quality["recall"], abs=0.02)


@pytest.mark.parametrize("behaviour", OPEN.values(), ids=OPEN.keys())
def test_both_possibilities_are_survived(
    compiled: Compile, tmp_path: Path, road: tuple[Path, Finished], behaviour: dict[str, Any]
) -> None:
    """Where public evidence leaves something open, the result is the same either way."""
    done = compiled(**behaviour)

    assert done.code == 0, done.err
    check_as_usual(tmp_path, road[0], behaviour.get("hef", {}).get("name", ""))
    if behaviour == {"refuse_forms": ["float32"]}:
        # what the full-precision check has found out is used by the quantisation, in its own process
        assert done.err.count("trying another form") == 1
    if behaviour == {"silent": True}:
        assert [w for w in done.json["warnings"] if "it cannot tell what really ran" in w]


def test_few_pictures_with_a_warning_instead_of_an_error(compiled: Compile, tmp_path: Path) -> None:
    """A release that goes on with fewer pictures than the script asks for: a warning."""
    done = compiled("--optimization-level", 2, fewer=5, few_pictures_will_do=True)

    assert done.code == 0
    assert [w for w in done.json["warnings"] if "calibrated with 5 of 9 pictures" in w]
    assert [w for w in done.json["warnings"] if "fine-tuned with 5 of 9 pictures" in w]


# --- failures ---------------------------------------------------------------------------------------------------------

FAILURES: dict[str, tuple[dict[str, Any], int, str]] = {
    "parsing": (
        {"at": {"parse": {"raise": ["UnsupportedModelError", "no"]}}}, 5, "cannot translate the network (parsing"
    ),
    "script": (
        {"at": {"script": {"raise": ["BackendScriptParserException", "Parsing failed at:\n>!<foo()"]}}}, 5, ">!<foo()"
    ),
    "calibration": ({"at": {"optimize": {"raise": ["BadInputsShape", "x"]}}}, 5, "another shape (quantising)"),
    "graphics memory": (
        {"at": {"optimize": {"raise": ["AccelerasResourceError", "GPU memory"]}}}, 5, "graphics card's memory is full"
    ),
    "mapping": (
        {"at": {"compile": [{"print": ["[error] Mapping Failed (allocation time: 1m 44s)"]},
                            {"raise": ["Exception", "failed"]}]}}, 5, "the SDK cannot place the network on the chip (",
    ),
    "unknown": ({"at": {"compile": {"raise": ["KeyError", "meta"]}}}, 5, "it said: KeyError: meta"),
    "killed while quantising": ({"at": {"optimize": {"kill": 9}}}, 5, "was killed while quantising"),
    "crashed while compiling": ({"at": {"compile": {"kill": 11}}}, 5, "crashed while compiling with signal 11"),
    "disk full": ({"at": {"compile": {"raise": ["OSError", "No space left"]}}}, 3, "the disk became full (compiling)"),
    "import": ({"import_error": "No module named 'tensorflow'"}, 5, "cannot be imported: No module named 'tensorflow'"),
    "another network": ({"wrong_colours": True}, 5, "computes something else, before any quantisation"),
    "level 1": ({"reduce_level": [1, "data"]}, 5, "from 2 to 1; level 1 is known to give all boxes one size"),
    "4 bit": ({"four_bit": ["conv5"]}, 5, "1 layer in 4 bit (best/conv5"),
    "no bytes": ({"compile_returns": "path"}, 5, "compile() returned str"),
    "HEF for another chip": ({"hef": {"arch": "hailo8l"}}, 5, "it is for hailo8l, expected hailo8"),
    "HEF cut off": ({"hef": {"broken": True}}, 5, "cannot be read back"),
    "HEF without an output": ({"hef": {"drop": True}}, 5, "it has 5 outputs, expected 6"),
    "HEF without sigmoids": ({"hef": {"logits": True}}, 5, "which are logits; expected probabilities"),
    "HEF with stale codes": ({"hef": {"stale": True}}, 5, "do not fit uint8"),
    "a child process": (
        {"at": {"optimize": {"wrapped": ["AccelerasResourceError", "GPU memory has been exhausted."]}}}, 5,
        "graphics card's memory is full",
    ),
    "pictures without normalization": ({"pictures_look": "normalized"}, 5, "found no normalization in the script"),
    "pictures normalised twice": ({"pictures_look": "twice"}, 5, "normalised twice"),
    "another chip's SDK": ({"version": "5.2.0"}, 5, "compiles for hailo10h, hailo15h, hailo15m, hailo15l, and not for"),
}  # fmt: skip


@pytest.mark.parametrize("behaviour, code, words", FAILURES.values(), ids=FAILURES.keys())
def test_failures(
    compiled: Compile, made: Finished, tmp_path: Path, behaviour: dict[str, Any], code: int, words: str
) -> None:
    """One sentence, the contract's exit code, no JSON, no half HEF; what there was before stays."""
    flags = ("--optimization-level", 2) if "reduce_level" in behaviour else ()
    if "compile" in behaviour.get("at", {}) or {"hef", "compile_returns"} & set(behaviour):  # fails in the last stage
        flags = ("--har", HAR.format("quantized"))
    (tmp_path / "best.json").unlink()
    (tmp_path / "best.hef").write_bytes(b"an earlier HEF")

    done = compiled(*flags, **behaviour)

    assert (done.code, done.out, len(done.errors)) == (code, "", 1), done.err
    assert words in done.errors[0] and done.err.splitlines()[-1] == done.errors[0]
    assert (tmp_path / "best.hef").read_bytes() == b"an earlier HEF" and not (tmp_path / "best.json").exists()
    run = tmp_path / "runs" / "compile" / "best-2"
    if run.exists():
        assert json.loads((run / "report.json").read_bytes())["error"] in done.errors[0]
        assert not [name for name in files(run) if "scratch" in name]


def test_a_refused_hef_is_kept(compiled: Compile, tmp_path: Path) -> None:
    """Hours may lie in it: it stays in the run folder, under a name that warns, and the message says where."""
    done = compiled("--precision-16", "outputs", hef={"demote": True})

    kept = tmp_path / "runs/compile/best/best.refused.hef"
    assert done.code == 5 and "8-bit codes although 16 bit were asked for" in done.errors[0]
    assert str(kept) in done.errors[0] and read_hef(kept).arch == "hailo8"
    assert not (tmp_path / "best.hef").exists()


def test_a_hef_that_finds_no_room_is_kept(compiled: Compile, tmp_path: Path, small_disk: Path) -> None:
    """The same where the disk of `--output` is full, which costs hours as well."""
    fill(small_disk, leave=8192)

    done = compiled("--output", small_disk / "best", "--run-dir", "run")

    kept = tmp_path / "run" / "best.finished.hef"
    assert done.code == 3 and "the disk is full" in done.errors[0]
    assert str(kept) in done.errors[0] and read_hef(kept).arch == "hailo8"
    assert files(small_disk) == {"brim"}


def test_a_pair_that_lies_in_the_run_folder_survives(
    compiled: Compile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--run-dir` is where `--output` is: a second run that fails at the last moment leaves both as they were."""
    assert compiled("--run-dir", ".").code == 0
    before = [(tmp_path / name).read_bytes() for name in ("best.hef", "best.json")]

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    assert compiled("--run-dir", ".", "--logits").code == 3
    assert [(tmp_path / name).read_bytes() for name in ("best.hef", "best.json")] == before


def test_a_har_that_was_copied_is_resumed_where_it_lies(compiled: Compile, made: Finished, tmp_path: Path) -> None:
    """With the HAR of the other stage beside it and another spelling of the path: their records are ours."""
    (tmp_path / "copy").mkdir()
    for path in (tmp_path / "runs/compile/best").glob("*.har*"):
        shutil.copy(path, tmp_path / "copy")

    assert compiled("--run-dir", "copy", "--har", tmp_path / "copy" / "best.quantized.har").code == 0


@pytest.mark.parametrize("name", ["sdk.log", "job.json", "report.json", "best.json", "best.alls"])
def test_a_run_folder_with_foreign_files(compiled: Compile, tmp_path: Path, name: str) -> None:
    """None of them is replaced, and no stage begins."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("mine")

    done = compiled("--run-dir", "run")

    assert done.code == 2 and f"{name} is not hefkit's" in done.errors[0]
    assert files(tmp_path / "run") == {name} and (tmp_path / "run" / name).read_text() == "mine"


def test_a_refused_quantisation_cannot_be_resumed(compiled: Compile, tmp_path: Path) -> None:
    """The guard holds on the way back in: under its new name, with the SDK well again, it is refused once more."""
    first = compiled(four_bit=["conv5"])
    har = Path("runs/compile/best/best.refused.har")

    again = compiled("--har", har)

    assert (first.code, again.code) == (5, 5) and "1 layer in 4 bit" in again.errors[0]
    assert str(har) in again.errors[0] and not (tmp_path / "best.hef").exists()
    assert not (tmp_path / "runs/compile/best/best.quantized.har").exists()


def test_after_a_kill_a_second_run_succeeds(compiled: Compile, tmp_path: Path) -> None:
    """Anew, into a folder of its own, or from the HAR that the killed run had saved."""
    killed = compiled(at={"compile": {"kill": 9}})
    assert killed.code == 5 and files(tmp_path / "runs/compile/best") >= {"best.quantized.har", "report.json"}

    anew = compiled()
    resumed = compiled("--har", HAR.format("quantized"))

    assert (anew.code, anew.json["run_dir"]) == (0, "runs/compile/best-2")
    assert (resumed.code, resumed.json["run_dir"]) == (0, "runs/compile/best-3")


def test_a_run_folder_that_is_named_is_used_again(compiled: Compile, tmp_path: Path) -> None:
    """Files of ours are replaced, others stay."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    (tmp_path / "run" / "scratch-notes.txt").write_text("mine, too")
    (tmp_path / "run" / ".hefkit-partial-old" / "new").mkdir(parents=True)
    (tmp_path / "run" / ".hefkit-partial-old" / "new" / "measured.npy").write_text("left by a killed run")

    assert compiled("--run-dir", "run", at={"parse": {"kill": 9}}).code == 5
    done = compiled("--run-dir", "run")

    assert done.code == 0 and files(tmp_path / "run") == RUN_FILES | {"notes.txt", "scratch-notes.txt"}
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_the_last_words_of_the_sdk(compiled: Compile) -> None:
    """The end of its log stands above the sentence that says what it means."""
    done = compiled(
        at={"parse": [{"print": ["something telling", "and the last straw"]}, {"raise": ["KeyError", "x"]}]}
    )

    lines = done.err.splitlines()
    assert any(line.startswith("  | ") and "the last straw" in line for line in lines)
    assert lines[-1].startswith("error: ") and "Traceback (most recent" not in lines[-1]


# --- quality ----------------------------------------------------------------------------------------------------------


def test_a_gate_that_is_missed_stops_before_the_compile(compiled: Compile, tmp_path: Path) -> None:
    """Exit 7 with the JSON; no HEF, codes unknown and null; the quantised HAR can be compiled all the same."""
    done = compiled("--gate", 1.0)
    har = HAR.format("quantized")

    assert (done.code, done.json["output"]) == (7, None) and "--gate 1.0" in done.errors[0]
    assert done.json["quality"]["recall"] < 1, "or this gate would prove nothing"
    assert {o["dtype"] for o in done.json["head"]["outputs"]} == {None}
    assert [s["name"] for s in done.json["stages"]] == [h[6:] for h in HEADINGS[:3]]
    assert har in done.errors[0] and not (tmp_path / "best.hef").exists()
    assert compiled("--har", har).code == 0


def test_boxes_of_one_size_are_never_compiled(compiled: Compile, tmp_path: Path) -> None:
    """Without any gate: exit 7, what happened to the boxes, and what to do."""
    done = compiled(collapse=True)

    assert (done.code, done.json["output"]) == (7, None) and not (tmp_path / "best.hef").exists()
    assert "boxes of almost one size" in done.errors[0] and "--optimization-level" in done.errors[0]
    assert done.json["quality"]["box_spread_ratio"] < 0.25
    assert compiled("--har", HAR.format("quantized"), collapse=True).code == 7


def test_level_1_is_refused_for_every_head(compiled: Compile, tmp_path: Path) -> None:
    """It was measured on DFL heads, as above; class scores of others broke too."""
    onnx = save(tiny_yolo(family="ltrb"), tmp_path / "net.onnx")

    done = compiled("--optimization-level", 2, onnx=onnx, reduce_level=[1, "data"])

    assert done.code == 5 and "from 2 to 1; level 1 is known to give all boxes one size" in done.errors[0]


def test_outputs_that_keep_little_are_told(compiled: Compile) -> None:
    """The SDK measures its own noise, and says where it took bits away: warnings with the layer, and a cure."""
    done = compiled(fewer_bits=["conv5"], snr=0.4)

    assert done.code == 0
    told = " ".join(done.json["warnings"])
    assert "more than half of the bits of the output of best/conv5" in told
    assert "an SNR of 0.4 dB at best/output_layer1" in told and "--precision-16" in told
    assert done.json["quality"]["layer_snr_db"] == {"best/output_layer1": 0.4}


def test_what_a_level_costs_is_said(compiled: Compile, road: tuple[Path, Finished]) -> None:
    """One line on the console, before the quantisation."""
    killed = compiled("--optimization-level", 2, at={"optimize": {"kill": 9}})

    for done, words in ((road[1], "level 0 costs about 1 to 2 points"), (killed, "sometimes much more")):
        lines = [line for line in done.err.splitlines() if "what to expect" in line]
        assert len(lines) == 1 and words in lines[0]


def test_a_lowered_level_is_a_warning(compiled: Compile) -> None:
    """Level 2 asked, 0 done: the HEF comes, and so does the warning, into the JSON and the report."""
    done = compiled("--optimization-level", 2, reduce_level=[0, "gpu"], skip_finetune=True)

    assert done.code == 0
    told = " ".join(done.json["warnings"])
    assert "from 2 to 0 because it found no graphics card" in told and "the SDK skipped it" in told


def test_an_sdk_that_cannot_emulate(compiled: Compile) -> None:
    """Nothing is measured: a warning and null; with a gate it is a failure."""
    broken = {"at": {"infer": {"raise": ["KeyError", "meta"]}}}

    done = compiled(**broken)
    gated = compiled("--gate", 0.1, "--har", HAR.format("quantized"), **broken)

    assert (done.code, done.json["quality"]) == (0, None)
    assert [w for w in done.json["warnings"] if "has not been measured" in w]
    assert gated.code == 7 and "could not be measured" in gated.errors[0]


# --- checks -----------------------------------------------------------------------------------------------------------


def test_check_prints_the_sdk_s_calls_beside_ours(compiled: Compile, tmp_path: Path) -> None:
    """What the first user with an SDK compares in minutes; nothing is written."""
    done = compiled("--check")

    assert done.code == 0 and files(tmp_path) == {"sdk0"}
    calls = {c["call"]: c for c in done.json["sdk_calls"]}
    assert {c["verdict"] for c in calls.values()} == {"as expected"}
    assert (
        "memento" in calls["ClientRunner.optimize"]["expected"] and "memento" in calls["ClientRunner.optimize"]["found"]
    )
    assert "  ClientRunner.optimize: as expected" in done.err.splitlines()


def test_check_tells_a_clash_with_a_line_that_hefkit_adds(compiled: Compile, tmp_path: Path, shared: Path) -> None:
    """The line of the user and what to do, before hours are spent: a warning where it is likely, exit 4 for certain."""
    field = shared / "field" / "07-script-force-range" / "forced.alls"
    certain = tmp_path / "my.mscript"
    certain.write_text(SCRIPT_TEXT + "change_output_activation(output_layer2, sigmoid)\n")

    likely = compiled("--check", "--script", field)
    refused = compiled("--check", "--script", certain)

    assert likely.code == 0
    [told] = [w for w in likely.json["warnings"] if "force_range_out" in w]
    assert "line 3: " in told and "conv42, conv53, conv63" in told and "--logits" in told
    assert refused.code == 4 and "line 3: output_layer2 is a class output" in refused.errors[0]


def test_check_tells_what_will_take_hours(compiled: Compile, tmp_path: Path) -> None:
    """Level 2 on the processor, and an opset that nobody has tried."""
    onnx = save(tiny_yolo(opset=18), tmp_path / "new.onnx")

    done = compiled("--check", "--optimization-level", 2, onnx=onnx)

    assert done.code == 0
    assert [w for w in done.json["warnings"] if "level 2 without a graphics card" in w and "26 to 86 minutes" in w]
    assert [w for w in done.json["warnings"] if "opset 18; 11 and 13 are proven" in w]
    assert not [w for w in compiled("--check").json["warnings"] if "opset" in w or "graphics card" in w]


def test_check_of_another_sdk(compiled: Compile) -> None:
    """A name that is missing and need not be there, one that must; and an SDK that does not start is a warning."""
    without = compiled("--check", no_full_precision=True)
    broken = compiled("--check", import_error="libcudart.so.12: cannot open")
    missing = compiled("--check", sdk=Path("gone"))

    calls = {c["call"]: c["verdict"] for c in without.json["sdk_calls"]}
    assert calls["ClientRunner.optimize_full_precision"] == "missing; hefkit does without"
    assert not [w for w in without.json["warnings"] if "calls differ" in w]
    for done, words in ((broken, "libcudart.so.12"), (missing, "gone does not exist")):
        assert done.code == 0 and "sdk_calls" not in done.json
        assert any(words in w for w in done.json["warnings"])


def test_the_sdk_comes_last(compiled: Compile, tmp_path: Path) -> None:
    """2, 4, 3, 5: a missing SDK shows only when ONNX, script and set are good."""
    (tmp_path / "best.json").write_text('{"tool": "somebody"}')
    foreign = compiled(sdk=Path("gone"))
    (tmp_path / "best.json").unlink()
    no_model = compiled(sdk=Path("gone"), onnx=Path("gone.onnx"))
    no_set = compiled(sdk=Path("gone"), data=Path("gone.npy"))
    no_sdk = compiled(sdk=Path("gone"))

    assert [d.code for d in (foreign, no_model, no_set, no_sdk)] == [2, 4, 3, 5]
    assert "best.json is not hefkit's" in foreign.errors[0] and "--sdk-python" in no_sdk.errors[0]
    assert not (tmp_path / "runs").exists()


def test_an_sdk_that_would_fail_at_the_end_is_refused_at_once(compiled: Compile, tmp_path: Path) -> None:
    """In dist-packages it parses and optimises for hours, and cannot compile."""
    home = tmp_path / "lib" / "python3" / "dist-packages"
    home.mkdir(parents=True)
    for name in ("hailo_sdk_client", "double_parts", "tensorflow"):
        (home / name).symlink_to(DOUBLE / name)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{home}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)

    done = compiled(sdk=python)

    assert done.code == 5 and "dist-packages" in done.errors[0] and not (tmp_path / "runs").exists()


# --- signals ----------------------------------------------------------------------------------------------------------


STOPPED = {
    "Ctrl-C in the quantisation": ("optimize", signal.SIGINT, 130),
    "Ctrl-C in the compile": ("compile", signal.SIGINT, 130),
    "SIGTERM in the compile": ("compile", signal.SIGTERM, 143),
}


@pytest.mark.parametrize("moment, number, code", STOPPED.values(), ids=STOPPED.keys())
def test_a_run_that_is_stopped(
    run_script: Callable[..., Finished], yolo: Path, calib: Path, made: Finished, tmp_path: Path,
    moment: str, number: signal.Signals, code: int,
) -> None:  # fmt: skip
    """In the middle of a stage, with an SDK that swallows Ctrl-C: nothing of it is left, and no half HEF."""
    pid_file = tmp_path / "pids"
    sdk = make_sdk(tmp_path, at={moment: [{"child": str(pid_file)}, {"hang": True}]})
    (tmp_path / "best.json").unlink()
    (tmp_path / "best.hef").write_bytes(b"an earlier HEF")
    flags: list[object] = ["--calib", calib, "--output", "best", "--sdk-python", sdk]
    if moment == "compile":
        flags += ["--har", HAR.format("quantized")]

    def in_the_stage(stderr: str) -> bool:
        return pid_file.exists() and pid_file.read_text() != ""

    done = run_script(SCRIPT, yolo, *flags, cwd=tmp_path, stop=(number, in_the_stage))

    child = int(pid_file.read_text())
    assert done.code == code
    assert (tmp_path / "best.hef").read_bytes() == b"an earlier HEF" and not (tmp_path / "best.json").exists()
    assert not [name for name in files(tmp_path / "runs/compile/best-2") if "scratch" in name]
    for _ in range(500):
        if not Path(f"/proc/{child}").exists() or ") Z " in Path(f"/proc/{child}/stat").read_text():
            break
        time.sleep(0.02)
    else:
        pytest.fail("the SDK's own process is still there")


def test_nothing_of_the_double_reaches_a_user(road: tuple[Path, Finished]) -> None:
    """What goes to the Pi and what the project imports knows nothing of it."""
    folder, _ = road
    assert shutil.which("hailo_sdk_client") is None
    assert not [p for p in ROOT.glob("hefkit/**/*.py") if "double_parts" in p.read_text(encoding="utf-8")]
    assert "THIS IS NOT A HEF" in (folder / "best.hef").read_bytes().decode("latin-1")
