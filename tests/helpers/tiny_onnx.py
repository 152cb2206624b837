"""Toy YOLOs, built node by node: small enough for a test, with all parts of a real export.

    tiny_yolo()                                     64x64, 3 classes, DFL, strides 8, 16, 32, raw predictions
    tiny_yolo(family="ltrb", tail="topk")           like an end-to-end YOLO26
    tiny_yolo(style="split", classes=64)            like YOLOv8 8.0: box and class channels concatenated first
    tiny_yolo(style="per_scale", ends="objectness") like an official YOLOv6
    save(tiny_yolo(), tmp_path / "tiny.onnx")

Weights are seeded. The head Convs are scaled so that pictures of `drawn()` get scores from nearly 0 to above 0.5, and
boxes of several cells.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from tests.helpers.onnx_net import Net, backbone, drawn, heads, network_input, run_onnx

__all__ = ["Decode", "drawn", "head_tensors", "network_input", "run_onnx", "save", "tiny_yolo"]

CLASS_LOGITS = (-2.5, 2.0)  # mean, deviation
FEW_OBJECTS = (-6.5, 2.0)  # of a hundred anchors one has a score above 0.25
BIN_LOGITS = (0.0, 1.5)
DISTANCES = (2.0, 0.6)


def save(model: onnx.ModelProto, path: Path) -> Path:
    """Write a model; returns the path."""
    path.write_bytes(model.SerializeToString())
    return path


def _built_once(build: Callable[..., onnx.ModelProto]) -> Callable[..., onnx.ModelProto]:
    """Remember each network, as it takes a tenth of a second; every call gets a copy of its own."""
    known: dict[str, bytes] = {}

    @functools.wraps(build)
    def copy(**options: Any) -> onnx.ModelProto:
        key = repr(sorted(options.items()))
        if key not in known:
            known[key] = build(**options).SerializeToString()
        return onnx.ModelProto.FromString(known[key])

    return copy


@_built_once
def tiny_yolo(
    *,
    family: str = "dfl",  # "dfl" | "ltrb"
    size: tuple[int, int] = (64, 64),  # (H, W), multiples of the largest stride
    classes: int = 3,
    reg_max: int = 16,
    strides: Sequence[int] = (8, 16, 32),
    style: str = "separate",  # "separate" | "split" | "slice" | "per_scale": where box and class channels separate
    dfl: str = "conv",  # "conv" | "matmul" | "mulsum": how bins become distances
    bins: Sequence[float] | None = None,  # other DFL weights than 0..reg_max-1
    boxes: str = "xywh",  # "xywh" | "xyxy"
    normalised: bool = False,  # boxes in 0..1
    ends: str = "combined",  # "combined" | "anchors_first" | "pair" | "pair_last" | "objectness"
    tail: str = "none",  # "none" | "topk" | "nms"
    opset: int = 12,
    width: int = 8,  # channels of the stem; four times that at the deepest
    named: bool = True,
    simplified: bool = True,  # False: Constant nodes, computed shapes and anchors, Identity and Cast
    dynamic: str = "no",  # "no" | "batch" | "size"
    half: bool = False,
    seed: int = 0,
    logits: tuple[float, float] = CLASS_LOGITS,  # mean, deviation of the class channels
    names: str | None = None,  # metadata "names"; None: {0: 'thing0', ...}; "": none
) -> onnx.ModelProto:
    """A small YOLO; the options say how it differs."""
    net = Net(opset=opset, seed=seed, named=named, constant_nodes=not simplified)
    bin_count = reg_max if family == "dfl" else 1
    pairs = heads(net, backbone(net, strides, width), 4 * bin_count, classes)
    _scale_heads(net, pairs, size, family, logits)
    computed = not simplified or dynamic == "size"
    decode = Decode(net, pairs, tuple(strides), classes, bin_count, size, computed)
    distances, scores = decode.distances_and_scores(style, dfl, bins)
    xy = decode.boxes(distances, boxes, size if normalised else None)
    outputs = decode.end(xy, scores, ends if tail == "none" else "anchors_first")
    if tail != "none":
        total = sum(size[0] * size[1] // (s * s) for s in strides)
        outputs = {"topk": _topk, "nms": _nms}[tail](net, outputs[0], classes, min(20, total))
    shape: list[int | str] = [1, 3, *size]
    if dynamic != "no":
        shape[0] = "batch"
    if dynamic == "size":
        shape[2:] = ["height", "width"]
    notes = {"task": "detect", "stride": str(max(strides)), "names": names}
    if names is None:
        notes["names"] = str({i: f"thing{i}" for i in range(classes)})
    model = net.model(shape, outputs, {k: v for k, v in notes.items() if v})
    return _to_half(model) if half else model


def head_tensors(strides: Sequence[int] = (8, 16, 32)) -> list[str]:
    """Where a `tiny_yolo` must be cut, in contract order."""
    return [f"raw_{role}_{stride}" for stride in strides for role in ("box", "cls")]


def _scale_heads(
    net: Net, pairs: Sequence[tuple[str, str]], size: tuple[int, int], family: str, logits: tuple[float, float]
) -> None:
    """Scale the head Convs so that their outputs have useful ranges on drawn pictures."""
    tensors = [t for pair in pairs for t in pair]
    model = net.model([1, 3, *size], tensors, {})
    seen = [run_onnx(model, network_input(drawn(size, seed)), *tensors) for seed in (0, 1)]
    convs = {node.output[0]: node for node in net.nodes}
    for i, tensor in enumerate(tensors):
        mean, deviation = logits if i % 2 else BIN_LOGITS if family == "dfl" else DISTANCES
        values = np.concatenate([s[i] for s in seen])
        gain = deviation / values.std()
        weight, bias = convs[tensor].input[1:3]
        net.weights[weight] = (net.weights[weight] * gain).astype(np.float32)
        net.weights[bias] = ((net.weights[bias] - values.mean()) * gain + mean).astype(np.float32)


class Decode:
    """Nodes from head tensors to boxes and scores, as different exporters write them."""

    def __init__(
        self,
        net: Net,
        pairs: Sequence[tuple[str, str]],
        strides: tuple[int, ...],
        classes: int,
        bins: int,
        size: tuple[int, int],
        computed: bool,
    ) -> None:
        self.net, self.pairs, self.strides, self.size = net, pairs, strides, size
        self.classes, self.bins, self.computed = classes, bins, computed

    def distances_and_scores(self, style: str, dfl: str, weights: Sequence[float] | None) -> tuple[str, str]:
        """(1, 4, N) distances in cells and (1, classes, N) scores."""
        net, bins = self.net, np.arange(self.bins) if weights is None else weights
        if style == "per_scale":
            flat = [
                (self._flat(b, 4 * self.bins), self._flat(net.op("Sigmoid", c), self.classes)) for b, c in self.pairs
            ]
            distances = [self._expect(box, dfl, bins) for box, _ in flat]
            return net.concat(*distances, axis=2), net.concat(*[c for _, c in flat], axis=2)
        if style == "separate":
            box = net.concat(*[self._flat(b, 4 * self.bins) for b, _ in self.pairs], axis=2)
            cls = net.concat(*[self._flat(c, self.classes) for _, c in self.pairs], axis=2)
        else:
            both = [self._flat(net.concat(b, c), 4 * self.bins + self.classes) for b, c in self.pairs]
            box, cls = self._part(net.concat(*both, axis=2), style)
        return self._expect(box, dfl, bins), net.op("Sigmoid", cls)

    def _part(self, x: str, style: str) -> tuple[str, str]:
        sides = 4 * self.bins
        if style == "split":
            box, cls = self.net.split(x, (sides, self.classes), axis=1)
            return box, cls
        return self.net.slice(x, 0, sides, 1), self.net.slice(x, sides, sides + self.classes, 1)

    def _flat(self, x: str, channels: int) -> str:
        """(1, C, H, W) -> (1, C, H*W)."""
        net = self.net
        if not self.computed:
            return net.reshape(x, 1, channels, -1)
        x = net.op("Cast", net.op("Identity", x), to=TensorProto.FLOAT)
        batch = net.unsqueeze(net.op("Gather", net.op("Shape", x), net.const(0, np.int64)), 0)
        return net.op("Reshape", x, net.op("Concat", batch, net.ints(channels), net.ints(-1), axis=0))

    def _expect(self, x: str, dfl: str, weights: Sequence[float] | np.ndarray) -> str:
        """(1, 4 * bins, N) -> (1, 4, N)."""
        net, r = self.net, self.bins
        if r == 1:
            return x
        x = net.op("Softmax", net.transpose(net.reshape(x, 1, 4, r, -1), 0, 3, 1, 2), axis=3)  # (1, N, 4, r)
        if dfl == "conv":
            name = f"dfl{len(net.nodes)}"
            net.weights[name] = np.asarray(weights, np.float32).reshape(1, r, 1, 1)
            return net.reshape(net.op("Conv", net.transpose(x, 0, 3, 2, 1), name), 1, 4, -1)
        if dfl == "matmul":
            x = net.reshape(net.op("MatMul", x, net.const(np.reshape(weights, (r, 1)))), 1, -1, 4)
        else:
            x = net.reduce_sum(net.op("Mul", x, net.const(weights)), 3)
        return net.transpose(x, 0, 2, 1)

    def boxes(self, distances: str, form: str, size: tuple[int, int] | None) -> str:
        """(1, 4, N) distances -> (1, 4, N) boxes in pixels, or 0..1 of `size`."""
        net = self.net
        anchors, strides = self._computed_anchors() if self.computed else self._constant_anchors()
        first = net.op("Sub", anchors, net.slice(distances, 0, 2, 1))
        second = net.op("Add", anchors, net.slice(distances, 2, 4, 1))
        if form == "xywh":
            centre = net.op("Div", net.op("Add", first, second), net.const(2.0))
            first, second = centre, net.op("Sub", second, first)
        boxes = net.op("Mul", net.concat(first, second, axis=1), strides)
        if size is None:
            return boxes
        return net.op("Div", boxes, net.const(np.reshape([size[1], size[0]] * 2, (1, 4, 1))))

    def _constant_anchors(self) -> tuple[str, str]:
        """(1, 2, N) cell centres and (1, N) strides, as a simplified export of fixed size stores them."""
        grids = [(self.size[0] // s, self.size[1] // s) for s in self.strides]
        xy = [np.stack([(np.arange(h * w) % w) + 0.5, (np.arange(h * w) // w) + 0.5]) for h, w in grids]
        strides = np.repeat(self.strides, [h * w for h, w in grids])
        return self.net.const(np.concatenate(xy, 1)[None]), self.net.const(strides[None])

    def _computed_anchors(self) -> tuple[str, str]:
        """The same, computed from the heads' shapes, as dynamic and unsimplified exports do."""
        net, parts, strides = self.net, [], []
        for stride, (box, _) in zip(self.strides, self.pairs, strict=True):
            shape = net.op("Shape", box)
            h, w = (net.op("Gather", shape, net.const(axis, np.int64)) for axis in (2, 3))
            grid = net.op("Concat", net.unsqueeze(h, 0), net.unsqueeze(w, 0), axis=0)
            x, y = (self._centres(n) for n in (w, h))
            flat = [
                net.reshape(net.op("Expand", line, grid), 1, 1, -1)
                for line in (net.unsqueeze(x, 0), net.unsqueeze(y, 1))
            ]
            parts.append(net.op("Concat", *flat, axis=1))
            zeros = net.op("Mul", net.reshape(flat[0], 1, -1), net.const(0.0))
            strides.append(net.op("Add", zeros, net.const(float(stride))))
        return net.op("Concat", *parts, axis=2), net.op("Concat", *strides, axis=1)

    def _centres(self, count: str) -> str:
        net = self.net
        steps = net.op("Range", net.const(0, np.int64), count, net.const(1, np.int64))
        return net.op("Add", net.op("Cast", steps, to=TensorProto.FLOAT), net.const(0.5))

    def end(self, boxes: str, scores: str, form: str) -> list[str]:
        """The output tensors."""
        net = self.net
        if form == "combined":
            return [net.op("Concat", boxes, scores, axis=1)]
        if form == "pair_last":
            return [boxes, scores]
        if form == "pair":
            return [net.transpose(boxes, 0, 2, 1), net.transpose(scores, 0, 2, 1)]
        if form == "objectness":
            one = net.op("Add", net.op("Mul", net.slice(scores, 0, 1, 1), net.const(0.0)), net.const(1.0))
            return [net.transpose(net.op("Concat", boxes, one, scores, axis=1), 0, 2, 1)]
        return [net.transpose(net.op("Concat", boxes, scores, axis=1), 0, 2, 1)]


