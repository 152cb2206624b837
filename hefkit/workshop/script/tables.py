"""The commands of Hailo model scripts, and what each takes: as far as scripts for a YOLO use them.

The source is the public Model Zoo's scripts (tags v1.0 to v5.2.0) and, where marked R, reports of users; Hailo's own
documentation needs a registration. The tables show what has been seen, and more may exist. So an unlisted keyword,
feature or precision is a warning; it is an error only if the compiler is known to refuse it.

    FORMS      command -> form
    FEATURES   command -> feature -> form, as in post_quantization_optimization(finetune, ...)
    LAYOUT     commands that the compiler writes for the layout of one network
"""

from __future__ import annotations

from typing import TypeVar

from hefkit.workshop.script.cures import REFUSED
from hefkit.workshop.script.forms import Form, Value

T = TypeVar("T")


def _words(text: str, *, closed: bool = False) -> Value:
    return Value(tuple(text.split()), closed=closed)


def _each(text: str, value: T) -> dict[str, T]:
    """The same value for each word of a text."""
    return dict.fromkeys(text.split(), value)


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


ANY = Value(kind="any")
LAYERS = Value(kind="layers", closed=True)
COUNT = Value(kind="whole", low=1, closed=True)
INTEGER = Value(kind="whole")
NUMBER = Value(kind="number")
NUMBERS = Value(kind="numbers", closed=True)
PAIR = Value(kind="pair", closed=True)
SHARE = Value(kind="number", low=0, high=1, closed=True)
DURATION = Value(kind="duration")
BOOL = _words("True False", closed=True)
SWITCH = _words("enabled disabled")
POLICY = _words("enabled disabled allowed", closed=True)  # allowed: R
CLIP = {"layers": LAYERS, "clipping_values": PAIR, "recollect_stats": BOOL}

# precision_mode: the last three are what compiler 3.34 lists beside those of the Model Zoo
PRECISIONS = ("a8_w8", "a8_w4", "a16_w16", "a8_w8_a16", "a8_w8_a8", "native", "a8_w4_exp", "a16_w16_non_zero")
PRECISIONS_MIXED = ("a16_w8", "a16_w4", "a16_w8_a16")  # Model Zoo v5.2.0: only in scripts for hailo15l
MATMUL_PRECISIONS = ("a8_w8", "a8_w8_a8", "a8_w8_a16")
LOSSES = ("l2", "l2rel", "ce", "cosine", "l2rel_chw", "L2REL")
BUCKETS = "auto_partition_to_buckets share_buckets_partition berkitizer_bucket_size berkitizer_min_size toposort_mode"

FORMS: dict[str, Form] = {
    "normalization": Form(args=(NUMBERS, NUMBERS, LAYERS), required=2, named=True),
    "change_output_activation": Form(args=(LAYERS, _words("sigmoid tanh linear", closed=True)), required=2),
    "set_seed": Form(keywords={"seed": INTEGER}),
    "model_optimization_flavor": Form(
        keywords={
            "optimization_level": _words("0 1 2 3 4 -100", closed=True),
            "compression_level": _words("0 1 2 3 4 5", closed=True),
            "batch_size": COUNT,
        }
    ),
    "quantization_param": Form(
        args=(LAYERS,),
        required=1,
        keywords={
            "precision_mode": ANY,  # by chip and layer: the linter's own rule
            "bias_mode": _words("double_scale_initialization single_scale_decomposition"),
            "activation_fit": SWITCH,
            "max_elementwise_feed_repeat": COUNT,
            "force_range_in": PAIR,
            "force_range_index": INTEGER,
            "force_range_out": PAIR,
            "quantization_groups": COUNT,  # public scripts; some layers refuse it
            "null_channels_cutoff_factor": NUMBER,  # R
            "weight_group_size": INTEGER,
        },
        only_5x=frozenset({"weight_group_size"}),
    ),
    "performance_param": Form(
        keywords={
            "compiler_optimization_level": _words("0 1 2 max", closed=True),
            "optimize_for_batch": COUNT,
            "optimize_for_power": BOOL,
            "fps": Value(("None", "null"), "number", low=0),
            "optimization_level": _words("0 1 max"),
        },
        only_5x=frozenset({"optimize_for_power"}),
    ),
    "resources_param": Form(
        keywords={
            "strategy": _words("greedy legacy"),
            **_each(
                "max_utilization max_control_utilization max_compute_utilization max_compute_16bit_utilization "
                "max_memory_utilization max_input_aligner_utilization max_apu_utilization",
                Value(kind="number", low=0, high=1.25),
            ),
        }
    ),
    "context_switch_param": Form(
        keywords={
            "mode": _words("enabled disabled allowed manual automatic"),
            "slotter_chances": INTEGER,
            "allow_auto_merge_in_multicontext": BOOL,
            **_each(BUCKETS, ANY),
        },
        only_5x=_set(BUCKETS),
    ),
    "allocator_param": Form(
        keywords={
            "timeout": DURATION,
            "cluster_timeout": DURATION,
            "splitter_timeout": DURATION,
            "compilation_num_threads": COUNT,  # R
            "width_splitter_defuse": SWITCH,
            "seed": INTEGER,
            # the compiler writes these itself (Model Zoo v2.10 and later)
            **_each(
                "auto_split_const_inputs automatic_ddr automatic_ddr_l3_cuts_threshold automatic_l4_portals "
                "automatic_l4_portals_l3_cuts_threshold automatic_reshapes automatic_resize_reshapes calculate_power "
                "defuse_by_validator enable_auto_spatial_collapse enable_auto_spatial_reshapes "
                "enable_automatic_features_chunks enable_automatic_join enable_automatic_offdevice_outputs "
                "enable_axis_upsize enable_collapser enable_defuse_with_slack enable_fixer enable_lanes "
                "enable_lcu_ecc enable_muxer enable_partial_row_buffers enable_post_split_average_buffers "
                "enable_single_buffer_for_feasibility enable_swapper force_map_on_mirror fps_ratio_impact "
                "input_layer_max_successors max_auto_defuse max_auto_merge_depth merge_max_layer_utilization "
                "merge_max_memory_utilization merge_min_layer_utilization optimize_pipeline_stoppage "
                "ppu_reshape_slack run_format_fixer spatial_defuse_legacy validate",
                ANY,
            ),
        }
    ),
    "hef_param": Form(
        keywords=_each(
            "cfg_channel_count dma_engine_count enable_csm_crc enable_ko enable_lcu_from_sequencer "
            "enable_self_reset_optimization share_config should_run_full_validation strict_runtime_versioning",
            ANY,
        )
    ),
    "set_input_mask_to_softmax": Form(),  # Model Zoo v2.19
    "set_kv_cache_global_params": Form(args=(COUNT, COUNT), open=True, newer=True),  # compiler 5.x: prefill, cache
    "platform_param": Form(keywords={"hef_version": INTEGER, "targets": ANY, "hints": ANY}),
}

