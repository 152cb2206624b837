"""The linter of model scripts: what real scripts say passes, what walkthroughs invent is named with its cure."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from hefkit.errors import ModelError
from hefkit.workshop.script import cures
from hefkit.workshop.script.commands import Script
from hefkit.workshop.script.grammar import parse
from hefkit.workshop.script.lint import (
    MAX_MESSAGE,
    against_additions,
    findings,
    lint,
    not_emulated,
    refuse_implicit_level,
)
from hefkit.workshop.script.read import parse_script, read_script
from hefkit.workshop.script.tables import FEATURES, FORMS, known_commands
from tests.conftest import ROOT, Finished
from tests.helpers.tiny_onnx import save, tiny_yolo

NORMALIZATION = "normalization1 = normalization([0.0, 0.0, 0.0], [255.0, 255.0, 255.0])"
FLAVOR = "model_optimization_flavor(optimization_level=0, compression_level=0)"
CHIPS = ("hailo8", "hailo8l", "hailo10h", "hailo15h", "hailo15m", "hailo15l")


def with_line(line: str) -> Script:
    """A script in which nothing but `line` can be wrong."""
    rest = [text for text in (NORMALIZATION, FLAVOR) if text.split("(")[0].split()[-1] not in line]
    return parse_script("\n".join([line, *rest]), "my.mscript")


def refusal(script: Script, arch: str = "hailo8") -> str:
    """The message with which a script is refused."""
    with pytest.raises(ModelError) as caught:
        lint(script, arch)
    return str(caught.value)


# --- what passes -----------------------------------------------------------------------------------------------------

# lines of the Model Zoo's scripts, or of the same shape, and where they are from
OFFICIAL = {
    "yolov8s, sigmoid": "change_output_activation(conv42, sigmoid)",
    "yolo26n, calibration": "model_optimization_config(calibration, batch_size=8, calibset_size=1024)",
    "yolo26n, flavor": "model_optimization_flavor(optimization_level=4, compression_level=0)",
    "yolo26n, adaround": "post_quantization_optimization(adaround, policy=enabled, batch_size=8)",
    "yolo26m, adaround": "post_quantization_optimization(adaround, policy=enabled, batch_size=1)",
    "yolo26n, outputs": "quantization_param([output_layer1, output_layer2], precision_mode=a16_w16)",
    "yolo26n, inner layers": "quantization_param([dw1, dw6, dw7, dw8], precision_mode=a16_w16)",
    "yolov8m, finetune": "post_quantization_optimization(finetune, policy=enabled, learning_rate=0.000025)",
    "yolov8n and 11n, allocator": "allocator_param(width_splitter_defuse=disabled)",
    "yolov8m, effort": "performance_param(compiler_optimization_level=max)",
    "normalization of yolov8": NORMALIZATION,
    "a matmul's own precision": "quantization_param([matmul1, net/matmul2], precision_mode=a8_w8_a8)",
    "normalization of ImageNet": "normalization1 = normalization([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])",
    "normalization with its layer": "normalization1 = normalization([0, 0, 0], [255, 255, 255], input_layer1)",
    "numbers that end in a point": "normalization1 = normalization([0., 0. , 0.], [255., 255., 255.])",
    "a scoped layer": "change_output_activation(yolov8n/conv42, sigmoid)",
    "tanh": "change_output_activation(conv42, tanh)",
    "linear": "change_output_activation(conv42, linear)",
    "seed": "set_seed(seed=5)",
    "everything off": "model_optimization_flavor(optimization_level=-100, compression_level=0)",
    "batch of the flavor": "model_optimization_flavor(optimization_level=2, compression_level=0, batch_size=2)",
    "16 bit by ratio": "model_optimization_config(compression_params, auto_16bit_weights_ratio=0.2)",
    "no 4 bit by ratio": "model_optimization_config(compression_params, auto_4bit_weights_ratio=0)",
    "checker off": "model_optimization_config(checker_cfg, policy=disabled)",
    "checker": "model_optimization_config(checker_cfg, policy=enabled, dataset_size=32, analyze_mode=advanced, "
    "batch_norm_checker=False, batch_size=2)",
    "globals": "model_optimization_config(globals, multiproc_policy=disabled)",
    "globals, encoding": "model_optimization_config(globals, output_encoding_vector=enabled, output_16bit=enabled)",
    "negative exponent": "model_optimization_config(negative_exponent, layers={*}, rank=0)",
    "equalization": "pre_quantization_optimization(equalization, policy=disabled)",
    "equalization of a layer": "pre_quantization_optimization(equalization, layers=[ew_add1], "
    "equalization_target=activation, policy=enabled)",
    "clipping by percentile": "pre_quantization_optimization(activation_clipping, layers={conv*}, mode=percentile, "
    "clipping_values=[0.01, 99.99], recollect_stats=True)",
    "clipping by hand": "pre_quantization_optimization(activation_clipping, layers=[conv27], mode=manual, "
    "clipping_values=[-20, 5])",
    "weights": "pre_quantization_optimization(weights_clipping, layers=[conv27], mode=mmse)",
    "avgpool": "pre_quantization_optimization(global_avgpool_reduction, layers=avgpool1, division_factors=[4, 4])",
    "matmul": "pre_quantization_optimization(matmul_correction, layers={matmul*}, correction_type=zp_comp_block)",
    "layer norm": "pre_quantization_optimization(layer_norm_decomposition, equalization=disabled, "
    "bit_decomposition_mode=uniform_precision)",
    "finetune with losses": "post_quantization_optimization(finetune, policy=enabled, dataset_size=4000, "
    "batch_size=4, epochs=8, learning_rate=1e-05, loss_layer_names=[conv93, conv84], loss_types=[l2rel, l2], "
    "loss_factors=[1.0, 0.125], def_loss_type=ce, warmup_epochs=1, meta_arch=yolo, train_scales=True)",
    "bias correction": "post_quantization_optimization(bias_correction, policy=enabled)",
    "bias mode": "quantization_param({conv*}, bias_mode=double_scale_initialization)",
    "activation fit": "quantization_param({ew_sub_softmax*}, activation_fit=enabled)",
    "feed repeat": "quantization_param(ew_add1, max_elementwise_feed_repeat=1)",
    "range in": "quantization_param(ew_add1, force_range_in=[-5.5, 5.5], force_range_index=0)",
    "range out": "quantization_param(output_layer1, force_range_out=[0.0, 1.0])",
    "a class of layers": "quantization_param({conv_feature_splitter[0-9]*_[2-3]}, precision_mode=a8_w8)",
    "4 bit of a layer": "quantization_param(conv45, precision_mode=a8_w4)",
    "16 bit of a producer": "quantization_param(conv45, precision_mode=a8_w8_a16)",
    "matmul's own mode": "quantization_param({matmul*}, precision_mode=a8_w8_a8)",
    "frames a second": "performance_param(fps=30.5)",
    "no aim": "performance_param(fps=None)",
    "batch on the chip": "performance_param(compiler_optimization_level=2, optimize_for_batch=8)",
    "resources": "resources_param(strategy=greedy, max_utilization=0.0, max_control_utilization=0.9, "
    "max_compute_utilization=1.2, max_compute_16bit_utilization=0.9, max_memory_utilization=0.85, "
    "max_input_aligner_utilization=0.9, max_apu_utilization=0.9)",
    "contexts": "context_switch_param(mode=allowed, slotter_chances=3)",
    "patience": "allocator_param(timeout=5h, cluster_timeout=25m, splitter_timeout=300)",
    "switches": "allocator_param(automatic_reshapes=disabled, enable_fixer=False, enable_muxer=False, seed=3, "
    "spatial_defuse_legacy=True, optimize_pipeline_stoppage=True, enable_post_split_average_buffers=False)",
    "platform": "platform_param(hef_version=5)",
    # from reports of users, and from the list of compiler 3.34
    "dead layers": "pre_quantization_optimization(dead_layers_removal, policy=disabled)",
    "mask of a softmax": "set_input_mask_to_softmax()",
    "groups of weights": "quantization_param(conv3, quantization_groups=4)",
    "channels of nothing": "quantization_param({conv*}, null_channels_cutoff_factor=1e2)",
    "batch of the bias correction": "post_quantization_optimization(bias_correction, policy=enabled, batch_size=1)",
    "pictures of the bias correction": "post_quantization_optimization(bias_correction, policy=enabled, "
    "calibset_size=64, use_saitama=True, device=cuda)",
    "shuffled adaround": "post_quantization_optimization(adaround, policy=enabled, shuffle=True, "
    "cache_compression=enabled)",
    "validated finetune, losses": "post_quantization_optimization(finetune, policy=enabled, val_batch_size=4, "
    "val_images=64, loss_types=[l2rel_chw, L2REL], def_loss_type=l2rel_chw)",
    "processes": "model_optimization_config(globals, multiproc_policy=allowed)",
    "another calibration": "model_optimization_config(calibration, batch_size=1, use_saitama=True, device=cuda)",
    "threads": "allocator_param(compilation_num_threads=8)",
    **{
        f"precision {mode}": f"quantization_param(conv9, precision_mode={mode})"
        for mode in ("native", "a8_w8_a8", "a8_w4_exp", "a16_w16_non_zero", "a16_w4_a8")
    },
}


@pytest.mark.parametrize("line", OFFICIAL.values(), ids=OFFICIAL.keys())
def test_real_lines_pass(line: str) -> None:
    """Neither an error nor a warning, for either chip of the Pi."""
    assert lint(with_line(line), "hailo8") == []
    assert lint(with_line(line), "hailo8l") == []


def test_a_whole_real_script_passes() -> None:
    """All of them in one script, but for those that would contradict each other."""
    once = (
        "flavor", "normalization", "numbers that", "everything off", "tanh", "linear", "yolo26m", "losses", "another"
    )  # fmt: skip
    lines = [line for name, line in OFFICIAL.items() if not any(word in name for word in once)]

    assert lint(parse_script("\n".join([NORMALIZATION, FLAVOR, *lines])), "hailo8") == []


# real commands that hefkit must not let through, and why
REFUSED = {
    "NMS inside": ('nms_postprocess("/a/nms.json", meta_arch=yolov8, engine=cpu)', "raw heads"),
    "NMS without a file": ("nms_postprocess(meta_arch=ssd, engine=nn_core)", "raw heads"),
    "softmax at the end": ("logits_layer1 = logits_layer(fc1, softmax, -1, cpu)", "raw heads"),
    "other colours": ("bgr1 = input_conversion(input_layer1, bgr_to_rgb)", "give RGB"),
    "YUV": ("yuv1 = input_conversion(input_layer1, yuy2_to_hailo_yuv, emulator_support=True)", "give RGB"),
    "another size": ("resize1 = resize(input_layer1, resize_shapes=[720, 1280])", "size of the input"),
    "a sigmoid for all outputs": ("change_output_activation(sigmoid)", "the boxes too; name the layer"),
    "a sigmoid by pattern": ("change_output_activation([conv42, {conv5*}], sigmoid)", "name the layers one by one"),
    "an old size": ("resize1 = resize_input([1080, 1920], input_layer1)", "does not exist since Model Zoo v2.10"),
    "old colours": ("yuv1 = yuv_to_rgb()", "does not exist since Model Zoo v2.10"),
    "old clipping": (
        "quantization_param(conv19, activation_clipping_mode=manual)",
        "write pre_quantization_optimization(activation_clipping,",
    ),
    "an old allocator switch": ("allocator_param(enable_loose_mode=False)", "does not exist since Model Zoo v2.8"),
}


@pytest.mark.parametrize("line, why", REFUSED.values(), ids=REFUSED.keys())
def test_real_lines_that_would_ruin_the_model(line: str, why: str) -> None:
    """They change what the model takes or gives, and nothing behind the compiler knows about it."""
    message = refusal(with_line(line))

    assert message.startswith("my.mscript line 1: ") and why in message and message.count("line ") == 1


# --- walkthroughs ----------------------------------------------------------------------------------------------------

WALKTHROUGH = """\
# Disable loose mode (stricter checking)
enable_loose_mode
# Higher optimization level (slower, better accuracy)
optimization_level(1)  # 0=fast, 1=balanced, 2=best

