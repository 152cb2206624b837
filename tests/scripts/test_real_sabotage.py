"""Seven ways to ruin a real network: each is seen, named, and stopped by a gate; the healthy emulation passes."""

from __future__ import annotations

from pathlib import Path

import pytest

from hefkit.measure.labels import labelled_pictures
from hefkit.measure.summary import Gates, summary
from hefkit.measure.validate import Validation, validate
from hefkit.measure.verdict import judge
from tests.helpers.proofs import prove_once
from tests.helpers.sabotage import Bench

# one process for the whole file: the models are measured once
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("sabotage")]
GATES = Gates(kept=0.95, recall=0.95)


@pytest.fixture(scope="module")
def measured(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Validation:
    """All models on 18 labelled pictures, in one run."""
    with pytest.MonkeyPatch.context() as patch:
        prove_once(patch)
        bench = Bench(shared, tmp_path_factory.mktemp("bench"))
        models = bench.models()
    items, names = labelled_pictures(str(bench.data), "val")
    ours = [Path(name) for name in models if name != "float"]
    return validate(ours, Path("float"), items[::2], lambda path: bench.open(models, path), labelled=True, names=names)


def figures(measured: Validation, name: str) -> dict[str, object]:
    """The object of one model."""
    return next(f for f in measured.figures if f["model"] == name)


@pytest.mark.parametrize(
    "name, cause",
    [
        ("colours", "wrong colour order: with red and blue swapped the float model agrees on"),
        ("0..1", "calibrated on 0..1: the ranges of the box tensors are those of nearly black pictures"),
        ("stretched", "wrong fit: the model is used on stretched pictures (its spec says stretch)"),
        ("four", "too few calibration pictures: 4 pictures"),
        ("clipped", "clipped box branch: the box tensors of stride 8"),
        ("order", "wrong class order: RBC is called WBC, WBC is called Platelets, Platelets is called RBC"),
        ("level 1", "optimization level 1: boxes are worse than scores"),
    ],
)
def test_a_sabotage_is_seen_named_and_stopped(measured: Validation, name: str, cause: str) -> None:
    """The level is not good, exactly one cause is named, and it is the right one; a gate refuses the model."""
    assert judge(figures(measured, name)).level in ("look", "bad")
    named = [c.removeprefix(f"{name}: ") for c in measured.causes if c.startswith(f"{name}: ")]
    assert len(named) == 1 and named[0].startswith(cause), named
    assert [text for text in GATES.refusals(measured) if f": {name} " in text]


def test_the_healthy_model_passes(measured: Validation) -> None:
    """Good, without a cause, through the same gates; its interval holds its share."""
    ours = figures(measured, "healthy")

    assert judge(ours).level == "good"
    assert not [c for c in measured.causes if c.startswith("healthy: ")]
    assert not [text for text in GATES.refusals(measured) if ": healthy " in text]
    kept = ours["kept"]
    assert isinstance(kept, dict) and kept["interval"][0] <= kept["map50"] <= kept["interval"][1]


def test_healthy_classes_hide_ruined_boxes(measured: Validation) -> None:
    """The box branch alone is clipped: nearly all boxes are found again, and their width says what is wrong."""
    agreement = figures(measured, "clipped")["agreement"]

    assert isinstance(agreement, dict)
    assert agreement["recall"] > 0.9 and abs(agreement["score_shift"]) < 0.02
    assert agreement["width_ratio"]["median"] > 1.05 and agreement["width_ratio"]["p95"] > 1.2


def test_the_worst_model_is_told(measured: Validation) -> None:
    """One verdict for all; the table has a row for each, the float model first."""
    assert measured.verdict.level == "bad"
    rows = summary(measured)
    assert rows[1].startswith("float") and len(rows) == 1 + 1 + 8 + 1
