"""Read the compiled HEF back before it gets its name: is it for the right chip, do its raw heads have the right bits?

The scales and zero points of the spec come from here, so the Pi decodes with the numbers that the compiler wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hefkit.chips import same_arch
from hefkit.errors import ToolchainError
from hefkit.hef.file import Hef
from hefkit.hef.ranges import activation_of, value_range
from hefkit.hef.streams import VStream
from hefkit.spec import CODE_DTYPES, HeadSpec, OutputSpec
from hefkit.text import one_line
from hefkit.workshop.dfc.graph import Output


def check_hef(
    hef: Hef,
    head: HeadSpec,
    graph: Sequence[Output],
    *,
    arch: str,
    size: tuple[int, int],
    wide: frozenset[int],
    baked: bool,
) -> HeadSpec:
    """Check the HEF; returns the head with its streams, code types, scales and zero points.

    Args:
        head: of the float network, in contract order.
        graph: the parsed graph's outputs, in the same order.
        wide: indices of the outputs that were asked for in 16 bit.
        baked: the class tensors should be probabilities.

    Raises:
        ToolchainError: the HEF differs from what was asked for.
    """
    if hef.digest_ok is False:
        raise _wrong("its checksum does not fit its content")
    if not same_arch(hef.arch, arch):
        raise _wrong(f"it is for {hef.arch}, expected {arch}")
    group = hef.groups[0]
    if group.nms is not None:
        raise _wrong("it has an NMS inside, expected raw heads; remove nms_postprocess from the script")
    if [(s.shape, s.dtype) for s in group.inputs] != [((*size, 3), "uint8")]:
        seen = ", ".join(f"{list(s.shape)} {s.dtype}" for s in group.inputs)
        raise _wrong(f"its input is {seen}, expected {[*size, 3]} uint8")
    if len(group.outputs) != len(head.outputs):
        raise _wrong(f"it has {len(group.outputs)} outputs, expected {len(head.outputs)}")
    streams = _matched(group.outputs, head, graph)
    outputs = [
        _checked(output, stream, wide=i in wide, baked=baked)
        for i, (output, stream) in enumerate(zip(head.outputs, streams, strict=True))
    ]
    return replace(head, outputs=tuple(outputs))


def _matched(streams: Sequence[VStream], head: HeadSpec, graph: Sequence[Output]) -> list[VStream]:
    """One stream for each head: by the name of the layer, else of the ONNX node, else by the order in the file."""
    by_name = {stream.name: stream for stream in streams}
    if all(output.producer in by_name for output in graph):
        return [by_name[output.producer] for output in graph]
    by_node = [[s for s in streams if output.onnx_node in s.original_names] for output in head.outputs]
    if all(len(found) == 1 for found in by_node):
        return [found[0] for found in by_node]
    return list(streams)


def _checked(output: OutputSpec, stream: VStream, *, wide: bool, baked: bool) -> OutputSpec:
    name = one_line(stream.name, 80)
    if stream.shape != output.shape:
        raise _wrong(f"{name} is {list(stream.shape)}, expected {list(output.shape)}")
    if stream.dtype not in CODE_DTYPES or stream.scale is None or stream.zero_point is None:
        raise _wrong(f"{name} is {stream.dtype} without a scale; expected uint8 or uint16 codes")
    scales, zeros = _listed(stream.scale), _listed(stream.zero_point)
    largest = CODE_DTYPES[stream.dtype]
    if wide and stream.dtype != "uint16":
        raise _wrong(
            f"{name} has 8-bit codes although 16 bit were asked for, a known fault of SDK 3.33.0; use another release, "
            "or leave --precision-16 out"
        )
    if not all(scale > 0 for scale in scales) or not all(0 <= zero <= largest for zero in zeros):
        raise _wrong(
            f"{name} has the scale {scales[0]:.4g} and the zero point {zeros[0]:.6g}, which do not fit "
            f"{stream.dtype}; use another SDK release"
        )
    activation, reason = activation_of(*value_range(stream))
    sigmoid = output.role == "cls" and activation == "sigmoid"
    if output.role == "cls" and sigmoid != baked:
        expected = "logits" if sigmoid else "probabilities"
        cure = "remove change_output_activation from the script" if sigmoid else "use --logits"
        raise _wrong(f"the class tensor {name} has {reason}; expected {expected}; {cure}")
    return replace(
        output,
        stream=stream.name,
        dtype=stream.dtype,
        scale=stream.scale,
        zero_point=stream.zero_point,
        activation="sigmoid" if sigmoid else "none",
    )


def _listed(value: float | tuple[float, ...]) -> list[float]:
    return [value] if isinstance(value, int | float) else list(value)


def _wrong(what: str) -> ToolchainError:
    return ToolchainError(f"the HEF that Hailo's SDK compiled is not what was asked for: {what}")
