"""The network that Hailo's SDK quantised, emulated by the SDK, behind the Engine protocol.

A call of the SDK takes seconds before its first picture, and an engine is called picture by picture. So the pictures
are emulated beforehand, and their tensors are found by the bytes of the picture. CHUNK pictures are in memory at a
time; the tensors, 5 MB a picture of 640x640, stay in files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType

import numpy as np

from hefkit.detect.engine import CpuSlots
from hefkit.detect.preprocess import letterbox
from hefkit.errors import DataError, ToolchainError
from hefkit.files import explained
from hefkit.pictures.header import UnreadableImage
from hefkit.pictures.read import read_image
from hefkit.pictures.sources import Item
from hefkit.results.progress import progress
from hefkit.spec import InputSpec, ModelSpec
from hefkit.workshop.compile.folder import RunFolder
from hefkit.workshop.compile.quality import float_spec, sorted_outputs
from hefkit.workshop.dfc.client import QUANTIZED, Dfc, EmulationError
from hefkit.workshop.heads.discover import HeadLayout

CHUNK = 32


class SdkEngine(CpuSlots):
    """Returns the stored tensors of the pictures that were added."""

    kind = "emulated"

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(1, spec.input.size)
        self.spec = spec
        self._known: dict[bytes, list[np.ndarray]] = {}  # digest of a picture -> its tensors, (H, W, C) each

    def add(self, pictures: np.ndarray, tensors: Sequence[np.ndarray]) -> None:
        """Pictures (N, H, W, 3) uint8 RGB, and of each head the tensor (N, H, W, C) float32.

        Raises:
            ToolchainError: the tensors are of fewer pictures.
        """
        emulated = min(len(tensor) for tensor in tensors)
        if emulated < len(pictures):
            raise ToolchainError(
                f"the SDK's emulation returned {emulated} of {len(pictures)} pictures; expected all; try another SDK "
                "release"
            )
        for i, picture in enumerate(pictures):
            self._known[_digest(picture)] = [tensor[i] for tensor in tensors]

    def infer(self, batch: np.ndarray) -> list[list[np.ndarray]]:
        """(N, H, W, 3) uint8 RGB -> for each picture its tensors, float32 (H, W, C).

        Raises:
            DataError: a picture was not added, because it could not be read when the SDK emulated it.
        """
        known = [self._known.get(_digest(picture)) for picture in batch]
        if None in known:
            raise DataError(
                "a picture could not be read when the SDK emulated it, and now it can; expected one that does not "
                "change; check the memory that is free, and run again"
            )
        return [[np.ascontiguousarray(t, np.float32) for t in tensors] for tensors in known if tensors is not None]

    def close(self) -> None:
        """Free the files; calling it twice is allowed."""
        super().close()
        self._known.clear()

    def __enter__(self) -> SdkEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def emulated_by_sdk(
    spec: ModelSpec, layout: HeadLayout, items: Sequence[Item], dfc: Dfc, folder: RunFolder, order: Sequence[int]
) -> SdkEngine:
    """Let the SDK emulate pictures, and return the engine that knows their tensors.

    Args:
        spec: of the compilation, with its quality, which says whether the class tensors are probabilities.
        layout: the heads, in the order of the spec.
        items: those that cannot be read are left out.
        dfc: the SDK, with the quantised network open; it is not needed any more afterwards.
        folder: for temporary files.
        order: of each head the index of its output in the parsed graph.

    Raises:
        ToolchainError: the SDK does not emulate it.
        DataError: the disk is full.
    """
    if spec.quality is None or "class_activation" not in spec.quality:
        raise ToolchainError(
            "the SDK could not emulate its network during the compilation; expected a network that it can emulate; its "
            "log says why; validate_hef.py on the Pi measures the HEF"
        )
    head = float_spec(layout.to_head_spec(), spec.quality["class_activation"] == "sigmoid")
    engine, file = SdkEngine(replace(spec, head=head)), folder.scratch("pictures.npy")
    with progress(len(items), "picture") as bar:
        for start in range(0, len(items), CHUNK):
            part = items[start : start + CHUNK]
            pictures = _letterboxed(part, spec.input)
            if pictures:
                stacked = np.stack(pictures)
                with explained(file):
                    np.save(file, stacked)
                try:
                    found = dfc.infer(QUANTIZED, file, folder.scratch("tensor-"))
                except EmulationError as exc:
                    raise ToolchainError(f"the SDK does not emulate its network: {exc}; see {dfc.log}") from exc
                engine.add(stacked, sorted_outputs(found, order, head))
            for _ in part:
                bar.step()
    return engine


def _letterboxed(items: Sequence[Item], spec: InputSpec) -> list[np.ndarray]:
    """(H, W, 3) uint8 RGB each."""
    found = []
    for item in items:
        try:
            found.append(letterbox(read_image(item.path), spec)[0])
        except UnreadableImage:
            continue  # validate names it
    return found


def _digest(picture: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(picture).tobytes()).digest()
