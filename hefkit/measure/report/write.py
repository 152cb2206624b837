"""The folder of a report: `report.html`, `report.json` and `pictures/`, in place together or not at all."""

from __future__ import annotations

import json
import re
from pathlib import Path

from hefkit import __version__
from hefkit.files import explained
from hefkit.measure.report.page import render
from hefkit.measure.report.pictures import Row, rows
from hefkit.measure.report.plots import draw
from hefkit.measure.validate import Validation
from hefkit.pictures.find import RECORD
from hefkit.staging.stage import Staging
from hefkit.text import log

NO_PLOTS = "The curves are missing: the Python package matplotlib is not installed (pip install matplotlib)."
NO_PAGE = (
    "report.html was not written: the Python package Jinja2 is missing; pip install Jinja2 (on a Raspberry Pi: "
    "sudo apt install python3-jinja2); report.json and the pictures are there"
)


PICTURES = "pictures"
_OURS = re.compile(r"(worst|typical)-\d{6}-[\w-]+\.jpg")


def write_report(result: Validation, folder: Path) -> None:
    """Write the report into `folder`; files of an earlier report are replaced. Sets `result.report`."""
    chosen, plots = rows(result), draw(result)
    missing = [] if plots else [NO_PLOTS]
    try:
        page: str | None = render(result, chosen, plots, missing)
    except ImportError:
        page = None
        result.warn(NO_PAGE)
    result.report = folder / ("report.json" if page is None else "report.html")
    with Staging(folder) as stage:
        with explained(folder):
            written = _write_pictures(stage.path / PICTURES, chosen)
            text = json.dumps(result.to_json(), indent=1, ensure_ascii=True, allow_nan=False) + "\n"
            (stage.path / "report.json").write_text(text, encoding="ascii")
            if page is not None:
                (stage.path / "report.html").write_text(page, encoding="utf-8")
        there = folder / PICTURES
        old = [p for p in there.iterdir() if _OURS.fullmatch(p.name)] if there.is_dir() else []
        stage.commit(remove=[p for p in old if p.name not in written], last=result.report.name)
    log.info("the report: %s", result.report)


def _write_pictures(folder: Path, chosen: list[Row]) -> set[str]:
    """Write the panels, and the record by which the other steps know that these are not photographs."""
    folder.mkdir()
    names = set()
    for row in chosen:
        for title, jpeg in row.panels:
            name = f"{row.kind}-{row.index:06d}-{title.replace(' ', '-').lower()}.jpg"
            (folder / name).write_bytes(jpeg)
            names.add(name)
    record = {"tool": f"hefkit {__version__}", "files": sorted(names)}
    (folder / RECORD).write_text(json.dumps(record) + "\n", encoding="ascii")
    return names
