"""compile_to_hef.py --sweep: plan, reuse what is finished, compile the rest on a cluster, rank, write."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hefkit.errors import HefkitError, ToolchainError, UsageError
from hefkit.pictures.memory import available_memory
from hefkit.text import counted, log, one_line
from hefkit.workshop.cluster import connected, dashboard, need_dask, started
from hefkit.workshop.compile.run import Compilation
from hefkit.workshop.dfc.machine import gpus
from hefkit.workshop.network.session import available_cores
from hefkit.workshop.sweep import worker as here
from hefkit.workshop.sweep.auto import auto_candidates
from hefkit.workshop.sweep.folder import SweepFolder
from hefkit.workshop.sweep.job import Job, Jobs
from hefkit.workshop.sweep.pool import Outcome, Pool
from hefkit.workshop.sweep.ranking import DONE, FAILED, NOT_STARTED, Row, rank, share
from hefkit.workshop.sweep.settings import Candidate, Settings

MEMORY = {True: 10 << 30, False: 3 << 29}  # bytes of a candidate: with the SDK 10 GiB and more, emulated 1.5 GiB
CORES = 4  # of a candidate, where there are many


@dataclass(frozen=True)
class Request:
    """What the flags of the sweep ask for.

    Attributes:
        candidates: of the sweep file; None: auto.
        scheduler: address of a Dask cluster; None: one is started here.
        budget_s: seconds after which no candidate is started; None: no limit.
        names: --names as given.
    """

    candidates: Sequence[Candidate] | None
    scheduler: str | None = None
    budget_s: float | None = None
    names: str | None = None


def ranked_sweep(run: Compilation, request: Request) -> list[Row]:
    """Compile all candidates and rank them, the best first.

    Args:
        run: has passed its preflight; has a calibration set if a candidate needs that of the command line; its
            `run_dir` is the folder of the sweep.

    Raises:
        UsageError: the budget was over before a candidate could start.
        DataError: a calibration set, or the labelled pictures, cannot be used.
        ModelError: the sweep adds a line to the model script that is not a statement.
        ToolchainError: no Dask, no cluster, no SDK.
        HefkitError: no candidate has finished.
    """
    return _Sweep(run, request).rows()


class _Sweep:
    def __init__(self, run: Compilation, request: Request) -> None:
        self.run, self.request, self.options = run, request, run.options
        self.folder = SweepFolder(self.options.run_dir)
        self.until = None if request.budget_s is None else time.monotonic() + request.budget_s
        self.total = 0
        self.jobs = Jobs(run, request.names)

    def rows(self) -> list[Row]:
        for candidate in self.request.candidates or ():
            self.jobs.make(candidate)  # reads its files, so that an error in them is reported first
        need_dask("--sweep")
        with contextlib.ExitStack() as stack:
            pool = self._remote(stack)
            facts = self._facts(pool)
            self.jobs.sdk = facts[0]["sdk"]
            candidates = self._candidates(card=any(f["card"] for f in facts))
            rows, waiting = self._reused(candidates)
            self.total = len(candidates)
            if waiting:
                pool = pool or self._local(stack, waiting)
                rows += self._compiled(pool, waiting)
        rows = rank(rows)
        if rows[0].status != DONE:
            raise nothing_done(rows)
        return rows

    def _remote(self, stack: contextlib.ExitStack) -> Pool | None:
        """The user's own cluster."""
        if self.request.scheduler is None:
            return None
        client = stack.enter_context(connected(self.request.scheduler))
        return self._pool(stack, client)

    def _local(self, stack: contextlib.ExitStack, waiting: Sequence[Candidate]) -> Pool:
        workers = slots(len(waiting), emulate=self.options.emulate)
        log.info("%s on this machine, %s", counted(len(waiting), "candidate"), counted(workers, "worker"))
        return self._pool(stack, stack.enter_context(started(workers)))

    def _pool(self, stack: contextlib.ExitStack, client: Any) -> Pool:
        page = dashboard(client)
        if page is not None:
            log.info("the cluster's page: %s", one_line(page))
        pool = Pool(client, self._ask(), self.jobs.sdk)
        stack.callback(pool.stop)
        return pool

    def _ask(self) -> tuple[bool, str | None, str]:
        python = self.options.sdk_python
        return not self.options.emulate, None if python is None else str(python.absolute()), self.options.hw_arch

    def _facts(self, pool: Pool | None) -> list[dict[str, Any]]:
        """What the workers have; workers on this machine have the same as this process."""
        if pool is not None:
            return pool.survey()
        facts = here.describe(*self._ask())
        if facts["refusal"] is not None:
            raise ToolchainError(facts["refusal"])
        return [facts]

    def _candidates(self, *, card: bool) -> list[Candidate]:
        if self.request.candidates is not None:
            return list(self.request.candidates)
        # the key of a candidate without settings holds all that decides the forecast
        return auto_candidates(self.run, self.jobs.make(Candidate("auto", Settings())).key, card=card)

    def _reused(self, candidates: Sequence[Candidate]) -> tuple[list[Row], list[Candidate]]:
        """The rows of candidates that are finished, and the candidates that are not."""
        rows, waiting = [], []
        for candidate in candidates:
            row = self.folder.finished(self.jobs.make(candidate))
            if row is None:
                waiting.append(candidate)
            else:
                rows.append(row)
        if rows:
            log.info("%s reused from %s", counted(len(rows), "finished candidate"), one_line(self.folder.path))
        return rows, waiting

    def _compiled(self, pool: Pool, waiting: Sequence[Candidate]) -> list[Row]:
        pool.survey()
        hars, rows = self._parsed(pool, waiting) if not self.options.emulate else ({}, [])
        made = []
        for candidate in waiting:
            chip = candidate.settings.applied(self.options).hw_arch
            if not any(row.name == candidate.name for row in rows):
                made.append(self.jobs.make(candidate, hars.get(chip, self.options.har)))
        done = self.total - len(waiting) + len(rows)
        for job, outcome in pool.perform(made, self._may_start):
            row = self._kept(job, outcome)
            rows.append(row)
            done += 1
            _tell(row, done, self.total)
        return rows

    def _parsed(self, pool: Pool, waiting: Sequence[Candidate]) -> tuple[dict[str, Path], list[Row]]:
        """Parse once for each chip; (chip -> HAR, the rows of candidates whose network cannot be parsed)."""
        if self.options.har is not None:
            return {}, []
        chips: dict[str, list[Candidate]] = {}
        for candidate in waiting:
            chips.setdefault(candidate.settings.applied(self.options).hw_arch, []).append(candidate)
        made = {chip: self.jobs.parse(chip, some[0].settings.calib) for chip, some in chips.items()}
        parses = {job.name: chip for chip, job in made.items()}
        ready = [row for job in made.values() if (row := self.folder.finished(job)) is not None]
        todo = [job for job in made.values() if job.name not in {row.name for row in ready}]
        if todo:
            log.info("parsing the network for %s, once for all candidates", ", ".join(parses[job.name] for job in todo))
        ready += [self._kept(job, outcome) for job, outcome in pool.perform(todo, lambda: True)]
        hars = {parses[row.name]: row.model for row in ready if row.model is not None}
        failed = []
        for row in ready:
            if row.status == FAILED:
                for candidate in chips[parses[row.name]]:
                    blank = self._blank(self.jobs.make(candidate))
                    failed.append(replace(blank, status=FAILED, exit_code=row.exit_code, error=f"parsing: {row.error}"))
        return hars, failed

    def _kept(self, job: Job, outcome: Outcome | None) -> Row:
        return self._blank(job) if outcome is None else self.folder.keep(job, outcome)

    def _blank(self, job: Job) -> Row:
        return Row(job.name, job.candidate.settings.to_json(), job.command, key=job.key)

    def _may_start(self) -> bool:
        return self.until is None or time.monotonic() < self.until


