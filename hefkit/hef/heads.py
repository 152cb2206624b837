"""Raw heads of a HEF without a spec: which output is a box tensor, which a class tensor, and what has been applied.

Two outputs at every stride belong together. Which is which is told by the names of the ONNX nodes, else by the
channels; where those leave a doubt (64 classes beside 4 x 16 bins, 4 classes beside 4 distances) by the number of
names, then by the ranges of the values; and where nothing tells, the file is refused. The ranges also tell whether a
sigmoid is on the chip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hefkit.errors import ModelError
from hefkit.hef.groups import Group
from hefkit.hef.streams import VStream
from hefkit.hef.words import raw_heads
from hefkit.spec import CODE_DTYPES, HeadSpec, OutputSpec
from hefkit.text import one_line

IMAGE_ORDERS = ("NHWC", "FCR", "F8CR")  # (H, W, C) on the host, all three
USUAL_BOXES = (64, 4)  # channels: 4 sides x 16 bins (DFL), 4 distances
OTHER_BOXES = (16, 32, 128)  # 4, 8, 32 bins: not by their number alone
MAX_REG_MAX = 256
PROBABILITY = (-0.01, 1.05)  # all values of a tensor behind a sigmoid, with what rounding adds
LEAST_LOGIT = -1.0  # a class tensor without sigmoid must reach below: background is far below 0
BOX, CLS = "cv2", "cv3"  # ultralytics' modules
ONE_TO_ONE = "one2one"  # of an end-to-end head, which needs no NMS


class Pair(NamedTuple):
    """The box and the class tensor of one stride."""

    stride: int
    box: VStream
    cls: VStream


def read_heads(path: Path, group: Group, names: Mapping[int, str] | None) -> tuple[HeadSpec, list[str], list[str]]:
    """The heads, the facts that told them apart, and what had to be assumed.

    Raises:
        ModelError: there are no such heads, or nothing tells boxes from classes or logits from probabilities.
    """
    heads = raw_heads(group)
    if heads is None:
        raise ModelError(
            f"{path} has no YOLO heads that hefkit knows; expected a box and a class tensor at every stride, it has: "
            f"{listed(group.outputs)}; compile it with compile_to_hef.py"
        )
    for stream in group.outputs:
        numbers(path, stream)
    pairs, how, assumed = _pairs(path, group, names)
    head = _head(path, pairs)
    facts = [
        f"boxes and classes are told apart by {how}",
        *sorted({f"class tensors hold {_activation(path, pair.cls)[1]}, by their range" for pair in pairs}),
    ]
    if head.nms_free:
        facts.append("the head is end-to-end and needs no NMS, by the names of its nodes")
    unknown = head.family == "ltrb" and not all(_role(pair.box) for pair in pairs)
    if head.reg_max * 4 in OTHER_BOXES:
        assumed.append(f"the {head.reg_max * 4} channels of a box tensor are {head.reg_max} bins a side")
    if unknown:
        assumed.append("boxes need NMS (those of an end-to-end head would not)")
    return head, facts, assumed


def _pairs(path: Path, group: Group, names: Mapping[int, str] | None) -> tuple[list[Pair], str, list[str]]:
    """Box and class tensor of each stride, ascending; what told them apart; and what that takes for granted."""
    height = group.inputs[0].shape[0]
    by_size: dict[int, list[VStream]] = {}
    for stream in group.outputs:
        by_size.setdefault(height // stream.shape[0], []).append(stream)
    couples = [(stride, by_size[stride][0], by_size[stride][1]) for stride in sorted(by_size)]
    ways = [
        ("the names of their ONNX nodes", lambda box, cls: _role(box) == BOX and _role(cls) == CLS),
        ("their channels", _usual),
        ("the number of names", lambda box, cls: _usual(box, cls) and cls.shape[2] == len(names or ())),
        ("the ranges of their values", _only_cls_is_probability),
    ]
    for how, fits in ways:
        found = list(_consistent(couples, fits))
        if len(found) == 1:
            return found[0], how, []
    place = {stream.name: index for index, stream in enumerate(group.outputs)}
    found = list(_consistent(couples, lambda box, cls: _different(box, cls) and place[box.name] < place[cls.name]))
    if len(found) == 1:
        classes = found[0][0].cls.shape[2]
        assumed = f"boxes come before classes, so there are {classes} classes; if it finds nonsense, give it --names"
        return found[0], "their order in the file", [assumed]
    raise ModelError(
        f"nothing in {path} tells its box tensors from its class tensors; expected the spec "
        f"{path.with_suffix('.json')} of the compilation; its outputs: {listed(group.outputs)}"
    )


def _consistent(
    couples: list[tuple[int, VStream, VStream]], fits: Callable[[VStream, VStream], bool]
) -> Iterator[list[Pair]]:
    """The assignments, of two a stride, that fit everywhere and have the same channels everywhere."""
    choices = [[Pair(s, *p) for p in ((a, b), (b, a)) if fits(*p)] for s, a, b in couples]
    for first in choices[0]:
        form = (first.box.shape[2], first.cls.shape[2])
        alike = [[p for p in few if (p.box.shape[2], p.cls.shape[2]) == form] for few in choices]
        if all(len(few) == 1 for few in alike[1:]):
            yield [first, *(few[0] for few in alike[1:])]


def _role(stream: VStream) -> str:
    """Ultralytics' module of an output's ONNX node; empty where the names say neither or both."""
    found = {role for role in (BOX, CLS) for name in stream.original_names if f"{role}." in name}
    return found.pop() if len(found) == 1 else ""


def _usual(box: VStream, cls: VStream) -> bool:
    return box.shape[2] in USUAL_BOXES


def _different(box: VStream, cls: VStream) -> bool:
    """One of them is usual for boxes, and both together are no riddle: equal ones only their ranges can tell apart."""
    return _usual(box, cls) and box.shape[2] != cls.shape[2]


def _only_cls_is_probability(box: VStream, cls: VStream) -> bool:
    return box.shape[2] in USUAL_BOXES + OTHER_BOXES and _is_probability(cls) and not _is_probability(box)


def _is_probability(stream: VStream) -> bool:
    low, high = value_range(stream)
    return low >= PROBABILITY[0] and high <= PROBABILITY[1]


def value_range(stream: VStream) -> tuple[float, float]:
    """The least and the greatest value that the codes of a stream can stand for."""
    most = CODE_DTYPES[stream.dtype]
    pairs = np.broadcast(np.asarray(stream.scale, np.float64), np.asarray(stream.zero_point, np.float64))
    spans = [(-zero_point * scale, (most - zero_point) * scale) for scale, zero_point in pairs]
    return float(min(low for low, _ in spans)), float(max(high for _, high in spans))


def _activation(path: Path, cls: VStream) -> tuple[str, str]:
    """What a class tensor has been through, and in words; refused where its range fits neither."""
    low, high = value_range(cls)
    if _is_probability(cls):
        return "sigmoid", "probabilities"
    if low > LEAST_LOGIT:
        raise ModelError(
            f"the class tensor {one_line(cls.name)} of {path} has values from {low:.3g} to {high:.3g}, neither "
            f"probabilities nor logits; expected the spec {path.with_suffix('.json')} of the compilation"
        )
    return "none", "logits"


def _head(path: Path, pairs: list[Pair]) -> HeadSpec:
    box, cls = pairs[0].box.shape[2], pairs[0].cls.shape[2]
    if box % 4 or box // 4 > MAX_REG_MAX:
        raise ModelError(f"the box tensors of {path} have {box} channels; expected 4 x the number of bins")
    outputs = []
    for pair in pairs:
        outputs.append(_output(path, "box", pair.stride, pair.box, "none"))
        outputs.append(_output(path, "cls", pair.stride, pair.cls, _activation(path, pair.cls)[0]))
    return HeadSpec(
        family="ltrb" if box == 4 else "dfl",
        num_classes=cls,
        reg_max=box // 4,
        strides=tuple(pair.stride for pair in pairs),
        nms_free=all(ONE_TO_ONE in name for pair in pairs for s in pair[1:] for name in s.original_names or ("",)),
        outputs=tuple(outputs),
    )


def _output(path: Path, role: str, stride: int, stream: VStream, activation: str) -> OutputSpec:
    height, width, channels = stream.shape
    scale, zero_point = numbers(path, stream)
    node = stream.original_names[0] if stream.original_names else ""
    return OutputSpec(
        role, stride, (height, width, channels), node, stream.name, activation, stream.dtype, scale, zero_point
    )


def numbers(path: Path, stream: VStream) -> tuple[float | tuple[float, ...], float | tuple[float, ...]]:
    """Scale and zero point of a raw head, one or one a feature."""
    scale, zero_point = stream.scale, stream.zero_point
    if stream.dtype not in CODE_DTYPES or stream.order not in IMAGE_ORDERS:
        raise ModelError(f"the output {listed([stream])} of {path} is no raw head; expected uint8 or uint16 pictures")
    if scale is None or zero_point is None or min(scale if isinstance(scale, tuple) else (scale,)) <= 0:
        raise ModelError(
            f"the output {one_line(stream.name)} of {path} has no scale; expected one above 0; compile again"
        )
    return scale, zero_point


def listed(streams: tuple[VStream, ...] | list[VStream]) -> str:
    """`net/conv41 80x80x64 uint8, ...`, for messages."""
    return ", ".join(f"{one_line(s.name, 60)} {'x'.join(map(str, s.shape))} {s.dtype} {s.order}" for s in streams)
