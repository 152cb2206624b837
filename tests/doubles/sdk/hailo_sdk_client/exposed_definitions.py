"""Enums, as the Model Zoo imports them."""

from __future__ import annotations

from enum import Enum

from double_parts.behaviour import version, wanted

_OLD = ["hailo8", "hailo8r", "hailo8l", "hailo15h", "hailo15m", "hailo15l", "hailo10h"]
_FIVE = ["hailo15h", "hailo15m", "hailo15l", "hailo10h", "hailo10p", "hailo12l"]
_release = tuple(int(part) for part in version().split(".")[:2])
SUPPORTED_HW_ARCHS = _FIVE if _release >= (5, 0) else _OLD if _release < (3, 32) else _OLD[:3]


def _spelled(state: str) -> str:
    """`quantized_model` in archives; `Quantized Model` as `hailo har info` prints it."""
    return state.replace("_", " ").title() if wanted("state_words") else state


class States(str, Enum):
    """The states of a runner."""

    UNINITIALIZED = _spelled("uninitialized")
    HAILO_MODEL = _spelled("hailo_model")
    FP_OPTIMIZED_MODEL = _spelled("fp_optimized_model")
    QUANTIZED_MODEL = _spelled("quantized_model")
    COMPILED_MODEL = _spelled("compiled_model")

    def __str__(self) -> str:
        return self.value


class InferenceContext(Enum):
    """The kinds of emulation."""

    SDK_NATIVE = "sdk_native"
    SDK_FP_OPTIMIZED = "sdk_fp_optimized"
    SDK_QUANTIZED = "sdk_quantized"
    SDK_HAILO_HW = "sdk_hailo_hw"


class CalibrationDataType(Enum):
    """The kinds of calibration data."""

    auto = "auto"
    np_array = "np_array"
    dataset = "dataset"
    npy_file = "npy_file"
    npy_dir = "npy_dir"
