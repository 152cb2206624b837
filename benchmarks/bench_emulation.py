"""What the INT8 emulation forecasts, and what it costs beside other quantisers.

    bench_emulation.py                 all of it, on the models and photographs beside the project
    bench_emulation.py --only photos   leyolo_nano_640: calibrated on a half of the photographs, measured on the other
    bench_emulation.py --only cells    bccd_416: calibrated on train, measured on val
    bench_emulation.py --only labels   mAP kept on labels: bccd_416 on val, the sample on its val
    bench_emulation.py --only peers    seconds and peak memory of leyolo_nano_640, 32 pictures, beside NNCF and
                                       onnxruntime's MinMax, where --peer-python has them
    bench_emulation.py --only memory   the same of ours alone, with 32 and with 128 pictures

Agreement with the float model: confidence 0.25, IoU 0.5, same class. A row is a variant: levels 0 and 1, 16-bit
outputs, --precision-16 auto, four quantization groups with the channels in order and sorted by range.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from hefkit.detect.preprocess import letterbox  # noqa: E402
from hefkit.pictures.read import read_image  # noqa: E402
from hefkit.spec import InputSpec  # noqa: E402
from hefkit.workshop.compile.quality import FloatHeads, compare_emulated  # noqa: E402
from hefkit.workshop.emulator.build import Emulator, Precision  # noqa: E402
from hefkit.workshop.heads.discover import discover  # noqa: E402
from hefkit.workshop.network.file import load_onnx  # noqa: E402

COUNT = 32  # pictures that time and memory are measured with
MANY = 128
PARTS = ("photos", "cells", "labels", "peers", "memory")
OUTPUTS = frozenset(range(6))
# name -> (level, precision)
VARIANTS = {
    "level 0": (0, Precision()),
    "level 1": (1, Precision()),
    "level 0, 16-bit outputs": (0, Precision(outputs=OUTPUTS)),
    "level 0, auto": (0, Precision(auto=True)),
    "level 0, 4 groups in order": (0, Precision(conv_groups=4, depthwise_groups=4)),
    "level 0, 4 groups sorted": (0, Precision(conv_groups=4, depthwise_groups=4, groups_by_range=True)),
}
LABELLED = {"level 0": [], "level 1": ["--optimization-level", "1"], "level 0, auto": ["--precision-16", "auto"]}

# one quantiser a process: argv is the model, the calibration set (N, H, W, 3) uint8, the file to write
QUANTISERS = {
    "hefkit": """
from hefkit.workshop.emulator.build import Emulator
from hefkit.workshop.heads.discover import discover
from hefkit.workshop.network.file import load_onnx
start = time.perf_counter()
file = load_onnx(pathlib.Path(model))
emulator = Emulator(file, discover(file), [0, 0, 0], [255, 255, 255])
emulator.measure(lambda: iter(pictures))
onnx.save(emulator.quantize(lambda: iter(pictures)), target)
""",
    "onnxruntime MinMax": """
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
class Reader(CalibrationDataReader):
    def __init__(self): self.rest = iter(pictures)
    def get_next(self):
        picture = next(self.rest, None)
        return None if picture is None else {name: feed(picture)}
start = time.perf_counter()
quantize_static(model, target, Reader(), quant_format=QuantFormat.QDQ, activation_type=QuantType.QUInt8,
    weight_type=QuantType.QInt8, per_channel=True, calibrate_method=CalibrationMethod.MinMax)
""",
    "NNCF": """
import nncf
start = time.perf_counter()
data = nncf.Dataset(pictures, lambda picture: {name: feed(picture)})
onnx.save(nncf.quantize(onnx.load(model), data, subset_size=len(pictures)), target)
""",
}
PREAMBLE = """
import pathlib, sys, time
import numpy as np, onnx
model, calib, target = sys.argv[1:]
class Pictures:
    # one at a time: the pages of a mapped file would count as memory of the quantiser
    def __init__(self):
        mapped = np.load(calib, mmap_mode="r")
        self.shape, self.start = mapped.shape, mapped.offset
    def __len__(self): return self.shape[0]
    def __iter__(self):
        size = int(np.prod(self.shape[1:]))
        for i in range(len(self)):
            yield np.fromfile(calib, np.uint8, size, offset=self.start + i * size).reshape(self.shape[1:])
