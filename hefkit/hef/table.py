"""A HEF as a table: its container, and the streams of each group in columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hefkit.hef.file import Hef
from hefkit.hef.groups import Group
from hefkit.hef.streams import Numbers, VStream
from hefkit.text import counted, one_line

CHECKSUM = {True: "ok", False: "WRONG", None: "not checked"}
MAX_LISTED = 3  # scales and original names of a stream; --json has all
MAX_WIDTH = 80  # characters of a text that HailoRT does not bound


def table(hef: Hef) -> Iterator[str]:
    """The lines of the table; text from the file is escaped."""
    yield f"file       {one_line(hef.path)}"
    yield f"arch       {hef.arch}"
    yield f"sdk        {_bounded(hef.sdk or 'unknown')}"
    yield f"container  version {hef.container_version}, checksum {CHECKSUM[hef.digest_ok]}"
    for group in hef.groups:
        yield f"group      {one_line(group.name)}, {counted(group.contexts, 'context')}"
        yield from _aligned(group)


def _aligned(group: Group) -> Iterator[str]:
    """The streams of a group in columns."""
    rows = [("input", stream) for stream in group.inputs] + [("output", stream) for stream in group.outputs]
    cells = [(kind, *_columns(stream)) for kind, stream in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    for row in cells:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _columns(stream: VStream) -> tuple[str, ...]:
    """Name, type, order, shape, quantisation, names in the ONNX."""
    return (
        one_line(stream.name),
        stream.dtype,
        stream.order,
        "x".join(map(str, stream.shape)),
        f"scale {_numbers(stream.scale)}",
        f"zero point {_numbers(stream.zero_point)}",
        _originals(stream.original_names),
    )


def _originals(names: Sequence[str]) -> str:
    """The first few names in the ONNX."""
    shown = [_bounded(name) for name in names[:MAX_LISTED]]
    return _bounded(", ".join([*shown, "..."] if len(names) > MAX_LISTED else shown))


def _bounded(text: str) -> str:
    """A text of any length as a short printable line."""
    return one_line(text[: MAX_WIDTH + 1], MAX_WIDTH)


def _numbers(value: Numbers) -> str:
    """`0.0902`, or the first few of many."""
    if value is None:
        return "-"
    if not isinstance(value, tuple):
        return f"{value:.6g}"
    shown = ", ".join(f"{v:.6g}" for v in value[:MAX_LISTED])
    return shown if len(value) <= MAX_LISTED else f"{shown} ... ({len(value)})"
