"""Models on labelled or unlabelled pictures: accuracy, agreement with the float model, verdict, causes, gates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hefkit.detect.engine import Engine
from hefkit.errors import DataError, ModelError
from hefkit.measure.accuracy import Agreement
from hefkit.measure.bootstrap import paired_interval
from hefkit.measure.causes import find_causes
from hefkit.measure.evidence import CONF, Evidence, gather, other_names
from hefkit.measure.labels import LabelFiles
from hefkit.measure.passes import LOW_CONF, ModelRun, run_model
from hefkit.measure.verdict import Verdict, judge, worst
from hefkit.pictures.sources import Item
from hefkit.results.progress import progress
from hefkit.text import log, one_line

OpenModel = Callable[[Path], AbstractContextManager[Engine]]


@dataclass
class Validation:
    """Everything that was measured; `to_json` is what --json prints."""

    items: Sequence[Item]
    labelled: bool
    names: Mapping[int, str] | None = None  # of the labels' classes
    runs: list[ModelRun] = field(default_factory=list)
    reference: ModelRun | None = None
    agreements: dict[Path, Agreement] = field(default_factory=dict)
    evidence: dict[Path, Evidence] = field(default_factory=dict)
    figures: list[dict[str, Any]] = field(default_factory=list)  # of `runs`
    reference_figures: dict[str, Any] | None = None
    verdict: Verdict = field(default_factory=lambda: Verdict("unknown", ""))
    causes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    report: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """The contract's object."""
        return {
            "models": self.figures,
            "reference": self.reference_figures,
            "verdict": {**self.verdict._asdict(), "causes": self.causes},
            "report": None if self.report is None else str(self.report),
            "warnings": self.warnings,
        }

    def warn(self, text: str) -> None:
        """Log a warning and put it into the result."""
        self.warnings.append(text)
        log.warning("%s", text)

    def class_names(self, run: ModelRun) -> dict[int, str]:
        """The model's class names; a class without one has the name of the labels."""
        given = self.names or {}
        return {i: given.get(i, name) if name == f"class{i}" else name for i, name in run.spec.names.items()}

    @property
    def judged(self) -> list[tuple[ModelRun, dict[str, Any]]]:
        """The models that the verdict and the gates are about: all but the reference, or only the reference."""
        pairs = list(zip(self.runs, self.figures, strict=True))
        return [pair for pair in pairs if pair[0] is not self.reference] or pairs

    @property
    def decisive(self) -> tuple[ModelRun, dict[str, Any]]:
        """The model whose verdict is the verdict of the validation."""
        return next((pair for pair in self.judged if judge(pair[1]).level == self.verdict.level), self.judged[0])


def validate(
    models: Sequence[Path],
    reference: Path | None,
    items: Sequence[Item],
    open_model: OpenModel,
    *,
    labelled: bool,
    names: Mapping[int, str] | None = None,
) -> Validation:
    """Run every model once over the pictures, and compare it with the float model.

    Args:
        models: files to measure.
        reference: the float model; None: the first float model of `models`, if there is another kind as well.
        items: the pictures.
        open_model: a file -> its engine.
        labelled: measure average precision against the label files of the pictures.
        names: of the classes of the labels; a model with other names gets a warning.
    """
    result = Validation(items, labelled, names)
    with ExitStack() as stack:
        engines, figures = {}, {}
        exact = None
        if reference is not None:
            engines[reference] = stack.enter_context(open_model(reference))
            exact = engines[reference]
            if exact.kind != "float":
                raise ModelError(f"--reference {reference} is {exact.kind}; expected the float ONNX that was exported")
        labels = None
        # the float model first, because it stays open for the evidence
        later = sorted(models, key=lambda model: model.suffix == ".hef" or ".emulated" in model.suffixes)
        for model in dict.fromkeys([*([] if reference is None else [reference]), *later]):
            with ExitStack() as own:
                engine = engines.get(model) or own.enter_context(open_model(model))
                if labelled:
                    labels = labels or LabelFiles(engine.spec.head.num_classes)
                run = _run(result, model, engine, labels)
                if labels is not None and not labels.boxes:
                    raise _no_labels(result, labels)
                if model == reference or (exact is None and engine.kind == "float" and len(models) > 1):
                    result.reference, exact = run, engine
                    figures[model] = result.reference_figures = _figures(run, result)
                    stack.enter_context(own.pop_all())  # stays open for the evidence
                elif exact is not None and result.reference is not None:
                    figures[model] = _figures(run, result)
                    good = judge(figures[model]).level == "good"
                    result.evidence[model] = gather(exact, engine, items, run.found, good=good)
                if model in models:
                    result.runs.append(run)
    result.runs.sort(key=lambda run: list(models).index(run.model))
    result.figures = [figures.get(run.model) or _figures(run, result) for run in result.runs]
    _check_names(result, names)
    for note in () if labels is None else labels.notes():
        result.warn(note)
    _assess(result)
    return result


