"""Hailo model scripts: text -> commands, what the emulator reads in them, and the lines we add.

Grammar (read off the model scripts of the public Model Zoo): `command(args)` or `name[, name...] =
command(args)`; a statement goes on over line ends while a bracket is open; `#` begins a comment.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hefkit.errors import ModelError

MAX_SCRIPT_BYTES = 1 << 20
_STATEMENT = re.compile(
    r"(?:(?P<names>[\w/.\s,-]+?)\s*=\s*)?(?P<command>[A-Za-z_]\w*)\s*\((?P<args>.*)\)\s*\Z", re.DOTALL
)
_OPEN, _CLOSE = "([{", ")]}"
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


@dataclass(frozen=True)
class Command:
    """One statement."""

    name: str
    args: tuple[str, ...]  # positional, as written
    keywords: tuple[tuple[str, str], ...]
    targets: tuple[str, ...]  # names left of the `=`
    line: int  # where it begins, from 1
    text: str  # as written, comments removed

    def keyword(self, name: str) -> str | None:
        """The value of a keyword, as written."""
        return dict(self.keywords).get(name)


@dataclass(frozen=True)
class Script:
    """A model script and where it came from."""

    text: str
    commands: tuple[Command, ...]
    source: str

    def named(self, name: str) -> list[Command]:
        """All commands of one name."""
        return [c for c in self.commands if c.name == name]

    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """(mean, std) of the three channels, in 0..255.

        Raises:
            ModelError: none, several, or one that is not two lists of three numbers. Without it a network
                that expects 0..1 would be calibrated with 0..255, which ruins every range.
        """
        found = self.named("normalization")
        if len(found) != 1:
            raise ModelError(
                f"{self.source} has {len(found)} normalization commands; expected one, as in "
                "normalization1 = normalization([0.0, 0.0, 0.0], [255.0, 255.0, 255.0]); add it"
            )
        command = found[0]
        if not command.targets:
            raise _at(self.source, command.line, "normalization needs a name on its left, as in normalization1 = ...")
        lists = [_numbers(a) for a in command.args[:2]]
        if len(lists) != 2 or any(n is None or len(n) != 3 for n in lists) or not all(lists[1] or ()):
            raise _at(self.source, command.line, "normalization needs two lists of three numbers, mean and std")
        mean, std = lists
        assert mean is not None and std is not None
        return mean, std

    def wide_outputs(self, count: int) -> tuple[set[int], list[str]]:
        """Outputs (0-based, of `count`) that the script stores in 16 bit, and layer names that are not outputs."""
        wide: set[int] = set()
        others: list[str] = []
        for command in self.named("quantization_param"):
            mode = command.keyword("precision_mode")
            if mode is None or not mode.startswith("a16"):
                continue
            for layer in _layers(command.args[0] if command.args else ""):
                match = re.fullmatch(r"(?:[\w.-]+/)?output_layer(\d+)", layer)
                if match and 1 <= int(match[1]) <= count:
                    wide.add(int(match[1]) - 1)
                elif layer in ("output_layer*", "{output_layer*}"):
                    wide.update(range(count))
                else:
                    others.append(layer)
        return wide, others


def read_script(path: Path) -> Script:
    """Read and parse a model script file. Raises ModelError."""
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_SCRIPT_BYTES + 1)
    except OSError as exc:
        raise ModelError(f"cannot read the model script {path}: {exc.strerror}; name one with --script") from exc
    if len(raw) > MAX_SCRIPT_BYTES:
        raise ModelError(f"the model script {path} is larger than 1 MiB; expected a text of some lines")
    try:
        return parse_script(raw.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as exc:
        raise ModelError(f"the model script {path} is no text; expected Hailo model script commands") from exc


def parse_script(text: str, source: str = "the model script") -> Script:
    """Parse a script. Raises ModelError with the line of the first statement that is none."""
    return Script(text, tuple(_command(s, line, source) for line, s in _statements(text, source)), source)


def with_level(script: Script, level: int | None) -> Script:
    """The script with its model_optimization_flavor command replaced by an explicit level."""
    if level is None:
        return script
    line = f"model_optimization_flavor(optimization_level={level}, compression_level=0)"
    old = script.named("model_optimization_flavor")
    if not old:
        return parse_script(f"{script.text.rstrip()}\n{line}\n", script.source)
    lines = script.text.splitlines()
    for command in reversed(old):
        first, last = command.line - 1, command.line - 1 + command.text.count("\n")
        lines[first : last + 1] = [line] if command is old[0] else []
    return parse_script("\n".join(lines) + "\n", script.source)


def with_lines(script: Script, lines: Sequence[str]) -> Script:
    """The script with generated lines at its end, marked as ours."""
    return parse_script("\n".join([script.text.rstrip(), "", "# added by hefkit", *lines, ""]), script.source)


def _statements(text: str, source: str) -> Iterator[tuple[int, str]]:
    """(first line, statement) with comments removed; the line ends inside brackets stay."""
    pending, first, depth = "", 0, 0
    for number, raw in enumerate(text.splitlines(), start=1):
        line = _without_comment(raw)
        if not pending and not line.strip():
            continue
        if not pending:
            first = number
        pending += ("\n" if pending else "") + line
        bare = _QUOTED.sub("", line)  # a bracket in quotes is a letter like any other
        depth += sum(bare.count(c) for c in _OPEN) - sum(bare.count(c) for c in _CLOSE)
        if depth < 0:
            raise _at(source, number, "a bracket closes that was never opened")
        if depth == 0:
            yield first, pending.strip()
            pending = ""
    if pending:
        raise _at(source, first, "a bracket is never closed")


def _without_comment(line: str) -> str:
    quote = ""
    for i, char in enumerate(line):
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char == "#":
            return line[:i].rstrip()
    return line.rstrip()


def _command(statement: str, line: int, source: str) -> Command:
    match = _STATEMENT.match(statement)
    if match is None:
        shown = " ".join(statement.split())[:60]
        raise _at(source, line, f"{shown!r} is no command; expected command(...) or name = command(...)")
    args, keywords = [], []
    for part in _split(match["args"]):
        key, equals, value = part.partition("=")
        if equals and re.fullmatch(r"\w+", key.strip()):
            keywords.append((key.strip(), value.strip()))
        else:
            args.append(part)
    names = tuple(n.strip() for n in (match["names"] or "").split(",") if n.strip())
    return Command(match["command"], tuple(args), tuple(keywords), names, line, statement)


def _split(text: str) -> list[str]:
    """Split at commas that are in no bracket and no quotes."""
    parts, depth, quote, current = [], 0, "", ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        else:
            depth += (char in _OPEN) - (char in _CLOSE)
        if char == "," and depth == 0 and not quote:
            parts.append(current)
            current = ""
        else:
            current += char
    return [p.strip() for p in [*parts, current] if p.strip()]


def _layers(argument: str) -> list[str]:
    inner = argument.strip()
    return _split(inner[1:-1]) if inner.startswith("[") and inner.endswith("]") else [inner] if inner else []


def _numbers(argument: str) -> tuple[float, ...] | None:
    try:
        values = tuple(float(part) for part in _layers(argument))
    except ValueError:
        return None
    return values if all(map(math.isfinite, values)) else None


def _at(source: str, line: int, what: str) -> ModelError:
    return ModelError(f"{source} line {line}: {what}")
