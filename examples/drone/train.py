#!/usr/bin/env python3
"""Train the sample's detector on a drawn dataset, and export it twice.

  pip install torch torchvision ultralytics           in an environment of its own: hefkit itself needs none of them
  make_dataset.py --output out/drones
  train.py --data out/drones/data.yaml --output out/model

Writes DIR/drone.onnx, with the raw predictions of every anchor as its output, and DIR/drone_nms.onnx, with NMS in it
and the output (1, 300, 6). `--resume` continues a training that was stopped.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from hefkit import cli
from hefkit.errors import DataError, ToolchainError
from hefkit.files import check_writable, replacing
from hefkit.text import log

if TYPE_CHECKING:  # heavy
    from ultralytics import YOLO

NETWORK = Path(__file__).resolve().parent / "yolov8-drone.yaml"
SIDE = 640
EPOCHS = 36
OPSET = 11  # what Hailo's own exports use
DESCRIPTION = "hefkit's demonstration: YOLOv8, narrow, trained on drawn drones. No product."
SETTINGS: dict[str, Any] = {
    "imgsz": SIDE, "optimizer": "AdamW", "lr0": 0.002, "lrf": 0.02, "weight_decay": 0.0005, "warmup_epochs": 2.0,
    "cos_lr": True, "close_mosaic": 10, "mosaic": 1.0, "scale": 0.4, "translate": 0.1, "fliplr": 0.5, "degrees": 5.0,
    "hsv_h": 0.01, "hsv_s": 0.4, "hsv_v": 0.3, "cache": "ram", "seed": 0, "deterministic": False,
    "plots": False, "patience": 0,
}  # fmt: skip


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; nothing is opened."""
    parser = cli.Parser(__doc__)
    parser.add_argument("--data", type=Path, default=Path("out/drones/data.yaml"), metavar="FILE", help="data.yaml")
    parser.add_argument("--output", type=Path, default=Path("out/model"), metavar="DIR", help="default out/model")
    parser.add_argument(
        "--epochs", type=cli.whole_number(1, 10_000), default=EPOCHS, metavar="N", help=f"in all ({EPOCHS})"
    )
    parser.add_argument("--batch", type=cli.whole_number(1, 1024), default=16, metavar="N", help="pictures (16)")
    parser.add_argument("--device", default="cpu", help="cpu, or a GPU's number (cpu)")
    parser.add_argument("--threads", type=cli.whole_number(1, 1024), metavar="N", help="of the CPU (all)")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--resume", action="store_true", help="continue the training that is in DIR")
    start.add_argument("--weights", type=Path, metavar="FILE", help="a .pt to begin with (random weights)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Train, say how good it is on the validation pictures, export."""
    args = parse_args(argv)
    cli.set_up_logging(args.quiet)
    check_writable(args.output)
    if not args.data.is_file():
        raise DataError(f"{args.data} does not exist; expected a data.yaml; make it with make_dataset.py")
    if args.weights and not args.weights.is_file():
        raise DataError(f"{args.weights} does not exist; expected the best.pt of an earlier training")
    check_tools()
    best = args.output / "train" / "weights" / "best.pt"
    start = time.monotonic()
    train(args)
    log.info("trained in %.0f minutes", (time.monotonic() - start) / 60)
    for name, nms in (("drone.onnx", False), ("drone_nms.onnx", True)):
        export(best, args.output / name, nms)
    return 0


def check_tools() -> None:
    """ultralytics and torch train; nothing else in this project uses them."""
    try:
        import torch
        import ultralytics
    except ImportError as exc:
        raise ToolchainError(
            f"the Python package {exc.name} is missing; training needs it; "
            "run: pip install torch torchvision ultralytics"
        ) from exc
    log.info("ultralytics %s, torch %s", ultralytics.__version__, torch.__version__)


def yolo(path: Path) -> YOLO:
    """A network's description, or weights."""
    from ultralytics import YOLO

    return YOLO(str(path), task="detect")


def train(args: argparse.Namespace) -> None:
    """Train; the result is args.output/train/weights/best.pt."""
    if args.threads:
        os.environ["OMP_NUM_THREADS"] = str(args.threads)
    last = args.output / "train" / "weights" / "last.pt"
    if args.resume and not last.is_file():
        raise DataError(f"{last} does not exist; expected a training that was stopped; leave --resume out")
    model = yolo(last if args.resume else args.weights or NETWORK)
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    if args.device == "cpu":
        model.add_callback("on_train_start", _faster_on_cpu)
    where = {"project": str(args.output.resolve()), "name": "train", "exist_ok": True}
    model.train(
        data=str(args.data.resolve()), epochs=args.epochs, batch=args.batch, device=args.device,
        resume=args.resume, amp=args.device != "cpu", workers=2, pretrained=bool(args.weights), **where, **SETTINGS,
    )  # fmt: skip


def _faster_on_cpu(trainer: Any) -> None:
    """Halves the time on CPUs that have bfloat16: ultralytics itself uses it on GPUs only. Losses stay in float32."""
    import torch

    predict = trainer.model.predict

    def predict_in_bfloat16(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return _floats(predict(*args, **kwargs))

    trainer.model.to(memory_format=torch.channels_last)  # the order that the CPU's convolutions work in
    trainer.model.predict = predict_in_bfloat16


def _floats(found: Any) -> Any:
    """The same nest of lists and dicts with every tensor in float32."""
    if isinstance(found, dict):
        return {key: _floats(value) for key, value in found.items()}
    if isinstance(found, list | tuple):
        return type(found)(map(_floats, found))
    return found.float()


def export(weights: Path, target: Path, nms: bool) -> None:
    """One ONNX for a fixed input of one picture."""
    settings: dict[str, Any] = {"nms": True, "conf": 0.001, "iou": 0.7, "max_det": 300} if nms else {}
    made = yolo(weights).export(format="onnx", imgsz=SIDE, opset=OPSET, simplify=True, device="cpu", **settings)
    with replacing(target) as temporary:
        shutil.move(made, temporary)
        describe(temporary)
    log.info("%s: %.2f MB", target, target.stat().st_size / 1e6)


def describe(path: Path) -> None:
    """Write what the model is, in place of the path of the data on the machine that trained it; the licence stays."""
    import onnx

    model = onnx.load(path)
    for entry in model.metadata_props:
        if entry.key == "description":
            entry.value = DESCRIPTION
    onnx.save(model, path)


if __name__ == "__main__":
    cli.run(main)
