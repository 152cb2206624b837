"""The messages of `hef.proto` (HailoRT 4.23) as far as an inspection needs them: names without `ProtoHEF`.

Enums are uint32 here. Whatever is not listed, the chip's instructions and weights first of all, is stepped over.
"""

from __future__ import annotations

from hefkit.hef.wire import Field

_EDGE = {
    "info": Field("layer_info", "EdgeLayerInfo", oneof="edge"),
    "mux": Field("layer_mux", "EdgeLayerMux", oneof="edge"),
    "planes": Field("layer_planes", "EdgeLayerPlanes", oneof="edge"),
}
_NETWORKS = Field("networks_names", "string", many=True)
_IMAGE = {1: Field("image_height", "double"), 2: Field("image_width", "double")}
_PADS_OF_STRIDE = {
    1: Field("stride", "uint32"),
    2: Field("reg_pad_index", "uint32"),
    3: Field("cls_pad_index", "uint32"),
}
_ORDER = Field("sorted_outputs_order", "string", many=True)

SCHEMA = {
    "Hef": {
        1: Field("header", "Header"),
        2: Field("network_groups", "NetworkGroup", many=True),
        5: Field("extensions", "Extension", many=True),
        6: Field("optional_extensions", "Extension", many=True),
        7: Field("external_resources", "ExternalResource", many=True),
    },
    "ExternalResource": {3: Field("name", "string")},
    "Header": {
        1: Field("hw_arch", "uint32"),
        3: Field("sdk_version", "string"),
        4: Field("version", "uint64"),
    },
    "Extension": {1: Field("type_index", "uint32"), 2: Field("name", "string")},
    "NetworkGroup": {
        1: Field("network_group_metadata", "NetworkGroupMetadata"),
        3: Field("contexts", "Context", many=True),
        4: _ORDER,
        5: Field("fused_layers_metadata", "FusedLayersMetadata"),
        6: _NETWORKS,
        7: Field("partial_network_groups", "PartialNetworkGroup", many=True),
        8: Field("ops", "Op", many=True),
        9: Field("pad_edges", "PadEdge", many=True),
    },
    "NetworkGroupMetadata": {
        1: Field("network_group_name", "string"),
        3: Field("transposed_net", "bool"),
    },
    "PartialNetworkGroup": {1: Field("network_group", "NetworkGroup"), 2: Field("layout", "PhysicalLayout")},
    "PhysicalLayout": {1: Field("partial_clusters_layout_bitmap", "uint32")},
    "FusedLayersMetadata": {
        1: Field("network_has_fused_layers", "bool"),
        2: Field("updated_sorted_output_names", "string", many=True),
        3: Field("fused_layers", "EdgeLayerFused", many=True),
    },
    "EdgeLayerFused": {1: Field("layer_info", "EdgeLayerInfo"), 3: Field("nms_info", "NmsInfo")},
    "Context": {3: Field("metadata", "ContextMetadata")},
    "ContextMetadata": {2: Field("edge_layers", "EdgeLayer", many=True), 5: _ORDER},
    "EdgeLayer": {
        1: Field("direction", "uint32"),
        2: Field("edge_layer_type", "uint32"),
        3: _EDGE["info"],
        4: _EDGE["mux"],
        5: Field("context_switch_info", "ContextSwitchInformation"),
        6: Field("network_index", "uint32"),
        7: Field("pad_index", "uint32"),
        8: _EDGE["planes"],
    },
    "ContextSwitchInformation": {3: Field("edge_connection_type", "uint32")},
    "Edge": {1: _EDGE["info"], 2: _EDGE["mux"], 3: _EDGE["planes"]},
    "EdgeLayerInfo": {
        1: Field("name", "string"),
        2: Field("edge_layer_base", "EdgeLayerBase"),
        3: Field("numeric_info", "EdgeLayerNumericInfo"),
        5: Field("original_names", "string", many=True),
        6: Field("transposed", "bool"),
    },
    "EdgeLayerMux": {
        1: Field("name", "string"),
        2: Field("edge_layer_base", "EdgeLayerBase"),
        3: Field("mux_data", "EdgeLayerMuxData"),
        5: Field("predecessors", "Edge", many=True),
    },
    "EdgeLayerMuxData": {1: Field("number_of_predecessors", "uint32")},
    "EdgeLayerPlanes": {
        1: Field("name", "string"),
        2: Field("planes_format", "uint32"),
        3: Field("planes", "Edge", many=True),
        4: Field("height", "uint32"),
        5: Field("width", "uint32"),
        6: Field("features", "uint32"),
    },
    "EdgeLayerBase": {
        1: Field("height", "uint32"),
        3: Field("width", "uint32"),
        5: Field("features", "uint32"),
        7: Field("format", "uint32"),
        8: Field("sys_index", "uint32"),
        9: Field("core_bytes_per_buffer", "uint32"),
        10: Field("core_buffers_per_frame", "uint32"),
        11: Field("additional_info", "AdditionalInfo"),
        12: Field("data_bytes", "uint32"),
        13: Field("buffer_indices", "ResourceIndices", many=True),
        14: Field("host_argmax", "bool"),
        16: Field("engine_id", "uint32"),
    },
    "ResourceIndices": {},
    "EdgeLayerNumericInfo": {
        1: Field("qp_zp", "float"),
        2: Field("qp_scale", "float"),
        5: Field("qp_zps", "double", many=True),
        6: Field("qp_scales", "double", many=True),
    },
    "AdditionalInfo": {1: Field("nms_info", "NmsInfo")},
    "NmsInfo": {
        2: Field("number_of_classes", "uint64"),
        3: Field("max_output_size", "uint64"),
        5: Field("is_defused", "bool"),
        6: Field("defuse_info", "NmsDefuseInfo"),
        7: Field("input_division_factor", "uint64"),
    },
    "NmsDefuseInfo": {3: Field("original_name", "string")},
    "Op": {
        1: Field("name", "string"),
        2: Field("input_pads", "Pad", many=True),
        3: Field("output_pads", "Pad", many=True),
        4: Field("core_op", "CoreOp", oneof="op"),
        5: Field("nms_op", "NmsOp", oneof="op"),
        6: Field("logits_op", "LogitsOp", oneof="op"),
    },
    "CoreOp": {
        1: Field("network_group_metadata", "NetworkGroupMetadata"),
        3: Field("contexts", "Context", many=True),
        5: Field("fused_layers_metadata", "FusedLayersMetadata"),
        6: _NETWORKS,
        7: Field("partial_core_ops", "PartialCoreOp", many=True),
    },
    "PartialCoreOp": {1: Field("core_op", "CoreOp"), 2: Field("layout", "PhysicalLayout")},
    "Pad": {
        1: Field("index", "uint32"),
        2: Field("name", "string"),
        3: Field("format_order", "uint32"),
        5: Field("numeric_info", "EdgeLayerNumericInfo"),
        8: Field("format_type", "uint32"),
    },
    "PadEdge": {1: Field("src", "uint32"), 2: Field("dst", "uint32")},
    "LogitsOp": {1: Field("logits_type", "uint32")},
    "NmsOp": {
        1: Field("nms_score_th", "double"),
        2: Field("nms_iou_th", "double"),
        3: Field("max_proposals_per_class", "uint32"),
        4: Field("classes", "uint32"),
        5: Field("background_removal", "bool"),
        6: Field("background_removal_index", "uint32"),
        7: Field("yolo_nms_op", "YoloNmsOp", oneof="nms_op"),
        8: Field("yolox_nms_op", "YoloxNmsOp", oneof="nms_op"),
        9: Field("ssd_nms_op", "SSDNmsOp", oneof="nms_op"),
        10: Field("iou_op", "IOUNmsOp", oneof="nms_op"),
        11: Field("yolo_seg_op", "YoloSegNmsOp", oneof="nms_op"),
        12: Field("yolov8_nms_op", "Yolov8NmsOp", oneof="nms_op"),
        13: Field("bbox_decoding_only", "bool"),
    },
    "YoloNmsOp": {**_IMAGE, 4: Field("bbox_decoders", "YoloBboxDecoder", many=True)},
    "YoloxNmsOp": {**_IMAGE, 3: Field("bbox_decoders", "YoloxBboxDecoder", many=True)},
    "SSDNmsOp": {**_IMAGE, 9: Field("bbox_decoders", "SSDBboxDecoder", many=True)},
    "IOUNmsOp": {},
    "YoloSegNmsOp": {
        **_IMAGE,
        3: Field("bbox_decoders", "YoloBboxDecoder", many=True),
        4: Field("proto_info", "YoloSegProtoInfo"),
    },
    "YoloSegProtoInfo": {3: Field("proto_layer", "string")},
    "Yolov8NmsOp": {**_IMAGE, 4: Field("bbox_decoders", "Yolov8BboxDecoder", many=True)},
    "YoloBboxDecoder": {
        2: Field("h", "uint32", many=True),
        3: Field("w", "uint32", many=True),
        4: Field("stride", "uint32"),
        5: Field("pad_index", "uint32"),
    },
    "YoloxBboxDecoder": {**_PADS_OF_STRIDE, 4: Field("obj_pad_index", "uint32")},
    "SSDBboxDecoder": {3: Field("reg_pad_index", "uint32"), 4: Field("cls_pad_index", "uint32")},
    "Yolov8BboxDecoder": _PADS_OF_STRIDE,
}