quantization_param(calibration_iterations=3)
allocate_clusters(num_clusters=8)
mixed_precision(
    layers=['model.22.cv2.0', 'model.22.cv3.0'],
    precision='float16'
)
model_optimization_config(optimization_level=0, batch_size=1)
"""
CURES = {
    2: "remove it",
    4: "write model_optimization_flavor(optimization_level=1, compression_level=0)",
    6: "write model_optimization_config(calibration, batch_size=8, calibset_size=64)",
    7: "performance_param(compiler_optimization_level=max)",
    8: "quantization_param([conv41, output_layer1], precision_mode=a16_w16)",
    12: "write model_optimization_flavor(optimization_level=0, compression_level=0) and "
    "model_optimization_config(calibration, batch_size=1, calibset_size=64)",
}


def told(message: str) -> dict[int, str]:
    """line -> what is said about it; 0 for what is missing."""
    message = message.replace("my.mscript: ", "my.mscript line 0: ")
    parts = re.split(r"(?:^|; )(?:my\.mscript )?line (\d+): ", message)
    return dict(zip(map(int, parts[1::2]), parts[2::2], strict=True))


def test_the_walkthrough_is_refused_line_by_line() -> None:
    """One message of one line: every invented line and what to write instead, and the normalization that is missing."""
    with pytest.raises(ModelError) as caught:
        parse_script(WALKTHROUGH, "my.mscript")

    said = told(str(caught.value))
    assert list(said) == [0, *CURES]
    assert "write normalization1 = normalization([0.0, 0.0, 0.0], [255.0, 255.0, 255.0])" in said[0]
    assert [cure for line, cure in CURES.items() if cure not in said[line]] == []
    assert "\n" not in str(caught.value) and len(str(caught.value)) <= 2000


def test_without_the_bare_word_the_linter_says_the_same() -> None:
    """What the grammar accepts is found by the linter, in the same words."""
    text = WALKTHROUGH.replace("enable_loose_mode\n", "enable_loose_mode(True)\n")
    with pytest.raises(ModelError) as caught:
        parse_script(WALKTHROUGH, "my.mscript")

    assert refusal(parse_script(text, "my.mscript")) == str(caught.value)


def test_what_the_cures_say_to_write_passes() -> None:
    """Every command in a cure is one that the linter accepts."""
    commands = re.findall(r"[a-z]+(?:_[a-z]+)+\([^()]*\)", " ".join(CURES.values()))

    assert len(commands) == 6
    for command in commands:
        assert [w for w in lint(with_line(command), "hailo8") if "level 1 is known" not in w] == [], command


def test_the_walkthrough_s_own_file(shared: Path) -> None:
    """Its example script, as it is printed there."""
    text = (shared / "reference" / "original-walkthrough.md").read_text()
    [script] = [b for b in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "# hailo_optimization.mscript" in b]
    message = refusal(parse_script(script, "my.mscript"))

    for cure in ("write model_optimization_flavor(optimization_level=1,", "calibset_size=64", "compiler_optimization"):
        assert cure in message


# --- what is wrong ---------------------------------------------------------------------------------------------------

WRONG = {
    "an unknown command": ("quantisation_param(conv1, precision_mode=a8_w8)", "did you mean quantization_param?"),
    "an unknown command, far from all": ("frobnicate(x=1)", "docs/model-scripts.md lists the commands"),
    "a command of Python": ('print("hello")', "print is not a command"),
    "a feature of another command": (
        "model_optimization_config(bias_correction, policy=enabled)",
        "write post_quantization_optimization(bias_correction, ...)"
    ),
    "no feature": ("post_quantization_optimization(policy=enabled)", "needs a feature as its first argument"),
    "a level in words": ("model_optimization_flavor(optimization_level=high)", "expected 0, 1, 2, 3, 4, -100"),
    "a level too high": ("model_optimization_flavor(optimization_level=5)", "expected 0, 1, 2, 3, 4, -100"),
    "a level without its name": ("model_optimization_flavor(2)", "takes no argument 2; write keyword=value"),
    "compression too high": (
        "model_optimization_flavor(optimization_level=0, compression_level=6)", "expected 0, 1, 2, 3, 4, 5"
    ),
    "a batch of nothing": ("model_optimization_config(calibration, batch_size=0)", "whole number of at least 1"),
    "half a picture": ("model_optimization_config(calibration, calibset_size=1.5)", "whole number of at least 1"),
    "a number for a word": ("post_quantization_optimization(finetune, policy=1)", "enabled, disabled, allowed"),
    "a misspelt word": (
        "post_quantization_optimization(finetune, policy=enable)", "policy=enable; expected enabled, disabled, "
        "allowed; did you mean enabled?",
    ),
    "a share above all": (
        "model_optimization_config(compression_params, auto_16bit_weights_ratio=1.5)", "a number from 0 to 1"
    ),
    "no layer": ("quantization_param(precision_mode=a16_w16)", "needs a layer first"),
    "an empty list": ("quantization_param([], precision_mode=a16_w16)", "expected a layer"),
    "a number for a layer": ("quantization_param(41, precision_mode=a16_w16)", "expected a layer"),
    "a foreign keyword": (
        "quantization_param(conv1, batch_size=2)",
        "has no keyword batch_size, the compiler refuses it"
    ),
    "an iteration count": ("quantization_param(conv1, calibration_iterations=3)", "calibset_size=64"),
    "a name of ONNX": (
        "quantization_param(/model.22/cv2.0/cv2.0.2/Conv, precision_mode=a16_w16)", "is a name of ONNX or PyTorch"
    ),
    "a name of PyTorch": ("quantization_param([conv1, model.22.cv2.0], precision_mode=a16_w16)", "model.22.cv2.0 is"),
    "such a name in a keyword": ("pre_quantization_optimization(equalization, layers=[model.22])", "model.22 is a"),
    "another function": ("change_output_activation(conv42, softmax)", "expected sigmoid, tanh, linear"),
    "too many arguments": ("change_output_activation(conv42, sigmoid, cpu)", "takes no argument cpu"),
    "no argument": ("change_output_activation()", "has too few arguments"),
    "a matmul in 16 bit": ("quantization_param(matmul1, precision_mode=a16_w16)", "a matmul takes a8_w8, a8_w8_a8"),
    "a feature as a command": ("calibration(batch_size=8)", "write model_optimization_config(calibration, ...)"),
    "another": ("finetune(policy=enabled)", "a feature of post_quantization_optimization; write post_"),
    "matmuls by pattern": ("quantization_param({net/matmul*}, precision_mode=a8_w4)", "a matmul takes"),
    "a word in quotes": ("post_quantization_optimization(finetune, policy='enabled')", "write it without quotes"),
    "words in quotes, in a list": ('quantization_param(["conv1"], precision_mode=a8_w8)', "write it without quotes"),
    "a relative path": ('platform_param(targets="config/targets.json")', "relative path"),
    "a path with a variable": ('platform_param(targets="$HOME/targets.json")', "relative path"),
    "two numbers wanted": ("quantization_param(conv1, force_range_out=[0, 1, 2])", "a list of two numbers"),
    "normalization without a name": ("normalization([0, 0, 0], [255, 255, 255])", "needs a name on the left"),
    "normalization of 0..1": (
        "normalization1 = normalization([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])", "multiply them by 255"
    ),
    "normalization of one channel": ("normalization1 = normalization([0], [255])", "two lists of three numbers"),
}  # fmt: skip


@pytest.mark.parametrize("line, words", WRONG.values(), ids=WRONG.keys())
def test_wrong_lines(line: str, words: str) -> None:
    """Refused with the file, the line and what was expected; nothing else in the script is blamed."""
    message = refusal(with_line(line))

    assert message.startswith("my.mscript line 1: ") and words in message
    assert message.count("line ") == 1


TOGETHER = {
    "no normalization": (FLAVOR, ": 0 normalization commands"),
    "two normalizations, one of nothing": (
        f"{NORMALIZATION}\n{NORMALIZATION}\n{{}} = defuse_block(matmul1, defuse_count=4)",
        ": 2 normalization commands",
    ),
    "one normalization has no name": (
        f"{NORMALIZATION}\n\nnormalization([0,0,0], [255,255,255])",
        " line 3: normalization needs a name on the left",
    ),
    "two normalizations": (f"{NORMALIZATION}\n{NORMALIZATION}", ": 2 normalization commands"),
    "activation and range": (
        f"{NORMALIZATION}\nchange_output_activation(conv42, sigmoid)\n"
        "quantization_param([conv41, net/conv42], force_range_out=[0, 1])",
        " line 3: force_range_out on conv42, whose activation",
    ),
    "activation and range, by pattern": (
        f"{NORMALIZATION}\nquantization_param({{conv4*}}, force_range_out=[0, 1])\n"
        "change_output_activation([net/conv42], sigmoid)",
        " line 2: force_range_out on net/conv42, whose activation",
    ),
}


@pytest.mark.parametrize("text, words", TOGETHER.values(), ids=TOGETHER.keys())
def test_lines_that_are_wrong_together(text: str, words: str) -> None:
    """Each line alone would pass."""
    assert refusal(parse_script(text, "my.mscript")).startswith(f"my.mscript{words}")


def test_activation_and_range_of_different_layers_pass() -> None:
    """The twin of the rows above."""
    lines = ["change_output_activation(conv42, sigmoid)", "quantization_param({conv5*}, force_range_out=[0, 1])"]

    assert lint(parse_script("\n".join([NORMALIZATION, FLAVOR, *lines])), "hailo8") == []


# line -> (words of the warning); said of every chip
WARNED = {
    "an unknown feature": (
        "post_quantization_optimization(finetunes)",
        "no known feature finetunes; did you mean finetune?",
    ),
    "a precision that is none": (
        "quantization_param(conv1, precision_mode=float16)",
        "is not known; expected one of a8_w8",
    ),
    "a precision of some chips": ("quantization_param(conv1, precision_mode=a16_w4)", "refused it on a hailo10h"),
    "an unknown keyword of a layer": ("quantization_param(conv1, group_size=2)", "no known keyword group_size"),
    "a keyword twice": ("performance_param(fps=30, fps=60)", "fps is given 2 times"),
    "an unknown keyword": ("post_quantization_optimization(finetune, epoch=4)", "did you mean epochs?"),
    "an unknown keyword, far from all": ("set_seed(frob=4)", "no known keyword frob; expected one of seed"),
    "an unknown word": ("context_switch_param(mode=perhaps)", "expected enabled, disabled, allowed"),
    "out of the usual": ("resources_param(max_utilization=7)", "a number from 0 to 1.25"),
    "an older spelling": ("performance_param(optimization_level=max)", "old name of compiler_optimization_level"),
    "a name that nobody asks for": ("x1 = set_seed(seed=3)", "takes no name on the left"),
    "switches of the file": ("hef_param(should_run_full_validation=False)", "which is seldom right; remove it"),
    "4 bit by ratio": (
        "model_optimization_config(compression_params, auto_4bit_weights_ratio=0.2)",
        "expect less accuracy",
    ),
    "4 bit by level": ("model_optimization_flavor(optimization_level=2, compression_level=1)", "expect less accuracy"),
    "level 1": ("model_optimization_flavor(optimization_level=1, compression_level=0)", "known to ruin the boxes"),
    "no compression level": ("model_optimization_flavor(optimization_level=0)", "hefkit adds compression_level=0"),
    "nothing divided": ("normalization1 = normalization([0, 0, 0], [1, 1, 1])", "leaves 0..255 as it is"),
    "layout": ("context_0.place(0, [conv1, concat_from_conv24-25_to_concat6])", "layout that the compiler wrote"),
}


@pytest.mark.parametrize("line, words", WARNED.values(), ids=WARNED.keys())
def test_warnings(line: str, words: str) -> None:
    """One warning with the file and the line; the script is not refused."""
    for arch in CHIPS:
        [warning] = lint(with_line(line), arch)
        assert warning.startswith("my.mscript line 1: ") and words in warning


def test_layout_is_one_warning() -> None:
    """However many lines of it there are."""
    lines = ["shortcut1 = shortcut(conv1, [conv2, conv3])", "compilation_param(conv1, resources_allocation=1)"] * 40
    [warning] = lint(parse_script("\n".join([NORMALIZATION, FLAVOR, *lines]), "my.mscript"), "hailo8")

    assert warning.startswith("my.mscript line 3: shortcut is layout") and "79 more lines" in warning


def test_an_implicit_level_is_a_warning_unless_the_flag_sets_it() -> None:
    """Left out, the compiler would choose; --optimization-level makes it explicit, compression included."""
    script = parse_script(NORMALIZATION, "my.mscript")

    assert [w.split(",")[0] for w in lint(script, "hailo8")] == [
        "my.mscript: no optimization_level", "my.mscript: no compression_level; hefkit adds compression_level=0"
    ]  # fmt: skip
    assert lint(script, "hailo8", 2) == []
    assert ["--optimization-level 1" in w for w in lint(script, "hailo8", 1)] == [True]


SEVERAL = {
    "calibration": ("model_optimization_config(calibration, {})", "batch_size=1", "calibset_size=64", "batch_size=2"),
    "finetune": (
        "post_quantization_optimization(finetune, {})", "policy=enabled, epochs=4", "dataset_size=64", "epochs=2"
    ),
    "adaround": ("post_quantization_optimization(adaround, {})", "batch_size=1", "policy=enabled", "batch_size=8"),
    "flavor": ("model_optimization_flavor({})", "optimization_level=0", "compression_level=0", "optimization_level=2"),
}  # fmt: skip


@pytest.mark.parametrize("line, first, second, other", SEVERAL.values(), ids=SEVERAL.keys())
def test_several_lines_of_one_command_merge(line: str, first: str, second: str, other: str) -> None:
    """Real scripts have them; only two values of one keyword are a warning, with both lines."""
    rest = [NORMALIZATION] if "flavor" in line else [NORMALIZATION, FLAVOR]
    together = "\n".join([line.format(first), line.format(second), *rest])
    against = "\n".join([together, line.format(other)])

    assert lint(parse_script(together), "hailo8") == []
    [warning] = lint(parse_script(against, "my.mscript"), "hailo8")
    assert warning.startswith(f"my.mscript line {len(rest) + 3}: ") and "but line 1 has" in warning


NEWER = {
    "power": "performance_param(optimize_for_power=True)",
    "groups of weights": "quantization_param(conv1, weight_group_size=128)",
    "a cache of tokens": "set_kv_cache_global_params(96, 2048)",
    "buckets": "context_switch_param(toposort_mode=pushdown)",
}


@pytest.mark.parametrize("line", NEWER.values(), ids=NEWER.keys())
def test_keywords_of_compiler_5(line: str) -> None:
    """Seen only in scripts for the chips of compiler 5.x: a warning for those of 3.x."""
    for arch in CHIPS:
        warned = ["only in scripts for compiler 5.x" in w for w in lint(with_line(line), arch)]
        assert warned == ([True] if arch in ("hailo8", "hailo8l") else [])


def test_matmul_in_16_bit_is_no_error_where_a_real_script_has_it() -> None:
    """The Model Zoo has two scripts for hailo15h with it; reports of users say that it is refused."""
    script = with_line("quantization_param(matmul1, precision_mode=a16_w16)")

    assert [w for w in lint(script, "hailo15h") if "a matmul takes" in w]


def test_a_normalization_that_cannot_be_read_is_not_missing() -> None:
    """The wrong line is told, and not besides that there is none."""
    with pytest.raises(ModelError, match=r"^my.mscript line 1: [^;]*; expected a comma[^;]*$"):
        parse_script("normalization1 = normalization([0, 0, 0] [255, 255, 255])", "my.mscript")


def test_many_errors_are_one_bounded_line() -> None:
    """A thousand wrong lines: as many as fit, and how many more there are."""
    message = refusal(parse_script("\n".join(f"wrong_{i}(x)" for i in range(1000)), "my.mscript"))

    assert len(message) <= MAX_MESSAGE + 50 and "\n" not in message
    shown = len(re.findall(r"line \d+: ", message))
    assert shown >= 10 and message.endswith(f"; and {1000 - shown} more")  # the normalization is told, without a line


def test_control_characters_are_not_repeated() -> None:
    """What stands in a file must not reach the terminal as it is."""
    with pytest.raises(ModelError) as caught:
        parse_script("\x1b[31mred\x07\n", "my\x1b.mscript")

    assert str(caught.value).isprintable()


def test_the_tables_are_closed() -> None:
    """Every command and feature of the tables is accepted by name, and every command stands in the document."""
    document = (ROOT / "docs" / "model-scripts.md").read_text().split("## The commands")[1]
    assert set(re.findall(r"`([a-z_]+)`", document)) == set(known_commands())
    assert set(known_commands()) == set(FORMS) | set(FEATURES) | set(cures.REFUSED)
    assert len(known_commands()) == len(FORMS) + len(FEATURES) + len(cures.REFUSED)
    for command, features in FEATURES.items():
        for feature in features:
            script, _ = parse(f"{command}({feature})", "s")
            assert not [f for f in findings(script, "hailo8") if "feature" in f.text]


# --- the guard and the emulation -------------------------------------------------------------------------------------

GUARD = {
    "implicit, few": (NORMALIZATION, 1023, True),
    "implicit, enough": (NORMALIZATION, 1024, False),
    "only compression": ("model_optimization_flavor(compression_level=0)", 64, True),
    "explicit": (FLAVOR, 1, False),
}


@pytest.mark.parametrize("text, images, refused", GUARD.values(), ids=GUARD.keys())
def test_an_implicit_level_with_few_pictures(text: str, images: int, refused: bool) -> None:
    """The compiler would fall to level 1, after which all boxes have one size, whatever the head."""
    script = parse_script(text, "my.mscript")

    if not refused:
        refuse_implicit_level(script, images)
        return
    with pytest.raises(
        ModelError, match=rf"my.mscript has no optimization_level; with {images} pictures.*-level 0 or 2"
    ):
        refuse_implicit_level(script, images)


# name: (line, what is wrong with it, whether it is refused)
AGAINST = {
    "the sigmoid of a class output": (
        "change_output_activation(output_layer2, sigmoid)", "class output, and hefkit adds its sigmoid itself", True,
    ),
    "a sigmoid of a scoped output": ("change_output_activation(net/output_layer6, sigmoid)", "net/output_layer6", True),
    "another function of a class output": ("change_output_activation(output_layer4, tanh)", "needs a sigmoid", True),
    "a sigmoid of a box output": ("change_output_activation(output_layer3, sigmoid)", "must stay linear", True),
    "an output that is not there": ("change_output_activation(output_layer7, sigmoid)", "has 6 outputs", True),
    "a range of a class output": (
        "quantization_param([output_layer1, output_layer2], force_range_out=[0, 1])", "on output_layer2, class", True,
    ),
    "a range of convolutions": (
        "quantization_param([conv42, conv53, conv63], force_range_out=[0.0, 1.0])",
        "on conv42, conv53, conv63: if these are class convolutions", False,
    ),
    "a range by pattern": ("quantization_param({conv*}, force_range_out=[0, 1])", "{conv*}: if these", False),
}  # fmt: skip


@pytest.mark.parametrize("line, words, refused", AGAINST.values(), ids=AGAINST.keys())
def test_lines_against_what_hefkit_adds(line: str, words: str, refused: bool) -> None:
    """Told before the compiler starts, with the line of the user and what to do; --logits adds nothing."""
    script = parse_script(f"{NORMALIZATION}\n{FLAVOR}\n{line}", "my.mscript")

    if refused:
        with pytest.raises(ModelError) as caught:
            against_additions(script, 6, logits=False)
        said = str(caught.value)
    else:
        [said] = against_additions(script, 6, logits=False)

    assert said.startswith("my.mscript line 3: ") and words in said and "remove" in said
    assert against_additions(script, 6, logits=True) == []


def test_the_real_scripts_of_users(shared: Path) -> None:
    """../shared/field: what is known passes; a forced range that may clash is a warning with its line."""
    dead, forced = (
        read_script(shared / "field" / name)
        for name in ("06-script-dead-layers/dead.alls", "07-script-force-range/forced.alls")
    )
    [told] = against_additions(forced, 6, logits=False)

    assert lint(dead, "hailo8") == lint(forced, "hailo8") == []
    assert against_additions(dead, 6, logits=False) == against_additions(forced, 6, logits=True) == []
    assert "line 3: force_range_out on conv42, conv53, conv63" in told and "remove them from the line" in told


def test_lines_that_do_not_touch_the_class_outputs() -> None:
    """Ranges of boxes and of inner layers of another kind, and a linear box, are the user's own."""
    lines = [
        "quantization_param([output_layer1, output_layer3], force_range_out=[-10, 10])",
        "quantization_param([ew_add1, matmul2], force_range_out=[0, 1])", "quantization_param(conv1, bias_mode=x)",
        "change_output_activation(output_layer1, linear)", "change_output_activation(conv42, sigmoid)",
    ]  # fmt: skip

    assert against_additions(parse_script("\n".join([NORMALIZATION, FLAVOR, *lines])), 6, logits=False) == []


