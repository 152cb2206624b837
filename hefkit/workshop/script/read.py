"""Hailo model scripts: read one, say what is wrong with it, complete it, print it.

scriptcommands   what a script is, and what it makes explicit
scriptgrammar    text <-> commands
scripttables     the commands there are, and what they take
scriptcures      lines that do not exist or must not be, each with its cure
scriptlint       errors and warnings
scriptcompose    base file + what hefkit knows -> the script that the compiler gets
"""

from __future__ import annotations

from pathlib import Path

from hefkit.errors import ModelError
from hefkit.workshop.script.commands import Command, Script, compression, finetune, level, normalization_fault
from hefkit.workshop.script.compose import Additions, compose
from hefkit.workshop.script.grammar import Fault, canonical, parse
from hefkit.workshop.script.lint import lint, not_emulated, of_fault, refuse_implicit_level, report
from hefkit.workshop.script.rules import Finding, of_command

__all__ = [
    "Additions",
    "Command",
    "Script",
    "canonical",
    "compose",
    "compression",
    "finetune",
    "level",
    "lint",
    "not_emulated",
    "parse_script",
    "read_script",
    "refuse_implicit_level",
]

MAX_SCRIPT_BYTES = 1 << 20


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
    """Parse a script.

    Raises:
        ModelError: something in it is no statement. The message names every such line, and what else is wrong
            whatever the chip, so that all of it can be mended at once.
    """
    script, faults = parse(text, source)
    if faults:
        raise ModelError(report(source, [*map(of_fault, faults), *_besides(script, faults)]))
    return script


def _besides(script: Script, faults: list[Fault]) -> list[Finding]:
    """What is wrong with the lines that are statements."""
    wrong = [f for command in script.commands for f in of_command(command) if f.error]
    missing = normalization_fault(script.commands)
    told = any("normalization" in fault.text for fault in faults)
    return [*wrong, Finding(*missing)] if missing and not script.named("normalization") and not told else wrong
