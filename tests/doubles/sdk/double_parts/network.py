"""ONNX -> layers with the SDK's names, and their outputs computed by onnxruntime.

A `FILE.recorded.npz` beside the ONNX replaces onnxruntime by recorded outputs. So the worker can be tested on an old
Python with numpy alone.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from typing import Any

import numpy as np

KINDS = {
    "Conv": "conv", "MaxPool": "maxpool", "AveragePool": "avgpool", "Resize": "resize", "Concat": "concat",
    "Add": "ew_add", "Sub": "ew_sub", "Mul": "ew_mult", "Div": "ew_div", "Split": "feature_splitter",
    "Slice": "slice", "MatMul": "matmul", "Softmax": "softmax", "ReduceMean": "reduce_mean",
    "GlobalAveragePool": "avgpool", "ConvTranspose": "deconv",
}  # fmt: skip
FUSED = ("Sigmoid", "Relu", "HardSwish", "LeakyRelu", "BatchNormalization", "Clip")
SMALL = 1 << 20  # bytes; to optimise a smaller network takes longer than to run it
UNSUPPORTED = ("GatherElements", "TopK", "Mod", "ReduceMax", "Flatten", "Gather", "NonMaxSuppression", "GatherND")


class Network:
    """A translated network: `layers` in HN form, and `run`."""

    def __init__(
        self, blob: bytes, recorded: bytes, net: str, end_nodes: list[str], facts: dict[str, Any] | None = None
    ) -> None:
        self.blob, self.recorded, self.net, self.end_nodes = blob, recorded, net, end_nodes
        self._answers: dict[str, list[np.ndarray]] = {}
        self._session: Any = None
        if recorded:
            self._from_record(recorded)
        elif facts is not None:  # from an archive: no need to read the ONNX again
            self.input_shape, self.input_name = tuple(facts["input_shape"]), facts["input_name"]
            self.nodes, self.shapes = facts["nodes"], [tuple(s) for s in facts["shapes"]]
            self._tensors = facts["tensors"]
        else:
            self._from_onnx(blob)

    def facts(self) -> dict[str, Any] | None:
        """What an archive keeps of the network, beside `blob`."""
        if self.recorded:
            return None
        return {
            "input_shape": self.input_shape, "input_name": self.input_name, "nodes": self.nodes,
            "shapes": self.shapes, "tensors": self._tensors,
        }  # fmt: skip

    @staticmethod
    def read(path: str, net: str, end_nodes: list[str]) -> Network:
        """Open an ONNX file."""
        record = path + ".recorded.npz"
        recorded = b""
        if os.path.exists(record):
            with open(record, "rb") as file:
                recorded = file.read()
        with open(path, "rb") as file:
            return Network(file.read(), recorded, net, end_nodes)

    def run(self, image: np.ndarray) -> list[np.ndarray]:
        """(H, W, 3) float32 after normalisation -> (H, W, C) of every end node."""
        if self._answers:
            return self._answers[key_of(image)]
        if self._session is None:
            self._session = _opened(self.blob)
        feed = {self._session.get_inputs()[0].name: np.ascontiguousarray(image.transpose(2, 0, 1)[None])}
        found = self._session.run(self._tensors, feed)
        return [t[0].transpose(1, 2, 0) for t in found]

    def _from_record(self, recorded: bytes) -> None:
        with np.load(io.BytesIO(recorded)) as file:
            facts = json.loads(str(file["facts"]))
            self.input_shape = tuple(facts["input_shape"])
            self.input_name = facts["input_name"]
            self.nodes = facts["nodes"]
            self.shapes = [tuple(s) for s in facts["shapes"]]
            for key in facts["keys"]:
                self._answers[key] = [file[f"{key}_{k}"] for k in range(len(self.shapes))]

    def _from_onnx(self, blob: bytes) -> None:
        import onnx

        model = onnx.load_model_from_string(blob)
        graph = model.graph
        weights = {t.name: t for t in graph.initializer}
        by_name = {n.name: n for n in graph.node}
        unknown = [name for name in self.end_nodes if name not in by_name]
        if unknown:
            raise LookupError(unknown)
        image = next(v for v in graph.input if v.name not in weights)
        dims = [d.dim_value for d in image.type.tensor_type.shape.dim]
        self.input_name, self.input_shape = image.name, (dims[2], dims[3], dims[1])
        self._tensors = [by_name[name].output[0] for name in self.end_nodes]
        above = _above(graph, self._tensors)
        bad = [n for n in above if n.op_type in UNSUPPORTED]
        if bad:
            raise NotImplementedError([(n.op_type, n.name) for n in bad])
        self.nodes = _named(above, weights)
        have = {o.name for o in graph.output}
        graph.output.extend(onnx.ValueInfoProto(name=t) for t in self._tensors if t not in have)
        self.blob = model.SerializeToString()
        self.shapes = [tuple(t.shape) for t in self.run(np.zeros(self.input_shape, np.float32))]


def _opened(blob: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if len(blob) < SMALL:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(blob, options, providers=["CPUExecutionProvider"])


def key_of(image: np.ndarray) -> str:
    """The key of a recorded answer."""
    return hashlib.sha256(np.ascontiguousarray(image, np.float32).tobytes()).hexdigest()[:24]


def _above(graph: Any, tensors: list[str]) -> list[Any]:
    """The nodes that compute these tensors, in the graph's order."""
    producer = {out: n for n in graph.node for out in n.output}
    seen: set[int] = set()
    stack = list(tensors)
    while stack:
        node = producer.get(stack.pop())
        if node is not None and id(node) not in seen:
            seen.add(id(node))
            stack.extend(node.input)
    return [n for n in graph.node if id(n) in seen]


def _named(nodes: list[Any], weights: dict[str, Any]) -> list[dict[str, Any]]:
    """Layers with the SDK's names: conv1, dw1, conv2, concat1 ...; an activation belongs to the layer before it."""
    counts: dict[str, int] = {}
    layers: list[dict[str, Any]] = []
    owner: dict[str, dict[str, Any]] = {}  # tensor -> layer
    for node in nodes:
        before = next((owner[i] for i in node.input if i in owner), None)
        silu = node.op_type == "Mul" and len({id(owner.get(i)) for i in node.input}) == 1 and before is not None
        if node.op_type in FUSED or silu or node.op_type not in KINDS:
            if before is not None:
                before["original_names"].append(node.name)
                owner.update({out: before for out in node.output})
            continue
        kind = KINDS[node.op_type]
        if kind == "conv" and _is_depthwise(node, weights):
            kind = "dw"
        counts[kind] = counts.get(kind, 0) + 1
        layer = {"name": f"{kind}{counts[kind]}", "type": kind, "original_names": [node.name]}
        layers.append(layer)
        owner.update({out: layer for out in node.output})
    return layers


def _is_depthwise(node: Any, weights: dict[str, Any]) -> bool:
    group = next((a.i for a in node.attribute if a.name == "group"), 1)
    weight = weights.get(node.input[1])
    return group > 1 and weight is not None and weight.dims[1] == 1
