"""What the range of a tensor's values says: probabilities, logits, or neither."""

from __future__ import annotations

from typing import Any

import pytest

from hefkit.hef.ranges import activation_of, is_probability, value_range
from hefkit.hef.streams import VStream


def stream(**fields: Any) -> VStream:
    """An output."""
    values = {"name": "a", "original_names": (), "shape": (1, 1, 2), "dtype": "uint8", "order": "NHWC", "scale": 1.0}
    return VStream(**{**values, "zero_point": 0.0, **fields})


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        # (0 - 10) * 0.5, (255 - 10) * 0.5
        pytest.param({"scale": 0.5, "zero_point": 10.0}, (-5.0, 122.5), id="8 bits"),
        pytest.param({"dtype": "uint16", "scale": 2**-15}, (0.0, 32767 / 32768), id="15 bits"),
        # feature 0: -10 .. 500, feature 1: -3 .. 252
        pytest.param({"scale": (2.0, 1.0), "zero_point": (5.0, 3.0)}, (-10.0, 500.0), id="a feature"),
        # feature 0: -5 .. 250, feature 1: -10 .. 500
        pytest.param({"scale": (1.0, 2.0), "zero_point": 5.0}, (-10.0, 500.0), id="one zero point for all"),
    ],
)
def test_value_range(fields: dict[str, Any], expected: tuple[float, float]) -> None:
    """The least and the greatest that codes can mean."""
    assert value_range(stream(**fields)) == pytest.approx(expected)


# dtype, scale, zero point -> activation
CLASSES: dict[str, tuple[str, float | tuple[float, ...], float, str]] = {
    "8-bit sigmoid": ("uint8", 1 / 255, 0, "sigmoid"),
    "8-bit sigmoid, measured": ("uint8", 0.00343, 0, "sigmoid"),
    "8-bit sigmoid, the least measured that was seen": ("uint8", 0.00307, 0, "sigmoid"),
    "8-bit sigmoid after an overflow": ("uint8", 2 / 255, 0, "sigmoid"),
    "15-bit sigmoid": ("uint16", 1 / 32767, 0, "sigmoid"),
    "16-bit sigmoid": ("uint16", 1 / 65535, 0, "sigmoid"),
    "a scale a feature": ("uint8", (1 / 255, 0.8 / 255), 0, "sigmoid"),
    "8-bit logits": ("uint8", 16 / 255, 128, "none"),
    "8-bit logits, nearly all below 0": ("uint8", 0.09, 230, "none"),
    "15-bit logits": ("uint16", 30 / 32767, 20000, "none"),
    "one feature of logits": ("uint8", (1 / 255, 0.1), 100, "none"),
    "0 to 1.5": ("uint8", 1.5 / 255, 0, ""),
    "0 to 2.55": ("uint8", 0.01, 0, ""),
    "-0.5 to 2.05": ("uint8", 0.01, 50, ""),
    "-0.03 to 0.05": ("uint8", 0.0003, 100, ""),
    "15-bit distances": ("uint16", 30 / 32767, 0, ""),
}


@pytest.mark.parametrize(("dtype", "scale", "zero_point", "expected"), CLASSES.values(), ids=CLASSES)
def test_activation(dtype: str, scale: float | tuple[float, ...], zero_point: float, expected: str) -> None:
    """Every scale that the compiler is known to give a sigmoid, and what must not be taken for one."""
    low, high = value_range(stream(dtype=dtype, scale=scale, zero_point=zero_point))

    activation, reason = activation_of(low, high)

    assert activation == expected and is_probability(low, high) == (expected == "sigmoid")
    word = {"sigmoid": "which are probabilities", "none": "which are logits", "": "neither probabilities nor logits"}
    assert reason.startswith(f"values from {low:.3g} to {high:.3g}, ") and reason.endswith(word[expected])


def test_a_nan_is_not_a_probability() -> None:
    """Comparisons with it are false."""
    assert not is_probability(float("nan"), float("nan"))