def _run(result: Validation, model: Path, engine: Engine, labels: LabelFiles | None) -> ModelRun:
    spec = engine.spec
    before = result.reference.spec if result.reference else result.runs[0].spec if result.runs else None
    if before is not None and before.head.num_classes != spec.head.num_classes:
        raise ModelError(
            f"{model} has {spec.head.num_classes} classes, the model before it {before.head.num_classes}; "
            "expected models of one training"
        )
    if labels is not None and spec.nms is not None and not spec.nms.adjustable:
        lowest = spec.nms.score_threshold
        if lowest is not None and lowest > LOW_CONF:
            result.warn(
                f"{one_line(model)} drops scores below {lowest:g} on the chip, so its average precision is lower "
                "than that of a HEF with raw outputs"
            )
    with progress(len(result.items), "picture") as bar:
        return run_model(model, engine, result.items, labels, bar)


def _check_names(result: Validation, names: Mapping[int, str] | None) -> None:
    """Warn where a class has another name in the data.yaml than in a model: their orders may differ."""
    if names is None:
        return
    for run in result.runs:
        other = [
            f"class {i} is {one_line(names[i], 40)} in the labels and {one_line(name, 40)} in {one_line(run.model)}"
            for i, name in run.spec.names.items()
            if i in names and name not in (names[i], f"class{i}")
        ]
        if other:
            more = f" and {len(other) - 1} more" if len(other) > 1 else ""
            result.warn(f"{other[0]}{more}; expected the same order of classes in both")


def _no_labels(result: Validation, labels: LabelFiles) -> DataError:
    for note in labels.notes():
        result.warn(note)
    return DataError(
        "the pictures have no labels at all; expected a label file for each, in labels/ beside images/; "
        "without labels use --source and --reference"
    )


def _assess(result: Validation) -> None:
    """Fill verdict and causes."""
    exact = result.reference
    verdicts = [(run, figures, judge(figures)) for run, figures in result.judged]
    result.verdict = worst([verdict for _, _, verdict in verdicts])
    for run, _, verdict in verdicts:
        several = f"{one_line(run.model.name)}: " if len(verdicts) > 1 else ""
        if verdict is result.verdict:
            result.verdict = Verdict(verdict.level, several + verdict.text)
        if verdict.level == "good" or (verdict.level == "unknown" and exact is None):
            continue
        called = other_names(_pairs(run, exact))
        found = find_causes(result.evidence.get(run.model), called, None if exact is None else exact.spec, run.spec)
        result.causes += [several + cause for cause in found]


def _pairs(run: ModelRun, exact: ModelRun | None) -> list[tuple[Any, Any]]:
    """(expected, found) for each picture; expected are the float model's boxes, or the labels."""
    if exact is not None:
        return [(a, b) for a, b in zip(exact.found, run.found, strict=True) if a is not None and b is not None]
    return [(a, b) for a, b in zip(run.truth, run.found, strict=True) if b is not None]


def _figures(run: ModelRun, result: Validation) -> dict[str, Any]:
    """One entry of `models`, complete with nulls."""
    exact = result.reference
    unknown = {"map50": None, "map50_95": None, "map50_95_by_size": {"small": None, "medium": None, "large": None}}
    measured: dict[str, Any] = {**unknown, "per_class": [], "best_f1": None}
    if run.meter is not None:
        measured = run.meter.figures(result.class_names(run))
    kept = agreement = None
    if exact is not None and run is not exact:
        if run.meter is not None and exact.meter is not None and result.reference_figures is not None:
            shares = {key: _share(measured[key], result.reference_figures[key]) for key in ("map50", "map50_95")}
            interval = paired_interval(exact.meter, run.meter)
            kept = {**shares, "interval": None if interval is None else list(interval)}
        meter = Agreement(CONF)
        for a, b in _pairs(run, exact):
            meter.add(a, b)
        result.agreements[run.model] = meter
        agreement = meter.figures()
    head = {"model": str(run.model), "engine": run.engine, "images": run.images}
    return {**head, **measured, "kept": kept, "agreement": agreement}


def _share(after: float | None, before: float | None) -> float | None:
    return None if not before or after is None else after / before
