"""A toy network with pictures, made once and copied for every test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.sdk_run import Bench


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The files that no test changes."""
    return Bench.make(tmp_path_factory.mktemp("bench"))


@pytest.fixture
def bench(pristine: Bench, tmp_path: Path) -> Bench:
    """A toy network with pictures, in a folder of the test."""
    return pristine.copy(tmp_path)
