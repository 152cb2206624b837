"""Paths of compile_to_hef.py: cheap checks before any package is imported, and the commands that copy a HEF to the Pi.

Standard library only.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from pathlib import Path

from hefkit.errors import DataError, ModelError, UsageError
from hefkit.files import check_file, check_writable, existing, near_path, own_json
from hefkit.staging.journal import settle
from hefkit.text import one_line

EMULATED = ".emulated.onnx"
RUN_FILES = ("report.json", "script.mscript", "job.json", "sdk.log")  # of a run folder; the first two with --emulate
_HARS, _HEFS = (".parsed.har", ".quantized.har", ".refused.har"), (".refused.hef", ".finished.hef")
RUN_SUFFIXES = (".cut.onnx", ".alls", ".json", *_HARS, *_HEFS)
SCRIPTS = ("hailo_inference.py", "working_hailo_detector.py", "validate_hef.py")  # that run on the Pi
HOST = "user@raspberrypi.local"  # a placeholder: Raspberry Pi OS has no default user, `raspberrypi` is its default name


def check_output(name: Path, source: Path) -> Path:
    """`--output` without its suffix; raises UsageError where no file can have that name."""
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
    settle(model.parent)
    if existing(spec) and not own_json(spec):
        raise UsageError(
            f"{spec} is not hefkit's and would be replaced by the spec of the model; choose another --output"
        )


def check_same_source(name: Path, source: Path, *, emulate: bool) -> None:
    """Refuse (exit 2) to replace a model of the default name that was made from another ONNX, or from an unknown one.

    Args:
        name: the output, which the user has not chosen.
        source: the ONNX; a missing one is reported later.
        emulate: an emulated model is written, else a HEF.
    """
    model = name.with_name(name.name + (EMULATED if emulate else ".hef"))
    if not (existing(model) and source.is_file()):
        return
    made_from = own_json(model.with_suffix(".json")).get("source")
    known = made_from if isinstance(made_from, dict) else {}
    with open(source, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    if known.get("sha256") != digest.hexdigest():
        origin = f"another ONNX ({one_line(known['file'], 80)})" if known.get("file") else "an unknown ONNX"
        raise UsageError(
            f"{model} was made from {origin} and would be replaced; expected --output with the name of this model; "
            f"type --output {_quoted(source.stem)}, or --output {_quoted(name)} to replace it"
        )


def check_run_dir(folder: Path, name: str, har: Path | None, *, emulate: bool) -> None:
    """Refuse (exit 2) a run folder that cannot be written, or that has files with a run's names which are not ours.

    The content of a JSON file shows whether it is ours. Another file is ours if one of these JSON files is, or if its
    own record is. The HAR to resume from is read, not replaced.
    """
    check_writable(folder)
    settle(folder)
    names = RUN_FILES[:2] if emulate else (*RUN_FILES, *(name + suffix for suffix in RUN_SUFFIXES))
    kept = None if har is None else os.path.realpath(har)
    there = [path for path in (folder / n for n in names) if existing(path) and os.path.realpath(path) != kept]
    ours = [path for path in there if own_json(path if path.suffix == ".json" else path.with_name(path.name + ".json"))]
    recorded = any(path.suffix == ".json" for path in ours)
    foreign = [path for path in there if path not in ours and (path.suffix == ".json" or not recorded)]
    if foreign:
        raise UsageError(f"{foreign[0]} is not hefkit's and would be replaced; choose another --run-dir")


def check_model_exists(path: Path) -> None:
    """Refuse (exit 4) a missing ONNX and a PyTorch checkpoint before any package is imported."""
    if path.suffix.lower() in (".pt", ".pth"):
        raise ModelError(
            f"{path} is a PyTorch checkpoint; expected an ONNX export; make one with: "
            f"yolo export model={_quoted(path)} format=onnx imgsz=640 opset=13"
        )
    if not existing(path):
        raise ModelError(f"the model {path} does not exist{near_path(path)}; expected an ONNX export; check the path")


def check_calibration_exists(path: Path) -> None:
    """Refuse (exit 3) a missing calibration set before any package is imported."""
    if not existing(path):
        raise DataError(
            f"the calibration set {path} does not exist{near_path(path)}; make one with: "
            "python3 prepare_calibration.py DATASET"
        )


def copy_lines(model: Path, project: Path, hailort: str | None) -> list[str]:
    """What to type to copy a HEF with its spec to the Pi, and hefkit itself before the first model.

    Args:
        model: NAME.hef; NAME.json lies beside it.
        project: the folder of the scripts and of `hefkit`.
        hailort: the version that belongs to the compiler, if known.
    """
    scripts = [project / name for name in SCRIPTS if (project / name).is_file()]
    needs = f" (it needs HailoRT {hailort})" if hailort else ""
    # tar is on every machine and keeps the packages; `scp -r` cannot leave workshop/ and the caches out
    pack = f"tar -C {_quoted(project)} --exclude=__pycache__ --exclude=hefkit/workshop -cf - hefkit"
    return [
        f"the first time, copy hefkit to the Pi; replace {HOST} by your user and address:",
        f"  ssh {HOST} mkdir -p hefkit",
        f"  scp {_quoted(*scripts)} {HOST}:hefkit/",
        f"  {pack} | ssh {HOST} tar -C hefkit -xf -",
        f"then copy the model to the Pi{needs}:",
        f"  scp {_quoted(model, model.with_suffix('.json'))} {HOST}:hefkit/",
        f"on the Pi: cd hefkit && python3 hailo_inference.py {_quoted(model.name)} PHOTOS",
    ]


def _quoted(*paths: Path | str) -> str:
    return " ".join(shlex.quote(str(path)) for path in paths)