FEATURES: dict[str, dict[str, Form]] = {
    "model_optimization_config": {
        # the last two: R
        "calibration": Form(keywords={"batch_size": COUNT, "calibset_size": COUNT, "use_saitama": ANY, "device": ANY}),
        "compression_params": Form(keywords={"auto_4bit_weights_ratio": SHARE, "auto_16bit_weights_ratio": SHARE}),
        "checker_cfg": Form(
            keywords={
                "policy": POLICY,
                "dataset_size": COUNT,
                "analyze_mode": _words("simple advanced"),
                "batch_norm_checker": BOOL,
                "batch_size": COUNT,
            }
        ),
        "globals": Form(
            keywords={
                "multiproc_policy": _words("disabled allowed"),
                "output_encoding_vector": SWITCH,
                "output_16bit": SWITCH,
            }
        ),
        "negative_exponent": Form(keywords={"layers": LAYERS, "rank": INTEGER}),
    },
    "pre_quantization_optimization": {
        "equalization": Form(
            keywords={
                "policy": POLICY,
                "layers": LAYERS,
                "equalization_target": _words("activation"),
                "eq_consumer": BOOL,
            }
        ),
        "activation_clipping": Form(
            keywords={**CLIP, "mode": _words("disabled manual percentile percentile_force", closed=True)}
        ),
        "weights_clipping": Form(keywords={**CLIP, "mode": _words("disabled manual percentile mmse mmse_if4b")}),
        # seldom used for a YOLO, so they share one form
        **_each(
            "ew_add_fusing se_optimization global_avgpool_reduction matmul_correction matmul_equalization "
            "layer_norm_decomposition layer_decomposition decompose_conv_factor matmul_decomposition "
            "resolution_reduction dead_layers_removal",
            Form(
                keywords={
                    "policy": POLICY,
                    "layers": LAYERS,
                    **_each(
                        "division_factors correction_type equalization bit_decomposition_mode infusible_ew_add_type",
                        ANY,
                    ),
                }
            ),
        ),
    },
    "post_quantization_optimization": {
        "finetune": Form(
            keywords={
                "policy": POLICY,
                "dataset_size": COUNT,
                "batch_size": COUNT,
                "epochs": COUNT,
                "learning_rate": NUMBER,
                "loss_layer_names": LAYERS,
                "loss_types": Value(LOSSES, "list"),
                "loss_factors": NUMBERS,
                "def_loss_type": Value(LOSSES),
                "val_batch_size": COUNT,  # R, as the next
                "val_images": COUNT,
                "warmup_epochs": INTEGER,
                "meta_arch": _words("yolo"),
                "train_scales": BOOL,
            }
        ),
        "adaround": Form(
            keywords={
                "policy": POLICY,
                "batch_size": COUNT,
                "mode": _words("train_all train_4bit"),
                "dataset_size": COUNT,
                "epochs": COUNT,
                "learning_rate": NUMBER,
                "shuffle": BOOL,  # R, as the next
                "cache_compression": SWITCH,
            }
        ),
        **dict.fromkeys(
            ("bias_correction", "train_encoding", "mix_precision_search"),
            Form(
                keywords={
                    "policy": POLICY,
                    "layers": LAYERS,
                    **_each("batch_size calibset_size", COUNT),  # R, as the next
                    **_each("use_saitama device", ANY),
                }
            ),
        ),
    },
}

# the compiler writes these: where the layers of one network are placed on the chip
LAYOUT = _set(
    "compilation_param buffers defuse concat shortcut format_conversion shape_splitter place context network_group "
    "remove_node join merge portal l4_portal ddr mux_demux bucket defuse_block transpose_concat feature_splitter "
    "output_mux output_layer convert_to_dense spatial_reshape_flow_params"
)


def form(command: str, feature: str | None) -> Form | None:
    """The form of a command, or of a command's feature; None if the tables do not have it."""
    if command in FEATURES:
        return FEATURES[command].get(feature or "")
    return FORMS.get(command)


def known_commands() -> list[str]:
    """Every command of real scripts, with those that hefkit refuses, without layout."""
    return sorted([*FORMS, *FEATURES, *REFUSED])
