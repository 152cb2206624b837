"""Models on a small labelled dataset: figures by hand, the contract's keys, verdicts, causes, gates."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hefkit.errors import DataError, ModelError
from hefkit.measure.causes import find_causes
from hefkit.measure.evidence import Evidence, other_names
from hefkit.measure.labels import labelled_pictures
from hefkit.measure.summary import Gates, summary
from hefkit.measure.validate import Validation, validate
from hefkit.measure.verdict import judge, worst
from tests.helpers.boxes import detections
from tests.helpers.fake_engine import FakeEngine, engine_that_finds
from tests.helpers.heads import make_head, make_spec
from tests.helpers.labelled import BOX, dataset, float_engine, int8_engine, opened

MODEL_KEYS = {
    "model", "engine", "images", "map50", "map50_95", "map50_95_by_size", "per_class", "best_f1", "kept", "agreement"
}  # fmt: skip
AGREEMENT_KEYS = {
    "images", "boxes_reference", "boxes", "matched", "recall", "precision", "mean_iou", "score_shift", "width_ratio",
    "height_ratio",
}  # fmt: skip


def measured(
    data: Path, labelled: bool = True, reference: str | None = "best.onnx", **engines: FakeEngine
) -> Validation:
    """The INT8 engines (by name) beside the float one."""
    items, names = labelled_pictures(str(data), "val")
    models = {f"{name}.emulated.onnx": engine for name, engine in engines.items()}
    chosen = {**models, "best.onnx": float_engine()}
    return validate(
        [Path(name) for name in models] or [Path("best.onnx")], reference and Path(reference), items,
        lambda path: opened(chosen, path), labelled=labelled, names=names,
    )  # fmt: skip


def test_the_contract_s_keys(tmp_path: Path) -> None:
    """Complete, with the same figures where both find the same; the reference has no share of itself."""
    result = measured(dataset(tmp_path), int8=int8_engine()).to_json()

    assert set(result) == {"models", "reference", "verdict", "report", "warnings"}
    [model] = result["models"]
    assert set(model) == MODEL_KEYS == set(result["reference"])
    assert set(model["agreement"]) == AGREEMENT_KEYS and set(model["kept"]) == {"map50", "map50_95", "interval"}
    assert (model["engine"], model["images"], model["map50"]) == ("emulated", 4, pytest.approx(1.0))
    one = pytest.approx(1.0)  # a box of exactly 32 x 32 is small and medium
    assert model["map50_95_by_size"] == {"small": one, "medium": one, "large": None}
    assert [row["labels"] for row in model["per_class"]] == [0, 4, 0]
    assert model["per_class"][1] == {
        "class_id": 1, "class": "drone", "labels": 4, "ap50": pytest.approx(1.0), "ap50_95": pytest.approx(1.0)
    }  # fmt: skip
    assert model["kept"] == {"map50": pytest.approx(1.0), "map50_95": pytest.approx(1.0), "interval": [1.0, 1.0]}
    assert model["agreement"]["score_shift"] == pytest.approx(-0.1, abs=1e-4)
    assert model["best_f1"]["f1"] == pytest.approx(1.0) and model["best_f1"]["conf"] <= 0.8
    assert result["reference"]["kept"] is None and result["reference"]["agreement"] is None
    assert result["verdict"]["level"] == "good" and result["verdict"]["causes"] == []


def test_without_labels(tmp_path: Path) -> None:
    """Agreement only: everything about labels is null, no key is missing, few boxes are too few for a verdict."""
    result = measured(dataset(tmp_path), labelled=False, int8=int8_engine()).to_json()

    [model] = result["models"]
    assert set(model) == MODEL_KEYS and model["kept"] is None and model["map50"] is None and model["best_f1"] is None
    assert model["agreement"]["recall"] == 1.0
    assert result["verdict"]["level"] == "unknown" and "expected at least 20" in result["verdict"]["text"]


def test_without_a_reference(tmp_path: Path) -> None:
    """As on the Pi: average precision is known, the share is not."""
    result = measured(dataset(tmp_path), reference=None, int8=int8_engine()).to_json()

    assert result["reference"] is None and result["models"][0]["kept"] is None
    assert result["verdict"]["level"] == "unknown" and "--reference ONNX" in result["verdict"]["text"]


def test_a_float_model_among_the_others_is_the_reference(tmp_path: Path) -> None:
    """Two models, one of them float: it is measured once and compared with."""
    items, names = labelled_pictures(str(dataset(tmp_path)), "val")
    engines = {"m.emulated.onnx": int8_engine(), "best.onnx": float_engine()}

    result = validate(
        [Path("m.emulated.onnx"), Path("best.onnx")], None, items, lambda p: opened(engines, p),
        labelled=True, names=names,
    )  # fmt: skip

    assert [f["model"] for f in result.figures] == ["m.emulated.onnx", "best.onnx"]
    assert result.figures[0]["kept"]["map50"] == pytest.approx(1.0) and result.figures[1]["kept"] is None
    assert len([line for line in summary(result) if line.startswith(("m.em", "best"))]) == 2


def test_a_float_model_that_runs_second_is_the_reference(tmp_path: Path) -> None:
    """An emulation under another name runs before it, and is compared with it all the same."""
    items, names = labelled_pictures(str(dataset(tmp_path)), "val")
    engines = {"int8.onnx": int8_engine(), "best.onnx": float_engine()}

    result = validate(list(map(Path, engines)), None, items, lambda p: opened(engines, p), labelled=True, names=names)

    assert [f["kept"] and f["kept"]["map50"] for f in result.figures] == [pytest.approx(1.0), None]
    assert result.verdict.level == "good"


def test_unreadable_pictures_are_named_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Three of four count; with none it is an error of the data."""
    data = dataset(tmp_path)
    (tmp_path / "images" / "val" / "2.png").write_bytes(b"no picture")
    with caplog.at_level(logging.WARNING, "hefkit"):
        result = measured(data, int8=int8_engine())

    assert result.figures[0]["images"] == 3 and "2.png left out" in caplog.text
    for path in (tmp_path / "images" / "val").iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(DataError, match="none of the 4 pictures can be read"):
        measured(data, int8=int8_engine())


