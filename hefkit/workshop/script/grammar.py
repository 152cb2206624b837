"""Text <-> commands of a Hailo model script.

The grammar is that of the public Model Zoo's scripts (every tag from v1.0 to v5.2.0; one script of theirs has a
bracket too many):

    statement   [name, name... =] command(argument, ...)      goes on over line ends while a bracket is open
                {} = command(argument, ...)                   of defuse_block: it names nothing
    argument    value | keyword=value                         keywords last
    value       word | "path" | [value, ...] | {glob}
    # comment   to the end of the line

Numbers, durations (25m), True, layers (conv41, net/conv41) are words.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass

from hefkit.workshop.script.commands import Command, Script

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<string> "[^"\n]*" | '[^'\n]*' )
      | \{ \s* (?P<glob> (?: [\w*?./!-] | \[ [\w!-]+ \] )+ ) \s* \}
      | (?P<none> \{ \s* \} )
      | (?P<word> [\w./$+-]+ )
      | (?P<mark> [][(),=] )
    )""",
    re.VERBOSE | re.ASCII,
)
_COMMAND = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)?", re.ASCII)  # context_0.place too
_BEGINS = re.compile(r"\s*(?:(?:[\w./, -]+|\{\s*\}\s*)=)?\s*[A-Za-z_][\w.]*\s*\(", re.ASCII)
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_OPEN, _CLOSE = "([{", ")]}"
MAX_UNCLOSED = 10  # how often reading goes on after a bracket that is never closed
MAX_NESTING = 8  # lists in lists; none in a real script are


@dataclass(frozen=True)
class Fault:
    """Something that is no statement."""

    line: int  # from 1
    what: str  # what is wrong and what was expected
    text: str  # the statement, as far as it goes


class _NoStatement(Exception):
    """What is wrong with the statement being read."""


def parse(text: str, source: str) -> tuple[Script, list[Fault]]:
    """The commands of a script, and everything in it that is none; both in the order of the lines."""
    commands, faults = [], []
    for found in _statements(text):
        if isinstance(found, Fault):
            faults.append(found)
            continue
        line, statement = found
        try:
            commands.append(_Reader(statement).command(line))
        except _NoStatement as exc:
            faults.append(Fault(line, str(exc), statement))
    return Script(text, tuple(commands), source), faults


def canonical(script: Script) -> str:
    """The script in one spelling: a line a command, no comments; parse(canonical(s)) == s."""
    return "".join(printed(command) + "\n" for command in script.commands)


def printed(command: Command) -> str:
    """One command as a line."""
    arguments = [*command.args, *(f"{key}={value}" for key, value in command.keywords)]
    left = f"{', '.join(command.targets)} = " if command.targets else ""
    return f"{left}{command.name}({', '.join(arguments)})"


# --- text -> statements ----------------------------------------------------------------------------------------------


def _statements(text: str) -> Iterator[tuple[int, str] | Fault]:
    """(first line, statement without comments); the line ends inside brackets stay."""
    lines = [_without_comment(raw) for raw in text.splitlines()]
    start = 0
    for _ in range(MAX_UNCLOSED):
        go_on = yield from _from_line(lines, start)
        if go_on is None:
            return
        start = go_on


def _from_line(lines: list[str], start: int) -> Generator[tuple[int, str] | Fault, None, int | None]:
    """Statements from a line on; returns where to go on after a bracket that is never closed."""
    pending: list[str] = []
    first = depth = 0
    for number in range(start, len(lines)):
        line = lines[number]
        if not pending and not line.strip():
            continue
        first = first if pending else number
        pending.append(line)
        depth += _opened(line)
        if depth < 0:
            yield Fault(number + 1, "a bracket closes that was never opened", line.strip())
        elif depth == 0:
            yield first + 1, "\n".join(pending).strip()
        if depth <= 0:
            pending, depth = [], 0
    if not pending:
        return None
    yield Fault(first + 1, "a bracket is never closed", lines[first].strip())
    return _next_beginning(lines, first + 1)


