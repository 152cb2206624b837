"""HEFs that the double of HailoRT runs: real protobuf for readers; in place of the weights an ONNX and a table.

write_hef(path, spec, onnx)                          raw heads, as the compiler writes them
write_hef(path, spec, onnx, nms="host")              followed by HailoRT's NMS
write_hef(path, spec, None)                          every code is the first byte of the picture
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hefkit.spec import ModelSpec, OutputSpec
from tests.helpers import tiny_hef
from tests.helpers.tiny_hef import NET_FLOW, PER_FEATURE, PERIPH

ARCHS = {"hailo8": 0, "hailo8l": 3, "hailo15h": 103, "hailo10h": 5}
MARK = b"DOUBLE\0\0"
NHWC, NHCW, FCR, NMS_ON_CHIP = 0, 1, 3, 6  # the compiler's numbers of device formats


@dataclass
class Recipe:
    """How a HEF differs from the usual one."""

    arch: str = "hailo8"
    contexts: int = 1
    nms: str | None = None  # "host", "chip", "boxes"
    score_threshold: float = 0.2
    iou_threshold: float = 0.7
    most: int = 100  # boxes a class
    original_names: bool = True  # of the ONNX nodes
    streams: Sequence[str] = ()  # names of the outputs; () gives net/conv1, net/conv2 ...
    multiply: dict[int, list[int]] = field(default_factory=dict)  # output -> factor of each feature, in 16 bits
    order: Sequence[int] = ()  # of the outputs in the file; () as in the spec
    groups: int = 1


def hef_spec(spec: ModelSpec, recipe: Recipe | None = None) -> ModelSpec:
    """The spec beside the HEF: of kind hef, with streams and the HEF's own quantisation."""
    recipe = recipe or Recipe()
    outputs = tuple(_output(i, output, recipe) for i, output in enumerate(spec.head.outputs))
    target = {"arch": recipe.arch, "sdk": "3.33.1"}
    return replace(spec, kind="hef", head=replace(spec.head, outputs=outputs), target=target)


def write_hef(path: Path, spec: ModelSpec, onnx: bytes | None, recipe: Recipe | None = None, *, beside: bool = False,
              version: int = 2) -> ModelSpec:  # fmt: skip
    """Write a HEF, and with `beside` its spec beside it; returns that spec."""
    recipe = recipe or Recipe()
    ours = hef_spec(spec, recipe)
    path.write_bytes(hef_bytes(ours, [output.onnx_node or "" for output in spec.head.outputs], onnx, recipe, version))
    if beside:
        path.with_suffix(".json").write_text(json.dumps(ours.to_json()))
    return ours


def hef_bytes(spec: ModelSpec, nodes: Sequence[str], onnx: bytes | None, recipe: Recipe, version: int = 2) -> bytes:
    """The bytes of the file."""
    table = _table(spec, recipe)
    payload = json.dumps(table).encode()
    weights = MARK + struct.pack("<I", len(payload)) + payload + (onnx or b"")
    return tiny_hef.hef_file(_proto(spec, nodes, recipe), version, ccws=weights)


def _output(index: int, output: OutputSpec, recipe: Recipe) -> OutputSpec:
    names = recipe.streams or [f"net/conv{i + 1}" for i in range(2 * 8)]
    output = replace(output, stream=names[index])
    factors = recipe.multiply.get(index)
    if factors is None:
        return output
    scale, zero_point = output.scale, output.zero_point
    assert isinstance(scale, float) and not isinstance(zero_point, tuple) and len(factors) == output.shape[2]
    return replace(
        output,
        dtype="uint16",
        scale=tuple(scale / f for f in factors),
        zero_point=tuple(zero_point * f for f in factors),
    )


def _table(spec: ModelSpec, recipe: Recipe) -> dict[str, Any]:
    """The table for the double: everything that it needs to run the network."""
    order = list(recipe.order or range(len(spec.head.outputs)))
    raw = [
        {
            "name": o.stream, "onnx": f"{o.role}{o.stride}", "shape": o.shape, "dtype": o.dtype, "scale": o.scale,
            "zero_point": o.zero_point, "multiply": recipe.multiply.get(i),
        }
        for i, o in ((i, spec.head.outputs[i]) for i in order)
    ]  # fmt: skip
    pairs = [[stride, order.index(2 * i), order.index(2 * i + 1)] for i, stride in enumerate(spec.head.strides)]
    nms = None
    if recipe.nms is not None:
        anchors = sum(o.shape[0] * o.shape[1] for o in spec.head.outputs[::2])
        nms = {
            "name": "net/nms", "kind": recipe.nms, "classes": spec.head.num_classes, "score": recipe.score_threshold,
            "iou": recipe.iou_threshold, "most": recipe.most, "size": spec.input.size, "pairs": pairs,
            "anchors": anchors,
        }  # fmt: skip
    return {
        "arch": recipe.arch, "contexts": recipe.contexts, "groups": recipe.groups,
        "input": {"name": "net/input", "shape": [*spec.input.size, 3]}, "raw": raw, "nms": nms,
    }  # fmt: skip


