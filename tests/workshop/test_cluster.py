"""The cluster of this machine: threads of this process that nothing outside reaches. Needs dask."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hefkit.workshop.cluster import started

pytestmark = [
    pytest.mark.xdist_group("dask"),
    pytest.mark.filterwarnings("default"),  # of dask
]


def test_a_cluster_of_this_machine() -> None:
    """Two workers in this process, each its own; only the loopback interface listens; the environment is as before."""
    pytest.importorskip("distributed", reason="distributed is not installed: pip install 'dask[distributed]'")
    import psutil  # of distributed

    before = dict(os.environ)
    with started(2) as client:
        assert list(client.nthreads().values()) == [1, 1] and set(client.run(os.getpid).values()) == {os.getpid()}
        listening = [c.laddr.ip for c in psutil.Process().net_connections() if c.status == psutil.CONN_LISTEN]
        folder = Path(next(iter(client.run(lambda dask_worker: dask_worker.local_directory).values())))
        assert folder.is_dir()

    assert set(listening) == {"127.0.0.1"}
    assert dict(os.environ) == before and not folder.exists()
