"""Decides which output of a HEF is a box tensor and which a class tensor, and says why. No other module decides this.

Two outputs at every stride belong together. The first of these that allows exactly one assignment decides:

1. the names of the ONNX nodes: ultralytics calls the box module `cv2` and the class module `cv3`
2. the channels: 64 (4 sides x 16 bins) and 4 (4 distances) are usual for boxes
3. the number of class names that the user gave
4. the ranges of the values: a class tensor behind a sigmoid holds probabilities, a box tensor does not
5. the order in the file, for 64 channels beside 4: boxes first. This is an assumption, and is reported as one.

Outputs without names, for example:

    channels    values                       result
    64 and 3                                 16 bins, 3 classes (channels)
    64 and 4    the 4 from 0 to 1            16 bins, 4 classes (ranges)
    64 and 4    both from -8 to 8            16 bins, 4 classes if the 64 come first (order, assumed)
    32 and 2    the 2 from 0 to 1            8 bins (assumed), 2 classes (ranges)
    32 and 2    both from -8 to 8            refused
    64 and 64   one of the two from 0 to 1   16 bins, 64 classes (ranges)
    64 and 64   both from -8 to 8            refused
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from hefkit.errors import ModelError
from hefkit.hef.groups import Group
from hefkit.hef.ranges import activation_of, is_probability, value_range
from hefkit.hef.streams import VStream
from hefkit.spec import CODE_DTYPES, HeadSpec, OutputSpec
from hefkit.text import one_line

IMAGE_ORDERS = ("NHWC", "FCR", "F8CR")  # (H, W, C) on the host, all three
USUAL_BOXES = (64, 4)  # channels: 4 sides x 16 bins (DFL), 4 distances
OTHER_BOXES = (16, 32, 128)  # channels: 4 sides x 4, 8, 32 bins; not by their number alone
MAX_REG_MAX = 256  # bins a side
BOX, CLS = "cv2", "cv3"  # ultralytics' modules
ONE_TO_ONE = "one2one"  # in the module names of an end-to-end head, which needs no NMS
MAX_LISTED = 12  # outputs in a message


class Pair(NamedTuple):
    """The box and the class tensor of one stride."""

    stride: int
    box: VStream
    cls: VStream


@dataclass(frozen=True)
class Judgement:
    """What the outputs of a HEF are.

    Attributes:
        strides: ascending; empty where the outputs are not two tensors at every stride.
        head: as a decoder needs it; None where hefkit cannot decode these outputs.
        facts: why, a sentence each.
        assumed: what the file does not say, a sentence each.
        problem: why there is no head.
    """

    strides: tuple[int, ...] = ()
    head: HeadSpec | None = None
    facts: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    problem: str = ""


def judge(group: Group, names: Mapping[int, str] | None = None) -> Judgement:
    """The heads of a group without a spec; `names` are class names of the user, whose number counts as evidence."""
    couples = _couples(group)
    if not couples:
        return Judgement(problem="there is not a box and a class tensor at every stride")
    strides = tuple(stride for stride, _, _ in couples)
    fault = next((fault for stream in group.outputs if (fault := _fault(stream))), "")
    if fault:
        return Judgement(strides, problem=fault)
    pairs, how, assumed = _pairs(group, couples, names)
    if not pairs:
        return Judgement(strides, problem="the file does not show which outputs are boxes and which are classes")
    channels, classes = pairs[0].box.shape[2], pairs[0].cls.shape[2]
    if channels % 4 or channels // 4 > MAX_REG_MAX:
        return Judgement(strides, problem=f"the box tensors have {channels} channels, expected 4 x the number of bins")
    facts, outputs = [f"boxes and classes are distinguished by {how}"], []
    for pair in pairs:
        activation, reason = activation_of(*value_range(pair.cls))
        if not activation:
            return Judgement(strides, problem=f"the class tensor {one_line(pair.cls.name, 60)} has {reason}")
        facts.append(f"class tensors hold {'probabilities' if activation == 'sigmoid' else 'logits'}, by their range")
        outputs += [_output("box", pair.stride, pair.box, "none"), _output("cls", pair.stride, pair.cls, activation)]
    names_of_nodes = [name for pair in pairs for s in (pair.box, pair.cls) for name in s.original_names or ("",)]
    nms_free = all(ONE_TO_ONE in name for name in names_of_nodes)
    if nms_free:
        facts.append("the head is end-to-end and needs no NMS, by the names of its nodes")
    if channels in OTHER_BOXES:
        assumed.append(f"the {channels} channels of a box tensor are {channels // 4} bins a side")
    if channels == 4 and not all(_role(pair.box) for pair in pairs):
        assumed.append("boxes need NMS (those of an end-to-end head would not)")
    family = "ltrb" if channels == 4 else "dfl"
    head = HeadSpec(family, classes, channels // 4, strides, nms_free, tuple(outputs))
    return Judgement(strides, head, tuple(dict.fromkeys(facts)), tuple(assumed))


def _output(role: str, stride: int, stream: VStream, activation: str) -> OutputSpec:
    height, width, channels = stream.shape
    assert stream.scale is not None and stream.zero_point is not None
    node = stream.original_names[0] if stream.original_names else ""
    return OutputSpec(
        role, stride, (height, width, channels), node, stream.name, activation, stream.dtype, stream.scale,
        stream.zero_point,
    )  # fmt: skip


def read_heads(path: Path, group: Group, names: Mapping[int, str] | None) -> tuple[HeadSpec, Judgement]:
    """The heads as a decoder needs them, and the judgement behind them.

    Raises:
        ModelError: there are no such heads, or nothing distinguishes boxes and classes, or logits and probabilities.
    """
    found = judge(group, names)
    if not found.strides:
        raise ModelError(
            f"{path} has no YOLO heads that hefkit knows; expected a box and a class tensor at every stride, it has: "
            f"{listed(group.outputs)}; compile it with compile_to_hef.py"
        )
    for stream in group.outputs:
        numbers(path, stream)
    if found.head is None:
        raise ModelError(
            f"the outputs of {path} cannot be decoded: {found.problem}; expected the spec {path.with_suffix('.json')} "
            f"of the compilation beside it; its outputs: {listed(group.outputs)}"
        )
    return found.head, found


# --- evidence --------------------------------------------------------------------------------------------------------


def _couples(group: Group) -> list[tuple[int, VStream, VStream]]:
    """(stride, one output, the other), ascending; empty unless every stride has two, everywhere alike."""
    if len(group.inputs) != 1 or len(group.inputs[0].shape) != 3:
        return []
    height, width, _ = group.inputs[0].shape
    by_size: dict[tuple[int, ...], list[VStream]] = {}
    for stream in group.outputs:
        by_size.setdefault(stream.shape[:2] if len(stream.shape) == 3 else (), []).append(stream)
    couples = []
    for size, streams in by_size.items():
        if len(size) != 2 or 0 in size or len(streams) != 2 or height % size[0] or width % size[1]:
            return []
        if height // size[0] != width // size[1]:
            return []
        couples.append((height // size[0], streams[0], streams[1]))
    if len({tuple(sorted((one.shape[2], other.shape[2]))) for _, one, other in couples}) != 1:
        return []
    return sorted(couples, key=lambda couple: couple[0])


def _pairs(
    group: Group, couples: list[tuple[int, VStream, VStream]], names: Mapping[int, str] | None
) -> tuple[tuple[Pair, ...], str, list[str]]:
    """The pairs, the evidence that decided, and what is assumed; no pairs where nothing decides."""
    evidence: list[tuple[str, Callable[[VStream, VStream], bool]]] = [
        ("the names of their ONNX nodes", lambda box, cls: _role(box) == BOX and _role(cls) == CLS),
        ("their channels", _usual),
        ("the number of names", lambda box, cls: _usual(box, cls) and cls.shape[2] == len(names or ())),
        ("the ranges of their values", _only_cls_is_probability),
    ]
    for how, fits in evidence:
        found = list(_consistent(couples, fits))
        if len(found) == 1:
            return found[0], how, []
    place = {stream.name: index for index, stream in enumerate(group.outputs)}
    found = list(_consistent(couples, lambda box, cls: _different(box, cls) and place[box.name] < place[cls.name]))
    if len(found) != 1:
        return (), "", []
    classes = found[0][0].cls.shape[2]
    assumed = f"boxes come before classes, so there are {classes} classes; if the boxes are wrong, give it --names"
    return found[0], "their order in the file", [assumed]


def _consistent(
    couples: list[tuple[int, VStream, VStream]], fits: Callable[[VStream, VStream], bool]
) -> Iterator[tuple[Pair, ...]]:
    """Those of the two assignments at each stride that fit everywhere and have the same channels everywhere."""
    choices = [[Pair(s, *p) for p in ((a, b), (b, a)) if fits(*p)] for s, a, b in couples]
    for first in choices[0]:
        form = (first.box.shape[2], first.cls.shape[2])
        alike = [[p for p in few if (p.box.shape[2], p.cls.shape[2]) == form] for few in choices]
        if all(len(few) == 1 for few in alike[1:]):
            yield (first, *(few[0] for few in alike[1:]))


def _role(stream: VStream) -> str:
    """Ultralytics' module of an output's ONNX node; empty where the names say neither or both."""
    found = {role for role in (BOX, CLS) for name in stream.original_names if f"{role}." in name}
    return found.pop() if len(found) == 1 else ""


def _usual(box: VStream, cls: VStream) -> bool:
    return box.shape[2] in USUAL_BOXES


def _different(box: VStream, cls: VStream) -> bool:
    """Usual for boxes, and not as many channels as the classes: only the ranges distinguish equal ones."""
    return _usual(box, cls) and box.shape[2] != cls.shape[2]


def _only_cls_is_probability(box: VStream, cls: VStream) -> bool:
    likely = box.shape[2] in USUAL_BOXES + OTHER_BOXES
    return likely and is_probability(*value_range(cls)) and not is_probability(*value_range(box))


# --- one output ------------------------------------------------------------------------------------------------------


def numbers(path: Path, stream: VStream) -> tuple[float | tuple[float, ...], float | tuple[float, ...]]:
    """Scale and zero point of a raw head, one or one a feature; raises ModelError where it has none."""
    fault = _fault(stream)
    if fault or stream.scale is None or stream.zero_point is None:
        raise ModelError(f"the outputs of {path} cannot be decoded: {fault}; compile it again")
    return stream.scale, stream.zero_point


def _fault(stream: VStream) -> str:
    """Why an output cannot be a raw head; empty where it can."""
    if stream.dtype not in CODE_DTYPES or stream.order not in IMAGE_ORDERS:
        return f"{listed([stream])} is not a raw head, expected (H, W, C) of uint8 or uint16"
    scales = stream.scale if isinstance(stream.scale, tuple) else (stream.scale,)
    if stream.zero_point is None or not all(scale is not None and scale > 0 for scale in scales):
        return f"{one_line(stream.name, 60)} has no scale, expected one above 0"
    return ""


def listed(streams: tuple[VStream, ...] | list[VStream]) -> str:
    """`net/conv41 80x80x64 uint8 NHWC, ...`, for messages."""
    shown = [f"{one_line(s.name, 60)} {'x'.join(map(str, s.shape))} {s.dtype} {s.order}" for s in streams[:MAX_LISTED]]
    more = f" and {len(streams) - MAX_LISTED} more" if len(streams) > MAX_LISTED else ""
    return ", ".join(shown) + more
