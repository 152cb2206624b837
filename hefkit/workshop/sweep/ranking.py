"""Which candidate is best? All whose intervals overlap that of the highest score are equal; the cheapest is taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hefkit.text import counted

DONE, FAILED, NOT_STARTED = "done", "failed", "not started"
LABELS, AGREEMENT = "kept", "agreement"  # what is ranked: share of the float model's mAP50, agreement with its boxes
TITLES = {LABELS: "of the float model's mAP50", AGREEMENT: "agreement with the float model's boxes"}


@dataclass
class Row:
    """One candidate and its result."""

    name: str
    settings: dict[str, Any]
    command: str
    status: str = NOT_STARTED
    exit_code: int | None = None
    error: str | None = None
    seconds: float | None = None
    worker: str | None = None
    reused: bool = False
    model: Path | None = None
    key: str = ""
    figures: dict[str, Any] = field(default_factory=dict)
    rank: int | None = None
    equal_to_best: bool = False
    pareto: bool = False

    @property
    def score(self) -> float | None:
        """A share from 0 to 1, or a little above; None: not measured."""
        value = self.figures.get("score")
        return None if value is None else float(value)

    @property
    def interval(self) -> tuple[float, float]:
        """The interval of the score; a score without an interval is both of its ends."""
        low, high = self.figures.get("interval") or (self.score or 0.0, self.score or 0.0)
        return float(low), float(high)

    @property
    def cost(self) -> tuple[float, ...]:
        """What it costs on the chip, to be compared: contexts, frame rate, 16-bit tensors, bytes of the HEF or weights.

        Contexts run one after another. For a network of one context the compiler estimates the frame rate; a HEF
        without an estimate comes after those with one. 16 bit halves the rate of a layer. Frame rate and bytes are
        rounded to two digits: a smaller difference means nothing.
        """
        figures = self.figures
        return (
            figures.get("contexts") or 1,
            -_two_digits(figures.get("fps_estimate")),
            figures.get("tensors_16bit") or 0,
            _two_digits(figures.get("bytes")),
        )

    def to_json(self) -> dict[str, Any]:
        """A row of sweep.json and of --json."""
        keys = ("name", "rank", "status", "exit_code", "error", "equal_to_best", "pareto", "reused")
        rest = {"seconds": self.seconds, "worker": self.worker, "command": self.command, "key": self.key}
        model = None if self.model is None else str(self.model)
        return {
            **{k: getattr(self, k) for k in keys},
            "settings": self.settings,
            **self.figures,
            "model": model,
            **rest,
        }


def figures(report: Mapping[str, Any], size: int) -> dict[str, Any]:
    """The figures of a finished candidate.

    Args:
        report: its report.json.
        size: bytes of its model; for an emulated one those of the weights are used: the rest is not on the chip.
    """
    quality = report.get("quality") or {}
    models = (report.get("accuracy") or {}).get("models") or [None]
    measured = models[0] or {}
    kept = measured.get("kept") or {}
    outputs = [o.get("dtype") for o in (report.get("head") or {}).get("outputs") or []]
    wide = quality.get("tensors_16bit")
    labelled = models[0] is not None
    return {
        "measure": LABELS if labelled else AGREEMENT,
        "score": kept.get("map50") if labelled else quality.get("f1"),
        "interval": kept.get("interval") if labelled else quality.get("f1_interval"),
        "map50": measured.get("map50"),
        "map50_95": measured.get("map50_95"),
        "recall": quality.get("recall"),
        "precision": quality.get("precision"),
        "in_sample": quality.get("in_sample"),
        "bytes": quality.get("weight_bytes") or size,
        "tensors_16bit": outputs.count("uint16") if wide is None else len(wide),
        "contexts": report.get("contexts"),
        "fps_estimate": report.get("fps_estimate"),
    }


def rank(rows: Sequence[Row]) -> list[Row]:
    """All rows: those equal to the highest, the cheapest first; the others by score; those not measured; the failed.

    Sets `rank`, `equal_to_best` and `pareto`. The result does not depend on the order of `rows`.
    """
    scored = sorted((r for r in rows if r.status == DONE and r.score is not None), key=_by_score)
    equal = [r for r in scored if _overlap(r, scored[0])]
    others = [r for r in scored if r not in equal]
    blind = sorted((r for r in rows if r.status == DONE and r.score is None), key=lambda r: (r.cost, r.name))
    rest = sorted((r for r in rows if r.status != DONE), key=lambda r: (r.status, r.name))
    ranked = [*sorted(equal, key=lambda r: (r.cost, *_by_score(r))), *others, *blind]
    for place, row in enumerate(ranked, 1):
        row.rank, row.equal_to_best = place, row in equal
        row.pareto = row in scored and not any(_better(other, row) for other in scored)
    return [*ranked, *rest]


def reason(ranked: Sequence[Row]) -> str:
    """Why the first row is taken."""
    best = ranked[0]
    if best.score is None:
        return f"{best.name}: no candidate has a measured score; it is the cheapest"
    what = TITLES[best.figures["measure"]]
    equal = [row for row in ranked if row.equal_to_best]
    text = f"{best.name}: {share(best)} {what}"
    if len(equal) == 1:
        scored = sum(row.score is not None for row in ranked)
        return text if scored == 1 else f"{text}; no other interval reaches it"
    top = min(equal, key=_by_score)
    others = "" if top is best else f", the highest {top.name} with {share(top)}"
    return f"{text}; {counted(len(equal), 'candidate')} are equal within their intervals{others}; it is the cheapest"


def share(row: Row) -> str:
    """`97.1 % (95.0 to 99.2)`."""
    if row.score is None:
        return "-"
    low, high = row.interval
    return f"{100 * row.score:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def _two_digits(value: float | None) -> float:
    return float(f"{value or 0:.2g}")


def _by_score(row: Row) -> tuple[float, tuple[float, ...], str]:
    return -(row.score or 0.0), row.cost, row.name


def _overlap(a: Row, b: Row) -> bool:
    return a.interval[0] <= b.interval[1] and b.interval[0] <= a.interval[1]


def _better(a: Row, b: Row) -> bool:
    """Whether `a` is at least as good and as cheap as `b`, and in one of the two better."""
    ours, theirs = (a.score or 0.0, a.cost), (b.score or 0.0, b.cost)
    return ours[0] >= theirs[0] and ours[1] <= theirs[1] and ours != theirs
