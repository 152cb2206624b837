"""Toy networks that hefkit refuses to decode: `wrong_onnx("segment")`, see KINDS."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx

from tests.helpers.onnx_net import Net, backbone, heads
from tests.helpers.tiny_onnx import Decode

SIZE = (64, 64)
STRIDES = (8, 16, 32)
CLASSES = 5


def wrong_onnx(kind: str) -> onnx.ModelProto:
    """A 64x64 model of one of KINDS."""
    net = Net(opset=12)
    features = backbone(net, STRIDES, 8)
    return net.model([1, 3, *SIZE], KINDS[kind](net, features), {})


def _detector(net: Net, features: dict[int, str], bins: int = 16) -> tuple[str, str]:
    """Boxes and scores of an ordinary detector, the base of other kinds."""
    pairs = heads(net, features, 4 * bins, CLASSES)
    decode = Decode(net, pairs, STRIDES, CLASSES, bins, SIZE, computed=False)
    distances, scores = decode.distances_and_scores("separate", "conv", None)
    return decode.boxes(distances, "xywh", None), scores


def _third(net: Net, features: dict[int, str], channels: int) -> str:
    """(1, channels, N): one more Conv at every scale."""
    parts = [net.reshape(net.conv(net.block(x, 8), channels), 1, channels, -1) for x in features.values()]
    return net.concat(*parts, axis=2)


def _classify(net: Net, features: dict[int, str]) -> list[str]:
    x = net.op("Flatten", net.op("GlobalAveragePool", net.block(features[32], 40, k=1)))
    return [net.op("Softmax", net.op("Gemm", x, net.const(np.ones((40, 10)))), axis=1)]


def _segment(net: Net, features: dict[int, str]) -> list[str]:
    boxes, scores = _detector(net, features)
    prototypes = net.block(net.block(net.upsample(features[8]), 8), 8)
    return [net.op("Concat", boxes, scores, _third(net, features, 8), axis=1), prototypes]


def _pose(net: Net, features: dict[int, str]) -> list[str]:
    boxes, scores = _detector(net, features)
    points = net.reshape(_third(net, features, 6), 1, 2, 3, -1)
    visible = net.op("Sigmoid", net.slice(points, 2, 3, 2))
    points = net.reshape(net.concat(net.slice(points, 0, 2, 2), visible, axis=2), 1, 6, -1)
    return [net.op("Concat", boxes, scores, points, axis=1)]


def _obb(net: Net, features: dict[int, str]) -> list[str]:
    boxes, scores = _detector(net, features)
    angle = net.op("Mul", net.op("Sub", net.op("Sigmoid", _third(net, features, 1)), net.const(0.25)), net.const(np.pi))
    turned = net.op("Mul", boxes, net.op("Add", net.op("Cos", angle), net.op("Sin", angle)))
    return [net.op("Concat", turned, scores, angle, axis=1)]


def _anchor_based(net: Net, features: dict[int, str]) -> list[str]:
    parts = []
    for x in features.values():
        y = net.reshape(net.conv(x, 3 * (5 + CLASSES)), 1, 3, 5 + CLASSES, -1)
        y = net.op("Sigmoid", net.transpose(y, 0, 1, 3, 2))
        parts.append(net.reshape(y, 1, -1, 5 + CLASSES))
    return [net.concat(*parts, axis=1)]


def _yolox(net: Net, features: dict[int, str]) -> list[str]:
    parts = []
    for stride, x in features.items():
        box = net.conv(net.block(x, 8), 4)
        tower = net.block(x, 8)
        scores = [net.op("Sigmoid", net.conv(tower, channels)) for channels in (1, CLASSES)]
        parts.append(net.reshape(net.op("Concat", box, *scores, axis=1), 1, 5 + CLASSES, (64 // stride) ** 2))
    x = net.transpose(net.op("Concat", *parts, axis=2), 0, 2, 1)
    return [net.op("Concat", net.op("Exp", net.slice(x, 0, 4, 2)), net.slice(x, 4, 5 + CLASSES, 2), axis=2)]


def _transformer(net: Net, features: dict[int, str]) -> list[str]:
    parts = [net.reshape(net.conv(x, 32), 1, 32, -1) for x in features.values()]
    tokens = net.transpose(net.op("Concat", *parts, axis=2), 0, 2, 1)
    weights = net.op("Softmax", net.op("MatMul", tokens, net.transpose(tokens, 0, 2, 1)), axis=2)
    mixed = net.op("MatMul", weights, tokens)
    return [net.op("Sigmoid", net.op("MatMul", mixed, net.const(np.ones((32, 4 + CLASSES)))))]


def _two_heads(net: Net, features: dict[int, str]) -> list[str]:
    first = net.op("Concat", *_detector(net, features), axis=1)
    for node in net.nodes:  # the second head gets these names
        for names in (node.input, node.output):
            names[:] = ["first_" + name if name.startswith("raw_") else name for name in names]
    return [first, net.op("Concat", *_detector(net, features), axis=1)]


def _training(net: Net, features: dict[int, str]) -> list[str]:
    """The second head ends in raw outputs of its own, as in an export of the bare network."""
    first = net.op("Concat", *_detector(net, features), axis=1)
    raw = [net.op("Concat", net.conv(x, 64), net.conv(x, CLASSES), axis=1) for x in features.values()]
    return [first, *raw]


def _no_sigmoid(net: Net, features: dict[int, str]) -> list[str]:
    pairs = heads(net, features, 64, CLASSES)
    decode = Decode(net, pairs, STRIDES, CLASSES, 16, SIZE, computed=False)
    distances, scores = decode.distances_and_scores("separate", "conv", None)
    logits = next(n for n in net.nodes if scores in n.output).input[0]
    return [net.op("Concat", decode.boxes(distances, "xywh", None), logits, axis=1)]


def _quantised(net: Net, features: dict[int, str]) -> list[str]:
    pairs = []
    for pair in heads(net, features, 64, CLASSES):
        scale = net.const(0.1), net.const(128, np.uint8)
        codes = [net.op("QuantizeLinear", tensor, *scale) for tensor in pair]
        box, cls = (net.op("DequantizeLinear", c, *scale) for c in codes)
        pairs.append((box, cls))
    decode = Decode(net, pairs, STRIDES, CLASSES, 16, SIZE, computed=False)
    distances, scores = decode.distances_and_scores("separate", "conv", None)
    return [net.op("Concat", decode.boxes(distances, "xywh", None), scores, axis=1)]


def _cut_already(net: Net, features: dict[int, str]) -> list[str]:
    return [tensor for pair in heads(net, features, 64, CLASSES) for tensor in pair]


def _each(change: Callable[[Net, str, str], Sequence[str]], channels: int = 64) -> Callable[..., list[str]]:
    """A network cut at its heads, with a change of box and class tensor at every scale."""

    def build(net: Net, features: dict[int, str]) -> list[str]:
        return [t for box, cls in heads(net, features, channels, CLASSES) for t in change(net, box, cls)]

    return build


def _flat(net: Net, box: str, cls: str) -> list[str]:
    return [net.reshape(box, 1, 64, -1), net.reshape(cls, 1, CLASSES, -1)]


def _cut_whole(net: Net, features: dict[int, str]) -> list[str]:
    """All scales in one tensor, as the training output of ultralytics."""
    parts = [net.reshape(net.concat(*pair), 1, 64 + CLASSES, -1) for pair in heads(net, features, 64, CLASSES)]
    return [net.concat(*parts, axis=2)]


def _rknn(net: Net, box: str, cls: str) -> list[str]:
    """As Rockchip's fork of ultralytics exports: boxes, scores, and the sum of the scores to skip empty cells."""
    scores = net.op("Sigmoid", cls)
    total = net.op("Clip", net.reduce_sum(scores, 1), net.const(0.0), net.const(1.0))
    return [box, scores, total]


