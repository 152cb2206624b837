"""What the kernel knows of a chip: PCIe links and the driver's version, read from a /sys of our own."""

from __future__ import annotations

from pathlib import Path

import pytest

from hefkit.hailo.system import Link, driver_version, links, version_number
from tests.helpers.fake_sys import pci


def test_links(tmp_path: Path) -> None:
    """By vendor; other devices are left out."""
    root = pci(tmp_path / "sys")
    other = root / "bus" / "pci" / "devices" / "0000:00:00.0"
    other.mkdir()
    (other / "vendor").write_text("0x14e4\n")

    assert links(root) == [Link("0001:01:00.0", 8.0, 1)]
    assert links(tmp_path / "nothing") == []
    assert (driver_version(root), driver_version(tmp_path)) == ("4.23.0", None)


@pytest.mark.parametrize(
    ("text", "expected"), [("4.23.0 (release,app)", "4.23.0"), ("v4.20.1", "4.20.1"), ("", None), (None, None)]
)
def test_the_number_of_a_version(text: str | None, expected: str | None) -> None:
    """As the library counts."""
    assert version_number(text) == expected
