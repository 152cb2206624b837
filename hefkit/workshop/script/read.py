"""Read a model script from a file or a text; text that is not a statement is refused."""

from __future__ import annotations

from pathlib import Path

from hefkit.errors import ModelError
from hefkit.files import read_start
from hefkit.workshop.script.commands import Script, normalization_fault
from hefkit.workshop.script.grammar import Fault, parse
from hefkit.workshop.script.lint import fault_finding, message
from hefkit.workshop.script.rules import Finding, check_command

MAX_SCRIPT_BYTES = 1 << 20


def read_script(path: Path) -> Script:
    """Read and parse a model script file (UTF-8). Raises ModelError."""
    try:
        raw = read_start(path, MAX_SCRIPT_BYTES + 1)
    except OSError as exc:
        raise ModelError(f"cannot read the model script {path}: {exc.strerror}; name one with --script") from exc
    if len(raw) > MAX_SCRIPT_BYTES:
        raise ModelError(f"the model script {path} is larger than 1 MiB; expected a text file with some lines")
    try:
        return parse_script(raw.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as exc:
        raise ModelError(f"the model script {path} is not a text file; expected Hailo model script commands") from exc


def parse_script(text: str, source: str = "the model script") -> Script:
    """Parse a script.

    Raises:
        ModelError: something in it is not a statement. The message names every such line, and every other error
            that does not depend on the chip, so that the user can correct all of them at once.
    """
    script, faults = parse(text, source)
    if faults:
        raise ModelError(message(source, [*map(fault_finding, faults), *_other_errors(script, faults)]))
    return script


def _other_errors(script: Script, faults: list[Fault]) -> list[Finding]:
    """The errors of the lines that are statements."""
    wrong = [f for command in script.commands for f in check_command(command) if f.error]
    missing = normalization_fault(script.commands)
    in_fault = any("normalization" in fault.text for fault in faults)
    return [*wrong, Finding(*missing)] if missing and not script.named("normalization") and not in_fault else wrong
