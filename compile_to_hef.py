#!/usr/bin/env python3
"""Step 2: turn an exported YOLO into a HEF, or, with --emulate, into an INT8 model of what the chip will compute.

Examples:
  compile_to_hef.py best.onnx --check
  compile_to_hef.py best.onnx --emulate --output drone
  compile_to_hef.py best.onnx --hw-arch hailo8l --output drone
  compile_to_hef.py best.onnx --hw-arch hailo8l --sweep auto --data data.yaml --budget 120

Finds the raw heads, checks that cut network + decode give the boxes of the whole ONNX, and quantises with the pictures
of prepare_calibration.py. With Hailo's SDK, in an environment of its own, it writes NAME.hef and NAME.json; --emulate
needs no SDK and writes NAME.emulated.onnx and NAME.emulated.json.
"""

from __future__ import annotations

if __name__ == "__main__":
    from hefkit.signals import hold_signals

    hold_signals()  # until cli.run handles them

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hefkit import cli
from hefkit.chips import CHIPS, TARGETS
from hefkit.errors import DataError, GateError, ToolchainError
from hefkit.text import log
from hefkit.workshop.compile.paths import copy_lines

if TYPE_CHECKING:
    from hefkit.workshop.compile.run import Compilation, Options
    from hefkit.workshop.emulator.build import Emulator
    from hefkit.workshop.sweep.settings import Candidate

CHECKED = "checked; nothing was written"
SCRIPT = Path(__file__).resolve().parent / "hailo_optimization.mscript"


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; every value is checked here, nothing is opened."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("onnx", type=Path, metavar="ONNX", help="an exported YOLO: v5u, v6, v8, v9, v10, 11, 12, 26 ...")
    add("--output", type=Path, metavar="NAME", help="name or path of the model (model)")
    add("--calib", type=Path, default=Path("calibration_data"), metavar="DIR|FILE", help="set (./calibration_data)")
    add("--num-samples", type=cli.whole_number(1), metavar="N", help="calibrate with the first N pictures (all)")
    add("--hw-arch", "--arch", choices=TARGETS, help="the chip (hailo8)")
    add("--script", type=Path, default=SCRIPT, metavar="FILE", help="model script (hailo_optimization.mscript)")
    add("--optimization-level", type=cli.whole_number(0, 4), metavar="0..4", help="replaces the script's level")
    add(
        "--precision-16", action=cli.CommaList, nargs="+", default=[], metavar="WHAT",
        help="16 bit for: outputs, auto (the most sensitive layers), or named layers",
    )  # fmt: skip
    add("--logits", action="store_true", help="leave the class tensors without the sigmoid")
    add("--batch-size", type=cli.whole_number(1, 1024), metavar="N", help="of the calibration (8)")
    add("--imgsz", action=cli.ImageSize, nargs="+", metavar="S", help="side, or height and width, of a dynamic ONNX")
    add(
        "--end-nodes", action=cli.CommaList, nargs="+", metavar="NODE", help="cut here, not at the heads that are found"
    )
    add("--names", metavar="FILE|a,b,c", help="class names; default: those in the ONNX")
    add("--sdk-python", type=Path, metavar="PATH", help="the Python that has Hailo's SDK (searched for)")
    add("--har", type=Path, metavar="FILE", help="resume from a HAR of an earlier run, parsed or quantized")
    add("--check", action="store_true", help="only check what takes seconds, and the SDK's calls")
    add(
        "--gate", type=cli.fraction, metavar="RECALL",
        help="exit 7 when less than this share of the float model's boxes is found",
    )  # fmt: skip
    add("--data", metavar="FILE", help="data.yaml: measure average precision on its val pictures after quantisation")
    add("--gate-kept", type=cli.fraction, metavar="R", help="exit 7 when a smaller share of mAP50 is kept on --data")
    add("--emulate", action="store_true", help="write the INT8 emulation; needs no SDK and no chip")
    add("--parse-only", action="store_true", help="stop when the SDK has parsed the network; --har resumes from it")
    add("--sweep", metavar="FILE|auto", help="compile several candidates, measure and rank them (docs/sweep.md)")
    add("--scheduler", metavar="ADDRESS", help="of a Dask cluster for --sweep; default: one on this machine")
    add("--budget", type=cli.whole_number(1, 100_000), metavar="MINUTES", help="then --sweep starts no more candidates")
    add("--run-dir", type=Path, metavar="DIR", help="report and script go here (runs/compile/NAME, runs/sweep/NAME)")
    args = parser.parse_args(argv)
    wrong = misused(args)
    if wrong:
        parser.error(wrong)
    return args


