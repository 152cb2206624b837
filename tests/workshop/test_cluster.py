"""The cluster of this machine: threads of this process that nothing outside reaches. Needs dask."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hefkit.workshop.cluster import started
from tests.conftest import ROOT

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
        port = client.scheduler_info()["services"]["dashboard"]
        assert client.dashboard_link == f"http://127.0.0.1:{port}/status"
        # a sweep that was halted for an hour (Ctrl-Z, a sleeping laptop) goes on with its workers
        assert client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.worker_ttl) is None

    assert set(listening) == {"127.0.0.1"}
    assert dict(os.environ) == before and not folder.exists()


def test_offline(tmp_path: Path) -> None:
    """Without a network nothing is printed about addresses that nobody needs."""


def test_without_a_network() -> None:
    """Where only the loopback interface exists, it works and prints nothing."""
    pytest.importorskip("distributed", reason="distributed is not installed: pip install 'dask[distributed]'")
    program = "from hefkit.workshop.cluster import started\nwith started(1) as c: print(c.submit(sum, [1, 2]).result())"
    alone = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    if shutil.which("ip") is None or subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("no network namespace can be made here")

    done = subprocess.run([*alone, sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")
