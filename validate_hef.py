#!/usr/bin/env python3
"""Is the model good enough? With a HEF alone: its inputs, its outputs and the chip that it is for.

    validate_hef.py best.emulated.onnx --data data.yaml --reference best.onnx --report report
    validate_hef.py best.hef --data data.yaml                      on the Pi: average precision on your labels
    validate_hef.py best.emulated.onnx --reference best.onnx --source photos     without labels
    validate_hef.py yolov8n.hef                                    inspect it; needs neither HailoRT nor a chip
    validate_hef.py yolov8n.hef --device                           on the Pi: check driver, library and chip
    validate_hef.py yolov8n.hef --benchmark                        on the Pi: time chip and pipeline

Measures average precision as COCO defines it, and how much of the float model's is kept. Compares the boxes of both
models. Says in one sentence whether the model is good enough. A gate that is not reached ends with exit code 7.
"""

from __future__ import annotations

if __name__ == "__main__":
    from hefkit.signals import hold_signals

    hold_signals()  # until cli.run handles them

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hefkit import cli
from hefkit.errors import GateError, ModelError
from hefkit.text import log, one_line

if TYPE_CHECKING:  # --help must not wait for these
    from hefkit.hailo.selfcheck import Report
    from hefkit.hef.file import Hef
    from hefkit.pictures.sources import Item

