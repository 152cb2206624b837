"""Who gets a candidate, and who takes over: the pool on a client that answers at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hefkit.errors import ToolchainError
from hefkit.workshop.sweep import pool as pool_module
from hefkit.workshop.sweep import worker
from hefkit.workshop.sweep.job import Job
from hefkit.workshop.sweep.pool import Pool
from hefkit.workshop.sweep.settings import Candidate, Settings

FACTS = {"host": "here", "sources": worker.sources(), "sdk": "3.33.1", "card": False, "refusal": None}
DONE = {"code": 0, "error": None, "files": {}, "seconds": 1.0, "host": "here"}
BROKEN = {**DONE, "code": 5, "error": "the SDK is broken here"}


class Future:
    """What `submit` returns; a result of None never comes."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def done(self) -> bool:
        return self.value is not None

    def exception(self) -> BaseException | None:
        return self.value if isinstance(self.value, BaseException) else None

    def result(self) -> Any:
        return self.value

    def cancel(self) -> None:
        pass


class Client:
    """A cluster whose workers answer with `facts` and end a job as `ends(address, job)` says."""

    def __init__(self, facts: dict[str, Any], ends: Callable[[str, str], Any] = lambda address, name: DONE) -> None:
        self.facts, self.ends = facts, ends
        self.given: list[tuple[str, str]] = []  # (address, candidate)

    def nthreads(self) -> dict[str, int]:
        return dict.fromkeys(self.facts, 1)

    def submit(self, act: Callable[..., Any], *args: Any, workers: list[str], **rest: Any) -> Future:
        if act is worker.describe:
            return Future(self.facts[workers[0]])
        self.given.append((workers[0], args[0]["words"][0]))
        return Future(self.ends(workers[0], args[0]["words"][0]))

    def run(self, act: Callable[..., Any], *args: Any, workers: list[str], **rest: Any) -> dict[str, Any]:
        return {address: [] for address in workers}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting between two looks."""
    monkeypatch.setattr(pool_module, "POLL_S", 0)
    monkeypatch.setattr(pool_module, "PATIENCE_S", 0)


def job(name: str, *, card: bool = False) -> Job:
    """A job without inputs."""
    return Job(Candidate(name, Settings()), name, "a.hef", {}, (name,), "", None, True, card)


def outcomes(client: Client, *jobs: Job, may_start: bool = True) -> dict[str, Any]:
    """Candidate -> its outcome."""
    pool = Pool(client, (True, None, "hailo8"))
    pool.survey()
    return {done.name: outcome for done, outcome in pool.perform(jobs, lambda: may_start)}


def test_a_failure_of_the_machine_is_tried_on_another_one() -> None:
    """Exit code 5 on the first worker, done on the second; any other exit code is the candidate's own."""
    client = Client({"a": FACTS, "b": FACTS}, lambda address, name: BROKEN if address == "a" else DONE)
    own = Client({"a": FACTS, "b": FACTS}, lambda address, name: {**BROKEN, "code": 2})

    assert outcomes(client, job("one")) == {"one": DONE} and client.given == [("a", "one"), ("b", "one")]
    assert outcomes(own, job("one"))["one"]["code"] == 2 and own.given == [("a", "one")]


def test_what_fails_everywhere_is_a_row() -> None:
    """Once on each worker, then it ends with the last reason, also where only one of them has a card."""
    client = Client({"a": {**FACTS, "card": True}, "b": FACTS}, lambda address, name: BROKEN)

    assert outcomes(client, job("one", card=True)) == {"one": BROKEN}
    assert client.given == [("a", "one"), ("b", "one")]


def test_training_goes_to_the_card() -> None:
    """The worker without a card takes the other candidate, although it comes later."""
    client = Client({"a": FACTS, "b": {**FACTS, "card": True}})

    outcomes(client, job("level2", card=True), job("level0"))

    assert set(client.given) == {("b", "level2"), ("a", "level0")}


UNFIT = {
    "no SDK": {**FACTS, "refusal": "no SDK"},
    "another hefkit": {**FACTS, "sources": "x"},
    "another SDK": {**FACTS, "sdk": "3.20.0"},
    "cannot import": ModuleNotFoundError("No module named 'hefkit'"),
}


@pytest.mark.parametrize("facts", UNFIT.values(), ids=UNFIT.keys())
def test_a_worker_that_does_not_fit_gets_nothing(facts: Any, caplog: pytest.LogCaptureFixture) -> None:
    """All goes to the other one, and a line names the first."""
    client = Client({"a": FACTS, "b": facts})

    assert len(outcomes(client, job("one"), job("two"))) == 2
    assert {address for address, _ in client.given} == {"a"}
    assert "the worker b gets no candidates" in caplog.text


def test_no_worker_fits() -> None:
    """Exit 5, with the reason."""
    with pytest.raises(ToolchainError, match=r"no worker can compile it: no SDK"):
        outcomes(Client({"a": UNFIT["no SDK"]}), job("one"))
    with pytest.raises(ToolchainError, match=r"no workers.*dask worker"):
        outcomes(Client({}), job("one"))


def test_a_candidate_that_kills_its_workers_is_given_up() -> None:
    """Each of its workers is lost; after three it is a failure, and the other candidate is done."""
    client = Client({"a": FACTS})

    def ends(address: str, name: str) -> Any:
        if name == "greedy":  # its worker is gone, and another one comes
            client.facts = {f"{address}x": FACTS}
            return None
        return DONE

    client.ends = ends

    found = outcomes(client, job("greedy"), job("other"))

    assert found["other"] == DONE and "3 workers were lost" in found["greedy"]["error"]
    assert [name for _, name in client.given].count("greedy") == 3


def test_nothing_starts_after_the_time() -> None:
    """No outcome, and no worker has seen it."""
    client = Client({"a": FACTS})

    assert outcomes(client, job("one"), may_start=False) == {"one": None} and client.given == []
