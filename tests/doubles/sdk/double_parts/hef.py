"""The bytes of a HEF that no chip can run: it has the header and description of a real HEF, but not the weights.

Field numbers as in hef.proto of HailoRT 4.23, written by hand; container version 1, whose checksum is a CRC-32.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

FAKE = b"THIS IS NOT A HEF. It was written by the test double of hailo_sdk_client and holds no network. " * 4
ARCH_NUMBERS = {"hailo8": 0, "hailo8l": 3, "hailo15h": 103, "hailo15m": 4, "hailo10h": 103, "hailo15l": 6}
SEVERAL_LAYOUTS = ("hailo8l", "hailo15m")
PERIPH_IN_HAILORT = 26


def build(net: str, arch: str, sdk: str, size: tuple, outputs: list[dict[str, Any]], contexts: int) -> bytes:
    """A HEF; `outputs` have name, shape, bytes, scale, zero_point, original_names. Its frame rate halves in 16 bit."""
    layers = [_edge(0, f"{net}/input_layer1", (*size, 3), 1, 1.0, 0.0, ["images"])]
    layers += [
        _edge(1, o["name"], o["shape"], o["bytes"], o["scale"], o["zero_point"], o["original_names"]) for o in outputs
    ]
    rate = b"\x21" + struct.pack("<d", 800 / sum(o["bytes"] for o in outputs))  # bottleneck_fps
    metadata = _field(1, _field(1, net) + rate)
    parts = _field(3, _field(3, b"".join(_field(2, layer) for layer in layers))) + _field(3, b"") * (contexts - 1)
    order = b"".join(_field(4, o["name"]) for o in outputs)
    group = metadata + parts + order
    if arch in SEVERAL_LAYOUTS:
        group = metadata + _field(7, _field(1, group) + _field(2, _field(1, 1)))
    header = _field(1, ARCH_NUMBERS[arch]) + _field(3, sdk + " FAKE: test double") + _field(4, 1)
    extension = _field(5, _field(1, PERIPH_IN_HAILORT) + _field(2, "PERIPH_CALCULATION_IN_HAILORT"))
    message = _field(1, header) + _field(2, group) + extension
    start = struct.pack(">4sII", b"\x01HEF", 1, len(message))
    return start + struct.pack(">IQI", zlib.crc32(message + FAKE), len(FAKE), 0) + message + FAKE


def _edge(direction: int, name: str, shape: tuple, size: int, scale: float, zero: float, names: list[str]) -> bytes:
    base = b"".join(_field(n, v) for n, v in zip((1, 3, 5), shape))
    base += _field(7, 0) + _field(12, size) + _field(13, b"")  # without one buffer HailoRT crashes
    numeric = b"\x0d" + struct.pack("<f", zero) + b"\x15" + struct.pack("<f", scale)
    info = _field(1, name) + _field(2, base) + _field(3, numeric) + b"".join(_field(5, n) for n in names)
    return _field(1, direction) + _field(2, 0) + _field(3, info) + _field(5, _field(3, 0))


def _field(number: int, value: Any) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
