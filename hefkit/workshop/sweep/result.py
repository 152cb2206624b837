"""The results of a sweep: the table, sweep.json, the picture, the report, and the winner as --output."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hefkit.files import explained, own_json, replacing
from hefkit.staging.stage import Staging
from hefkit.text import one_line
from hefkit.workshop.compile.run import Compilation
from hefkit.workshop.sweep.folder import SWEEP, SweepFolder
from hefkit.workshop.sweep.pareto import pareto
from hefkit.workshop.sweep.ranking import DONE, Row, reason, share
from hefkit.workshop.sweep.report import compare

PICTURE, REPORT = "pareto.svg", "report.html"
NO_PICTURE = (
    "the picture of the candidates was not drawn: the Python package matplotlib is missing; pip install matplotlib"
)


def finish(run: Compilation, ranked: Sequence[Row]) -> dict[str, Any]:
    """Write everything into the folder of the sweep, and the best of the `ranked`; returns what --json prints.

    The report comes last: with the SDK it takes minutes, and Ctrl-C during it loses nothing else.
    """
    folder, pair = run.options.run_dir, [row for row in ranked[:2] if row.status == DONE]
    result: dict[str, Any] = {
        "output": str(_copy_best(ranked[0], run.options.name)),
        "run_dir": str(folder),
        "best": ranked[0].name,
        "reason": reason(ranked),
        "onnx": str(run.options.onnx),
        "report": None,
        "compared": [],  # keys of the candidates in the report
        "rows": [row.to_json() for row in ranked],
        "warnings": run.warnings,
    }
    svg = pareto(ranked)
    if svg is None:
        run.warn(NO_PICTURE)
    else:
        with replacing(folder / PICTURE) as temporary:
            temporary.write_text(svg, encoding="utf-8")
    report = _known(folder, pair)
    if report is None:
        SweepFolder(folder).write_json(result)
        (folder / REPORT).unlink(missing_ok=True)  # it shows other candidates
        report = compare(run, [row.model for row in pair if row.model is not None])
    if report is not None:
        result.update(report=str(report), compared=[row.key for row in pair])
    SweepFolder(folder).write_json(result)
    return result


def _known(folder: Path, pair: Sequence[Row]) -> Path | None:
    """The report of these candidates that an earlier call has made."""
    page = folder / REPORT
    same = own_json(folder / SWEEP).get("compared") == [row.key for row in pair]
    return page if same and page.is_file() else None


def table(ranked: Sequence[Row]) -> list[str]:
    """The table for people, the best first; a failed candidate is shown with its reason."""
    names = [one_line(row.name, 40) for row in ranked]
    width = max(len("candidate"), *map(len, names))
    lines = [
        f"{'':>2}  {'candidate':<{width}}  {'score (95 % interval)':<26}  mAP50  mAP50-95  recall  precision"
        f"  {'MB':>6}  16 bit  contexts  frames/s  {'s':>6}"
    ]
    for name, row in zip(names, ranked, strict=True):
        if row.status != DONE:
            why = (
                row.status
                if row.error is None
                else f"{row.status} (exit code {row.exit_code}): {one_line(row.error, 160)}"
            )
            lines.append(f"{'-':>2}  {name:<{width}}  {why}")
            continue
        found = row.figures
        mark = f"{share(row)}{' =' if row.equal_to_best else ''}"
        lines.append(
            f"{row.rank:>2}  {name:<{width}}  {mark:<26}  {_share(found['map50'], 5)}  {_share(found['map50_95'], 8)}"
            f"  {_share(found['recall'], 6)}  {_share(found['precision'], 9)}  {found['bytes'] / 1e6:>6.2f}"
            f"  {found['tensors_16bit']:>6}  {found['contexts'] or '-':>8}"
            f"  {'-' if found['fps_estimate'] is None else round(found['fps_estimate']):>8}  {row.seconds or 0:>6.0f}"
        )
    return [*lines, "=: equal to the best within their intervals; the cheapest of them is first"]


def _share(value: float | None, width: int) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:>{width}.3f}"


def _copy_best(best: Row, target: Path) -> Path:
    """Copy the winner and its spec together; returns the path of the model."""
    assert best.model is not None
    suffix = "".join(best.model.suffixes[-2:]) if best.model.suffix == ".onnx" else best.model.suffix
    model = target.with_name(target.name + suffix)
    with Staging(target.parent) as stage:
        with explained(model):
            shutil.copyfile(best.model, stage.path / model.name)
            shutil.copyfile(best.model.with_suffix(".json"), stage.path / model.with_suffix(".json").name)
        stage.commit(last=model.name)
    return model
