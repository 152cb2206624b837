"""What a HEF is in words: where it runs, what comes out, and which outputs are boxes and which are classes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hefkit.hef.words import describe
from tests.conftest import AsHef
from tests.helpers.hef_kinds import chip_nms, genai_hef, nms_hef, one_output_hef
from tests.helpers.tiny_hef import (
    HAILO8L,
    YOLO_ORDER,
    edge,
    field,
    group,
    hef,
    hef_file,
    info,
    input_layer,
    yolo_hef,
    yolo_layers,
)


@pytest.fixture
def words(as_hef: AsHef) -> Callable[[bytes], str]:
    """The sentences about a message."""
    return lambda proto: "\n".join(describe(as_hef(hef_file(proto))))


@pytest.mark.parametrize(
    ("number", "expected"),
    [(0, "Hailo-8; not on a Hailo-8L"), (5, "HailoRT 5"), (103, "HailoRT 5"), (4, "HailoRT 5"), (6, "HailoRT 5")],
)
def test_where_it_runs(words: Callable[[bytes], str], number: int, expected: str) -> None:
    """The matrix of HailoRT: 8 on 8; 10H and 15 from HailoRT 5."""
    layers = group(yolo_layers(), YOLO_ORDER)
    if number == 4:  # a chip with partial layouts
        layers = field(7, field(1, layers))

    assert expected in words(hef(layers, arch=number))


def test_an_8l_file_runs_on_both(words: Callable[[bytes], str]) -> None:
    """The one file for both Pi kits."""
    said = words(hef(field(7, field(1, group(yolo_layers(), YOLO_ORDER))), arch=HAILO8L))

    assert "Hailo-8L, and on a Hailo-8" in said


def test_sixteen_bit_outputs_are_named(words: Callable[[bytes], str]) -> None:
    """Boxes in 16 bits, classes in 8."""
    assert "16-bit outputs: net/box8, net/box16, net/box32" in words(yolo_hef(data_bytes=2))
    assert "16-bit" not in words(yolo_hef())


def test_nms_in_words(words: Callable[[bytes], str]) -> None:
    """Kind, strides, classes and thresholds."""
    said = words(nms_hef())

    assert "NMS inside (yolov8, computed by HailoRT), strides 8, 16, 32, 2 classes" in said
    assert "scores from 0.25, IoU up to 0.75, at most 10 boxes a class" in said


def test_other_kinds_in_words(words: Callable[[bytes], str]) -> None:
    """NMS on the chip, boxes without NMS, several groups, files inside."""
    assert "NMS inside, on the chip itself, 80 classes, at most 60 boxes a class" in words(one_output_hef(chip_nms()))
    assert "boxes decoded by HailoRT (yolov8), strides 8, 16, 32, 2 classes; hefkit computes NMS" in words(
        nms_hef(more=field(13, 1))
    )
    said = words(genai_hef())
    assert "llm__prefill: no YOLO heads" in said and "with other files inside, as in a language model" in said
    assert "1 class, " in words(
        one_output_hef(info("net/out", 1, 1, 1, fmt=6, more_base=field(11, field(1, field(2, 1)))))
    )


def test_a_classifier_is_no_yolo(words: Callable[[bytes], str]) -> None:
    """One vector of scores."""
    assert "no YOLO heads" in words(hef(group([input_layer(), edge(info("out", 1, 1, 1000, fmt=2))], ["out"])))
