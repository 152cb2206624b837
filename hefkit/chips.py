"""Every fact about Hailo's chips: one table, from which everything else is derived.

    CHIPS["hailo8"].runs           # ("hailo8", "hailo8l"): a Hailo-8 runs the HEFs of both
    CHIP_OF_NUMBER[3].name         # "hailo8l": the number of the chip in a HEF
    TARGETS                        # the names that --hw-arch takes

Sources: hef.proto and device_common/device_internal.cpp of HailoRT 4.23 (numbers, which HEF runs where), the release
notes of the Model Zoo (which compiler makes HEFs for which chip).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hefkit.errors import DeviceError

NEWER_RUNTIME = "install HailoRT 5 for that chip (on a Raspberry Pi: sudo apt install hailo-h10-all)"


@dataclass(frozen=True)
class Chip:
    """A chip, or a variant of one that has its own number in HEFs."""

    name: str  # HailoRT's word in lower case
    line: int  # 3: compiled by DFC 3.x, driven by HailoRT 4; 5: compiled by DFC 5.x, driven by HailoRT 5
    numbers: tuple[int, ...] = ()  # `Header.hw_arch` of its HEFs
    hef_runs: str = ""  # where its HEFs run: the words after "this HEF"
    runs: tuple[str, ...] = ()  # chips whose HEFs it runs; empty: not known, HailoRT decides
    slow: tuple[str, ...] = ()  # those of `runs` whose HEFs run only as fast as on their own chip
    target: bool = True  # --hw-arch takes it
    partial: bool = False  # its HEFs hold the network several times: a layout for each set of clusters
    same_number: str = ""  # the chip with which it shares a number in the HEFs of HailoRT 5


_TABLE = (
    Chip(
        "hailo8", 3, (0, 1, 2, 101, 102),
        "runs on a Hailo-8; not on a Hailo-8L, for which it must be compiled with --hw-arch hailo8l",
        runs=("hailo8", "hailo8l"), slow=("hailo8l",),
    ),
    Chip(
        "hailo8l", 3, (3,), "runs on a Hailo-8L, and on a Hailo-8 at about the speed of an 8L",
        runs=("hailo8l",), partial=True,
    ),
    Chip(
        "hailo10h", 5, (5,),
        "runs on a Hailo-10H; needs HailoRT 5 (on a Raspberry Pi: sudo apt install hailo-h10-all)",
        runs=("hailo15h", "hailo15m", "hailo10h"), same_number="hailo15h",
    ),
    Chip(
        "hailo15h", 5, (103, 104, 105),
        "is for a Hailo-10H or 15H, which have the same number in a HEF; needs HailoRT 5 (on a Raspberry Pi: "
        "sudo apt install hailo-h10-all)",
        runs=("hailo15h", "hailo15m", "hailo10h"), same_number="hailo10h",
    ),
    Chip("hailo15m", 5, (4,), "runs on a Hailo-15M; needs HailoRT 5", runs=("hailo15m",), partial=True),
    Chip("hailo15l", 5, (6, 106), "runs on a Hailo-15L; needs HailoRT 5", runs=("hailo15l",)),
    Chip(
        "hailo8_a0", 3, (100,), "is for engineering samples of the Hailo-8; compile it again with --hw-arch hailo8",
        target=False,
    ),
    Chip("hailo8r", 3, target=False),  # a target of the compiler; its HEFs have the number of a Hailo-8
    Chip("mars", 5, (108,), "is for a chip that HailoRT 4.23 calls MARS; needs HailoRT 5", target=False),
)  # fmt: skip

CHIPS = {chip.name: chip for chip in _TABLE}
CHIP_OF_NUMBER = {number: chip for chip in _TABLE for number in chip.numbers}
TARGETS = tuple(chip.name for chip in _TABLE if chip.target)
LINE_3 = tuple(name for name in TARGETS if CHIPS[name].line == 3)
LINE_5 = tuple(name for name in TARGETS if CHIPS[name].line == 5)


def is_line_3(name: str | None) -> bool:
    """Whether DFC 3.x compiles for this chip; False for a chip that is not in the table."""
    return name in CHIPS and CHIPS[name].line == 3


def same_arch(one: str, other: str) -> bool:
    """Whether a HEF for `one` is also a HEF for `other`: in HEFs the 10H and the 15H have the same number."""
    return one == other or (one in CHIPS and CHIPS[one].same_number == other)


def check_runtime(path: Path, hef_arch: str, version: str) -> None:
    """Refuse (exit 6) a HEF for a generation of chips that this HailoRT does not drive."""
    if version.split(".")[0] == "4" and not is_line_3(hef_arch):
        raise DeviceError(
            f"{path} is for a {hef_arch}, which HailoRT {version} does not drive; {NEWER_RUNTIME}, or compile the "
            "model for the chip of this machine"
        )


def check_chip(path: Path, hef_arch: str, chip: str) -> None:
    """Refuse (exit 6) a HEF for another chip; for a chip that the table does not know, HailoRT decides."""
    runs = CHIPS[chip].runs if chip in CHIPS else ()
    if not runs or hef_arch in runs:
        return
    raise DeviceError(
        f"{path} is compiled for a {hef_arch}, this machine has a {chip}; expected a HEF for "
        f"{' or '.join(runs)}; compile it with: compile_to_hef.py ... --hw-arch {chip}"
    )


def is_slow(hef_arch: str, chip: str) -> bool:
    """Whether the chip would run the model faster from a HEF that was compiled for this chip."""
    return chip in CHIPS and hef_arch in CHIPS[chip].slow
