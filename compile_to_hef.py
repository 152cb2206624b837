"""Step 2: turn an exported YOLO into a HEF, or, with --emulate, into an INT8 model of what the chip will compute.

Examples:
  compile_to_hef.py best.onnx --check
  compile_to_hef.py best.onnx --emulate --output drone
  compile_to_hef.py best.onnx --hw-arch hailo8l --output drone

Finds the raw heads, proves that cut network + decode equal the whole ONNX, quantises with the pictures of
prepare_calibration.py. --emulate writes NAME.emulated.onnx and NAME.emulated.json; a HEF needs Hailo's SDK.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hefkit import cli
from hefkit.errors import GateError, ToolchainError

if TYPE_CHECKING:
    from hefkit.workshop.compilation import Options

HW_ARCHS = ("hailo8", "hailo8l", "hailo10h", "hailo15h", "hailo15m", "hailo15l")
SCRIPT = Path(__file__).resolve().parent / "hailo_optimization.mscript"


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; every value is checked here, nothing is opened."""
    parser = cli.Parser(__doc__)
    add = parser.add_argument
    add("onnx", type=Path, metavar="ONNX", help="an exported YOLO: v5u, v6, v8, v9, v10, 11, 12, 26 ...")
    add("--output", type=Path, default=Path("model"), metavar="NAME", help="name or path of the model (model)")
    add("--calib", type=Path, default=Path("calibration_data"), metavar="DIR|FILE", help="set (./calibration_data)")
    add("--num-samples", type=cli.whole_number(1), metavar="N", help="calibrate with the first N pictures (all)")
    add("--hw-arch", "--arch", choices=HW_ARCHS, default=HW_ARCHS[0], help="the chip (hailo8)")
    add("--script", type=Path, default=SCRIPT, metavar="FILE", help="model script (hailo_optimization.mscript)")
    add("--optimization-level", type=cli.whole_number(0, 4), metavar="0..4", help="replaces the script's level")
    add(
        "--precision-16",
        action=cli.CommaList,
        nargs="+",
        default=[],
        metavar="WHAT",
        help="16 bit for: outputs, auto (the most sensitive layers), or named layers",
    )
    add("--logits", action="store_true", help="leave the class tensors without the sigmoid")
    add("--batch-size", type=cli.whole_number(1, 1024), metavar="N", help="of the calibration (8)")
    add("--imgsz", action=cli.ImageSize, nargs="+", metavar="S", help="side, or height and width, of a dynamic ONNX")
    add("--end-nodes", action=cli.CommaList, nargs="+", metavar="NODE", help="cut here, not where the heads are found")
    add("--names", metavar="FILE|a,b,c", help="class names; default: those in the ONNX")
    add("--check", action="store_true", help="only check: everything that can be known in seconds")
    add("--gate", type=cli.fraction, metavar="RECALL", help="exit 7 when fewer of the float model's boxes survive")
    add("--emulate", action="store_true", help="write the INT8 emulation; needs no SDK and no chip")
    add("--run-dir", type=Path, metavar="DIR", help="report and script go here (runs/compile/NAME)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Check in the contract's order, then emulate; a HEF waits for the SDK."""
    args = parse_args(argv)
    cli.set_up_logging(args.quiet)
    options = resolve(args)
    from hefkit.workshop.compilation import Compilation

    run = Compilation(options)
    run.preflight()
    run.open_calibration(required=not args.check)
    refused = None
    if args.check:
        run.warn_without_sdk()
    elif args.emulate:
        refused = run.emulate()
    else:
        run.refuse_without_sdk()
    if args.json:
        cli.print_json(run.result())
    if refused:
        raise GateError(refused)
    cli.log.info("%s", next_step(args, options))
    return 0


def resolve(args: argparse.Namespace) -> Options:
    """Flags -> Options; refuses what is wrong in the order 2, 4, 3, 5."""
    from hefkit.files import check_writable, fresh_folder
    from hefkit.names import parse_names
    from hefkit.workshop.outputs import check_model_exists, check_output

    name = check_output(args.output, args.onnx)
    check_writable(name.parent)
    check_writable(args.run_dir or Path("runs", "compile"))
    names = None if args.names is None else parse_names(args.names)
    check_model_exists(args.onnx)
    need_packages(args)
    from hefkit.workshop.compilation import Options
    from hefkit.workshop.modelscript import read_script

    return Options(
        onnx=args.onnx,
        name=name,
        calib=args.calib,
        script=read_script(args.script),
        run_dir=args.run_dir or fresh_folder(Path("runs", "compile"), name.name),
        hw_arch=args.hw_arch,
        num_samples=args.num_samples,
        level=args.optimization_level,
        precision_16=tuple(args.precision_16),
        logits=args.logits,
        batch_size=args.batch_size,
        imgsz=args.imgsz,
        end_nodes=None if args.end_nodes is None else tuple(args.end_nodes),
        names=names,
        gate=args.gate,
        emulate=args.emulate,
    )


def need_packages(args: argparse.Namespace) -> None:
    """A missing package is told last of what can be known without it."""
    from hefkit.workshop.outputs import check_calibration_exists

    try:
        cli.need("numpy", "cv2", "onnx", "onnxruntime")
    except ToolchainError:
        if not args.check:
            check_calibration_exists(args.calib)
        raise


def next_step(args: argparse.Namespace, options: Options) -> str:
    """What the user runs now."""
    if args.check:
        return "checked; nothing was written"
    return f"next: python3 hailo_inference.py {options.emulated_model} PHOTOS"


if __name__ == "__main__":
    cli.run(main)