def test_odd_labels_are_warnings(tmp_path: Path) -> None:
    """Counted, named and in the JSON; pictures without any label are refused."""
    data = dataset(tmp_path)
    (tmp_path / "labels" / "val" / "0.txt").write_text("9 0.5 0.5 0.1 0.1\n1 0.4375 0.4375 0.5 0.5\n")
    (tmp_path / "labels" / "val" / "1.txt").unlink()

    warnings = measured(data, int8=int8_engine()).warnings

    assert len(warnings) == 2
    assert any(w.startswith("wrong lines in label files, left out: 1") and "class 9" in w for w in warnings)
    assert any(w.startswith("pictures without a label file") and "1.txt" in w for w in warnings)
    for path in (tmp_path / "labels" / "val").iterdir():
        path.write_text("")
    with pytest.raises(DataError, match="no labels at all"):
        measured(data, int8=int8_engine())


def test_other_class_names_are_a_warning(tmp_path: Path) -> None:
    """The labels' names in another order than the model's; a model without names takes those of the labels."""
    engine = int8_engine()
    engine.spec = make_spec(engine.spec.head, (64, 64), "emulated", names={0: "drone", 1: "car", 2: "bird"})

    result = measured(dataset(tmp_path), int8=engine)

    assert "class 0 is car in the labels and drone in int8.emulated.onnx and 1 more" in result.warnings[0]
    assert result.reference_figures is not None
    assert [row["class"] for row in result.reference_figures["per_class"]] == ["car", "drone", "bird"]


def test_models_of_other_classes_are_refused(tmp_path: Path) -> None:
    """Three classes and five: not one training."""
    with pytest.raises(ModelError, match="has 5 classes, the model before it 3"):
        measured(dataset(tmp_path), int8=engine_that_finds((1, 0.9, BOX), classes=5, kind="emulated"))


def test_a_reference_must_be_float(tmp_path: Path) -> None:
    """An emulation as reference would compare INT8 with INT8."""
    items, _ = labelled_pictures(str(dataset(tmp_path)), "val")
    engines = {"a.emulated.onnx": int8_engine(), "b.emulated.onnx": int8_engine()}

    with pytest.raises(ModelError, match=r"--reference b.emulated.onnx is emulated; expected the float ONNX"):
        validate([Path("a.emulated.onnx")], Path("b.emulated.onnx"), items, lambda p: opened(engines, p), labelled=True)


