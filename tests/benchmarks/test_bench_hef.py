"""The HEF benchmark reads what it times; nothing here is about time."""

from __future__ import annotations

from collections.abc import Callable

from tests.conftest import Finished
from tests.helpers.tiny_hef import CHECKS_XXH3


def test_every_checksum_has_a_row(run_script: Callable[..., Finished]) -> None:
    """Each container version that has a checksum of its own, and memory that does not hold the weights."""
    done = run_script("benchmarks/bench_hef.py", "--megabytes", 3, "--json")

    assert done.code == 0, done.err
    expected = ["MD5", "CRC-32", *["XXH3"] * CHECKS_XXH3]
    assert [row["digest"] for row in done.json["results"]] == expected
    assert all(row["memory_mb"] < 3 and row["ratio"] > 0 for row in done.json["results"])
