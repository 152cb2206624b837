"""The error for a graph that is not a detector that hefkit decodes: what it is, what was seen, what is supported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hefkit.errors import ModelError
from hefkit.workshop.heads.tail import Head, Role
from hefkit.workshop.network.file import OnnxFile, metadata
from hefkit.workshop.network.graph import Graph

SUPPORTED = (
    "expected one box and one class Conv at every scale (YOLOv5u, v6, v8, v9, v10, 11, 12, 26, LeYOLO and similar); "
    "export a detection model"
)
NAME_THEM = ", or name the Convs of its boxes and classes to compile_to_hef.py with --end-nodes"
UNCUT = "give the uncut export (yolo export model=best.pt format=onnx): hefkit cuts it itself"
MAX_SHOWN = 12  # end Convs
WORDS = {"box": " (box)", "cls": " (class)", None: ""}
QUANTISED = frozenset({"QLinearConv", "ConvInteger", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})
CUT = "a network that has been cut at its heads already"
# operators that decode no box, below the heads of networks that were cut for chips of Hailo, Rockchip, Axera
DECODES_NOTHING = frozenset(
    ("Sigmoid", "ReduceSum", "Clip", "Reshape", "Transpose", "Concat", "Flatten", "Squeeze", "Unsqueeze", "Identity")
) | frozenset(("Cast", "Split", "Slice", "Shape"))
TASKS = {
    "classify": "a classifier",
    "segment": "a segmentation model",
    "pose": "a pose model",
    "obb": "a model for oriented boxes (OBB)",
}
TWO_HEADS = "a detector with two heads (a training export, or one-to-many beside one-to-one)"
HOLDS_A_DETECTOR = (TASKS["segment"], TASKS["pose"], TWO_HEADS)  # --end-nodes takes it out


def refusal(file: OnnxFile, graph: Graph, heads: Sequence[Head], roles: Sequence[Role]) -> ModelError:
    """The error for heads that do not pair up as box and class."""
    kind = _kind(graph, heads, roles)
    task = metadata(file.model).get("task", "")
    if kind is None and task in TASKS:
        kind = TASKS[task]
    noted = f", task {task[:40]!r} in its metadata" if task and task != "detect" else ""
    if kind == CUT:
        return ModelError(
            f"{file.path} is {kind}{noted}; seen {_seen(heads, roles)}; expected the decoding of the boxes below them, "
            f"which proves the cut; {UNCUT}"
        )
    cure = SUPPORTED + (NAME_THEM if kind in HOLDS_A_DETECTOR else "")
    return ModelError(
        f"{file.path} is {kind or 'not a detector that hefkit knows'}{noted}; seen {_seen(heads, roles)}; {cure}"
    )


def is_cut(graph: Graph, heads: Sequence[Head]) -> bool:
    """Whether nothing below the heads decodes a box. One Conv at every scale is an anchor-based detector."""
    below = _ops_below(graph, heads)
    scales = Counter(h.shape[:2] for h in heads)
    return bool(heads) and (not below or (max(scales.values()) > 1 and DECODES_NOTHING.issuperset(below)))


def refuse_quantised(file: OnnxFile, graph: Graph) -> None:
    """Raise ModelError for a model that is quantised already: the Hailo compiler needs float weights."""
    ops = {graph.nodes[i].op_type for i in graph.alive} & QUANTISED
    if ops:
        raise ModelError(
            f"{file.path} is quantised already (it holds {', '.join(sorted(ops))}); expected a float model; "
            "export it without int8"
        )


def unpaired(heads: Sequence[Head], roles: Sequence[Role]) -> ModelError:
    """The error for --end-nodes that do not pair up."""
    scales: dict[tuple[int, int], list[str]] = {}
    for head, role in zip(heads, roles, strict=True):
        scales.setdefault(head.shape[:2], []).append(f"{head.node_name!r}{WORDS[role]}")
    parts = [f"{h}x{w}: {', '.join(names)}" for (h, w), names in scales.items()]
    return ModelError(
        f"--end-nodes do not pair up: {'; '.join(parts)}; expected one box and one class Conv at every scale, "
        "all of the same channels"
    )


def _kind(graph: Graph, heads: Sequence[Head], roles: Sequence[Role]) -> str | None:
    """What the graph is, by its structure; None if hefkit does not know."""
    ops = Counter(graph.nodes[i].op_type for i in graph.alive)
    below = _ops_below(graph, heads)
    count = Counter(role or "other" for role in roles)
    scales = Counter(h.shape[:2] for h in heads)
    if not heads:
        return "a network without a Conv that could be a head"
    if count["other"] == len(heads) and below["Softmax"] and below["MatMul"]:
        return "a detector with a transformer decoder (RT-DETR or the like)"
    if len(heads) == 1 and (below["GlobalAveragePool"] or below["Gemm"] or below["ReduceMean"] or below["Flatten"]):
        return "a classifier"
    if is_cut(graph, heads):
        return CUT
    if set(scales.values()) == {2} and count["box"] == count["other"] == len(scales):
        compared = _ops_below(graph, [h for h, role in zip(heads, roles, strict=True) if role is None])
        if compared["Sigmoid"] and (compared["MatMul"] or compared["Einsum"] or compared["Gemm"]):
            return "an open-vocabulary detector (YOLO-World, YOLOE), which compares features with those of texts"
        return "a detector whose class scores do not enter a Sigmoid"
    if max(scales.values()) == 1:
        anchors = len({h.shape[2] for h in heads}) == 1 and heads[0].shape[2] % 3 == 0
        return "an anchor-based detector (YOLOv3, v4, v5 before u, v7)" if anchors else None
    if count["cls"] and _is_doubled(heads):
        return TWO_HEADS
    return _three_convs(heads, roles, ops, below)


def _three_convs(heads: Sequence[Head], roles: Sequence[Role], ops: Counter[str], below: Counter[str]) -> str | None:
    """A name for box, class and a third Conv at every scale."""
    third = _third_channels(heads, roles)
    if third is None:
        return None
    if third != {1}:
        return TASKS["segment"] if ops["ConvTranspose"] or _has_prototypes(heads) else TASKS["pose"]
    if below["Sin"] or below["Cos"]:
        return TASKS["obb"]
    return f"{'a YOLOX' if below['Exp'] else 'a detector'} with an objectness Conv at every scale"


def _third_channels(heads: Sequence[Head], roles: Sequence[Role]) -> set[int] | None:
    """Channel counts of the third Conv beside a box and a class Conv; None if a scale has another set of Convs."""
    scales: dict[tuple[int, int], list[tuple[str | None, int]]] = {}
    for head, role in zip(heads, roles, strict=True):
        scales.setdefault(head.shape[:2], []).append((role, head.shape[2]))
    triples = [scale for scale in scales.values() if len(scale) == 3]
    found = set()
    for scale in triples:
        boxes, classes, rest = ([c for role, c in scale if role == word] for word in ("box", "cls", None))
        if len(boxes) != 1 or not classes:
            return None
        # objectness and angles enter a Sigmoid, as classes do, but have one channel
        found.add(rest[0] if rest else min(classes))
    return found or None


def _is_doubled(heads: Sequence[Head]) -> bool:
    """Whether every scale has each kind of Conv twice; the second set may lead to its own output."""
    scales = Counter(h.shape[:2] for h in heads)
    shapes = Counter(h.shape for h in heads)
    return min(scales.values()) >= 4 and all(count % 2 == 0 for count in shapes.values())


def _has_prototypes(heads: Sequence[Head]) -> bool:
    """Whether the finest grid has one Conv only: the mask prototypes."""
    finest = max(h.shape[:2] for h in heads)
    return sum(h.shape[:2] == finest for h in heads) == 1


def _ops_below(graph: Graph, heads: Sequence[Head]) -> Counter[str]:
    return Counter(node.op_type for node in graph.below([h.tensor_name for h in heads]))


def _seen(heads: Sequence[Head], roles: Sequence[Role]) -> str:
    """What the end Convs are: `80x80: 64 (box) + 80 (class) + 32, 40x40: ...`"""
    scales: dict[tuple[int, int], list[str]] = {}
    for head, role in list(zip(heads, roles, strict=True))[:MAX_SHOWN]:
        scales.setdefault(head.shape[:2], []).append(f"{head.shape[2]}{WORDS[role]}")
    parts = [f"{h}x{w}: {' + '.join(convs)}" for (h, w), convs in scales.items()]
    return "end Convs with these channels: " + ", ".join(parts) if parts else "no end Conv"
