"""The compiler's script: the base file, what hefkit adds to it, and what it will not contradict."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hefkit.errors import ModelError
from hefkit.workshop.script.commands import Script, compression, finetune, level
from hefkit.workshop.script.compose import Additions, compose
from hefkit.workshop.script.lint import lint
from hefkit.workshop.script.read import parse_script, read_script
from tests.conftest import ROOT, Finished
from tests.helpers.tiny_onnx import drawn, save, tiny_yolo

NORMALIZATION = "normalization1 = normalization([0.0, 0.0, 0.0], [255.0, 255.0, 255.0])"
FLAVOR = "model_optimization_flavor(optimization_level=0, compression_level=0)"
SIGMOIDS = ("net/conv42", "net/conv53", "net/conv63")
PASS = "post_quantization_optimization"


def base(*lines: str) -> Script:
    """A script that begins with the normalization."""
    return parse_script("\n".join([NORMALIZATION, *lines]) + "\n", "my.mscript")


def commands(script: Script) -> list[str]:
    """Its text without comments, blank lines and the normalization."""
    return [line for line in script.text.splitlines() if line and not line.startswith("#")][1:]


def test_everything_at_once() -> None:
    """The shipped script for a yolov8n with level 2, 16-bit outputs and 200 pictures: word for word."""
    shipped = read_script(ROOT / "hailo_optimization.mscript")
    script = compose(
        shipped,
        Additions(
            level=2,
            sigmoid_layers=SIGMOIDS,
            calibration_batch=4,
            calibset_size=200,
            wide_layers=("output_layer1", "output_layer2"),
            finetune_size=200,
        ),
    )

    assert commands(script) == [
        "model_optimization_flavor(optimization_level=2, compression_level=0)",
        "model_optimization_config(calibration, batch_size=4, calibset_size=200)",
        "post_quantization_optimization(finetune, policy=enabled, dataset_size=200)",
        "change_output_activation(net/conv42, sigmoid)",
        "change_output_activation(net/conv53, sigmoid)",
        "change_output_activation(net/conv63, sigmoid)",
        "quantization_param([output_layer1, output_layer2], precision_mode=a16_w16)",
    ]
    assert script == parse_script(script.text) and lint(script, "hailo8") == [] and script.notes == ()
    # the rest of the file stays word for word, comments included
    old, new = shipped.text.splitlines(), script.text.splitlines()
    [at] = [i for i, line in enumerate(old) if line.startswith("model_optimization_flavor")]
    assert new[:at] == old[:at] and new[at : at + 2] == ["# changed by hefkit", commands(script)[0]]
    assert new[at + 2 : len(old) + 1] == old[at + 1 :]
    assert new[len(old) + 1 : len(old) + 3] == ["", "# added by hefkit"]


def test_before_anything_is_known() -> None:
    """Nothing but the place of the sigmoids is added, as comments."""
    script = compose(base(FLAVOR), Additions())

    assert commands(script) == [FLAVOR]
    assert script.text.endswith("when the compiler has named them:\n# change_output_activation(convNN, sigmoid)\n")


def test_logits() -> None:
    """Neither sigmoids nor their place."""
    script = compose(base(FLAVOR), Additions(sigmoid_layers=SIGMOIDS, logits=True))

    assert script.text == base(FLAVOR).text


# base lines, additions -> lines afterwards, words of the notes
MERGED: dict[str, tuple[list[str], Additions, list[str], list[str]]] = {
    "a level replaces another": (
        [FLAVOR], Additions(level=3),
        ["model_optimization_flavor(optimization_level=3, compression_level=0)"], [],
    ),
    "a level where there was none": (
        [], Additions(level=3), ["model_optimization_flavor(optimization_level=3, compression_level=0)"], [],
    ),
    "a level over several lines": (
        ["model_optimization_flavor(", "  optimization_level=4,  # high", "  batch_size=2", ")"], Additions(level=3),
        ["model_optimization_flavor(optimization_level=3, batch_size=2, compression_level=0)"], [],
    ),
    "a level takes 4 bit back": (
        ["model_optimization_flavor(optimization_level=2, compression_level=1)"], Additions(level=4),
        ["model_optimization_flavor(optimization_level=4, compression_level=0)"],
        ["line 2: --optimization-level changes compression_level=1 to 0"],
    ),
    "4 bit of the script stay": (
        ["model_optimization_flavor(optimization_level=2, compression_level=1)"], Additions(),
        ["model_optimization_flavor(optimization_level=2, compression_level=1)"], [],
    ),
    "compression is never implicit": (
        ["model_optimization_flavor(optimization_level=2)"], Additions(),
        ["model_optimization_flavor(optimization_level=2, compression_level=0)"], [],
    ),
    "compression without a level": ([], Additions(), ["model_optimization_flavor(compression_level=0)"], []),
    "the compiler's own batch": (
        [FLAVOR], Additions(calibset_size=64),
        [FLAVOR, "model_optimization_config(calibration, batch_size=8, calibset_size=64)"], [],
    ),
    "fewer pictures than a batch": (
        [FLAVOR], Additions(calibset_size=5),
        [FLAVOR, "model_optimization_config(calibration, batch_size=5, calibset_size=5)"], [],
    ),
    "the script's batch": (
        [FLAVOR, "model_optimization_config(calibration, batch_size=2)"], Additions(calibset_size=64),
        [FLAVOR, "model_optimization_config(calibration, batch_size=2, calibset_size=64)"], [],
    ),
    "the flag's batch": (
        [FLAVOR, "model_optimization_config(calibration, batch_size=2)"],
        Additions(calibration_batch=16, calibset_size=64),
        [FLAVOR, "model_optimization_config(calibration, batch_size=16, calibset_size=64)"],
        ["line 3: batch_size=2 becomes 16"],
    ),
    "the script's number of pictures": (
        [FLAVOR, "model_optimization_config(calibration, calibset_size=64)"], Additions(calibset_size=500),
        [FLAVOR, "model_optimization_config(calibration, calibset_size=64, batch_size=8)"], [],
    ),
    "more pictures than there are": (
        [FLAVOR, "model_optimization_config(calibration, batch_size=8, calibset_size=1024)"],
        Additions(calibset_size=60),
        [FLAVOR, "model_optimization_config(calibration, batch_size=8, calibset_size=60)"],
        ["line 3: calibset_size=1024 becomes 60"],
    ),
    "fine-tuning by level": (
        ["model_optimization_flavor(optimization_level=2, compression_level=0)"], Additions(calibset_size=60),
        ["model_optimization_flavor(optimization_level=2, compression_level=0)",
         "model_optimization_config(calibration, batch_size=8, calibset_size=60)",
         f"{PASS}(finetune, policy=enabled, dataset_size=60)"], [],
    ),
    "fine-tuning by level, many pictures": (
        [], Additions(level=2, calibset_size=4000),
        ["model_optimization_flavor(optimization_level=2, compression_level=0)",
         "model_optimization_config(calibration, batch_size=8, calibset_size=4000)",
         f"{PASS}(finetune, policy=enabled, dataset_size=1024)"], [],
    ),
    "fine-tuning by line": (
        [FLAVOR, f"{PASS}(finetune, learning_rate=0.0001)"], Additions(finetune_size=60),
        [FLAVOR, f"{PASS}(finetune, learning_rate=0.0001, policy=enabled, dataset_size=60)"], [],
    ),
    "fine-tuning on fewer": (
        [FLAVOR, f"{PASS}(finetune, policy=enabled, dataset_size=32)"], Additions(finetune_size=60),
        [FLAVOR, f"{PASS}(finetune, policy=enabled, dataset_size=32)"], [],
    ),
    "fine-tuning on more than there are": (
        [FLAVOR, f"{PASS}(finetune, policy=enabled, dataset_size=4000)"], Additions(finetune_size=60),
        [FLAVOR, f"{PASS}(finetune, policy=enabled, dataset_size=60)"], ["line 3: dataset_size=4000 becomes 60"],
    ),
    "fine-tuning switched off": (
        [FLAVOR, f"{PASS}(finetune, policy=disabled)"], Additions(level=2, finetune_size=60),
        ["model_optimization_flavor(optimization_level=2, compression_level=0)",
         f"{PASS}(finetune, policy=disabled)"], [],
    ),
    "no fine-tuning at level 0": ([FLAVOR], Additions(finetune_size=60), [FLAVOR], []),
    "AdaRound with too few": (
        [], Additions(level=3, finetune_size=60),
        ["model_optimization_flavor(optimization_level=3, compression_level=0)",
         f"{PASS}(adaround, policy=enabled, dataset_size=60)"], [],
    ),
    "AdaRound with enough": (
        [], Additions(level=3, finetune_size=256),
        ["model_optimization_flavor(optimization_level=3, compression_level=0)"], [],
    ),
    "AdaRound by line": (
        [FLAVOR, f"{PASS}(adaround, policy=enabled, batch_size=8)"], Additions(finetune_size=60),
        [FLAVOR, f"{PASS}(adaround, policy=enabled, batch_size=8, dataset_size=60)"], [],
    ),
    "AdaRound switched off": (
        [FLAVOR, f"{PASS}(adaround, policy=disabled)"], Additions(level=4, finetune_size=60),
        ["model_optimization_flavor(optimization_level=4, compression_level=0)",
         f"{PASS}(adaround, policy=disabled)"], [],
    ),
    "the checker with too few": (
        [FLAVOR, "model_optimization_config(checker_cfg, dataset_size=64)"], Additions(finetune_size=10),
        [FLAVOR, "model_optimization_config(checker_cfg, dataset_size=10)"], ["line 3: dataset_size=64 becomes 10"],
    ),
    "a sigmoid that is there": (
        [FLAVOR, "change_output_activation(conv53, sigmoid)"], Additions(sigmoid_layers=SIGMOIDS),
        [FLAVOR, "change_output_activation(conv53, sigmoid)", "change_output_activation(net/conv42, sigmoid)",
         "change_output_activation(net/conv63, sigmoid)"], [],
    ),
    "all sigmoids are there": (
        [FLAVOR, "change_output_activation([conv42, conv53, net/conv63], sigmoid)"],
        Additions(sigmoid_layers=SIGMOIDS),
        [FLAVOR, "change_output_activation([conv42, conv53, net/conv63], sigmoid)"], [],
    ),
    "linear boxes": (
        [FLAVOR, "change_output_activation(conv41, linear)"], Additions(sigmoid_layers=("conv42",)),
        [FLAVOR, "change_output_activation(conv41, linear)", "change_output_activation(conv42, sigmoid)"], [],
    ),
    "linear with --logits": (
        [FLAVOR, "change_output_activation(conv42, linear)"], Additions(logits=True),
        [FLAVOR, "change_output_activation(conv42, linear)"], [],
    ),
    "16 bit that are there": (
        [FLAVOR, "quantization_param({output_layer*}, precision_mode=a16_w16)"],
        Additions(wide_layers=("output_layer1", "conv41")),
        [FLAVOR, "quantization_param({output_layer*}, precision_mode=a16_w16)",
         "quantization_param([conv41], precision_mode=a16_w16)"], [],
    ),
    "16 bit beside another parameter": (
        [FLAVOR, "quantization_param(conv41, bias_mode=double_scale_initialization)"],
        Additions(wide_layers=("conv41",)),
        [FLAVOR, "quantization_param(conv41, bias_mode=double_scale_initialization)",
         "quantization_param([conv41], precision_mode=a16_w16)"], [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("lines, additions, expected, notes", MERGED.values(), ids=MERGED.keys())
def test_what_the_base_says_already(
    lines: list[str], additions: Additions, expected: list[str], notes: list[str]
) -> None:
    """Keywords are merged in place; flags win; sizes fit the pictures; each such change is told."""
    script = compose(base(*lines), additions)

    assert commands(script) == expected
    assert list(script.notes) == [f"my.mscript {note}" for note in notes]


CLASHES = {
    "a sigmoid and --logits": (
        "change_output_activation(conv42, sigmoid)", Additions(logits=True), "--logits promises raw class tensors"
    ),
    "a sigmoid on a box": (
        "change_output_activation(conv41, sigmoid)", Additions(sigmoid_layers=SIGMOIDS),
        "changes the activation of conv41, but the class convolutions of this network are net/conv42, net/conv53",
    ),
    "names of another network": (
        "change_output_activation([conv42, conv99], sigmoid)", Additions(sigmoid_layers=SIGMOIDS), "of conv99, but"
    ),
    "another function on a class": (
        "change_output_activation(net/conv53, tanh)", Additions(sigmoid_layers=SIGMOIDS), "gives tanh to a class"
    ),
    "raw classes without --logits": (
        "change_output_activation(conv53, linear)", Additions(sigmoid_layers=SIGMOIDS), "gives linear to a class"
    ),
    "8 bit against --precision-16": (
        "quantization_param([conv1, output_layer1], precision_mode=a8_w8)", Additions(wide_layers=("output_layer1",)),
        "gives output_layer1 a8_w8, but --precision-16 asks for a16_w16",
    ),
    "a forced range below a sigmoid": (
        "quantization_param(conv42, force_range_out=[0, 1])", Additions(sigmoid_layers=SIGMOIDS),
        "line 3: 'quantization_param(conv42, force_range_out=[0, 1])' forces the range of net/conv42, a class",
    ),
}  # fmt: skip


@pytest.mark.parametrize("line, additions, words", CLASHES.values(), ids=CLASHES.keys())
def test_contradictions_are_refused(line: str, additions: Additions, words: str) -> None:
    """Neither side wins in silence: the message names file, line and what to remove."""
    with pytest.raises(ModelError) as caught:
        compose(base(FLAVOR, line), additions)

    assert words in str(caught.value) and str(caught.value).startswith("my.mscript")
    assert "remove the line" in str(caught.value) or "keep one" in str(caught.value)


sizes = st.none() | st.integers(1, 5000)
features = st.sampled_from(["finetune", "adaround"])
additions = st.builds(
    Additions,
    level=st.none() | st.integers(0, 4),
    sigmoid_layers=st.sampled_from([(), SIGMOIDS]),
    calibration_batch=st.none() | st.integers(1, 64),
    calibset_size=sizes,
    wide_layers=st.sampled_from([(), ("output_layer1", "conv41")]),
    finetune_size=sizes,
)


@given(additions, st.lists(st.tuples(features, sizes, st.booleans()), unique_by=lambda t: t[0]), sizes)
def test_no_size_exceeds_the_pictures(
    additions: Additions, passes: list[tuple[str, int | None, bool]], asked: int | None
) -> None:
    """Whatever base and flags say: sizes fit, compression is explicit, the flag's level stands, and it all lints."""
    lines = [
        f"{PASS}({name}, policy={'enabled' if on else 'disabled'}{f', dataset_size={n}' if n else ''})"
        for name, n, on in passes
    ]
    lines += [f"model_optimization_config(calibration, calibset_size={asked})"] if asked else []
    script = compose(base("model_optimization_flavor(optimization_level=0)", *lines), additions)

    assert level(script) == (0 if additions.level is None else additions.level) and compression(script) == 0
    limit = additions.calibset_size if additions.finetune_size is None else additions.finetune_size
    for command in script.commands:
        size, statistics = command.keyword("dataset_size"), command.keyword("calibset_size")
        assert size is None or limit is None or int(size) <= limit
        assert statistics is None or additions.calibset_size is None or int(statistics) <= additions.calibset_size
    assert not [w for w in lint(script, "hailo8") if "level 1" not in w]
    assert compose(script, additions) == script or additions.sigmoid_layers or additions.wide_layers