def test_lines_that_the_emulation_does_not_follow() -> None:
    """Said in one warning; what it follows, or what changes no number, is not in it."""
    followed = [
        NORMALIZATION, FLAVOR, "quantization_param(output_layer1, precision_mode=a16_w16)",
        "change_output_activation(conv42, sigmoid)", "performance_param(compiler_optimization_level=max)",
        "pre_quantization_optimization(equalization, policy=disabled)",
        "model_optimization_config(calibration, batch_size=4)",
    ]  # fmt: skip
    own = [
        "quantization_param(conv1, precision_mode=a8_w4)", "quantization_param(conv1, force_range_out=[0, 1])",
        "post_quantization_optimization(finetune, policy=enabled)",
    ]  # fmt: skip

    assert not_emulated(parse_script("\n".join(followed))) == []
    [warning] = not_emulated(parse_script("\n".join([*followed, *own])))
    assert re.findall(r"line (\d+)", warning) == ["8", "9", "10"]


# --- as a process ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def yolo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float toy YOLO of 64x64."""
    return save(tiny_yolo(), tmp_path_factory.mktemp("model") / "tiny.onnx")


def test_a_bad_script_ends_the_check(run_script: Callable[..., Finished], yolo: Path, tmp_path: Path) -> None:
    """Exit 4 and one line on stderr, before the ONNX is even opened."""
    (tmp_path / "bad.mscript").write_text(WALKTHROUGH)
    done = run_script("compile_to_hef.py", yolo, "--script", tmp_path / "bad.mscript", "--check", "--json")

    assert (done.code, done.out) == (4, "")
    [line] = done.err.splitlines()
    assert line.startswith(f"error: {tmp_path}/bad.mscript: 0 normalization commands")
    assert [n for n in CURES if f"line {n}: " not in line] == []


