"""One candidate: how it differs from the command line, its name, and its flags of compile_to_hef.py."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hefkit.workshop.compile.run import Options
from hefkit.workshop.script.read import parse_script

ADDED = "# added by the sweep"
GROUPED = "quantization_param([{{conv*}}, {{dw*}}], quantization_groups={})"
TUNED = "post_quantization_optimization(finetune, policy=enabled, {})"


@dataclass(frozen=True)
class Settings:
    """What a candidate sets; None: as on the command line."""

    level: int | None = None
    precision_16: tuple[str, ...] | None = None  # () is 8 bit
    logits: bool | None = None
    groups: int | None = None  # weight scales a layer
    finetune: str | None = None  # keywords, such as "learning_rate=0.0001, epochs=4"
    script_lines: tuple[str, ...] = ()  # added to the model script
    calib: Path | None = None
    num_samples: int | None = None
    hw_arch: str | None = None

    def added_lines(self) -> list[str]:
        """What is added to the model script."""
        groups = [] if self.groups in (None, 1) else [GROUPED.format(self.groups)]
        tuned = [] if self.finetune is None else [TUNED.format(self.finetune)]
        return [*groups, *tuned, *self.script_lines]

    def applied(self, base: Options) -> Options:
        """The options of this candidate; raises ModelError for an added line that is not a statement."""
        script, lines = base.script, self.added_lines()
        if lines:
            text = "\n".join([script.text.rstrip(), "", ADDED, *lines]) + "\n"
            script = parse_script(text, f"{script.source} with the lines of the sweep")
        return replace(
            base,
            script=script,
            level=base.level if self.level is None else self.level,
            precision_16=base.precision_16 if self.precision_16 is None else self.precision_16,
            logits=base.logits if self.logits is None else self.logits,
            calib=self.calib or base.calib,
            num_samples=self.num_samples or base.num_samples,
            hw_arch=self.hw_arch or base.hw_arch,
        )

    def to_json(self) -> dict[str, Any]:
        """The keys of a sweep file that are set."""
        values = {
            "optimization-level": self.level,
            "precision-16": None if self.precision_16 is None else ",".join(self.precision_16) or "none",
            "logits": self.logits,
            "quantization-groups": self.groups,
            "finetune": self.finetune,
            "script-lines": list(self.script_lines) or None,
            "calib": None if self.calib is None else str(self.calib),
            "num-samples": self.num_samples,
            "hw-arch": self.hw_arch,
        }
        return {key: value for key, value in values.items() if value is not None}

    def name(self) -> str:
        """A folder's name that shows what is set; layers, lines and paths are shown by a hash of 4 digits."""
        parts = [] if self.level is None else [f"level{self.level}"]
        if self.precision_16 is not None:
            known = {(): "8bit", ("outputs",): "out16", ("auto",): "auto16"}
            parts.append(known.get(self.precision_16) or f"wide{_short(self.precision_16)}")
        if self.logits is not None:
            parts.append("logits" if self.logits else "sigmoid")
        parts += [] if self.groups is None else [f"groups{self.groups}"]
        parts += [] if self.finetune is None else [f"tune{_short(self.finetune)}"]
        parts += [f"lines{_short(self.script_lines)}"] if self.script_lines else []
        parts += [] if self.num_samples is None else [f"n{self.num_samples}"]
        if self.calib is not None:
            parts.append(re.sub(r"[^A-Za-z0-9]+", "_", self.calib.stem)[:24] + _short(str(self.calib)))
        parts += [] if self.hw_arch is None else [self.hw_arch]
        return "-".join(parts) or "default"


@dataclass(frozen=True)
class Candidate:
    """Settings with a name, which is also the name of its folder."""

    name: str
    settings: Settings


@dataclass(frozen=True)
class Places:
    """Where a command finds its files and puts its results, as it writes them on its command line."""

    onnx: str
    calib: str
    script: str
    output: str
    run_dir: str
    data: str | None = None
    names: str | None = None
    har: str | None = None
    sdk_python: str | None = None


def arguments(options: Options, places: Places) -> list[str]:
    """The command line of compile_to_hef.py that compiles with these options."""
    words = [places.onnx, "--calib", places.calib, "--script", places.script]
    words += ["--output", places.output, "--run-dir", places.run_dir]
    for flag, value in (
        ("--num-samples", options.num_samples),
        ("--optimization-level", options.level),
        ("--precision-16", ",".join(options.precision_16) or None),
        ("--batch-size", options.batch_size),
        ("--imgsz", None if options.imgsz is None else "{},{}".format(*options.imgsz)),
        ("--end-nodes", None if options.end_nodes is None else ",".join(options.end_nodes)),
        ("--names", places.names),
        ("--har", places.har),
        ("--gate", options.gate),
        ("--data", places.data),
        ("--gate-kept", options.gate_kept),
        ("--hw-arch", options.hw_arch),
        ("--sdk-python", places.sdk_python),
    ):
        words += [] if value is None else [flag, str(value)]
    words += ["--logits"] if options.logits else []
    words += ["--emulate"] if options.emulate else []
    words += ["--parse-only"] if options.parse_only else []
    return words


def _short(value: object) -> str:
    return "-" + hashlib.sha256(repr(value).encode()).hexdigest()[:4]
