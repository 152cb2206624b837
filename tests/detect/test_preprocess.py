"""The letterbox: rounded as ultralytics does it, and boxes scaled back."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hefkit.detect.preprocess import letterbox, place, plan
from hefkit.pictures.read import read_image
from hefkit.spec import InputSpec
from tests.helpers.pictures import in_input, noise

# (height, width) of the photograph, (height, width) of the input
SIZES = {
    "landscape": ((480, 640), (640, 640)),
    "portrait": ((640, 480), (640, 640)),
    "same size": ((64, 64), (64, 64)),
    "enlarged": ((30, 20), (320, 320)),
    "odd padding": ((333, 500), (640, 640)),
    "odd everything": ((457, 291), (415, 417)),
    "wide input": ((100, 100), (192, 320)),
    "a side that rounds down": ((1001, 767), (64, 64)),
    "one row": ((1, 700), (64, 64)),
    "one column": ((700, 1), (64, 64)),
    "one pixel": ((1, 1), (32, 32)),
}
sizes = pytest.mark.parametrize("photo_hw, input_hw", SIZES.values(), ids=SIZES.keys())


def padded_like_ultralytics(image: np.ndarray, input_hw: tuple[int, int]) -> np.ndarray:
    """LetterBox(auto=False, center=True) as its documentation describes it: scale, round, border; BGR to BGR."""
    h, w = image.shape[:2]
    r = min(input_hw[0] / h, input_hw[1] / w)
    unpadded_wh = max(round(w * r), 1), max(round(h * r), 1)
    dw, dh = (input_hw[1] - unpadded_wh[0]) / 2, (input_hw[0] - unpadded_wh[1]) / 2
    if (w, h) != unpadded_wh:
        image = cv2.resize(image, unpadded_wh, interpolation=cv2.INTER_LINEAR)
    sides = [round(dh - 0.1), round(dh + 0.1), round(dw - 0.1), round(dw + 0.1)]
    return cv2.copyMakeBorder(image, *sides, cv2.BORDER_CONSTANT, value=(114, 114, 114))


@sizes
def test_letterbox_equals_ultralytics(photo_hw: tuple[int, int], input_hw: tuple[int, int]) -> None:
    """The tensor is what ultralytics would feed its network, byte for byte, but RGB and not yet divided."""
    photo = noise(photo_hw[1], photo_hw[0])

    tensor, _ = letterbox(photo, InputSpec(input_hw))

    assert tensor.dtype == np.uint8
    assert tensor.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(tensor, padded_like_ultralytics(photo, input_hw)[..., ::-1])


@sizes
def test_stretch_is_the_plain_resize(photo_hw: tuple[int, int], input_hw: tuple[int, int]) -> None:
    """With fit stretch nothing is padded and the whole input is the picture."""
    photo = noise(photo_hw[1], photo_hw[0])

    tensor, transform = letterbox(photo, InputSpec(input_hw, "stretch"))

    expected = cv2.resize(photo, input_hw[::-1], interpolation=cv2.INTER_LINEAR)[..., ::-1]
    np.testing.assert_array_equal(tensor, expected)
    assert (transform.left, transform.top, transform.resized_hw) == (0, 0, input_hw)


@pytest.mark.parametrize("fit", ["letterbox", "stretch"])
def test_out_is_filled_wherever_it_was_dirty(fit: str) -> None:
    """A reused buffer contains nothing of the picture before, and is returned."""
    spec = InputSpec((50, 70), fit)
    buffer = np.full((50, 70, 3), 7, np.uint8)
    photo = noise(31, 47)

    tensor, transform = letterbox(photo, spec, out=buffer)

    fresh, same = letterbox(photo, spec)
    assert tensor is buffer
    assert transform == same
    np.testing.assert_array_equal(buffer, fresh)


def test_the_padding_has_the_asked_value() -> None:
    """A square in a wide input: columns left and right of it are `pad_value`, the rest is picture."""
    tensor, transform = letterbox(np.zeros((10, 10, 3), np.uint8), InputSpec((10, 21), pad_value=9))

    # 11 columns to spare: round(5.5 - 0.1) = 5 to the left, 6 to the right
    assert (transform.left, transform.top, transform.resized_hw) == (5, 0, (10, 10))
    assert (tensor[:, :5] == 9).all() and (tensor[:, 15:] == 9).all() and (tensor[:, 5:15] == 0).all()


def test_a_known_box_lands_where_arithmetic_says() -> None:
    """1280 x 720 into 640 x 640: half the size, 140 rows of padding above."""
    transform = plan((720, 1280), InputSpec((640, 640)))

    assert (transform.left, transform.top, transform.resized_hw) == (0, 140, (360, 640))
    np.testing.assert_array_equal(transform.to_original(np.array([[50, 240, 150, 340]])), [[100, 200, 300, 400]])


def test_the_way_back_divides_by_the_rounded_size() -> None:
    """767 x 1001 into 64 x 64 becomes 49 x 64: the right edge of the picture must come back to 767 exactly."""
    transform = plan((1001, 767), InputSpec((64, 64)))

    left = transform.left
    right_edge = np.array([[left, 0, left + 49, 64]], np.float32)
    np.testing.assert_array_equal(transform.to_original(right_edge), [[0, 0, 767, 1001]])


def test_boxes_in_the_padding_are_clipped_to_the_photograph() -> None:
    """Boxes end at the border of the picture."""
    transform = plan((720, 1280), InputSpec((640, 640)))

    clipped = transform.to_original(np.array([[-10, 0, 700, 640]]))

    np.testing.assert_array_equal(clipped, [[0, 0, 1280, 720]])


def test_no_boxes_stay_no_boxes() -> None:
    """Empty is (0, 4) before and after."""
    transform = plan((10, 10), InputSpec((32, 32)))

    assert transform.to_original(np.zeros((0, 4))).shape == (0, 4)


@given(
    photo_hw=st.tuples(st.integers(1, 4000), st.integers(1, 4000)),
    input_hw=st.tuples(st.integers(32, 1280), st.integers(32, 1280)),
    fit=st.sampled_from(["letterbox", "stretch"]),
    corners=st.lists(st.floats(0, 1), min_size=4, max_size=4),
)
def test_boxes_come_back(photo_hw: tuple[int, int], input_hw: tuple[int, int], fit: str, corners: list[float]) -> None:
    """A box scaled into the input comes back as it was, for any size of photograph and input."""
    transform = plan(photo_hw, InputSpec(input_hw, fit))
    box = np.array([corners]) * [photo_hw[1], photo_hw[0], photo_hw[1], photo_hw[0]]

    there = in_input(transform, box)

    # float32 holds 1280 to 6e-5; a photograph is at most 4000 / 32 times as large as its input
    np.testing.assert_allclose(transform.to_original(there), box, atol=0.01)
    assert (there >= -1e-3).all()
    assert (there <= np.array([input_hw[1], input_hw[0]] * 2) + 1e-3).all()


# --- pictures that the camera has scaled -----------------------------------------------------------------------------


def test_a_scaled_picture_lies_where_the_letterbox_would_put_it() -> None:
    """1280 x 720 for 640 x 640, scaled by the camera to 640 x 360: 140 rows of padding above and below it."""
    spec = InputSpec((640, 640))
    out = np.full((640, 640, 3), 7, np.uint8)
    small = noise(640, 360)

    transform = place(small, (720, 1280), spec, out)

    assert transform == plan((720, 1280), spec)
    np.testing.assert_array_equal(out[140:500], small)  # RGB already: nothing is swapped
    assert (out[:140] == 114).all() and (out[500:] == 114).all()


def test_a_stretched_picture_fills_the_input() -> None:
    """With fit stretch the camera's picture is the tensor."""
    spec = InputSpec((64, 96), "stretch")
    out = np.full((64, 96, 3), 7, np.uint8)
    small = noise(96, 64)

    transform = place(small, (720, 1280), spec, out)

    assert transform == plan((720, 1280), spec)
    np.testing.assert_array_equal(out, small)


