"""The network in a test's HEF: in the place of the weights `tests/helpers/chip_hef.py` writes an ONNX and a table.

The double reads the streams from that table, not with hefkit's reader, so that a mistake of the reader is found.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hailo_double.hostnms import boxes_only, detections_by_class

MARK = b"DOUBLE\0\0"
HEADER = {0: 32, 1: 28, 2: 44, 3: 56}  # bytes, by container version
OPEN_FILE_FAILURE, FILE_OPERATION_FAILURE, HEF_FILE_CORRUPTED, HEF_NOT_SUPPORTED = 13, 14, 91, 92


class Refused(Exception):
    """HailoRT does not open this file; args[0] is the status."""


@dataclass
class Network:
    """One network: its streams from the table, and the function that computes the raw ones."""

    arch: str
    contexts: int
    groups: int
    input: dict[str, Any]
    raw: list[dict[str, Any]]
    nms: dict[str, Any] | None
    compute: Callable[[np.ndarray], list[np.ndarray]]  # (H, W, 3) -> codes (H, W, C), in the order of `raw`

    def streams(self) -> list[dict[str, Any]]:
        """The outputs of the API, in the file's order."""
        return self.raw if self.nms is None else [self.nms]

    def run(self, picture: np.ndarray, scores_from: float, iou: float) -> list[np.ndarray]:
        """The outputs of one frame."""
        codes = self.compute(picture)
        if self.nms is None:
            return codes
        if self.nms["kind"] == "boxes":
            return [boxes_only(codes, self.raw, self.nms)]
        return [detections_by_class(codes, self.raw, self.nms, scores_from, iou)]


def read_network(path: str | bytes) -> Network:
    """Open a HEF as far as the double needs it."""
    data = path if isinstance(path, bytes) else _read(path)
    if len(data) < 12:
        raise Refused(FILE_OPERATION_FAILURE)
    magic, version, proto_size = struct.unpack_from(">4sII", data)
    if version not in HEADER or magic != b"\x01HEF":
        raise Refused(HEF_NOT_SUPPORTED)
    padding = struct.unpack_from(">I", data, 28)[0] if version == 3 else 0
    start = HEADER[version] + proto_size + padding
    if data[start : start + len(MARK)] != MARK:
        raise Refused(HEF_FILE_CORRUPTED)
    size = struct.unpack_from("<I", data, start + len(MARK))[0]
    begin = start + len(MARK) + 4
    table, onnx = json.loads(data[begin : begin + size]), data[begin + size :]
    return Network(**table, compute=_onnx(onnx, table["raw"]) if onnx else _pattern(table["raw"]))


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        raise Refused(OPEN_FILE_FAILURE) from None


def _onnx(model: bytes, raw: list[dict[str, Any]]) -> Callable[[np.ndarray], list[np.ndarray]]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [stream["onnx"] for stream in raw]

    def compute(picture: np.ndarray) -> list[np.ndarray]:
        tensors = session.run(names, {session.get_inputs()[0].name: picture[None]})
        return [_codes(tensor[0], stream) for tensor, stream in zip(tensors, raw, strict=True)]

    return compute


def _codes(codes: np.ndarray, stream: dict[str, Any]) -> np.ndarray:
    """The ONNX's codes, or each feature times a whole number: the same real values at a finer scale."""
    factor = np.asarray(stream.get("multiply") or 1)
    wide = codes.astype(np.int64) * factor
    assert wide.max(initial=0) <= np.iinfo(stream["dtype"]).max
    return wide.astype(stream["dtype"])


def _pattern(raw: list[dict[str, Any]]) -> Callable[[np.ndarray], list[np.ndarray]]:
    """Without an ONNX every code is the picture's first byte, so that a test knows the picture of a result."""

    def compute(picture: np.ndarray) -> list[np.ndarray]:
        return [np.full(stream["shape"], picture[0, 0, 0], stream["dtype"]) for stream in raw]

    return compute
