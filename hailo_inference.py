#!/usr/bin/env python3
"""Step 3: find objects in photographs or a video, on the chip, with an emulated model or with a float model.

    python3 hailo_inference.py model.hef photos/
    python3 hailo_inference.py model.emulated.onnx photos/
    python3 hailo_inference.py --model best.onnx --source 'photos/**/*.jpg' --conf 0.4 --classes person,dog
    python3 hailo_inference.py model.emulated.onnx flight.mp4 --save-video --format jsonl,csv
    find photos -name '*.jpg' | python3 hailo_inference.py model.emulated.onnx -

Writes annotated pictures and detections.jsonl (one line per picture) into runs/predict/NAME or --save-dir.
"""

from __future__ import annotations

if __name__ == "__main__":
    from hefkit.signals import hold_signals

    hold_signals()  # until cli.run handles them

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hefkit import cli
from hefkit.detect.flags import (
    add_detection_flags,
    add_model_and_source,
    decode_settings,
    describe_engine,
    model_and_source,
)
from hefkit.pictures.sources import is_video
from hefkit.results.folder import FORMATS, JSONL
from hefkit.text import counted, log, one_line

if TYPE_CHECKING:  # --help must not wait for these
    from hefkit.detect.decode import DecodeSettings
    from hefkit.detect.engine import Engine
    from hefkit.pictures.video import VideoFacts
    from hefkit.results.folder import OutputOptions, RunPlan
    from hefkit.results.run import Tally

