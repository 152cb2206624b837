"""Damaged HEFs whose digest and lengths are right, so that nothing but the reader itself can refuse them.

All are read in a worker process, whose memory is measured: whatever a file says, the result is JSON or one sentence,
in bounded memory. `pytest -m mutations` (or `make mutations`) is the long run; it prints its figures.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hefkit.hef.container import LAYOUTS, read_container
from tests.helpers import hef_worker
from tests.helpers.hef_kinds import KINDS
from tests.helpers.mutations import MUTATIONS, flip, insert, truncate
from tests.helpers.tiny_hef import hef_file

SAMPLES = ["y8_v2", "y8_v3", "y8_8l", "y8_nms"]
MOST_MB = 50
Reader = subprocess.Popen[str]
# what is damaged: mostly the message, sometimes the header as well; a huge message takes as long as a hundred others
WAYS = [way for way in MUTATIONS for _ in range(1 if way == "huge" else 3)] + ["container"]

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="memory is measured by Linux's /proc"
)


@dataclass
class Run:
    """What became of the mutations."""

    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    cpu_s: float = 0.0  # of the one that needed most
    slowest: str = ""
    grown_mb: float = 0.0

    def keep(self, way: str, reply: dict[str, Any]) -> None:
        """Count a reply."""
        if not self.seconds or reply["seconds"] > max(self.seconds):
            self.slowest = way
        self.seconds.append(reply["seconds"])
        self.cpu_s = max(self.cpu_s, reply["cpu_s"])
        self.grown_mb = reply["grown_mb"]  # the peak so far
        self.outcomes[reply["outcome"]] += 1

    def __str__(self) -> str:
        middle = sorted(self.seconds)[len(self.seconds) // 2]
        return (
            f"{len(self.seconds)} mutations: {self.outcomes['read']} read, {self.outcomes['refused']} refused; "
            f"median {middle * 1e3:.2f} ms, slowest {max(self.seconds):.3f} s ({self.slowest}), "
            f"most processor time {self.cpu_s:.3f} s, "
            f"memory grew by {self.grown_mb:.1f} MB"
        )


def mutated(good: bytes, rng: random.Random) -> tuple[str, bytes]:
    """(what was done, a whole file)."""
    way = rng.choice(WAYS)
    if way == "container":
        whole = hef_file(good, rng.choice([*LAYOUTS]))
        return way, rng.choice((flip, insert, truncate))(whole[:64], rng) + whole[64:]
    damaged = MUTATIONS[way](good, rng)
    if rng.random() < 0.2 and damaged:
        second = rng.choice(("flip", "insert", "delete"))
        way, damaged = f"{way}, {second}", MUTATIONS[second](damaged, rng)
    return way, hef_file(damaged, rng.choice([*LAYOUTS]))


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """The process that reads, one for all: its memory must stay bounded over all of them."""
    good = tmp_path_factory.mktemp("good") / "good.hef"
    good.write_bytes(hef_file(KINDS["NMS 12"]()))
    with hef_worker.started(good) as process:
        yield process
        process.terminate()


def run(reader: Reader, good: bytes, count: int, seed: str, folder: Path) -> Run:
    """Let so many mutations of a message be read."""
    rng, result, path = random.Random(seed), Run(), folder / "mutated.hef"
    for _ in range(count):
        way, data = mutated(good, rng)
        path.write_bytes(data)
        reply = hef_worker.ask(reader, path)
        assert reply["outcome"] in ("read", "refused"), f"{way}: {reply['outcome']}; the file is {path}"
        result.keep(way, reply)
    return result


def message(path: Path) -> bytes:
    """The protobuf message of a file."""
    with open(path, "rb") as file:
        start, end = read_container(file).proto_span
    return path.read_bytes()[start:end]


def checked(result: Run) -> Run:
    """The bound on memory, and that the mutations did both: pass and fail."""
    assert result.grown_mb < MOST_MB
    assert result.outcomes["read"] and result.outcomes["refused"]
    return result


@pytest.mark.parametrize("sample", SAMPLES)
def test_mutated_samples(shared: Path, tmp_path: Path, reader: Reader, sample: str) -> None:
    """300 of each sample, the same every time."""
    checked(run(reader, message(shared / f"models/hef/{sample}.hef"), 300, sample, tmp_path))


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_kinds(tmp_path: Path, reader: Reader, kind: str) -> None:
    """Some of every kind that our builders know."""
    checked(run(reader, KINDS[kind](), 40, kind, tmp_path))


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Iterator[list[str]]:
    """Lines that are printed however pytest was started."""
    lines: list[str] = []
    yield lines
    with capsys.disabled():
        sys.stdout.write("".join(f"\n{line}" for line in lines))


@pytest.mark.mutations
@pytest.mark.parametrize("sample", SAMPLES)
def test_many_mutated_samples(shared: Path, tmp_path: Path, reader: Reader, sample: str, told: list[str]) -> None:
    """10,000 of each sample."""
    result = run(reader, message(shared / f"models/hef/{sample}.hef"), 10_000, f"many {sample}", tmp_path)

    told.append(f"{sample}: {result}")
    checked(result)


@pytest.mark.mutations
@pytest.mark.parametrize("kind", KINDS)
def test_many_mutated_kinds(tmp_path: Path, reader: Reader, kind: str, told: list[str]) -> None:
    """1,000 of every kind."""
    result = run(reader, KINDS[kind](), 1_000, f"many {kind}", tmp_path)

    told.append(f"{kind}: {result}")
    checked(result)


def test_every_mutation_changes_something() -> None:
    """And keeps enough of the message to be worth reading."""
    good = KINDS["NMS 12"]()
    for name, way in MUTATIONS.items():
        results = {way(good, random.Random(seed)) for seed in range(20)}
        assert results - {good} and len(results) > 3, name
