"""Boundary layers of a HEF -> the virtual streams (vstreams) that HailoRT shows to a user.

Sources, in HailoRT 4.23: hef.cpp (fill_layer_info and its neighbours), layer_info.hpp
(get_vstream_infos_from_layer_info) and hailort_defaults.cpp (the format orders).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from ctypes import c_float
from dataclasses import dataclass
from typing import Any

from hefkit.errors import ModelError
from hefkit.hef.wire import Message

MAX_NAME = 127  # HailoRT's names have 128 bytes, with a zero at the end
NMS_BY_CLASS = "HAILO_NMS_BY_CLASS"
NMS_SCALES = 2  # of an NMS on the chip: one for boxes, one for scores
BOX_VALUES = 5  # y_min, x_min, y_max, x_max, score

# compiler's number of a device format -> order of the vstream on the host
HOST_ORDERS = {
    0: "NHWC", 1: "NHWC", 2: "NC", 3: "FCR", 4: "BAYER_RGB", 5: "NHW", 6: NMS_BY_CLASS, 7: "F8CR", 8: "NHWC",
    11: "YUY2", 13: "NHWC", 14: "NV12", 15: "NV21", 16: "I420",
}  # fmt: skip
PLANES_ORDERS = {0: "NV12", 1: "NV21", 2: "I420"}
DTYPES = {1: "uint8", 2: "uint16"}  # data_bytes -> dtype
LIMITS = {"sys_index": 0xFF, "engine_id": 0xFF, "core_bytes_per_buffer": 0xFFFF, "core_buffers_per_frame": 0xFFFF}
BOUNDARY, INFO, MUX, PLANES, OUTPUT = 0, 0, 1, 2, 1
UINT8, UINT32 = 0xFF, 0xFFFFFFFF  # HailoRT keeps only these bits of some numbers
CONNECTION_TYPES = 4  # boundary, between contexts, DDR, cache

Numbers = float | tuple[float, ...] | None  # one for all features, one for each, or not known


@dataclass(frozen=True)
class VStream:
    """An input or output of a network: real = (code - zero_point) * scale."""

    name: str
    original_names: tuple[str, ...]  # of the ONNX nodes
    shape: tuple[int, ...]  # (H, W, C); NC (C,), NHW (H, W), NMS by class (classes, 5, boxes a class)
    dtype: str  # "uint8" | "uint16" | "float32"
    order: str  # HailoRT's word, such as "NHWC" or "HAILO_NMS_BY_CLASS"
    scale: Numbers
    zero_point: Numbers

    def to_json(self) -> dict[str, Any]:
        """The object of the contract."""
        return {
            "name": self.name,
            "original_names": list(self.original_names),
            "shape": list(self.shape),
            "dtype": self.dtype,
            "order": self.order,
            "scale": list(self.scale) if isinstance(self.scale, tuple) else self.scale,
            "zero_point": list(self.zero_point) if isinstance(self.zero_point, tuple) else self.zero_point,
        }


@dataclass(frozen=True)
class Layer:
    """A boundary layer: data crosses between host and chip. It is one vstream, a mux is several."""

    name: str
    output: bool
    pad: int | None  # number by which operations on the host refer to it
    shape: tuple[int, int, int]  # (H, W, C)
    order: str
    vstreams: tuple[VStream, ...]

    @property
    def form(self) -> tuple[object, ...]:
        """What box and class tensor of one stride have in common."""
        return self.shape[:2], self.order, frozenset(stream.dtype for stream in self.vstreams)


@dataclass(frozen=True)
class LayerReader:
    """Reads the layers of one core op."""

    transposed_net: bool
    per_feature: bool  # extension OUTPUT_SCALE_PER_FEATURE
    networks: int | None  # how many share the group; None where the file does not assign layers to them
    fused: dict[str, Message]  # name -> EdgeLayerFused

    def layers(self, contexts: list[Message]) -> list[Layer]:
        """Every boundary layer, context by context, in the file's order."""
        found: dict[str, Layer] = {}
        for context in contexts:
            for edge in context.message("metadata").messages("edge_layers"):
                if self._connection(edge) == BOUNDARY:
                    layer = self._layer(edge)
                    if layer.name in found:
                        raise ModelError(f"two layers are called {layer.name}")
                    found[layer.name] = layer
        return list(found.values())

    def _connection(self, edge: Message) -> int:
        connection = edge.message("context_switch_info").number("edge_connection_type")
        if connection >= CONNECTION_TYPES:
            raise ModelError(f"a layer's connection has the unknown type {connection}")
        network = edge.number("network_index") & UINT8
        if self.networks is not None and network >= self.networks:
            raise ModelError(f"a layer belongs to network {network}, but there are {self.networks}")
        return connection

    def _layer(self, edge: Message) -> Layer:
        output = edge.number("direction") == OUTPUT
        pad = edge.number("pad_index") if "pad_index" in edge else None
        kind = edge.number("edge_layer_type")
        streams: tuple[VStream, ...]
        if kind == INFO:
            part = edge.message("layer_info")
            streams = (self._info(part, output),)
            shape, order = self._shape(part, part.number("transposed") != 0), streams[0].order
        elif kind == MUX:
            part = edge.message("layer_mux")
            streams, order = tuple(self._mux(part, output)), _checked_base(part)[0]
            shape = self._shape(part, False)
        elif kind == PLANES:
            part = edge.message("layer_planes")
            streams = (self._planes(part, output),)
            shape, order = _three(part), streams[0].order
        else:
            raise ModelError(f"a layer has the unknown type {kind}")
        return Layer(checked_name(part.text("name")), output, pad, shape, order, streams)

    def _shape(self, part: Message, transposed: bool) -> tuple[int, int, int]:
        """(H, W, C) on the host; height and width are stored swapped where the chip works on a transposed image."""
        base = part.message("edge_layer_base")
        height, width, features = _three(base)
        if (transposed or self.transposed_net) and HOST_ORDERS.get(base.number("format")) != "NC":
            height, width = width, height
        return height, width, features

    def _info(self, info: Message, output: bool) -> VStream:
        name = checked_name(info.text("name"))
        order, dtype = _checked_base(info)
        names = tuple(info.texts("original_names"))
        if order == NMS_BY_CLASS:
            return self._nms(info, name, names)
        height, width, features = self._shape(info, info.number("transposed") != 0)
        scale, zero_point = self._quantisation(info, name, features, output)
        shape = {"NC": (features,), "NHW": (height, width)}.get(order, (height, width, features))
        return VStream(name, names, shape, dtype, order, scale, zero_point)

    def _quantisation(self, info: Message, name: str, features: int, output: bool) -> tuple[Numbers, Numbers]:
        numeric = info.message("numeric_info")
        if not self.per_feature:
            return finite(numeric.real("qp_scale"), name), finite(numeric.real("qp_zp"), name)
        lists = [numeric.numbers(key) for key in ("qp_scales", "qp_zps")]
        if not output:  # HailoRT reads only as many as it needs
            lists = [values[:features] for values in lists]
        # since HailoRT 5.2 one of the lists may be missing: the one number stands for all features
        if any(lists):
            lists = [v or [numeric.real(key)] * features for v, key in zip(lists, ("qp_scale", "qp_zp"), strict=True)]
        pair = [tuple(finite(value, name) for value in values) for values in lists]
        if len(pair[0]) != features or len(pair[1]) != features:
            raise ModelError(f"{name} has {len(pair[0])} scales and {len(pair[1])} zero points for {features} features")
        if not output and any(len({c_float(value).value for value in values}) > 1 for values in pair):
            raise ModelError(f"the input {name} has features of different scales, which HailoRT does not support")
        return pair[0], pair[1]

    def _nms(self, info: Message, name: str, names: tuple[str, ...]) -> VStream:
        """NMS on the chip; several layers may be parts of one fused result."""
        numeric = info.message("numeric_info")
        if self.per_feature and not numeric.count("qp_scales") == numeric.count("qp_zps") == NMS_SCALES:
            raise ModelError(f"{name} does not have two scales and two zero points")
        nms = info.message("edge_layer_base").message("additional_info").message("nms_info")
        if self.fused and nms.number("is_defused"):
            whole = self.fused.get(nms.message("defuse_info").text("original_name"))
            if whole is None or _checked_base(whole.message("layer_info"))[0] != NMS_BY_CLASS:
                raise ModelError(f"{name} is part of an NMS that the file does not have")
            inner = whole.message("layer_info")
            nms, name = whole.message("nms_info"), checked_name(inner.text("name"))
            names = tuple(inner.texts("original_names"))
        most = (nms.number("max_output_size") & UINT32) * ((nms.number("input_division_factor") & UINT32) or 1)
        return nms_stream(name, names, nms.number("number_of_classes") & UINT32, most & UINT32)

    def _mux(self, mux: Message, output: bool) -> Iterator[VStream]:
        """Every leaf of a mux is a vstream of its own."""
        checked_name(mux.text("name"))
        _checked_base(mux)
        parts = mux.messages("predecessors")
        count = mux.message("mux_data").number("number_of_predecessors")
        if count > len(parts):
            raise ModelError(f"{mux.text('name')} joins {count} layers, but the file has {len(parts)}")
        for part in parts[:count]:
            if "layer_info" in part:
                yield self._info(part.message("layer_info"), output)
            elif "layer_mux" in part:
                yield from self._mux(part.message("layer_mux"), output)
            else:
                raise ModelError(f"{mux.text('name')} joins something that is not a layer")

    def _planes(self, planes: Message, output: bool) -> VStream:
        """A picture in several planes, such as NV12; HailoRT gives it no scale and no zero point."""
        name = checked_name(planes.text("name"))
        order = PLANES_ORDERS.get(planes.number("planes_format"))
        parts = [self._info(part.message("layer_info"), output) for part in planes.messages("planes")]
        if order is None or not parts or len({part.dtype for part in parts}) != 1:
            raise ModelError(f"the planes of {name} have an unknown format")
        names = tuple(original for part in parts for original in part.original_names)
        return VStream(name, names, _three(planes), parts[0].dtype, order, None, None)


