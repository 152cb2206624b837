"""The linter's rules for a single command.

Errors: the compiler is known to refuse it, or it would ruin the model. Warnings: no public script has it, and the
compiler may know more than hefkit.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import PurePosixPath

from hefkit.chips import is_line_3
from hefkit.workshop.script import cures, tables
from hefkit.workshop.script.commands import Command, bare, items, layers, number, numbers
from hefkit.workshop.script.forms import Form, Value

_THREE_PARTS = re.compile(r"a(8|16)_w(4|8|16)_a(8|16)")
_CLOSE = 0.6  # difflib's similarity for "did you mean"


@dataclass(frozen=True)
class Finding:
    """One error or warning; `line` is None where a command is missing."""

    line: int | None
    text: str
    error: bool = True


def check_command(command: Command, arch: str | None = None) -> Iterator[Finding]:
    """The findings of one command, independent of the other commands."""
    refusal = _refusal(command)
    if refusal is not None:
        yield Finding(command.line, refusal)
        return
    form = tables.form(command.name, command.feature)
    if form is None:
        if command.feature is not None:
            yield Finding(command.line, _unknown_feature(command), error=False)
        return
    for rule in (_shape, _keywords):
        yield from rule(command, form)
    for about in (_activated_by_pattern, _discouraged, _normalization_units, _quotes, _layer_names):
        yield from about(command)
    yield from _precision(command, arch)
    yield from _only_5x(command, form, arch)


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean finetune?`, or "" when no known word is similar."""
    close = get_close_matches(word, list(known), n=1, cutoff=_CLOSE)
    return f"; did you mean {close[0]}?" if close else ""


def _refusal(command: Command) -> str | None:
    """Why a script must not have this command at all, or None."""
    name = command.name
    if name in cures.INVENTED:
        return cures.INVENTED[name](command)
    if name in cures.REFUSED:
        return cures.REFUSED[name]
    if name in tables.FEATURES and command.feature not in tables.FEATURES[name]:
        return _misplaced_feature(command)
    if name in tables.FORMS or name in tables.FEATURES or name.rpartition(".")[2] in tables.LAYOUT:
        return None
    return cures.RETIRED.get(name) or f"{name} is not a command{_instead(name)}"


def _instead(name: str) -> str:
    """What an unknown command may mean: a feature, or a command with a similar name."""
    owner = _owner(name)
    if owner is not None:
        return f" but a feature of {owner}; write {owner}({name}, ...)"
    return nearest(name, tables.known_commands()) or "; docs/model-scripts.md lists the commands"


def _owner(feature: str) -> str | None:
    return next((name for name, features in tables.FEATURES.items() if feature in features), None)


def _misplaced_feature(command: Command) -> str | None:
    """No feature, or the feature of another command: the compiler is known to refuse both."""
    if command.feature is None:
        return cures.no_feature(command, list(tables.FEATURES[command.name]))
    owner = _owner(command.feature)
    if owner is not None:
        return f"{command.name} has no feature {command.feature}; write {owner}({command.feature}, ...)"
    return None


def _unknown_feature(command: Command) -> str:
    known = list(tables.FEATURES[command.name])
    guess = nearest(command.feature or "", known) or f"; expected one of {', '.join(known)}"
    return f"{command.name} has no known feature {command.feature}{guess}"


def _shape(command: Command, form: Form) -> Iterator[Finding]:
    """The name on the left and the positional arguments."""
    args = command.args[1:] if command.feature is not None else command.args
    if command.name == "change_output_activation" and len(args) == 1:
        yield Finding(command.line, "this would activate all outputs, the boxes too; name the layer first")
        return
    if not form.named and command.targets:
        yield Finding(command.line, f"{command.name} takes no name on the left; remove it", error=False)
    if len(args) < form.required and command.name != "normalization":
        yield Finding(command.line, _too_few(command, form))
    if len(args) > len(form.args):
        yield Finding(command.line, f"{title(command)} takes no argument {args[len(form.args)]}; write keyword=value")
    for value, allowed in zip(args, form.args, strict=False):
        yield from _value(command, "", value, allowed)


def _too_few(command: Command, form: Form) -> str:
    if command.name == "quantization_param":
        cure = next((s for k, _ in command.keywords if (s := cures.KEYWORDS.get((command.name, k)))), None)
        return cure or "quantization_param needs a layer first; write quantization_param(conv41, ...)"
    expected = " and ".join(value.expected() for value in form.args[: form.required])
    return f"{command.name} has too few arguments; expected {expected}"


def _keywords(command: Command, form: Form) -> Iterator[Finding]:
    """Each keyword is listed, is given once and has a value that has been seen."""
    given = Counter(key for key, _ in command.keywords)
    for key, times in given.items():
        if times > 1:
            yield Finding(command.line, f"{key} is given {times} times; keep one", error=False)
    for key, value in command.keywords:
        allowed = form.keywords.get(key)
        if allowed is not None:
            yield from _value(command, key, value, allowed)
        else:
            yield from _unlisted(command, key, form)


def _unlisted(command: Command, key: str, form: Form) -> Iterator[Finding]:
    if form.open:
        return
    cure = cures.KEYWORDS.get((command.name, key))
    if cure is not None:
        if command.args or command.name != "quantization_param":  # else _too_few names it
            yield Finding(command.line, cure)
        return
    known = nearest(key, form.keywords) or f"; expected one of {', '.join(form.keywords) or 'none'}"
    yield Finding(command.line, f"{title(command)} has no known keyword {key}{known}", error=False)