LOW_CONF = 0.001  # for models with NMS inside; others are asked for all their boxes
MAX_BATCH = 63  # HailoRT's own limit
NOT_CHECKED = (
    "the checksum was not checked: the Python package xxhash is missing; pip install xxhash (on a Raspberry Pi: "
    "sudo apt install python3-xxhash)"
)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; nothing is opened."""
    parser = cli.Parser(__doc__)
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL", help=".hef, .emulated.onnx or float .onnx")
    accuracy = parser.add_argument_group("accuracy")
    accuracy.add_argument("--data", metavar="FILE", help="data.yaml of labelled pictures")
    accuracy.add_argument("--split", choices=("val", "test", "train"), help="which part of --data (val)")
    accuracy.add_argument("--reference", type=Path, metavar="ONNX", help="the float model that was exported")
    accuracy.add_argument("--source", metavar="IMAGES", help="pictures without labels; also for --benchmark")
    accuracy.add_argument("--report", type=Path, metavar="DIR", help="write report.html and report.json there")
    accuracy.add_argument("--gate-map50", type=cli.fraction, metavar="P", help="exit 7 when mAP50 is lower")
    accuracy.add_argument("--gate-kept", type=cli.fraction, metavar="R", help="exit 7 when less of the mAP50 is kept")
    accuracy.add_argument(
        "--gate-recall", type=cli.fraction, metavar="R", help="exit 7 when fewer boxes are found again"
    )
    chip = parser.add_argument_group("one HEF")
    chip.add_argument(
        "--device", action="store_true", help="check driver, library, firmware, PCIe link, and run the HEF once"
    )
    chip.add_argument("--benchmark", action="store_true", help="time the chip alone and the whole pipeline")
    chip.add_argument(
        "--pictures", type=cli.whole_number(1, 1_000_000), default=500, metavar="N", help="for --benchmark (500)"
    )
    chip.add_argument(
        "--batch-size", type=cli.whole_number(1, MAX_BATCH), default=1, metavar="N", help="for --benchmark (1)"
    )
    args = parser.parse_args(argv)
    args.accuracy = args.data is not None or args.reference is not None or (args.source and not args.benchmark)
    wrong = misused(args)
    if wrong:
        parser.error(wrong)
    args.model = args.models[0]
    return args


def misused(args: argparse.Namespace) -> str | None:
    """Why these flags do not go together, or None."""
    several = len(set(args.models)) > 1
    if args.accuracy and (args.device or args.benchmark):
        return "--device and --benchmark are for a HEF alone, without --data and --reference"
    if args.data is None and args.source is None and args.reference is not None:
        return "--reference needs pictures: --data or --source"
    if args.data is not None and args.source is not None:
        return "--data and --source both name pictures; expected one of them"
    if args.accuracy and args.data is None and args.reference is None and not several:
        return "--source needs --reference ONNX or --benchmark"
    if args.split is not None and args.data is None:
        return "--split is for --data"
    if several and not args.accuracy:
        return "several models need --data, or --reference with --source"
    compared = args.reference is not None or several
    for flag, value, possible, needs in (
        ("--report", args.report, args.accuracy, "--data, or --source and --reference"),
        ("--gate-map50", args.gate_map50, args.data is not None, "--data"),
        ("--gate-kept", args.gate_kept, args.data is not None and compared, "--data and --reference"),
        ("--gate-recall", args.gate_recall, compared, "--reference"),
    ):
        if value is not None and not possible:
            return f"{flag} needs {needs}"
    return None


def main(argv: Sequence[str] | None = None) -> int:
    """Accuracy, or an inspection."""
    args = parse_args(argv)
    cli.set_up_logging(args.quiet)
    return accuracy(args) if args.accuracy else inspect(args)


def accuracy(args: argparse.Namespace) -> int:
    """Measure, say how good it is, write the report, apply the gates."""
    from hefkit.detect.engine import EngineOptions
    from hefkit.files import check_writable
    from hefkit.open_model import check_model_file, model_first, open_engine

    if args.report is not None:
        check_writable(args.report)
    args.models = [check_model_file(model) for model in args.models]
    args.model = args.models[0]
    args.reference = None if args.reference is None else check_model_file(args.reference)
    options = EngineOptions(conf=LOW_CONF)
    with model_first(args.model, options):
        cli.need("numpy", "cv2")
        items, names = pictures(args)
    from hefkit.measure.summary import Gates, summary
    from hefkit.measure.validate import validate

    result = validate(
        list(dict.fromkeys(args.models)),
        args.reference,
        items,
        lambda model: open_engine(model, options),
        labelled=args.data is not None,
        names=names,
    )
    if not args.json:
        sys.stdout.write("\n".join(summary(result)) + "\n")
    if args.report is not None:
        from hefkit.measure.report.write import write_report

        write_report(result, args.report)
    log.info("%s", result.verdict.text)
    for cause in result.causes:
        log.info("  likely: %s", cause)
    if args.json:
        cli.print_json(result.to_json())
    refused = Gates(args.gate_map50, args.gate_kept, args.gate_recall).refusals(result)
    if refused:
        raise GateError("; ".join(refused))
    return 0


def pictures(args: argparse.Namespace) -> tuple[list[Item], dict[int, str] | None]:
    """The pictures of --data or --source, and the class names of a data.yaml."""
    from hefkit.pictures.sources import find_items

    if args.data is None:
        return find_items(args.source), None
    from hefkit.measure.labels import labelled_pictures

    return labelled_pictures(args.data, args.split or "val")


def inspect(args: argparse.Namespace) -> int:
    """Read the HEF, show it, and compare it with its spec."""
    from hefkit.hef.file import read_hef
    from hefkit.hef.table import table
    from hefkit.hef.words import check_spec, describe
    from hefkit.spec_file import spec_beside

    args.model = check_model(args.model)
    hef = read_hef(args.model)
    spec = args.model.with_suffix(".json")
    beside = None
    if hef.digest_ok is not False:  # a damaged file proves nothing about its spec
        beside = spec_beside(args.model)
    if beside is not None:
        check_spec(hef, beside)
    if not args.json:
        sys.stdout.write("\n".join(table(hef)) + "\n")
    for line in describe(hef, beside):
        log.info("%s", line)
    if hef.digest_ok is None:
        log.info("%s", NOT_CHECKED)
    if hef.digest_ok is not False:
        log.info("its spec %s %s", one_line(spec), "is not beside it" if beside is None else "fits")
    result = {**hef.to_json(), "spec": None if beside is None else str(spec)}
    if hef.digest_ok is False:
        if args.json:
            cli.print_json(result)
        raise ModelError(f"{args.model} is damaged: its checksum does not fit; copy or download it again")
    timed_on = photographs(args) if args.benchmark else None
    if args.device:
        result["device"] = device(args, hef)
    if timed_on is not None:
        result["benchmark"] = benchmark(args, timed_on)
    if args.json:
        cli.print_json(result)
    return 0


def photographs(args: argparse.Namespace) -> list[Item]:
    """The pictures of --source, found before the chip is opened; an empty list means that pictures are drawn."""
    from hefkit.pictures.sources import find_items

    return find_items(args.source) if args.source is not None else []


def benchmark(args: argparse.Namespace, items: list[Item]) -> dict[str, Any]:
    """Time the HEF on the chip and log the result."""
    cli.need("numpy", "cv2")
    import tempfile

    from hefkit.detect.engine import EngineOptions
    from hefkit.measure.speed import drawn_photographs, measure
    from hefkit.open_model import open_engine

    with (
        tempfile.TemporaryDirectory(prefix="hefkit-benchmark-") as folder,
        open_engine(args.model, EngineOptions(batch_size=args.batch_size)) as engine,
    ):
        items = items or drawn_photographs(Path(folder) / "photographs")
        result = measure(engine, items, args.pictures, Path(folder) / "results")
    log.info(
        "chip alone: %.1f pictures per second; with reading, resizing, decoding and writing: %.1f (%.0f %%)",
        result["chip_per_second"], result["end_to_end_per_second"], 100 * result["share"],
    )  # fmt: skip
    log.info("median milliseconds: %s", ", ".join(f"{stage} {ms:.1f}" for stage, ms in result["stage_ms"].items()))
    heat = [result["temperature_c"][when] for when in ("before", "after")]
    if None not in heat:
        log.info("chip temperature %.0f to %.0f degrees Celsius", *heat)
    return result


def device(args: argparse.Namespace, hef: Hef) -> dict[str, Any]:
    """Check what the HEF needs on this machine, a line each; raises the first failure (exit 4, 6)."""
    cli.need("numpy", "cv2")
    from hefkit.hailo.selfcheck import check_device

    report = check_device(hef)
    for line in device_lines(report):
        if args.json:  # stdout is for the one JSON object
            log.info("%s", line)
        else:
            sys.stdout.write(f"{line}\n")
    if report.error is not None:
        raise report.error
    return report.to_json()


def device_lines(report: Report) -> Iterator[str]:
    """One line for each check: ok, or what to do."""
    width = max(len(check.name) for check in report.checks)
    for check in report.checks:
        yield f"{'ok' if check.ok else '--'}  {check.name.ljust(width)}  {check.text}"


def check_model(model: Path) -> Path:
    """The HEF; of a folder, its only one; refuses (exit 4) a file that cannot be a HEF, before it is opened."""
    from hefkit.open_model import check_model_file

    model = check_model_file(model)
    if model.suffix.lower() != ".hef":
        raise ModelError(f"{model} is an ONNX; expected a .hef: only HEF files can be inspected")
    return model


if __name__ == "__main__":
    cli.run(main)
