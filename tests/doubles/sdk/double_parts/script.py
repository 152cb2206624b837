"""Model scripts: a small parser, and what the double does for each command. Unknown words raise, as in the real SDK."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass, field
from typing import Any

# command -> its keywords
COMMANDS = {
    "normalization": [],
    "change_output_activation": [],
    "model_optimization_flavor": ["optimization_level", "compression_level", "batch_size"],
    "set_input_mask_to_softmax": [],
    "model_optimization_config": [
        "use_saitama", "device", "batch_size", "calibset_size", "policy", "dataset_size", "auto_4bit_weights_ratio",
        "auto_16bit_weights_ratio",
        "multiproc_policy",
    ],
    "pre_quantization_optimization": ["policy", "layers", "mode", "clipping_values", "division_factors"],
    "post_quantization_optimization": ["policy", "dataset_size", "batch_size", "epochs", "learning_rate", "layers"],
    "quantization_param": ["precision_mode", "bias_mode", "force_range_out", "quantization_groups"],
    "performance_param": ["compiler_optimization_level", "optimize_for_batch", "fps"],
    "resources_param": ["max_control_utilization", "max_compute_utilization", "max_memory_utilization"],
    "context_switch_param": ["mode"],
    "allocator_param": ["timeout", "splitter_timeout", "compilation_num_threads", "width_splitter_defuse"],
}  # fmt: skip
FEATURES = {
    "model_optimization_config": ["calibration", "compression_params", "checker_cfg", "globals"],
    "pre_quantization_optimization": ["equalization", "activation_clipping", "weights_clipping",
                                      "global_avgpool_reduction", "dead_layers_removal"],
    "post_quantization_optimization": ["finetune", "adaround", "bias_correction"],
}  # fmt: skip
KINDS = {
    "model_optimization_config": "MOConfigCommand",
    "pre_quantization_optimization": "PreQuantizationFeature",
    "post_quantization_optimization": "PostQuantizationFeature",
}
# as DFC 3.34 lists them
PRECISIONS = (
    "native", "a8_w8", "a8_w8_a8", "a8_w8_a16", "a8_w4", "a8_w4_exp", "a16_w16", "a16_w16_non_zero", "a16_w8", "a16_w4",
)  # fmt: skip
NEED_A_NAME = ("normalization",)
_START = re.compile(r"(?:([\w/]+(?:\s*,\s*[\w/]+)*)\s*=\s*)?(\w+)\s*\(")
_KEY = re.compile(r"\w+$")


class BackendScriptParserException(Exception):
    """A script that does not parse."""


class AllocatorScriptParserException(Exception):
    """A script that parses, with a command that cannot be applied."""


@dataclass
class Settings:
    """What a script asks for."""

    mean: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    std: list[float] = field(default_factory=lambda: [1.0, 1.0, 1.0])
    level: Any = None
    compression: Any = None
    calibset_size: int = 64
    finetune: Any = None  # pictures
    adaround: Any = None
    sigmoid: list[str] = field(default_factory=list)
    wide: list[str] = field(default_factory=list)


def apply(text: str, layers: list[str], outputs: list[str]) -> Settings:
    """Parse and check a script against the layers of the network (bare names)."""
    settings = Settings()
    for target, name, args, keywords in statements(text):
        _check(target, name, args, keywords)
        if name == "normalization":
            settings.mean, settings.std = _numbers(args[0]), _numbers(args[1])
        elif name == "model_optimization_flavor":
            if "optimization_level" in keywords:
                settings.level = int(keywords["optimization_level"])
            settings.compression = int(keywords.get("compression_level", settings.compression or 0))
        elif name == "model_optimization_config" and args[0] == "calibration":  # several lines merge
            settings.calibset_size = int(keywords.get("calibset_size", settings.calibset_size))
        elif name == "post_quantization_optimization" and args[0] == "finetune":
            if keywords.get("policy", "enabled") == "enabled":
                settings.finetune = int(keywords.get("dataset_size", settings.finetune or 1024))
        elif name == "post_quantization_optimization" and args[0] == "adaround":
            if keywords.get("policy", "enabled") == "enabled":
                settings.adaround = int(keywords.get("dataset_size", 1024))
        elif name == "change_output_activation":
            layer = _known(args[0], outputs, layers)
            settings.sigmoid += layer if args[1] == "sigmoid" else []
        elif name == "quantization_param":
            mode = keywords.get("precision_mode", "a8_w8")
            if mode not in PRECISIONS:
                raise AllocatorScriptParserException(
                    f"Unsupported value [{mode}] for fields ['precision_mode'] in {args[0]}"
                )
            found = _known(args[0], layers, layers)
            settings.wide += found if mode == "a16_w16" else []
    return settings


def statements(text: str) -> list[Any]:
    """(target, command, positional, keywords) of every statement."""
    text = "\n".join(line.split("#", 1)[0] for line in text.splitlines())
    found, rest = [], text.strip()
    while rest:
        match = _START.match(rest)
        if match is None:
            raise BackendScriptParserException(f"Parsing failed at:\n>!<{rest[:60]}")
        end, depth = match.end(), 1
        while depth and end < len(rest):
            depth += {"(": 1, ")": -1}.get(rest[end], 0)
            end += 1
        if depth:
            raise BackendScriptParserException(f"Parsing failed at:\n>!<{rest[:60]}")
        args, keywords = [], {}
        for part in _split(rest[match.end() : end - 1]):
            key, equals, value = part.partition("=")
            if equals and _KEY.match(key.strip()):
                keywords[key.strip()] = value.strip()
            else:
                args.append(part)
        found.append((match[1], match[2], args, keywords))
        rest = rest[end:].strip()
    return found


def _check(target: Any, name: str, args: list[str], keywords: dict[str, str]) -> None:
    if name not in COMMANDS or (name in NEED_A_NAME and not target):
        raise BackendScriptParserException("Parsing failed at:\n>!<{}({})".format(name, ", ".join(args)))
    if name in FEATURES and (not args or args[0] not in FEATURES[name]):
        first = args[0] if args else ""
        raise BackendScriptParserException(f"'{first}' is not a valid {KINDS[name]}. Model script parsing failed")
    for key in keywords:
        if key not in COMMANDS[name]:
            raise AllocatorScriptParserException(f"{key} is not a valid key of {name}")


def _known(written: str, allowed: list[str], layers: list[str]) -> list[str]:
    """The layers that an argument names."""
    names = _split(written[1:-1]) if written.startswith("[") else [written]
    found: list[str] = []
    for name in names:
        bare = name.strip("{}").rsplit("/", 1)[-1]
        matches = [a for a in allowed if fnmatch.fnmatchcase(a, bare)]
        if not matches:
            known = "is no output layer" if bare in layers else "does not exist"
            raise AllocatorScriptParserException(f"Layer {bare} {known}")
        found += matches
    return found


def _split(text: str) -> list[str]:
    parts, depth, current = [], 0, ""
    for char in text:
        depth += {"[": 1, "(": 1, "{": 1, "]": -1, ")": -1, "}": -1}.get(char, 0)
        if char == "," and depth == 0:
            parts.append(current.strip())
            current = ""
        else:
            current += char
    return [p for p in [*parts, current.strip()] if p]


def _numbers(text: str) -> list[float]:
    return [float(part) for part in _split(text[1:-1])]
