"""Check a model script before the compiler reads it: the compiler would report a wrong line only minutes later."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from hefkit.errors import ModelError
from hefkit.text import one_line
from hefkit.workshop.script import cures, tables
from hefkit.workshop.script.commands import (
    Command,
    Script,
    bare,
    compression,
    layers,
    level,
    names_layer,
    normalization_fault,
    output_number,
)
from hefkit.workshop.script.grammar import Fault
from hefkit.workshop.script.rules import Finding, check_command, title

MAX_MESSAGE = 1800  # characters; the console prints at most 2000
ENOUGH_PICTURES = 1024  # with fewer the compiler lowers an implicit level


def lint(script: Script, arch: str | None = None, override: int | None = None) -> list[str]:
    """The warnings of a script for one chip (`hailo8l`); `override` is the level of --optimization-level.

    Raises:
        ModelError: one message with every wrong line and its cure.
    """
    found = list(findings(script, arch, override))
    errors = [f for f in found if f.error]
    if errors:
        raise ModelError(message(script.source, errors))
    return [message(script.source, [f]) for f in found]


def findings(script: Script, arch: str | None, override: int | None = None) -> Iterator[Finding]:
    """All findings: first each command in order, then the script as a whole."""
    for command in script.commands:
        yield from check_command(command, arch)
    yield from _layout(script)
    fault = normalization_fault(script.commands)
    if fault is not None:
        yield Finding(*fault)
    yield from _twice(script)
    yield from _levels(script, override)
    yield from forced_and_activated(script)


def fault_finding(fault: Fault) -> Finding:
    """The finding for text that is not a statement, with the cure of a known word."""
    word = fault.text.split("(")[0].strip()
    if word in cures.INVENTED:
        return Finding(fault.line, cures.INVENTED[word](Command(word, (), ())))
    if word == fault.text and word in tables.known_commands():
        return Finding(fault.line, f"{word} without brackets; expected {word}(...)")
    return Finding(fault.line, fault.what)


def message(source: str, found: Iterable[Finding]) -> str:
    """One line of bounded length: the source, then every finding with its line number."""
    found = sorted(found, key=lambda f: f.line or 0)
    text = one_line(source, 200)
    for i, finding in enumerate(found):
        said = f"line {finding.line}: {one_line(finding.text, 400)}" if finding.line else one_line(finding.text, 400)
        joint = "; " if i else " " if finding.line else ": "
        if i and len(text) + len(said) > MAX_MESSAGE:
            return f"{text}; and {len(found) - i} more"
        text += joint + said
    return text


def refuse_implicit_level(script: Script, images: int) -> None:
    """Raise ModelError if the compiler would lower an implicit level, which ruins the boxes.

    `images` is the number of calibration pictures. Ultralytics measured (#25231): with 128 pictures an implicit level
    became 1, and mAP50 of a yolo11n fell from 0.548 to 0.069; all boxes had one size.
    """
    if level(script) is None and images < ENOUGH_PICTURES:
        raise ModelError(
            f"{one_line(script.source, 200)} has no optimization_level; with {images} pictures (fewer than "
            f"{ENOUGH_PICTURES}) the compiler would choose level 1, which is known to ruin the boxes; use "
            "--optimization-level 0 or 2, or write model_optimization_flavor(optimization_level=2, "
            "compression_level=0)"
        )


def forced_and_activated(script: Script) -> Iterator[Finding]:
    """Layers with both a new activation and a forced output range; the two contradict each other."""
    forced = [
        (layer, c.line)
        for c in script.named("quantization_param")
        if c.keyword("force_range_out")
        for layer in layers((*c.args, "")[0])
    ]
    for command in script.named("change_output_activation"):
        for layer in layers(command.args[0]) if len(command.args) == 2 else []:
            for written, line in forced:
                if names_layer(written, layer) or names_layer(layer, written):
                    yield Finding(
                        line, f"force_range_out on {layer}, whose activation is changed too; keep one of the two"
                    )


def against_additions(script: Script, outputs: int, logits: bool) -> list[str]:
    """Warnings of lines that may contradict the sigmoid that hefkit adds to each class convolution.

    Args:
        outputs: how many the network has: box, cls, box, cls ...; the compiler calls them output_layer1, 2 ...
        logits: --logits, no sigmoid is added.

    Raises:
        ModelError: lines that certainly contradict it; the message names each line, and what to do.
    """
    found = [] if logits else [*_activated_outputs(script, outputs), *_forced_classes(script, outputs)]
    errors = [f for f in found if f.error]
    if errors:
        raise ModelError(message(script.source, errors))
    return [message(script.source, [f]) for f in found]


def _activated_outputs(script: Script, outputs: int) -> Iterator[Finding]:
    for command in script.named("change_output_activation"):
        written, activation = (*command.args, "", "")[:2]
        for layer in layers(written) if activation else []:
            number = output_number(layer)
            if number is None:
                continue
            if number > outputs:
                text = f"{layer}, but the network has {outputs} outputs; remove the line"
            elif number % 2 == 1:
                text = f"{layer} is a box output, which must stay linear; remove the line"
            elif activation == "sigmoid":
                text = f"{layer} is a class output, and hefkit adds its sigmoid itself; remove the line"
            else:
                text = f"{layer} is a class output, which needs a sigmoid; remove the line, or use --logits"
            if number % 2 == 0 or activation != "linear" or number > outputs:
                yield Finding(command.line, text)


def _forced_classes(script: Script, outputs: int) -> Iterator[Finding]:
    for command in script.named("quantization_param"):
        named = layers((*command.args, "")[0]) if command.keyword("force_range_out") else []
        certain = [n for n in named if (output_number(n) or 1) % 2 == 0]
        possible = [n for n in named if re.match(r"conv|\*|output_layer\D", bare(n))]
        cure = "the sigmoid sets 0..1 by itself; remove them from the line, or use --logits"
        if certain:
            text = f"force_range_out on {', '.join(certain)}, class outputs to which hefkit adds a sigmoid; {cure}"
            yield Finding(command.line, text)
        elif possible:
            text = (
                f"force_range_out on {', '.join(possible)}: if these are class convolutions, it contradicts the "
                f"sigmoid that hefkit adds to them; {cure}"
            )
            yield Finding(command.line, text, error=False)


def not_emulated(script: Script) -> list[str]:
    """One warning with all lines that change the chip's numbers and that --emulate ignores; empty without any."""
    unread = [c for c in script.commands if _changes_numbers(c)]
    if not unread:
        return []
    shown = "; ".join(f"line {c.line}: {title(c)}" for c in unread[:5])
    more = f"; and {len(unread) - 5} more" if len(unread) > 5 else ""
    return [one_line(f"{script.source} has lines for the compiler that --emulate ignores ({shown}{more})", 800)]


def _changes_numbers(command: Command) -> bool:
    if command.name == "quantization_param":
        emulated = command.keyword("precision_mode") in (None, "a8_w8", "a16_w16")
        return not emulated or any(k not in ("precision_mode", "quantization_groups") for k, _ in command.keywords)
    if command.name == "change_output_activation":
        return command.args[-1] != "sigmoid"
    if command.name == "model_optimization_config":
        return command.feature in ("compression_params", "globals", "negative_exponent")
    passes = ("pre_quantization_optimization", "post_quantization_optimization")
    return command.name in passes and command.enabled and command.keyword("mode") != "disabled"


def _layout(script: Script) -> Iterator[Finding]:
    found = [c for c in script.commands if c.name.rpartition(".")[2] in tables.LAYOUT]
    if found:
        more = f" (and {len(found) - 1} more lines like it)" if len(found) > 1 else ""
        text = f"{found[0].name} is layout that the compiler wrote for one network{more}; remove such lines"
        yield Finding(found[0].line, text, error=False)


def _twice(script: Script) -> Iterator[Finding]:
    """The compiler merges several lines of one command; two values of one keyword are seldom intended."""
    for name, feature in (
        ("model_optimization_flavor", None),
        ("model_optimization_config", "calibration"),
        ("post_quantization_optimization", "finetune"),
        ("post_quantization_optimization", "adaround"),
    ):
        before: dict[str, tuple[str, int]] = {}
        for command in script.named(name, feature):
            for key, value in command.keywords:
                other, line = before.get(key, (value, 0))
                if other != value:
                    text = f"{title(command)}: {key}={value}, but line {line} has {key}={other}; the last one counts"
                    yield Finding(command.line, f"{text}; keep one of them", error=False)
                before[key] = (value, command.line)


def _levels(script: Script, override: int | None) -> Iterator[Finding]:
    explicit = level(script) if override is None else override
    line = next((c.line for c in script.named("model_optimization_flavor")), None)
    if explicit is None:
        text = (
            "no optimization_level, so the compiler chooses by GPU and number of pictures, and level 1 ruins the "
            "boxes; write model_optimization_flavor(optimization_level=0, compression_level=0)"
        )
        yield Finding(line, text, error=False)
    elif explicit == 1:
        flag = "" if override is None else "--optimization-level 1: "
        text = f"{flag}level 1 is known to ruin the boxes; use 0 or 2"
        yield Finding(line if override is None else None, text, error=False)
    packed = compression(script)
    if override is None and packed is None:
        yield Finding(line, "no compression_level; hefkit adds compression_level=0, no weights in 4 bit", error=False)
    elif override is None and packed:
        yield Finding(line, f"compression_level={packed} stores weights in 4 bit; expect less accuracy", error=False)