@pytest.mark.parametrize("split, words", [("test", "has no split test; it has val"), ("train", "has no split train")])
def test_a_split_that_is_not_there(tmp_path: Path, split: str, words: str) -> None:
    """The message names those that are."""
    with pytest.raises(DataError, match=words):
        labelled_pictures(str(dataset(tmp_path)), split)


# --- gates ---------------------------------------------------------------------------------------------------------


def test_gates(tmp_path: Path) -> None:
    """Each gate refuses below its limit only, and what was not measured."""
    good = measured(dataset(tmp_path), int8=int8_engine())
    bad = measured(dataset(tmp_path), int8=int8_engine(box=(20, 20, 30, 30)))
    blind = measured(dataset(tmp_path), labelled=False, int8=int8_engine())

    assert not Gates(0.9, 0.9, 0.9).refusals(good)
    texts = Gates(0.9, 0.8, 0.7).refusals(bad)
    assert [text.split()[0] for text in texts] == ["--gate-map50", "--gate-kept", "--gate-recall"]
    assert "int8.emulated.onnx has an mAP50 of 0.0000" in texts[0]
    assert Gates(kept=0.5).refusals(blind) == [
        "--gate-kept 0.5: int8.emulated.onnx keeps an unknown share of the float model's mAP50"
    ]


# --- verdicts ------------------------------------------------------------------------------------------------------


def figures(share: float, low: float, high: float, fine: float = 1.0, **agreement: Any) -> dict[str, Any]:
    """An object of the contract with what the verdict reads."""
    ratio = {"median": agreement.pop("width", 1.0)}
    found = {"boxes_reference": 100, "recall": 0.97, "precision": 0.97, "images": 36, **agreement}
    return {
        "map50": 0.8, "images": 36, "kept": {"map50": share, "map50_95": fine, "interval": [low, high]},
        "agreement": {**found, "width_ratio": ratio, "height_ratio": {"median": 1.0}},
    }  # fmt: skip


@pytest.mark.parametrize(
    "given, level, words",
    [
        (figures(0.99, 0.97, 1.01), "good", "with 36 pictures a loss below 2.0 points cannot be seen"),
        (figures(0.96, 0.88, 1.02), "unknown", "too few; take more"),
        (figures(0.92, 0.91, 0.94), "look", "a good conversion keeps 95 %"),
        (figures(0.97, 0.95, 0.99, fine=0.85), "look", "only 85.0 % of mAP50-95: its boxes are coarser"),
        (figures(0.98, 0.96, 1.0, width=0.8), "look", "its boxes have 0.80 times the width"),
        (figures(0.98, 0.96, 1.0, recall=0.6), "look", "only 60.0 % of the float model's boxes are found"),
        (figures(0.96, 0.88, 1.02, recall=0.4), "look", "only 40.0 %"),
        (figures(0.60, 0.50, 0.70), "bad", "keeps 60.0 % of the float model's mAP50"),
        (figures(0.85, 0.70, 0.97), "look", "85.0 %"),
    ],
)
def test_verdicts_by_labels(given: dict[str, Any], level: str, words: str) -> None:
    """The limits of the module's docstring."""
    verdict = judge(given)

    assert verdict.level == level and words in verdict.text


@pytest.mark.parametrize(
    "given, level", [({}, "good"), ({"recall": 0.6}, "bad"), ({"precision": 0.8}, "look"), ({"width": 1.2}, "look"),
                     ({"boxes_reference": 12}, "unknown")],
)  # fmt: skip
def test_verdicts_by_agreement(given: dict[str, Any], level: str) -> None:
    """Without labels."""
    assert judge({**figures(1, 1, 1, **given), "kept": None, "map50": None}).level == level


def test_the_worst_verdict_is_told() -> None:
    """Of good, unknown and bad: bad."""
    three = [judge(figures(0.99, 0.97, 1.0)), judge(figures(0.96, 0.88, 1.02)), judge(figures(0.5, 0.4, 0.6))]

    assert worst(three).level == "bad" and worst(three[:2]).level == "unknown"


# --- causes --------------------------------------------------------------------------------------------------------


