"""Which output is a box tensor and which a class tensor: the inspection and the run say the same, and why.

Every case is a file that both read: `describe` is what validate_hef.py prints, `match` is what hailo_inference.py runs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from hefkit.errors import ModelError
from hefkit.hef.file import read_hef
from hefkit.hef.heads import MAX_LISTED, judge, listed
from hefkit.hef.match import match
from hefkit.hef.words import describe
from hefkit.spec import HeadSpec
from tests.conftest import AsHef
from tests.helpers.chip_hef import Recipe, write_hef
from tests.helpers.heads import make_head, make_spec
from tests.helpers.tiny_hef import edge, group, hef, hef_file, info, input_layer

SIZE = (64, 96)
NODES = ("/model.23/cv2.0/Conv", "/model.23/cv3.0/Conv")
PROBABILITIES, LOGITS, BOXES, SHORT = (1 / 255, 0), (16 / 255, 128), (16 / 255, 127), (1.5 / 255, 0)
Quantisation = tuple[float, float]


def write(path: Path, channels: tuple[int, int], first: Quantisation, second: Quantisation,
          nodes: tuple[str, str] = ("", ""), data_bytes: int = 1) -> None:  # fmt: skip
    """Two outputs a stride with these channels, scales and zero points, in this order."""
    layers, order = [input_layer(SIZE)], []
    for stride in (8, 16, 32):
        for name, count, (scale, zero_point), node in zip("xy", channels, (first, second), nodes, strict=True):
            cells = (SIZE[0] // stride, SIZE[1] // stride)
            layer = info(f"{name}{stride}", *cells, count, scale=scale, zero_point=zero_point, data_bytes=data_bytes,
                         names=[node] if node else [])  # fmt: skip
            layers.append(edge(layer))
            order.append(f"{name}{stride}")
    path.write_bytes(hef_file(hef(group(layers, order))))


def both(path: Path) -> HeadSpec:
    """The head of the run, after the inspection has said the same of the same file."""
    found, said = match(read_hef(path)), describe(read_hef(path))
    head = found.spec.head
    bins = f"{head.reg_max} bins a side" if head.reg_max > 1 else "direct distances"
    classes = "1 class" if head.num_classes == 1 else f"{head.num_classes} classes"
    nms = "it needs no NMS" if head.nms_free else "hefkit computes NMS"
    strides = ", ".join(map(str, head.strides))
    assert said[1] == f"raw YOLO heads, strides {strides}; boxes with {bins}, {classes}; {nms}"
    assert said[2 : 2 + len(found.facts)] == list(found.facts)
    assumed = [line.removeprefix("assumed: ") for line in said if line.startswith("assumed: ")]
    # the run assumes more than the heads: how pictures are fitted, what classes are called
    assert set(assumed) <= set(found.assumed) and len(found.assumed) - len(assumed) <= 2
    return head


def neither(path: Path) -> str:
    """Why the run refuses the file, after the inspection has given the same reason."""
    with pytest.raises(ModelError, match="cannot be decoded") as caught:
        match(read_hef(path))
    reason = str(caught.value).split("cannot be decoded: ")[1].split("; expected the spec")[0]
    assert describe(read_hef(path))[1] == f"raw YOLO heads, strides 8, 16, 32; {reason}"
    return reason


# channels, quantisation of both, nodes -> bins, classes, what told them apart
SETTLED: dict[str, tuple[tuple[int, int], Quantisation, Quantisation, tuple[str, str], tuple[int, int, str]]] = {
    "64/80": ((64, 80), BOXES, LOGITS, ("", ""), (16, 80, "channels")),
    "4/80": ((4, 80), BOXES, LOGITS, ("", ""), (1, 80, "channels")),
    "64/1": ((64, 1), BOXES, LOGITS, ("", ""), (16, 1, "channels")),
    "80/64 with names": ((80, 64), BOXES, LOGITS, NODES, (20, 64, "names of their ONNX nodes")),
    "32/2, sigmoid": ((32, 2), BOXES, PROBABILITIES, ("", ""), (8, 2, "ranges")),
    "2/32, sigmoid": ((2, 32), PROBABILITIES, BOXES, ("", ""), (8, 2, "ranges")),
    "32/2 with names": ((32, 2), BOXES, LOGITS, NODES, (8, 2, "names of their ONNX nodes")),
    "32/80 with names": ((32, 80), BOXES, LOGITS, NODES, (8, 80, "names of their ONNX nodes")),
    "64/4, sigmoid": ((64, 4), BOXES, PROBABILITIES, ("", ""), (16, 4, "ranges")),
    "64/4, logits": ((64, 4), BOXES, LOGITS, ("", ""), (16, 4, "order")),
    "64/4 with names": ((64, 4), BOXES, LOGITS, NODES, (16, 4, "names of their ONNX nodes")),
    "4/64, sigmoid": ((4, 64), BOXES, PROBABILITIES, ("", ""), (1, 64, "ranges")),
    "4/64, the 4 are probabilities": ((4, 64), PROBABILITIES, BOXES, ("", ""), (16, 4, "ranges")),
    "4/64, logits": ((4, 64), BOXES, LOGITS, ("", ""), (1, 64, "order")),
    "64/64, sigmoid": ((64, 64), BOXES, PROBABILITIES, ("", ""), (16, 64, "ranges")),
    "4/4, sigmoid": ((4, 4), BOXES, PROBABILITIES, ("", ""), (1, 4, "ranges")),
}  # fmt: skip


@pytest.mark.parametrize(("channels", "first", "second", "nodes", "expected"), SETTLED.values(), ids=SETTLED)
def test_both_ways_agree(
    tmp_path: Path, channels: tuple[int, int], first: Quantisation, second: Quantisation, nodes: tuple[str, str],
    expected: tuple[int, int, str],
) -> None:  # fmt: skip
    """Bins, classes, NMS, the evidence and the assumptions are those of the run."""
    write(tmp_path / "m.hef", channels, first, second, nodes)

    head = both(tmp_path / "m.hef")

    bins, classes, how = expected
    assert (head.reg_max, head.num_classes) == (bins, classes)
    assert how in describe(read_hef(tmp_path / "m.hef"))[2]


# channels, quantisation of both, nodes -> the reason
REFUSED: dict[str, tuple[tuple[int, int], Quantisation, Quantisation, tuple[str, str], str]] = {
    "64/64, logits": ((64, 64), BOXES, LOGITS, ("", ""), "the file does not show which outputs are boxes"),
    "4/4, logits": ((4, 4), BOXES, LOGITS, ("", ""), "the file does not show which outputs are boxes"),
    "32/2, logits": ((32, 2), BOXES, LOGITS, ("", ""), "the file does not show which outputs are boxes"),
    "32/80, logits": ((32, 80), BOXES, LOGITS, ("", ""), "the file does not show which outputs are boxes"),
    "32/16, both probabilities": ((32, 16), PROBABILITIES, PROBABILITIES, ("", ""), "the file does not show which"),
    "64/3, neither": ((64, 3), BOXES, SHORT, ("", ""), "class tensor y8 has values from 0 to 1.5, which are neither"),
    "30/3 with names": ((30, 3), BOXES, LOGITS, NODES, "the box tensors have 30 channels, expected 4 x the number"),
}  # fmt: skip


@pytest.mark.parametrize(("channels", "first", "second", "nodes", "reason"), REFUSED.values(), ids=REFUSED)
def test_both_ways_refuse(
    tmp_path: Path, channels: tuple[int, int], first: Quantisation, second: Quantisation, nodes: tuple[str, str],
    reason: str,
) -> None:  # fmt: skip
    """What a run refuses, the inspection does not call decodable."""
    write(tmp_path / "m.hef", channels, first, second, nodes)

    assert reason in neither(tmp_path / "m.hef")


@pytest.mark.parametrize(
    ("data_bytes", "scale"),
    [
        pytest.param(2, 1 / 32767, id="15 bit"),
        pytest.param(2, 1 / 65535, id="16 bit"),
        pytest.param(1, 2 / 255, id="after an overflow"),
        pytest.param(1, 0.00343, id="measured range"),
    ],
)
@pytest.mark.parametrize("channels", [(64, 3), (64, 64), (32, 2)], ids=str)
def test_every_sigmoid_is_read_as_probabilities(
    tmp_path: Path, channels: tuple[int, int], data_bytes: int, scale: float
) -> None:
    """Scales of real files; boxes in as many bits."""
    box = (30 / 32767, 16384) if data_bytes == 2 else BOXES
    write(tmp_path / "m.hef", channels, box, (scale, 0), data_bytes=data_bytes)

    head = both(tmp_path / "m.hef")

    assert [output.activation for output in head.outputs] == ["none", "sigmoid"] * 3
    assert (4 * head.reg_max, head.num_classes) == channels


def test_15_bit_logits_are_logits(tmp_path: Path) -> None:
    """uint16 reaches far beyond their codes, but they have values below 0."""
    write(tmp_path / "m.hef", (64, 3), (30 / 32767, 16384), (30 / 32767, 20000), data_bytes=2)

    assert [output.activation for output in both(tmp_path / "m.hef").outputs] == ["none"] * 6


def test_the_names_beside_the_file_count_for_both(tmp_path: Path) -> None:
    """Four names of ultralytics' metadata.yaml: 4 channels are classes, in whatever order."""
    write(tmp_path / "m.hef", (4, 64), BOXES, LOGITS)
    assert both(tmp_path / "m.hef").num_classes == 64
    (tmp_path / "metadata.yaml").write_text("names: [a, b, c, d]\n")

    assert both(tmp_path / "m.hef").num_classes == 4


