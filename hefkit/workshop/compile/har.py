"""HARs, the SDK's archives of a network between its steps: the record beside each, and when a run may resume from one.

A HAR shows its layers, but not from which weights, pictures and script it was made. So every HAR of ours has a record
beside it, a JSON of the same name, and `--har` compares the record with what this run asks for.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from hefkit import __version__
from hefkit.errors import ModelError
from hefkit.files import read_start, replacing
from hefkit.text import one_line

PARSED, QUANTIZED = "parsed", "quantized"
FORMAT = 1
MAX_RECORD_BYTES = 16 << 20
PIECE = 1 << 20


@dataclass(frozen=True)
class HarRecord:
    """What a HAR was made from."""

    stage: str  # PARSED | QUANTIZED
    onnx_sha256: str
    hw_arch: str
    end_nodes: tuple[str, ...]
    sdk: str | None
    script: str | None = None  # final model script; None while only parsed
    calibration: dict[str, Any] | None = None  # {"count", "digest"}
    ran: dict[str, Any] = field(default_factory=dict)  # what the log says about the quantisation
    har_sha256: str = ""

    def to_json(self) -> dict[str, Any]:
        """The file's object."""
        return {"format": FORMAT, "tool": f"hefkit {__version__}", **asdict(self), "end_nodes": list(self.end_nodes)}


def record_path(har: Path) -> Path:
    """NAME.har -> NAME.har.json."""
    return har.with_name(har.name + ".json")


def write_record(har: Path, record: HarRecord) -> None:
    """Write the record of a finished HAR beside it."""
    record = replace(record, har_sha256=_sha256(har))
    with replacing(record_path(har)) as temporary:
        temporary.write_text(json.dumps(record.to_json(), indent=1) + "\n", encoding="utf-8")


def move_har(har: Path, target: Path) -> None:
    """Rename a HAR and its record."""
    os.replace(har, target)
    if record_path(har).exists():
        os.replace(record_path(har), record_path(target))


def read_record(har: Path) -> HarRecord | None:
    """The record beside a HAR; None where it is missing, of another file, or of another format."""
    try:
        value = json.loads(read_start(record_path(har), MAX_RECORD_BYTES))
        if value.pop("format") != FORMAT or not str(value.pop("tool")).startswith("hefkit "):
            return None
        record = HarRecord(**{**value, "end_nodes": tuple(value["end_nodes"])})
        if record.calibration is not None:
            int(record.calibration["count"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return record if record.har_sha256 == _sha256(har) else None


def check_har(path: Path) -> None:
    """Refuse (exit 4) a file that is not a HAR, before anything slow. A HAR is a tar with a network in it, a `.hn`."""
    if not path.is_file():
        raise ModelError(f"the HAR {path} does not exist; expected one that an earlier run wrote; check the path")
    try:
        with tarfile.open(path) as archive:
            names = archive.getnames()
    except (OSError, tarfile.TarError, EOFError, ValueError) as exc:
        raise ModelError(f"{path} is not a HAR: {one_line(exc)}; expected one that Hailo's SDK saved") from exc
    if not any(name.endswith(".hn") for name in names):
        raise ModelError(f"{path} is an archive without a network in it; expected a HAR that Hailo's SDK saved")


def stage_of(state: str | None, har: Path) -> str:
    """The SDK's name of a loaded HAR's state -> PARSED or QUANTIZED.

    Raises:
        ModelError: a run cannot resume from this state.
    """
    folded = re.sub(r"[\s_-]+", "", (state or "").lower())  # "Quantized Model", "quantized_model"
    if "quantized" in folded or "compiled" in folded:
        return QUANTIZED
    if "hailomodel" in folded or "native" in folded:
        return PARSED
    raise ModelError(
        f"the HAR {har} is in the state {state or '(unknown)'}; expected one saved after parsing or after "
        "quantisation; leave --har out"
    )


def check_resume(har: Path, record: HarRecord | None, wanted: HarRecord, arch: str | None) -> list[str]:
    """Refuse (exit 4) a HAR that was made from other inputs; returns warnings about what cannot be checked.

    Args:
        record: of the HAR, if any.
        wanted: the record that this run would write; `script` only where it is known already.
        arch: the chip of the HAR, as the SDK names it.
    """
    if arch is not None and arch != wanted.hw_arch:
        raise ModelError(
            f"the HAR {har} is for {arch}, expected {wanted.hw_arch}; leave --har out, or change --hw-arch"
        )
    if record is None:
        return [
            f"the HAR {har} has no record beside it, so its weights and pictures are not known; only the comparison of "
            "its boxes shows whether it belongs to this ONNX"
        ]
    for what, found, expected in (
        ("another ONNX", record.onnx_sha256, wanted.onnx_sha256),
        ("another chip", record.hw_arch, wanted.hw_arch),
        ("other end nodes", record.end_nodes, wanted.end_nodes),
    ):
        if found != expected:
            raise ModelError(
                f"the HAR {har} was made from {what}: {_short(found)}, expected {_short(expected)}; leave --har out"
            )
    before, now = record.calibration or {}, wanted.calibration or {}
    if before and before.get("digest") != now.get("digest"):
        return [f"the HAR {har} was quantised with another calibration set; the one given now is only used to measure"]
    return []


def differing_script(har: Path, found: Sequence[str], expected: Sequence[str]) -> str | None:
    """How the script of a quantised HAR differs from the expected one, or None; lines in canonical form."""
    there, here = set(found), set(expected)
    missing = [line for line in expected if line not in there]
    extra = [line for line in found if line not in here]
    if not missing and not extra:
        return None
    differences = [f"it lacks {line}" for line in missing[:2]] + [f"it has {line}" for line in extra[:2]]
    return f"the HAR {har} was quantised with another model script: {one_line('; '.join(differences), 400)}"


def _short(value: object) -> str:
    text = ", ".join(value) if isinstance(value, tuple) else str(value)
    return one_line(text, 80)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()