def _topk(net: Net, x: str, classes: int, count: int) -> list[str]:
    """(1, N, 4 + classes) -> (1, count, 6): the best anchors, then the best (anchor, class) of those."""
    boxes, scores = net.split(x, (4, classes), axis=2)
    best = _top(net, net.reduce_max(scores, -1), count)[1]
    rows = net.unsqueeze(best, 2)
    boxes = net.op("GatherElements", boxes, net.op("Expand", rows, net.ints(1, count, 4)), axis=1)
    scores = net.op("GatherElements", scores, net.op("Expand", rows, net.ints(1, count, classes)), axis=1)
    values, index = _top(net, net.op("Flatten", scores), count)
    divisor = net.const(classes, np.int64)
    rows = net.unsqueeze(net.op("Div", index, divisor), 2)
    boxes = net.op("GatherElements", boxes, net.op("Expand", rows, net.ints(1, count, 4)), axis=1)
    classes_found = net.op("Cast", net.op("Mod", index, divisor), to=TensorProto.FLOAT)
    return [net.op("Concat", boxes, net.unsqueeze(values, 2), net.unsqueeze(classes_found, 2), axis=2)]


def _top(net: Net, x: str, count: int) -> tuple[str, str]:
    values = net.op("TopK", x, net.ints(count), outputs=2)
    return values, values[:-1] + "1"


