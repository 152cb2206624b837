"""What really ran, from the SDK's log: lowered levels, unused pictures, skipped passes.

Without a graphics card, or with few pictures, the SDK lowers the optimisation level and continues; one line among
hundreds says so. The lines below are from published logs of DFC 3.2x to 3.33; docs/sdk-assumptions.md lists them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hefkit.text import counted, one_line

MAX_KEPT = 40  # entries of each list

# the SDK's name of a pass, any version -> ours
PASSES = {
    "quantization-aware fine-tuning": "finetune",
    "fine tune": "finetune",
    "finetune": "finetune",
    "adaround": "adaround",
    "bias correction": "bias_correction",
    "statistics collector": "statistics",
    "stats collector": "statistics",
    "layer noise analysis": "noise_analysis",
}
_NAME = "|".join(map(re.escape, PASSES))
_LEVEL = re.compile(r"\[(info|warning|error|critical)\]\s*(.*)", re.IGNORECASE)
_REDUCED = re.compile(r"Reducing optimization level to (-?\d+)")
_DEFAULT = re.compile(r"Using default optimization level of (-?\d+)")
_ENTRIES = re.compile(r"Using dataset with (\d+) entries for (\w+)")
_SKIPPED = re.compile(rf"^({_NAME}) skipped", re.IGNORECASE)
_STARTED = re.compile(rf"^Starting ({_NAME})\b", re.IGNORECASE)
_DONE = re.compile(rf"({_NAME}) is done", re.IGNORECASE)
_FOUR_BIT = re.compile(r"Assigning 4bit weights to layer\s+(\S+)")
_SNR = re.compile(r"(\S+) SNR:\s*(-?[\d.]+) dB")
_NOT_NORMALIZED = re.compile(r"The calibration set seems to not be normalized, because the values range is\s*(.*)")
_NORMALIZED_TWICE = re.compile(
    r"The expected calibration set should be \[0, ?255\] when using an in-net normalization layer, but the range "
    r"received is\s*(.*)"
)
_FEWER_BITS = re.compile(r"Reducing output bits of (\S+) by .{0,40}More than half", re.IGNORECASE)
_TOO_FEW = re.compile(r"Dataset didn't have enough data")
# the SDK prints them as errors; they have no effect on the result
HARMLESS = re.compile(r"Error has occured during the layer latency calculation")
LOW_SNR_DB = 3.0  # dB; at 0 the rounding is as strong as the signal
_NO_GPU = re.compile(r"no suitable GPU found|there's no available GPU")


@dataclass
class RunLog:
    """Facts from the lines of one run; give every line to `feed`."""

    reduced_to: int | None = None
    default_level: int | None = None
    entries: dict[str, int] = field(default_factory=dict)  # pass -> pictures that it used
    started: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    four_bit: list[str] = field(default_factory=list)
    snr_db: dict[str, float] = field(default_factory=dict)
    no_gpu: bool = False
    not_normalized: str = ""  # the range that the SDK saw
    normalized_twice: str = ""
    fewer_bits: list[str] = field(default_factory=list)  # layers whose output lost more than half of its bits
    too_few: bool = False  # a pass had fewer pictures than it asks for, and continued
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    understood: int = 0  # lines with a fact

    def feed(self, line: str) -> None:
        """Read one line, without colour codes."""
        match = _LEVEL.search(line)
        text = match[2] if match else line.strip()
        if match and match[1].lower() == "warning":
            _keep(self.warnings, text)
        if match and match[1].lower() in ("error", "critical") and not HARMLESS.search(text):
            _keep(self.errors, text)
        self._levels(text)
        self._passes(text)
        self._pictures(text)
        self._others(text)

    def to_json(self) -> dict[str, Any]:
        """For report.json; names of passes are in the order of the log."""
        return {
            "level_reduced_to": self.reduced_to,
            "default_level": self.default_level,
            "pictures": dict(self.entries),
            "started": list(self.started),
            "ran": list(self.done),
            "skipped": list(self.skipped),
            "layers_4bit": list(self.four_bit),
            "snr_db": dict(self.snr_db),
            "no_gpu": self.no_gpu,
            "not_normalized": self.not_normalized,
            "normalized_twice": self.normalized_twice,
            "layers_fewer_bits": list(self.fewer_bits),
            "too_few_pictures": self.too_few,
            "lines_understood": self.understood,
            "sdk_warnings": list(self.warnings),
            "sdk_errors": list(self.errors),
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> RunLog:
        """From what `to_json` wrote, as far as `judge` needs it. Raises ValueError for anything else."""
        try:
            return RunLog(
                reduced_to=value["level_reduced_to"],
                entries={str(k): int(v) for k, v in value["pictures"].items()},
                started=[*value["ran"], *value["started"]],
                done=list(value["ran"]),
                skipped=list(value["skipped"]),
                four_bit=list(value["layers_4bit"]),
                snr_db={str(k): float(v) for k, v in value.get("snr_db", {}).items()},
                no_gpu=bool(value["no_gpu"]),
                not_normalized=str(value.get("not_normalized", "")),  # older records lack these
                normalized_twice=str(value.get("normalized_twice", "")),
                fewer_bits=list(value.get("layers_fewer_bits", [])),
                too_few=bool(value.get("too_few_pictures", False)),
                understood=int(value["lines_understood"]),
            )
        except (KeyError, TypeError, AttributeError) as exc:
            raise ValueError(f"not a record of a run: {exc}") from exc

    def _levels(self, text: str) -> None:
        if found := _REDUCED.search(text):
            self.reduced_to, self.understood = int(found[1]), self.understood + 1
        if found := _DEFAULT.search(text):
            self.default_level, self.understood = int(found[1]), self.understood + 1
        if _NO_GPU.search(text):
            self.no_gpu = True

    def _passes(self, text: str) -> None:
        if found := _ENTRIES.search(text):
            name = PASSES.get(found[2].lower(), found[2].lower())
            self.entries[name] = max(int(found[1]), self.entries.get(name, 0))
            self.understood += 1
        for pattern, names in ((_SKIPPED, self.skipped), (_STARTED, self.started), (_DONE, self.done)):
            if found := pattern.search(text):
                _keep(names, PASSES[found[1].lower()])
                self.understood += 1

    def _pictures(self, text: str) -> None:
        if found := _NOT_NORMALIZED.search(text):
            self.not_normalized, self.understood = found[1] or "?", self.understood + 1
        if found := _NORMALIZED_TWICE.search(text):
            self.normalized_twice, self.understood = found[1] or "?", self.understood + 1
        if _TOO_FEW.search(text):
            self.too_few = True

    def _others(self, text: str) -> None:
        if found := _FEWER_BITS.search(text):
            _keep(self.fewer_bits, found[1])
            self.understood += 1
        if found := _FOUR_BIT.search(text):
            _keep(self.four_bit, found[1].rstrip(".,"))
            self.understood += 1
        if found := _SNR.search(text):
            self.snr_db[found[1]] = float(found[2])
            self.understood += 1


def _keep(lines: list[str], line: str) -> None:
    if line not in lines and len(lines) < MAX_KEPT:
        lines.append(line)


@dataclass(frozen=True)
class Asked:
    """What the script asks the quantisation to do."""

    level: int | None
    pictures: int
    finetune: int | None = None  # pictures; None: not asked for
    adaround: int | None = None  # pictures; None: not asked for
    four_bit: bool = False  # the script wants weights in 4 bit


def judge(ran: RunLog, asked: Asked) -> tuple[list[str], list[str]]:
    """(errors that ruin the model, warnings): the log compared with the script."""
    ruined = ruined_pictures(ran)
    warnings: list[str] = []
    fell = ran.reduced_to
    if fell is not None and (asked.level is None or fell < asked.level):
        because = " because it found no graphics card" if ran.no_gpu else ""
        text = f"the SDK lowered the optimisation level from {_level_name(asked.level)} to {fell}{because}"
        if fell == 1:
            ruined.append(
                f"{text}; level 1 is known to give all boxes one size; expected level 0 or 2; use "
                "--optimization-level 0, or a graphics card and more pictures"
            )
        else:
            warnings.append(text)
    if ran.four_bit and not asked.four_bit:
        ruined.append(
            f"the SDK stored {counted(len(ran.four_bit), 'layer')} in 4 bit ({ran.four_bit[0]} ...), which the script "
            "does not ask for; expected compression_level=0 in model_optimization_flavor; add it"
        )
    calibrated = ran.entries.get("calibration")
    if calibrated is not None and calibrated < asked.pictures:
        warnings.append(f"the SDK calibrated with {calibrated} of {asked.pictures} pictures")
    warnings += _missing_passes(ran, asked) or _too_few(ran, warnings)
    warnings += _noisy(ran)
    if not ran.understood:
        warnings.append("hefkit understands no line of the SDK's log, so it cannot tell what really ran")
    return ruined, warnings


def ruined_pictures(ran: RunLog) -> list[str]:
    """Errors: the SDK saw calibration pictures in another range than the network's input."""
    ruined = []
    if ran.not_normalized:
        ruined.append(
            f"the SDK found no normalization in the script (pictures of {one_line(ran.not_normalized, 80)}), so every "
            "range is wrong; expected normalization1 = normalization([0.0, 0.0, 0.0], [255.0, 255.0, 255.0]); look in "
            "sdk.log whether the SDK read the script"
        )
    if ran.normalized_twice:
        ruined.append(
            "the pictures were normalised twice, before the script's normalization and by it (the SDK received "
            f"{one_line(ran.normalized_twice, 80)}); expected calibration pictures of 0..255; make the set again with "
            "prepare_calibration.py"
        )
    return ruined


