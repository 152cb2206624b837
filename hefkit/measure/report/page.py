"""A validation -> one HTML page. Everything in it is text or embedded: it opens anywhere, without a network."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hefkit.measure.evidence import CONF
from hefkit.measure.passes import LOW_CONF
from hefkit.measure.report.pictures import TITLES, Row
from hefkit.measure.report.steps import next_steps
from hefkit.measure.validate import Validation
from hefkit.text import counted

TEMPLATE = Path(__file__).with_name("page.html")
WORDS = {"good": "Good enough", "look": "Look at it", "bad": "Not good enough", "unknown": "Not known"}
DASH = "-"  # a value that is not known
FELL = -0.02  # change of AP that is marked
MAX_LAYERS = 12  # of the table of layers
GROUPS = {"worst": "Where they differ most", "typical": "Typical pictures"}
METHOD = (
    f"Average precision as COCO defines it, of detections from a confidence of {LOW_CONF}. Kept: mAP50 as a share of "
    "the float model's, with the 95 % interval of a bootstrap over the pictures. Boxes found again: share of the "
    f"float model's boxes, same class, IoU 0.5, confidence {CONF}. Width ratio: median, and 5 % to 95 % of the boxes."
)


def render(result: Validation, rows: Sequence[Row], plots: Sequence[tuple[str, str]], missing: Sequence[str]) -> str:
    """The page; raises ImportError without Jinja2."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(_context(result, rows, plots, missing))


def _context(
    result: Validation, rows: Sequence[Row], plots: Sequence[tuple[str, str]], missing: Sequence[str]
) -> dict[str, Any]:
    run, figures = result.decisive
    exact = result.reference_figures if result.reference is not run else None
    seen = result.evidence.get(run.model)
    everything = [] if result.reference_figures is None else [result.reference_figures]
    everything += [f for r, f in zip(result.runs, result.figures, strict=True) if r is not result.reference]
    labels = sum(c["labels"] for c in figures["per_class"])
    return {
        "title": f"Is {run.model.name} good enough?",
        "subtitle": counted(figures["images"], "picture")
        + (f", {counted(labels, 'label')}" if result.labelled else ""),
        "verdict": result.verdict,
        "word": WORDS[result.verdict.level]
        + (f" ({_engine(figures)}, not the chip)" if run.engine == "emulated" else ""),
        "sentence": _sentence(result.verdict.text),
        "causes": result.causes,
        "labelled": result.labelled,
        "columns": [Path(f["model"]).name for f in everything],
        "lines": _lines([_model(f) for f in everything]),
        "method": METHOD,
        "confidences": [line for f in everything if (line := _confidence(f))],
        "steps": next_steps(result),
        "compared": exact is not None,
        "classes": _classes(figures, exact),
        "plots": plots,
        "missing": missing,
        "noise": [] if seen is None else [_noise(o) for o in seen.outputs],
        "noise_images": 0 if seen is None else seen.images,
        "layers": _layers(run.spec.quality),
        "groups": [
            {"title": title, "rows": [_row(row) for row in rows if row.kind == kind]}
            for kind, title in GROUPS.items()
            if any(row.kind == kind for row in rows)
        ],
        "warnings": result.warnings,
    }


def _sentence(text: str) -> str:
    """The verdict's sentence without its level, which is the heading."""
    for level in ("good: ", "look at it: ", "bad: ", "unknown: "):
        text = text.replace(level, "", 1)
    return text[:1].upper() + text[1:] + "."


def _model(figures: dict[str, Any]) -> dict[str, str]:
    """Title -> value of one column."""
    kept, agreement, sizes = figures["kept"], figures["agreement"] or {}, figures["map50_95_by_size"]
    share = DASH
    if kept and kept["map50"] is not None and kept["interval"]:
        low, high = kept["interval"]
        share = f"{100 * kept['map50']:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
    width = agreement.get("width_ratio") or {}
    ratio = DASH if width.get("median") is None else f"{width['median']:.3f} ({width['p5']:.2f} to {width['p95']:.2f})"
    recall, shift = agreement.get("recall"), agreement.get("score_shift")
    return {
        "engine": _engine(figures),
        "mAP50": _number(figures["map50"]),
        "mAP50-95": _number(figures["map50_95"]),
        **{f"mAP50-95, {size} objects": _number(sizes[size]) for size in ("small", "medium", "large")},
        "mAP50 kept": share,
        "boxes found again": DASH if recall is None else f"{100 * recall:.1f} %",
        "mean IoU of these": _number(agreement.get("mean_iou")),
        "width ratio": ratio,
        "score shift": DASH if shift is None else f"{shift:+.3f}",
    }