def outputs(box: float, cls: float) -> list[dict[str, Any]]:
    """Reach of the box and class tensors of one stride."""
    return [{"role": r, "stride": 8, "snr_db": 20.0, "reach": v} for r, v in (("box", box), ("cls", cls))]


@pytest.mark.parametrize(
    "evidence, spec, cause",
    [
        (Evidence(recall=0.3, experiments={"swapped": 0.95, "other fit": 0.2}), {}, "wrong colour order"),
        (Evidence(recall=0.9, experiments={"swapped": 0.2, "other fit": 0.99}), {}, "wrong fit"),
        (Evidence(recall=0.1, outputs=outputs(0.4, 0.3), dark=1.0), {}, "calibrated on 0..1"),
        (Evidence(recall=0.9, outputs=outputs(0.5, 0.98), dark=0.4), {}, "clipped box branch"),
        (Evidence(recall=0.5, outputs=outputs(0.5, 0.5), dark=0.5), {}, "ranges too narrow"),
        (Evidence(recall=0.5, outputs=outputs(0.5, 0.5)), {"calibration": {"count": 4}}, "too few calibration"),
        (Evidence(recall=0.9, width_ratio=[0.8, 1.0, 1.2], score_drop=0.0),
         {"script": "model_optimization_flavor(optimization_level=1)"}, "optimization level 1"),
        (Evidence(recall=0.9, outputs=outputs(0.98, 0.98)), {"script": "optimization_level=0"}, "quantisation noise"),
    ],
)  # fmt: skip
def test_causes_by_signature(evidence: Evidence, spec: dict[str, Any], cause: str) -> None:
    """Each signature alone names its cause, and nothing else."""
    exact = make_spec(make_head((64, 64), (8,), 3, 1, "float32"), kind="float")
    found = find_causes(evidence, {}, exact, make_spec(make_head((64, 64), (8,), 3, 1), **spec))

    assert len(found) == 1 and found[0].startswith(cause)


def test_an_experiment_that_hardly_helps_is_not_believed() -> None:
    """Better than nothing, and still not the same network: 0.29 of the boxes prove no swapped colours."""
    evidence = Evidence(recall=0.0, experiments={"swapped": 0.29, "other fit": 0.1})
    spec = make_spec(make_head((64, 64), (8,), 3, 1))

    assert find_causes(evidence, {}, spec, spec) == []
    assert find_causes(evidence, {0: 1}, spec, spec)[0].startswith("wrong class order: class0 is called class1")


def test_other_names_need_a_majority() -> None:
    """Six boxes called 1 instead of 0 are another name; one of six is a mistake."""
    here = (0.0, 0.0, 40.0, 40.0)
    turned = [(detections((*here, 0, 0.9)), detections((*here, 1, 0.9)))] * 6
    once = [(detections((*here, 0, 0.9)), detections((*here, int(i == 0), 0.9))) for i in range(6)]

    assert (other_names(turned), other_names(once)) == ({0: 1}, {})


def test_a_cause_is_looked_for_only_where_something_is_wrong(tmp_path: Path) -> None:
    """For a bad model the float model runs again with mistakes; the noise of the outputs is known of both."""
    result = measured(dataset(tmp_path), good=int8_engine(), bad=int8_engine(box=(20, 20, 36, 36)))

    assert [judge(f).level for f in result.figures] == ["good", "bad"]
    good, bad = result.evidence[Path("good.emulated.onnx")], result.evidence[Path("bad.emulated.onnx")]
    assert set(bad.experiments) == {"swapped", "other fit"} and (good.experiments, good.dark) == ({}, None)
    assert [o["stride"] for o in good.outputs] == [o["stride"] for o in bad.outputs] != []


def test_a_box_branch_that_is_ruined_shows_in_the_evidence(tmp_path: Path) -> None:
    """Boxes of half the width do not overlap enough to be matched; at the same anchors the ratio is seen."""
    result = measured(dataset(tmp_path), int8=int8_engine(box=(20, 20, 36, 36)))
    evidence = result.evidence[Path("int8.emulated.onnx")]

    assert result.figures[0]["agreement"]["matched"] == 0
    np.testing.assert_allclose(evidence.width_ratio, 0.5, atol=1e-3)
    np.testing.assert_allclose(evidence.score_shift, -0.1, atol=1e-3)
