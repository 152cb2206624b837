"""The picture of a sweep: the accuracy of each candidate over its size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hefkit.measure.report.plots import COLOURS, INK, drawing
from hefkit.text import one_line
from hefkit.workshop.sweep.ranking import TITLES, Row

SIZE = (7.6, 4.2)  # inches
SPREAD = 0.015  # of the largest size: candidates of one size are drawn beside each other
MARGIN = 1.2  # of the largest size: where the axis ends
LEGEND = "green: the best; blue: no other is better and cheaper\nsquare: with tensors in 16 bit"
TITLE = "Candidates: accuracy over size"
MB = 1e6


def pareto(ranked: Sequence[Row]) -> str | None:
    """An SVG for any viewer; None without matplotlib, or where nothing was measured."""
    rows = [row for row in ranked if row.score is not None]
    svg = drawing(TITLE, lambda axes: _draw(axes, rows), SIZE) if rows else None
    if svg is None:
        return None
    head = '<svg xmlns="http://www.w3.org/2000/svg" style="background:#fff;color:#1d2329" '
    return svg.replace("<svg ", head, 1) + "\n"


def _draw(axes: Any, rows: Sequence[Row]) -> None:
    sizes = [row.figures["bytes"] / MB for row in rows]
    places = _beside(sizes, SPREAD * max(sizes))
    for row, x in zip(rows, places, strict=True):
        y, (low, high) = 100 * (row.score or 0.0), row.interval
        colour = COLOURS[3] if row.rank == 1 else COLOURS[1] if row.pareto else COLOURS[0]
        errors = [[max(y - 100 * low, 0.0)], [max(100 * high - y, 0.0)]]
        shape = "s" if row.figures.get("tensors_16bit") else "o"
        axes.errorbar([x], [y], yerr=errors, fmt=shape, color=colour, capsize=2, markersize=6, label=_label(row))
        axes.annotate(str(row.rank), (x, y), textcoords="offset points", xytext=(4, 4), color=INK, fontsize=8)
    front = sorted((x, 100 * (r.score or 0.0)) for r, x in zip(rows, places, strict=True) if r.pareto)
    axes.plot(*zip(*front, strict=True), color=COLOURS[1], linewidth=1, linestyle=":", zorder=0)
    axes.margins(y=0.08)
    axes.set(
        xlim=(0, MARGIN * max(places)),
        xlabel="size, MB (candidates of one size are side by side)",
        ylabel=f"% {TITLES[rows[0].figures['measure']]}",
    )
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), handlelength=1, title=LEGEND, title_fontsize=8)


def _beside(values: Sequence[float], step: float) -> list[float]:
    """The same values, with those that are nearly equal moved apart to the right."""
    placed: list[float] = []
    for value in values:
        while any(abs(value - other) < step for other in placed):
            value += step
        placed.append(value)
    return placed


def _label(row: Row) -> str:
    wide = row.figures.get("tensors_16bit") or 0
    return f"{row.rank}  {one_line(row.name, 40)}" + (f" ({wide} in 16 bit)" if wide else "")
