"""Outputs of a HEF matched to heads: by spec, by names, by channels, by value ranges; or refused, never guessed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hefkit.errors import ModelError, UsageError
from hefkit.hef.file import read_hef
from hefkit.hef.match import Matched, match
from hefkit.open_model import check_model_file
from hefkit.spec import HeadSpec, InputSpec, ModelSpec
from tests.helpers import tiny_hef
from tests.helpers.chip_hef import Recipe, hef_spec, write_hef
from tests.helpers.heads import make_head, make_spec
from tests.helpers.hef_kinds import nms_hef

SIZE = (64, 96)
Match = Callable[..., Matched]


@pytest.fixture
def match_file(tmp_path: Path) -> Match:
    """`match_file(head, recipe, names=...)`: what the HEF of a head without a spec is taken for."""

    def do(head: HeadSpec, recipe: Recipe | None = None, names: dict[int, str] | None = None) -> Matched:
        write_hef(tmp_path / "m.hef", make_spec(head, SIZE), None, recipe)
        return match(read_hef(tmp_path / "m.hef"), names)

    return do


def head(classes: int = 3, reg_max: int = 16, nodes: tuple[str, str] | None = None, **kwargs: Any) -> HeadSpec:
    """A head whose ONNX nodes are called after ultralytics' modules: ("cv2", "cv3"), or ("", "") for none."""
    made = make_head(SIZE, num_classes=classes, reg_max=reg_max, **kwargs)
    if nodes is None:
        return made
    named = [
        replace(o, onnx_node=f"/model.23/{nodes[i % 2]}.{i // 2}/Conv" if nodes[i % 2] else "")
        for i, o in enumerate(made.outputs)
    ]
    return replace(made, outputs=tuple(named))


def form(spec: ModelSpec) -> list[tuple[str, int, str | None]]:
    """Role, stride and stream of every output."""
    return [(o.role, o.stride, o.stream) for o in spec.head.outputs]


IN_ORDER = [(role, stride, f"net/conv{2 * i + j + 1}") for i, stride in enumerate((8, 16, 32))
            for j, role in enumerate(("box", "cls"))]  # fmt: skip
NAMES, CHANNELS, RANGES, COUNT, ORDER = (
    "the names of their ONNX nodes", "their channels", "the ranges of their values", "the number of names",
    "their order in the file",
)  # fmt: skip

# head, recipe, names given -> what told boxes from classes, family, classes, bins
SETTLED: dict[str, tuple[HeadSpec, Recipe, dict[int, str] | None, str, str, int, int]] = {
    "channels": (head(3), Recipe(), None, CHANNELS, "dfl", 3, 16),
    "one class": (head(1), Recipe(original_names=False), None, CHANNELS, "dfl", 1, 16),
    "distances": (head(2, reg_max=1), Recipe(), None, CHANNELS, "ltrb", 2, 1),
    "names": (head(80, nodes=("cv2", "cv3")), Recipe(), None, NAMES, "dfl", 80, 16),
    "names, another number of bins": (head(3, reg_max=8, nodes=("cv2", "cv3")), Recipe(), None, NAMES, "dfl", 3, 8),
    "names, 64 classes": (head(64, nodes=("cv2", "cv3")), Recipe(), None, NAMES, "dfl", 64, 16),
    "names, 4 classes and 4 distances": (head(4, reg_max=1, nodes=("cv2", "cv3")), Recipe(), None, NAMES, "ltrb", 4, 1),
    "64 classes, sigmoid": (head(64), Recipe(original_names=False), None, RANGES, "dfl", 64, 16),
    "4 classes beside bins, sigmoid": (head(4), Recipe(original_names=False), None, RANGES, "dfl", 4, 16),
    "4 classes beside distances": (head(4, reg_max=1), Recipe(original_names=False), None, RANGES, "ltrb", 4, 1),
    "64 classes beside distances": (head(64, reg_max=1), Recipe(original_names=False), None, RANGES, "ltrb", 64, 1),
    "4 classes as logits, four names": (
        head(4, activation="none"), Recipe(original_names=False), dict.fromkeys(range(4), "x"), COUNT, "dfl", 4, 16,
    ),
    "classes first in the file": (head(64), Recipe(order=(1, 0, 3, 2, 5, 4)), None, RANGES, "dfl", 64, 16),
    "all boxes, then all classes": (head(64), Recipe(order=(0, 2, 4, 1, 3, 5)), None, RANGES, "dfl", 64, 16),
    "large strides first": (head(3), Recipe(order=(4, 5, 2, 3, 0, 1)), None, CHANNELS, "dfl", 3, 16),
    "unusual bins, sigmoid": (head(3, reg_max=8), Recipe(original_names=False), None, RANGES, "dfl", 3, 8),
    "unusual bins beside many classes": (head(80, reg_max=8), Recipe(original_names=False), None, RANGES, "dfl", 80, 8),
    "4 classes as logits beside bins": (
        head(4, activation="none"), Recipe(original_names=False), None, ORDER, "dfl", 4, 16,
    ),
    "64 classes as logits beside distances": (
        head(64, 1, activation="none"), Recipe(original_names=False, order=(0, 2, 4, 1, 3, 5)), None, ORDER, "ltrb",
        64, 1,
    ),
    "an 8L's file": (head(3), Recipe(arch="hailo8l"), None, CHANNELS, "dfl", 3, 16),
}  # fmt: skip


