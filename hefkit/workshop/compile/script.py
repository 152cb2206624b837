"""The final model script of a HEF: the base file, the flags, and lines with the SDK's names of the layers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from hefkit.errors import UsageError
from hefkit.text import one_line
from hefkit.workshop.compile.run import Options
from hefkit.workshop.dfc.graph import Output, ParsedGraph
from hefkit.workshop.dfc.log import Asked
from hefkit.workshop.script.commands import Command, Script, compression, finetune, level, number, whole
from hefkit.workshop.script.compose import ADAROUND_PICTURES, Additions, compose
from hefkit.workshop.script.grammar import canonical, printed
from hefkit.workshop.script.read import parse_script

# the keyword of compression_params (known from reports) by which the SDK chooses layers itself, and its share
AUTO_16BIT, AUTO_SHARE = "auto_16bit_weights_ratio", "0.05"


def final_script(options: Options, graph: ParsedGraph, outputs: Sequence[Output], pictures: int) -> Script:
    """Base script + flags + names; `outputs` in contract order, `pictures` is the number of calibration pictures.

    Raises:
        ModelError: a line of the base contradicts what must be added.
        UsageError: --precision-16 names an unknown layer.
    """
    base = _with_auto_16bit(options.script) if "auto" in options.precision_16 else options.script
    return compose(
        base,
        Additions(
            level=options.level,
            sigmoid_layers=() if options.logits else tuple(without_scope(output.producer) for output in outputs[1::2]),
            calibration_batch=options.batch_size,
            calibset_size=pictures,
            wide_layers=_wide_layers(options.precision_16, graph, outputs),
            logits=options.logits,
        ),
    )


def _with_auto_16bit(base: Script) -> Script:
    """Let the SDK choose layers for 16 bit; a share that the script already has is kept."""
    old = next(iter(base.named("model_optimization_config", "compression_params")), None)
    if old is None:
        line = Command("model_optimization_config", ("compression_params",), ((AUTO_16BIT, AUTO_SHARE),))
        return parse_script(f"{base.text.rstrip()}\n{printed(line)}\n", base.source)
    if old.keyword(AUTO_16BIT) is not None:
        return base
    merged = replace(old, keywords=(*old.keywords, (AUTO_16BIT, AUTO_SHARE)))
    lines = base.text.splitlines()
    lines[old.line - 1 : old.line + old.text.count("\n")] = [printed(merged)]
    return parse_script("\n".join(lines) + "\n", base.source)


def what_to_expect(script: Script, family: str) -> str:
    """The losses that are published for the script's level; a line for the console."""
    asked = level(script)
    if family != "dfl":
        known = (
            "8 bit costs heads without DFL (YOLO26) 3 to 8 points of mAP50-95 in published results; their published "
            "recipes store all outputs in 16 bit: --precision-16 outputs"
        )
    elif asked in (None, 1):
        known = "level 1 is known to ruin boxes; level 0 costs about 1 to 2 points of mAP50-95 in published results"
    elif asked == 0:
        known = (
            "level 0 costs about 1 to 2 points of mAP50-95 in published results; level 2 on a graphics card often "
            "costs less, and sometimes much more"
        )
    else:
        known = (
            f"in published results level {asked} often costs less than the 1 to 2 points of mAP50-95 of level 0, and "
            "sometimes much more; compare it with level 0"
        )
    return f"what to expect: {known}"


def slow_level(asked: int | None, has_card: bool) -> str | None:
    """The warning of an optimization level that takes long on the processor, or None."""
    if asked is None or asked < 2 or has_card:
        return None
    long = "26 to 86 minutes were reported for small models, hours for others" if asked == 2 else "many hours"
    return (
        f"level {asked} without a graphics card that the SDK's TensorFlow can use: {long}, and some releases lower it "
        "to 0 there; use --optimization-level 0, or a machine with an NVIDIA card"
    )


def calibration_size(script: Script, pictures: int) -> int:
    """The number of pictures from which the compiler takes the ranges: a script may ask for fewer than there are."""
    lines = script.named("model_optimization_config", "calibration")
    asked = [n for line in lines if (n := whole(line.keyword("calibset_size"))) is not None]
    return min([pictures, *asked])


def _wide_layers(asked: Sequence[str], graph: ParsedGraph, outputs: Sequence[Output]) -> tuple[str, ...]:
    """The layers of --precision-16 by the SDK's names."""
    wide = [without_scope(output.name) for output in outputs] if "outputs" in asked else []
    for layer in asked:
        if layer in ("outputs", "auto"):
            continue
        name = graph.resolve(layer)
        if name is None:
            raise UsageError(
                f"--precision-16: the parsed network has no layer {one_line(layer, 80)}; expected a name of the "
                f"SDK's, such as {without_scope(outputs[0].producer)}, or the name of a node of the ONNX"
            )
        wide.append(name)
    return tuple(dict.fromkeys(wide))


def wide_indices(script: Script, outputs: Sequence[Output]) -> frozenset[int]:
    """Which of the outputs, in their order, the script stores in 16 bit."""
    wide, _ = script.wide_outputs(len(outputs))
    numbers = [re.search(r"output_layer(\d+)$", output.name) for output in outputs]
    return frozenset(i for i, number in enumerate(numbers) if number and int(number[1]) - 1 in wide)


def what_is_asked(script: Script, pictures: int) -> Asked:
    """What the script asks for, to compare with what the log says."""
    tune = finetune(script)
    sizes = [whole(tune.keyword("dataset_size"))] if tune is not None and tune.enabled else []
    narrow = any((c.keyword("precision_mode") or "").startswith("a8_w4") for c in script.commands)
    share = any(number(c.keyword("auto_4bit_weights_ratio")) for c in script.commands)
    return Asked(
        level=level(script),
        pictures=calibration_size(script, pictures),
        finetune=(sizes[0] or 0) if sizes else None,
        adaround=_adaround_size(script),
        four_bit=bool(compression(script)) or narrow or share,
    )


def _adaround_size(script: Script) -> int | None:
    """Number of pictures for AdaRound: from its own line, else from the level; None where it does not run."""
    commands = [c for c in script.named("post_quantization_optimization", "adaround") if c.enabled]
    sizes = [size for c in commands if (size := whole(c.keyword("dataset_size"))) is not None]
    if sizes:
        return sizes[-1]
    return ADAROUND_PICTURES.get(level(script) or 0)


def statements(script: Script) -> list[str]:
    """A script's commands in canonical form, without comments."""
    return [line for line in canonical(script).splitlines() if line.strip() and not line.startswith("#")]


def safe_scope(name: str) -> str:
    """A name for the network that the SDK accepts: it becomes the first part of every layer's name."""
    text = re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_")[:40]
    return text if text and text[0].isalpha() else f"net_{text}".rstrip("_")


def without_scope(name: str) -> str:
    """`net/conv41` -> `conv41`."""
    return name.rpartition("/")[2]