def _next_beginning(lines: list[str], start: int) -> int | None:
    """The next line that looks like a statement."""
    return next((i for i in range(start, len(lines)) if _BEGINS.match(lines[i])), None)


def _opened(line: str) -> int:
    without = _QUOTED.sub("", line)  # a bracket in quotes is a letter like any other
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


class _Reader:
    """Recursive descent over the tokens of one statement."""

    def __init__(self, statement: str) -> None:
        self.statement = statement
        self.tokens = [*_tokens(statement), ("end", "")]
        self.at = 0

    def command(self, line: int) -> Command:
        targets = self._targets()
        name = self._take("word", "a command")
        if not _COMMAND.fullmatch(name):
            raise _NoStatement(f"{name!r} is no command; {_EXPECTED}")
        if targets == ["{}"] and name != "defuse_block":
            raise _NoStatement(f"{{}} = {name} names nothing; {_EXPECTED}")
        self._mark("(")
        args, keywords = self._arguments()
        if not self._accept(")"):
            raise _NoStatement(f"{self._value()!r} behind an argument; expected a comma or )")
        if self._kind() != "end":
            raise _NoStatement(f"{self._value()!r} follows the command; expected one command a line")
        return Command(name, tuple(args), tuple(keywords), tuple(targets), line, self.statement)

    def _targets(self) -> list[str]:
        end = self.tokens.index(("mark", "(")) if ("mark", "(") in self.tokens else len(self.tokens)
        if ("mark", "=") not in self.tokens[:end]:
            return []
        if self._kind() == "none":
            targets = [self._take("none", "nothing")]
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
                raise _NoStatement(f"{self._value()!r} follows keyword=value; expected keywords last")
            else:
                args.append(self._one_value())
            if not self._accept(","):
                break
            if self._is(")"):
                raise _NoStatement("a comma before the closing bracket; expected nothing there")
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
            raise _NoStatement(f"{self._value() or 'the end'!r} where a value was expected")
        return self._take(kind, "a value")

    def _rest_of_list(self, depth: int) -> str:
        if depth > MAX_NESTING:
            raise _NoStatement("lists are nested too deep")
        members: list[str] = []
        while not self._accept("]"):
            members.append(self._one_value(depth))
            if not self._accept(",") and not self._is("]"):
                raise _NoStatement(f"{self._value()!r} in a list; expected a comma or ]")
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
            raise _NoStatement(f"{_shown(self.statement)!r} is no command; {_EXPECTED}")
        self.at += 1
        return self.tokens[self.at - 1][1]

    def _mark(self, mark: str) -> None:
        if not self._accept(mark):
            raise _NoStatement(f"{_shown(self.statement)!r} is no command; {_EXPECTED}")


_EXPECTED = "expected command(...) or name = command(...)"


def _tokens(statement: str) -> Iterator[tuple[str, str]]:
    at, end = 0, len(statement.rstrip())
    while at < end:
        match = _TOKEN.match(statement, at)
        if match is None:
            raise _NoStatement(f"{_shown(statement[at:])!r} cannot be read; {_hint(statement[at:].lstrip()[:1])}")
        kind = str(match.lastgroup)
        yield kind, _spelled(kind, match[kind])
        at = match.end()


def _spelled(kind: str, text: str) -> str:
    if kind == "none":
        return "{}"
    if kind == "glob":
        return "{" + text + "}"
    if kind == "string" and '"' not in text[1:-1]:
        return f'"{text[1:-1]}"'
    return text


def _hint(char: str) -> str:
    if char in ("*", "?"):
        return "patterns stand in braces, as in {conv*}"
    if char in ("'", '"'):
        return "the quote is never closed"
    return _EXPECTED


def _shown(text: str) -> str:
    return " ".join(text.split())[:60]
