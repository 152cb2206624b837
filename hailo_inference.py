#!/usr/bin/env python3
"""Step 3: find objects in photographs, with an emulated or a float model.

    python3 hailo_inference.py model.emulated.onnx photos/
    python3 hailo_inference.py --model best.onnx --source 'photos/**/*.jpg' --conf 0.4 --classes person,dog
    find photos -name '*.jpg' | python3 hailo_inference.py model.emulated.onnx -

Writes annotated pictures and detections.jsonl (one line a picture) into runs/predict/NAME or --save-dir.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hefkit import cli
from hefkit.cli import log

if TYPE_CHECKING:  # --help must not wait for these
    from hefkit.decode import DecodeSettings
    from hefkit.engines import Engine
    from hefkit.runfolder import Plan
    from hefkit.sources import Item
    from hefkit.tally import Tally

ENGINES = {
    "emulated": "INT8 emulation on the CPU: what the chip is expected to compute, not the chip",
    "float": "float model on the CPU",
    "hailort": "Hailo chip",
}


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; every value is checked here, nothing is opened."""
    parser = cli.Parser(__doc__, usage="%(prog)s [--model] MODEL [--source] SOURCE [options]")
    parser.add_argument("given", nargs="*", metavar="MODEL SOURCE", help="the same as --model MODEL --source SOURCE")
    parser.add_argument("--model", help="a .emulated.onnx with its .json beside it, or a float YOLO in .onnx")
    parser.add_argument("--source", help="an image, a folder, a 'glob', a text list, or - for a list on stdin")
    parser.add_argument("--conf", type=cli.fraction, default=0.25, metavar="P", help="least score (0.25)")
    parser.add_argument("--iou", type=cli.fraction, default=0.7, metavar="P", help="most overlap in a class (0.7)")
    parser.add_argument(
        "--max-det", type=cli.whole_number(1), default=300, metavar="N", help="most detections an image (300)"
    )
    parser.add_argument("--classes", nargs="+", action=cli.CommaList, metavar="CLASS", help="only these: ids or names")
    parser.add_argument("--agnostic-nms", action="store_true", help="boxes of different classes suppress each other")
    parser.add_argument("--multi-label", action="store_true", help="every class of an anchor, not only its best")
    parser.add_argument(
        "--names", metavar="FILE|A,B,C", help="class names instead of the model's: one a line, or a,b,c"
    )
    parser.add_argument("--save-dir", type=Path, metavar="DIR", help="where the results go (runs/predict/NAME)")
    parser.add_argument("--no-images", action="store_true", help="detections.jsonl only, no annotated pictures")
    parser.add_argument("--save-crop", action="store_true", help="also cut every object out: crops/CLASS/NAME-N.jpg")
    parser.add_argument("--line-width", type=cli.whole_number(1, 100), metavar="N", help="pixels (by picture size)")
    parser.add_argument("--hide-labels", action="store_true", help="boxes without words")
    args = parser.parse_intermixed_args(argv)
    args.model, args.source = _model_and_source(parser, args)
    return args


def _model_and_source(parser: cli.Parser, args: argparse.Namespace) -> tuple[Path, str]:
    """Both by flag or both by place: one of each would leave open which is which."""
    by_flag = [args.model, args.source]
    if args.given and any(by_flag):
        parser.error("expected --model MODEL --source SOURCE, or MODEL SOURCE without flags; not a mixture")
    model, source = (args.given if args.given else by_flag) if len(args.given) in (0, 2) else (None, None)
    if not model or not source:
        parser.error("expected one model and one source: --model MODEL --source SOURCE, or MODEL SOURCE")
    return Path(model), source


def main(argv: Sequence[str] | None = None) -> int:
    """Check everything that can be checked in a moment, detect, tell what was found."""
    args = parse_args(argv)
    from hefkit.engines import check_model_file, open_engine
    from hefkit.files import check_writable
    from hefkit.names import model_names, parse_names
    from hefkit.runfolder import DEFAULT_ROOT, default_folder, plan_run
    from hefkit.sources import find_items

    cli.set_up_logging(args.quiet)
    given_names = None if args.names is None else parse_names(args.names)
    check_writable(args.save_dir or DEFAULT_ROOT)
    check_model_file(args.model)
    items = find_items(args.source, exclude=[args.save_dir or DEFAULT_ROOT, DEFAULT_ROOT])
    folder = args.save_dir or default_folder(args.model)
    plan = plan_run(folder, items, images=not args.no_images, crops=args.save_crop)
    cli.need("numpy", "cv2")
    with open_engine(args.model) as engine:
        names = model_names(given_names, engine.spec)
        tally, seconds = detect(args, engine, names, items, plan)
        result = summary(args, engine, plan, tally, seconds)
    report(args, result, tally, names)
    if args.json:
        cli.print_json(result)
    return 0


