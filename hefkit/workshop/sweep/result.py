"""What a sweep leaves: the table, sweep.json, the picture, the report, and the winner where --output names it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from hefkit.detect.engine import Engine, EngineOptions
from hefkit.errors import HefkitError
from hefkit.files import explained, own_json, replacing
from hefkit.measure.labels import labelled_pictures
from hefkit.measure.report.write import write_report
from hefkit.measure.validate import validate
from hefkit.pictures.find import READABLE
from hefkit.pictures.sources import Item
from hefkit.staging.stage import Staging
from hefkit.text import log, one_line
from hefkit.workshop.compile.run import Compilation
from hefkit.workshop.engine import FloatEngine, open_onnx
from hefkit.workshop.sweep.folder import SWEEP, SweepFolder
from hefkit.workshop.sweep.pareto import pareto
from hefkit.workshop.sweep.ranking import DONE, Row, reason, share

PICTURE, REPORT = "pareto.svg", "report.html"
NO_PICTURE = (
    "the picture of the candidates was not drawn: the Python package matplotlib is missing; pip install matplotlib"
)
NO_REPORT = (
    "no report of the winner beside the runner-up: a HEF runs on the chip only; on the Pi, validate_hef.py with both "
    "makes it"
)


def finish(run: Compilation, ranked: Sequence[Row]) -> dict[str, Any]:
    """Write everything into the folder of the sweep, and the best of the `ranked`; returns what --json prints."""
    best, why, folder = ranked[0], reason(ranked), run.options.run_dir
    output = _copy_best(best, run.options.name)
    pairs = [row for row in ranked[:2] if row.status == DONE]
    report = _report(run, pairs, folder)
    svg = pareto(ranked)
    if svg is None:
        run.warn(NO_PICTURE)
    else:
        with replacing(folder / PICTURE) as temporary:
            temporary.write_text(svg, encoding="utf-8")
    result = {
        "output": str(output),
        "run_dir": str(folder),
        "best": best.name,
        "reason": why,
        "onnx": str(run.options.onnx),
        "report": None if report is None else str(report),
        "compared": [row.key for row in pairs],
        "rows": [row.to_json() for row in ranked],
        "warnings": run.warnings,
    }
    SweepFolder(folder).write_json(result)
    return result


def table(ranked: Sequence[Row]) -> list[str]:
    """The table for people, the best first; what has failed has its reason."""
    names = [one_line(row.name, 40) for row in ranked]
    width = max(len("candidate"), *map(len, names))
    lines = [
        f"{'':>2}  {'candidate':<{width}}  {'score (95 % interval)':<24}  mAP50  mAP50-95  recall  precision"
        f"  {'MB':>6}  16 bit  contexts  {'s':>6}"
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
            f"{row.rank:>2}  {name:<{width}}  {mark:<24}  {_share(found['map50'], 5)}  {_share(found['map50_95'], 8)}"
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


def _report(run: Compilation, pairs: Sequence[Row], folder: Path) -> Path | None:
    """The report of validate_hef.py on winner and runner-up; the one that is there where both are the same."""
    before = own_json(folder / SWEEP)
    if before.get("compared") == [row.key for row in pairs] and (folder / REPORT).is_file():
        return folder / REPORT
    if not run.options.emulate:
        log.info("%s", NO_REPORT)
        return None
    items, names = _pictures(run)
    if not items:
        log.info("no report: the calibration set is an array; --data data.yaml gives it labelled pictures")
        return None
    models, labelled = [row.model for row in pairs if row.model is not None], run.options.data is not None
    try:
        result = validate(models, run.options.onnx, items, _opener(run), labelled=labelled, names=names)
        write_report(result, folder)
    except HefkitError as exc:  # the candidates have taken hours: what they are worth is told all the same
        run.warn(f"no report of the winner beside the runner-up: {one_line(exc, 1000)}")
        return None
    return result.report


def _pictures(run: Compilation) -> tuple[list[Item], dict[int, str] | None]:
    """The labelled pictures, else those of the calibration set."""
    if run.options.data is not None:
        return labelled_pictures(run.options.data, "val")
    files = [] if run.calibration is None else [p for p in run.calibration.files if p.suffix.lower() in READABLE]
    return [Item(path, str(path), PurePosixPath(path.name)) for path in files], None


def _opener(run: Compilation) -> Any:
    @contextmanager
    def open_model(path: Path) -> Iterator[Engine]:
        assert run.file is not None
        options = EngineOptions()
        float_model = path == run.options.onnx
        engine = (
            FloatEngine(path, run.file.model, run.file.sha256, options) if float_model else open_onnx(path, options)
        )
        with engine as opened:
            yield opened

    return open_model
