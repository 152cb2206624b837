"""An ONNX graph to build node by node, the backbone of a toy YOLO, and plain onnxruntime: the parts of `tiny_onnx`.

It uses no code of hefkit, so that the tests' inputs share no mistake with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper


def drawn(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8 RGB: a smooth background with a few flat rectangles."""
    height, width = size
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 90, width)[None, :, None] + np.linspace(0, 60, height)[:, None, None]
    picture = np.broadcast_to(ramp + rng.uniform(0, 60, 3), (height, width, 3)).astype(np.uint8).copy()
    for _ in range(5):
        y, x = rng.integers(0, height - 8), rng.integers(0, width - 8)
        h, w = rng.integers(8, max(9, height // 2)), rng.integers(8, max(9, width // 2))
        picture[y : y + h, x : x + w] = rng.integers(0, 256, 3)
    return picture


def network_input(picture: np.ndarray, dtype: str = "float32") -> np.ndarray:
    """(H, W, 3) uint8 -> (1, 3, H, W) of 0..1."""
    return (picture.transpose(2, 0, 1)[None] / 255).astype(dtype)


def run_onnx(model: onnx.ModelProto, feed: np.ndarray, *tensors: str) -> list[np.ndarray]:
    """Run plain onnxruntime; returns one array for each tensor (by default the outputs)."""
    whole = onnx.ModelProto.FromString(model.SerializeToString())
    have = {o.name for o in whole.graph.output}
    whole.graph.output.extend(onnx.ValueInfoProto(name=t) for t in tensors if t not in have)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(whole.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(list(tensors) or None, {session.get_inputs()[0].name: feed}))


@dataclass
class Net:
    """A graph; every method adds nodes and returns the name of a tensor."""

    opset: int = 12
    seed: int = 0
    named: bool = True
    constant_nodes: bool = False  # as unsimplified exports have them
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    channels: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def const(self, value: object, dtype: object = np.float32) -> str:
        array = np.asarray(value, dtype)
        name = f"c{len(self.weights) + len(self.nodes)}"
        if self.constant_nodes:
            tensor = numpy_helper.from_array(array, name)
            self.nodes.append(helper.make_node("Constant", [], [name], name=self._name("Constant"), value=tensor))
        else:
            self.weights[name] = array
        return name

    def ints(self, *values: int) -> str:
        return self.const(values, np.int64)

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: object) -> str:
        names = [f"t{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, name=self._name(kind), **attributes))
        return names[0]

    def _name(self, kind: str) -> str:
        return f"/net/{kind}_{len(self.nodes)}" if self.named else ""

    def conv(self, x: str, out: int, k: int = 1, stride: int = 1, groups: int = 1) -> str:
        fan_in = self.channels[x] // groups * k * k
        name = f"w{len(self.nodes)}"
        shape = (out, self.channels[x] // groups, k, k)
        self.weights[name] = (self.rng.normal(0, np.sqrt(2 / fan_in), shape)).astype(np.float32)
        self.weights[name + "b"] = self.rng.normal(0, 0.1, out).astype(np.float32)
        pads = [k // 2] * 4
        strides = [stride, stride]
        y = self.op("Conv", x, name, name + "b", kernel_shape=[k, k], pads=pads, strides=strides, group=groups)
        return self.known(y, out)

    def known(self, tensor: str, channels: int) -> str:
        self.channels[tensor] = channels
        return tensor

    def rename(self, tensor: str, name: str) -> str:
        """Rename a tensor that no node reads yet."""
        next(n for n in self.nodes if tensor in n.output).output[0] = name
        return self.known(name, self.channels[tensor])

    def silu(self, x: str) -> str:
        return self.known(self.op("Mul", x, self.op("Sigmoid", x)), self.channels[x])

    def block(self, x: str, out: int, k: int = 3, stride: int = 1, groups: int = 1) -> str:
        return self.silu(self.conv(x, out, k, stride, groups))

    def add(self, a: str, b: str) -> str:
        return self.known(self.op("Add", a, b), self.channels[a])

    def concat(self, *parts: str, axis: int = 1) -> str:
        total = sum(self.channels.get(p, 0) for p in parts)
        return self.known(self.op("Concat", *parts, axis=axis), total)

    def split(self, x: str, sizes: Sequence[int], axis: int) -> list[str]:
        names = [f"s{len(self.nodes)}_{i}" for i in range(len(sizes))]
        old = self.opset < 13
        inputs = [x] if old else [x, self.ints(*sizes)]
        attributes = {"split": list(sizes)} if old else {}
        self.nodes.append(helper.make_node("Split", inputs, names, name=self._name("Split"), axis=axis, **attributes))
        for name, size in zip(names, sizes, strict=True):
            self.channels[name] = size
        return names

    def slice(self, x: str, start: int, end: int, axis: int) -> str:
        return self.op("Slice", x, self.ints(start), self.ints(end), self.ints(axis))

    def reshape(self, x: str, *shape: int) -> str:
        return self.op("Reshape", x, self.ints(*shape))

    def transpose(self, x: str, *perm: int) -> str:
        return self.op("Transpose", x, perm=list(perm))

    def unsqueeze(self, x: str, axis: int) -> str:
        if self.opset < 13:
            return self.op("Unsqueeze", x, axes=[axis])
        return self.op("Unsqueeze", x, self.ints(axis))

    def reduce_max(self, x: str, axis: int) -> str:
        if self.opset < 18:
            return self.op("ReduceMax", x, axes=[axis], keepdims=0)
        return self.op("ReduceMax", x, self.ints(axis), keepdims=0)

    def reduce_sum(self, x: str, axis: int) -> str:
        if self.opset < 13:
            return self.op("ReduceSum", x, axes=[axis], keepdims=0)
        return self.op("ReduceSum", x, self.ints(axis), keepdims=0)

    def upsample(self, x: str) -> str:
        roi = self.const([]) if self.opset < 13 else ""  # required up to opset 12, never read
        scales = self.const([1, 1, 2, 2])
        y = self.op(
            "Resize", x, roi, scales, mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric"
        )
        return self.known(y, self.channels[x])

    def model(self, size: Sequence[int | str], outputs: Sequence[str], notes: dict[str, str]) -> onnx.ModelProto:
        """The finished model; `size` is the shape of `images`."""
        graph = helper.make_graph(
            self.nodes,
            "tiny",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, size)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            [numpy_helper.from_array(a, n) for n, a in self.weights.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        helper.set_model_props(model, notes)
        # the checker needs the shapes of outputs, at least their ranks
        inferred = onnx.shape_inference.infer_shapes(model).graph.output
        ranks = [
            a.ndim
            for a in run_onnx(
                model, np.zeros([{"batch": 1}.get(s, 64) if isinstance(s, str) else s for s in size], np.float32)
            )
        ]
        del model.graph.output[:]
        for value, rank in zip(inferred, ranks, strict=True):
            if not value.type.tensor_type.HasField("shape"):
                free = [f"{value.name}_{i}" for i in range(rank)]
                value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, free))
            model.graph.output.append(value)
        return model


def backbone(net: Net, strides: Sequence[int], width: int) -> dict[int, str]:
    """Features at each stride: Conv+SiLU, a residual Add, a Split, MaxPool, nearest upsampling, Concat."""
    x = net.block(net.known("images", 3), width, stride=2)
    levels, stride = {}, 2
    while stride < max(strides):
        x = net.block(x, width * 2 if stride > 2 else width, stride=2)
        stride *= 2
        if stride == 4:
            x = net.add(x, net.block(net.block(x, width), width))
        if stride == 8:
            half = net.channels[x] // 2
            first, second = net.split(x, (half, half), axis=1)
            x = net.block(net.concat(first, second, net.block(second, half)), 2 * half, k=1)
        levels[stride] = x
    channels = net.channels[x]
    pooled = net.op("MaxPool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1])
    levels[stride] = net.block(net.concat(x, net.known(pooled, channels)), channels, k=1)
    for fine in sorted((s for s in levels if min(strides) <= s < max(strides)), reverse=True):
        levels[fine] = net.block(net.concat(net.upsample(levels[fine * 2]), levels[fine]), width * 2, k=1)
    return {s: levels[s] for s in strides}


def heads(net: Net, features: dict[int, str], box_channels: int, classes: int) -> list[tuple[str, str]]:
    """(box, cls) tensors of every stride: Conv 3x3, Conv 1x1, and a depthwise Conv in the class branch.

    Their names are `raw_box_8`, `raw_cls_8` ..., where a test must cut.
    """
    pairs = []
    for stride, x in features.items():
        width = net.channels[x]
        box = net.conv(net.block(x, width), box_channels)
        cls = net.conv(net.block(net.block(x, width, groups=width), width, k=1), classes)
        pairs.append((net.rename(box, f"raw_box_{stride}"), net.rename(cls, f"raw_cls_{stride}")))
    return pairs
