"""The messages of `hef.proto` (HailoRT 4.23) as far as an inspection needs them: names without `ProtoHEF`.

Enums are uint32 here. Fields that are not listed are skipped, above all the chip's instructions and weights.
"""

from __future__ import annotations

import re

from hefkit.hef.wire import Field

PROTO = """
message Hef {
  Header header = 1; repeated NetworkGroup network_groups = 2; repeated Extension extensions = 5;
  repeated Extension optional_extensions = 6; repeated ExternalResource external_resources = 7;
}
message Header { uint32 hw_arch = 1; string sdk_version = 3; uint64 version = 4; }
message Extension { uint32 type_index = 1; string name = 2; }
message ExternalResource { string name = 3; }

message NetworkGroup {
  NetworkGroupMetadata network_group_metadata = 1; repeated Context contexts = 3;
  repeated string sorted_outputs_order = 4; FusedLayersMetadata fused_layers_metadata = 5;
  repeated string networks_names = 6; repeated PartialNetworkGroup partial_network_groups = 7;
  repeated Op ops = 8; repeated PadEdge pad_edges = 9;
}
message NetworkGroupMetadata { string network_group_name = 1; bool transposed_net = 3; double bottleneck_fps = 4; }
message PartialNetworkGroup { NetworkGroup network_group = 1; PhysicalLayout layout = 2; }
message PhysicalLayout { uint32 partial_clusters_layout_bitmap = 1; }
message FusedLayersMetadata {
  bool network_has_fused_layers = 1; repeated string updated_sorted_output_names = 2;
  repeated EdgeLayerFused fused_layers = 3;
}
message EdgeLayerFused { EdgeLayerInfo layer_info = 1; NmsInfo nms_info = 3; }
message Context { ContextMetadata metadata = 3; }
message ContextMetadata { repeated EdgeLayer edge_layers = 2; repeated string sorted_outputs_order = 5; }

message EdgeLayer {
  uint32 direction = 1; uint32 edge_layer_type = 2;
  oneof edge { EdgeLayerInfo layer_info = 3; EdgeLayerMux layer_mux = 4; EdgeLayerPlanes layer_planes = 8; }
  ContextSwitchInformation context_switch_info = 5; uint32 network_index = 6; uint32 pad_index = 7;
}
message Edge {
  oneof edge { EdgeLayerInfo layer_info = 1; EdgeLayerMux layer_mux = 2; EdgeLayerPlanes layer_planes = 3; }
}
message ContextSwitchInformation { uint32 edge_connection_type = 3; }
message EdgeLayerInfo {
  string name = 1; EdgeLayerBase edge_layer_base = 2; EdgeLayerNumericInfo numeric_info = 3;
  repeated string original_names = 5; bool transposed = 6;
}
message EdgeLayerMux {
  string name = 1; EdgeLayerBase edge_layer_base = 2; EdgeLayerMuxData mux_data = 3; repeated Edge predecessors = 5;
}
message EdgeLayerMuxData { uint32 number_of_predecessors = 1; }
message EdgeLayerPlanes {
  string name = 1; uint32 planes_format = 2; repeated Edge planes = 3;
  uint32 height = 4; uint32 width = 5; uint32 features = 6;
}
message EdgeLayerBase {
  uint32 height = 1; uint32 width = 3; uint32 features = 5; uint32 format = 7; uint32 sys_index = 8;
  uint32 core_bytes_per_buffer = 9; uint32 core_buffers_per_frame = 10; AdditionalInfo additional_info = 11;
  uint32 data_bytes = 12; repeated ResourceIndices buffer_indices = 13; bool host_argmax = 14; uint32 engine_id = 16;
}
message ResourceIndices { }
message EdgeLayerNumericInfo {
  float qp_zp = 1; float qp_scale = 2; repeated double qp_zps = 5; repeated double qp_scales = 6;
}
message AdditionalInfo { NmsInfo nms_info = 1; }
message NmsInfo {
  uint64 number_of_classes = 2; uint64 max_output_size = 3; bool is_defused = 5; NmsDefuseInfo defuse_info = 6;
  uint64 input_division_factor = 7;
}
message NmsDefuseInfo { string original_name = 3; }

message Op {
  string name = 1; repeated Pad input_pads = 2; repeated Pad output_pads = 3;
  oneof op { CoreOp core_op = 4; NmsOp nms_op = 5; LogitsOp logits_op = 6; }
}
message CoreOp {
  NetworkGroupMetadata network_group_metadata = 1; repeated Context contexts = 3;
  FusedLayersMetadata fused_layers_metadata = 5; repeated string networks_names = 6;
  repeated PartialCoreOp partial_core_ops = 7;
}
message PartialCoreOp { CoreOp core_op = 1; PhysicalLayout layout = 2; }
message Pad {
  uint32 index = 1; string name = 2; uint32 format_order = 3; EdgeLayerNumericInfo numeric_info = 5;
  uint32 format_type = 8;
}
message PadEdge { uint32 src = 1; uint32 dst = 2; }
message LogitsOp { uint32 logits_type = 1; }

message NmsOp {
  double nms_score_th = 1; double nms_iou_th = 2; uint32 max_proposals_per_class = 3; uint32 classes = 4;
  bool background_removal = 5; uint32 background_removal_index = 6; bool bbox_decoding_only = 13;
  oneof nms_op {
    YoloNmsOp yolo_nms_op = 7; YoloxNmsOp yolox_nms_op = 8; SSDNmsOp ssd_nms_op = 9; IOUNmsOp iou_op = 10;
    YoloSegNmsOp yolo_seg_op = 11; Yolov8NmsOp yolov8_nms_op = 12;
  }
}
message YoloNmsOp { double image_height = 1; double image_width = 2; repeated YoloBboxDecoder bbox_decoders = 4; }
message YoloxNmsOp { double image_height = 1; double image_width = 2; repeated YoloxBboxDecoder bbox_decoders = 3; }
message SSDNmsOp { double image_height = 1; double image_width = 2; }
message IOUNmsOp { }
message YoloSegNmsOp { double image_height = 1; double image_width = 2; repeated YoloBboxDecoder bbox_decoders = 3; }
message Yolov8NmsOp { double image_height = 1; double image_width = 2; repeated Yolov8BboxDecoder bbox_decoders = 4; }
message YoloBboxDecoder { repeated uint32 h = 2; repeated uint32 w = 3; uint32 stride = 4; uint32 pad_index = 5; }
message YoloxBboxDecoder { uint32 stride = 1; }
message Yolov8BboxDecoder { uint32 stride = 1; uint32 reg_pad_index = 2; uint32 cls_pad_index = 3; }
"""

_TOKEN = re.compile(
    r"message (?P<message>\w+) {|oneof (?P<oneof>\w+) {|(?P<end>})"
    r"|(?P<many>repeated )?(?P<kind>\w+) (?P<name>\w+) = (?P<number>\d+);|(?P<wrong>\S+)"
)


def parse_proto(text: str) -> dict[str, dict[int, Field]]:
    """Messages in the syntax above -> message -> number -> field; the syntax is a part of proto3's.

    Raises:
        ValueError: anything else, or a number that stands twice in a message.
    """
    schema: dict[str, dict[int, Field]] = {}
    message = oneof = ""
    for token in _TOKEN.finditer(text):
        if token["message"]:
            message, oneof = token["message"], ""
            schema[message] = {}
        elif token["oneof"]:
            oneof = token["oneof"]
        elif token["end"] and message:
            message, oneof = (message, "") if oneof else ("", "")
        elif token["end"] or token["wrong"] or not message or int(token["number"]) in schema[message]:
            raise ValueError(f"{token[0]!r} does not belong here")
        else:
            many = token["many"] is not None
            schema[message][int(token["number"])] = Field(token["name"], token["kind"], many, oneof)
    return schema


SCHEMA = parse_proto(PROTO)
