"""--scheduler: the same choice on a Dask cluster, also when a worker is lost. Needs dask, which is optional."""

from __future__ import annotations

import importlib.util
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hefkit.errors import DataError, ToolchainError
from hefkit.spec import InputSpec
from hefkit.workshop.calibration.choice import cluster as cluster_module
from hefkit.workshop.calibration.choice.cluster import open_lookers
from hefkit.workshop.calibration.choice.scan import CHUNK
from hefkit.workshop.calibration.make import SetRequest, make_set
from hefkit.workshop.calibration.sources import find_sources
from hefkit.workshop.calibration.stage import Workers
from tests.helpers.dask_settings import FEWER_CYCLES
from tests.helpers.pictures import noise, write

pytestmark = [
    pytest.mark.xdist_group("dask"),  # one process for all tests, so that they share the cluster
    pytest.mark.filterwarnings("default"),  # of dask
]

DASK = importlib.util.find_spec("distributed") is not None
needs_dask = pytest.mark.skipif(not DASK, reason="distributed is not installed: pip install 'dask[distributed]'")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hundred small pictures and a broken one."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(200):
        write(folder / f"{i:03d}.jpg", noise(40 + i % 5, 30, seed=i // 2))
    (folder / "broken.jpg").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A scheduler and two workers, each in a process of its own; a worker that is killed is started again."""
    import dask
    from distributed import LocalCluster

    before = set(os.environ)
    with (
        dask.config.set(FEWER_CYCLES),
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as local,
    ):
        for name in set(os.environ) - before:  # Dask leaves what it sets for its workers
            del os.environ[name]
        yield local


def make(photos: Path, out: Path, scheduler: str | None, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A diverse set, with nothing known from earlier runs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(out) + "-cache")
    request = SetRequest(str(photos), out, InputSpec((32, 32)), 20, "diverse", 3, "npy", 2, scheduler)
    manifest = make_set(request, find_sources([str(photos)], None, out).items)
    return {**manifest, "created": ""}


@needs_dask
@pytest.mark.slow
@pytest.mark.parametrize("lost", [False, True], ids=["all workers", "one is killed"])
def test_a_cluster_makes_the_same_set(
    photos: Path, tmp_path: Path, cluster: Any, lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Byte for byte, the list of unreadable pictures and the coverage included."""
    here = make(photos, tmp_path / "here", None, monkeypatch)
    look = cluster_module.Cluster.look

    def interrupted(self: Any, groups: Any) -> Iterator[Any]:
        for count, result in enumerate(look(self, groups)):
            if lost and count == 1:
                os.kill(next(iter(cluster.workers.values())).pid, signal.SIGKILL)
            yield result

    monkeypatch.setattr(cluster_module.Cluster, "look", interrupted)

    there = make(photos, tmp_path / "there", cluster.scheduler_address, monkeypatch)

    assert there == here


@needs_dask
@pytest.mark.slow
def test_what_was_seen_before_a_failure_is_kept(
    photos: Path, tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group that fails on the workers is one sentence; the next run, here, looks at the others only."""
    look = cluster_module.Cluster.look

    def failing(self: Any, groups: Any) -> Iterator[Any]:
        for count, result in enumerate(look(self, groups)):
            if count == 3:
                raise DataError("the cluster could not look at the pictures")
            yield result

    with monkeypatch.context() as patched:
        patched.setattr(cluster_module.Cluster, "look", failing)
        with pytest.raises(DataError, match="could not look"):
            make(photos, tmp_path / "out", cluster.scheduler_address, patched)

    seen: list[int] = []
    with Workers(1) as workers, open_lookers(None, workers) as lookers:
        whole = type(lookers).look
        monkeypatch.setattr(
            type(lookers), "look", lambda self, groups: (seen.append(sum(map(len, groups))), whole(self, groups))[1]
        )
    make(photos, tmp_path / "out", None, monkeypatch)

    assert seen == [201 - 3 * CHUNK]


@needs_dask
def test_no_scheduler_there(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 5, with the address and the command that starts one."""
    monkeypatch.setattr("hefkit.workshop.cluster.CONNECT_SECONDS", 1)

    with pytest.raises(ToolchainError, match=r"no Dask scheduler at tcp://127\.0\.0\.1:9.*dask scheduler"):
        make(photos, tmp_path / "out", "tcp://127.0.0.1:9", monkeypatch)


@pytest.mark.skipif(DASK, reason="distributed is installed here")
def test_without_dask_the_package_is_named(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 5, and the command that installs it; nothing is left behind."""
    with pytest.raises(ToolchainError, match=r"pip install 'dask\[distributed\]'"):
        make(photos, tmp_path / "out", "tcp://127.0.0.1:9", monkeypatch)

    assert not (tmp_path / "out").exists()
