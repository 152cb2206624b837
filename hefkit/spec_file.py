"""Reads the spec of a model: `NAME.json` beside `NAME.hef`, `NAME.emulated.json` beside `NAME.emulated.onnx`.

Everything is checked here, so that no decoder meets a contradiction later. A wrong spec is refused with exit code 4.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hefkit.errors import ModelError
from hefkit.files import existing, read_start
from hefkit.spec import (
    ACTIVATIONS,
    CODE_DTYPES,
    FAMILIES,
    FITS,
    FORMAT,
    KINDS,
    MAX_NAME_LENGTH,
    HeadSpec,
    InputSpec,
    ModelSpec,
    OutputSpec,
)  # fmt: skip
from hefkit.text import is_text, log, one_line

MAX_SPEC_BYTES = 16 << 20


def read_spec(path: Path) -> ModelSpec:
    """Read and check a spec file.

    Raises:
        ModelError: the file is missing, not JSON, of an unknown format, or contradicts itself.
    """
    value = _json_in(path)
    try:
        return spec_from_json(value)
    except ModelError as exc:
        raise ModelError(f"the spec {path} cannot be used: {exc}; compile the model again") from exc
    except RecursionError as exc:  # nested just shallow enough to be parsed
        raise ModelError(f"the spec {path} is nested too deeply; compile the model again") from exc


def spec_beside(hef: Path) -> ModelSpec | None:
    """The spec beside a HEF, NAME.json; None without one. A JSON of another program is ignored with a warning.

    Raises:
        ModelError: a spec that cannot be used.
    """
    path = hef.with_suffix(".json")
    if not existing(path):
        return None
    value = _json_in(path)
    # format 1 always has a head; another number may come from a later hefkit: such a spec is refused, not ignored
    ours = isinstance(value, dict) and (
        "head" in value or str(value.get("tool", "")).startswith("hefkit") or value.get("format", 1) in range(2, 100)
    )
    if not ours:
        log.warning("%s is not a spec of hefkit; it is ignored", one_line(path))
        return None
    return read_spec(path)


def _json_in(path: Path) -> Any:
    """The parsed file; ModelError where it cannot be read."""
    try:
        raw = read_start(path, MAX_SPEC_BYTES + 1)
    except OSError as exc:
        raise ModelError(f"cannot read the spec {path}: {exc.strerror}; it must be beside the model") from exc
    if len(raw) > MAX_SPEC_BYTES:
        raise ModelError(
            f"the spec {path} is larger than {MAX_SPEC_BYTES >> 20} MiB; expected a spec that hefkit wrote"
        )
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as exc:
        raise ModelError(f"the spec {path} is not valid JSON; compile the model again") from exc


def spec_from_json(value: Any) -> ModelSpec:
    """Check a parsed spec and build the `ModelSpec`; raises ModelError with what is wrong."""
    top = _object(value, "the file")
    if top.get("format") != FORMAT:
        raise ModelError(f"format is {top.get('format')!r}, this hefkit reads {FORMAT}")
    head = _head(top.get("head"))
    spec = ModelSpec(
        kind=_one_of(top.get("kind"), KINDS, "kind"),
        input=input_from_json(top.get("input")),
        head=head,
        names=_names(top.get("names"), head.num_classes),
        source=_object(top.get("source"), "source"),
        calibration=None if top.get("calibration") is None else _object(top["calibration"], "calibration"),
        target=_object(top.get("target"), "target"),
        script=_text(top.get("script", ""), "script", limit=1 << 20),
        quality=None if top.get("quality") is None else _object(top["quality"], "quality"),
        tool=_text(top.get("tool", ""), "tool"),
        created=_text(top.get("created", ""), "created"),
    )
    _check_geometry(spec)
    return spec


def input_from_json(value: Any) -> InputSpec:
    """The `input` object of a spec or a manifest; raises ModelError with what is wrong."""
    item = _object(value, "input")
    size = item.get("size")
    if not (isinstance(size, list) and len(size) == 2):
        raise ModelError("input.size is not [height, width]")
    for key, only in (("color", "RGB"), ("dtype", "uint8"), ("layout", "NHWC")):
        _one_of(item.get(key), (only,), f"input.{key}")
    return InputSpec(
        size=(_whole(size[0], "input.size", 1, 16384), _whole(size[1], "input.size", 1, 16384)),
        fit=_one_of(item.get("fit"), FITS, "input.fit"),
        pad_value=_whole(item.get("pad_value"), "input.pad_value", 0, 255),
    )


def _head(value: Any) -> HeadSpec:
    item = _object(value, "head")
    strides = item.get("strides")
    if not (isinstance(strides, list) and 1 <= len(strides) <= 8):
        raise ModelError("head.strides is not a list of strides")
    outputs = item.get("outputs")
    if not (isinstance(outputs, list) and len(outputs) == 2 * len(strides)):
        raise ModelError("head.outputs does not hold a box and a class tensor for every stride")
    nms_free = item.get("nms_free")
    if not isinstance(nms_free, bool):
        raise ModelError("head.nms_free is neither true nor false")
    head = HeadSpec(
        family=_one_of(item.get("family"), FAMILIES, "head.family"),
        num_classes=_whole(item.get("num_classes"), "head.num_classes", 1, 65536),
        reg_max=_whole(item.get("reg_max"), "head.reg_max", 1, 256),
        strides=tuple(_whole(s, "head.strides", 1, 4096) for s in strides),
        nms_free=nms_free,
        outputs=tuple(_output(o, f"head.outputs[{i}]") for i, o in enumerate(outputs)),
    )
    if list(head.strides) != sorted(set(head.strides)):
        raise ModelError(f"head.strides {list(head.strides)} do not ascend")
    if (head.family == "ltrb") != (head.reg_max == 1):
        expected = "1 for direct distances" if head.family == "ltrb" else "at least 2 for bins"
        raise ModelError(f"head.reg_max is {head.reg_max}, expected {expected}")
    return head


def _output(value: Any, where: str) -> OutputSpec:
    item = _object(value, where)
    shape = item.get("shape")
    if not (isinstance(shape, list) and len(shape) == 3):
        raise ModelError(f"{where}.shape is not [height, width, channels]")
    height, width, channels = (_whole(s, f"{where}.shape", 1, 1 << 20) for s in shape)
    stream = item.get("stream")
    return OutputSpec(
        role=_one_of(item.get("role"), ("box", "cls"), f"{where}.role"),
        stride=_whole(item.get("stride"), f"{where}.stride", 1, 4096),
        shape=(height, width, channels),
        onnx_node=_text(item.get("onnx_node"), f"{where}.onnx_node", limit=4096),
        stream=None if stream is None else _text(stream, f"{where}.stream", limit=4096),
        activation=_one_of(item.get("activation"), ACTIVATIONS, f"{where}.activation"),
        dtype=_one_of(item.get("dtype"), tuple(CODE_DTYPES), f"{where}.dtype"),
        scale=_numbers(item.get("scale"), f"{where}.scale", channels, positive=True),
        zero_point=_numbers(item.get("zero_point"), f"{where}.zero_point", channels, positive=False),
    )


def _check_geometry(spec: ModelSpec) -> None:
    """Every output must have the shape, role and place that the head and the input size imply."""
    height, width = spec.input.size
    head = spec.head
    for i, output in enumerate(head.outputs):
        role, stride = ("box", "cls")[i % 2], head.strides[i // 2]
        channels = head.box_channels if role == "box" else head.num_classes
        expected = (height // stride, width // stride, channels)
        if (output.role, output.stride, output.shape) != (role, stride, expected) or height % stride or width % stride:
            raise ModelError(
                f"head.outputs[{i}] is {output.role} at stride {output.stride} with shape {list(output.shape)}, "
                f"expected {role} at stride {stride} with shape {list(expected)}"
            )
        if role == "box" and output.activation != "none":
            raise ModelError(f"head.outputs[{i}] is a box tensor with an activation")


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ModelError(f"{where} is not a JSON object")
    return value


def _one_of(value: Any, allowed: tuple[str, ...], where: str) -> str:
    if value not in allowed:
        raise ModelError(f"{where} is {str(value)[:40]!r}, expected {' or '.join(allowed)}")
    return str(value)


def _whole(value: Any, where: str, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ModelError(f"{where} is {str(value)[:40]}, expected a whole number from {low} to {high}")
    return value


def _text(value: Any, where: str, limit: int = 1000) -> str:
    if not isinstance(value, str) or len(value) > limit:
        raise ModelError(f"{where} is not a text of at most {limit} characters")
    return value


def _numbers(value: Any, where: str, channels: int, *, positive: bool) -> float | tuple[float, ...]:
    """A finite number, or one for each channel."""
    items = value if isinstance(value, list) else [value]
    for item in items:
        # beyond 1e18 a product of two overflows float32; the comparison also refuses nan
        if isinstance(item, bool) or not isinstance(item, int | float) or not abs(item) <= 1e18:
            raise ModelError(f"{where} holds {str(item)[:40]}, expected a number")
        if positive and not item > 0:
            raise ModelError(f"{where} holds {item}, expected a number above 0")
    if isinstance(value, list):
        if len(value) != channels:
            raise ModelError(f"{where} holds {len(value)} numbers for {channels} channels")
        return tuple(value)
    return items[0]


def _names(value: Any, num_classes: int) -> dict[int, str]:
    item = _object(value, "names")
    names = {}
    for key, name in item.items():
        if not key.isdecimal() or len(key) > 5 or int(key) >= num_classes:
            raise ModelError(f"names has the key {key[:40]!r}, expected 0 to {num_classes - 1}")
        names[int(key)] = _text(name, f"names[{key}]", limit=MAX_NAME_LENGTH)
        if not is_text(name):
            raise ModelError(f"names[{key}] holds a NUL or half a character")
    if len(names) != num_classes:
        raise ModelError(f"names has {len(names)} entries for {num_classes} classes")
    return names