MAX_BATCH = 63  # HailoRT's own limit


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; every value is checked. Of a file only its kind is read."""
    parser = cli.Parser(__doc__, usage="%(prog)s [--model] MODEL [--source] SOURCE [options]")
    add_model_and_source(parser, "an image, a folder, a 'glob', a text list, - for a list on stdin, or a video")
    add_detection_flags(parser)
    parser.add_argument("--save-dir", type=Path, metavar="DIR", help="folder of the results (runs/predict/NAME)")
    parser.add_argument(
        "--format",
        nargs="+",
        action=cli.CommaList,
        metavar="FORMAT",
        help=f"formats of the detections: {', '.join(FORMATS)} (jsonl)",
    )
    parser.add_argument("--no-images", action="store_true", help="write no annotated pictures")
    parser.add_argument("--save-video", action="store_true", help="write the annotated video, NAME.mp4")
    parser.add_argument("--save-crop", action="store_true", help="write every object as crops/CLASS/NAME-N.jpg")
    parser.add_argument(
        "--line-width",
        type=cli.whole_number(1, 100),
        metavar="N",
        help="width of box lines in pixels (by picture size)",
    )
    parser.add_argument("--hide-labels", action="store_true", help="draw boxes without labels")
    parser.add_argument(
        "--batch-size", type=cli.whole_number(1, MAX_BATCH), default=1, metavar="N", help="pictures per batch (1)"
    )
    args = parser.parse_intermixed_args(argv)
    args.model, args.source = model_and_source(parser, args)
    args.format = _formats(parser, args.format)
    if args.save_video and not is_video(args.source):
        parser.error(f"--save-video needs a video as source; {args.source} is not a video")
    return args


def _formats(parser: cli.Parser, given: list[str] | None) -> tuple[str, ...]:
    """Each format once, in the order of FORMATS."""
    unknown = sorted(set(given or ()) - set(FORMATS))
    if unknown:
        parser.error(f"argument --format: unknown format {unknown[0]!r}; expected {', '.join(FORMATS)}")
    return tuple(name for name in FORMATS if name in (given or [JSONL]))


def main(argv: Sequence[str] | None = None) -> int:
    """Check everything that can be checked quickly, detect, print the results."""
    args = parse_args(argv)
    from hefkit.detect.engine import EngineOptions
    from hefkit.files import check_writable
    from hefkit.names import parse_names
    from hefkit.open_model import check_model_file, model_first, open_engine
    from hefkit.pictures.datayaml import detection_items
    from hefkit.results.folder import DEFAULT_ROOT, default_folder, plan_run

    cli.set_up_logging(args.quiet)
    given_names = None if args.names is None else parse_names(args.names)
    check_writable(args.save_dir or DEFAULT_ROOT)
    args.model = check_model_file(args.model)
    options = EngineOptions(given_names, args.batch_size, args.conf, args.iou, lambda spec: decode_settings(args, spec))
    with model_first(args.model, options):
        items = detection_items(args.source, exclude=[args.save_dir or DEFAULT_ROOT, DEFAULT_ROOT], videos=True)
        plan = plan_run(args.save_dir or default_folder(args.model), items, output_options(args))
        cli.need("numpy", "cv2")
        video = look_into_video(args)
    with open_engine(args.model, options) as engine:
        tally, seconds = detect(args, engine, plan, video)
        result = summary(args, engine, plan, tally, seconds)
    print_summary(args, result, tally, dict(engine.spec.names))
    if args.json:
        cli.print_json(result)
    return 0


def output_options(args: argparse.Namespace) -> OutputOptions:
    """What to write. A video gets no annotated pictures: it has thousands of frames."""
    from hefkit.results.folder import OutputOptions

    images = not args.no_images and not is_video(args.source)
    return OutputOptions(args.format, images=images, crops=args.save_crop, video=args.save_video)


def look_into_video(args: argparse.Namespace) -> VideoFacts | None:
    """Frame rate and size of the source; None if it is not a video."""
    from hefkit.pictures.video import open_video

    return open_video(Path(args.source), args.source) if is_video(args.source) else None


def detect(args: argparse.Namespace, engine: Engine, plan: RunPlan, video: VideoFacts | None) -> tuple[Tally, float]:
    """Detect in every picture and write the run folder; returns the counts and the seconds, writing included."""
    from hefkit.detect.detector import Detector
    from hefkit.pictures.frames import read_photographs
    from hefkit.pictures.video import read_video
    from hefkit.results.outputs import Outputs, Style
    from hefkit.results.progress import progress
    from hefkit.results.run import run

    names = dict(engine.spec.names)
    settings = decode_settings(args, engine.spec)
    log.info("%s", describe_engine(args.model, engine))
    start = time.perf_counter()
    with Outputs(plan, engine.kind, names, Style(args.line_width, args.hide_labels), video) as outputs:
        total, unit = (video.frames, "frame") if video else (len(plan.items), "image")
        frames = read_video(video) if video else read_photographs(plan.items)
        with progress(total, unit) as bar:
            tally = run(frames, Detector(engine, settings), outputs, bar)
        outputs.commit(facts(args, engine, settings, tally))
    return tally, time.perf_counter() - start


def facts(args: argparse.Namespace, engine: Engine, settings: DecodeSettings, tally: Tally) -> dict[str, Any]:
    """How the results were made, for run.json."""
    from dataclasses import asdict
    from datetime import datetime, timezone

    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "model": str(args.model),
        "engine": engine.kind,
        "onnx": {key: one_line(engine.spec.source.get(key)) for key in ("file", "sha256")},
        "source": args.source,
        "settings": asdict(settings),
        "images": tally.images,
        "failed": tally.failed,
        "detections": tally.detections,
    }


def summary(args: argparse.Namespace, engine: Engine, plan: RunPlan, tally: Tally, seconds: float) -> dict[str, Any]:
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


def print_summary(args: argparse.Namespace, result: dict[str, Any], tally: Tally, names: dict[int, str]) -> None:
    """Print the summary on stderr."""
    failed = f" ({tally.failed} more unreadable)" if tally.failed else ""
    unit = "frame" if is_video(args.source) else "image"
    log.info("%s%s, %s", counted(tally.images, unit), failed, counted(tally.detections, "detection"))
    for line in tally.class_lines(names):
        log.info("%s", line)
    log.info("%.1f %ss per second, reading and writing included", result["images_per_second"], unit)
    stages = ", ".join(f"{stage} {ms:.1f}" for stage, ms in result["stage_ms"].items())
    log.info("median milliseconds of each stage: %s; sum per image: %.1f", stages, result["latency_ms"])
    log.info("%s: %s", one_line(result["save_dir"]), ", ".join(written(args)))


def written(args: argparse.Namespace) -> list[str]:
    """The contents of the run folder, for the summary."""
    from hefkit.results.folder import FILES, LABELS

    wanted = output_options(args)
    flags = ((wanted.images, "annotated pictures"), (wanted.video, "annotated video"), (wanted.crops, "crops"))
    return [*(FILES.get(name, LABELS) for name in wanted.formats), *(words for flag, words in flags if flag)]


if __name__ == "__main__":
    cli.run(main)
