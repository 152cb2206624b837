"""What a sweep leaves: sweep.json before the slow report, and a report that is made once."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hefkit.workshop.sweep import result
from hefkit.workshop.sweep.ranking import DONE, Row


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """A sweep in tmp_path / "sweep" whose output is tmp_path / "best"."""
    options = SimpleNamespace(run_dir=tmp_path / "sweep", name=tmp_path / "best", onnx=tmp_path / "net.onnx")
    return SimpleNamespace(options=options, warnings=[], warn=print)


def row(run: Any, name: str) -> Row:
    """A finished candidate with its files."""
    folder = run.options.run_dir / name
    folder.mkdir(parents=True, exist_ok=True)
    for suffix in ("hef", "json"):
        (folder / f"{name}.{suffix}").write_text(f"{name} {suffix}")
    return Row(name, {}, "", status=DONE, key=f"key of {name}", model=folder / f"{name}.hef", rank=1)


def written(run: Any) -> Any:
    """sweep.json."""
    return json.loads((run.options.run_dir / "sweep.json").read_bytes())


def test_a_report_is_made_once_for_the_same_pair(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything else is there before; a failed one is tried again, and that of another pair does not count."""
    asked: list[list[str]] = []
    page = run.options.run_dir / "report.html"

    def compare(_: Any, models: list[Path]) -> Path | None:
        assert written(run)["best"] == models[0].stem and written(run)["report"] is None
        assert (run.options.name.parent / "best.hef").read_text() == f"{models[0].stem} hef"
        asked.append([model.stem for model in models])
        page.write_text("page")
        return None if len(asked) == 1 else page

    monkeypatch.setattr(result, "compare", compare)
    monkeypatch.setattr(result, "pareto", lambda ranked: None)
    a, b = row(run, "a"), row(run, "b")

    reports = [result.finish(run, rows)["report"] for rows in ([a, b], [a, b], [a, b], [b, a], [b, a])]

    assert reports == [None, *[str(page)] * 4] and asked == [["a", "b"], ["a", "b"], ["b", "a"]]
    assert written(run)["compared"] == ["key of b", "key of a"]
