#!/usr/bin/env python3
"""How fast a calibration set is made: ours, the straightforward loops, and decoding alone, on the same files.

Examples:
  bench_calibration.py photos                       photographs of any sizes, as they are
  bench_calibration.py photos --copies 4 --rounds 5 --json
  bench_calibration.py --memory 100 20000           peak memory, each count in a process of its own, own pictures

The kinds take turns in every round, and the best round of each counts. `decode` reads and decodes every file on one
thread (cv2.imread). `naive npy` does imread, letterbox-sized resize and RGB on one thread and then np.save; `naive png`
the same with imwrite. Ours makes a whole set with --select random of every file: array or pictures, hashes, read-back
check, contact sheet, coverage, manifest. `least npy` is what that promises at the least, on one thread: every file
read, hashed, decoded and letterboxed, the array written and hashed; two cores are at most twice as fast.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from hefkit import cli
from hefkit.errors import DataError
from hefkit.text import log

SIDE = 640  # pixels
SMALL_SIDE = 64  # pixels; for the memory of many pictures, which must not need 25 GB of disk


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; nothing is opened."""
    parser = cli.Parser(__doc__)
    parser.add_argument("folder", nargs="?", type=Path, metavar="DIR", help="photographs")
    parser.add_argument("--copies", type=cli.whole_number(1, 1000), default=1, metavar="N", help="of each file (1)")
    parser.add_argument("--rounds", type=cli.whole_number(1, 100), default=3, metavar="N", help="of each kind (3)")
    parser.add_argument("--workers", type=cli.whole_number(1, 256), default=os.cpu_count(), metavar="N", help="threads")
    parser.add_argument("--memory", nargs="+", type=cli.whole_number(1, 10**6), metavar="N", help="peak memory instead")
    parser.add_argument("--one", type=Path, metavar="OUT", help=argparse.SUPPRESS)  # the child of --memory
    args = parser.parse_args(argv)
    if not args.folder and not args.memory:
        parser.error("DIR is missing")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Time every kind, or measure memory; print a table or JSON."""
    args = parse_args(argv)
    cli.set_up_logging(args.quiet)
    cli.need("numpy", "cv2")
    if args.one:
        return one(args)
    with tempfile.TemporaryDirectory() as scratch:
        result = memory(args.memory, Path(scratch)) if args.memory else speed(args, Path(scratch))
    if args.json:
        cli.print_json(result)
    else:
        for title in [key for key, value in result.items() if isinstance(value, dict)]:
            rows = "".join(f"{name:>28} {value:10.2f}\n" for name, value in result[title].items())
            sys.stdout.write(f"{title}\n{rows}")
    return 0


def speed(args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Pictures a second of every kind."""
    files = [str(p) for p in sorted(args.folder.rglob("*")) if p.suffix.lower() in (".jpg", ".jpeg", ".png")]
    files *= args.copies
    if not files:
        raise DataError(f"{args.folder} holds no JPEG or PNG; expected photographs")
    kinds: dict[str, Callable[[Path], object]] = {
        "decode": lambda out: decode(files),
        "naive npy": lambda out: naive_npy(files, out),
        "naive png": lambda out: naive_png(files, out),
        "least npy": lambda out: least_npy(files, out),
        "npy": lambda out: ours(files, out, "npy", args.workers),
        "png": lambda out: ours(files, out, "png", args.workers),
    }

    best, cpu = dict.fromkeys(kinds, 0.0), dict.fromkeys(kinds, float("inf"))
    for turn in range(args.rounds):
        for name, work in kinds.items():
            with tempfile.TemporaryDirectory(dir=scratch) as out:
                start, before = time.perf_counter(), time.process_time()
                work(Path(out))
                best[name] = max(best[name], len(files) / (time.perf_counter() - start))
                cpu[name] = min(cpu[name], 1e3 * (time.process_time() - before) / len(files))
        log.info("round %d: %s", turn + 1, ", ".join(f"{k} {v:.0f}" for k, v in best.items()))
    return {
        "files": len(files),
        "workers": args.workers,
        "images_per_second": best,
        "processor_ms": cpu,
        "ratios": {
            "npy / (2 x decode)": best["npy"] / (2 * best["decode"]),
            "png / naive png": best["png"] / best["naive png"],
            "npy / naive npy": best["npy"] / best["naive npy"],
            "npy / (2 x least npy)": best["npy"] / (2 * best["least npy"]),
            # on a busy machine: what two free cores would reach, from the processor time of all threads
            "processor: npy": cpu["decode"] / cpu["npy"],
            "processor: least npy": cpu["decode"] / cpu["least npy"],
            "processor: png": 2 * cpu["naive png"] / cpu["png"],
        },
    }


