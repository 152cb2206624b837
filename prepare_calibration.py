#!/usr/bin/env python3
"""Step 1: choose photographs and make the calibration set that quantisation measures.

Examples:
  prepare_calibration.py ~/datasets/drones/data.yaml
  prepare_calibration.py photos/ --imgsz 416 --num-samples 128 --output calib_416

Writes DIR/calib_0000.png ... (or DIR/calib_set.npy), DIR/preview.jpg and DIR/coverage.png to look at, and
DIR/manifest.json.
Use pictures like those of your camera, and the --imgsz of the model. Then run compile_to_hef.py.
"""

from __future__ import annotations

if __name__ == "__main__":
    from hefkit.signals import hold_signals

    hold_signals()  # until cli.run handles them

import argparse
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from hefkit.cli import ImageSize, Parser, need, print_json, run, set_up_logging, whole_number
from hefkit.pictures.find import COVERAGE, PREVIEW
from hefkit.spec import FITS, InputSpec
from hefkit.text import counted, log
from hefkit.workshop.calibration.dataset import SPLIT_CHOICES
from hefkit.workshop.calibration.folder import FILE_FORMATS, SELECTIONS, check_target
from hefkit.workshop.calibration.sources import find_sources

STRIDE = 32  # pixels; the largest stride of most YOLOs


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line and check every value; no file is opened."""
    parser = Parser(__doc__)
    parser.add_argument(
        "source",
        nargs="+",
        metavar="SOURCE",
        help="one or several: folder, data.yaml, text list (.txt), glob in quotes, image or video",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("calibration_data"), metavar="DIR", help="default ./calibration_data"
    )
    parser.add_argument(
        "--num-samples", type=whole_number(1, 1_000_000), default=64, metavar="N", help="pictures in the set (64)"
    )
    parser.add_argument(
        "--imgsz",
        action=ImageSize,
        nargs="+",
        default=(640, 640),
        metavar="S",
        help="the model's input: one side, or height and width (640)",
    )
    parser.add_argument("--fit", choices=FITS, default=FITS[0], help=f"how a picture fills the input ({FITS[0]})")
    parser.add_argument(
        "--select",
        choices=SELECTIONS,
        default=SELECTIONS[0],
        help="diverse: look at every picture, leave out near-duplicates, spread the choice; random; first: by path; "
        f"always shuffled ({SELECTIONS[0]})",
    )
    parser.add_argument("--seed", type=whole_number(0), default=0, metavar="N", help="seed of selection and order (0)")
    parser.add_argument("--split", choices=SPLIT_CHOICES, help="which part of a dataset (train where there are splits)")
    parser.add_argument("--format", choices=FILE_FORMATS, default="png", help="single pictures or one array (png)")
    parser.add_argument("--workers", type=whole_number(1, 256), metavar="N", help="threads (all cores)")
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="look at the pictures on a Dask cluster, such as tcp://host:8786"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the set that is in DIR; other files stay")
    args = parser.parse_args(argv)
    if not all(args.source):
        parser.error("SOURCE is empty")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Check the output, find the pictures, make the set, say what was made."""
    args = parse_args(argv)
    set_up_logging(args.quiet)
    if any(side % STRIDE for side in args.imgsz):
        log.warning(
            "--imgsz %s: YOLOs take sides that are multiples of %d; use the size that the model was exported with",
            " ".join(map(str, args.imgsz)), STRIDE,
        )  # fmt: skip
    old = check_target(args.output, args.source, args.num_samples, args.format, overwrite=args.overwrite)
    found = find_sources(args.source, args.split, args.output)
    need("numpy", "cv2")
    from hefkit.workshop.calibration.make import SetRequest, make_set  # late: --help works without numpy and OpenCV

    source = ", ".join(args.source)
    splits = f"; {found.splits}" if found.splits else ""
    log.info("%s in %s%s", counted(len(found.items), "picture"), source, splits)
    request = SetRequest(
        source=source,
        output=args.output,
        input=InputSpec(args.imgsz, args.fit),
        count=args.num_samples,
        select=args.select,
        seed=args.seed,
        file_format=args.format,
        workers=args.workers or os.cpu_count() or 1,
        scheduler=args.scheduler,
        names=found.names,
        val=found.val,
    )
    manifest = make_set(request, found.items, old)
    log.info("%s: %s, digest %s", args.output, counted(manifest["count"], "picture"), manifest["digest"][:12])
    log.info("look at %s: these pictures must be like those of your camera", args.output / PREVIEW)
    log.info("%s shows how they cover the dataset", args.output / COVERAGE)
    log.info("next: python3 compile_to_hef.py MODEL.onnx --calib %s", shlex.quote(str(args.output)))
    if args.json:
        print_json({**{k: v for k, v in manifest.items() if k != "images"}, "output": str(args.output)})
    return 0


if __name__ == "__main__":
    run(main)