def test_what_a_script_makes_explicit() -> None:
    """Level, compression and the finetune line; None where the compiler would choose."""
    script = parse_script(f"{FLAVOR}\n{PASS}(finetune, policy=disabled)\n")
    found = finetune(script)

    assert (level(script), compression(script)) == (0, 0)
    assert found is not None and not found.enabled
    empty = parse_script("model_optimization_flavor(batch_size=2)")
    assert (level(empty), compression(empty), finetune(empty)) == (None, None, None)


@pytest.fixture
def road(tmp_path: Path) -> list[object]:
    """Arguments that emulate a toy YOLO of 64x64 with ten pictures, without the script."""
    onnx = save(tiny_yolo(), tmp_path / "tiny.onnx")
    np.save(tmp_path / "set.npy", np.stack([drawn((64, 64), i) for i in range(10)]))
    return [onnx, "--emulate", "--calib", tmp_path / "set.npy", "--output", "m", "--json", "--run-dir", "run"]


def test_what_is_stored_fits_the_pictures(
    run_script: Callable[..., Finished], road: list[object], tmp_path: Path
) -> None:
    """Ten pictures and a script for 4000: the stored script asks for ten, and the result says so."""
    tune = f"{PASS}(finetune, policy=enabled, dataset_size=4000)"
    (tmp_path / "my.mscript").write_text(base("model_optimization_flavor(optimization_level=2)", tune).text)
    done = run_script("compile_to_hef.py", *road, "--script", tmp_path / "my.mscript")

    assert done.code == 0, done.err
    stored = parse_script((tmp_path / "cwd" / "run" / "script.mscript").read_text())
    assert stored.text == done.json["script"]
    assert [c.keyword("dataset_size") for c in stored.named(PASS)] == ["10"]
    assert [c.keyword("calibset_size") for c in stored.named("model_optimization_config")] == ["10"]
    assert (level(stored), compression(stored)) == (2, 0)
    for words in ("line 3: dataset_size=4000 becomes 10", "line 2: no compression_level", "line 3: post_quantization"):
        assert len([w for w in done.json["warnings"] if words in w]) == 1, words


