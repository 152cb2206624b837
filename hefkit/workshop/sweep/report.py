"""report.html of a sweep: the winner beside the runner-up, as validate_hef.py shows two models.

An emulated model runs here. A HEF runs on the chip only, so Hailo's SDK emulates the network that it was compiled
from: the quantised HAR in the candidate's run folder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from hefkit.detect.engine import Engine
from hefkit.errors import HefkitError, ModelError, ToolchainError
from hefkit.measure.labels import labelled_pictures
from hefkit.measure.report.write import write_report
from hefkit.measure.validate import validate
from hefkit.pictures.find import READABLE
from hefkit.pictures.sources import Item
from hefkit.spec_file import read_spec
from hefkit.text import counted, log, one_line
from hefkit.workshop.compile.accuracy import SDK_PICTURES, opener
from hefkit.workshop.compile.folder import RunFolder
from hefkit.workshop.compile.run import Compilation
from hefkit.workshop.compile.sdk_engine import emulated_by_sdk
from hefkit.workshop.dfc.client import Dfc
from hefkit.workshop.dfc.ready import Ready, get_ready
from hefkit.workshop.engine import open_onnx
from hefkit.workshop.sweep.worker import RUN

NONE = "no report of the winner beside the runner-up"
ARRAY = f"{NONE}: the calibration set is an array; --data data.yaml gives it labelled pictures"
ELSEWHERE = "the same command on a machine with the SDK makes only the report, in a copy of this folder"
ON_THE_PI = "on the Pi, validate_hef.py with both HEFs measures the chip"


def compare(run: Compilation, models: Sequence[Path]) -> Path | None:
    """Write the report into the folder of the sweep; returns its page, or None where it cannot be made.

    Args:
        run: of the sweep.
        models: of the candidates, the winner first, each in its own folder.
    """
    items, names = _pictures(run)
    if not items:
        log.info("%s", ARRAY)
        return None
    sdk, labelled = not run.options.emulate, run.options.data is not None
    shown = items[:SDK_PICTURES] if sdk else items
    try:
        opened = opener(run, _by_sdk(run, shown, models) if sdk else open_onnx)
        result = validate(models, run.options.onnx, shown, opened, labelled=labelled, names=names)
        if sdk:
            result.warn(_whose_figures(len(shown), len(items)))
        write_report(result, run.options.run_dir)
    except HefkitError as exc:  # the candidates have taken hours: their figures are shown without the report too
        run.warn(f"{NONE}: {one_line(exc, 1000)}")
        return None
    return result.report


def _pictures(run: Compilation) -> tuple[list[Item], dict[int, str] | None]:
    """The labelled pictures, else those of the calibration set."""
    if run.options.data is not None:
        return labelled_pictures(run.options.data, "val")
    files = [] if run.calibration is None else [p for p in run.calibration.files if p.suffix.lower() in READABLE]
    return [Item(path, str(path), PurePosixPath(path.name)) for path in files], None


def _whose_figures(count: int, of: int) -> str:
    """A sentence for the page: the figures are the SDK's, not the chip's."""
    first = "" if count == of else f" on the first {count} of {of} pictures"
    return (
        "the figures are those of Hailo's SDK, which emulates the networks that the HEFs were compiled from"
        f"{first}; they are not of the chip; {ON_THE_PI}"
    )


def _by_sdk(run: Compilation, items: Sequence[Item], models: Sequence[Path]) -> Callable[[Path], Engine]:
    """Opens a HEF as the SDK emulates it; raises ToolchainError where this machine has no SDK."""
    options = run.options
    try:
        ready = get_ready(options.sdk_python, options.hw_arch, options.run_dir, (0, 0), lambda text: None)
    except ToolchainError as exc:
        raise ToolchainError(f"{one_line(exc, 500)}; {ELSEWHERE}; {ON_THE_PI}") from exc
    log.info(
        "report: the SDK emulates %s with each of %s; %s; all else is in %s already",
        counted(len(items), "picture"),
        counted(len(models), "candidate"),
        ready.device if ready.has_card else "without a graphics card that takes seconds a picture",
        one_line(options.run_dir),
    )
    return lambda path: _open(run, ready, items, path)


def _open(run: Compilation, ready: Ready, items: Sequence[Item], model: Path) -> Engine:
    assert run.file is not None and run.layout is not None
    spec, folder = read_spec(model.with_suffix(".json")), RunFolder(model.parent / RUN, model.stem)
    har, arch, version = folder.file(".quantized.har"), str(spec.target.get("arch")), spec.target.get("sdk")
    if not har.is_file():
        raise ModelError(
            f"{one_line(har)} is missing; expected the network that the HEF was compiled from; {ON_THE_PI}"
        )
    folder.make()
    try:
        with Dfc(ready.sdk, folder.path, ready.settings) as dfc:
            ready.check_started(dfc.start(), arch)
            if ready.version != version:
                raise ToolchainError(
                    f"{one_line(model.name)} was compiled with the SDK {version}, this machine has {ready.version}; "
                    "expected the same; --sdk-python names another one"
                )
            graph, _ = dfc.open_har(har, arch)
            order = [graph.outputs.index(output) for output in graph.matched(run.layout, run.file.size)]
            return emulated_by_sdk(spec, run.layout, items, dfc, folder, order)
    finally:
        folder.clean()
