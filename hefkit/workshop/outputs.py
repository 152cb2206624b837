"""Cheap checks of compile_to_hef.py's paths; standard library only, so that they come before any package."""

from __future__ import annotations

import json
from pathlib import Path

from hefkit.cli import existing
from hefkit.errors import DataError, ModelError, UsageError
from hefkit.spec import MAX_SPEC_BYTES

EMULATED = ".emulated.onnx"


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


def check_spec_free(name: Path) -> None:
    """Refuse (exit 2) to write NAME.json over a file that is no spec of ours; NAME is what `check_output` returned."""
    path = name.with_name(name.name + ".json")
    if not existing(path):
        return
    try:
        with open(path, "rb") as file:
            ours = str(json.loads(file.read(MAX_SPEC_BYTES))["tool"]).startswith("hefkit ")
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        ours = False
    if not ours:
        raise UsageError(
            f"{path} is not hefkit's and would be replaced by the spec of the model; choose another --output"
        )


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