@pytest.mark.parametrize(("made", "recipe", "names", "how", "family", "classes", "bins"), SETTLED.values(), ids=SETTLED)
def test_settled_without_a_spec(
    match_file: Match, made: HeadSpec, recipe: Recipe, names: dict[int, str] | None, how: str, family: str,
    classes: int, bins: int,
) -> None:  # fmt: skip
    """Pairs by size, strides from the input, roles by the first evidence that settles them; and that is said."""
    found = match_file(made, recipe, names)

    assert form(found.spec) == IN_ORDER
    got = found.spec.head
    assert (got.family, got.num_classes, got.reg_max, got.nms_free) == (family, classes, bins, False)
    assert f"boxes and classes are distinguished by {how}" in found.facts
    assert found.spec.input == InputSpec(SIZE)
    assert found.assumed[0] == "pictures are letterboxed with gray 114"
    assert ("classes are called" in " ".join(found.assumed)) == (names is None)
    assert ("boxes come before classes" in " ".join(found.assumed)) == (how == ORDER)


REFUSED = {
    "64 classes as logits": (head(64, activation="none"), Recipe(original_names=False)),
    "4 classes as logits beside bins, in no order": (
        head(4, activation="none"), Recipe(original_names=False, order=(0, 1, 3, 2, 4, 5)),
    ),
    "4 classes as logits beside distances": (head(4, 1, activation="none"), Recipe(original_names=False)),
    "anchors of another network": (head(810, reg_max=9), Recipe(original_names=False)),
    "unusual bins without names": (head(3, reg_max=8, activation="none"), Recipe(original_names=False)),
}  # fmt: skip


@pytest.mark.parametrize(("made", "recipe"), REFUSED.values(), ids=REFUSED)
def test_refused_where_nothing_tells(match_file: Match, made: HeadSpec, recipe: Recipe) -> None:
    """The message lists all outputs, and names the spec that would settle it."""
    with pytest.raises(ModelError, match="cannot be decoded: the file does not show which outputs are boxes") as caught:
        match_file(made, recipe)

    assert all(f"net/conv{i} " in str(caught.value) for i in range(1, 7))
    assert "m.json of the compilation" in str(caught.value)


def test_names_that_contradict_are_no_evidence(match_file: Match) -> None:
    """A fused layer may carry both names; then channels decide."""
    found = match_file(head(3, nodes=("cv2", "cv2")))

    assert "boxes and classes are distinguished by their channels" in found.facts


@pytest.mark.parametrize(
    ("activation", "words"), [("sigmoid", "class tensors hold probabilities"), ("none", "class tensors hold logits")]
)
def test_activation_by_range(match_file: Match, activation: str, words: str) -> None:
    """A baked sigmoid spans 0 to 1, logits go far below."""
    found = match_file(head(3, activation=activation))

    assert [o.activation for o in found.spec.head.outputs] == ["none", activation] * 3
    assert f"{words}, by their range" in found.facts


@pytest.mark.parametrize(
    ("scale", "zero_point"),
    [
        pytest.param(0.01, 0, id="0 to 2.55"),
        pytest.param(0.01, 50, id="-0.5 to 2.05"),
        pytest.param(0.0003, 100, id="-0.03 to 0.05"),
    ],
)
def test_classes_that_are_neither(match_file: Match, scale: float, zero_point: float) -> None:
    """Scores out of either reading would be nonsense."""
    made = head(3)
    odd = [replace(o, scale=scale, zero_point=zero_point) if o.role == "cls" else o for o in made.outputs]

    with pytest.raises(ModelError, match="neither probabilities nor logits"):
        match_file(replace(made, outputs=tuple(odd)))


