"""A toy network with pictures, made once and copied for every test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.sdk import fork_the_worker
from tests.helpers.sdk_run import Bench


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The files that no test changes."""
    return Bench.make(tmp_path_factory.mktemp("bench"))


@pytest.fixture
def fresh_bench(pristine: Bench, tmp_path: Path) -> Bench:
    """A toy network with pictures, in a folder of the test; the SDK is started as a user's run does."""
    return pristine.copy(tmp_path)


@pytest.fixture
def bench(fresh_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """The same, but the SDK's processes are forked from a warm interpreter."""
    fork_the_worker(monkeypatch)
    return fresh_bench
