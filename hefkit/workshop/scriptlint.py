"""Lint a model script before the compiler sees it: minutes later and in worse words it would say the same.

Errors are what the compiler is known to refuse and what would ruin the model; what merely has not been seen in a
public script is a warning.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import PurePosixPath

from hefkit.cli import one_line
from hefkit.errors import ModelError
from hefkit.workshop import scriptcures as cures
from hefkit.workshop import scripttables as tables
from hefkit.workshop.scriptcommands import (
    Command,
    Script,
    bare,
    compression,
    items,
    layers,
    level,
    names_layer,
    normalization_fault,
    number,
    numbers,
)
from hefkit.workshop.scriptforms import Form, Value
from hefkit.workshop.scriptgrammar import Fault

MAX_MESSAGE = 1800  # characters; the scripts print at most 2000
ENOUGH_PICTURES = 1024  # below, the compiler lowers an implicit level
_CLOSE = 0.6  # difflib's similarity for "did you mean"


@dataclass(frozen=True)
class Finding:
    """One thing to say about a line; `line` is None for what is missing."""

    line: int | None
    text: str
    error: bool = True


def lint(script: Script, arch: str | None = None, override: int | None = None) -> list[str]:
    """Warnings about a script for one chip (`hailo8l`); `override` is an explicit level from elsewhere.

    Raises:
        ModelError: one line that names every line in error, with its cure.
    """
    found = list(findings(script, arch, override))
    errors = [f for f in found if f.error]
    if errors:
        raise ModelError(report(script.source, errors))
    return [report(script.source, [f]) for f in found]


def findings(script: Script, arch: str | None, override: int | None = None) -> Iterator[Finding]:
    """All findings, commands in order, then what concerns the script as a whole."""
    for command in script.commands:
        yield from of_command(command, arch)
    yield from _layout(script)
    wrong = normalization_fault(script.commands)
    if wrong is not None:
        yield Finding(*wrong)
    yield from _twice(script)
    yield from _levels(script, override)
    yield from forced_and_activated(script)


def of_command(command: Command, arch: str | None = None) -> Iterator[Finding]:
    """What can be said of one command alone."""
    said = _not_for_us(command)
    if said is not None:
        yield Finding(command.line, said)
        return
    form = tables.form(command.name, command.feature)
    if form is None:
        return
    for rule in (_shape, _keywords, _renamed, _normalization_units, _quotes, _layer_names, _quantized):
        yield from rule(command, form)
    yield from _precision(command, arch)
    yield from _newer(command, form, arch)


def of_fault(fault: Fault) -> Finding:
    """What to say of something that is no statement: the cure, where the word is a known one."""
    word = fault.text.split("(")[0].strip()
    if word in cures.INVENTED:
        return Finding(fault.line, cures.INVENTED[word](Command(word, (), ())))
    if word == fault.text and word in tables.known_commands():
        return Finding(fault.line, f"{word} without brackets; expected {word}(...)")
    return Finding(fault.line, fault.what)


def report(source: str, found: Iterable[Finding]) -> str:
    """One bounded line: the source, then every finding with its line."""
    found = sorted(found, key=lambda f: f.line or 0)
    text = one_line(source, 200)
    for i, finding in enumerate(found):
        said = f"line {finding.line}: {one_line(finding.text, 400)}" if finding.line else one_line(finding.text, 400)
        joint = "; " if i else " " if finding.line else ": "
        if i and len(text) + len(said) > MAX_MESSAGE:
            return f"{text}; and {len(found) - i} more"
        text += joint + said
    return text


def refuse_implicit_level(script: Script, family: str, images: int) -> None:
    """Raise ModelError where the compiler would lower an implicit level and ruin the boxes.

    `family` is `dfl` or `ltrb`, `images` what the compiler gets. Measured by Ultralytics (#25231): with 128
    pictures an implicit level became 1, and mAP50 of a yolo11n fell from 0.548 to 0.069; all boxes had one size.
    """
    if family == "dfl" and level(script) is None and images < ENOUGH_PICTURES:
        raise ModelError(
            f"{one_line(script.source, 200)} has no optimization_level; with {images} pictures (fewer than "
            f"{ENOUGH_PICTURES}) the compiler would fall to level 1, which ruins the boxes of a DFL head; use "
            "--optimization-level 0 or 2, or write model_optimization_flavor(optimization_level=2, "
            "compression_level=0)"
        )


def forced_and_activated(script: Script) -> Iterator[Finding]:
    """Layers with both a new activation and a forced output range: the two contradict each other."""
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
                        line, f"force_range_out on {layer}, whose activation is changed as well; keep one of the two"
                    )


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean finetune?`, or nothing when no known word is similar."""
    close = get_close_matches(word, list(known), n=1, cutoff=_CLOSE)
    return f"; did you mean {close[0]}?" if close else ""


# --- one command -----------------------------------------------------------------------------------------------------


def _not_for_us(command: Command) -> str | None:
    """Why a command must not stand in a script at all."""
    name = command.name
    if name in cures.INVENTED:
        return cures.INVENTED[name](command)
    if name in tables.FEATURES and command.feature not in tables.FEATURES[name]:
        return _no_feature(command)
    if name in tables.FORMS or name in tables.FEATURES:
        return cures.REFUSED.get(name)
    if name.rpartition(".")[2] in tables.LAYOUT:
        return None
    return cures.RETIRED.get(name) or f"{name} is no known command{nearest(name, tables.known_commands())}"


def _no_feature(command: Command) -> str:
    known = list(tables.FEATURES[command.name])
    if command.feature is None:
        return cures.no_feature(command, known)
    guess = nearest(command.feature, known)
    if not guess:
        owner = next((n for n, features in tables.FEATURES.items() if command.feature in features), None)
        guess = f"; it belongs to {owner}" if owner else f"; expected {', '.join(known)}"
    return f"{command.name} has no feature {command.feature}{guess}"


def _shape(command: Command, form: Form) -> Iterator[Finding]:
    """The name on the left and the positional arguments."""
    args = command.args[1:] if command.feature is not None else command.args
    if command.name == "change_output_activation" and len(args) == 1:
        yield Finding(command.line, "an activation for all outputs would put it on the boxes too; name the layer")
        return
    if form.named and not command.targets and command.name != "normalization":  # that has its own rule
        yield Finding(command.line, f"{command.name} needs a name on its left, as in {command.name}1 = ...")
    if not form.named and command.targets:
        yield Finding(command.line, f"{command.name} takes no name on its left", error=False)
    if len(args) < form.required and command.name != "normalization":
        yield Finding(command.line, _too_few(command, form))
    if len(args) > len(form.args):
        yield Finding(command.line, f"{_title(command)} takes no argument {args[len(form.args)]}; write keyword=value")
    for value, allowed in zip(args, form.args, strict=False):
        yield from _value(command, "", value, allowed)


def _too_few(command: Command, form: Form) -> str:
    if command.name == "quantization_param":
        alien = next((s for k, _ in command.keywords if (s := cures.KEYWORDS.get((command.name, k)))), None)
        return alien or "quantization_param needs a layer first, as in quantization_param(conv41, ...)"
    expected = ", ".join(value.expected() for value in form.args[: form.required])
    return f"{command.name} has too few arguments; expected {expected}"


def _keywords(command: Command, form: Form) -> Iterator[Finding]:
    given = Counter(key for key, _ in command.keywords)
    for key, times in given.items():
        if times > 1:
            same = len({v for k, v in command.keywords if k == key}) == 1
            yield Finding(command.line, f"{key} is given {times} times; keep one", error=not same)
    for key, value in command.keywords:
        allowed = form.keywords.get(key)
        if allowed is not None:
            yield from _value(command, key, value, allowed)
        else:
            yield from _unlisted(command, key, form)


def _unlisted(command: Command, key: str, form: Form) -> Iterator[Finding]:
    cure = cures.KEYWORDS.get((command.name, key))
    if cure is not None:
        if command.args or command.name != "quantization_param":  # else told with the missing layer
            yield Finding(command.line, cure)
        return
    known = f"{nearest(key, form.keywords)}" or f"; known are {', '.join(form.keywords) or 'none'}"
    yield Finding(command.line, f"{_title(command)} has no known keyword {key}{known}", error=form.strict)


def _value(command: Command, key: str, value: str, allowed: Value) -> Iterator[Finding]:
    if value[:1] in ('"', "'") or allowed.takes(value):  # quotes have a rule of their own
        return
    what = f"{_title(command)}: {key + '=' if key else ''}{value}"
    guess = nearest(value, allowed.words) if allowed.words else ""
    yield Finding(command.line, f"{what}; expected {allowed.expected()}{guess}", error=allowed.closed)


def _renamed(command: Command, form: Form) -> Iterator[Finding]:
    for key, _ in command.keywords:
        if (command.name, key) in cures.RENAMED:
            yield Finding(command.line, f"{key} is {cures.RENAMED[command.name, key]}", error=False)
    if command.name == "hef_param":
        yield Finding(command.line, "hef_param changes the file format's switches; better leave it out", error=False)


def _normalization_units(command: Command, form: Form) -> Iterator[Finding]:
    """Mean and deviation in 0..1 are those of another framework; without any the network sees 0..255."""
    if command.name != "normalization":
        return
    mean, std = (numbers(a) or () for a in (*command.args, "", "")[:2])
    if any(0 < abs(n) < 1 for n in (*mean, *std)):
        yield Finding(command.line, "mean and std must be in 0..255, these are below 1; multiply them by 255")
    elif std and max(std, key=abs) == min(std, key=abs) == 1:
        yield Finding(
            command.line,
            "this normalization leaves 0..255 as it is; right only if the ONNX itself divides by 255",
            error=False,
        )


def _quotes(command: Command, form: Form) -> Iterator[Finding]:
    for value in [*command.args, *(v for _, v in command.keywords)]:
        for part in items(value) if value.startswith("[") else [value]:
            if part[:1] not in ('"', "'"):
                continue
            inner = part[1:-1]
            if "/" not in inner and not inner.endswith(".json"):
                yield Finding(command.line, f"{part} in quotes; words stand without them")
            elif not PurePosixPath(inner).is_absolute():
                yield Finding(command.line, f"{part} is relative to wherever the compiler runs; write the whole path")


def _layer_names(command: Command, form: Form) -> Iterator[Finding]:
    for layer in _layers_of(command):
        if layer.startswith("/") or layer.count("/") > 1 or "." in bare(layer):
            yield Finding(
                command.line,
                f"{layer} is a name of ONNX or PyTorch; layers have the compiler's names here, such as conv41 or "
                "output_layer1",
            )


def _layers_of(command: Command) -> Iterator[str]:
    values = [command.keyword("layers"), command.keyword("loss_layer_names")]
    if command.name in ("quantization_param", "change_output_activation"):
        values += command.args[:1]
    for value in values:
        if value and value[:1] not in ('"', "'"):
            yield from layers(value)


def _quantized(command: Command, form: Form) -> Iterator[Finding]:
    """Weights in 4 bit: real, seldom meant, and never without a word."""
    if (number(command.keyword("auto_4bit_weights_ratio")) or 0) > 0:
        yield Finding(command.line, "auto_4bit_weights_ratio puts weights into 4 bit; expect losses", error=False)


def _precision(command: Command, arch: str | None) -> Iterator[Finding]:
    """precision_mode by chip and by layer."""
    mode = command.keyword("precision_mode")
    if command.name != "quantization_param" or mode is None:
        return
    if mode in tables.PRECISIONS_15L:
        yield from _only_15l(command, mode, arch)
    elif mode not in tables.PRECISIONS:
        known = ", ".join(tables.PRECISIONS)
        yield Finding(command.line, f"precision_mode={mode} does not exist; expected one of {known}")
    for layer in _layers_of(command):
        if bare(layer).startswith("matmul") and mode not in tables.MATMUL_PRECISIONS:
            # refused in reports of users; Model Zoo v2.15 to v5.0.0 has two scripts for hailo15h with a16_w16 there
            text = f"precision_mode={mode} on {layer}; a matmul takes {', '.join(tables.MATMUL_PRECISIONS)}"
            yield Finding(command.line, text, error=arch in tables.CHIPS_3X)


def _only_15l(command: Command, mode: str, arch: str | None) -> Iterator[Finding]:
    said = f"precision_mode={mode} is seen only in scripts for hailo15l"
    if arch in tables.CHIPS_3X:
        yield Finding(command.line, f"{said}; {arch} takes {', '.join(tables.PRECISIONS)}")
    elif arch != "hailo15l":
        yield Finding(command.line, said, error=False)


def _newer(command: Command, form: Form, arch: str | None) -> Iterator[Finding]:
    if arch not in tables.CHIPS_3X:
        return
    for key, _ in command.keywords:
        if key in form.only_5x:
            text = f"{key} is seen only in scripts for compiler 5.x, and {arch} is compiled by 3.x; leave it out"
            yield Finding(command.line, text, error=False)


def _title(command: Command) -> str:
    return f"{command.name}({command.feature})" if command.feature else command.name


# --- the script as a whole -------------------------------------------------------------------------------------------


def _layout(script: Script) -> Iterator[Finding]:
    found = [c for c in script.commands if c.name.rpartition(".")[2] in tables.LAYOUT]
    if found:
        more = f" (and {len(found) - 1} more lines like it)" if len(found) > 1 else ""
        text = f"{found[0].name} is layout that the compiler wrote for one network{more}; leave such lines out"
        yield Finding(found[0].line, text, error=False)


def _twice(script: Script) -> Iterator[Finding]:
    keys = [(c.name, c.feature) for c in script.commands]
    for name, feature in (
        ("model_optimization_flavor", None),
        ("model_optimization_config", "calibration"),
        ("post_quantization_optimization", "finetune"),
        ("post_quantization_optimization", "adaround"),
    ):
        if keys.count((name, feature)) > 1:
            said = script.named(name, feature)
            text = f"{_title(said[1])} stands in line {said[0].line} already; keep one of them"
            yield Finding(said[1].line, text)


def _levels(script: Script, override: int | None) -> Iterator[Finding]:
    explicit = level(script) if override is None else override
    line = next((c.line for c in script.named("model_optimization_flavor")), None)
    if explicit is None:
        text = (
            "no optimization_level, so the compiler chooses by GPU and number of pictures, and its level 1 ruins the "
            "boxes of DFL heads; write model_optimization_flavor(optimization_level=0, compression_level=0)"
        )
        yield Finding(line, text, error=False)
    elif explicit == 1:
        text = "level 1 is known to ruin the boxes of DFL heads; take 0 or 2"
        yield Finding(line if override is None else None, text, error=False)
    packed = compression(script)
    if override is None and packed is None:
        yield Finding(line, "no compression_level; hefkit adds compression_level=0, no weights in 4 bit", error=False)
    elif override is None and packed:
        yield Finding(line, f"compression_level={packed} puts weights into 4 bit; expect losses", error=False)
