#!/usr/bin/env python3
"""How much of a chip's rate the pipeline reaches: photographs from disk, a SIMULATED chip, files written.

Examples:
  bench_pipeline.py                          2, 5, 10 and 20 ms a picture
  bench_pipeline.py --service-ms 5 --frames 20000 --json
  bench_pipeline.py --images DIR             these photographs instead of drawn ones of 640x480

The simulated chip takes SERVICE milliseconds for each picture, works on up to DEPTH of them in turn, and never
catches up on time in which it had nothing to do; it returns tensors of a YOLO with 80 classes that sees 30 objects.
`share` is the rate reached, with detections.jsonl written, over the rate of the simulated chip alone in the same run;
`share_annotated` the same with annotated pictures as well.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

for library in ("OMP", "OPENBLAS", "MKL"):  # read once, when numpy is imported
    os.environ[f"{library}_NUM_THREADS"] = "1"
sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]

from hefkit import cli  # noqa: E402
from hefkit.progress import Progress  # noqa: E402

if TYPE_CHECKING:
    from hefkit.sources import Item
    from hefkit.tally import Tally

SERVICE_MS = (2, 5, 10, 20)
WARM_UP = 50
DRAWN = 64  # different photographs
CLASSES, OBJECTS = 80, 30


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; nothing is opened."""
    parser = cli.Parser(__doc__)
    parser.add_argument(
        "--service-ms",
        nargs="+",
        type=cli.whole_number(1, 10_000),
        default=SERVICE_MS,
        metavar="MS",
        help="(2 5 10 20)",
    )
    parser.add_argument(
        "--frames", type=cli.whole_number(1, 10_000_000), default=500, metavar="N", help=f"after {WARM_UP} (500)"
    )
    parser.add_argument("--depth", type=cli.whole_number(1, 64), default=4, metavar="N", help="in flight at once (4)")
    parser.add_argument("--images", metavar="DIR", help="photographs (drawn ones)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Every service time in turn; a table or JSON."""
    args = parse_args(argv)
    cli.set_up_logging(args.quiet)
    cli.need("numpy", "cv2")
    with tempfile.TemporaryDirectory(prefix="hefkit-bench-") as folder:
        items = photographs(args.images, Path(folder))
        results = [measured(items, ms, args.frames, args.depth, Path(folder) / f"{ms}") for ms in args.service_ms]
    if args.json:
        cli.print_json({"images": args.images or "drawn, 640x480", "depth": args.depth, "results": results})
    else:
        sys.stdout.write(table(results))
    return 0


def measured(items: list[Item], service_ms: int, frames: int, depth: int, folder: Path) -> dict[str, Any]:
    """One service time: the chip alone, the pipeline, the pipeline with pictures."""
    from simulated_chip import SimulatedChip, chip_alone

    from hefkit.runfolder import Kinds

    count = WARM_UP + frames
    limit = chip_alone(SimulatedChip(service_ms / 1e3, depth, CLASSES, OBJECTS), min(frames, 500))
    plain, annotated = (
        pipeline_run(SimulatedChip(service_ms / 1e3, depth, CLASSES, OBJECTS), items, count, kinds, folder)
        for kinds in (Kinds(images=False), Kinds())
    )
    return {
        "service_ms": service_ms,
        "frames": frames,
        "share": round(plain.rate / limit, 4),
        "stage_ms": plain.tally.stage_ms(),
        "rss_mb": round(plain.rss_mb, 1),
        "rss_after_warm_up_mb": round(plain.rss_after_warm_up_mb, 1),
        "share_annotated": round(annotated.rate / limit, 4),
        "stage_ms_annotated": annotated.tally.stage_ms(),
        "rate": round(plain.rate, 2),
        "simulated_rate": round(limit, 2),
    }


class Measured(NamedTuple):
    """One run of the pipeline; the rate between the end of the warm-up and the last picture, files written."""

    rate: float  # pictures a second
    tally: Tally
    rss_after_warm_up_mb: float
    rss_mb: float


def pipeline_run(chip: Any, items: list[Item], count: int, kinds: Any, folder: Path) -> Measured:
    """`count` pictures through the pipeline into `folder`."""
    from hefkit.decode import DecodeSettings
    from hefkit.detector import Detector
    from hefkit.filerun import run
    from hefkit.frames import read_photographs
    from hefkit.runfolder import plan_run
    from hefkit.sinks import Outputs

    clock = Clock()
    endless = [items[i % len(items)] for i in range(count)]
    with chip, Outputs(plan_run(folder, endless, kinds), chip.kind, chip.spec.names) as outputs:
        tally = run(read_photographs(endless), Detector(chip, DecodeSettings()), outputs, clock)
    return Measured((count - WARM_UP) / (clock.last - clock.begun), tally, clock.rss_mb, resident_mb())


class Clock(Progress):
    """Stands where the progress bar does: notes when each picture was done with."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = self.last = self.rss_mb = 0.0
        self.steps = 0

    def step(self) -> None:
        """One picture is done."""
        self.last = time.perf_counter()
        self.steps += 1
        if self.steps == WARM_UP:
            self.begun, self.rss_mb = self.last, resident_mb()


def photographs(given: str | None, folder: Path) -> list[Item]:
    """The photographs of a folder, or drawn ones: soft shapes and grain, about 80 kB each as real ones have."""
    from hefkit.sources import find_items

    return find_items(given) if given else list(drawn(folder / "photographs"))


def drawn(folder: Path) -> Iterator[Item]:
    """DRAWN different JPEGs of 640x480."""
    import cv2
    import numpy as np

    from hefkit.sources import Item

    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(DRAWN):
        soft = cv2.resize(rng.integers(0, 256, (15, 20, 3), np.uint8), (640, 480), interpolation=cv2.INTER_CUBIC)
        grain = rng.normal(0, 6, (480, 640, 1))
        path = folder / f"{i:03d}.jpg"
        cv2.imwrite(str(path), np.clip(soft + grain, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])
        yield Item(path, str(path), PurePosixPath(path.name))


def resident_mb() -> float:
    """Resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def table(results: list[dict[str, Any]]) -> str:
    """The results for a person."""
    stages = list(results[0]["stage_ms"])
    head = ["service ms", "share", "annotated", "a second", *stages, "RSS MB"]
    lines = ["share of a SIMULATED chip's rate; median milliseconds of each stage", "".join(f"{h:>12}" for h in head)]
    for r in results:
        numbers = [f"{r['service_ms']:d}", f"{r['share']:.3f}", f"{r['share_annotated']:.3f}", f"{r['rate']:.1f}"]
        numbers += [f"{r['stage_ms'][stage]:.2f}" for stage in stages] + [f"{r['rss_mb']:.0f}"]
        lines.append("".join(f"{n:>12}" for n in numbers))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    cli.run(main)
