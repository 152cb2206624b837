"""Look at pictures with threads of this machine, or with the workers of a Dask cluster. The result is the same."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from hefkit.errors import DataError
from hefkit.text import log, one_line
from hefkit.workshop.calibration.choice.look import Target, look_at_targets
from hefkit.workshop.calibration.choice.scan import Lookers, Threads
from hefkit.workshop.calibration.stage import Workers
from hefkit.workshop.cluster import connected

RETRIES = 3  # of a group of pictures whose worker was lost
IN_FLIGHT = 2000  # groups that are handed to the cluster at once; bounds the memory of the scheduler


@contextlib.contextmanager
def open_lookers(scheduler: str | None, workers: Workers) -> Iterator[Lookers]:
    """Lookers for `with`.

    Raises:
        ToolchainError: no Dask, or no cluster at this address.
    """
    if scheduler is None:
        yield Threads(workers)
        return
    with connected(scheduler) as client:
        log.info("the cluster at %s has %d threads", one_line(scheduler), sum(client.nthreads().values()))
        yield Cluster(client)


class Cluster:
    """Lookers on a Dask cluster, whose workers see the files under the same paths and can import hefkit."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def look(self, groups: Sequence[Sequence[Target]]) -> Iterator[tuple[int, list[bytes | str]]]:
        """See Lookers. If a worker is lost, other workers do its share of the work."""
        from distributed import as_completed

        waiting = iter(enumerate(groups))
        numbers: dict[str, int] = {}
        running = as_completed()

        def hand_out(count: int) -> None:
            for number, group in itertools.islice(waiting, count):
                future = self._client.submit(look_at_targets, list(group), pure=False, retries=RETRIES)
                numbers[future.key] = number
                running.add(future)

        hand_out(IN_FLIGHT)
        for future in running:
            try:
                result = future.result()
            except Exception as exc:
                raise DataError(
                    f"the cluster could not look at the pictures ({one_line(type(exc).__name__, 60)}: "
                    f"{one_line(exc, 200)}); its workers need hefkit (PYTHONPATH), numpy and OpenCV, and the pictures "
                    "under the same paths; what was seen is kept, run the command again"
                ) from exc
            yield numbers.pop(future.key), result
            hand_out(1)
