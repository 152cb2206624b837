"""HEFs built byte by byte: protobuf fields, layers, groups, operations, and the container around them.

    hef_file(hef(group([input_layer(), layer("net/conv1", 8, 8, 64)])))        a version 2 file
    hef_file(proto, version=0)                                                 the same with an MD5
    hef_file(proto, digest=bytes(8))                                           with a wrong checksum

Field numbers are those of hef.proto in HailoRT 4.23. They are written here again, so that the reader's own table does
not test the reader.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Sequence

try:
    import xxhash
except ImportError:
    xxhash = None

CHECKS_XXH3 = xxhash is not None
PERIPH, NET_FLOW, PER_FEATURE = 26, 13, 25  # extensions
HAILO8, HAILO8L = 0, 3


def varint(value: int) -> bytes:
    """Seven bits a byte, lowest first; negative numbers take ten bytes."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | str | bytes) -> bytes:
    """A field: a varint, or a text or message with its length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def f32(number: int, value: float) -> bytes:
    """A float field."""
    return varint(number << 3 | 5) + struct.pack("<f", value)


def f64(number: int, value: float) -> bytes:
    """A double field."""
    return varint(number << 3 | 1) + struct.pack("<d", value)


def info(
    name: str,
    height: int,
    width: int,
    features: int,
    *,
    fmt: int = 0,
    data_bytes: int = 1,
    scale: float = 0.5,
    zero_point: float = 3,
    scales: Sequence[float] = (),
    zero_points: Sequence[float] = (),
    names: Sequence[str] = (),
    transposed: bool = False,
    more_base: bytes = b"",
) -> bytes:
    """EdgeLayerInfo."""
    sizes = ((1, height), (2, height), (3, width), (4, width), (5, features), (6, features))  # even: padded
    base = b"".join(field(n, v) for n, v in (*sizes, (7, fmt), (12, data_bytes), (13, b"")))
    numeric = f32(1, zero_point) + f32(2, scale)
    if zero_points:
        numeric += field(5, struct.pack(f"<{len(zero_points)}d", *zero_points))
    if scales:
        numeric += field(6, struct.pack(f"<{len(scales)}d", *scales))
    originals = b"".join(field(5, original) for original in names)
    swapped = field(6, 1) if transposed else b""
    return field(1, name) + field(2, base + more_base) + field(3, numeric) + originals + swapped


def edge(layer: bytes, *, output: bool = True, pad: int | None = None, kind: int = 0, connection: int = 0) -> bytes:
    """EdgeLayer around a layer_info (kind 0), layer_mux (1) or layer_planes (2)."""
    wired = b"" if pad is None else field(7, pad)
    number = {0: 3, 1: 4, 2: 8}[kind]
    return field(1, int(output)) + field(2, kind) + field(number, layer) + field(5, field(3, connection)) + wired


def input_layer(size: tuple[int, int] = (64, 64)) -> bytes:
    """The input layer of a picture."""
    return edge(info("net/input", *size, 3, scale=1, zero_point=0, names=["images"]), output=False)


def context(*layers: bytes) -> bytes:
    """Context with edge layers."""
    return field(3, b"".join(field(2, layer) for layer in layers))


def core(layers: Sequence[bytes], name: str = "net", *, transposed: bool = False) -> bytes:
    """Metadata and one context, the common part of NetworkGroup and CoreOp."""
    return field(1, field(1, name) + (field(3, 1) if transposed else b"")) + field(3, context(*layers))


def group(layers: Sequence[bytes], order: Sequence[str], name: str = "net", *, transposed: bool = False) -> bytes:
    """NetworkGroup of one context."""
    return core(layers, name, transposed=transposed) + b"".join(field(4, n) for n in order)


def nms_op(
    member: int, details: bytes, inputs: Sequence[int], *, classes: int = 2, most: int = 10, name: str = "net/nms",
    more: bytes = b"",
) -> bytes:  # fmt: skip
    """Op with an NmsOp; `member` is the number of its kind, `inputs` the indices of its input pads."""
    nms = f64(1, 0.25) + f64(2, 0.75) + field(3, most) + field(4, classes) + field(member, details) + more
    return b"".join(field(2, field(1, i)) for i in inputs) + field(3, field(2, name)) + field(5, nms)


def net_flow_group(layers: Sequence[bytes], ops: Sequence[bytes], edges: Sequence[tuple[int, int]],
                   order: Sequence[str], name: str = "net") -> bytes:  # fmt: skip
    """NetworkGroup whose chip part is the first op; `edges` join (pad of the chip, pad of an operation)."""
    outline = field(1, field(1, name)) + b"".join(field(4, n) for n in order)
    wiring = b"".join(field(9, field(1, src) + field(2, dst)) for src, dst in edges)
    return outline + field(8, field(4, core(layers, name))) + b"".join(field(8, op) for op in ops) + wiring


def hef(
    *groups: bytes, arch: int = HAILO8, extensions: Sequence[int] = (PERIPH,), header_version: int = 1,
    sdk: str = "3.33.1",
) -> bytes:  # fmt: skip
    """The protobuf message of a HEF."""
    header = field(1, arch) + (field(3, sdk) if sdk else b"") + field(4, header_version)
    listed = b"".join(field(5, field(1, e) + field(2, f"EXTENSION_{e}")) for e in extensions)
    return field(1, header) + b"".join(field(2, g) for g in groups) + listed


def yolo_layers(size: int = 64, classes: int = 2, data_bytes: int = 1) -> list[bytes]:
    """Input and raw heads of a toy YOLOv8: net/box8, net/cls8 ... with pads 1 to 6."""
    layers = [input_layer((size, size))]
    for i, stride in enumerate((8, 16, 32)):
        cells = size // stride
        box = info(f"net/box{stride}", cells, cells, 64, data_bytes=data_bytes, names=[f"/cv2.{i}/Conv"])
        cls = info(f"net/cls{stride}", cells, cells, classes, names=[f"/cv3.{i}/Conv"])
        layers += [edge(box, pad=2 * i + 1), edge(cls, pad=2 * i + 2)]
    return layers


YOLO_ORDER = tuple(f"net/{role}{stride}" for stride in (8, 16, 32) for role in ("box", "cls"))


def yolo_hef(**kwargs: int) -> bytes:
    """A Hailo-8 HEF of the toy YOLO with raw heads."""
    return hef(group(yolo_layers(**kwargs), YOLO_ORDER))


def hef_file(
    proto: bytes,
    version: int = 2,
    *,
    ccws: bytes = b"",
    padding: int = 0,
    additional: bytes = b"",
    digest: bytes | None = None,
    proto_digest: bytes = bytes(8),
) -> bytes:
    """The container: header, message, padding, weights, additional info."""
    residue = proto + bytes(padding) + ccws + additional
    start = struct.pack(">4sII", b"\x01HEF", version, len(proto))
    if digest is None:
        digest = checksum(version, residue)
    size = struct.pack(">Q", padding + len(ccws))
    rest = {
        0: bytes(4) + digest,
        1: digest + size + bytes(4),
        2: digest + size + bytes(16),
        3: digest + size + struct.pack(">IQ", padding, len(additional)) + proto_digest + bytes(8),
    }[version]
    return start + rest + residue


def checked(version: int, fits: bool) -> bool | None:
    """What a reader says of a digest: without the optional package xxhash it knows nothing of an XXH3."""
    return fits if version < 2 or CHECKS_XXH3 else None


def checksum(version: int, residue: bytes) -> bytes:
    """As it stands in the header; zeros for XXH3 without the optional package xxhash: then nothing checks it."""
    if version == 0:
        return hashlib.md5(residue, usedforsecurity=False).digest()
    if version == 1:
        return zlib.crc32(residue).to_bytes(4, "big")
    return xxhash.xxh3_64(residue).digest() if CHECKS_XXH3 else bytes(8)