def decode(files: Sequence[str]) -> None:
    """Every file decoded, nothing else."""
    import cv2

    for file in files:
        cv2.imread(file)


def naive(file: str) -> Any:
    """imread, resize into the middle of a grey square, RGB."""
    import cv2
    import numpy as np

    picture = cv2.imread(file)
    ratio = SIDE / max(picture.shape[:2])
    width, height = (max(round(side * ratio), 1) for side in (picture.shape[1], picture.shape[0]))
    square = np.full((SIDE, SIDE, 3), 114, np.uint8)
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    square[top : top + height, left : left + width] = cv2.resize(picture, (width, height))
    return cv2.cvtColor(square, cv2.COLOR_BGR2RGB)


def naive_npy(files: Sequence[str], out: Path) -> None:
    """The loop of the guides: a list of pictures, then np.save."""
    import numpy as np

    np.save(out / "set.npy", np.stack([naive(file) for file in files]))


def naive_png(files: Sequence[str], out: Path) -> None:
    """The same with imwrite."""
    import cv2

    for i, file in enumerate(files):
        cv2.imwrite(str(out / f"{i}.png"), naive(file)[..., ::-1])


def least_npy(files: Sequence[str], out: Path) -> None:
    """The work that a set cannot do without, and nothing else."""
    import cv2
    import numpy as np

    from hefkit.detect.preprocess import letterbox
    from hefkit.spec import InputSpec

    spec, digest = InputSpec((SIDE, SIDE)), hashlib.sha256()
    tensor = np.empty((SIDE, SIDE, 3), np.uint8)
    with open(out / "set.npy", "wb", buffering=0) as array:
        for file in files:
            data = Path(file).read_bytes()
            hashlib.sha256(data).digest()
            letterbox(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), spec, tensor)
            array.write(tensor.data)
            digest.update(tensor.data)


def ours(files: Sequence[str], out: Path, file_format: str, workers: int, side: int = SIDE) -> None:
    """A whole set of every file."""
    from hefkit.pictures.sources import Item
    from hefkit.spec import InputSpec
    from hefkit.workshop.calibration.make import SetRequest, make_set

    items = [Item(Path(file), file, PurePosixPath(file)) for file in files]
    request = SetRequest("bench", out / "set", InputSpec((side, side)), len(items), "random", 0, file_format, workers)
    level, _ = log.level, log.setLevel("ERROR")
    try:
        make_set(request, items)
    finally:
        log.setLevel(level)


def memory(counts: Sequence[int], scratch: Path) -> dict[str, Any]:
    """Peak resident memory in MB of making a set of so many small pictures, each count in a process of its own."""
    folder = scratch / "pictures"
    own_pictures(folder, max(counts))
    peaks = {}
    for count in counts:
        command = [sys.executable, __file__, str(folder), "--memory", str(count), "--one", str(scratch / str(count))]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks[f"{count} pictures, MB"] = json.loads(done.stdout)["peak_mb"]
    return {"memory": peaks}


def one(args: argparse.Namespace) -> int:
    """The child: make one set, print the peak."""
    files = [str(path) for path in sorted(args.folder.iterdir())[: args.memory[0]]]
    ours(files, args.one, "npy", args.workers, SMALL_SIDE)
    cli.print_json({"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024})
    return 0


def own_pictures(folder: Path, count: int) -> None:
    """Small JPEGs of smooth random colours."""
    import cv2
    import numpy as np

    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        small = rng.integers(0, 256, (5, 8, 3), np.uint8)
        cv2.imwrite(str(folder / f"{i:06d}.jpg"), cv2.resize(small, (320, 200), interpolation=cv2.INTER_CUBIC))


if __name__ == "__main__":
    cli.run(main)