def test_end_to_end_head_by_its_names(match_file: Match) -> None:
    """YOLO26's one2one modules are known to need no NMS."""
    found = match_file(head(3, reg_max=1, nodes=("one2one_cv2", "one2one_cv3")))

    assert found.spec.head.nms_free
    assert "the head is end-to-end and needs no NMS, by the names of its nodes" in found.facts


def test_distances_without_names_get_nms(match_file: Match) -> None:
    """Whether such a head is end-to-end cannot be seen; NMS harms it least, and is said to be assumed."""
    found = match_file(head(3, reg_max=1), Recipe(original_names=False))

    assert not found.spec.head.nms_free
    assert "boxes need NMS (those of an end-to-end head would not)" in found.assumed


def test_scales_a_feature_and_mixed_types(match_file: Match) -> None:
    """Each output keeps its own type, and lists of scales stay lists."""
    found = match_file(head(3), Recipe(multiply={0: [1 + i % 4 for i in range(64)], 3: [257] * 3}))

    outputs = found.spec.head.outputs
    assert [o.dtype for o in outputs] == ["uint16", "uint8", "uint8", "uint16", "uint8", "uint8"]
    assert isinstance(outputs[0].scale, tuple) and outputs[0].scale[:4] == pytest.approx(
        [16 / 255 / f for f in (1, 2, 3, 4)]
    )
    assert outputs[3].scale == pytest.approx([1 / 65535] * 3)


# --- with a spec -----------------------------------------------------------------------------------------------------


@pytest.fixture
def with_spec(tmp_path: Path) -> Match:
    """`with_spec(head, recipe, change)`: matched by the spec beside it, after `change` of its JSON."""

    def do(made: HeadSpec, recipe: Recipe | None = None, change: Callable[[dict[str, Any]], None] | None = None,
           names: dict[int, str] | None = None) -> Matched:  # fmt: skip
        write_hef(tmp_path / "m.hef", make_spec(made, SIZE), None, recipe, beside=True)
        if change is not None:
            value = json.loads((tmp_path / "m.json").read_text())
            change(value)
            (tmp_path / "m.json").write_text(json.dumps(value))
        return match(read_hef(tmp_path / "m.hef"), names)

    return do


def test_the_spec_settles_everything(with_spec: Match) -> None:
    """What is ambiguous without it; nothing is assumed, and nothing need be said."""
    found = with_spec(head(64, activation="none"), Recipe(original_names=False, order=(5, 1, 2, 0, 4, 3)))

    assert form(found.spec) == IN_ORDER
    assert [o.activation for o in found.spec.head.outputs] == ["none"] * 6
    assert (found.facts, found.assumed) == ((), ())


def nameless(value: dict[str, Any]) -> None:
    """A spec that knows no stream, as before the compiler named them."""
    for output in value["head"]["outputs"]:
        output["stream"] = None


def test_a_spec_without_streams_by_form(with_spec: Match) -> None:
    """Every shape occurs once: that is enough; scale and zero point come from the file."""
    found = with_spec(head(3), change=nameless)

    assert form(found.spec) == IN_ORDER
    assert found.spec.head.outputs[0].scale == pytest.approx(16 / 255)


def test_a_spec_without_streams_by_node(with_spec: Match) -> None:
    """Equal shapes are told apart by the ONNX nodes that both files know."""
    found = with_spec(head(64, nodes=("cv2", "cv3")), Recipe(order=(1, 0, 3, 2, 5, 4)), nameless)

    assert form(found.spec) == IN_ORDER


def test_a_spec_without_streams_that_leaves_a_doubt(with_spec: Match) -> None:
    """Equal shapes, no nodes: refused."""
    with pytest.raises(ModelError, match="does not say which output is the box tensor at stride 8"):
        with_spec(head(64), Recipe(original_names=False), nameless)


