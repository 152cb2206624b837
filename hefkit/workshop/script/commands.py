"""A Hailo model script as data: its commands, and what they make explicit."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from hefkit.errors import ModelError

# commands whose first positional argument says which feature they are about
FEATURE_COMMANDS = (
    "model_optimization_config",
    "pre_quantization_optimization",
    "post_quantization_optimization",
)
_OUTPUT_LAYER = re.compile(r"output_layer(\d+)")


@dataclass(frozen=True)
class Command:
    """One statement. Two are equal when they say the same, wherever they stand and however they are spaced."""

    name: str
    args: tuple[str, ...]  # positional values in canonical spelling: conv1, [conv1, conv2], {conv*}, "a.json"
    keywords: tuple[tuple[str, str], ...]  # in the order of the script
    targets: tuple[str, ...] = ()  # names left of the `=`
    line: int = field(default=0, compare=False)  # where it begins, from 1
    text: str = field(default="", compare=False)  # as written, comments removed

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
    """A model script and where it came from. Two are equal when their commands are."""

    text: str = field(compare=False)
    commands: tuple[Command, ...]
    source: str = field(compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)  # what composing changed of the base, for the warnings

    def named(self, name: str, feature: str | None = None) -> list[Command]:
        """All commands of one name and, if given, of one feature."""
        return [c for c in self.commands if c.name == name and feature in (None, c.feature)]

    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """(mean, std) of the three channels, in 0..255.

        Raises:
            ModelError: none, several, or one that is not two lists of three numbers. Without it a network
                that expects 0..1 would be calibrated with 0..255, which ruins every range.
        """
        wrong = normalization_fault(self.commands)
        if wrong is not None:
            line, what = wrong
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


def level(script: Script) -> int | None:
    """The optimization level that the script makes explicit; None leaves it to the compiler."""
    return _explicit(script, "optimization_level")


def compression(script: Script) -> int | None:
    """The compression level that the script makes explicit; above 0 weights get 4 bit."""
    return _explicit(script, "compression_level")


def finetune(script: Script) -> Command | None:
    """The script's finetune command, enabled or not."""
    found = script.named("post_quantization_optimization", "finetune")
    return found[-1] if found else None


def normalization_fault(commands: tuple[Command, ...]) -> tuple[int | None, str] | None:
    """(line, what is wrong) of a script whose normalization cannot be used, else None."""
    found = [c for c in commands if c.name == "normalization"]
    bare_one = next((c for c in found if not c.targets), None)
    if bare_one is not None:
        return bare_one.line, "normalization needs a name on its left; write normalization1 = normalization(...)"
    if len(found) != 1:
        return None, (
            f"{len(found)} normalization commands; expected one, because the network takes 0..1 and the chip is fed "
            "0..255; have normalization1 = normalization([0.0, 0.0, 0.0], [255.0, 255.0, 255.0])"
        )
    command = found[0]
    lists = [numbers(a) for a in command.args[:2]]
    if len(lists) != 2 or any(n is None or len(n) != 3 for n in lists) or not all(lists[1] or ()):
        return command.line, "normalization needs two lists of three numbers, mean and std, std not 0"
    return None


def layers(value: str) -> list[str]:
    """The layers that one value names: `conv1` and `[conv1, {dw*}]` alike."""
    return items(value) if value.startswith("[") else [value] if value else []


def items(value: str) -> list[str]:
    """The members of a list in canonical spelling, `[a, [b, c]]` -> a, [b, c]; brackets inside stay whole."""
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
    """`[0.0, 1e-5]` -> floats; None if it is no list of finite numbers."""
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
    """A whole number as the script spells it, or None."""
    return int(value) if value and re.fullmatch(r"-?\d+", value) else None


def bare(layer: str) -> str:
    """`net/conv41` -> `conv41`, `{net/conv*}` -> `conv*`: a layer or pattern without the network's name."""
    return layer.strip("{}").strip().rpartition("/")[2]


def names_layer(written: str, layer: str) -> bool:
    """Whether `written` (a layer, or a glob in braces) means the layer named `layer`, whatever their scopes."""
    if written.startswith("{"):
        return fnmatchcase(bare(layer), bare(written))
    return bare(written) == bare(layer)


def _outputs(layer: str, count: int) -> set[int]:
    return {i for i in range(count) if names_layer(layer, f"output_layer{i + 1}")}


def _explicit(script: Script, keyword: str) -> int | None:
    found = [whole(c.keyword(keyword)) for c in script.named("model_optimization_flavor")]
    return next((n for n in reversed(found) if n is not None), None)
