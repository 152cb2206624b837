"""The outputs of a HEF -> the heads of a model: by the spec beside it, else by the file alone (`hefkit.hef.heads`).

Without a spec, the facts that were found and the assumptions that were made are listed for the user: after a wrong
assumption the detector runs, but finds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hefkit.errors import ModelError
from hefkit.hef.file import Hef
from hefkit.hef.groups import Group
from hefkit.hef.heads import IMAGE_ORDERS, listed, numbers, read_heads
from hefkit.hef.streams import NMS_BY_CLASS, VStream
from hefkit.hef.words import check_spec
from hefkit.names import model_names, names_of_metadata
from hefkit.spec import HeadSpec, InputSpec, ModelSpec, NmsSpec, OutputSpec
from hefkit.spec_file import spec_beside
from hefkit.text import one_line


@dataclass(frozen=True)
class Matched:
    """A model as a decoder needs it, and where that knowledge comes from."""

    spec: ModelSpec
    facts: tuple[str, ...] = ()  # found in the file, a sentence each
    assumed: tuple[str, ...] = ()  # not in the file, a sentence each


def match(hef: Hef, names: Mapping[int, str] | None = None) -> Matched:
    """The model in a HEF, with the spec beside it (NAME.json) where there is one.

    Args:
        names: class names that replace those of the spec; classes that they leave out get numbers.

    Raises:
        UsageError: names for classes that the model does not have.
        ModelError: the spec belongs to another file, or hefkit does not decode these outputs.
    """
    group = _one_network(hef)
    if (spec := spec_beside(hef.path)) is not None:
        check_spec(hef, spec)
        return Matched(_with_streams(hef.path, group, replace(spec, names=model_names(names, spec))))
    input_spec = _input(hef.path, group)
    assumed = [f"pictures are letterboxed with gray {input_spec.pad_value}"]
    found = names_of_metadata(hef.path) if names is None else None
    nms: NmsSpec | None = None
    facts: list[str]
    more: list[str]
    if _has_decoded_boxes(group):
        nms, head = _nms(hef.path, group)
        facts, more = _nms_facts(nms), []
    else:
        head, judgement = read_heads(hef.path, group, names or found)
        facts, more = list(judgement.facts), list(judgement.assumed)
    spec = ModelSpec("hef", input_spec, head, {}, target={"arch": hef.arch, "sdk": hef.sdk}, nms=nms)
    if found is not None and sorted(found) == list(range(head.num_classes)):
        spec, assumed = replace(spec, names=found), [*assumed, "the class names of the metadata.yaml beside it"]
    elif names is None:
        if found is not None:
            assumed.append(f"the metadata.yaml beside it is ignored: its classes are not 0 to {head.num_classes - 1}")
        assumed.append("classes are called class0, class1, ... (--names gives them names)")
    return Matched(replace(spec, names=model_names(names, spec)), tuple(facts), (*assumed, *more))


def _one_network(hef: Hef) -> Group:
    if len(hef.groups) != 1:
        listed = ", ".join(one_line(group.name) for group in hef.groups)
        raise ModelError(f"{hef.path} holds {len(hef.groups)} networks ({listed}); expected one; compile it alone")
    return hef.groups[0]


def _input(path: Path, group: Group) -> InputSpec:
    """The input, which must be one RGB picture of uint8."""
    [stream, *more] = group.inputs
    if more or len(stream.shape) != 3 or stream.shape[2] != 3 or stream.order not in IMAGE_ORDERS:
        raise ModelError(f"{path} takes {listed(group.inputs)}; expected one RGB picture of (height, width, 3)")
    if stream.dtype != "uint8":
        raise ModelError(f"{path} takes {stream.dtype} pictures; expected uint8; compile it with 8-bit input")
    return InputSpec(size=(stream.shape[0], stream.shape[1]))


# --- with a spec -----------------------------------------------------------------------------------------------------


def _with_streams(path: Path, group: Group, spec: ModelSpec) -> ModelSpec:
    """The spec with a stream for every output; scale and zero point come from the HEF, because the chip uses those."""
    _input(path, group)
    free = {stream.name: stream for stream in group.outputs}
    chosen = {}
    for output in sorted(spec.head.outputs, key=lambda output: output.stream is None):
        stream = free.pop(output.stream) if output.stream is not None else _nameless(path, output, free, group)
        free.pop(stream.name, None)
        chosen[output] = stream
    outputs = tuple(_raw_output(path, output, chosen[output]) for output in spec.head.outputs)
    return replace(spec, head=replace(spec.head, outputs=outputs))


def _nameless(path: Path, output: OutputSpec, free: Mapping[str, VStream], group: Group) -> VStream:
    """The stream of an output whose name the spec lacks: by its ONNX node, else the only one of its shape and dtype."""
    alike = [stream for stream in free.values() if (stream.shape, stream.dtype) == (output.shape, output.dtype)]
    named = [stream for stream in alike if output.onnx_node and output.onnx_node in stream.original_names]
    if len(named or alike) != 1:
        raise ModelError(
            f"the spec beside {path} does not say which output is the {output.role} tensor at stride {output.stride}; "
            f"expected head.outputs[].stream to name one of: {listed(group.outputs)}"
        )
    return (named or alike)[0]


def _raw_output(path: Path, output: OutputSpec, stream: VStream) -> OutputSpec:
    scale, zero_point = numbers(path, stream)
    return replace(output, stream=stream.name, scale=scale, zero_point=zero_point)


# --- boxes decoded inside --------------------------------------------------------------------------------------------


def _has_decoded_boxes(group: Group) -> bool:
    return group.nms is not None or any(stream.order == NMS_BY_CLASS for stream in group.outputs)


def _nms(path: Path, group: Group) -> tuple[NmsSpec, HeadSpec]:
    """NMS on the host (`group.nms`), or on the chip, where only the shape of the output is known."""
    if len(group.outputs) != 1:
        raise ModelError(f"{path} has more outputs than its NMS: {listed(group.outputs)}; expected one")
    [stream], nms = group.outputs, group.nms
    boxes_only = nms is not None and nms.boxes_only
    if boxes_only and nms is not None and nms.kind != "yolov8":
        raise ModelError(f"{path} leaves NMS over {nms.kind} boxes to the user; hefkit does that for yolov8 only")
    if not boxes_only and stream.order != NMS_BY_CLASS:
        raise ModelError(f"{path} returns {stream.order}, masks for instance; expected boxes (HAILO_NMS_BY_CLASS)")
    size = (nms.image_size if nms is not None else None) or (group.inputs[0].shape[0], group.inputs[0].shape[1])
    classes = nms.classes if nms is not None and boxes_only else stream.shape[0]
    most = 0 if boxes_only else stream.shape[2]
    if classes < 1 or min(size) <= 0 or (most < 1 and not boxes_only):
        raise ModelError(f"the NMS of {path} returns nothing: {listed([stream])}; compile it again")
    spec = NmsSpec(
        stream=stream.name,
        boxes_only=boxes_only,
        shape=stream.shape if boxes_only else (classes * (1 + stream.shape[1] * most),),
        max_per_class=most,
        score_threshold=None if nms is None else nms.score_threshold,
        iou_threshold=None if nms is None else nms.iou_threshold,
        adjustable=nms is not None and not boxes_only,
        image_size=size,
    )
    head = HeadSpec("nms", classes, 1, nms.strides if nms is not None else (), nms_free=False, outputs=())
    return spec, head


def _nms_facts(nms: NmsSpec) -> list[str]:
    if nms.boxes_only:
        return ["HailoRT decodes the boxes of all anchors, hefkit computes the NMS"]
    where = "HailoRT's" if nms.adjustable else "the chip's"
    return [f"NMS is {where}: every class of an anchor counts, at most {nms.max_per_class} boxes a class"]
