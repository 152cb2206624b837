"""The folder of a sweep, `runs/sweep/NAME`: a folder a candidate, and the record by which a finished one is reused.

sweep.json             rows, the winner, and why
forecast.json          of --sweep auto
report.html            the winner beside the runner-up, emulated
pareto.svg             accuracy over cost
parsed-CHIP/           the parsed network that all candidates of a chip start from (with the SDK)
CANDIDATE/             CANDIDATE.hef or CANDIDATE.emulated.onnx with its JSON
    run/               its run folder
    log.txt            all that it printed
    script.mscript     its base script, where the sweep added lines to it
    candidate.json     key, figures and command; written last, when the other files are complete
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hefkit import __version__
from hefkit.errors import UsageError
from hefkit.files import check_writable, existing, explained, is_plain, own_json
from hefkit.staging.journal import settle
from hefkit.staging.stage import Staging
from hefkit.workshop.sweep.job import LOCAL, Job
from hefkit.workshop.sweep.ranking import DONE, FAILED, Row, figures
from hefkit.workshop.sweep.worker import RUN

RECORD = "candidate.json"
SWEEP = "sweep.json"


def check_folder(path: Path) -> None:
    """Refuse (exit 2) a folder that cannot be written, or whose sweep.json is another program's."""
    check_writable(path)
    settle(path)
    record = path / SWEEP
    if existing(record) and not own_json(record):
        raise UsageError(f"{record} is not hefkit's and would be replaced; choose another --run-dir")


class SweepFolder:
    """The folder of one sweep, with a folder for each candidate."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def finished(self, job: Job) -> Row | None:
        """The row of a candidate that was finished with the same key; None: it must run."""
        folder = self.path / job.name
        settle(folder)
        record = own_json(folder / RECORD)
        model = folder / job.product
        if record.get("key") != job.key or not model.is_file() or not isinstance(record.get("figures"), dict):
            return None
        if hashlib.sha256(model.read_bytes()).hexdigest() != record.get("sha256"):
            return None
        row = self._row(job, DONE, record["figures"])
        row.seconds, row.worker, row.reused, row.model = record.get("seconds"), record.get("worker"), True, model
        row.exit_code = 0
        return row

    def keep(self, job: Job, outcome: Mapping[str, Any]) -> Row:
        """Write the files that a worker has returned, and the record of the candidate; returns its row."""
        files = {name: data for name, data in outcome["files"].items() if is_plain(name)}
        report = self._report(files)
        failed = bool(outcome["code"]) or report is None or job.product not in files
        row = self._row(job, FAILED if failed else DONE, {})
        row.seconds, row.worker = outcome["seconds"], outcome["host"]
        row.exit_code, row.error = outcome["code"], outcome["error"]
        if failed:
            row.error = row.error or "it ended without a model"
        elif report is not None:
            row.figures = figures(report, len(files[job.product]))
            row.model = self.path / job.name / job.product
        if job.script is not None:
            files[LOCAL.script] = job.script.encode()
        self._write(job, row, files)
        return row

    def write_json(self, value: Mapping[str, Any]) -> None:
        """sweep.json."""
        with Staging(self.path) as stage:
            with explained(self.path):
                text = json.dumps({"tool": f"hefkit {__version__}", **value}, indent=1, allow_nan=False)
                (stage.path / SWEEP).write_text(text + "\n", encoding="ascii")
            stage.commit()

    def _row(self, job: Job, status: str, known: dict[str, Any]) -> Row:
        return Row(job.name, job.candidate.settings.to_json(), job.command, status=status, key=job.key, figures=known)

    def _report(self, files: Mapping[str, bytes]) -> dict[str, Any] | None:
        try:
            value = json.loads(files[f"{RUN}/report.json"])
        except (KeyError, ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None

    def _write(self, job: Job, row: Row, files: dict[str, bytes]) -> None:
        folder = self.path / job.name
        names = own_json(folder / RECORD).get("files")
        old = [folder / name for name in names if is_plain(name)] if isinstance(names, list) else []
        with Staging(folder) as stage:
            with explained(folder):
                for name, data in files.items():
                    place = stage.path / name
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.write_bytes(data)
                record = {
                    "format": 1,
                    "tool": f"hefkit {__version__}",
                    **row.to_json(),
                    "figures": row.figures,
                    "sha256": None if row.model is None else hashlib.sha256(files[job.product]).hexdigest(),
                    "files": sorted(files),
                    "key": job.key if row.status == DONE else None,
                }
                (stage.path / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            stage.commit(remove=[p for p in old if p.is_file()], last=RECORD)
