"""A /sys with a PCI device, as the kernel would show a Hailo chip."""

from __future__ import annotations

from pathlib import Path


def pci(root: Path, speed: str = "8.0 GT/s PCIe", driver: str | None = "4.23.0", vendor: str = "0x1e60") -> Path:
    """A /sys with one device, and the driver's version."""
    device = root / "bus" / "pci" / "devices" / "0001:01:00.0"
    device.mkdir(parents=True)
    for name, text in (("vendor", vendor), ("current_link_speed", speed), ("current_link_width", "1")):
        (device / name).write_text(text + "\n")
    if driver:
        (root / "module" / "hailo_pci").mkdir(parents=True)
        (root / "module" / "hailo_pci" / "version").write_text(driver + "\n")
    return root