def test_a_contradiction_ends_the_check(
    run_script: Callable[..., Finished], road: list[object], tmp_path: Path
) -> None:
    """--logits with a script that bakes the sigmoid in: exit 4 before anything is calibrated."""
    (tmp_path / "my.mscript").write_text(base(FLAVOR, "change_output_activation(conv42, sigmoid)").text)
    done = run_script("compile_to_hef.py", *road, "--script", tmp_path / "my.mscript", "--logits")

    assert (done.code, len(done.errors)) == (4, 1) and "my.mscript line 3: " in done.errors[0]
    assert "--logits promises raw class tensors; remove the line" in done.errors[0]
    assert "[2/4]" not in done.err


def test_several_lines_of_one_command_stay_several() -> None:
    """The compiler merges them: each change goes to the line that states it, and new keywords into the last."""
    composed = compose(
        base(
            "model_optimization_config(calibration, calibset_size=512)",
            "model_optimization_config(calibration, use_saitama=True)",
            "post_quantization_optimization(finetune, policy=enabled, dataset_size=4000)",
            "post_quantization_optimization(finetune, epochs=4)", FLAVOR,
        ),
        Additions(calibset_size=64, calibration_batch=4),
    )  # fmt: skip

    lines = [line for line in composed.text.splitlines() if line and not line.startswith("#")]
    assert "model_optimization_config(calibration, calibset_size=64)" in lines
    assert "model_optimization_config(calibration, use_saitama=True, batch_size=4)" in lines
    assert "post_quantization_optimization(finetune, policy=enabled, dataset_size=64)" in lines
    assert "post_quantization_optimization(finetune, epochs=4)" in lines
    assert [n for n in composed.notes if "512" in n] and [n for n in composed.notes if "4000" in n]
