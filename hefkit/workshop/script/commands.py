"""A Hailo model script as data: its commands, and the settings that they state."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from hefkit.errors import ModelError

# commands whose first positional argument is the name of a feature
FEATURE_COMMANDS = (
    "model_optimization_config",
    "pre_quantization_optimization",
    "post_quantization_optimization",
)
_OUTPUT_LAYER = re.compile(r"output_layer(\d+)")


@dataclass(frozen=True)
class Command:
    """One statement. Two are equal if they mean the same; their lines and spaces are not compared."""

    name: str
    args: tuple[str, ...]  # positional values in canonical spelling: conv1, [conv1, conv2], {conv*}, "a.json"
    keywords: tuple[tuple[str, str], ...]  # in the order of the script
    targets: tuple[str, ...] = ()  # names left of the `=`
    line: int = field(default=0, compare=False)  # first line, from 1
    text: str = field(default="", compare=False)  # as written, without comments

    def keyword(self, name: str) -> str | None:
        """The value of a keyword, in canonical spelling."""
        return dict(self.keywords).get(name)

    @property
    def feature(self) -> str | None:
        """`calibration` of model_optimization_config(calibration, ...); None where a command has no features."""
        return self.args[0] if self.name in FEATURE_COMMANDS and self.args else None

    @property
    def enabled(self) -> bool:
        """False for policy=disabled."""
        return self.keyword("policy") != "disabled"


@dataclass(frozen=True)
class Script:
    """A model script and its file. Two are equal when their commands are equal."""

    text: str = field(compare=False)
    commands: tuple[Command, ...]
    source: str = field(compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)  # lines that composing changed, for the warnings

    def named(self, name: str, feature: str | None = None) -> list[Command]:
        """All commands with this name and, if given, this feature."""
        return [c for c in self.commands if c.name == name and feature in (None, c.feature)]

    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """(mean, std) of the three channels, in 0..255.

        Raises:
            ModelError: there is none, there are several, or it is not two lists of three numbers. Without it a
                network that expects 0..1 would be calibrated with 0..255, and every range would be wrong.
        """
        fault = normalization_fault(self.commands)
        if fault is not None:
            line, what = fault
            raise ModelError(f"{self.source}{f' line {line}' if line else ''}: {what}")
        mean, std = (numbers(a) for a in self.named("normalization")[0].args[:2])
        assert mean is not None and std is not None
        return mean, std

    def wide_outputs(self, count: int) -> tuple[set[int], list[str]]:
        """Outputs (0-based, of `count`) that the script stores in 16 bit, and layer names that are not outputs."""
        wide: set[int] = set()
        others: list[str] = []
        for command in self.named("quantization_param"):
            if not (command.keyword("precision_mode") or "").startswith("a16"):
                continue
            for layer in layers(command.args[0] if command.args else ""):
                found = _outputs(layer, count)
                wide |= found
                others += [] if found else [layer]
        return wide, others

    def weight_groups(self) -> tuple[dict[str, int], list[str]]:
        """`quantization_groups` by pattern ({conv*}, {dw*}, {*}), and single layers, which only the compiler can name.

        Of several lines for one pattern the last one counts.
        """
        patterns: dict[str, int] = {}
        others: list[str] = []
        for command in self.named("quantization_param"):
            count = whole(command.keyword("quantization_groups"))
            for layer in layers(command.args[0] if count is not None and command.args else ""):
                if layer.startswith("{") and bare(layer) in ("*", "conv*", "dw*"):
                    patterns[bare(layer)] = count or 1
                else:
                    others.append(layer)
        return patterns, others


def level(script: Script) -> int | None:
    """The optimization level that the script states; None: the compiler chooses."""
    return _explicit(script, "optimization_level")


def compression(script: Script) -> int | None:
    """The compression level that the script states; above 0 some weights get 4 bit."""
    return _explicit(script, "compression_level")


def finetune(script: Script) -> Command | None:
    """The finetune command, enabled or not; several lines are merged."""
    return merged(script, "post_quantization_optimization", "finetune")


def merged(script: Script, name: str, feature: str | None = None) -> Command | None:
    """All lines of one command or feature as one: the compiler merges them. The last value of a keyword counts."""
    found = script.named(name, feature)
    keywords = {key: value for command in found for key, value in command.keywords}
    return replace(found[-1], keywords=tuple(keywords.items())) if found else None


def normalization_fault(commands: tuple[Command, ...]) -> tuple[int | None, str] | None:
    """(line, what is wrong) of a script whose normalization cannot be used, else None."""
    found = [c for c in commands if c.name == "normalization"]
    unnamed = next((c for c in found if not c.targets), None)
    if unnamed is not None:
        return unnamed.line, "normalization needs a name on the left; write normalization1 = normalization(...)"
    if len(found) != 1:
        return None, (
            f"{len(found)} normalization commands; expected one, because the network takes 0..1 and the chip gets "
            "0..255; write normalization1 = normalization([0.0, 0.0, 0.0], [255.0, 255.0, 255.0])"
        )
    command = found[0]
    lists = [numbers(a) for a in command.args[:2]]
    if len(lists) != 2 or any(n is None or len(n) != 3 for n in lists) or not all(lists[1] or ()):
        return command.line, "normalization needs two lists of three numbers: mean, and std without 0"
    return None


def layers(value: str) -> list[str]:
    """The layers that a value names: `conv1` -> [conv1], `[conv1, {dw*}]` -> [conv1, {dw*}]."""
    return items(value) if value.startswith("[") else [value] if value else []


def items(value: str) -> list[str]:
    """The members of a list in canonical spelling: `[a, [b, c]]` -> a and [b, c]."""
    return list(_members(value[1:-1]))


def _members(text: str) -> Iterator[str]:
    depth, quote, current = 0, "", ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        else:
            depth += (char in "[{") - (char in "]}")
        if char == "," and depth == 0 and not quote:
            yield current.strip()
            current = ""
        else:
            current += char
    if current.strip():
        yield current.strip()


def numbers(value: str) -> tuple[float, ...] | None:
    """`[0.0, 1e-5]` -> floats; None if it is not a list of finite numbers."""
    if not value.startswith("["):
        return None
    found = [number(part) for part in items(value)]
    return tuple(n for n in found if n is not None) if None not in found else None


def number(value: str | None) -> float | None:
    """A finite number, or None."""
    try:
        found = float(value or "")
    except ValueError:
        return None
    return found if math.isfinite(found) and value and "_" not in value else None


def whole(value: str | None) -> int | None:
    """A whole number, or None."""
    return int(value) if value and re.fullmatch(r"-?\d+", value) else None


def bare(layer: str) -> str:
    """`net/conv41` -> `conv41`, `{net/conv*}` -> `conv*`: a layer or pattern without the network's name."""
    return layer.strip("{}").strip().rpartition("/")[2]


def output_number(layer: str) -> int | None:
    """3 for `output_layer3` and `net/output_layer3`; None for any other layer."""
    found = _OUTPUT_LAYER.fullmatch(bare(layer))
    return int(found[1]) if found else None


def names_layer(written: str, layer: str) -> bool:
    """Whether `written` (a layer, or a pattern in braces) means `layer`; the network's name is ignored."""
    if written.startswith("{"):
        return fnmatchcase(bare(layer), bare(written))
    return bare(written) == bare(layer)


def _outputs(layer: str, count: int) -> set[int]:
    return {i for i in range(count) if names_layer(layer, f"output_layer{i + 1}")}


def _explicit(script: Script, keyword: str) -> int | None:
    found = [whole(c.keyword(keyword)) for c in script.named("model_optimization_flavor")]
    return next((n for n in reversed(found) if n is not None), None)
