"""A small network, its pictures and a `Dfc` on the double: what tests of single calls start from."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from hefkit.workshop.dfc.client import CalibrationFile, Dfc
from hefkit.workshop.dfc.find import find_sdk
from hefkit.workshop.dfc.graph import Output, ParsedGraph
from hefkit.workshop.heads.discover import HeadLayout, discover
from hefkit.workshop.network.cut import cut
from hefkit.workshop.network.file import OnnxFile, load_onnx
from tests.helpers.sdk import make_sdk
from tests.helpers.tiny_onnx import drawn, save, tiny_yolo

SCRIPT = """\
normalization1 = normalization([0.0, 0.0, 0.0], [255.0, 255.0, 255.0])
model_optimization_flavor(optimization_level=0, compression_level=0)
model_optimization_config(calibration, batch_size=8, calibset_size=6)
"""


@dataclass
class Bench:
    """Everything in one folder."""

    folder: Path
    file: OnnxFile
    layout: HeadLayout
    network: Path  # cut
    calibration: CalibrationFile
    script: Path

    @staticmethod
    def make(folder: Path, model: onnx.ModelProto | None = None) -> Bench:
        """A toy YOLO of 64x64 with six pictures."""
        file = load_onnx(save(model or tiny_yolo(), folder / "toy.onnx"))
        layout = discover(file)
        pictures = np.stack([drawn(file.size, i) for i in range(6)])
        np.save(folder / "pictures.npy", pictures)
        script = folder / "base.alls"
        script.write_text(SCRIPT)
        network = save(cut(file.model, layout.tensors), folder / "cut.onnx")
        calibration = CalibrationFile(folder / "pictures.npy", 6, pictures.size * 4)
        return Bench(folder, file, layout, network, calibration, script)

    def copy(self, folder: Path) -> Bench:
        """The same files in another folder, for one test to change."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        calibration = replace(self.calibration, path=folder / self.calibration.path.name)
        return replace(
            self,
            folder=folder,
            network=folder / self.network.name,
            calibration=calibration,
            script=folder / self.script.name,
        )

    def dfc(self, **behaviour: Any) -> Dfc:
        """A new SDK environment with a worker of its own, in a folder of its own."""
        name = f"sdk{len(list(self.folder.glob('sdk*')))}"
        sdk = find_sdk(make_sdk(self.folder, name=name, **behaviour))
        work = self.folder / f"{name}-run"
        work.mkdir()
        return Dfc(sdk, work, {"CUDA_VISIBLE_DEVICES": "99"})

    def parse(self, dfc: Dfc) -> tuple[ParsedGraph, tuple[Output, ...]]:
        """Start and parse."""
        dfc.start()
        graph = dfc.parse(self.network, "toy", self.layout.end_nodes, "hailo8", self.folder / "toy.parsed.har")
        return graph, graph.matched(self.layout, self.file.size)

    def quantize(self, dfc: Dfc, outputs: tuple[Output, ...], *, wide: bool = False) -> None:
        """Load the script with baked sigmoids (and 16-bit outputs) and quantise."""
        lines = [f"change_output_activation({o.producer.split('/')[1]}, sigmoid)" for o in outputs[1::2]]
        if wide:
            names = ", ".join(o.name.split("/")[1] for o in outputs)
            lines.append(f"quantization_param([{names}], precision_mode=a16_w16)")
        self.script.write_text(SCRIPT + "\n".join(lines) + "\n")
        dfc.load_script(self.script)
        dfc.quantize(self.calibration, self.folder / "toy.quantized.har")