def nms_stream(name: str, names: tuple[str, ...], classes: int, most: int, order: str = NMS_BY_CLASS) -> VStream:
    """The vstream of an NMS: always float32, so scale 1 and zero point 0."""
    return VStream(name, names, (classes, BOX_VALUES, most), "float32", order, 1.0, 0.0)


def finite(value: float, where: str) -> float:
    """The number; raises ModelError for NaN and infinity, which JSON cannot hold and no decoder can use."""
    if not math.isfinite(value):
        raise ModelError(f"a number of {where} is {value}, expected a finite one")
    return value


def checked_name(name: str) -> str:
    """The name; raises ModelError where it does not fit HailoRT's structures."""
    if len(name.encode()) > MAX_NAME:
        raise ModelError(f"the name {name[:40]}... is longer than {MAX_NAME} bytes")
    return name


def _checked_base(part: Message) -> tuple[str, str]:
    """(order on the host, dtype) of a layer with an `edge_layer_base`; refuses what HailoRT refuses."""
    base, name = part.message("edge_layer_base"), part.text("name")
    for key, most in LIMITS.items():
        if base.number(key) > most:
            raise ModelError(f"{key} of {name} is {base.number(key)}, expected at most {most}")
    if base.number("host_argmax"):
        raise ModelError(f"{name} needs an argmax on the host, which HailoRT no longer has")
    if not base.count("buffer_indices"):
        raise ModelError(f"{name} has no buffer, which makes HailoRT crash")
    order, dtype = HOST_ORDERS.get(base.number("format")), DTYPES.get(base.number("data_bytes"))
    if order is None:
        raise ModelError(f"{name} has the unknown format {base.number('format')}")
    if dtype is None:
        raise ModelError(f"{name} has values of {base.number('data_bytes')} bytes, expected 1 or 2")
    return order, dtype


def _three(part: Message) -> tuple[int, int, int]:
    return part.number("height"), part.number("width"), part.number("features")
