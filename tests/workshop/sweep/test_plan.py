"""The sweep file: what it means, and every way in which it is refused in one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hefkit.errors import ModelError, UsageError
from hefkit.workshop.compile.run import Options
from hefkit.workshop.script.read import parse_script
from hefkit.workshop.sweep.plan import KEYS, MAX_CANDIDATES, check_plan, read_plan
from hefkit.workshop.sweep.settings import Candidate, Places, Settings, arguments
from tests.conftest import ROOT

SCRIPT = parse_script((ROOT / "hailo_optimization.mscript").read_text(), "base.mscript")


def plan(folder: Path, text: str) -> list[Candidate]:
    """The candidates of a file with this text."""
    path = folder / "sweep.yaml"
    path.write_text(text)
    return read_plan(path)


def options(**values: object) -> Options:
    """Those of a command line."""
    return Options(
        onnx=Path("a.onnx"), name=Path("best"), calib=Path("calib"), script=SCRIPT, run_dir=Path("run"), **values
    )  # type: ignore[arg-type]


def test_axes_are_multiplied_and_names_tell_what_is_set(tmp_path: Path) -> None:
    """Two levels by two precisions, in the order of the file; then the listed ones under their names."""
    found = plan(
        tmp_path,
        "optimization-level: [0, 2]\n"
        "precision-16: [none, outputs]\n"
        "candidates:\n"
        "  - {name: mine, quantization-groups: 4, logits: true}\n"
        "  - {num-samples: 32, hw-arch: hailo8l}\n",
    )

    assert [c.name for c in found] == [
        "level0-8bit", "level0-out16", "level2-8bit", "level2-out16", "mine", "n32-hailo8l"
    ]  # fmt: skip
    assert found[3].settings == Settings(level=2, precision_16=("outputs",))
    assert found[4].settings == Settings(groups=4, logits=True)


def test_the_example_file() -> None:
    """examples/sweep.yaml, which docs/sweep.md runs with --emulate: two candidates that an emulation can make."""
    found = read_plan(ROOT / "examples" / "sweep.yaml")

    check_plan(found, emulate=True, labelled=False)
    assert [c.name for c in found] == ["level0-8bit", "level0-out16"]


def test_the_example_of_the_document(tmp_path: Path) -> None:
    """docs/sweep.md: six of the axes, three listed; every key of its table is a key, and no key is missing there."""
    text = (ROOT / "docs" / "sweep.md").read_text(encoding="utf-8")
    [example] = re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| (`[^|]*`) \|", text, re.MULTILINE)

    found = plan(tmp_path, example)

    assert len(found) == 9 and [c.name for c in found[6:8]] == ["groups", "small-steps"]
    assert found[8].settings == Settings(calib=Path("other_set"), num_samples=256)
    assert set(re.findall(r"`([\w-]+)`", " ".join(rows))) == {*KEYS, "name"}


def test_equal_values_are_one_candidate(tmp_path: Path) -> None:
    """A value that stands twice makes no second candidate."""
    assert len(plan(tmp_path, "optimization-level: [0, 0, 1]\n")) == 2


REFUSED = {
    "an unknown key": ("optimisation-level: [0]\n", r"did you mean optimization-level\?"),
    "a wrong level": ("optimization-level: [7]\n", "'7'; expected a level from 0 to 4"),
    "not a number": ("num-samples: [many]\n", "'many'; expected a number of pictures"),
    "a wrong truth": ("logits: [maybe]\n", "expected true or false"),
    "an unknown chip": ("hw-arch: [hailo9]\n", "expected one of hailo8"),
    "a list for a value": ("optimization-level: [[0]]\n", "a list; expected a level"),
    "no candidate": ("candidates: []\n", f"expected 1 to {MAX_CANDIDATES}"),
    "too many": (
        f"num-samples: [{', '.join(map(str, range(1, 11)))}]\nquantization-groups: [1, 2, 3, 4]\nlogits: [yes, no]\n",
        "it has 80 candidates",
    ),
    "two of one name": ("candidates: [{name: a, logits: yes}, {name: A, logits: no}]\n", "two candidates are called"),
    "a name that is a path": ("candidates: [{name: ../a}]\n", "cannot be the name of a candidate"),
    "a name of our own": ("candidates: [{name: parsed-hailo8}]\n", "cannot be the name of a candidate"),
    "not a mapping": ("- a\n- b\n", "it has no keys"),
    "not YAML": ("a: [\n", "not valid YAML"),
    "an entry that is a text": ("candidates: [a]\n", "not a mapping"),
}


@pytest.mark.parametrize("text, words", REFUSED.values(), ids=REFUSED.keys())
def test_wrong_files_are_refused(tmp_path: Path, text: str, words: str) -> None:
    """Exit 2, with what was expected."""
    with pytest.raises(UsageError, match=words):
        plan(tmp_path, text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """It names the other possibility as well."""
    with pytest.raises(UsageError, match=r"cannot read the sweep file .*the word auto"):
        read_plan(tmp_path / "gone.yaml")


NOT_EMULATED = {
    "level 2": (Settings(level=2), "forecasts levels 0 and 1 only"),
    "fine-tuning": (Settings(finetune="epochs=4"), "cannot forecast"),
    "a chip": (Settings(hw_arch="hailo8l"), "the same for every chip"),
}


@pytest.mark.parametrize("settings, words", NOT_EMULATED.values(), ids=NOT_EMULATED.keys())
def test_an_emulation_cannot_tell_these_apart(settings: Settings, words: str) -> None:
    """Refused with --emulate; with the SDK they are candidates."""
    candidates = [Candidate("a", settings)]
    check_plan(candidates, emulate=False, labelled=False)

    with pytest.raises(UsageError, match=words):
        check_plan(candidates, emulate=True, labelled=False)


def test_sets_are_compared_by_labels_only() -> None:
    """Agreement is measured on pictures of the set: two sizes need --data."""
    candidates = [Candidate("a", Settings(num_samples=16)), Candidate("b", Settings(num_samples=64))]
    check_plan(candidates, emulate=True, labelled=True)

    with pytest.raises(UsageError, match="expected --data"):
        check_plan(candidates, emulate=True, labelled=False)


def test_settings_win_over_the_command_line() -> None:
    """8 bit in the file is 8 bit, whatever --precision-16 says; what the file leaves open comes from the flags."""
    base = options(precision_16=("outputs",), level=1, logits=True)

    changed = Settings(precision_16=(), level=0, logits=False, groups=4, finetune="epochs=2").applied(base)

    assert (changed.precision_16, changed.level, changed.logits) == ((), 0, False)
    assert changed.script.weight_groups()[0] == {"conv*": 4, "dw*": 4}
    assert "post_quantization_optimization(finetune, policy=enabled, epochs=2)" in changed.script.text
    assert Settings().applied(base) == base


def test_a_line_that_is_not_a_statement_is_refused() -> None:
    """Exit 4, before anything is compiled."""
    with pytest.raises(ModelError, match="with the lines of the sweep"):
        Settings(script_lines=("this is not a command",)).applied(options())


def test_the_command_line_gives_the_same_options_back() -> None:
    """What `arguments` writes, the script's own parser reads as the same options."""
    from compile_to_hef import parse_args

    settings = Settings(level=1, precision_16=("outputs", "conv1"), logits=True, num_samples=9)
    wanted = settings.applied(options(emulate=True, imgsz=(64, 96), gate=0.5))
    places = Places("a.onnx", "calib", "s.mscript", "out/a", "out/run", data="d.yaml")

    args = parse_args(arguments(wanted, places))

    assert (args.optimization_level, args.precision_16, args.logits) == (1, ["outputs", "conv1"], True)
    assert (args.num_samples, args.imgsz, args.gate, args.emulate) == (9, (64, 96), 0.5, True)
    assert (str(args.output), str(args.run_dir), args.data, args.hw_arch) == ("out/a", "out/run", "d.yaml", "hailo8")
