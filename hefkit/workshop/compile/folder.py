"""The run folder of a compilation with the SDK, `runs/compile/NAME`: its files, and the temporary ones.

job.json             how the run was made
NAME.cut.onnx        the network that the SDK parses
NAME.alls            the final model script
NAME.parsed.har      after parsing, and NAME.quantized.har after quantisation; a .json beside each names its inputs
NAME.json            the spec, the same as beside the HEF
report.json          what --json prints, and what really ran
sdk.log              all that the SDK printed, beside the logs that it writes itself
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from hefkit.files import explained, replacing
from hefkit.staging.stage import Staging
from hefkit.workshop.calibration.read import CalibrationSet
from hefkit.workshop.dfc.client import CalibrationFile
from hefkit.workshop.dfc.process import LOG
from hefkit.workshop.network.floatnet import to_float32

IR_VERSION = 8  # the onnx of older SDKs reads no newer


class RunFolder:
    """Names and files of one run; `path` is absolute, as the worker needs it."""

    def __init__(self, path: Path, stem: str) -> None:
        self.path = path.resolve()
        self.stem = stem
        self._scratch = Staging(self.path)  # never committed

    def make(self) -> None:
        """Create the folder and remove temporary files of killed runs; raises UsageError if that is not possible."""
        self._scratch.__enter__()

    def begin_log(self) -> None:
        """Empty the log: the SDK's processes append to it."""
        with explained(self.path / LOG), open(self.path / LOG, "wb"):
            pass

    def file(self, suffix: str) -> Path:
        """NAME + suffix, such as `.parsed.har`."""
        return self.path / f"{self.stem}{suffix}"

    def scratch(self, name: str) -> Path:
        """A temporary file, or a prefix of several; other runs in this folder have other names."""
        return self._scratch.path / name

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        """job.json, report.json."""
        self.write_text(self.path / name, json.dumps(value, indent=1) + "\n")

    def write_text(self, path: Path, text: str) -> None:
        """Write a text file at once: it is there whole, or not at all."""
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def write_network(self, model: onnx.ModelProto) -> Path:
        """Write the cut network as every SDK can read it: in float32, with a file version of at most IR_VERSION."""
        widened = to_float32(model)
        widened.ir_version = min(widened.ir_version, IR_VERSION)
        path = self.file(".cut.onnx")
        with replacing(path) as temporary:
            temporary.write_bytes(widened.SerializeToString())
        return path

    def write_calibration(self, pictures: CalibrationSet, indices: Sequence[int]) -> CalibrationFile:
        """Write the calibration pictures in the form that the worker gives to the SDK."""
        path = self.write_pictures("calibration", pictures, indices)
        return CalibrationFile(path, len(indices), float_bytes(len(indices), pictures.size))

    def write_pictures(self, name: str, pictures: CalibrationSet, indices: Sequence[int]) -> Path:
        """Write a `.npy` of uint8 (N, H, W, 3), with one picture in memory at a time."""
        path = self.scratch(f"{name}.npy")
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(indices), *pictures.size, 3)}
        with explained(path), open(path, "wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for index in indices:
                file.write(np.ascontiguousarray(pictures[index]).tobytes())
        return path

    def clean(self) -> None:
        """Remove the temporary files of this run."""
        self._scratch.__exit__()


def float_bytes(count: int, size: tuple[int, int]) -> int:
    """Bytes of `count` RGB pictures in float32."""
    return count * size[0] * size[1] * 3 * 4
