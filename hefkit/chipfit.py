"""Which HEF runs on which chip and with which HailoRT.

The matrix is DeviceBase::is_hef_compatible of HailoRT 4.23 (device_common/device_internal.cpp).
"""

from __future__ import annotations

from pathlib import Path

from hefkit.errors import DeviceError
from hefkit.hailo.codes import NEWER_RUNTIME

# chip -> architectures of HEFs that it runs
RUNS = {
    "hailo8": ("hailo8", "hailo8l"),
    "hailo8l": ("hailo8l",),
    "hailo10h": ("hailo15h", "hailo15m", "hailo10h"),
    "hailo15h": ("hailo15h", "hailo15m", "hailo10h"),
    "hailo15m": ("hailo15m",),
    "hailo15l": ("hailo15l",),
}
OF_HAILORT_4 = ("hailo8", "hailo8l", "hailo8_a0")
SLOW = ("hailo8", "hailo8l")  # chip, HEF: runs at about the speed of an 8L


def check_runtime(path: Path, hef_arch: str, version: str) -> None:
    """Refuse (exit 6) a HEF for a generation of chips that this HailoRT does not drive."""
    if version.split(".")[0] == "4" and hef_arch not in OF_HAILORT_4:
        raise DeviceError(
            f"{path} is for a {hef_arch}, which HailoRT {version} does not drive; {NEWER_RUNTIME}, or compile the "
            "model for the chip of this machine"
        )


def check_chip(path: Path, hef_arch: str, chip: str) -> None:
    """Refuse (exit 6) a HEF for another chip; a chip that is not known here is left to HailoRT."""
    if chip not in RUNS or hef_arch in RUNS[chip]:
        return
    raise DeviceError(
        f"{path} is compiled for a {hef_arch}, this machine has a {chip}; expected a HEF for "
        f"{' or '.join(RUNS[chip])}; compile it with: compile_to_hef.py ... --hw-arch {chip}"
    )


def is_slow(hef_arch: str, chip: str) -> bool:
    """Whether the chip could do more than this HEF asks of it."""
    return (chip, hef_arch) == SLOW
