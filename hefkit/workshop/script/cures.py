"""Lines that no compiler reads, or that hefkit must not let through, each with what to write instead.

The invented ones are in walkthroughs and forum posts, never in one of the Model Zoo's scripts; where such a line
seemed to work, the script had never been loaded.
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
        "enable_loose_mode is no command and has nothing to do with shapes or NMS; leave it out, the cut sees to that"
    )


def _optimization_level(command: Command) -> str:
    return f"optimization_level is no command; write {_level(command)}"


def _clusters(command: Command) -> str:
    return (
        "allocate_clusters is no command, clusters are placed automatically; where mapping fails write "
        f"{_EFFORT} or context_switch_param(mode=allowed)"
    )


def _mixed(command: Command) -> str:
    return (
        "mixed_precision is no command and the chip has no floats; write "
        "quantization_param([conv41, output_layer1], precision_mode=a16_w16) with the compiler's layer names, or use "
        "--precision-16"
    )


# command -> what to say; every one of them is an error
INVENTED: dict[str, Callable[[Command], str]] = {
    "enable_loose_mode": _loose,
    "optimization_level": _optimization_level,
    "allocate_clusters": _clusters,
    "mixed_precision": _mixed,
}

# commands of old compilers, by the first tag of the Model Zoo without any of them
RETIRED = {
    "resize_input": "resize_input is gone since Model Zoo v2.10; leave it out, hefkit feeds the network's own size",
    "yuv_to_rgb": "yuv_to_rgb is gone since Model Zoo v2.10; leave it out, hefkit feeds RGB",
    "transpose": "transpose is gone since Model Zoo v2.9; leave it out",
    "optimize_buffers": "optimize_buffers is gone since Model Zoo v2.6; leave it out",
    "buffer_calc_param": "buffer_calc_param is gone since Model Zoo v2.12; leave it out",
}

# real commands with which the model would no longer be what the rest of hefkit takes it for
REFUSED = {
    "nms_postprocess": (
        "nms_postprocess would fold the raw heads into one NMS output, and hefkit decodes the raw heads; leave it out"
    ),
    "logits_layer": "logits_layer would put a softmax or argmax behind an output, and hefkit decodes raw heads; leave "
    "it out",
    "input_conversion": (
        "input_conversion would change the input's colours, but calibration set and runtime feed RGB; leave it out"
    ),
    "resize": "resize would change the input's size, but calibration set and runtime feed the network's own; leave it "
    "out",
}

# (command, keyword) -> what to say; errors where the compiler refuses, whatever the other keywords are
KEYWORDS = {
    ("quantization_param", "calibration_iterations"): (
        f"calibration_iterations is no keyword of it; write {_CALIBRATION}, and for more passes "
        "post_quantization_optimization(finetune, policy=enabled, epochs=4, dataset_size=64)"
    ),
    ("quantization_param", "activation_clipping_mode"): (
        "activation_clipping_mode is gone since Model Zoo v1.4; write "
        "pre_quantization_optimization(activation_clipping, layers=[conv1], mode=percentile, "
        "clipping_values=[0.01, 99.99])"
    ),
    ("allocator_param", "enable_loose_mode"): (
        "enable_loose_mode is gone since Model Zoo v2.8, and had nothing to do with shapes or NMS; leave it out"
    ),
}

# keywords that moved, told as warnings
RENAMED = {
    ("performance_param", "optimization_level"): "the older spelling of compiler_optimization_level; write that",
}


def no_feature(command: Command, known: list[str]) -> str:
    """What to say of model_optimization_config(optimization_level=0, batch_size=1) and its like."""
    level = whole(command.keyword("optimization_level"))
    said = f"{command.name} needs a feature as first argument: {', '.join(known)}"
    if command.name != "model_optimization_config" or command.keyword("optimization_level") is None:
        return said
    batch = whole(command.keyword("batch_size")) or 8
    return (
        "model_optimization_config needs a feature as first argument; write "
        f"model_optimization_flavor(optimization_level={level if level in range(5) else 0}, compression_level=0) and "
        f"model_optimization_config(calibration, batch_size={batch}, calibset_size=64)"
    )
