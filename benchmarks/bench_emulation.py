"""What the INT8 emulation keeps of a float model's boxes, and the memory that compiling takes.

    bench_emulation.py                 all of it, on the models and photographs beside the project
    bench_emulation.py --only photos   leyolo_nano_640: calibrated on a half of the photographs, measured on the other
    bench_emulation.py --only cells    bccd_416: calibrated on train, measured on val
    bench_emulation.py --only memory   peak memory of leyolo_nano_640 with 32 and with 128 calibration pictures

The scripts run as users run them, as processes. Conf 0.25, IoU 0.5, same class.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from hefkit.detect.detections import Detections  # noqa: E402
from hefkit.measure.accuracy import Agreement  # noqa: E402

CONF = 0.25
MEMORY_COUNTS = (32, 128)
PARTS = ("photos", "cells", "memory")


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "shared",
        nargs="?",
        type=Path,
        default=ROOT.parent / "shared",
        metavar="DIR",
        help="holds images, datasets, models",
    )
    parser.add_argument("--only", choices=PARTS, help="one part (all)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N", help="of the halves (0 1 2)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    return parser.parse_args()


def main() -> int:
    """Measure the parts asked for; print them as they come."""
    args = parse_args()
    results: dict[str, Any] = {}
    for part in PARTS if args.only is None else (args.only,):
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            if part == "photos":
                results[part] = photos(args.shared, args.seeds, work)
            elif part == "cells":
                results[part] = cells(args.shared, work)
            else:
                results[part] = memory(args.shared, work)
        if not args.json:
            sys.stdout.write(f"{part}:\n" + "".join(f"  {json.dumps(row)}\n" for row in results[part]))
            sys.stdout.flush()
    if args.json:
        sys.stdout.write(json.dumps(results) + "\n")
    return 0


def photos(shared: Path, seeds: Sequence[int], work: Path) -> list[dict[str, Any]]:
    """A row a seed, and their mean."""
    rows = []
    for seed in seeds:
        files = sorted((shared / "images").glob("*.jpg"))
        random.Random(seed).shuffle(files)
        half = len(files) // 2
        lists = [work / f"calibrate-{seed}.txt", work / f"measure-{seed}.txt"]
        for path, chosen in zip(lists, (files[:half], files[half:]), strict=True):
            path.write_text("".join(f"{f}\n" for f in sorted(chosen)))
        model = shared / "models" / "leyolo_nano_640.onnx"
        rows.append({"seed": seed, **road(model, 640, lists[0], lists[1], half, work / str(seed))})
    mean = {key: round(float(np.mean([r[key] for r in rows])), 4) for key in ("recall", "precision")}
    return [*rows, {"seed": "mean", **mean}]


def cells(shared: Path, work: Path) -> list[dict[str, Any]]:
    """One row: all of train, all of val."""
    data = shared / "datasets" / "bccd"
    return [road(shared / "models" / "bccd_416.onnx", 416, data / "data.yaml", data / "images" / "val", 128, work)]


def memory(shared: Path, work: Path) -> list[dict[str, Any]]:
    """A row a number of pictures."""
    rows = []
    for count in MEMORY_COUNTS:
        calib = work / f"calib-{count}"
        prepare(shared / "datasets" / "bccd" / "data.yaml", 640, count, calib)
        compiled = compile_model(shared / "models" / "leyolo_nano_640.onnx", calib, work / f"m{count}")
        rows.append({key: compiled[key] for key in ("pictures", "seconds", "peak_mb", "stages")})
    return rows


def road(model: Path, side: int, calibrate: Path, measure: Path, count: int, work: Path) -> dict[str, Any]:
    """Prepare, compile, detect with the float and the emulated model; how much of the boxes is kept."""
    work.mkdir(exist_ok=True)
    prepare(calibrate, side, count, work / "calib")
    compiled = compile_model(model, work / "calib", work / "m")
    folders = []
    for name, path in (("float", model), ("int8", work / "m.emulated.onnx")):
        script("hailo_inference.py", path, measure, "--save-dir", work / name, "--no-images", "--conf", CONF)
        folders.append(work / name)
    agreement = compare(*folders).to_json()
    keys = ("images", "boxes_float", "boxes_quantized", "recall", "precision", "median_iou")
    return {**{k: agreement[k] for k in keys}, "seconds": compiled["seconds"], "peak_mb": compiled["peak_mb"]}


def prepare(source: Path, side: int, count: int, output: Path) -> None:
    """A calibration set."""
    script("prepare_calibration.py", source, "--imgsz", side, "--num-samples", count, "--output", output)


def compile_model(model: Path, calib: Path, name: Path) -> dict[str, Any]:
    """The emulated compile: seconds, peak memory, and the seconds of each stage."""
    start = time.perf_counter()
    out, peak_mb = script(
        "compile_to_hef.py", model, "--emulate", "--calib", calib, "--output", name, "--json",
        "--run-dir", name.with_name(name.name + "-run"),
    )  # fmt: skip
    result = json.loads(out.splitlines()[-1])
    return {
        "pictures": result["calibration"]["count"],
        "seconds": round(time.perf_counter() - start, 1),
        "peak_mb": peak_mb,
        "stages": [s["seconds"] for s in result["stages"]],
    }


def script(name: str, *args: object) -> tuple[str, int]:
    """Run one of the scripts; (stdout, peak resident memory in MB). Ends this program where it fails."""
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen([sys.executable, str(ROOT / name), *map(str, args), "--quiet"], stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{name} ended with {process.returncode}")
        out.seek(0)
        # kilobytes on Linux, bytes on macOS
        return out.read(), usage.ru_maxrss // (1024 if sys.platform != "darwin" else 1024 * 1024)


def compare(reference: Path, found: Path) -> Agreement:
    """Two run folders of hailo_inference.py."""
    agreement = Agreement(CONF)
    lines = [(folder / "detections.jsonl").read_text().splitlines() for folder in (reference, found)]
    for exact, ours in zip(*lines, strict=True):
        agreement.add(detections(exact), detections(ours))
    return agreement


def detections(line: str) -> Detections:
    """A line of detections.jsonl, in pixels of the photograph."""
    found = json.loads(line)["detections"]
    return Detections(
        np.array([d["xyxy"] for d in found], np.float32).reshape(-1, 4),
        np.array([d["score"] for d in found], np.float32),
        np.array([d["class_id"] for d in found], np.int64),
    )


if __name__ == "__main__":
    sys.exit(main())