def _engine(figures: Mapping[str, Any]) -> str:
    """The engine in words; an emulated HEF is emulated by the compiler, from the network that it was made of."""
    by_sdk = figures["engine"] == "emulated" and figures["model"].endswith(".hef")
    return "emulated by Hailo's SDK" if by_sdk else TITLES[figures["engine"]]


def _lines(models: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """One row a figure, one column a model; rows without any value are left out."""
    rows = [{"title": title, "values": [model[title] for model in models]} for title in models[0]]
    return [row for row in rows if set(row["values"]) != {DASH}]


def _confidence(figures: dict[str, Any]) -> str | None:
    best = figures["best_f1"]
    if best is None:
        return None
    return (
        f"{Path(figures['model']).name}: --conf {best['conf']:.2f} gives the best F1, {best['f1']:.3f} "
        f"(precision {best['precision']:.3f}, recall {best['recall']:.3f})."
    )


def _classes(figures: dict[str, Any], exact: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The classes with labels, the one that lost most first."""
    rows = []
    for i, after in enumerate(figures["per_class"]):
        if not after["labels"]:
            continue
        before = None if exact is None else exact["per_class"][i]
        changes = [None if before is None else after[key] - before[key] for key in ("ap50", "ap50_95")]
        rows.append(
            {
                "name": after["class"],
                "labels": after["labels"],
                "before50": "" if before is None else _number(before["ap50"]),
                "after50": _number(after["ap50"]),
                "before": "" if before is None else _number(before["ap50_95"]),
                "after": _number(after["ap50_95"]),
                "change50": "" if changes[0] is None else f"{changes[0]:+.3f}",
                "change": "" if changes[1] is None else f"{changes[1]:+.3f}",
                "fell50": (changes[0] or 0) < FELL,
                "fell": (changes[1] or 0) < FELL,
                "order": changes[0] or 0.0,
            }
        )
    return sorted(rows, key=lambda row: row["order"])


def _noise(output: dict[str, Any]) -> dict[str, Any]:
    return {
        "role": "boxes" if output["role"] == "box" else "classes",
        "stride": output["stride"],
        "snr": DASH if output["snr_db"] is None else f"{output['snr_db']:.1f} dB",
        "reach": DASH if output["reach"] is None else f"{100 * output['reach']:.0f} %",
    }


def _layers(quality: Mapping[str, Any] | None) -> list[dict[str, str]]:
    """The layers that lose most, as compile_to_hef.py measured them, worst first; empty where it did not.

    The emulation has each layer's share of the noise at the heads; Hailo's log has the signal to noise of some layers.
    """
    try:
        known = (quality or {}).get("causes", {}).get("layers", [])
        rows = [{"name": str(layer["layer"]), "loss": f"{100 * layer['share']:.0f} % of the noise"} for layer in known]
        by_noise = sorted(((quality or {}).get("layer_snr_db") or {}).items(), key=lambda item: item[1])
        rows += [{"name": str(name), "loss": f"{decibel:.1f} dB signal to noise"} for name, decibel in by_noise]
    except (AttributeError, KeyError, TypeError, ValueError):  # a spec of another program
        return []
    return rows[:MAX_LAYERS]


def _row(row: Row) -> dict[str, Any]:
    panels = [{"title": title, "data": base64.b64encode(jpeg).decode()} for title, jpeg in row.panels]
    return {"source": row.source, "words": row.words, "panels": panels}


def _number(value: float | None) -> str:
    return DASH if value is None else f"{value:.3f}"
