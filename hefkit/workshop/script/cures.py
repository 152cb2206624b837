"""Wrong lines that users are known to write, each with what to write instead.

INVENTED commands are in walkthroughs and forum posts, but in no script of the Model Zoo. If such a line seemed to
work, the compiler had not loaded the script.
"""

from __future__ import annotations

from collections.abc import Callable

from hefkit.workshop.script.commands import Command, whole

_CALIBRATION = "model_optimization_config(calibration, batch_size=8, calibset_size=64)"
_EFFORT = "performance_param(compiler_optimization_level=max)"


def _level(command: Command) -> str:
    number = whole(command.args[0]) if command.args else whole(command.keyword("level"))
    return f"model_optimization_flavor(optimization_level={number if number in range(5) else 0}, compression_level=0)"


def _loose(command: Command) -> str:
    return (
        "enable_loose_mode is not a command, and has nothing to do with shapes or NMS; remove it, hefkit cuts NMS off"
    )


def _optimization_level(command: Command) -> str:
    return f"optimization_level is not a command; write {_level(command)}"


def _clusters(command: Command) -> str:
    return (
        "allocate_clusters is not a command, the compiler places clusters itself; remove it, or where mapping fails "
        f"write {_EFFORT} or context_switch_param(mode=allowed)"
    )


def _mixed(command: Command) -> str:
    return (
        "mixed_precision is not a command, and the chip computes with integers only; write "
        "quantization_param([conv41, output_layer1], precision_mode=a16_w16) with the compiler's layer names, or use "
        "--precision-16"
    )


# command -> its message; always an error
INVENTED: dict[str, Callable[[Command], str]] = {
    "enable_loose_mode": _loose,
    "optimization_level": _optimization_level,
    "allocate_clusters": _clusters,
    "mixed_precision": _mixed,
}

# commands of old compilers; the tag is the first one of the Model Zoo without the command
RETIRED = {
    "resize_input": "resize_input does not exist since Model Zoo v2.10; remove it, hefkit resizes the pictures",
    "yuv_to_rgb": "yuv_to_rgb does not exist since Model Zoo v2.10; remove it, hefkit gives RGB pictures",
    "transpose": "transpose does not exist since Model Zoo v2.9; remove it",
    "optimize_buffers": "optimize_buffers does not exist since Model Zoo v2.6; remove it",
    "buffer_calc_param": "buffer_calc_param does not exist since Model Zoo v2.12; remove it",
}

# real commands that hefkit refuses: the model would take or return something other than hefkit expects
REFUSED = {
    "nms_postprocess": (
        "nms_postprocess replaces the raw heads by one NMS output, and hefkit decodes the raw heads; remove it"
    ),
    "logits_layer": "logits_layer adds a softmax or argmax to an output, and hefkit decodes the raw heads; remove it",
    "input_conversion": (
        "input_conversion changes the colour order of the input, but calibration and detection give RGB; remove it"
    ),
    "resize": (
        "resize changes the size of the input, but calibration and detection give pictures of the network's size; "
        "remove it"
    ),
}

# (command, keyword) -> its message; always an error
KEYWORDS = {
    ("quantization_param", "calibration_iterations"): (
        f"calibration_iterations is not a keyword of it; write {_CALIBRATION}, and for more passes "
        "post_quantization_optimization(finetune, policy=enabled, epochs=4, dataset_size=64)"
    ),
    ("quantization_param", "activation_clipping_mode"): (
        "activation_clipping_mode does not exist since Model Zoo v1.4; write "
        "pre_quantization_optimization(activation_clipping, layers=[conv1], mode=percentile, "
        "clipping_values=[0.01, 99.99])"
    ),
    ("quantization_param", "batch_size"): (
        "quantization_param has no keyword batch_size, the compiler refuses it; write "
        "model_optimization_config(calibration, batch_size=2)"
    ),
    ("allocator_param", "enable_loose_mode"): (
        "enable_loose_mode does not exist since Model Zoo v2.8, and had nothing to do with shapes or NMS; remove it"
    ),
}

# (command, keyword) -> its message; always a warning
RENAMED = {
    ("performance_param", "optimization_level"): "the old name of compiler_optimization_level; write the new one",
}


def no_feature(command: Command, known: list[str]) -> str:
    """The message for a feature command without its feature; two settings that users put there get a cure."""
    level = whole(command.keyword("optimization_level"))
    said = f"{command.name} needs a feature as its first argument; expected one of {', '.join(known)}"
    if command.name != "model_optimization_config" or command.keyword("optimization_level") is None:
        return said
    batch = whole(command.keyword("batch_size")) or 8
    return (
        "model_optimization_config needs a feature as its first argument; write "
        f"model_optimization_flavor(optimization_level={level if level in range(5) else 0}, compression_level=0) and "
        f"model_optimization_config(calibration, batch_size={batch}, calibset_size=64)"
    )