def detect(
    args: argparse.Namespace, engine: Engine, names: dict[int, str], items: list[Item], plan: Plan
) -> tuple[Tally, float]:
    """Every picture through the engine into the run folder; returns the seconds that took, files included."""
    from hefkit.detector import Detector
    from hefkit.pipeline import run
    from hefkit.progress import progress
    from hefkit.sinks import Outputs, Wanted

    settings = decode_settings(args, names)
    wanted = Wanted(not args.no_images, args.save_crop, args.line_width, args.hide_labels)
    log.info("%s: %s, input %s", cli.one_line(args.model), ENGINES[engine.kind], describe_input(engine))
    start = time.perf_counter()
    with Outputs(plan, items, engine.kind, names, wanted) as outputs:
        with progress(len(items), "image", quiet=args.quiet) as bar:
            tally = run(items, Detector(engine, settings), outputs, bar)
        outputs.commit(facts(args, engine, settings, tally))
    return tally, time.perf_counter() - start


def decode_settings(args: argparse.Namespace, names: dict[int, str]) -> DecodeSettings:
    """The detection flags; classes by name are looked up in `names`."""
    from hefkit.decode import DecodeSettings
    from hefkit.names import find_classes

    return DecodeSettings(
        conf=args.conf,
        iou=args.iou,
        max_det=args.max_det,
        classes=None if args.classes is None else find_classes(args.classes, names),
        agnostic_nms=args.agnostic_nms,
        multi_label=args.multi_label,
    )


def describe_input(engine: Engine) -> str:
    """`640x640 letterbox`, height first as everywhere."""
    height, width = engine.spec.input.size
    return f"{height}x{width} {engine.spec.input.fit}"


def facts(args: argparse.Namespace, engine: Engine, settings: DecodeSettings, tally: Tally) -> dict[str, Any]:
    """What run.json says about how the results were made."""
    from dataclasses import asdict
    from datetime import datetime, timezone

    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "model": str(args.model),
        "engine": engine.kind,
        "onnx": {key: cli.one_line(engine.spec.source.get(key)) for key in ("file", "sha256")},
        "source": args.source,
        "settings": asdict(settings),
        "images": tally.images,
        "failed": tally.failed,
        "detections": tally.detections,
    }


def summary(args: argparse.Namespace, engine: Engine, plan: Plan, tally: Tally, seconds: float) -> dict[str, Any]:
    """The object that --json prints."""
    return {
        "model": str(args.model),
        "engine": engine.kind,
        "images": tally.images,
        "failed": tally.failed,
        "detections": tally.detections,
        "save_dir": str(plan.folder),
        "images_per_second": round(tally.images / seconds, 3),
        "stage_ms": tally.stage_ms(),
        "latency_ms": tally.latency_ms(),
    }


def report(args: argparse.Namespace, result: dict[str, Any], tally: Tally, names: dict[int, str]) -> None:
    """The same for people, on stderr."""
    failed = f" ({tally.failed} more unreadable)" if tally.failed else ""
    log.info("%s%s, %s", cli.counted(tally.images, "image"), failed, cli.counted(tally.detections, "detection"))
    for line in tally.class_lines(names):
        log.info("%s", line)
    log.info("%.1f images per second, reading and writing included", result["images_per_second"])
    stages = ", ".join(f"{stage} {ms:.1f}" for stage, ms in result["stage_ms"].items())
    log.info("median milliseconds an image: %s; latency of one image: %.1f", stages, result["latency_ms"])
    pictures = "" if args.no_images else ", annotated pictures"
    crops = ", crops" if args.save_crop else ""
    if result["engine"] == "emulated":
        log.info("%s", ENGINES["emulated"])
    log.info("%s: detections.jsonl%s%s", cli.one_line(result["save_dir"]), pictures, crops)


if __name__ == "__main__":
    cli.run(main)