@pytest.mark.parametrize("nms_free", [False, True])
def test_a_spec_beside_the_file_decides_for_both(tmp_path: Path, nms_free: bool) -> None:
    """64 classes as logits: the file alone does not tell, the spec does."""
    made = make_head(SIZE, num_classes=64, activation="none", nms_free=nms_free)
    spec = write_hef(tmp_path / "m.hef", make_spec(made, SIZE), None, Recipe(original_names=False))
    assert "does not show which outputs are boxes" in neither(tmp_path / "m.hef")
    (tmp_path / "m.json").write_text(json.dumps(spec.to_json()))

    found, said = match(read_hef(tmp_path / "m.hef")), describe(read_hef(tmp_path / "m.hef"), spec)

    nms = "it needs no NMS" if nms_free else "hefkit computes NMS"
    assert found.spec.head.nms_free == nms_free
    assert said[1:] == [f"raw YOLO heads, strides 8, 16, 32; boxes with 16 bins a side, 64 classes; {nms}"]


def test_an_end_to_end_head_by_its_names(tmp_path: Path) -> None:
    """Both say that it needs no NMS."""
    made = make_head(SIZE, reg_max=1)
    nodes = [f"/model.23/one2one_cv{2 + i % 2}.{i // 2}/Conv" for i in range(6)]
    outputs = tuple(replace(o, onnx_node=node) for o, node in zip(made.outputs, nodes, strict=True))
    write_hef(tmp_path / "m.hef", make_spec(replace(made, outputs=outputs), SIZE), None)

    assert both(tmp_path / "m.hef").nms_free


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param([(8, 12)], id="one output"),
        pytest.param([(8, 12), (8, 12), (4, 6)], id="one without a partner"),
        pytest.param([(8, 12)] * 3, id="three of a size"),
        pytest.param([(7, 12)] * 2, id="a stride that is not whole"),
        pytest.param([(8, 6)] * 2, id="two strides in one"),
        pytest.param([(0, 0)] * 2, id="empty"),
    ],
)
def test_not_two_outputs_at_every_stride(as_hef: AsHef, sizes: Sequence[tuple[int, int]]) -> None:
    """No heads at all: both say so."""
    layers = [edge(info(f"out{i}", *size, 4)) for i, size in enumerate(sizes)]
    found = as_hef(hef_file(hef(group([input_layer(SIZE), *layers], [f"out{i}" for i in range(len(sizes))]))))

    assert not judge(found.groups[0]).strides
    assert describe(found)[1].startswith("no YOLO heads that hefkit knows: ")
    with pytest.raises(ModelError, match="has no YOLO heads that hefkit knows"):
        match(found)


def test_other_channels_at_another_stride(as_hef: AsHef) -> None:
    """Heads of one model have the same channels everywhere."""
    layers = [edge(info(f"out{i}", 8 >> i // 2, 12 >> i // 2, c)) for i, c in enumerate((64, 3, 64, 4))]

    found = as_hef(hef_file(hef(group([input_layer(SIZE), *layers], [f"out{i}" for i in range(4)]))))

    assert not judge(found.groups[0]).strides


def test_a_long_list_of_outputs_is_cut(as_hef: AsHef) -> None:
    """A message names the first outputs and counts the others."""
    layers = [edge(info(f"out{i}", 1, 1, 8)) for i in range(MAX_LISTED + 3)]
    outputs = as_hef(hef_file(hef(group([input_layer(), *layers], [f"out{i}" for i in range(len(layers))])))).groups[0]

    assert listed(outputs.outputs[:MAX_LISTED]).count("uint8") == MAX_LISTED
    assert listed(outputs.outputs).endswith("out11 1x1x8 uint8 NHWC and 3 more")
