"""What a HEF is, in words; and whether the spec beside it belongs to it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hefkit.chips import CHIPS, same_arch
from hefkit.errors import ModelError
from hefkit.hef.file import Hef
from hefkit.hef.groups import Group
from hefkit.hef.hostops import Nms
from hefkit.hef.streams import MAX_NAME, NMS_BY_CLASS, Numbers, VStream
from hefkit.spec import ModelSpec, OutputSpec
from hefkit.text import counted, one_line

USUAL_BOXES = (64, 4)  # channels of DFL boxes with 16 bins, and of direct distances
MAX_LISTED = 12  # names in a sentence
TOLERANCE = 1e-4  # relative; a spec is JSON, a HEF holds float32


@dataclass(frozen=True)
class RawHeads:
    """Pairs of a box and a class tensor at each stride."""

    strides: tuple[int, ...]
    box_channels: int | None  # None where boxes and classes cannot be told apart
    classes: int | None


def describe(hef: Hef) -> list[str]:
    """A few sentences: where it runs, what comes out of each group, what is in 16 bits, what else is inside."""
    lines = [f"this HEF {CHIPS[hef.arch].hef_runs}"]
    for group in hef.groups:
        where = f"{one_line(group.name)}: " if len(hef.groups) > 1 else ""
        lines.append(where + _what(group))
        wide = [stream.name for stream in group.outputs if stream.dtype == "uint16"]
        if wide:
            lines.append(f"{where}16-bit outputs: {_listed(wide)}")
    if hef.resources:
        lines.append(f"with files inside, as language models have them: {_listed(hef.resources)}")
    return lines


def _listed(names: Sequence[str]) -> str:
    """Names in one line; a hostile file may have thousands, of any length."""
    shown = ", ".join(one_line(name[:MAX_NAME]) for name in names[:MAX_LISTED])
    return shown if len(names) <= MAX_LISTED else f"{shown} and {len(names) - MAX_LISTED} more"


def _what(group: Group) -> str:
    if group.nms is not None:
        return _nms_words(group.nms)
    on_chip = [stream.shape for stream in group.outputs if stream.order == NMS_BY_CLASS]
    if on_chip:
        classes, _, most = on_chip[0]
        return f"NMS inside, on the chip itself, {_classes(classes)}, at most {most} boxes a class"
    heads = raw_heads(group)
    if heads is None:
        return f"no YOLO heads that hefkit knows: {counted(len(group.outputs), 'output')}"
    strides = f"strides {', '.join(map(str, heads.strides))}"
    if heads.box_channels is None:
        return f"raw YOLO heads, {strides}; the file does not tell boxes from classes"
    kind = f"{heads.box_channels // 4} bins a side" if heads.box_channels > 4 else "direct distances"
    return f"raw YOLO heads, {strides}; boxes with {kind}, {_classes(heads.classes)}; NMS is left to us"


def _nms_words(nms: Nms) -> str:
    at = f", strides {', '.join(map(str, nms.strides))}" if nms.strides else ""
    if nms.boxes_only:
        return f"boxes decoded by HailoRT ({nms.kind}){at}, {_classes(nms.classes)}; NMS is left to us"
    return (
        f"NMS inside ({nms.kind}, computed by HailoRT){at}, {_classes(nms.classes)}; scores from "
        f"{nms.score_threshold:.3g}, IoU up to {nms.iou_threshold:.3g}, at most {nms.max_per_class} boxes a class"
    )


def _classes(number: int | None) -> str:
    return "1 class" if number == 1 else f"{number} classes"


def raw_heads(group: Group) -> RawHeads | None:
    """The heads of a YOLO by shape: two tensors at every stride, the same channels at all of them."""
    if len(group.inputs) != 1 or len(group.inputs[0].shape) != 3:
        return None
    height, width, _ = group.inputs[0].shape
    pairs: dict[tuple[int, ...], list[VStream]] = {}
    for stream in group.outputs:
        pairs.setdefault(stream.shape[:2] if len(stream.shape) == 3 else (), []).append(stream)
    strides = []
    for size, pair in pairs.items():
        if len(size) != 2 or 0 in size or len(pair) != 2 or height % size[0] or width % size[1]:
            return None
        if height // size[0] != width // size[1]:
            return None
        strides.append(height // size[0])
    if len({tuple(sorted(stream.shape[2] for stream in pair)) for pair in pairs.values()}) != 1:
        return None
    box, classes = _box_and_classes(list(pairs.values()))
    return RawHeads(tuple(sorted(strides)), box, classes)


def _box_and_classes(pairs: list[list[VStream]]) -> tuple[int | None, int | None]:
    """Channels of boxes and of classes: by the ONNX names that ultralytics gives, else by the usual channels."""
    channels = [
        {stream.shape[2] for stream in pair if _role(stream) == role} for pair in pairs for role in ("cv2", "cv3")
    ]
    boxes, classes = set().union(*channels[::2]), set().union(*channels[1::2])
    if len(boxes) == len(classes) == 1:
        return boxes.pop(), classes.pop()
    low, high = sorted(stream.shape[2] for stream in pairs[0])
    usual = {channels for channels in USUAL_BOXES if channels in (low, high)}
    if len(usual) != 1:  # neither, or 64 beside 4: boxes and classes could be either way round
        return None, None
    return (box := usual.pop()), low + high - box


def _role(stream: VStream) -> str:
    """`cv2` for boxes, `cv3` for classes, empty where the names say neither or both."""
    found = {role for role in ("cv2", "cv3") for name in stream.original_names if f"{role}." in name}
    return found.pop() if len(found) == 1 else ""


def check_spec(hef: Hef, spec: ModelSpec) -> None:
    """Refuse (exit 4) a spec that describes another model; the message names the first difference."""
    difference = next(_differences(hef, spec), None)
    if difference is not None:
        raise ModelError(
            f"{hef.path} and the spec beside it do not belong together: {one_line(difference)}; "
            "copy both files of one compilation"
        )


def _differences(hef: Hef, spec: ModelSpec) -> Iterator[str]:
    group = hef.groups[0]
    if spec.kind != "hef":
        yield f"the spec is of kind {spec.kind}"
    arch = spec.target.get("arch")
    if arch is not None and not same_arch(arch, hef.arch):
        yield f"the spec is for {arch}, the HEF for {hef.arch}"
    shapes = [list(stream.shape) for stream in group.inputs]
    if shapes != [[*spec.input.size, 3]]:
        yield f"the spec's input is {[*spec.input.size, 3]}, the HEF has {shapes}"
    if group.nms is not None:
        yield "the spec describes raw heads, the HEF has an NMS operation"
    if len(group.outputs) != len(spec.head.outputs):
        yield f"the spec has {len(spec.head.outputs)} outputs, the HEF {len(group.outputs)}"
    for output in spec.head.outputs:
        yield from _output_differences(output, group)


def _output_differences(output: OutputSpec, group: Group) -> Iterator[str]:
    what = f"the {output.role} output at stride {output.stride}"
    if output.stream is None:  # nothing but its form is known
        if not any((s.shape, s.dtype) == (output.shape, output.dtype) for s in group.outputs):
            yield f"no output of the HEF is {list(output.shape)} {output.dtype}, as {what}"
        return
    stream = next((s for s in group.outputs if s.name == output.stream), None)
    if stream is None:
        yield f"{what} is called {output.stream}, of which the HEF knows nothing"
    elif stream.shape != output.shape:
        yield f"{what} is {list(output.shape)} in the spec, {list(stream.shape)} in the HEF"
    elif stream.dtype != output.dtype:
        yield f"{what} is {output.dtype} in the spec, {stream.dtype} in the HEF"
    elif not (_alike(stream.scale, output.scale) and _alike(stream.zero_point, output.zero_point)):
        yield f"{what} has another scale or zero point in the spec than in the HEF"


def _alike(found: Numbers, expected: Numbers) -> bool:
    """Equal within rounding; one number stands for all features."""
    pair = [value if isinstance(value, tuple) else (value,) for value in (found, expected)]
    length = max(len(values) for values in pair)
    first, second = (values * length if len(values) == 1 else values for values in pair)
    return len(first) == len(second) and all(
        a is not None and b is not None and math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=1e-12)
        for a, b in zip(first, second, strict=True)
    )
