"""The values that a command takes: kinds of values with their limits, and the form of a command made of them.

Values are compared as text in the script's canonical spelling:

    Value(kind="whole", low=1).takes("8")            True
    Value(kind="whole", low=1).expected()            "a whole number of at least 1"
    Value(("enabled", "disabled")).takes("yes")      False
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from hefkit.workshop.script.commands import items, layers, number, numbers, whole

_LAYER = re.compile(r"\{[^{}]+\}|[A-Za-z_/][\w./-]*", re.ASCII)


@dataclass(frozen=True)
class Value:
    """The values allowed at one place: words, or one kind of value within limits."""

    words: tuple[str, ...] = ()
    kind: str = ""  # a key of _CHECKS; "" for words only
    low: float | None = None
    high: float | None = None
    closed: bool = False  # anything else is an error; else it is a warning

    def takes(self, text: str) -> bool:
        """Whether `text` (canonical spelling) is allowed here."""
        return text in self.words or _CHECKS[self.kind](text, self)

    def expected(self) -> str:
        """The allowed values in words, for a message."""
        limits = f" from {self.low:g} to {self.high:g}" if self.low is not None and self.high is not None else ""
        limits = limits or (f" of at least {self.low:g}" if self.low is not None else "")
        return ", ".join([*self.words, *([_DESCRIPTIONS[self.kind] + limits] if self.kind else [])])

    def within(self, value: float | None) -> bool:
        """Whether a number lies between the limits."""
        return value is not None and not (
            (self.low is not None and value < self.low) or (self.high is not None and value > self.high)
        )


_CHECKS = {
    "": lambda text, value: False,
    "any": lambda text, value: True,
    "whole": lambda text, value: value.within(whole(text)),
    "number": lambda text, value: value.within(number(text)),
    "numbers": lambda text, value: numbers(text) is not None,
    "pair": lambda text, value: len(numbers(text) or ()) == 2,
    "layers": lambda text, value: all(_LAYER.fullmatch(layer) for layer in layers(text)) and text != "[]",
    "list": lambda text, value: text.startswith("[") and set(items(text)) <= set(value.words),
    "duration": lambda text, value: re.fullmatch(r"\d+(\.\d+)?[smh]?", text) is not None,
}
_DESCRIPTIONS = {
    "any": "any value",
    "whole": "a whole number",
    "number": "a number",
    "numbers": "a list of numbers",
    "pair": "a list of two numbers",
    "layers": "a layer, a list of layers or a pattern in braces",
    "list": "or a list of these",
    "duration": "seconds, or 25m, or 5h",
}


@dataclass(frozen=True)
class Form:
    """The arguments and keywords of one command, or of one feature of a command."""

    args: tuple[Value, ...] = ()  # positional, after the feature
    required: int = 0  # how many of them are required
    keywords: Mapping[str, Value] = field(default_factory=dict)
    named: bool = False  # takes a name on the left
    only_5x: frozenset[str] = frozenset()  # keywords seen only in scripts for compiler 5.x
    newer: bool = False  # seen only in scripts for compiler 5.x
    open: bool = False  # its keywords are not known
