"""What a validation ends with: the table for people, and the gates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hefkit.measure.validate import Validation
from hefkit.text import counted, one_line


@dataclass(frozen=True)
class Gates:
    """The limits that the user has set; None: not set."""

    map50: float | None = None
    kept: float | None = None
    recall: float | None = None

    def refusals(self, result: Validation) -> list[str]:
        """Why the result is refused, one text a gate and model; a value that was not measured is refused."""
        texts = []
        for run, figures in result.judged:
            kept, agreement = figures["kept"], figures["agreement"]
            for flag, limit, value, what in (
                ("--gate-map50", self.map50, figures["map50"], "has an mAP50 of {}"),
                ("--gate-kept", self.kept, kept and kept["map50"], "keeps {} of the float model's mAP50"),
                (
                    "--gate-recall",
                    self.recall,
                    agreement and agreement["recall"],
                    "finds {} of the float model's boxes",
                ),
            ):
                if limit is None or (value is not None and value >= limit):
                    continue
                shown = what.format("an unknown share" if value is None else f"{value:.4f}")
                texts.append(f"{flag} {limit:g}: {one_line(run.model)} {shown}")
        return texts


def summary(result: Validation) -> list[str]:
    """The table for people: one row a model, the float model first."""
    rows = [] if result.reference_figures is None else [result.reference_figures]
    rows += [f for run, f in zip(result.runs, result.figures, strict=True) if run is not result.reference]
    names = [one_line(Path(row["model"]).name, 34) for row in rows]
    width = max(map(len, names))
    lines = [f"{'':<{width}}  engine    mAP50  mAP50-95  kept (95 % interval)     boxes found again"]
    for name, row in zip(names, rows, strict=True):
        kept, agreement = row["kept"], row["agreement"]
        share = "-"
        if kept is not None and kept["map50"] is not None and kept["interval"] is not None:
            low, high = kept["interval"]
            share = f"{100 * kept['map50']:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
        again = "-" if agreement is None or agreement["recall"] is None else f"{100 * agreement['recall']:.1f} %"
        average = f"{_shown(row['map50'])}  {_shown(row['map50_95']):>8}"
        lines.append(f"{name:<{width}}  {row['engine']:<9}{average}  {share:<24} {again}")
    pictures = rows[0]["images"]
    labels = "" if not result.labelled else f", {sum(c['labels'] for c in rows[0]['per_class'])} labels"
    return [*lines, f"{counted(pictures, 'picture')}{labels}"]


def _shown(value: float | None) -> str:
    return "    -" if value is None else f"{value:.3f}"
