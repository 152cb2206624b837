"""Scores, intervals and costs -> the order, and the reason of the first place."""

from __future__ import annotations

import itertools
from pathlib import Path
from xml.etree import ElementTree

import pytest

from hefkit.workshop.sweep.pareto import pareto
from hefkit.workshop.sweep.ranking import DONE, FAILED, LABELS, NOT_STARTED, Row, figures, rank, reason
from hefkit.workshop.sweep.result import table


def row(name: str, score: float | None, low: float = 0.0, high: float = 0.0, **costs: int) -> Row:
    """A finished candidate."""
    known = {"map50": 0.5, "map50_95": 0.3, "recall": 0.9, "precision": None, "tensors_16bit": 0}
    known |= {"contexts": None, "fps_estimate": None}
    interval = None if score is None else [low, high]
    values = {**known, "measure": LABELS, "score": score, "interval": interval, "bytes": 1_000_000, **costs}
    return Row(name, {}, "", status=DONE, seconds=3.0, model=Path(name), figures=values)


def names(rows: list[Row]) -> list[str]:
    """In their order."""
    return [r.name for r in rows]


def test_of_equal_candidates_the_cheapest_wins() -> None:
    """`wide` is the highest, but the intervals of two cheaper ones reach its own; `far` does not."""
    rows = [
        row("wide", 0.98, 0.95, 1.0, tensors_16bit=6),
        row("plain", 0.96, 0.93, 0.99),
        row("also", 0.97, 0.94, 0.99),
        row("far", 0.80, 0.70, 0.90),
    ]

    ranked = rank(rows)

    assert names(ranked) == ["also", "plain", "wide", "far"]
    assert [r.rank for r in ranked] == [1, 2, 3, 4]
    assert [r.equal_to_best for r in ranked] == [True, True, True, False]
    assert reason(ranked) == (
        "also: 97.0 % (94.0 to 99.0) of the float model's mAP50; 3 candidates are equal within their intervals, the "
        "highest wide with 98.0 % (95.0 to 100.0); it is the cheapest"
    )


def test_costs_are_compared_in_their_order() -> None:
    """Contexts before frame rate before 16-bit tensors before bytes; rate and bytes in two digits only."""
    one, two = row("one", 0.9, 0.8, 1.0, contexts=1, tensors_16bit=6), row("two", 0.9, 0.8, 1.0, contexts=2)
    fast = row("fast", 0.9, 0.8, 1.0, contexts=1, tensors_16bit=6, fps_estimate=141)
    slow, same = (row(n, 0.91, 0.8, 1.0, contexts=1, fps_estimate=fps) for n, fps in (("slow", 90), ("same", 144)))
    large, small = row("large", 0.91, 0.8, 1.0, bytes=1_004_000), row("small", 0.9, 0.8, 1.0, bytes=1_000_000)

    assert names(rank([two, one])) == ["one", "two"]
    assert names(rank([one, slow, fast, same, two])) == ["same", "fast", "slow", "one", "two"]
    assert names(rank([small, large])) == ["large", "small"]


def test_a_clear_winner_is_said_to_be_one() -> None:
    """No other interval reaches its own."""
    ranked = rank([row("a", 0.9, 0.88, 0.92, tensors_16bit=9), row("b", 0.5, 0.4, 0.6)])

    assert reason(ranked) == "a: 90.0 % (88.0 to 92.0) of the float model's mAP50; no other interval reaches it"


def test_the_order_of_the_rows_does_not_matter() -> None:
    """Every permutation, ties and failures included, gives one ranking."""
    rows = [
        row("b", 0.9, 0.8, 1.0),
        row("a", 0.9, 0.8, 1.0),
        row("blind", None),
        Row("failed", {}, "", status=FAILED, exit_code=2, error="no such layer"),
        Row("late", {}, "", status=NOT_STARTED),
    ]

    orders = {tuple(names(rank(some))) for some in itertools.permutations(rows)}

    assert orders == {("a", "b", "blind", "failed", "late")}


def test_pareto_leaves_out_what_another_beats_in_both() -> None:
    """`bad` is worse and dearer than `good`; `cheap` is worse and cheaper."""
    ranked = rank([
        row("good", 0.95, 0.94, 0.96, bytes=2_000_000),
        row("bad", 0.90, 0.89, 0.91, bytes=3_000_000),
        row("cheap", 0.85, 0.84, 0.86, bytes=1_000_000),
    ])  # fmt: skip

    assert {r.name for r in ranked if r.pareto} == {"good", "cheap"}


def test_figures_of_a_report() -> None:
    """With labels the share of mAP50, else the agreement; of a HEF the 16-bit outputs are counted."""
    quality = {"recall": 0.9, "precision": 0.8, "f1": 0.85, "f1_interval": [0.8, 0.9], "in_sample": True}
    head = {"outputs": [{"dtype": "uint16"}, {"dtype": "uint8"}]}
    measured = {"map50": 0.5, "map50_95": 0.25, "kept": {"map50": 0.98, "interval": [0.9, 1.0]}}

    blind = figures({"quality": quality, "head": head, "accuracy": None, "contexts": 2, "fps_estimate": 9.5}, 77)
    labelled = figures({"quality": quality, "head": head, "accuracy": {"models": [measured]}}, 77)

    assert (blind["fps_estimate"], labelled["fps_estimate"]) == (9.5, None)
    assert (blind["score"], blind["interval"], blind["tensors_16bit"], blind["contexts"]) == (0.85, [0.8, 0.9], 1, 2)
    assert (labelled["score"], labelled["interval"], labelled["map50"], labelled["bytes"]) == (
        0.98,
        [0.9, 1.0],
        0.5,
        77,
    )


def test_table_and_picture_show_every_candidate() -> None:
    """One line a row, the reason of a failure in it; the picture is XML on its own and names what was measured."""
    failed = Row("broken", {}, "", status=FAILED, exit_code=2, error="no such layer")
    ranked = rank([row("a", 0.9, 0.8, 1.0), row("b", 0.7, 0.6, 0.75), failed])

    lines = table(ranked)

    assert [line.split()[:2] for line in lines[1:4]] == [["1", "a"], ["2", "b"], ["-", "broken"]]
    assert "failed (exit code 2): no such layer" in lines[3]
    pytest.importorskip("matplotlib")
    svg = pareto(ranked)
    assert svg is not None and pareto(ranked) == svg
    root = ElementTree.fromstring(svg)
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"1  a", "2  b"} <= texts
