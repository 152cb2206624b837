"""The curves of a report as SVG, drawn by matplotlib without a screen.

Text and lines take the colour of the page (`currentColor`), so one drawing serves a light and a dark page.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from hefkit.measure.coco import CONFS, RECALLS
from hefkit.measure.passes import ModelRun
from hefkit.measure.validate import Validation
from hefkit.text import one_line

INK = "#010203"  # replaced by currentColor
COLOURS = ("#8a8f98", "#2f7ed8", "#e07b39", "#3aa76d", "#b455c9", "#c94f4f")  # the reference first
SIZE = (5.2, 3.4)  # inches
MAX_MODELS = 6


def draw(result: Validation) -> list[tuple[str, str]]:
    """Title and SVG of each curve that was measured; empty without matplotlib."""
    runs = [run for run in ([result.reference] if result.reference else []) if run not in result.runs]
    runs = [*runs, *result.runs][:MAX_MODELS]
    plots: list[tuple[str, Callable[..., None]]] = []
    if result.labelled:
        plots += [("Precision over recall", _recall), ("F1 over confidence", _f1)]
    if result.agreements:
        plots += [("Overlap with the float model's boxes", _overlap), ("Width of the boxes", _widths)]
    drawn = [(title, drawing(title, partial(plot, result=result, runs=runs))) for title, plot in plots]
    return [(title, svg) for title, svg in drawn if svg is not None]


def drawing(title: str, plot: Callable[[Any], None], size: tuple[float, float] = SIZE) -> str | None:
    """One drawing as an <svg> element; None without matplotlib.

    Args:
        plot: draws on matplotlib's axes.
        size: in inches.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    plot(axes)
    _style(axes)
    return _svg(figure, title)


def _recall(axes: Any, result: Validation, runs: list[ModelRun]) -> None:
    for i, run in enumerate(runs):
        if run.meter is not None:
            curves = [c for c in map(run.meter.curve, range(run.meter.num_classes)) if c is not None]
            axes.plot(RECALLS, np.mean(curves, axis=0), color=COLOURS[i], label=_name(run))
    axes.set(xlabel="recall", ylabel="precision, mean of the classes, IoU 0.5", xlim=(0, 1), ylim=(0, 1.02))


def _f1(axes: Any, result: Validation, runs: list[ModelRun]) -> None:
    for i, run in enumerate(runs):
        best = run.meter.best_f1() if run.meter is not None else None
        if run.meter is not None and best is not None:
            axes.plot(CONFS, run.meter.f1_curve()[0], color=COLOURS[i], label=_name(run))
            axes.plot([best.conf], [best.f1], "o", color=COLOURS[i])
    axes.set(xlabel="confidence", ylabel="F1, mean of the classes", xlim=(0, 1), ylim=(0, 1.02))


def _overlap(axes: Any, result: Validation, runs: list[ModelRun]) -> None:
    _histogram(axes, result, runs, "ious", np.linspace(0.5, 1, 26))
    axes.set(xlabel="IoU of matched boxes", ylabel="share of the boxes", xlim=(0.5, 1))


def _widths(axes: Any, result: Validation, runs: list[ModelRun]) -> None:
    _histogram(axes, result, runs, "width_ratios", np.linspace(0.5, 1.5, 51))
    axes.axvline(1, color=INK, linewidth=0.8, linestyle=":")
    axes.set(xlabel="width / width in the float model", ylabel="share of the boxes", xlim=(0.5, 1.5))


def _histogram(axes: Any, result: Validation, runs: list[ModelRun], values: str, edges: np.ndarray) -> None:
    for i, run in enumerate(runs):
        meter = result.agreements.get(run.model)
        found = getattr(meter, values) if meter is not None else []
        if found:
            clipped = np.clip(found, edges[0], edges[-1])
            weights = np.full(len(clipped), 1 / len(clipped))
            style: dict[str, Any] = {"histtype": "stepfilled", "alpha": 0.35, "edgecolor": COLOURS[i], "linewidth": 1.5}
            axes.hist(clipped, edges.tolist(), weights=weights, color=COLOURS[i], label=_name(run), **style)


def _name(run: ModelRun) -> str:
    return one_line(run.model.name, 40).replace("$", r"\$")


def _style(axes: Any) -> None:
    """Thin lines, no box, text in the page's colour."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color=INK, alpha=0.12, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=9)
    for spine in axes.spines.values():
        spine.set_color(INK)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=INK, fontsize=10)
    legend = axes.get_legend()
    if legend is None and axes.get_legend_handles_labels()[0]:
        legend = axes.legend()
    if legend is not None:
        legend.set_frame_on(False)
        for text in legend.get_texts():
            text.set(color=INK, fontsize=9)


def _svg(figure: Any, title: str) -> str:
    """The <svg> element: text as text, no background, no external reference, the same bytes every time."""
    from matplotlib import rc_context

    file = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": title, "font.family": "sans-serif"}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    salt = re.sub(r"\W+", "-", title.lower())
    for name in set(re.findall(r'id="([^"]+)"', svg)):  # ids belong to the page, so they must differ between drawings
        svg = re.sub(rf'(id="|#){re.escape(name)}(?=["\)])', rf"\g<1>{salt}-{name}", svg)
    svg = re.sub(
        r'<svg [^>]*viewBox="([^"]*)"[^>]*>', rf'<svg viewBox="\1" role="img" aria-label="{title}">', svg, count=1
    )
    return svg.replace("xlink:href", "href")
