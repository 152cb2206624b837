"""A HEF in words, and whether the spec beside it belongs to it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from hefkit.chips import CHIPS, same_arch
from hefkit.errors import ModelError
from hefkit.hef.file import Hef
from hefkit.hef.groups import Group
from hefkit.hef.heads import judge
from hefkit.hef.hostops import Nms
from hefkit.hef.streams import MAX_NAME, NMS_BY_CLASS, Numbers
from hefkit.names import names_of_metadata
from hefkit.spec import HeadSpec, ModelSpec, OutputSpec
from hefkit.text import counted, one_line

MAX_LISTED = 12  # names in a sentence
TOLERANCE = 1e-4  # relative difference of scales: a spec is JSON, a HEF holds float32


def describe(hef: Hef, spec: ModelSpec | None = None) -> list[str]:
    """A few sentences: where it runs, what comes out of each group and why, what is in 16 bits, what else is inside.

    Args:
        spec: of the file beside it, which says what the outputs are; without it the outputs are judged as for a run.
    """
    lines = [f"this HEF {CHIPS[hef.arch].hef_runs}"]
    for group in hef.groups:
        where = f"{one_line(group.name)}: " if len(hef.groups) > 1 else ""
        lines += [where + line for line in _what(hef, group, spec)]
        wide = [stream.name for stream in group.outputs if stream.dtype == "uint16"]
        if wide:
            lines.append(f"{where}16-bit outputs: {_listed(wide)}")
    if hef.resources:
        lines.append(f"with other files inside, as in a language model: {_listed(hef.resources)}")
    return lines


def _listed(names: Sequence[str]) -> str:
    """Names in one line; a hostile file may have thousands of them, of any length."""
    shown = ", ".join(one_line(name[:MAX_NAME]) for name in names[:MAX_LISTED])
    return shown if len(names) <= MAX_LISTED else f"{shown} and {len(names) - MAX_LISTED} more"


def _what(hef: Hef, group: Group, spec: ModelSpec | None) -> Iterator[str]:
    """What comes out, then why that is known, then what is only assumed."""
    on_chip = [stream.shape for stream in group.outputs if stream.order == NMS_BY_CLASS]
    if group.nms is not None:
        yield _nms_words(group.nms)
    elif on_chip:
        classes, _, most = on_chip[0]
        yield f"NMS inside, on the chip itself, {_classes(classes)}, at most {most} boxes a class"
    elif spec is not None:
        yield _heads_words(spec.head)
    else:
        yield from _judged(hef, group)


def _judged(hef: Hef, group: Group) -> Iterator[str]:
    found = judge(group, names_of_metadata(hef.path))
    if not found.strides:
        yield f"no YOLO heads that hefkit knows: {counted(len(group.outputs), 'output')}"
    elif found.head is None:
        yield f"raw YOLO heads, strides {', '.join(map(str, found.strides))}; {found.problem}"
    else:
        yield _heads_words(found.head)
        yield from found.facts
        yield from (f"assumed: {line}" for line in found.assumed)


def _heads_words(head: HeadSpec) -> str:
    kind = f"{head.reg_max} bins a side" if head.family == "dfl" else "direct distances"
    nms = "it needs no NMS" if head.nms_free else "hefkit computes NMS"
    strides = f"strides {', '.join(map(str, head.strides))}"
    return f"raw YOLO heads, {strides}; boxes with {kind}, {_classes(head.num_classes)}; {nms}"


def _nms_words(nms: Nms) -> str:
    at = f", strides {', '.join(map(str, nms.strides))}" if nms.strides else ""
    if nms.boxes_only:
        return f"boxes decoded by HailoRT ({nms.kind}){at}, {_classes(nms.classes)}; hefkit computes NMS"
    return (
        f"NMS inside ({nms.kind}, computed by HailoRT){at}, {_classes(nms.classes)}; scores from "
        f"{nms.score_threshold:.3g}, IoU up to {nms.iou_threshold:.3g}, at most {nms.max_per_class} boxes a class"
    )


def _classes(number: int) -> str:
    return "1 class" if number == 1 else f"{number} classes"


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
    if output.stream is None:  # only its shape and dtype are known
        if not any((s.shape, s.dtype) == (output.shape, output.dtype) for s in group.outputs):
            yield f"no output of the HEF is {list(output.shape)} {output.dtype}, as {what}"
        return
    stream = next((s for s in group.outputs if s.name == output.stream), None)
    if stream is None:
        yield f"{what} is called {output.stream}, which is not an output of the HEF"
    elif stream.shape != output.shape:
        yield f"{what} is {list(output.shape)} in the spec, {list(stream.shape)} in the HEF"
    elif stream.dtype != output.dtype:
        yield f"{what} is {output.dtype} in the spec, {stream.dtype} in the HEF"
    elif not (_alike(stream.scale, output.scale) and _alike(stream.zero_point, output.zero_point)):
        yield f"{what} has another scale or zero point in the spec than in the HEF"


def _alike(found: Numbers, expected: Numbers) -> bool:
    """Whether they are equal within rounding; one number stands for all features."""
    pair = [value if isinstance(value, tuple) else (value,) for value in (found, expected)]
    length = max(len(values) for values in pair)
    first, second = (values * length if len(values) == 1 else values for values in pair)
    return len(first) == len(second) and all(
        a is not None and b is not None and math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=1e-12)
        for a, b in zip(first, second, strict=True)
    )
