"""The workers of a cluster, each with one candidate at a time: which workers fit, and which candidate each one gets.

Dask must not move a candidate: this module chooses its worker. It chooses no worker that has had the candidate before,
and none without the SDK. The inputs are sent to a worker once.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from hefkit.errors import ToolchainError
from hefkit.text import log, one_line
from hefkit.workshop.sweep import worker as remote
from hefkit.workshop.sweep.job import Job

POLL_S = 0.2
PATIENCE_S = 60.0  # without any worker that fits; a new one may be starting
LOST = 3  # workers that one candidate may lose
TOOLCHAIN = ToolchainError.exit_code  # a failure of the machine, which another machine may not have

_UNREACHABLE = (OSError, TimeoutError, ValueError, KeyError, ImportError, RuntimeError)

Outcome = dict[str, Any]  # what worker.perform returns


@dataclass
class _Worker:
    address: str
    asked: Any  # the future of `describe`
    facts: dict[str, Any] | None = None
    refusal: str | None = None
    job: Job | None = None
    running: Any = None  # the future of `perform`


@dataclass
class Pool:
    """The workers of a client's cluster.

    Attributes:
        sdk: whether the SDK is needed.
        version: of the SDK that this sweep uses; None: that of the first worker which has one.
        ask: the arguments of `describe`.
    """

    client: Any
    ask: tuple[bool, str | None, str]
    version: str | None = None
    _workers: dict[str, _Worker] = field(default_factory=dict)
    _last_fit: float = field(default_factory=time.monotonic)

    def survey(self) -> list[dict[str, Any]]:
        """What each worker that fits has; waits until all have answered.

        Raises:
            ToolchainError: none fits; it says why.
        """
        until = time.monotonic() + PATIENCE_S
        self._refresh()
        while not self._workers or any(w.facts is None and w.refusal is None for w in self._workers.values()):
            if not self._workers and time.monotonic() > until:
                raise ToolchainError(
                    "the cluster has no workers; expected at least one; start one with: dask worker ADDRESS"
                )
            time.sleep(POLL_S)
            self._refresh()
        facts = [w.facts for w in self._workers.values() if w.facts is not None]
        if not facts:
            raise ToolchainError(self._no_worker())
        return facts

    def perform(self, jobs: Sequence[Job], may_start: Callable[[], bool]) -> Iterator[tuple[Job, Outcome | None]]:
        """Run the jobs in their order; each with its outcome, or None if it was not started in time."""
        waiting, tried, lost = deque(jobs), {job.name: set[str]() for job in jobs}, Counter[str]()
        while waiting or any(w.job for w in self._workers.values()):
            for job in self._refresh():
                lost[job.name] += 1
                if lost[job.name] < LOST:
                    log.warning("%s: its worker was lost; it starts again on another one", job.name)
                    waiting.appendleft(job)
                else:
                    yield job, _failure(f"{LOST} workers were lost while they compiled it; look at their memory")
            if waiting and not may_start():
                yield from ((job, None) for job in waiting)
                waiting.clear()
            self._hand_out(waiting, tried)
            for job, outcome in list(self._finished()):
                others = [w for w in self._workers.values() if w.facts and w.address not in tried[job.name]]
                if outcome["code"] == TOOLCHAIN and others:
                    log.warning("%s: %s (%s); trying another worker", job.name, outcome["error"], outcome["host"])
                    waiting.appendleft(job)
                else:
                    yield job, outcome
            yield from self._without_worker(waiting, tried)
            time.sleep(POLL_S)

    def stop(self) -> None:
        """End what the workers compute."""
        for worker in self._workers.values():
            if worker.running is not None:
                worker.running.cancel()
        with contextlib.suppress(Exception):  # a worker that is gone computes nothing
            busy = [w.address for w in self._workers.values() if w.job is not None]
            if busy:
                self.client.run(remote.stop, workers=busy, on_error="ignore")

    def _refresh(self) -> list[Job]:
        """Look for new workers, and for lost ones, whose jobs are returned."""
        try:
            there = set(self.client.nthreads())
        except (OSError, TimeoutError, ValueError) as exc:
            raise ToolchainError(f"the Dask scheduler is gone ({one_line(exc, 100)}); start it, and run again") from exc
        for address in sorted(there - set(self._workers)):
            asked = self.client.submit(remote.describe, *self.ask, **_only(address))
            self._workers[address] = _Worker(address, asked)
        jobs = [w.job for a, w in self._workers.items() if a not in there and w.job is not None]
        for address in set(self._workers) - there:
            gone = self._workers.pop(address)
            for future in (gone.asked, gone.running):
                if future is not None:
                    future.cancel()
        for worker in self._workers.values():
            if worker.asked is not None and worker.asked.done():
                self._judge(worker)
        return jobs

    def _judge(self, worker: _Worker) -> None:
        """Whether a worker that has answered fits."""
        asked, worker.asked = worker.asked, None
        if asked.exception() is not None:
            what = one_line(asked.exception(), 120)
            worker.refusal = f"it or the scheduler cannot run hefkit ({what}); both need this checkout on PYTHONPATH"
        else:
            facts = asked.result()
            worker.refusal = facts["refusal"]
            if facts["sources"] != remote.sources():
                worker.refusal = "it has another version of hefkit; copy this one there"
            if worker.refusal is None and self.ask[0]:
                self.version = self.version or facts["sdk"]
                if facts["sdk"] != self.version:
                    worker.refusal = f"it has the SDK {facts['sdk']}, and this sweep compiles with {self.version}"
            worker.facts = facts if worker.refusal is None else None
        if worker.refusal is not None:
            log.warning("the worker %s gets no candidates: %s", one_line(worker.address), worker.refusal)

    def _hand_out(self, waiting: deque[Job], tried: dict[str, set[str]]) -> None:
        for worker in self._workers.values():
            if worker.facts is None or worker.job is not None:
                continue
            mine = [job for job in waiting if self._suits(worker, job, tried[job.name])]
            if not mine:
                continue
            # a machine with a card takes the jobs for a card first
            job = next((j for j in mine if j.card), mine[0]) if worker.facts["card"] else mine[0]
            tried[job.name].add(worker.address)
            try:
                self._send(worker.address, job)
                wire = job.wire(self.ask[1], self._place(worker))
                worker.running = self.client.submit(remote.perform, wire, **_only(worker.address))
            except _UNREACHABLE as exc:
                log.warning("the worker %s does not take inputs: %s", one_line(worker.address), one_line(exc, 200))
                worker.facts, worker.refusal = None, "it does not take inputs"
                continue
            worker.job = job
            waiting.remove(job)

    def _suits(self, worker: _Worker, job: Job, tried: set[str]) -> bool:
        """Whether a worker may take a job: not a second time, and not if another one with the card for it is left."""
        if worker.address in tried or worker.facts is None:
            return False
        cards = [w for w in self._workers.values() if w.facts and w.facts["card"] and w.address not in tried]
        return worker in cards or not (job.card and cards)

    def _place(self, worker: _Worker) -> int:
        """The number of a worker among the busy and idle ones of its machine."""
        host = worker.facts and worker.facts["host"]
        return sorted(w.address for w in self._workers.values() if w.facts and w.facts["host"] == host).index(
            worker.address
        )

    def _send(self, address: str, job: Job) -> None:
        """Send the inputs that this worker does not have yet."""
        blobs = {blob.digest: blob for blob in job.inputs.values()}
        for digest in self.client.run(remote.missing, sorted(blobs), workers=[address])[address]:
            self.client.run(remote.store, digest, blobs[digest].read(), workers=[address])

    def _finished(self) -> Iterator[tuple[Job, Outcome]]:
        for worker in self._workers.values():
            if worker.job is None or not worker.running.done():
                continue
            job, future = worker.job, worker.running
            worker.job = worker.running = None
            exc = future.exception()
            if exc is None:
                yield job, future.result()
            else:
                name = one_line(type(exc).__name__, 60)
                yield job, {**_failure(f"the worker failed ({name}: {one_line(exc, 300)})"), "host": worker.address}

    def _without_worker(self, waiting: deque[Job], tried: dict[str, set[str]]) -> Iterator[tuple[Job, Outcome]]:
        """Jobs that no worker can take, after PATIENCE_S in which no new worker has started either."""
        fit = [w for w in self._workers.values() if w.facts is not None or w.asked is not None]
        stuck = [j for j in waiting if all(w.address in tried[j.name] for w in fit)]
        if not stuck or any(w.job for w in fit):
            self._last_fit = time.monotonic()
        elif time.monotonic() - self._last_fit > PATIENCE_S:
            for job in stuck:
                waiting.remove(job)
                yield job, _failure(self._no_worker())

    def _no_worker(self) -> str:
        reasons = "; ".join(dict.fromkeys(w.refusal for w in self._workers.values() if w.refusal))
        return f"no worker can compile it: {reasons or 'all have failed or are gone'}"


def _failure(error: str) -> Outcome:
    return {"code": TOOLCHAIN, "error": error, "files": {}, "seconds": None, "host": None}


def _only(address: str) -> dict[str, Any]:
    """For `submit`: run on this worker and no other, and never reuse the result of an earlier call."""
    return {"workers": [address], "allow_other_workers": False, "pure": False, "retries": 0}
