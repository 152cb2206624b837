"""A photograph -> boxes in its pixels."""

from __future__ import annotations

import numpy as np
import pytest

from hefkit.detect.decode import DecodeSettings
from hefkit.detect.detector import Detector
from hefkit.detect.preprocess import letterbox
from tests.helpers.fake_engine import engine_that_finds


def test_boxes_come_back_in_pixels_of_the_photograph() -> None:
    """A 128x64 photograph in a 64x64 input is halved and padded by 16 px above and below.

    (16, 24, 48, 40) in the input is (16 * 2, (24 - 16) * 2, 48 * 2, (40 - 16) * 2) in the photograph.
    """
    detector = Detector(engine_that_finds((2, 0.9, (16, 24, 48, 40))), DecodeSettings())

    found, _ = detector.detect(np.zeros((64, 128, 3), np.uint8))

    assert found.xyxy.tolist() == [[32, 16, 96, 48]]
    assert (found.class_id.tolist(), found.score.tolist()) == ([2], pytest.approx([0.9]))


def test_boxes_come_back_from_a_stretched_input() -> None:
    """A stretched 128x64 photograph: x doubles, y stays."""
    detector = Detector(engine_that_finds((0, 0.9, (16, 24, 48, 40)), fit="stretch"), DecodeSettings())

    found, _ = detector.detect(np.zeros((64, 128, 3), np.uint8))

    assert found.xyxy.tolist() == [[32, 24, 96, 40]]


def test_boxes_are_clipped_and_stay() -> None:
    """A box across the edge is clipped; a box inside the padding becomes empty, and is still counted."""
    engine = engine_that_finds((0, 0.9, (-8, 20, 30, 70)), (1, 0.8, (8, 0, 40, 12)))
    detector = Detector(engine, DecodeSettings())

    found, _ = detector.detect(np.zeros((64, 128, 3), np.uint8))

    assert found.xyxy.tolist() == [[0, 8, 60, 64], [16, 0, 80, 0]]


def test_the_engine_is_fed_by_the_one_letterbox() -> None:
    """What the engine gets is `letterbox` of the photograph, byte for byte, RGB."""
    engine = engine_that_finds()
    photograph = np.random.default_rng(0).integers(0, 256, (50, 90, 3), np.uint8)

    Detector(engine, DecodeSettings()).detect(photograph)

    assert np.array_equal(engine.fed[0], letterbox(photograph, engine.spec.input)[0])


def test_nothing_found_is_empty_with_times() -> None:
    """Without detections the arrays have their shapes, and the stages have times."""
    found, times = Detector(engine_that_finds(), DecodeSettings()).detect(np.zeros((40, 30, 3), np.uint8))

    assert found.xyxy.shape == (0, 4) and len(found) == 0
    assert all(seconds >= 0 for seconds in times) and times._fields == ("preprocess", "infer", "decode")


def test_a_picture_that_the_camera_scaled() -> None:
    """The engine is fed the camera's own small picture, and boxes come back in pixels of the large one.

    A 128x64 picture, scaled to 64x32 for a 64x64 input, lies 16 px from the top: (16, 24, 48, 40) in the input is
    (32, 16, 96, 48) in the picture.
    """
    engine = engine_that_finds((2, 0.9, (16, 24, 48, 40)))
    detector = Detector(engine, DecodeSettings())
    small = np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)
    tensor = np.full((64, 64, 3), 7, np.uint8)

    transform = detector.prepare(np.zeros((64, 128, 3), np.uint8), tensor, small)
    found = detector.finish(engine.infer(tensor[None])[0], transform)

    assert found.xyxy.tolist() == [[32, 16, 96, 48]]
    assert np.array_equal(engine.fed[0][16:48], small) and (engine.fed[0][:16] == 114).all()
