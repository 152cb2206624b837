"""--data: average precision of the quantised network on labelled pictures, before anything is written or compiled.

Also the last words of every run: the verdict on what was measured, and the command that measures more.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import onnx

from hefkit.detect.engine import CpuSlots, Engine, EngineOptions
from hefkit.detect.preprocess import letterbox
from hefkit.errors import DataError
from hefkit.measure.labels import labelled_pictures
from hefkit.measure.summary import Gates, summary
from hefkit.measure.validate import OpenModel, validate
from hefkit.measure.verdict import judge
from hefkit.pictures.read import UnreadableImage, read_image
from hefkit.spec import HeadSpec, ModelSpec
from hefkit.text import log
from hefkit.workshop.engine import EmulatedEngine, FloatEngine
from hefkit.workshop.network.session import open_session

if TYPE_CHECKING:
    from hefkit.workshop.compile.run import Compilation

SDK_PICTURES = 128  # labelled pictures that the SDK emulates: it computes seconds a picture without a GPU
QUALITY = {"boxes_reference": "boxes_float", "recall": "recall", "precision": "precision", "images": "images"}


class _Unwritten(EmulatedEngine):
    """An emulated model that is not in a file yet."""

    def __init__(self, model: onnx.ModelProto, spec: ModelSpec) -> None:
        super(EmulatedEngine, self).__init__(spec, open_session(model), batch_size=1)


class _Computed(CpuSlots):
    """The SDK's emulation of pictures that were computed beforehand, found by their bytes."""

    kind = "emulated"

    def __init__(self, spec: ModelSpec, pictures: Sequence[np.ndarray], tensors: Sequence[np.ndarray]) -> None:
        super().__init__(1, spec.input.size)
        self.spec, self._tensors = spec, tensors
        self._places = {_digest(picture): i for i, picture in enumerate(pictures)}

    def infer(self, batch: np.ndarray) -> list[list[np.ndarray]]:
        return [
            [np.ascontiguousarray(t[self._places[_digest(picture)]], np.float32) for t in self._tensors]
            for picture in batch
        ]

    def __enter__(self) -> _Computed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _digest(picture: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(picture).tobytes()).digest()


def emulation_refusal(run: Compilation, model: onnx.ModelProto) -> str | None:
    """Measure an emulated model on --data; why --gate-kept refuses it, or None. Its figures go into the result."""
    if run.options.data is None:
        return None
    assert run.spec is not None
    spec = run.spec
    return _measure(run, run.options.emulated_model, lambda: _Unwritten(model, spec))


def sdk_refusal(run: Compilation, head: HeadSpec, infer: Callable[[list[np.ndarray]], list[np.ndarray]]) -> str | None:
    """The same for the network that the SDK quantised.

    Args:
        head: what the SDK's emulation returns: float32, probabilities or logits.
        infer: the pictures (H, W, 3) uint8 RGB -> (N, H, W, C) float32 in contract order.
    """
    if run.options.data is None:
        return None
    assert run.spec is not None
    from dataclasses import replace

    spec = replace(run.spec, head=head)
    items, _ = labelled_pictures(run.options.data, "val")
    pictures = []
    for item in items[:SDK_PICTURES]:
        try:
            pictures.append(letterbox(read_image(item.path), spec.input)[0])
        except UnreadableImage:
            continue  # validate names it
    if not pictures:
        raise DataError(f"none of the pictures of {run.options.data} can be read; expected at least one")
    tensors = infer(pictures)
    name = run.options.name.with_suffix(".hef")
    return _measure(run, name, lambda: _Computed(spec, pictures, tensors), SDK_PICTURES)


def _measure(run: Compilation, model: Path, quantised: Callable[[], Engine], most: int | None = None) -> str | None:
    assert run.file is not None and run.options.data is not None
    file, onnx_path = run.file, run.options.onnx
    items, names = labelled_pictures(run.options.data, "val")
    if most is not None and len(items) > most:
        run.warn(f"--data: measured on the first {most} of {len(items)} pictures; validate_hef.py takes all")

    @contextmanager
    def open_model(path: Path) -> Iterator[Engine]:
        float_model = path == onnx_path
        engine = FloatEngine(path, file.model, file.sha256, EngineOptions()) if float_model else quantised()
        with engine as opened:
            yield opened

    opener: OpenModel = open_model
    result = validate([model], onnx_path, items[:most], opener, labelled=True, names=names)
    for line in summary(result):
        log.info("  %s", line)
    run.accuracy = result.to_json()
    refused = Gates(kept=run.options.gate_kept).refusals(result)
    if not refused:
        return None
    return "; ".join([*refused, *(f"likely: {cause}" for cause in result.causes[:1]), "nothing was written"])


def last_words(run: Compilation, model: Path) -> list[str]:
    """The verdict in one sentence, and the exact command that measures more."""
    options, source = run.options, None if run.calibration is None else run.calibration.source
    lines = []
    if run.accuracy is not None:
        lines.append(run.accuracy["verdict"]["text"])
        lines += [f"  likely: {cause}" for cause in run.accuracy["verdict"]["causes"]]
    elif run.spec is not None and run.spec.quality is not None:
        quality = run.spec.quality
        agreement = {key: quality[name] for key, name in QUALITY.items()}
        sizes = {"width_ratio": {"median": quality["median_width_ratio"]}, "height_ratio": {"median": None}}
        text = judge({"kept": None, "map50": None, "agreement": {**agreement, **sizes}}).text
        lines.append(text + ("; measured on the calibration pictures" if quality["in_sample"] else ""))
    data = options.data or (source if source and source.lower().endswith((".yaml", ".yml")) else "data.yaml")
    command = ["python3", "validate_hef.py", str(model), "--reference", str(options.onnx), "--data", data]
    lines.append(f"on your labels: {shlex.join([*command, '--report', 'report'])}")
    return lines
