#!/usr/bin/env python3
"""Draw a labelled dataset of drones in the sky, without photographs and downloads.

Examples:
  make_dataset.py --output out/drones                          1000 pictures to train on, 200 to validate
  make_dataset.py --output out/few --train 24 --val 24         the first 24 of each

Writes images/{train,val}/NNNN.jpg, labels/{train,val}/NNNN.txt (YOLO: class cx cy w h, shares of the picture) and
data.yaml. Classes: drone, IR-drone (a thermal camera's). The same seed, numpy and OpenCV give the same bytes; a
picture depends on seed, split and its number only, so a small set is the beginning of a large one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from hefkit import cli
from hefkit.errors import UsageError
from hefkit.files import check_writable, entries, explained
from hefkit.results.progress import progress
from hefkit.staging.stage import Staging
from hefkit.text import log

if TYPE_CHECKING:  # --help must not wait for numpy and OpenCV
    from drone_scenes.layers import Box

MOST = 10_000  # pictures of a split: four digits name them


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; nothing is opened."""
    parser = cli.Parser(__doc__)
    parser.add_argument("--output", type=Path, default=Path("out/drones"), metavar="DIR", help="default out/drones")
    parser.add_argument("--train", type=cli.whole_number(0, MOST), default=1000, metavar="N", help="pictures (1000)")
    parser.add_argument("--val", type=cli.whole_number(0, MOST), default=200, metavar="N", help="pictures (200)")
    parser.add_argument("--seed", type=cli.whole_number(0), default=0, metavar="N", help="seed of the drawing (0)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Draw every picture into a hidden folder, then put the whole set in its place."""
    args = parse_args(argv)
    cli.set_up_logging(args.quiet)
    check_writable(args.output)
    if args.output.is_dir() and entries(args.output):
        raise UsageError(f"{args.output} is not empty; expected a new or an empty folder; choose another --output")
    cli.need("numpy", "cv2")
    from drone_scenes.plans import CLASSES

    counts = {"train": args.train, "val": args.val}
    totals = dict.fromkeys(CLASSES, 0)
    with explained(args.output), Staging(args.output) as stage:
        with progress(sum(counts.values()), "picture") as bar:
            for split, count in counts.items():
                for index in range(count):
                    write_picture(stage.path, args.seed, split, index, totals)
                    bar.step()
        (stage.path / "data.yaml").write_text(data_yaml(CLASSES), encoding="ascii")
        stage.commit(last="data.yaml")
    found = ", ".join(f"{count} {name}" for name, count in totals.items())
    log.info("%s: %d train, %d val pictures; %s", args.output, args.train, args.val, found)
    if args.json:
        cli.print_json({"output": str(args.output), "pictures": counts, "objects": totals, "seed": args.seed})
    return 0


def write_picture(folder: Path, seed: int, split: str, index: int, totals: dict[str, int]) -> None:
    """Draw one picture and write it with its labels; objects are added to `totals` by class."""
    import cv2
    from drone_scenes.pictures import draw
    from drone_scenes.plans import CLASSES, make_plan

    plan = make_plan(seed, split, index)
    picture = draw(plan)
    done, data = cv2.imencode(".jpg", picture.pixels, [cv2.IMWRITE_JPEG_QUALITY, plan.camera.quality])
    if not done:
        raise RuntimeError("OpenCV cannot write JPEG")
    lines = [label(plan.class_id, box, plan.size_wh) for box in picture.boxes]
    totals[CLASSES[plan.class_id]] += len(lines)
    for kind, suffix, content in (("images", "jpg", data.tobytes()), ("labels", "txt", "".join(lines).encode())):
        place = folder / kind / split / f"{index:04d}.{suffix}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)


def label(class_id: int, box: Box, size_wh: tuple[int, int]) -> str:
    """One line of a YOLO label file; the box in pixels, its right and bottom exclusive."""
    (x1, y1, x2, y2), (width, height) = box, size_wh
    centre = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height
    return f"{class_id} {centre[0]:.6f} {centre[1]:.6f} {(x2 - x1) / width:.6f} {(y2 - y1) / height:.6f}\n"


def data_yaml(classes: Sequence[str]) -> str:
    """Paths are relative to this file's folder."""
    names = "".join(f"  {i}: {name}\n" for i, name in enumerate(classes))
    return f"train: images/train\nval: images/val\nnames:\n{names}"


if __name__ == "__main__":
    cli.run(main)