def _too_few(ran: RunLog, warnings: list[str]) -> list[str]:
    """The general warning about few pictures, if there is no other warning yet."""
    if not ran.too_few or warnings:
        return []
    return [
        "a pass of the SDK had fewer pictures than it asks for, and continued; use more calibration pictures, or lower "
        "dataset_size in the script"
    ]


def _noisy(ran: RunLog) -> list[str]:
    """Warnings about layers that keep little of their signal, by the SDK's own measurement."""
    cure = "use --precision-16 outputs, or pictures that look more like those of the camera"
    warnings = [
        f"the SDK took more than half of the bits of the output of {one_line(layer, 80)}; {cure}"
        for layer in ran.fewer_bits
    ]
    return warnings + [
        f"the SDK measured an SNR of {decibel:.1f} dB at {one_line(layer, 80)}, where the rounding is as strong as the "
        f"signal; {cure}"
        for layer, decibel in ran.snr_db.items()
        if decibel < LOW_SNR_DB
    ]


def _missing_passes(ran: RunLog, asked: Asked) -> list[str]:
    """Passes that the script asks for and that did not run, or ran on fewer pictures."""
    if not ran.understood:
        return []
    if asked.finetune is not None:
        used = ran.entries.get("finetune")
        if "finetune" in ran.skipped or "finetune" not in [*ran.started, *ran.done]:
            return ["the script asks for fine-tuning, and the SDK skipped it"]
        if used is not None and used < asked.finetune:
            return [f"the SDK fine-tuned with {used} of {asked.finetune} pictures"]
    if asked.level in (3, 4) and "adaround" not in [*ran.started, *ran.done]:
        return [f"level {asked.level} asks for AdaRound, and the SDK skipped it"]
    rounded = ran.entries.get("adaround")
    if asked.adaround is not None and rounded is not None and rounded < asked.adaround:
        return [f"AdaRound used {rounded} of {asked.adaround} pictures"]
    return []


def _level_name(level: int | None) -> str:
    return "its default" if level is None else str(level)