def _no_conv(net: Net, features: dict[int, str]) -> list[str]:
    return [net.op("MatMul", "images", net.const(np.ones((64, 4))))]


KINDS: dict[str, Callable[[Net, dict[int, str]], Sequence[str]]] = {
    "classify": _classify,
    "segment": _segment,
    "pose": _pose,
    "obb": _obb,
    "anchor_based": _anchor_based,
    "yolox": _yolox,
    "transformer": _transformer,
    "two_heads": _two_heads,
    "training": _training,
    "no_sigmoid": _no_sigmoid,
    "quantised": _quantised,
    "cut_already": _cut_already,
    "no_conv": _no_conv,
    "cut_nhwc": _each(lambda net, box, cls: [net.transpose(t, 0, 2, 3, 1) for t in (box, cls)]),
    "cut_sigmoid": _each(lambda net, box, cls: [box, net.op("Sigmoid", cls)]),
    "cut_rknn": _each(_rknn),
    "cut_concat": _each(lambda net, box, cls: [net.concat(box, cls)]),
    "cut_flat": _each(_flat),
    "cut_whole": _cut_whole,
    "cut_distances": _each(lambda net, box, cls: [box, cls], 4),
    "cut_distances_sigmoid": _each(lambda net, box, cls: [box, net.op("Sigmoid", cls)], 4),
}
