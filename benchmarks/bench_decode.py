#!/usr/bin/env python3
"""How long decoding takes: ours, the straightforward float decode, and ultralytics' in torch where installed.

Examples:
  bench_decode.py                                 its own tensors, a row for each
  bench_decode.py DIR --json --dump found.txt     DIR: meta.txt and the .npy files that it names

All from raw tensors to boxes after NMS, one thread each, every class above the threshold (multi-label), conf 0.25,
IoU 0.7. Ours and the float decode take turns of ten runs, so that a busy moment hits both (`ratio`), and then
again turns of one: there the float decode fills the caches with its own data before each run of ours (`cold`).
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # not where a test imports this
    for library in ("OMP", "OPENBLAS", "MKL"):  # read once, when numpy or torch is imported
        os.environ[f"{library}_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from hefkit import cli, files
from hefkit.errors import DataError
from hefkit.text import one_line

if TYPE_CHECKING:
    import numpy as np

    from hefkit.detect.decode import Decoder
    from hefkit.spec import HeadSpec

CONF, IOU = 0.25, 0.7
NO_LIMIT = 30_000  # the float decode keeps every box, so ours does
TURN = 10
OWN = [(80, 0), (80, 30), (80, 150), (2, 30)]  # classes, objects
STRIDES = (8, 16, 32)
SIDE = 640


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; nothing is opened."""
    parser = cli.Parser(__doc__)
    parser.add_argument("folder", nargs="?", type=Path, metavar="DIR", help="recorded tensors (default: own ones)")
    parser.add_argument("--runs", type=cli.whole_number(1, 1_000_000), default=200, metavar="N", help="of each (200)")
    parser.add_argument("--dump", type=Path, metavar="FILE", help="write `class score x1 y1 x2 y2` lines; needs DIR")
    args = parser.parse_args(argv)
    if args.dump and not args.folder:
        parser.error("--dump needs DIR; without it there are several inputs")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Time one folder, or every set of own tensors; print a table or JSON."""
    args = parse_args(argv)
    cli.set_up_logging(args.quiet)
    cli.need("numpy", "cv2")
    import cv2

    cv2.setNumThreads(1)
    if args.dump:
        files.check_writable(args.dump.parent)
    if args.folder:
        result = measured(str(args.folder), *read_tensors(args.folder), args.runs, args.dump)
        rows = [result]
    else:
        names = [f"{classes} classes, {objects} objects" for classes, objects in OWN]
        rows = [measured(name, *own_tensors(*what), args.runs) for name, what in zip(names, OWN, strict=True)]
        result = {"results": rows}
    if args.json:
        cli.print_json(result)
    else:
        sys.stdout.write(table(rows, args.runs))
    return 0


def measured(
    name: str, head: HeadSpec, tensors: list[np.ndarray], runs: int, dump: Path | None = None
) -> dict[str, Any]:
    """Medians of one input; `dump` gets our detections."""
    from hefkit.detect.decode import Decoder, DecodeSettings

    decoder = Decoder(head, DecodeSettings(CONF, IOU, NO_LIMIT, multi_label=True))
    found = decoder(tensors)
    if dump:
        rows = zip(found.class_id.tolist(), found.score.tolist(), found.xyxy.tolist(), strict=True)
        lines = [f"{c} {s:.6f} {' '.join(f'{v:.4f}' for v in box)}\n" for c, s, box in rows]
        with files.replacing(dump) as temporary:
            temporary.write_text("".join(lines))
    contest = (lambda: decoder(tensors)), (lambda: float_decode(head, tensors))
    ours, reference = in_turns(*contest, runs, TURN)
    cold, cold_reference = in_turns(*contest, runs, 1)
    torch_decode = ultralytics_decode(head, tensors)
    return {
        "input": name,
        "ours_us": ours,
        "reference_us": reference,
        "ratio": ours / reference,
        "detections": len(found),
        "runs": runs,
        "candidates": len(decoder.candidates(tensors).score),
        "ours_cold_us": cold,
        "reference_cold_us": cold_reference,
        "ratio_cold": cold / cold_reference,
        "stage_us": stages(decoder, tensors, runs),
        "ultralytics_us": None if torch_decode is None else statistics.median(timed(torch_decode, min(runs, 50))),
    }


def in_turns(ours: Callable[[], Any], reference: Callable[[], Any], runs: int, turn: int) -> tuple[float, float]:
    """Medians in microseconds of `runs` runs each, ours and the reference, in turns of so many."""
    ours(), reference()
    mine: list[float] = []
    theirs: list[float] = []
    for start in range(0, runs, turn):
        theirs.extend(timed(reference, min(turn, runs - start)))
        mine.extend(timed(ours, min(turn, runs - start)))
    return statistics.median(mine), statistics.median(theirs)


def timed(function: Callable[[], Any], runs: int) -> list[float]:
    """Microseconds of each run."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        function()
        times.append(1e6 * (time.perf_counter() - start))
    return times


