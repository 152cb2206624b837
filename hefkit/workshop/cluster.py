"""A Dask cluster: connect to one by its address, or start one on this machine. Dask is optional."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

from hefkit.errors import ToolchainError
from hefkit.text import one_line

CONNECT_SECONDS = 15
LOOPBACK = "127.0.0.1"
PAGE_SECONDS, PAGE_BYTES = 2, 100_000


def need_dask(flag: str) -> None:
    """Refuse (exit 5) where Dask is not installed; `flag` is what needs it."""
    if importlib.util.find_spec("distributed") is None:
        raise ToolchainError(
            f"{flag} needs the Python package distributed; install it with: python3 -m pip install 'dask[distributed]'"
        )


@contextlib.contextmanager
def connected(scheduler: str) -> Iterator[Any]:
    """A client of the cluster at this address, for `with`.

    Raises:
        ToolchainError: no Dask, or no cluster at this address.
    """
    need_dask("--scheduler")
    from distributed import Client

    try:
        client = Client(scheduler, timeout=CONNECT_SECONDS)
    except (OSError, TimeoutError, ValueError) as exc:
        raise ToolchainError(
            f"no Dask scheduler at {one_line(scheduler)} ({one_line(exc, 100)}); start one with: dask scheduler, and "
            "workers with: dask worker ADDRESS"
        ) from exc
    try:
        yield client
    finally:
        client.close()


@contextlib.contextmanager
def started(workers: int) -> Iterator[Any]:
    """A client of a new cluster that other machines cannot reach: threads of this process. They end with the block.

    Threads are enough, and start at once: a worker here only waits for the process of its candidate.
    """
    need_dask("--sweep")
    import dask
    from distributed import Client, LocalCluster

    settings = {
        "logging.distributed": "critical",  # hefkit reports failures itself
        # Dask's monitoring of itself takes a twentieth of a core, and that of each worker as much
        "distributed.worker.profile.enabled": False,
        "distributed.admin.tick.interval": "1s",
        # these workers cannot be lost alone, but all are silent while the machine or this process is halted
        "distributed.scheduler.worker-ttl": None,
        # else the link has an address that does not answer
        "distributed.dashboard.link": f"{{scheme}}://{LOOPBACK}:{{port}}/status",
    }
    with contextlib.ExitStack() as opened:
        prefix = "hefkit-dask-"
        folder = opened.enter_context(tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True))
        opened.enter_context(dask.config.set(settings))
        with warnings.catch_warnings():
            # it looks for an address that other machines reach; the cluster does not use it
            warnings.filterwarnings("ignore", "Couldn't detect a suitable IP address", RuntimeWarning)
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=False,
                dashboard_address=f"{LOOPBACK}:0",
                worker_dashboard_address=f"{LOOPBACK}:0",
                memory_limit=0,  # the candidates' processes need the memory, and Dask does not count them
                local_directory=folder,
                silence_logs=logging.CRITICAL,
            )
        opened.enter_context(cluster)
        yield opened.enter_context(Client(cluster, timeout=CONNECT_SECONDS))


def dashboard(client: Any) -> str | None:
    """The address of the cluster's page; None where it has none, because bokeh is missing there."""
    import urllib.request  # late: it takes a sixth of the start of a script that needs no cluster

    link = str(client.dashboard_link)
    try:
        with urllib.request.urlopen(link, timeout=PAGE_SECONDS) as page:
            return None if b"needs bokeh" in page.read(PAGE_BYTES) else link
    except (OSError, ValueError):
        return None
