"""The flags that both detecting scripts share, and the settings made of them. Standard library only at import."""

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
    "emulated": "INT8 emulation on the CPU, not the chip",
    "float": "float model on the CPU",
    "hailort": "Hailo chip",
}


def add_model_and_source(parser: cli.Parser, source_help: str) -> None:
    """`--model MODEL --source SOURCE`, or both without flags."""
    parser.add_argument("given", nargs="*", metavar="MODEL SOURCE", help="short for --model MODEL --source SOURCE")
    parser.add_argument("--model", help="a .hef, a .emulated.onnx with its .json beside it, or a float YOLO in .onnx")
    parser.add_argument("--source", help=source_help)


def model_and_source(parser: cli.Parser, args: argparse.Namespace) -> tuple[Path, str]:
    """Both with flags or both without; a mix is refused, because it would be ambiguous."""
    by_flag = [args.model, args.source]
    if args.given and any(by_flag):
        parser.error("expected --model MODEL --source SOURCE, or MODEL SOURCE without flags; do not mix the two")
    model, source = (args.given if args.given else by_flag) if len(args.given) in (0, 2) else (None, None)
    if not model or not source:
        many = "; write a pattern of many files in quotes" if len(args.given) > 2 else ""
        parser.error(f"expected one model and one source: --model MODEL --source SOURCE, or MODEL SOURCE{many}")
    return Path(model), source


def add_detection_flags(parser: cli.Parser) -> None:
    """Thresholds, classes and names."""
    parser.add_argument("--conf", type=cli.fraction, default=0.25, metavar="P", help="minimum score (0.25)")
    parser.add_argument("--iou", type=cli.fraction, default=0.7, metavar="P", help="NMS IoU threshold (0.7)")
    parser.add_argument(
        "--max-det", type=cli.whole_number(1), default=300, metavar="N", help="maximum detections per image (300)"
    )
    parser.add_argument(
        "--classes", nargs="+", action=cli.CommaList, metavar="CLASS", help="only these classes: ids or names"
    )
    parser.add_argument(
        "--agnostic-nms", action="store_true", help="NMS across classes: boxes of different classes suppress each other"
    )
    parser.add_argument("--multi-label", action="store_true", help="keep every class of an anchor, not only the best")
    parser.add_argument(
        "--names", metavar="FILE|A,B,C", help="class names instead of the model's: one a line, or a,b,c"
    )


def decode_settings(args: argparse.Namespace, spec: ModelSpec) -> DecodeSettings:
    """The detection flags as settings for this model; raises UsageError for a class that the model does not have."""
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
    """`best.emulated.onnx: INT8 emulation on the CPU, not the chip, input 640x640 letterbox`; height first."""
    height, width = engine.spec.input.size
    return f"{one_line(model)}: {ENGINES[engine.kind]}, input {height}x{width} {engine.spec.input.fit}"
