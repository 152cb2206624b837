"""Facts about a Hailo chip; the kernel knows some of them without HailoRT.

The kernel knows the chip by its PCI vendor, 1e60. A Hailo-8 and an 8L are the same there; only the firmware says
which one it is. The paths of the driver's files come from hailort-drivers 4.23.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

VENDOR = "0x1e60"
PCI = Path("bus/pci/devices")
DRIVER_VERSION = (Path("module/hailo_pci/version"), Path("module/hailo1x_pci/version"))
GEN3_GT_S = 8.0  # 10^9 transfers a second on each lane


@dataclass(frozen=True)
class DeviceFacts:
    """One chip; None where a fact is not known."""

    device_id: str | None = None  # 0001:01:00.0
    arch: str | None = None  # "hailo8", "hailo8l" ...
    board: str | None = None
    firmware: str | None = None  # "4.23.0"
    library: str | None = None
    driver: str | None = None
    link_gt_s: float | None = None  # 8.0 is Gen3, 5.0 Gen2
    link_width: int | None = None  # lanes
    temperature_c: float | None = None


@dataclass(frozen=True)
class Link:
    """The PCIe link of a chip."""

    device_id: str
    gt_s: float | None
    width: int | None


def links(sys: Path = Path("/sys")) -> list[Link]:
    """Every Hailo chip on the PCI bus, with or without a driver."""
    found = []
    for device in sorted((sys / PCI).glob("*")):
        if _text(device / "vendor") == VENDOR:
            found.append(Link(device.name, _leading(device / "current_link_speed"), _lanes(device)))
    return found


def driver_version(sys: Path = Path("/sys")) -> str | None:
    """Version of the loaded driver; None where none is loaded."""
    return next((text for path in DRIVER_VERSION if (text := _text(sys / path))), None)


def version_number(version: str | None) -> str | None:
    """`4.23.0 (release,app)` -> `4.23.0`."""
    return version.split()[0].lstrip("v") if version and version.split() else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip() or None
    except OSError:
        return None


def _leading(path: Path) -> float | None:
    """`8.0 GT/s PCIe` -> 8.0."""
    text = _text(path)
    try:
        return float(text.split()[0]) if text else None
    except ValueError:  # "Unknown"
        return None


def _lanes(device: Path) -> int | None:
    lanes = _leading(device / "current_link_width")
    return int(lanes) if lanes else None