def stages(decoder: Decoder, tensors: list[np.ndarray], runs: int) -> dict[str, float]:
    """Median microseconds of each step of our decode."""
    from hefkit.detect.decode import best_first

    found = decoder.candidates(tensors)
    steps: dict[str, Callable[[], Any]] = {"scan": lambda: decoder.candidates(tensors)}
    if len(found.score):
        xyxy, order = decoder.boxes_at(tensors, found.anchor), best_first(found)
        sorted_boxes, sorted_found = xyxy[order], found.only(order)
        steps["boxes"] = lambda: decoder.boxes_at(tensors, found.anchor)
        steps["order"] = lambda: (found.only(best_first(found)), xyxy.take(order, axis=0))
        steps["nms"] = lambda: decoder.survivors(sorted_boxes, sorted_found)
    medians = {name: statistics.median(timed(step, runs)) for name, step in steps.items()}
    return {name: medians.get(name, 0.0) for name in ("scan", "boxes", "order", "nms")}


def float_decode(head: HeadSpec, tensors: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The baseline: dequantise everything, decode every anchor, threshold, NMS -> class, score, xyxy."""
    import cv2
    import numpy as np

    boxes, scores = [], []
    bins = np.arange(head.reg_max, dtype=np.float32)
    for box, cls, spec, cls_spec in zip(
        tensors[0::2], tensors[1::2], head.outputs[0::2], head.outputs[1::2], strict=True
    ):
        q = box.reshape(-1, box.shape[2])
        dist = ((q.astype(np.float32) - spec.zero_point) * spec.scale).reshape(-1, 4, head.reg_max)
        if head.reg_max == 1:
            d = dist[:, :, 0]
        else:
            e = np.exp(dist - dist.max(-1, keepdims=True))
            d = (e / e.sum(-1, keepdims=True)) @ bins
        y, x = np.divmod(np.arange(len(q)), box.shape[1])
        center = np.stack([x, y], 1) + 0.5
        boxes.append(np.concatenate([center - d[:, :2], center + d[:, 2:]], 1) * spec.stride)
        q = cls.reshape(-1, cls.shape[2])
        scores.append((q.astype(np.float32) - cls_spec.zero_point) * cls_spec.scale)
    all_boxes, all_scores = np.concatenate(boxes), np.concatenate(scores)
    anchor, class_id = np.nonzero(all_scores >= CONF)
    b, s = all_boxes[anchor], all_scores[anchor, class_id]
    xywh = np.concatenate([b[:, :2] + class_id[:, None] * 4096.0, b[:, 2:] - b[:, :2]], 1)
    keep = np.asarray(cv2.dnn.NMSBoxes(xywh, s, 0.0, IOU), np.int64).reshape(-1)  # type: ignore[arg-type]
    return class_id[keep], s[keep], b[keep]


def ultralytics_decode(head: HeadSpec, tensors: list[np.ndarray]) -> Callable[[], Any] | None:
    """The same work by torch and ultralytics' own functions; None where they are not installed."""
    try:
        import torch
        from ultralytics.utils.tal import dist2bbox, make_anchors

        try:
            from ultralytics.utils.nms import non_max_suppression
        except ImportError:  # where it lay before 8.3.200
            from ultralytics.utils.ops import non_max_suppression
    except ImportError:
        return None
    torch.set_num_threads(1)
    specs = head.outputs

    def decode() -> Any:
        real = [
            ((torch.from_numpy(t).float() - s.zero_point) * s.scale).permute(2, 0, 1)[None]
            for t, s in zip(tensors, specs, strict=True)
        ]
        anchors, strides = (a.transpose(0, 1) for a in make_anchors(real[0::2], list(head.strides), 0.5))
        box = torch.cat([t.flatten(2) for t in real[0::2]], 2).view(1, 4, head.reg_max, -1)
        distance = box[:, :, 0]
        if head.reg_max > 1:
            distance = (box.softmax(2) * torch.arange(head.reg_max).view(1, 1, -1, 1)).sum(2)
        xywh = dist2bbox(distance, anchors[None], xywh=True, dim=1) * strides
        scores = torch.cat([t.flatten(2) for t in real[1::2]], 2)
        return non_max_suppression(torch.cat([xywh, scores], 1), CONF, IOU, multi_label=True, max_det=NO_LIMIT)

    return decode


def read_tensors(folder: Path) -> tuple[HeadSpec, list[np.ndarray]]:
    """The head and tensors of meta.txt: name role stride height width features scale zero_point file."""
    import numpy as np

    from hefkit.spec import HeadSpec, OutputSpec

    try:
        lines = (folder / "meta.txt").read_text().splitlines()
        found = {}
        for line in lines:
            if not line.strip() or line.startswith("#"):
                continue
            name, role, stride, h, w, c, scale, zero, file = line.split()
            shape = (int(h), int(w), int(c))
            role, activation = {"reg": ("box", "none"), "cls": ("cls", "sigmoid")}[role]
            tensor = np.load(folder / file, allow_pickle=False)
            spec = OutputSpec(
                role, int(stride), shape, name, None, activation, str(tensor.dtype), float(scale), float(zero)
            )
            if tensor.dtype not in (np.uint8, np.uint16):
                raise ValueError(f"{file} holds {tensor.dtype}")
            found[int(stride), role] = spec, tensor.reshape(shape)
        pairs = [found[key] for key in sorted(found)]
        boxes, classes = ({s.shape[2] for s, _ in pairs if s.role == role} for role in ("box", "cls"))
        (channels,), (num_classes,) = boxes, classes
        if len(pairs) % 2 or channels % 4:
            raise ValueError("no box and class tensor for every stride")
    except OSError as exc:
        raise DataError(f"cannot read {exc.filename or folder}: {exc.strerror or exc}; see --help for DIR") from exc
    except (ValueError, KeyError, EOFError) as exc:
        raise DataError(f"{folder}/meta.txt and its files do not fit: {one_line(exc)}; record them again") from exc
    specs = tuple(spec for spec, _ in pairs)
    family = "ltrb" if channels == 4 else "dfl"
    head = HeadSpec(family, num_classes, channels // 4, tuple(s.stride for s in specs[0::2]), False, specs)
    return head, [tensor for _, tensor in pairs]


def own_tensors(num_classes: int, objects: int) -> tuple[HeadSpec, list[np.ndarray]]:
    """A head of a 640 x 640 input that sees so many objects, about a dozen anchors each; always the same."""
    import numpy as np

    from hefkit.spec import HeadSpec, OutputSpec

    rng = np.random.default_rng(objects)
    specs, tensors = [], []
    for stride in STRIDES:
        grid = (SIDE // stride, SIDE // stride)
        box = OutputSpec("box", stride, (*grid, 64), f"box{stride}", scale=0.07, zero_point=116)
        cls = OutputSpec("cls", stride, (*grid, num_classes), f"cls{stride}", None, "sigmoid", scale=1 / 255)
        specs += [box, cls]
        tensors += [rng.integers(70, 140, box.shape, np.uint8), rng.integers(0, 12, cls.shape, np.uint8)]
    for _ in range(objects):
        scale = int(rng.integers(3))
        stride, class_id = STRIDES[scale], int(rng.integers(num_classes))
        center, half = rng.uniform(0, SIDE, 2), rng.uniform(2, 6, 2) * stride
        bins, scores = tensors[2 * scale], tensors[2 * scale + 1]
        # the cells whose centre is less than two cells away; only the square around them is looked at
        (left, top), (right, bottom) = np.clip([center / stride - 3, center / stride + 3], 0, SIDE // stride).astype(
            int
        )
        for y, x in itertools.product(range(top, bottom), range(left, right)):
            away = np.hypot(*((np.array([x, y]) + 0.5) * stride - center)) / stride
            if away < 2:
                offset = center / stride - (np.array([x, y]) + 0.5)
                sides = np.concatenate([half / stride - offset, half / stride + offset]) + rng.normal(0, 0.1, 4)
                logits = 9 - 3 * np.abs(np.arange(16) - sides[:, None].clip(0, 15))
                bins[y, x] = np.clip(np.rint(logits / 0.07 + 116), 0, 255).reshape(-1)
                scores[y, x, class_id] = int(255 * rng.uniform(0.6, 0.95) * (1 - 0.3 * away))
    return HeadSpec("dfl", num_classes, 16, STRIDES, False, tuple(specs)), tensors


def table(rows: list[dict[str, Any]], runs: int) -> str:
    """The results for a person."""
    head = [
        "float",
        "ours",
        "ratio",
        "cold",
        "ratio cold",
        "scan",
        "boxes",
        "order",
        "nms",
        "ultralytics",
        "boxes found",
    ]
    lines = [f"median microseconds of {runs} runs", f"{'':32}" + "".join(f"{word:>12}" for word in head)]
    for row in rows:
        times = list(row["stage_us"].values())
        theirs = "not installed" if row["ultralytics_us"] is None else f"{row['ultralytics_us']:.0f}"
        lines.append(
            f"{one_line(row['input'])[-32:]:32}{row['reference_us']:12.0f}{row['ours_us']:12.0f}{row['ratio']:12.4f}"
            f"{row['ours_cold_us']:12.0f}{row['ratio_cold']:12.4f}"
            + "".join(f"{value:12.0f}" for value in times)
            + f"{theirs:>14}{row['detections']:10}"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    cli.run(main)