def _value(command: Command, key: str, value: str, allowed: Value) -> Iterator[Finding]:
    if allowed.takes(value) or any(_quoted(part) for part in _parts(value)):  # _quotes checks these
        return
    what = f"{title(command)}: {key + '=' if key else ''}{value}"
    guess = nearest(value, allowed.words) if allowed.words else ""
    yield Finding(command.line, f"{what}; expected {allowed.expected()}{guess}", error=allowed.closed)


def _activated_by_pattern(command: Command) -> Iterator[Finding]:
    if command.name == "change_output_activation" and any("{" in arg for arg in command.args):
        yield Finding(command.line, "a pattern may match boxes and inner layers too; name the layers one by one")


def _discouraged(command: Command) -> Iterator[Finding]:
    """Lines that work, but that users seldom want."""
    for key, _ in command.keywords:
        if (command.name, key) in cures.RENAMED:
            yield Finding(command.line, f"{key} is {cures.RENAMED[command.name, key]}", error=False)
    if command.name == "hef_param":
        yield Finding(command.line, "hef_param changes the file format, which is seldom right; remove it", error=False)
    if (number(command.keyword("auto_4bit_weights_ratio")) or 0) > 0:
        yield Finding(
            command.line, "auto_4bit_weights_ratio stores weights in 4 bit; expect less accuracy", error=False
        )


def _normalization_units(command: Command) -> Iterator[Finding]:
    """Some frameworks give mean and std in 0..1; the compiler wants 0..255."""
    if command.name != "normalization":
        return
    mean, std = (numbers(a) or () for a in (*command.args, "", "")[:2])
    if any(0 < abs(n) < 1 for n in (*mean, *std)):
        yield Finding(command.line, "mean or std is below 1; expected numbers in 0..255; multiply them by 255")
    elif std and max(std, key=abs) == min(std, key=abs) == 1:
        yield Finding(
            command.line,
            "this normalization leaves 0..255 as it is; that is right only if the ONNX divides by 255 itself",
            error=False,
        )


def _quotes(command: Command) -> Iterator[Finding]:
    """Quotes are for paths; a relative path would start at the folder in which the compiler runs."""
    for value in [*command.args, *(v for _, v in command.keywords)]:
        for part in filter(_quoted, _parts(value)):
            inner = part[1:-1]
            if "/" not in inner and not inner.endswith(".json"):
                yield Finding(command.line, f"{part} in quotes; write it without quotes")
            elif not PurePosixPath(inner).is_absolute():
                yield Finding(
                    command.line,
                    f"{part} is a relative path; expected an absolute one, because the compiler runs in another folder",
                )


def _parts(value: str) -> list[str]:
    return items(value) if value.startswith("[") else [value]


def _quoted(value: str) -> bool:
    return value[:1] in ('"', "'")


def _layer_names(command: Command) -> Iterator[Finding]:
    """Layers have the names that the compiler gives them: `conv41` or `net/conv41`."""
    for layer in _layers_of(command):
        if layer.startswith("/") or layer.count("/") > 1 or "." in bare(layer):
            yield Finding(
                command.line,
                f"{layer} is a name of ONNX or PyTorch; expected a name that the compiler gives, such as conv41 or "
                "output_layer1",
            )


def _layers_of(command: Command) -> Iterator[str]:
    values = [command.keyword("layers"), command.keyword("loss_layer_names")]
    if command.name in ("quantization_param", "change_output_activation"):
        values += command.args[:1]
    for value in values:
        if value and not _quoted(value):
            yield from layers(value)


def _precision(command: Command, arch: str | None) -> Iterator[Finding]:
    """precision_mode by layer. What no public script has is a warning: compilers list more modes than chips have."""
    mode = command.keyword("precision_mode")
    if command.name != "quantization_param" or mode is None:
        return
    if mode in tables.PRECISIONS_MIXED:
        text = f"precision_mode={mode} is seen only in some scripts for hailo15l; compiler 5.3 refused it on a hailo10h"
        yield Finding(command.line, text, error=False)
    elif mode not in tables.PRECISIONS and not _THREE_PARTS.fullmatch(mode):
        known = ", ".join(tables.PRECISIONS)
        yield Finding(command.line, f"precision_mode={mode} is not known; expected one of {known}", error=False)
    for layer in _layers_of(command):
        if bare(layer).startswith("matmul") and mode not in tables.MATMUL_PRECISIONS:
            # users report that the compiler refuses it; Model Zoo v2.15 to v5.0.0 has two hailo15h scripts with a16_w16
            text = f"precision_mode={mode} on {layer}; a matmul takes {', '.join(tables.MATMUL_PRECISIONS)}"
            yield Finding(command.line, text, error=is_line_3(arch))


def _only_5x(command: Command, form: Form, arch: str | None) -> Iterator[Finding]:
    if not is_line_3(arch):
        return
    if form.newer:
        text = f"{command.name} is seen only in scripts for compiler 5.x, and {arch} needs 3.x; remove it"
        yield Finding(command.line, text, error=False)
    for key, _ in command.keywords:
        if key in form.only_5x:
            text = f"{key} is seen only in scripts for compiler 5.x, and {arch} needs 3.x; remove it"
            yield Finding(command.line, text, error=False)


def title(command: Command) -> str:
    """How messages name a command: `post_quantization_optimization(finetune)` where it has a feature."""
    return f"{command.name}({command.feature})" if command.feature else command.name