def test_a_script_for_another_chip(run_script: Callable[..., Finished], yolo: Path, tmp_path: Path) -> None:
    """The same file passes with a warning for one chip and is refused for another."""
    line = "quantization_param(matmul1, precision_mode=a16_w16)"
    (tmp_path / "s.mscript").write_text("\n".join([NORMALIZATION, FLAVOR, line]))

    def check(arch: str) -> Finished:
        return run_script(
            "compile_to_hef.py",
            yolo,
            "--script",
            tmp_path / "s.mscript",
            "--check",
            "--json",
            "--arch",
            arch,
            "--quiet",
        )

    done = check("hailo8l")
    assert (done.code, len(done.err.splitlines()), len(done.errors)) == (4, 1, 1)
    done = check("hailo15h")
    assert done.code == 0
    assert [w for w in done.json["warnings"] if "line 3: precision_mode=a16_w16 on matmul1; a matmul takes" in w]


def test_the_shipped_script_lints_clean() -> None:
    """As it is, and with each of the lines that it offers as comments."""
    script = read_script(ROOT / "hailo_optimization.mscript")
    offered = re.findall(r"^# (\w+\(.*\))$", script.text, re.MULTILINE)

    assert len(offered) == 6
    for text in [script.text, *(script.text.replace(f"# {line}", line) for line in offered)]:
        for arch in CHIPS:
            assert lint(parse_script(text), arch) == []