def _nms(net: Net, x: str, classes: int, count: int) -> list[str]:
    """(1, N, 4 + classes) -> (M, 6): box, score, class of those that NonMaxSuppression keeps."""
    boxes, scores = net.split(x, (4, classes), axis=2)
    scores = net.transpose(scores, 0, 2, 1)
    chosen = net.op(
        "NonMaxSuppression", boxes, scores, net.ints(count), net.const([0.7]), net.const([0.25]), center_point_box=1
    )
    anchor = net.reshape(net.slice(chosen, 2, 3, 1), -1)
    kept = net.op("Gather", net.reshape(boxes, -1, 4), anchor, axis=0)
    score = net.reshape(net.op("GatherND", scores, chosen), -1, 1)
    label = net.op("Cast", net.slice(chosen, 1, 2, 1), to=TensorProto.FLOAT)
    return [net.op("Concat", kept, score, label, axis=1)]


def _to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """float32 -> float16 everywhere except the inputs of Resize, which ONNX requires in float32."""
    scales = {name for n in model.graph.node if n.op_type == "Resize" for name in n.input[1:]}
    tensors = [t for t in model.graph.initializer if t.name not in scales]
    tensors += [a.t for n in model.graph.node for a in n.attribute if a.name == "value" and n.output[0] not in scales]
    for tensor in tensors:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
    return model