def test_a_picture_of_even_size_is_measured_by_its_own_size() -> None:
    """415 x 233 becomes 414 x 232: its right and lower edges are still those of the photograph."""
    spec = InputSpec((415, 415))

    transform = place(noise(414, 232), (720, 1280), spec, np.empty((415, 415, 3), np.uint8))

    # 1 column to spare: round(0.5 - 0.1) = 0 on the left; 183 rows: round(91.5 - 0.1) = 91 above
    assert (transform.left, transform.top, transform.resized_hw) == (0, 91, (232, 414))
    np.testing.assert_array_equal(transform.to_original(np.array([[0, 91, 414, 323]])), [[0, 0, 1280, 720]])


@given(
    photo_hw=st.tuples(st.integers(16, 2000), st.integers(16, 2000)),
    input_hw=st.tuples(st.integers(32, 700), st.integers(32, 700)),
    fit=st.sampled_from(["letterbox", "stretch"]),
    corners=st.lists(st.floats(0, 1), min_size=4, max_size=4),
)
def test_boxes_come_back_from_a_scaled_picture(
    photo_hw: tuple[int, int], input_hw: tuple[int, int], fit: str, corners: list[float]
) -> None:
    """The same box, within a pixel of the input; for even sizes the geometry is exactly that of `plan`."""
    spec = InputSpec(input_hw, fit)
    planned = plan(photo_hw, spec)
    height, width = planned.resized_hw
    even_hw = (height, width) if fit == "stretch" else (max(height - height % 2, 1), max(width - width % 2, 1))
    out = np.full((*input_hw, 3), 7, np.uint8)

    transform = place(np.zeros((*even_hw, 3), np.uint8), photo_hw, spec, out)

    assert (transform == planned) == (even_hw == (height, width))
    box = np.array([corners]) * [photo_hw[1], photo_hw[0], photo_hw[1], photo_hw[0]]
    there = in_input(transform, box)
    assert np.abs(there - in_input(planned, box)).max() <= 1 + 1e-3
    # float32 holds 700 to 6e-5; the photograph is at most 2000 / 32 times as large as its input, or scaled to 1 pixel
    np.testing.assert_allclose(transform.to_original(there), box, atol=0.15)
    picture = out == 0
    assert picture.sum() == 3 * even_hw[0] * even_hw[1] and (out[~picture] == 114).all()


