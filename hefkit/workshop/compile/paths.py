"""Cheap checks of compile_to_hef.py's paths; standard library only, so that they come before any package."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from hefkit.errors import DataError, ModelError, UsageError
from hefkit.files import check_file, check_writable, existing, own_json

EMULATED = ".emulated.onnx"
RUN_FILES = ("report.json", "script.mscript", "job.json", "sdk.log")  # of a run folder; the first two with --emulate
_HARS, _HEFS = (".parsed.har", ".quantized.har", ".refused.har"), (".refused.hef", ".finished.hef")
RUN_SUFFIXES = (".cut.onnx", ".alls", ".json", *_HARS, *_HEFS)


def check_output(name: Path, source: Path) -> Path:
    """`--output` without its suffix; raises UsageError where that cannot become a file."""
    text = name.name
    for suffix in (EMULATED, ".hef"):
        if text.lower().endswith(suffix) and len(text) > len(suffix):
            text = text[: -len(suffix)]
            break
    if not text or (existing(name) and name.is_dir()):
        raise UsageError(f"--output {name} is a folder; expected the name of the model to write; add a name")
    base = name.with_name(text)
    if base.with_name(text + EMULATED).resolve() == source.resolve():
        raise UsageError(f"--output {name} would replace the source {source}; choose another name")
    return base


def check_places(name: Path, *, emulate: bool) -> None:
    """Refuse (exit 2) a model or spec that cannot be written, or that would replace a JSON which is not ours.

    Args:
        name: what `check_output` returned.
        emulate: an emulated model is written, else a HEF.
    """
    model = name.with_name(name.name + (EMULATED if emulate else ".hef"))
    check_file(model)
    spec = model.with_suffix(".json")
    check_file(spec)
    if existing(spec) and not own_json(spec):
        raise UsageError(
            f"{spec} is not hefkit's and would be replaced by the spec of the model; choose another --output"
        )


def check_run_dir(folder: Path, name: str, har: Path | None, *, emulate: bool) -> None:
    """Refuse (exit 2) a run folder that cannot be written, or with files of a run's names that are not ours.

    Whose they are, say the JSON files of a run: one that is not ours is nobody's to replace, and the others are ours
    where one of these is, or their own note. A HAR to resume from is read, not replaced.
    """
    check_writable(folder)
    names = RUN_FILES[:2] if emulate else (*RUN_FILES, *(name + suffix for suffix in RUN_SUFFIXES))
    kept = None if har is None else os.path.realpath(har)
    there = [path for path in (folder / n for n in names) if existing(path) and os.path.realpath(path) != kept]
    ours = [path for path in there if own_json(path if path.suffix == ".json" else path.with_name(path.name + ".json"))]
    recorded = any(path.suffix == ".json" for path in ours)
    foreign = [path for path in there if path not in ours and (path.suffix == ".json" or not recorded)]
    if foreign:
        raise UsageError(f"{foreign[0]} is not hefkit's and would be replaced; choose another --run-dir")


def check_model_exists(path: Path) -> None:
    """Refuse a missing ONNX before anything is imported."""
    if not existing(path):
        raise ModelError(f"the model {path} does not exist; expected an ONNX export; check the path")


def check_calibration_exists(path: Path) -> None:
    """The cheap half of opening a calibration set: is there anything?"""
    if not existing(path):
        raise DataError(
            f"the calibration set {path} does not exist; make one with: python3 prepare_calibration.py DATASET"
        )


HOST = "pi@raspberrypi.local"  # a placeholder; the default name of a Raspberry Pi
SCRIPTS = ("hailo_inference.py", "working_hailo_detector.py", "validate_hef.py")


def copy_lines(model: Path, project: Path, hailort: str | None) -> list[str]:
    """The `scp` lines for a HEF with its spec, and for the scripts the first time.

    Args:
        model: NAME.hef; NAME.json lies beside it.
        project: the folder of the scripts and of `hefkit`.
        hailort: the version that belongs to the compiler, if known.
    """
    scripts = [str(project / name) for name in SCRIPTS if (project / name).is_file()]
    needs = f"; the Pi needs HailoRT {hailort}" if hailort else ""
    return [
        f"copy to the Pi (put its address for {HOST}){needs}:",
        f"  scp {_quoted(model, model.with_suffix('.json'))} {HOST}:hefkit/",
        "the first time, before that:",
        f"  ssh {HOST} mkdir -p hefkit/hefkit",
        f"  scp {_quoted(*scripts)} {HOST}:hefkit/",
        f"  scp {_quoted(project / 'hefkit')}/*.py {HOST}:hefkit/hefkit/",
        f"then, on the Pi: python3 hailo_inference.py {_quoted(model.name)} PHOTOS",
    ]


def _quoted(*paths: object) -> str:
    return " ".join(shlex.quote(str(path)) for path in paths)