def test_the_metadata_that_ultralytics_leaves_beside_a_model(match_file: Match, tmp_path: Path) -> None:
    """Names for nothing, and what 4 classes are where 4 distances could be as well; those of another model are not."""
    (tmp_path / "metadata.yaml").write_text("task: detect\nnames:\n  0: a\n  1: b\n  2: c\n  3: d\n")

    mixed = Recipe(original_names=False, order=(0, 1, 3, 2, 4, 5))
    found = match_file(head(4, activation="none"), mixed)
    assert found.spec.names == {0: "a", 1: "b", 2: "c", 3: "d"} and found.spec.head.reg_max == 16
    assert f"boxes and classes are distinguished by {COUNT}" in found.facts
    assert "the class names of the metadata.yaml beside it" in found.assumed

    other = match_file(head(3))
    assert other.spec.names == {0: "class0", 1: "class1", 2: "class2"}
    assert "the metadata.yaml beside it is ignored: its classes are not 0 to 2" in other.assumed
    (tmp_path / "metadata.yaml").write_text("names:\n  1: a\n  2: b\n  3: c\n")
    assert match_file(head(3)).spec.names == {0: "class0", 1: "class1", 2: "class2"}
    (tmp_path / "metadata.yaml").write_text("names: 3")
    assert "classes are called class0" in " ".join(match_file(head(3)).assumed)


def test_the_real_folder_of_ultralytics(shared: Path) -> None:
    """../shared/field: the only HEF of the folder; its 80 classes are not the 2 of the metadata."""
    found = match(read_hef(check_model_file(shared / "field" / "11-ultralytics-hailo-folder" / "best_hailo_model")))

    assert found.spec.input.size == (640, 640) and found.spec.names[79] == "class79"
    assert "the metadata.yaml beside it is ignored: its classes are not 0 to 79" in found.assumed