@pytest.mark.parametrize(
    "fit, size_wh",
    [("letterbox", (64, 32)), ("letterbox", (62, 36)), ("letterbox", (66, 36)), ("stretch", (64, 36))],
    ids=["flat", "narrow", "larger than the input", "a border where there is none"],
)
def test_a_picture_of_another_shape_is_refused(fit: str, size_wh: tuple[int, int]) -> None:
    """Otherwise boxes would silently come back in the wrong place."""
    with pytest.raises(ValueError, match="expected a picture scaled to"):
        place(noise(*size_wh), (720, 1280), InputSpec((64, 64), fit), np.empty((64, 64, 3), np.uint8))


@pytest.mark.parametrize(
    "bad",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)],
    ids=["grey", "four channels", "float"],
)
def test_only_colour_bytes_are_accepted(bad: np.ndarray) -> None:
    """Anything but (h, w, 3) uint8 is a bug of the caller; the error says what was given."""
    with pytest.raises(ValueError, match="uint8 BGR, got"):
        letterbox(bad, InputSpec((32, 32)))
    with pytest.raises(ValueError, match="uint8 RGB, got"):
        place(bad, (32, 32), InputSpec((32, 32)), np.empty((32, 32, 3), np.uint8))


def test_a_real_photograph(shared: Path) -> None:
    """One photograph of odd size, as ultralytics would see it."""
    photo = read_image(shared / "images" / "granny_smith_0.jpg")

    tensor, _ = letterbox(photo, InputSpec((640, 640)))

    np.testing.assert_array_equal(tensor, padded_like_ultralytics(photo, (640, 640))[..., ::-1])