def misused(args: argparse.Namespace) -> str | None:
    """Why these flags do not go together, or None."""
    if args.emulate and args.har is not None:
        return "--har resumes a run of Hailo's SDK; it does not go with --emulate"
    if args.emulate and args.parse_only:
        return "--parse-only stops Hailo's SDK; it does not go with --emulate"
    if args.gate_kept is not None and args.data is None:
        return "--gate-kept needs --data"
    for flag, value in (("--scheduler", args.scheduler), ("--budget", args.budget)):
        if value is not None and args.sweep is None:
            return f"{flag} needs --sweep"
    for flag, given in (("--check", args.check), ("--parse-only", args.parse_only)):
        if given and args.sweep is not None:
            return f"{flag} is for one compilation; it does not go with --sweep"
    return None


def main(argv: Sequence[str] | None = None) -> int:
    """Check in the contract's order, then emulate, or compile with Hailo's SDK."""
    args = parse_args(argv)
    cli.set_up_logging(args.quiet)
    candidates = read_candidates(args)
    options = resolve(args)
    for line in target_lines(args.hw_arch):
        log.info("%s", line)
    from hefkit.workshop.compile.run import Compilation

    run = Compilation(options)
    run.preflight()
    if args.sweep is not None:
        return sweep(args, run, candidates)
    emulator = prepare_emulation(run) if args.emulate else None
    run.open_calibration(required=not args.check)
    if args.data is not None:  # before the minutes that the quantisation takes
        from hefkit.measure.labels import labelled_pictures

        labelled_pictures(args.data, "val")
    refused, lines, more = work(args, run, emulator)
    if args.json:
        cli.print_json({**run.result(), **more})
    if refused:
        raise GateError(refused)
    if run.run_dir is not None:
        log.info("the report: %s", run.run_dir / "report.json")
    for line in lines:
        log.info("%s", line)
    return 0


def read_candidates(args: argparse.Namespace) -> list[Candidate] | None:
    """The candidates of a sweep file, checked; None for auto, and without --sweep."""
    if args.sweep in (None, "auto"):
        return None
    from hefkit.workshop.sweep.plan import check_plan, read_plan

    candidates = read_plan(Path(args.sweep))
    check_plan(candidates, emulate=args.emulate, labelled=args.data is not None)
    return candidates


def sweep(args: argparse.Namespace, run: Compilation, candidates: list[Candidate] | None) -> int:
    """Compile the candidates, rank them, copy the best one to --output."""
    from hefkit.workshop.sweep.result import finish, table
    from hefkit.workshop.sweep.run import Request, ranked_sweep

    if candidates is None or any(candidate.settings.calib is None for candidate in candidates):
        run.open_calibration(required=True)
    budget = None if args.budget is None else 60.0 * args.budget
    ranked = ranked_sweep(run, Request(candidates, args.scheduler, budget, args.names))
    result = finish(run, ranked)
    if args.json:
        cli.print_json(result)
    else:
        sys.stdout.write("\n".join(table(ranked)) + "\n")
    log.info("%s", result["reason"])
    log.info("%s; the candidates: %s", result["output"], run.options.run_dir)
    return 0


def target_lines(given: str | None) -> list[str]:
    """The lines that name the chip and those that cannot run its HEF; else a wrong chip shows only on the Pi."""
    arch = given or TARGETS[0]
    default = "" if given else " (the default; the AI Kit and the 13 TOPS AI HAT+ need --hw-arch hailo8l)"
    others = [name for name in TARGETS if arch not in CHIPS[name].runs]
    return [f"for the chip {arch}{default}", f"a HEF for it does not run on {', '.join(others)}"]


