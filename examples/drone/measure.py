#!/usr/bin/env python3
"""Average precision of models on the labelled pictures of a dataset, as COCO defines it.

Examples:
  measure.py examples/drone/drone.onnx --data examples/drone/data.yaml
  measure.py drone.onnx drone.emulated.onnx --data out/drones/data.yaml --json

Every class of an anchor counts, from a confidence of 0.001 on, as in the validation of ultralytics; a size is that
of the label in the photograph: small is less than 32 x 32 pixels.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from hefkit import cli
from hefkit.errors import DataError
from hefkit.results.progress import progress
from hefkit.text import counted, log, one_line

if TYPE_CHECKING:  # --help must not wait for numpy and OpenCV
    from hefkit.pictures.sources import Item

SHOWN = {"map50": "mAP50", "map50_95": "mAP50-95", "map50_small": "mAP50 small", "map50_95_small": "mAP50-95 small"}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; nothing is opened."""
    parser = cli.Parser(__doc__)
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL", help=".onnx, float or emulated")
    parser.add_argument("--data", required=True, metavar="FILE", help="data.yaml of a YOLO dataset")
    parser.add_argument("--split", default="val", metavar="NAME", help="which part of it (val)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """One row a model."""
    args = parse_args(argv)
    cli.set_up_logging(args.quiet)
    cli.need("numpy", "cv2")
    from hefkit.open_model import check_model_file
    from hefkit.workshop.calibration.dataset import find_dataset

    for model in args.models:
        check_model_file(model)
    items = find_dataset(args.data, args.split, Path("runs")).items
    log.info("%s, %s: %s", args.data, args.split, counted(len(items), "picture"))
    log.info("%-40s %s", "", "".join(f"{title:>16}" for title in SHOWN.values()))
    results = []
    for model in args.models:
        figures = measure(model, items, quiet=args.quiet)
        log.info("%-40s %s", one_line(model, 40), "".join(f"{_shown(figures[key]):>16}" for key in SHOWN))
        results.append({"model": str(model), **figures})
    if args.json:
        cli.print_json({"data": args.data, "split": args.split, "results": results})
    return 0


def measure(model: Path, items: Sequence[Item], *, quiet: bool = False) -> dict[str, Any]:
    """One model over all pictures."""
    from hefkit.detect.decode import DecodeSettings
    from hefkit.detect.detector import Detector
    from hefkit.measure.accuracy import AveragePrecision
    from hefkit.measure.labels import label_path, read_labels
    from hefkit.open_model import open_engine
    from hefkit.pictures.read import UnreadableImage, read_image

    with open_engine(model) as engine:
        detector = Detector(engine, DecodeSettings(conf=0.001, multi_label=True))
        classes = engine.spec.head.num_classes
        meter = AveragePrecision(classes)
        with progress(len(items), "picture", quiet=quiet) as bar:
            for item in items:
                try:
                    picture = read_image(item.path)
                except UnreadableImage as exc:
                    raise DataError(
                        f"{item.source}: {exc}; every picture of a validation set must be readable"
                    ) from exc
                size_wh = picture.shape[1], picture.shape[0]
                meter.add(read_labels(label_path(item.path), size_wh, classes), detector.detect(picture)[0])
                bar.step()
        return {"engine": engine.kind, **meter.to_json()}


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    cli.run(main)
