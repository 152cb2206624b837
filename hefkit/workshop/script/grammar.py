"""Text <-> commands of a Hailo model script.

    statement   [name, name... =] command(argument, ...)      may span lines while a bracket is open
                {name: [name, ...], ...} = command(...)       defuse_block only; {} names nothing
    argument    value | keyword=value                         keywords last
    value       word | "path" | [value, ...] | {glob}
    # comment   to the end of the line

Numbers, durations (25m), True and layers (conv41, net/conv41) are words. All scripts of the public Model Zoo (every
tag from v1.0 to v5.2.0) follow this grammar, except one that has a bracket too many.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from hefkit.workshop.script.commands import Command, Script

_NAME = r"[\w./$+-]+"
_NAMES = rf"(?: {_NAME} | \[ \s* {_NAME} (?: \s*,\s* {_NAME} )* \s* \] )"
_TOKEN = re.compile(
    rf"""\s*(?:
        (?P<string> "[^"\n]*" | '[^'\n]*' )
      | \{{ \s* (?P<glob> (?: [\w*?./!-] | \[ [\w!-]+ \] )+ ) \s* \}}
      | (?P<mapping> \{{ \s* (?: {_NAME} \s*:\s* {_NAMES} (?: \s*,\s* {_NAME} \s*:\s* {_NAMES} )* )? \s* \}} )
      | (?P<word> {_NAME} )
      | (?P<mark> [][(),=] )
    )""",
    re.VERBOSE | re.ASCII,
)
_COMMAND = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)?", re.ASCII)  # context_0.place too
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_OPEN, _CLOSE = "([{", ")]}"
MAX_NESTING = 8  # lists in lists; real scripts have none


@dataclass(frozen=True)
class Fault:
    """Text that is not a statement."""

    line: int  # from 1
    what: str  # what is wrong and what was expected
    text: str  # the statement, as far as it was read


class _BadStatement(Exception):
    """What is wrong with the statement being read."""


def parse(text: str, source: str) -> tuple[Script, list[Fault]]:
    """The commands of a script and the text that is not a command, both in line order, up to an unclosed bracket."""
    commands, faults = [], []
    for found in _statements(text):
        if isinstance(found, Fault):
            faults.append(found)
            continue
        line, statement = found
        try:
            commands.append(_Parser(statement).command(line))
        except _BadStatement as exc:
            faults.append(Fault(line, str(exc), statement))
    return Script(text, tuple(commands), source), faults


def canonical(script: Script) -> str:
    """The script in one spelling: one command a line, no comments; parse(canonical(s)) gives the commands of s."""
    return "".join(printed(command) + "\n" for command in script.commands)


def printed(command: Command) -> str:
    """One command as a line."""
    arguments = [*command.args, *(f"{key}={value}" for key, value in command.keywords)]
    left = f"{', '.join(command.targets)} = " if command.targets else ""
    return f"{left}{command.name}({', '.join(arguments)})"


# --- text -> statements ----------------------------------------------------------------------------------------------


def _statements(text: str) -> Iterator[tuple[int, str] | Fault]:
    """(first line, statement without comments); line ends inside brackets stay. Ends at a bracket without its pair."""
    pending: list[str] = []
    first = depth = 0
    for number, line in enumerate(map(_without_comment, text.splitlines()), start=1):
        if not pending and not line.strip():
            continue
        first = first if pending else number
        pending.append(line)
        depth += _opened(line)
        if depth < 0:
            yield Fault(number, "a closing bracket without an opening one; remove it", line.strip())
        elif depth == 0:
            yield first, "\n".join(pending).strip()
        if depth <= 0:
            pending, depth = [], 0
    if pending:
        yield Fault(first, "an opening bracket without a closing one; add it", "\n".join(pending).strip())


def _opened(line: str) -> int:
    without = _QUOTED.sub("", line)  # a bracket in quotes is text
    return sum(without.count(c) for c in _OPEN) - sum(without.count(c) for c in _CLOSE)


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


# --- statement -> command --------------------------------------------------------------------------------------------


class _Parser:
    """Recursive descent over the tokens of one statement."""

    def __init__(self, statement: str) -> None:
        self.statement = statement
        self.tokens = [*_tokens(statement), ("end", "")]
        self.at = 0

    def command(self, line: int) -> Command:
        targets = self._targets()
        name = self._take("word", "a command")
        if not _COMMAND.fullmatch(name):
            raise _BadStatement(f"{name!r} is not a command; {_EXPECTED}")
        if targets and targets[0].startswith("{") and name != "defuse_block":
            raise _BadStatement(f"{_shown(targets[0])} on the left of {name}; {_EXPECTED}")
        self._mark("(")
        args, keywords = self._arguments()
        if not self._accept(")"):
            raise _BadStatement(f"{self._value()!r} after an argument; expected a comma or )")
        if self._kind() != "end":
            raise _BadStatement(f"{self._value()!r} after the command; expected one command a line")
        return Command(name, tuple(args), tuple(keywords), tuple(targets), line, self.statement)

    def _targets(self) -> list[str]:
        end = self.tokens.index(("mark", "(")) if ("mark", "(") in self.tokens else len(self.tokens)
        if ("mark", "=") not in self.tokens[:end]:
            return []
        if self._kind() == "mapping":
            targets = [self._take("mapping", "names")]
            self._mark("=")
            return targets
        targets = [self._take("word", "a name")]
        while self._accept(","):
            targets.append(self._take("word", "a name"))
        self._mark("=")
        return targets

    def _arguments(self) -> tuple[list[str], list[tuple[str, str]]]:
        args: list[str] = []
        keywords: list[tuple[str, str]] = []
        while not self._is(")"):
            if self._kind() == "word" and self.tokens[self.at + 1] == ("mark", "="):
                keywords.append(self._keyword())
            elif keywords:
                raise _BadStatement(f"{self._value()!r} after keyword=value; expected keywords last")
            else:
                args.append(self._one_value())
            if not self._accept(","):
                break
            if self._is(")"):
                raise _BadStatement("a comma before the closing bracket; remove it")
        return args, keywords

    def _keyword(self) -> tuple[str, str]:
        key = self._take("word", "a keyword")
        self._mark("=")
        return key, self._one_value()

    def _one_value(self, depth: int = 0) -> str:
        if self._accept("["):
            return self._rest_of_list(depth + 1)
        kind = self._kind()
        if kind not in ("word", "string", "glob"):
            raise _BadStatement(f"{self._value() or 'the end'!r} found; expected a value")
        return self._take(kind, "a value")

    def _rest_of_list(self, depth: int) -> str:
        if depth > MAX_NESTING:
            raise _BadStatement(f"lists are nested too deep; expected at most {MAX_NESTING} levels")
        members: list[str] = []
        while not self._accept("]"):
            members.append(self._one_value(depth))
            if not self._accept(",") and not self._is("]"):
                raise _BadStatement(f"{self._value()!r} in a list; expected a comma or ]")
        return f"[{', '.join(members)}]"

    def _kind(self) -> str:
        return self.tokens[self.at][0]

    def _value(self) -> str:
        return self.tokens[self.at][1]

    def _is(self, mark: str) -> bool:
        return self.tokens[self.at] == ("mark", mark)

    def _accept(self, mark: str) -> bool:
        self.at += (found := self._is(mark))
        return found

    def _take(self, kind: str, what: str) -> str:
        if self._kind() != kind:
            raise _BadStatement(f"{_shown(self.statement)!r} is not a command; {_EXPECTED}")
        self.at += 1
        return self.tokens[self.at - 1][1]

    def _mark(self, mark: str) -> None:
        if not self._accept(mark):
            raise _BadStatement(f"{_shown(self.statement)!r} is not a command; {_EXPECTED}")


_EXPECTED = "expected command(...) or name = command(...)"


def _tokens(statement: str) -> Iterator[tuple[str, str]]:
    at, end = 0, len(statement.rstrip())
    while at < end:
        match = _TOKEN.match(statement, at)
        if match is None:
            raise _BadStatement(f"{_shown(statement[at:])!r} cannot be read; {_hint(statement[at:].lstrip()[:1])}")
        kind = str(match.lastgroup)
        yield kind, _spelled(kind, match[kind])
        at = match.end()


def _spelled(kind: str, text: str) -> str:
    if kind == "mapping":
        return re.sub(r"\s", "", text).replace(":", ": ").replace(",", ", ")
    if kind == "glob":
        return "{" + text + "}"
    if kind == "string" and '"' not in text[1:-1]:
        return f'"{text[1:-1]}"'
    return text


def _hint(char: str) -> str:
    if char in ("*", "?"):
        return "write patterns in braces, as in {conv*}"
    if char in ("'", '"'):
        return "the closing quote is missing"
    return _EXPECTED


def _shown(text: str) -> str:
    return " ".join(text.split())[:60]
