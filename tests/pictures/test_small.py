"""Small copies: the right size and side up, for every kind of file, with the size of the whole picture."""

from __future__ import annotations

import functools

import cv2
import numpy as np
import pytest

from hefkit.pictures.header import UnreadableImage
from hefkit.pictures.small import decode_small, halved, shrink
from tests.helpers.pictures import UPRIGHT, encode, exif, quadrants, tiff, with_exif


@functools.cache
def encoded(width: int, suffix: str) -> bytes:
    """A picture with four colours, twice as wide as high."""
    return encode(quadrants(width, width // 2), suffix)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("width", [96, 400, 900, 1700], ids=["whole", "half", "quarter", "eighth"])
def test_a_small_copy_is_the_picture(width: int, orientation: int, suffix: str) -> None:
    """Four colours, each in its corner, whatever part of a JPEG's resolution is decoded."""
    stored = quadrants(width, width // 2)
    data = with_exif(encoded(width, suffix), exif(orientation))

    small, size_wh = decode_small(data, 160)

    upright = UPRIGHT[orientation](stored)
    assert size_wh == (upright.shape[1], upright.shape[0])
    assert max(small.shape[:2]) == min(160, width)
    for x in (0.25, 0.75):
        for y in (0.25, 0.75):
            found = small[int(y * small.shape[0]), int(x * small.shape[1])].astype(int)
            expected = upright[int(y * upright.shape[0]), int(x * upright.shape[1])].astype(int)
            assert np.abs(found - expected).max() < 12


def test_its_mean_is_that_of_the_whole_picture() -> None:
    """Within a grey value, because the choice of a calibration set compares means."""
    picture = cv2.resize(
        np.random.default_rng(0).integers(0, 256, (9, 14, 3), np.uint8), (1403, 901), interpolation=cv2.INTER_LINEAR
    )

    small, _ = decode_small(encode(picture, ".jpg"), 160)

    assert np.abs(small.mean(axis=(0, 1)) - picture.mean(axis=(0, 1))).max() < 1


def test_a_turned_tiff_and_a_tiny_picture() -> None:
    """OpenCV turns a TIFF by itself; one pixel stays one pixel."""
    small, size_wh = decode_small(tiff(quadrants(60, 20), 6), 160)

    assert (size_wh, small.shape) == ((20, 60), (60, 20, 3))
    assert shrink(np.zeros((1, 1, 3), np.uint8), 160).shape == (1, 1, 3)
    assert shrink(np.zeros((1, 1000, 3), np.uint8), 160).shape == (1, 160, 3)


def test_halves_are_means_of_four_pixels() -> None:
    """Until the longer side would be too short; an odd last row is left out, and a line is not halved away."""
    picture = np.random.default_rng(0).integers(0, 256, (101, 160, 3), np.uint8)

    half = halved(picture, 80)

    assert np.abs(half - picture[:100].reshape(50, 2, 80, 2, 3).mean(axis=(1, 3))).max() <= 0.5
    assert halved(picture, 81) is picture
    assert halved(picture, 40).shape == (25, 40, 3)
    assert halved(picture[:1], 40).shape == (1, 160, 3)


def test_a_broken_file_is_refused_as_when_it_is_read() -> None:
    """The same reasons."""
    with pytest.raises(UnreadableImage, match="end marker"):
        decode_small(encode(quadrants(), ".jpg")[:-300], 160)
