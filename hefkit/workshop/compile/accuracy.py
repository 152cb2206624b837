"""--data: average precision of the quantised network on labelled pictures, before anything is written or compiled.

Also the last lines of every run: the verdict on what was measured, and the command that measures more.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from hefkit.detect.engine import Engine, EngineOptions
from hefkit.errors import ToolchainError
from hefkit.measure.labels import labelled_pictures
from hefkit.measure.summary import Gates, summary
from hefkit.measure.validate import OpenModel, validate
from hefkit.measure.verdict import judge
from hefkit.pictures.sources import Item
from hefkit.spec import ModelSpec
from hefkit.text import log, one_line
from hefkit.workshop.engine import EmulatedEngine, FloatEngine
from hefkit.workshop.network.session import open_session

if TYPE_CHECKING:
    from hefkit.workshop.compile.run import Compilation

SDK_PICTURES = 128  # at most, for the SDK's emulation: without a GPU it takes seconds a picture
QUALITY = {"boxes_reference": "boxes_float", "recall": "recall", "precision": "precision", "images": "images"}


class _Unwritten(EmulatedEngine):
    """An emulated model that is not in a file yet."""

    def __init__(self, model: onnx.ModelProto, spec: ModelSpec) -> None:
        super(EmulatedEngine, self).__init__(spec, open_session(model), batch_size=1)


def emulation_refusal(run: Compilation, model: onnx.ModelProto) -> str | None:
    """Measure an emulated model on --data; why --gate-kept refuses it, or None. Its figures go into the result."""
    if run.options.data is None:
        return None
    assert run.spec is not None
    spec = run.spec
    return _measure(run, run.options.emulated_model, lambda items: _Unwritten(model, spec))


def sdk_refusal(run: Compilation, emulated: Callable[[Sequence[Item]], Engine]) -> str | None:
    """The same for the network that the SDK quantised; `emulated` opens it for the pictures that it is given.

    If the SDK cannot emulate the network, --gate-kept refuses it; without that flag it is a warning.
    """
    try:
        return _measure(run, run.options.name.with_suffix(".hef"), emulated, SDK_PICTURES)
    except ToolchainError as exc:  # the network may still be good
        unknown = f"the quantised network could not be measured on --data: {one_line(exc, 500)}"
        if run.options.gate_kept is not None:
            return f"--gate-kept {run.options.gate_kept}: {unknown}"
        run.warn(unknown)
        return None


def opener(run: Compilation, quantised: Callable[[Path], Engine]) -> OpenModel:
    """For `validate`: the ONNX of this run as the float model, any other path as `quantised` opens it."""
    assert run.file is not None
    file, onnx_path = run.file, run.options.onnx

    @contextmanager
    def open_model(path: Path) -> Iterator[Engine]:
        float_model = path == onnx_path
        engine = FloatEngine(path, file.model, file.sha256, EngineOptions()) if float_model else quantised(path)
        with engine as opened:
            yield opened

    return open_model


def _measure(
    run: Compilation, model: Path, quantised: Callable[[Sequence[Item]], Engine], most: int | None = None
) -> str | None:
    assert run.options.data is not None
    every, names = labelled_pictures(run.options.data, "val")
    items = every[:most]
    if len(items) < len(every):
        run.warn(f"--data: measured on the first {most} of {len(every)} pictures; validate_hef.py takes all")
    opened = opener(run, lambda path: quantised(items))
    result = validate([model], run.options.onnx, items, opened, labelled=True, names=names)
    for line in summary(result):
        log.info("  %s", line)
    run.accuracy = result.to_json()
    refused = Gates(kept=run.options.gate_kept).refusals(result)
    if not refused:
        return None
    return "; ".join([*refused, *(f"likely: {cause}" for cause in result.causes[:1]), "nothing was written"])


def closing_lines(run: Compilation, model: Path) -> list[str]:
    """The last console lines: the verdict in one sentence, and the exact command that measures more."""
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