@pytest.mark.parametrize("foreign", ['{"annotations": []}', "[1, 2]", '{"format": 1, "names": {"0": "a"}}'])
def test_a_json_of_another_program_is_ignored(
    with_spec: Match, tmp_path: Path, foreign: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is named once, and the file alone says what it holds; a spec of ours that is broken is still refused."""
    with_spec(head(3))
    (tmp_path / "m.json").write_text(foreign)

    found = match(read_hef(tmp_path / "m.hef"))

    assert found.spec.names == {0: "class0", 1: "class1", 2: "class2"} and found.assumed
    assert [r.getMessage() for r in caplog.records] == [f"{tmp_path / 'm.json'} is not a spec of hefkit; it is ignored"]
    for broken in ('{"head"', '{"tool": "hefkit 0.1.0"}', '{"format": 2, "head": {}}'):
        (tmp_path / "m.json").write_text(broken)
        with pytest.raises(ModelError, match=r"the spec .*m\.json"):
            match(read_hef(tmp_path / "m.hef"))


def test_names_replace_those_of_the_spec(with_spec: Match) -> None:
    """Those that are left out get numbers; names of a larger model are refused."""
    found = with_spec(head(2), names={0: "drone", 1: "bird"})
    assert found.spec.names == {0: "drone", 1: "bird"}

    assert with_spec(head(2), names={1: "bird"}).spec.names == {0: "class0", 1: "bird"}
    with pytest.raises(UsageError, match=r"name for class 2, but the model has 2 classes"):
        with_spec(head(2), names={0: "a", 1: "b", 2: "c"})


def test_a_spec_of_another_file(with_spec: Match) -> None:
    """Shapes, scales, chip: the first difference is named."""

    def other(value: dict[str, Any]) -> None:
        value["head"]["outputs"][0]["scale"] *= 1.5

    with pytest.raises(ModelError, match="do not belong together: the box output at stride 8 has another scale"):
        with_spec(head(2), change=other)


# --- boxes decoded inside --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nms", ["host", "chip", "boxes"])
def test_decoded_boxes(match_file: Match, nms: str) -> None:
    """What HailoRT's output holds, who set the thresholds, and whether they may be set."""
    found = match_file(head(3), Recipe(nms=nms, most=20))

    assert found.spec.nms is not None
    got = found.spec.nms
    anchors = 8 * 12 + 4 * 6 + 2 * 3
    assert got.shape == {"boxes": (1, anchors, 7)}.get(nms, (3 * (1 + 5 * 20),))
    assert (got.boxes_only, got.adjustable, got.image_size) == (nms == "boxes", nms == "host", SIZE)
    assert got.max_per_class == (0 if nms == "boxes" else 20)
    assert got.score_threshold == (None if nms == "chip" else pytest.approx(0.2))
    assert (found.spec.head.family, found.spec.head.outputs, found.spec.head.num_classes) == ("nms", (), 3)
    assert len(found.facts) == 1


NOT_OURS = {
    "two networks": (
        tiny_hef.hef_file(
            tiny_hef.hef(*[tiny_hef.group(tiny_hef.yolo_layers(), tiny_hef.YOLO_ORDER, name) for name in ("a", "b")])
        ),
        "holds 2 networks",
    ),
    "two inputs": (
        tiny_hef.hef_file(
            tiny_hef.hef(
                tiny_hef.group(
                    [*tiny_hef.yolo_layers(), tiny_hef.edge(tiny_hef.info("net/more", 8, 8, 3), output=False)],
                    tiny_hef.YOLO_ORDER,
                )
            )
        ),
        "expected one RGB picture",
    ),
    "a gray picture": (
        tiny_hef.hef_file(
            tiny_hef.hef(
                tiny_hef.group(
                    [tiny_hef.edge(tiny_hef.info("net/input", 64, 64, 1), output=False), *tiny_hef.yolo_layers()[1:]],
                    tiny_hef.YOLO_ORDER,
                )
            )
        ),
        "expected one RGB picture",
    ),
    "a 16-bit picture": (
        tiny_hef.hef_file(
            tiny_hef.hef(
                tiny_hef.group(
                    [
                        tiny_hef.edge(tiny_hef.info("net/input", 64, 64, 3, data_bytes=2), output=False),
                        *tiny_hef.yolo_layers()[1:],
                    ],
                    tiny_hef.YOLO_ORDER,
                )
            )
        ),
        "takes uint16 pictures",
    ),
    "no detector": (
        tiny_hef.hef_file(
            tiny_hef.hef(
                tiny_hef.group(
                    [tiny_hef.input_layer(), tiny_hef.edge(tiny_hef.info("net/fc", 1, 1, 1000, fmt=2))], ["net/fc"]
                )
            )
        ),
        "has no YOLO heads that hefkit knows",
    ),
    "no scale": (
        tiny_hef.hef_file(
            tiny_hef.hef(
                tiny_hef.group(
                    [tiny_hef.input_layer()]
                    + [
                        tiny_hef.edge(tiny_hef.info(f"net/{role}", 8, 8, channels, scale=0))
                        for role, channels in (("box", 64), ("cls", 2))
                    ],
                    ["net/box", "net/cls"],
                )
            )
        ),
        "has no scale",
    ),
    "masks": (tiny_hef.hef_file(nms_hef(11)), "returns HAILO_NMS_WITH_BYTE_MASK"),
    "YOLOv5 boxes without NMS": (
        tiny_hef.hef_file(nms_hef(7, more=tiny_hef.field(13, 1))),
        "over yolov5 boxes to the user",
    ),
}


@pytest.mark.parametrize(("data", "words"), NOT_OURS.values(), ids=NOT_OURS)
def test_what_hefkit_cannot_run(tmp_path: Path, data: bytes, words: str) -> None:
    """Refused with what the file has and what was expected."""
    (tmp_path / "m.hef").write_bytes(data)

    with pytest.raises(ModelError, match=words):
        match(read_hef(tmp_path / "m.hef"))


@pytest.mark.parametrize("name", ["y8_v2", "y8_v3", "y8_8l"])
def test_samples_with_raw_heads(shared: Path, name: str) -> None:
    """Files that the real HailoRT read: two classes, told by their nodes; names of streams are the compiler's."""
    found = match(read_hef(shared / "models" / "hef" / f"{name}.hef"))

    numbers = iter((41, 42, 52, 53, 63, 64))
    assert form(found.spec) == [
        (role, stride, f"yolov8n/conv{next(numbers)}") for stride in (8, 16, 32) for role in ("box", "cls")
    ]
    assert (found.spec.head.num_classes, found.spec.input.size) == (2, (640, 640))
    assert f"boxes and classes are distinguished by {NAMES}" in found.facts


def test_sample_with_nms_inside(shared: Path) -> None:
    """80 classes, 100 boxes each."""
    found = match(read_hef(shared / "models" / "hef" / "y8_nms.hef")).spec

    assert found.nms is not None and found.nms.shape == (80 * (1 + 5 * 100),)
    assert (found.nms.score_threshold, found.nms.iou_threshold) == (0.25, 0.7)


def test_the_helper_s_spec_is_a_spec(tmp_path: Path) -> None:
    """What the tests put beside a HEF is read back as it was."""
    spec = write_hef(tmp_path / "m.hef", make_spec(head(2), SIZE), None, beside=True)

    assert spec == hef_spec(make_spec(head(2), SIZE))