def _proto(spec: ModelSpec, nodes: Sequence[str], recipe: Recipe) -> bytes:
    """The same network as protobuf, for readers."""
    per_feature = any(isinstance(o.scale, tuple) for o in spec.head.outputs)
    layers = [_input_layer(spec, per_feature)]
    for i, (output, node) in enumerate(zip(spec.head.outputs, nodes, strict=True)):
        layers.append(_layer(output, node if recipe.original_names else "", i + 1, recipe, per_feature))
    names = [str(output.stream) for output in spec.head.outputs]
    order = [names[i] for i in recipe.order or range(len(names))]
    extensions = [PERIPH] + ([PER_FEATURE] if per_feature else [])
    if recipe.nms in ("host", "boxes"):
        group = _with_nms_op(spec, layers, recipe)
        extensions.append(NET_FLOW)
    elif recipe.nms == "chip":
        group = tiny_hef.group([layers[0], _chip_nms(spec, recipe)], ["net/nms"])
    else:
        group = tiny_hef.group(layers, order)
    group += b"".join(tiny_hef.field(3, b"") for _ in range(recipe.contexts - 1)) if recipe.nms is None else b""
    groups = [group] * recipe.groups if recipe.groups == 1 else [group, tiny_hef.group(layers, order, "other")]
    return tiny_hef.hef(*_partial(groups, recipe.arch), arch=ARCHS[recipe.arch], extensions=extensions)


def _partial(groups: list[bytes], arch: str) -> list[bytes]:
    """The HEF of an 8L holds its networks in layouts of clusters."""
    if arch != "hailo8l":
        return groups
    return [tiny_hef.field(7, tiny_hef.field(1, g) + tiny_hef.field(2, tiny_hef.field(1, 3))) + g for g in groups]


def _input_layer(spec: ModelSpec, per_feature: bool) -> bytes:
    scales = {"scales": [1.0] * 3, "zero_points": [0.0] * 3} if per_feature else {}
    info = tiny_hef.info("net/input", *spec.input.size, 3, scale=1, zero_point=0, names=["images"], **scales)
    return tiny_hef.edge(info, output=False)


def _layer(output: OutputSpec, node: str, pad: int, recipe: Recipe, per_feature: bool) -> bytes:
    height, width, channels = output.shape
    scales, zero_points = (
        list(v) if isinstance(v, tuple) else [v] * channels for v in (output.scale, output.zero_point)
    )
    info = tiny_hef.info(
        str(output.stream), height, width, channels,
        fmt=NHCW if recipe.nms else FCR if width > 20 else NHWC,
        data_bytes=2 if output.dtype == "uint16" else 1,
        scale=scales[0], zero_point=zero_points[0],
        scales=scales if per_feature else (), zero_points=zero_points if per_feature else (),
        names=[node] if node else [],
    )  # fmt: skip
    return tiny_hef.edge(info, pad=pad)


def _with_nms_op(spec: ModelSpec, layers: list[bytes], recipe: Recipe) -> bytes:
    f, f64 = tiny_hef.field, tiny_hef.f64
    decoders = b"".join(
        f(4, f(1, stride) + f(2, 2 * i + 1) + f(3, 2 * i + 2)) for i, stride in enumerate(spec.head.strides)
    )
    details = f64(1, spec.input.size[0]) + f64(2, spec.input.size[1]) + decoders
    pads = range(1, 1 + len(spec.head.outputs))
    nms = (
        f64(1, recipe.score_threshold) + f64(2, recipe.iou_threshold) + f(3, recipe.most) + f(4, spec.head.num_classes)
    )
    nms += f(12, details) + (f(13, 1) if recipe.nms == "boxes" else b"")
    op = b"".join(f(2, f(1, 100 + pad)) for pad in pads) + f(3, f(2, "net/nms")) + f(5, nms)
    return tiny_hef.net_flow_group(layers, [op], [(pad, 100 + pad) for pad in pads], ["net/nms"])


def _chip_nms(spec: ModelSpec, recipe: Recipe) -> bytes:
    f = tiny_hef.field
    nms = f(2, spec.head.num_classes) + f(3, recipe.most) + f(7, 1)
    return tiny_hef.edge(tiny_hef.info("net/nms", 1, 1, 1, fmt=NMS_ON_CHIP, more_base=f(11, f(1, nms))))
