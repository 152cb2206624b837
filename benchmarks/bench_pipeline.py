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
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # not where a test imports this
    for library in ("OMP", "OPENBLAS", "MKL"):  # read once, when numpy is imported
        os.environ[f"{library}_NUM_THREADS"] = "1"
sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]

from hefkit import cli  # noqa: E402

if TYPE_CHECKING:
    from hefkit.pictures.sources import Item

SERVICE_MS = (2, 5, 10, 20)
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
        "--frames", type=cli.whole_number(1, 10_000_000), default=500, metavar="N", help="after 50 (500)"
    )
    parser.add_argument("--depth", type=cli.whole_number(1, 64), default=4, metavar="N", help="in flight at once (4)")
    parser.add_argument("--images", metavar="DIR", help="photographs (drawn ones)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Every service time in turn; a table or JSON."""
    args = parse_args(argv)
    cli.set_up_logging(args.quiet)
    cli.need("numpy", "cv2")
    from hefkit.measure.speed import drawn_photographs
    from hefkit.pictures.sources import find_items

    with tempfile.TemporaryDirectory(prefix="hefkit-bench-") as folder:
        items = find_items(args.images) if args.images else drawn_photographs(Path(folder) / "photographs")
        results = [measured(items, ms, args.frames, args.depth, Path(folder) / f"{ms}") for ms in args.service_ms]
    if args.json:
        cli.print_json({"images": args.images or "drawn, 640x480", "depth": args.depth, "results": results})
    else:
        sys.stdout.write(table(results))
    return 0


def measured(items: list[Item], service_ms: int, frames: int, depth: int, folder: Path) -> dict[str, Any]:
    """One service time: the chip alone, the pipeline, the pipeline with pictures."""
    from simulated_chip import SimulatedChip

    from hefkit.measure.speed import alone_rate, pipeline_rate
    from hefkit.results.folder import OutputOptions

    chips = (SimulatedChip(service_ms / 1e3, depth, CLASSES, OBJECTS) for _ in range(3))
    limit = alone_rate(next(chips), min(frames, 500))
    plain, annotated = (
        pipeline_rate(next(chips), items, frames, options, folder)
        for options in (OutputOptions(images=False), OutputOptions())
    )
    return {
        "service_ms": service_ms,
        "frames": frames,
        "share": round(plain.rate / limit, 4),
        "stage_ms": plain.tally.stage_ms(),
        "rss_mb": plain.rss_mb,
        "rss_after_warm_up_mb": plain.rss_after_warm_up_mb,
        "share_annotated": round(annotated.rate / limit, 4),
        "stage_ms_annotated": annotated.tally.stage_ms(),
        "rate": round(plain.rate, 2),
        "simulated_rate": round(limit, 2),
    }


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
