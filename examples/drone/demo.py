#!/usr/bin/env python3
"""All steps with the sample: calibration set, INT8 emulation, boxes, and what quantisation changed.

`make demo` makes an environment and runs this script in it. Every command is shown before it runs; type it yourself
with other pictures or another model. The results are in out/demo.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from hefkit import cli
from hefkit.text import log

if TYPE_CHECKING:  # --help must not wait for numpy
    from hefkit.detect.detections import Detections

ROOT = Path(__file__).resolve().parent.parent.parent
SAMPLE = Path("examples/drone")
HEAD = f"{'picture':<12}{'labelled':>9}{'FP32':>6}{'INT8':>6}{'in both':>9}{'IoU':>7}   scores FP32 -> INT8"
SHOWN_SCORES = 3


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = cli.Parser(__doc__)
    parser.add_argument("--output", type=Path, default=Path("out/demo"), metavar="DIR", help="default out/demo")
    parser.add_argument(
        "--num-samples", type=cli.whole_number(1, 24), default=24, metavar="N", help="pictures to calibrate with (24)"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Four commands, a table, and the report."""
    args = parse_args(argv)
    cli.set_up_logging(args.quiet)
    output = args.output
    for command in commands(output, args.num_samples):
        code = call(command, quiet=args.quiet)
        if code:
            return code
    rows = compare(ROOT / output / "float", ROOT / output / "int8")
    log.info("")
    for line in table(rows):
        log.info("%s", line)
    best = output / "int8" / Path(max(rows, key=lambda row: min(row["labelled"], row["both"]))["source"]).name
    log.info("\nthe pictures: %s (FP32), %s (INT8)", output / "float", output / "int8")
    code = call(report_command(output), quiet=args.quiet)
    if code:
        return code
    pages = [output / "report" / f"report.{suffix}" for suffix in ("html", "json")]  # without Jinja2 only the JSON
    report = str(next(page for page in pages if (ROOT / page).exists()))
    if args.json:
        cli.print_json({"pictures": rows, "look_at": str(best), "report": report})
    else:
        log.info("look at one of them: %s", best)
        sys.stdout.write(f"{report}\n")
    return 0


def call(command: Sequence[str], *, quiet: bool) -> int:
    """Show a command and run it in the project's folder; its table goes to stderr. Returns its exit code."""
    log.info("\n$ python3 %s", shlex.join(command))
    words = [sys.executable, *command, *(["--quiet"] if quiet else [])]
    return subprocess.run(words, cwd=ROOT, stdout=sys.stderr).returncode


def report_command(output: Path) -> list[str]:
    """The last command: how good the INT8 model is, on the labels of the sample."""
    model, onnx, data = f"{output / 'drone'}.emulated.onnx", SAMPLE / "drone.onnx", SAMPLE / "data.yaml"
    words = ["validate_hef.py", model, "--reference", onnx, "--data", data, "--report", output / "report"]
    return list(map(str, words))


def commands(output: Path, num_samples: int) -> list[list[str]]:
    """What a reader would type, from the project's folder."""
    calibration, model, pictures = output / "calibration_data", output / "drone", SAMPLE / "images" / "val"
    onnx = SAMPLE / "drone.onnx"
    prepare = ["prepare_calibration.py", SAMPLE / "data.yaml", "--num-samples", num_samples, "--output", calibration]
    compile_ = ["compile_to_hef.py", onnx, "--emulate", "--calib", calibration, "--output", model]
    return [
        [str(word) for word in command]
        for command in (
            [*prepare, "--overwrite"],
            [*compile_, "--run-dir", output / "compile"],
            ["hailo_inference.py", onnx, pictures, "--save-dir", output / "float"],
            ["hailo_inference.py", f"{model}.emulated.onnx", pictures, "--save-dir", output / "int8"],
        )
    ]


def compare(exact: Path, quantized: Path) -> list[dict[str, Any]]:
    """Two run folders of the same pictures -> one row a picture."""
    import numpy as np

    from hefkit.measure.accuracy import box_iou, match_boxes
    from hefkit.measure.labels import label_path, read_labels

    rows = []
    for a, b in zip(read_lines(exact), read_lines(quantized), strict=True):
        fp32, int8 = detections(a), detections(b)
        pairs = match_boxes(fp32, int8)
        overlaps = [float(box_iou(fp32.xyxy[i : i + 1], int8.xyxy[j : j + 1])[0, 0]) for i, j in pairs]
        labels = read_labels(label_path(ROOT / a["source"]), (a["width"], a["height"]), 2)
        rows.append(
            {
                "source": a["source"],
                "labelled": len(labels),
                "fp32": len(fp32),
                "int8": len(int8),
                "both": len(pairs),
                "iou": round(float(np.mean(overlaps)), 4) if pairs else None,
                "scores": [[round(float(fp32.score[i]), 3), round(float(int8.score[j]), 3)] for i, j in pairs],
            }
        )
    return rows


def read_lines(folder: Path) -> list[dict[str, Any]]:
    """The detections.jsonl of a run."""
    return [json.loads(line) for line in (folder / "detections.jsonl").read_text(encoding="ascii").splitlines()]


def detections(line: dict[str, Any]) -> Detections:
    """One line of detections.jsonl, as arrays again."""
    import numpy as np

    from hefkit.detect.detections import Detections

    found = line["detections"]
    return Detections(
        np.array([d["xyxy"] for d in found], np.float32).reshape(-1, 4),
        np.array([d["score"] for d in found], np.float32),
        np.array([d["class_id"] for d in found], np.int64),
    )


def table(rows: list[dict[str, Any]]) -> list[str]:
    """The rows in columns, and their sums."""
    lines = [HEAD]
    for row in rows:
        iou = "-" if row["iou"] is None else f"{row['iou']:.2f}"
        scores = ", ".join(f"{a:.2f} -> {b:.2f}" for a, b in row["scores"][:SHOWN_SCORES])
        more = ", ..." if len(row["scores"]) > SHOWN_SCORES else ""
        lines.append(_line(Path(row["source"]).name, row, iou, scores + more))
    keys = ("labelled", "fp32", "int8", "both")
    return [*lines, _line("together", {key: sum(row[key] for row in rows) for key in keys}, "", "")]


def _line(name: str, row: dict[str, Any], iou: str, scores: str) -> str:
    numbers = f"{row['labelled']:>9}{row['fp32']:>6}{row['int8']:>6}{row['both']:>9}"
    return f"{name:<12}{numbers}{iou:>7}   {scores}".rstrip()


if __name__ == "__main__":
    cli.run(main)
