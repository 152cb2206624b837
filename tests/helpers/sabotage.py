"""A real network ruined in the seven ways that users report, each as an engine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

import compile_to_hef
from hefkit.detect.engine import CpuSlots, Engine
from hefkit.open_model import open_engine
from hefkit.spec import ModelSpec

CALIBRATED_ON = 16  # pictures; enough for these cells, and quick
Batch = Callable[[np.ndarray], np.ndarray]
Memory = dict[bytes, list[np.ndarray]]
Tensors = Callable[[list[np.ndarray], ModelSpec], list[np.ndarray]]


class Sabotaged(CpuSlots):
    """An engine whose input or output is spoilt.

    `memory`: what the network has made of each tensor; engines of one network share it, so that a picture which is
    asked for again, by the search for a cause or by another sabotage of the output, is not computed again.
    """

    def __init__(
        self,
        inner: Engine,
        memory: Memory,
        before: Batch | None = None,
        after: Tensors | None = None,
        spec: ModelSpec | None = None,
    ) -> None:
        super().__init__(1, inner.spec.input.size)
        self.inner, self.memory, self.before, self.after = inner, memory, before, after
        self.kind, self.spec = inner.kind, spec or inner.spec

    def infer(self, batch: np.ndarray) -> list[list[np.ndarray]]:
        found = [self._one(tensor) for tensor in (batch if self.before is None else self.before(batch))]
        return found if self.after is None else [self.after(list(tensors), self.spec) for tensors in found]

    def _one(self, tensor: np.ndarray) -> list[np.ndarray]:
        tensor = np.ascontiguousarray(tensor)
        key = hashlib.sha256(tensor).digest()
        if key not in self.memory:
            [self.memory[key]] = self.inner.infer(tensor[None])
        return self.memory[key]

    def close(self) -> None:
        super().close()
        self.inner.close()

    def __enter__(self) -> Sabotaged:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Bench:
    """The real network, its healthy emulation, and the ruined ones; models are made once, in a folder."""

    def __init__(self, shared: Path, folder: Path) -> None:
        self.onnx = shared / "models" / "bccd_416.onnx"
        self.data = shared / "datasets" / "bccd" / "data.yaml"
        self.folder = folder
        chosen = sorted((self.data.parent / "images" / "train").glob("*.jpg"))[:: 128 // CALIBRATED_ON][:CALIBRATED_ON]
        photos = [cv2.imread(str(path))[..., ::-1] for path in chosen]
        padded = [np.pad(cv2.resize(p, (416, 312)), ((52, 52), (0, 0), (0, 0)), constant_values=114) for p in photos]
        self.pictures = np.stack(padded)
        self.healthy = self._emulate("healthy", self.pictures)

    def _emulate(self, name: str, pictures: np.ndarray) -> Path:
        """`compile_to_hef.py --emulate` on an (N, H, W, 3) uint8 RGB array."""
        np.save(self.folder / f"{name}.npy", pictures)
        flags = ["--emulate", "--calib", self.folder / f"{name}.npy", "--output", self.folder / name]
        assert compile_to_hef.main([str(self.onnx), *map(str, flags), "--run-dir", str(self.folder), "--quiet"]) == 0
        return self.folder / f"{name}.emulated.onnx"

    def models(self) -> dict[str, Callable[[], Engine]]:
        """Name -> how to open it: the float network, the healthy emulation, the seven sabotages."""
        empty = cv2.GaussianBlur(self.pictures[0], (0, 0), 60).astype(int)
        grain = np.random.default_rng(0).integers(-2, 3, (4, *empty.shape))
        dark = self._emulate("dark", self.pictures // 255)  # 0..1, as after ToTensor()
        four = self._emulate("four", np.clip(empty + grain, 0, 255).astype(np.uint8))  # an empty scene, four times

        exact: Memory = {}
        rounded: Memory = {}

        def healthy(**spoilt: object) -> Callable[[], Engine]:
            return lambda: Sabotaged(open_engine(self.healthy), rounded, **spoilt)  # type: ignore[arg-type]

        spec = self._spec()
        stretched = replace(spec, input=replace(spec.input, fit="stretch"))
        return {
            "float": lambda: Sabotaged(open_engine(self.onnx), exact),
            "healthy": healthy(),
            "colours": healthy(before=lambda batch: batch[..., ::-1]),
            "0..1": lambda: open_engine(dark),
            "stretched": healthy(spec=stretched),
            "four": lambda: open_engine(four),
            "clipped": healthy(after=clip_boxes),
            "order": healthy(after=lambda tensors, _: turn_classes(tensors)),
            "level 1": healthy(after=shift_boxes, spec=replace(spec, script=level_1(spec.script))),
        }

    def _spec(self) -> ModelSpec:
        with open_engine(self.healthy) as engine:
            return engine.spec

    @contextmanager
    def open(self, models: dict[str, Callable[[], Engine]], path: Path) -> Iterator[Engine]:
        """What `validate` is given: the name is the file's."""
        with models[path.name]() as engine:
            yield engine


def clip_boxes(tensors: list[np.ndarray], spec: ModelSpec) -> list[np.ndarray]:
    """All box tensors lose the upper half of their values: a range that was set too narrow."""
    for i in range(0, len(tensors), 2):
        low, high = int(tensors[i].min()), int(tensors[i].max())
        tensors[i] = np.minimum(tensors[i], low + (high - low) // 2).astype(tensors[i].dtype)
    return tensors


def turn_classes(tensors: list[np.ndarray]) -> list[np.ndarray]:
    """0 is called 1, 1 is called 2, 2 is called 0."""
    return [np.roll(t, 1, axis=-1) if i % 2 else t for i, t in enumerate(tensors)]


def shift_boxes(tensors: list[np.ndarray], spec: ModelSpec) -> list[np.ndarray]:
    """Every box channel gets a wrong bias, as level 1's correction on few pictures does; scores stay."""
    rng = np.random.default_rng(0)
    for i in range(0, len(tensors), 2):
        step = float(np.max(spec.head.outputs[i].scale))
        error = np.rint(rng.normal(0, 3, tensors[i].shape[-1]) / step)
        tensors[i] = np.clip(tensors[i] + error, 0, 255).astype(tensors[i].dtype)
    return tensors


def level_1(script: str) -> str:
    """The script of a compilation at optimization level 1."""
    return f"{script}\nmodel_optimization_flavor(optimization_level=1, compression_level=0)\n"
