"""Network groups of a HEF: which record HailoRT uses, its vstreams, and their order.

Read in HailoRT 4.23, hef.cpp: fill_core_ops, fill_networks_metadata, get_network_group_name; the sorting in
core_op_metadata.cpp: get_output_vstream_infos.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from hefkit.chips import CHIPS
from hefkit.errors import ModelError
from hefkit.hef.hostops import HostOps, Nms, read_ops
from hefkit.hef.streams import Layer, LayerReader, VStream, checked_name
from hefkit.hef.wire import Message


@dataclass(frozen=True)
class Group:
    """A network group: the layers that are configured on a chip together."""

    name: str
    contexts: int
    fps: float | None  # frames a second of the chip alone, as the compiler estimates; None: no estimate
    inputs: tuple[VStream, ...]
    outputs: tuple[VStream, ...]  # in the file's sorted order
    nms: Nms | None

    def to_json(self) -> dict[str, Any]:
        """The object of the contract."""
        return {
            "name": self.name,
            "contexts": self.contexts,
            "inputs": [stream.to_json() for stream in self.inputs],
            "outputs": [stream.to_json() for stream in self.outputs],
            "nms": None if self.nms is None else self.nms.to_json(),
        }


@dataclass(frozen=True)
class Features:
    """Which extensions change how a file is read."""

    net_flow: bool
    per_feature: bool
    multi_network: bool


def read_groups(hef: Message, arch: str, features: Features) -> tuple[Group, ...]:
    """All groups, the default one first: HailoRT 4 takes them from the end of the file, HailoRT 5.2 in its order."""
    messages = hef.messages("network_groups")
    ordered = messages if CHIPS[arch].line == 5 else messages[::-1]
    groups = tuple(_group(message, arch, features) for message in ordered)
    if not groups:
        raise ModelError("it holds no network")
    if len({group.name for group in groups}) != len(groups):
        raise ModelError("two of its network groups have the same name")
    return groups


def _group(group: Message, arch: str, features: Features) -> Group:
    partial = group.messages("partial_network_groups")
    named = partial[0].message("network_group") if partial else group
    name = checked_name(named.message("network_group_metadata").text("network_group_name"))
    whole = _core_op(group) if features.net_flow else group
    layouts = [(bitmap, record, _layers(record, features)) for bitmap, record in _layouts(whole, arch, features)]
    _, record, layers = min(reversed(layouts), key=lambda layout: layout[0])
    own_name = record.message("network_group_metadata").text("network_group_name")
    if own_name != name:
        raise ModelError(f"the network group {name} holds a network of the name {own_name}")
    ops = read_ops(group, layouts[0][2]) if features.net_flow else HostOps()  # HailoRT reads them with the first layout
    outputs = [
        stream for layer in layers if layer.output and layer.name not in ops.consumed for stream in layer.vstreams
    ]
    inputs = [stream for layer in layers if not layer.output for stream in layer.vstreams]
    fused = bool(whole.message("fused_layers_metadata").number("network_has_fused_layers"))
    ordered = _sorted([*outputs, *ops.vstreams], _order(group, whole, features), fused)
    # HailoRT reports the ONNX names of the first layout, even if it shows another layout
    first = {stream.name: stream.original_names for layer in layouts[0][2] for stream in layer.vstreams}
    named_inputs, named_outputs = (
        [replace(stream, original_names=first.get(stream.name, stream.original_names)) for stream in streams]
        for streams in (inputs, ordered)
    )
    return Group(
        name=name,
        contexts=record.count("contexts"),
        fps=_estimate(record),
        inputs=_some(named_inputs, "input", name),
        outputs=_some(named_outputs, "output", name),
        nms=ops.nms,
    )


def _estimate(record: Message) -> float | None:
    """`bottleneck_fps`: "the bottleneck post placement fps" (hef.proto), "not relevant in the case of multi context"
    (hailort.h). HailoRT takes a zero as unknown.
    """
    value = record.message("network_group_metadata").real("bottleneck_fps")
    return value if 0 < value < math.inf and record.count("contexts") == 1 else None


def _core_op(group: Message) -> Message:
    """With the extension HAILO_NET_FLOW the chip's part is the first core op."""
    for op in group.messages("ops"):
        if "core_op" in op:
            return op.message("core_op")
    raise ModelError("a network group has no part for the chip")


def _layouts(whole: Message, arch: str, features: Features) -> list[tuple[int, Message]]:
    """The messages with the contexts, each with the bitmap of its clusters: one, or as many as there are layouts.

    All of them must be readable. HailoRT shows the one with the lowest bitmap; of equal ones the last.
    """
    if not CHIPS[arch].partial:
        return [(0, whole)]
    many, one = ("partial_core_ops", "core_op") if features.net_flow else ("partial_network_groups", "network_group")
    layouts = [
        (part.message("layout").number("partial_clusters_layout_bitmap"), part.message(one))
        for part in whole.messages(many)
    ]
    if not layouts:
        raise ModelError(f"it is for {arch}, but holds no layout for a part of the clusters")
    return layouts


def _layers(record: Message, features: Features) -> list[Layer]:
    fused = record.message("fused_layers_metadata")
    wanted = fused.messages("fused_layers") if fused.number("network_has_fused_layers") else []
    reader = LayerReader(
        transposed_net=bool(record.message("network_group_metadata").number("transposed_net")),
        per_feature=features.per_feature,
        networks=record.count("networks_names") if features.multi_network else None,
        fused={layer.message("layer_info").text("name"): layer for layer in reversed(wanted)},  # the first wins
    )
    return reader.layers(record.messages("contexts"))


def _order(group: Message, whole: Message, features: Features) -> list[str]:
    """Names of the outputs as the compiler sorted them; older compilers wrote them in other places."""
    fused = whole.message("fused_layers_metadata")
    if fused.number("network_has_fused_layers"):
        return fused.texts("updated_sorted_output_names")
    partial = group.messages("partial_network_groups")
    contexts = whole.messages("contexts")
    return (
        (partial[0].message("network_group").texts("sorted_outputs_order") if partial and not features.net_flow else [])
        or group.texts("sorted_outputs_order")
        or (contexts[-1].message("metadata").texts("sorted_outputs_order") if contexts else [])
    )


def _sorted(streams: list[VStream], order: list[str], fused: bool) -> list[VStream]:
    """The outputs in their order; a fused NMS may have none, if it is the only output."""
    places = {name: place for place, name in reversed(list(enumerate(order)))}
    unique = {stream.name: stream for stream in reversed(streams)}  # parts of a fused layer are one vstream
    if not places and not (fused and len(unique) == 1):
        raise ModelError("the order of its outputs is missing")
    if len(unique) == 1:  # HailoRT compares nothing then
        return list(unique.values())
    missing = next((name for name in unique if name not in places), None)
    if missing is not None:
        raise ModelError(f"the output {missing} has no place in the order of outputs")
    return sorted(unique.values(), key=lambda stream: places[stream.name])


def _some(streams: list[VStream], what: str, name: str) -> tuple[VStream, ...]:
    if not streams:
        raise ModelError(f"the network group {name} has no {what}")
    return tuple(streams)