def slots(candidates: int, *, emulate: bool) -> int:
    """How many candidates run on this machine at once: by memory, cores and, with the SDK, graphics cards."""
    free = available_memory()
    by_memory = candidates if free is None else free // MEMORY[not emulate]
    cores = available_cores()
    by_cores = max(cores // CORES, min(cores, 2))
    by_cards = candidates if emulate else len(gpus()) or candidates
    return int(max(min(candidates, by_memory, by_cores, by_cards), 1))


def _tell(row: Row, done: int, total: int) -> None:
    """One line a candidate."""
    if row.status == DONE:
        log.info(
            "[%d/%d] %s: %s, %.1f MB, %.0f s",
            done,
            total,
            row.name,
            share(row),
            row.figures["bytes"] / 1e6,
            row.seconds or 0,
        )
    elif row.status == NOT_STARTED:
        log.info("[%d/%d] %s: not started within --budget", done, total, row.name)
    else:
        log.warning("[%d/%d] %s failed (exit code %s): %s", done, total, row.name, row.exit_code, one_line(row.error))


def nothing_done(rows: Sequence[Row]) -> HefkitError:
    """The error of a sweep without a finished candidate: that of its candidates where all have the same code."""
    failed = [row for row in rows if row.status == FAILED]
    if not failed:
        return UsageError("--budget was over before a candidate could start; expected more minutes")
    kinds = {kind.exit_code: kind for kind in HefkitError.__subclasses__()}
    codes = {row.exit_code for row in failed}
    kind = kinds.get(codes.pop() or 0, ToolchainError) if len(codes) == 1 else ToolchainError
    return kind(f"no candidate has finished; the first: {failed[0].name}: {failed[0].error}")
