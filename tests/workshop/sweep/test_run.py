"""How many candidates run at once, and what a sweep without a result says."""

from __future__ import annotations

import pytest

from hefkit.errors import GateError, HefkitError, ToolchainError, UsageError
from hefkit.workshop.sweep import run
from hefkit.workshop.sweep.ranking import FAILED, Row

GIB = 1 << 30
SLOTS = {
    "two cores": (64 * GIB, 2, 0, True, 2),
    "many cores": (64 * GIB, 32, 0, True, 8),
    "little memory": (4 * GIB, 32, 0, True, 2),
    "the SDK": (64 * GIB, 32, 0, False, 6),
    "two cards": (64 * GIB, 32, 2, False, 2),
    "too little for one": (1 * GIB, 2, 0, False, 1),
    "memory that is not known": (None, 4, 0, True, 2),
}


@pytest.mark.parametrize("memory, cores, cards, emulate, expected", SLOTS.values(), ids=SLOTS.keys())
def test_workers_fit_the_machine(
    memory: int | None, cores: int, cards: int, emulate: bool, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """10 GiB a candidate with the SDK, 1.5 GiB emulated; a card each; a quarter of the cores, or two."""
    monkeypatch.setattr(run, "available_memory", lambda: memory)
    monkeypatch.setattr(run, "available_cores", lambda: cores)
    monkeypatch.setattr(run, "gpus", lambda: ["card"] * cards)

    assert run.slots(10, emulate=emulate) == expected
    assert run.slots(1, emulate=emulate) == 1


ENDS: dict[str, tuple[list[int | None], type[HefkitError]]] = {
    "all below the gate": ([7, 7], GateError),
    "different reasons": ([7, 4], ToolchainError),
    "a bug": ([1, 1], ToolchainError),
    "no time": ([], UsageError),
}


@pytest.mark.parametrize("codes, kind", ENDS.values(), ids=ENDS.keys())
def test_the_exit_code_without_a_result(codes: list[int | None], kind: type[HefkitError]) -> None:
    """Where they agree; the first reason is told."""
    rows = [Row(f"c{i}", {}, "", status=FAILED, exit_code=code, error="why") for i, code in enumerate(codes)]

    error = run.nothing_done(rows)

    assert type(error) is kind
    assert not rows or "c0: why" in str(error)