def work(
    args: argparse.Namespace, run: Compilation, emulator: Emulator | None
) -> tuple[str | None, list[str], dict[str, Any]]:
    """Check the SDK, emulate, or compile; returns (why a gate refused it, the last console lines, more JSON keys)."""
    if emulator is not None:
        if args.check:
            return None, [CHECKED], {}
        from hefkit.workshop.compile.accuracy import closing_lines
        from hefkit.workshop.compile.emulate import emulate

        model = shlex.quote(str(run.options.emulated_model))
        refused = emulate(run, emulator)
        return (
            refused,
            [*closing_lines(run, run.options.emulated_model), f"next: python3 hailo_inference.py {model} PHOTOS"],
            {},
        )
    from hefkit.workshop.compile.accuracy import closing_lines
    from hefkit.workshop.compile.hef import compile_hef, prepare

    if args.check:
        calls = check_compiler(run)
        return None, [CHECKED], {} if calls is None else {"sdk_calls": calls}
    ready = prepare(run)
    refused = compile_hef(run, ready)
    if args.parse_only:
        return refused, [f"the parsed network: {run.options.run_dir / run.options.name.name}.parsed.har"], {}
    if run.output is None:
        return refused, [], {}
    return refused, [*closing_lines(run, run.output), *copy_lines(run.output, SCRIPT.parent, ready.hailort)], {}


def prepare_emulation(run: Compilation) -> Emulator:
    """Before the calibration set is opened: refuse layers that the ONNX does not have."""
    from hefkit.workshop.compile.emulate import prepare

    return prepare(run)


def check_compiler(run: Compilation) -> list[dict[str, str | None]] | None:
    """With --check a missing or unsuitable SDK is only a warning."""
    from hefkit.workshop.compile.hef import prepare
    from hefkit.workshop.dfc.calls import check_sdk

    try:
        return check_sdk(prepare(run), run.options.hw_arch, run.warn)
    except (ToolchainError, DataError) as exc:
        run.warn(str(exc))
        return None


def resolve(args: argparse.Namespace) -> Options:
    """Flags -> Options; errors come in the order of exit codes 2, 4, 3, 5."""
    from hefkit.names import parse_names
    from hefkit.staging.stage import fresh_folder
    from hefkit.workshop.compile.paths import (
        check_model_exists,
        check_output,
        check_places,
        check_run_dir,
        check_same_source,
    )
    from hefkit.workshop.script.read import read_script

    name = check_output(args.output or Path("model" if args.sweep is None else "best"), args.onnx)
    check_places(name, emulate=args.emulate)
    if args.output is None and not args.check:
        check_same_source(name, args.onnx, emulate=args.emulate)
    if args.sweep is None:
        run_dir = args.run_dir or fresh_folder(Path("runs", "compile"), name.name)
        check_run_dir(run_dir, name.name, args.har, emulate=args.emulate)
    else:
        from hefkit.workshop.sweep.folder import check_folder

        run_dir = args.run_dir or Path("runs", "sweep", args.onnx.stem if args.output is None else name.name)
        check_folder(run_dir)
    names = None if args.names is None else parse_names(args.names)
    check_model_exists(args.onnx)
    script = read_script(args.script)
    if args.har is not None:
        from hefkit.workshop.compile.har import check_har

        check_har(args.har)
    need_packages(args)
    from hefkit.workshop.compile.run import Options

    return Options(
        onnx=args.onnx,
        name=name,
        calib=args.calib,
        script=script,
        run_dir=run_dir,
        hw_arch=args.hw_arch or TARGETS[0],
        num_samples=args.num_samples,
        level=args.optimization_level,
        precision_16=tuple(args.precision_16),
        logits=args.logits,
        batch_size=args.batch_size,
        imgsz=args.imgsz,
        end_nodes=None if args.end_nodes is None else tuple(args.end_nodes),
        names=names,
        gate=args.gate,
        data=args.data,
        gate_kept=args.gate_kept,
        emulate=args.emulate,
        har=args.har,
        sdk_python=args.sdk_python,
        parse_only=args.parse_only,
    )


def need_packages(args: argparse.Namespace) -> None:
    """Refuse (exit 5) a missing package, after the checks that need no package."""
    from hefkit.workshop.compile.paths import check_calibration_exists

    try:
        cli.need("numpy", "cv2", "onnx", "onnxruntime")
    except ToolchainError:
        if not args.check:
            check_calibration_exists(args.calib)
        raise


if __name__ == "__main__":
    cli.run(main)
