#!/usr/bin/env python3
"""How long a HEF takes to read: nearly all of it is the checksum over the weights.

  bench_hef.py                          30 MB of random weights in every container version
  bench_hef.py --megabytes 3 --json

Beside each stands SHA-256 over the same bytes, measured in turns. Version 2 is left out without the package xxhash,
which computes its checksum. `memory_mb` is the most that reading takes, in a run of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from hefkit import cli
from hefkit.hef.file import read_hef
from tests.helpers.tiny_hef import CHECKS_XXH3, field, hef_file, yolo_hef

RUNS = 5
DIGESTS = {"MD5": 0, "CRC-32": 1, "XXH3": 2}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = cli.Parser(__doc__)
    parser.add_argument("--megabytes", type=cli.whole_number(1, 1000), default=30, metavar="N", help="of weights (30)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Make the files, time them, tell."""
    args = parse_args(argv)
    weights = os.urandom(args.megabytes << 20)
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for name in DIGESTS if (row := measured(name, weights, Path(folder) / "made.hef")) is not None]
    if args.json:
        cli.print_json({"megabytes": args.megabytes, "runs": RUNS, "results": rows})
        return 0
    sys.stdout.write(f"{args.megabytes} MB, median of {RUNS} runs\n")
    for row in rows:
        sys.stdout.write(
            f"version {row['container_version']}, {row['digest']:6} {row['seconds']:7.3f} s   "
            f"SHA-256 {row['sha256_s']:7.3f} s   ratio {row['ratio']:5.2f}   memory {row['memory_mb']:5.2f} MB\n"
        )
    return 0


def measured(name: str, weights: bytes, path: Path) -> dict[str, Any] | None:
    """One row, or None where the package for it is missing."""
    version = DIGESTS[name]
    if not CHECKS_XXH3 and version == 2:
        return None
    inside = {"ccws": weights} if version else {}
    path.write_bytes(hef_file(yolo_hef() + (b"" if version else field(3, weights)), version, **inside))
    ours, theirs = in_turns(lambda: read(path), lambda: hashlib.sha256(path.read_bytes()).digest())
    memory = peak_mb(lambda: read(path))
    return {"digest": name, "container_version": version, "seconds": ours, "sha256_s": theirs, "ratio": ours / theirs,
            "memory_mb": memory}  # fmt: skip


def read(path: Path) -> None:
    """Read the file, and see that its checksum fits."""
    if not read_hef(path).digest_ok:
        raise SystemExit("the checksum does not fit")


def in_turns(ours: Callable[[], object], theirs: Callable[[], object]) -> tuple[float, float]:
    """Median seconds of both, one after the other, so that a busy moment hits both."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(RUNS):
        for taken, work in zip(times, (ours, theirs), strict=True):
            start = time.perf_counter()
            work()
            taken.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def peak_mb(work: Callable[[], object]) -> float:
    """The most memory that Python held at once."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


if __name__ == "__main__":
    cli.run(main)