pictures = Pictures()
name = onnx.load(model, load_external_data=False).graph.input[0].name
def feed(picture): return np.ascontiguousarray(picture.transpose(2, 0, 1)[None].astype(np.float32) / 255)
"""


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
    parser.add_argument("--peer-python", default=sys.executable, metavar="PATH", help="a Python with onnxruntime, nncf")
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
                results[part] = photos(args.shared, args.seeds)
            elif part == "cells":
                results[part] = cells(args.shared)
            elif part == "labels":
                results[part] = labels(args.shared, work)
            elif part == "peers":
                results[part] = peers(args.shared, args.peer_python, work)
            else:
                results[part] = [quantiser("hefkit", sys.executable, args.shared, n, work) for n in (COUNT, MANY)]
        if not args.json:
            sys.stdout.write(f"{part}:\n" + "".join(f"  {json.dumps(row)}\n" for row in results[part]))
            sys.stdout.flush()
    if args.json:
        sys.stdout.write(json.dumps(results) + "\n")
    return 0


def photos(shared: Path, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """A row a seed and variant, and the mean of each variant."""
    rows = []
    for seed in seeds:
        files = sorted((shared / "images").glob("*.jpg"))
        random.Random(seed).shuffle(files)
        half = len(files) // 2
        model = shared / "models" / "leyolo_nano_640.onnx"
        rows += [{"seed": seed, **row} for row in forecasts(model, 640, files[:half], files[half:])]
    for name in VARIANTS:
        mine = [row for row in rows if row["variant"] == name]
        means = {key: round(float(np.mean([row[key] for row in mine])), 4) for key in ("recall", "precision")}
        rows.append({"seed": "mean", "variant": name, **means})
    return rows


def cells(shared: Path) -> list[dict[str, Any]]:
    """A row a variant: all of train, all of val."""
    images = shared / "datasets" / "bccd" / "images"
    model = shared / "models" / "bccd_416.onnx"
    return forecasts(model, 416, sorted((images / "train").iterdir()), sorted((images / "val").iterdir()))


def forecasts(model: Path, side: int, train: Sequence[Path], held_out: Sequence[Path]) -> list[dict[str, Any]]:
    """A row a variant."""
    file = load_onnx(model)
    layout = discover(file)
    exact = FloatHeads(file, layout, lambda: tensors(held_out, side), in_sample=False)
    rows = []
    for name, (level, precision) in VARIANTS.items():
        emulator = Emulator(file, layout, [0.0] * 3, [255.0] * 3, precision, level=level)
        emulator.measure(lambda: tensors(train, side))
        quality = compare_emulated(exact, emulator.quantize(lambda: tensors(train, side)), emulator.head_spec())
        keys = ("images", "boxes_float", "boxes_quantized", "recall", "precision", "median_iou")
        layers, weights, all_weights = emulator.wide_weights()
        wide = {"layers_16bit": len(layers), "weights_16bit": round(weights / all_weights, 4)}
        rows.append({"variant": name, **{k: quality[k] for k in keys}, **wide})
    return rows


def tensors(paths: Sequence[Path], side: int) -> Iterator[np.ndarray]:
    """(side, side, 3) uint8 RGB of each picture."""
    spec = InputSpec((side, side))
    return (letterbox(read_image(path), spec)[0] for path in paths)


def labels(shared: Path, work: Path) -> list[dict[str, Any]]:
    """mAP of the float model and of its emulations, on labels that the calibration has not seen."""
    sample = ROOT / "examples" / "drone"
    rows = []
    for model, side, data in (
        (shared / "models" / "bccd_416.onnx", 416, shared / "datasets" / "bccd" / "data.yaml"),
        (sample / "drone.onnx", 640, sample / "data.yaml"),
    ):
        calib = work / f"calib-{model.stem}"
        script("prepare_calibration.py", data, "--imgsz", side, "--num-samples", MANY, "--output", calib)
        made = {"float": model}
        for name, flags in LABELLED.items():
            target = work / f"{model.stem}-{len(made)}"
            script(
                "compile_to_hef.py", model, "--emulate", "--calib", calib, "--output", target, "--json", *flags,
                "--run-dir", target.with_name(target.name + "-run"),
            )  # fmt: skip
            made[name] = target.with_name(target.name + ".emulated.onnx")
        out, _ = script("validate_hef.py", *made.values(), "--reference", model, "--data", data, "--json")
        for name, found in zip(made, json.loads(out.splitlines()[-1])["models"], strict=True):
            shown = {key: round(found[key], 4) for key in ("map50", "map50_95")}
            rows.append({"model": model.stem, "variant": name, **shown, "kept": found["kept"]})
    return rows


def peers(shared: Path, python: str, work: Path) -> list[dict[str, Any]]:
    """A row a quantiser; those that are not installed are named."""
    rows = [quantiser("hefkit", sys.executable, shared, COUNT, work)]
    for name, package in (("onnxruntime MinMax", "onnxruntime"), ("NNCF", "nncf")):
        if has(python, package):
            rows.append(quantiser(name, python, shared, COUNT, work))
        else:
            rows.append({"quantiser": name, "missing": f"{package} is not installed in {python}"})
    return rows


def has(python: str, package: str) -> bool:
    """Whether another Python has a package."""
    if python == sys.executable:
        return importlib.util.find_spec(package) is not None
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    return subprocess.run([python, "-c", code]).returncode == 0


def quantiser(name: str, python: str, shared: Path, count: int, work: Path) -> dict[str, Any]:
    """One quantiser as a process of its own: seconds from the read model to the written one, and peak memory."""
    calib = work / f"calib-{count}"
    if not calib.exists():
        source = shared / "images" if count <= COUNT else shared / "datasets" / "bccd" / "data.yaml"
        script("prepare_calibration.py", source, "--num-samples", count, "--format", "npy", "--output", calib)
    code = PREAMBLE + QUANTISERS[name] + "print(round(time.perf_counter() - start, 2))"
    model, target = shared / "models" / "leyolo_nano_640.onnx", work / "quantised.onnx"
    begun = time.perf_counter()
    out, peak_mb = run([python, "-c", code, model, calib / "calib_set.npy", target])
    return {
        "quantiser": name,
        "pictures": count,
        "seconds": float(out.split()[-1]),
        "process_seconds": round(time.perf_counter() - begun, 2),
        "peak_mb": peak_mb,
    }


def script(name: str, *args: object) -> tuple[str, int]:
    """Run one of the scripts; (stdout, peak resident memory in MB)."""
    return run([sys.executable, ROOT / name, *args, "--quiet"])


def run(command: Sequence[object]) -> tuple[str, int]:
    """Run a command; (stdout, peak resident memory in MB). Ends this program where it fails."""
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(
            [str(c) for c in command],
            stdout=out,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{command[1]} ended with {process.returncode}")
        out.seek(0)
        # kilobytes on Linux, bytes on macOS
        return out.read(), usage.ru_maxrss // (1024 if sys.platform != "darwin" else 1024 * 1024)


if __name__ == "__main__":
    sys.exit(main())
