"""The flags that every detecting script has, and what they become; standard library only, until they are used."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hefkit import cli
from hefkit.text import one_line

if TYPE_CHECKING:  # --help must not wait for these
    from hefkit.detect.decode import DecodeSettings
    from hefkit.detect.engine import Engine
    from hefkit.spec import ModelSpec

ENGINES = {
    "emulated": "INT8 emulation on the CPU: what the chip is expected to compute, not the chip",
    "float": "float model on the CPU",
    "hailort": "Hailo chip",
}


def add_model_and_source(parser: cli.Parser, source_help: str) -> None:
    """`--model MODEL --source SOURCE`, or both without flags."""
    parser.add_argument("given", nargs="*", metavar="MODEL SOURCE", help="the same as --model MODEL --source SOURCE")
    parser.add_argument("--model", help="a .hef, a .emulated.onnx with its .json beside it, or a float YOLO in .onnx")
    parser.add_argument("--source", help=source_help)


def model_and_source(parser: cli.Parser, args: argparse.Namespace) -> tuple[Path, str]:
    """Both by flag or both by place: one of each would leave open which is which."""
    by_flag = [args.model, args.source]
    if args.given and any(by_flag):
        parser.error("expected --model MODEL --source SOURCE, or MODEL SOURCE without flags; not a mixture")
    model, source = (args.given if args.given else by_flag) if len(args.given) in (0, 2) else (None, None)
    if not model or not source:
        many = "; a pattern of many files stands in quotes" if len(args.given) > 2 else ""
        parser.error(f"expected one model and one source: --model MODEL --source SOURCE, or MODEL SOURCE{many}")
    return Path(model), source


def add_detection_flags(parser: cli.Parser) -> None:
    """Thresholds, classes and names."""
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


def decode_settings(args: argparse.Namespace, spec: ModelSpec) -> DecodeSettings:
    """The detection flags for a model that has a name for every class; raises UsageError for one that it has not."""
    from hefkit.detect.decode import DecodeSettings
    from hefkit.names import find_classes

    return DecodeSettings(
        conf=args.conf,
        iou=args.iou,
        max_det=args.max_det,
        classes=None if args.classes is None else find_classes(args.classes, spec.names),
        agnostic_nms=args.agnostic_nms,
        multi_label=args.multi_label,
    )


def describe_engine(model: Path, engine: Engine) -> str:
    """`best.emulated.onnx: INT8 emulation ..., input 640x640 letterbox`, height first as everywhere."""
    height, width = engine.spec.input.size
    return f"{one_line(model)}: {ENGINES[engine.kind]}, input {height}x{width} {engine.spec.input.fit}"
