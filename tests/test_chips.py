"""The table of chips: which HEF runs where, which HailoRT and which compiler belong to a chip."""

from __future__ import annotations

from pathlib import Path

import pytest

from hefkit.chips import (
    CHIP_OF_NUMBER,
    CHIPS,
    LINE_3,
    LINE_5,
    TARGETS,
    check_chip,
    check_runtime,
    is_line_3,
    is_slow,
    same_arch,
)
from hefkit.errors import DeviceError

HEF = Path("m.hef")


def test_the_targets_of_the_contract() -> None:
    """The values of --hw-arch in design section 3, in its order, the default first."""
    assert TARGETS == ("hailo8", "hailo8l", "hailo10h", "hailo15h", "hailo15m", "hailo15l")
    assert (*LINE_3, *LINE_5) == TARGETS and LINE_3 == ("hailo8", "hailo8l")


def test_a_number_belongs_to_one_chip_and_every_hef_has_words() -> None:
    """No number is listed twice; where a HEF of each chip runs is said."""
    numbers = [number for chip in CHIPS.values() for number in chip.numbers]

    assert len(numbers) == len(set(numbers)) == len(CHIP_OF_NUMBER)
    assert all(chip.hef_runs for chip in CHIP_OF_NUMBER.values())


def test_the_table_refers_to_its_own_chips() -> None:
    """A name in `runs`, `slow` or `same_number` is a chip of the table."""
    for chip in CHIPS.values():
        assert {*chip.runs, *chip.slow} <= set(CHIPS) and set(chip.slow) <= set(chip.runs)
        assert not chip.same_number or CHIPS[chip.same_number].same_number == chip.name
        assert chip.name in chip.runs or not chip.target


@pytest.mark.parametrize(
    ("hef_arch", "chip_arch", "fits"),
    [
        ("hailo8", "hailo8", True), ("hailo8l", "hailo8", True), ("hailo8l", "hailo8l", True),
        ("hailo8", "hailo8l", False), ("hailo10h", "hailo8", False), ("hailo8", "hailo10h", False),
        ("hailo15h", "hailo10h", True), ("hailo8_a0", "hailo8", False), ("hailo15m", "hailo15h", True),
        ("hailo15h", "hailo15m", False), ("hailo15l", "hailo15l", True), ("hailo15l", "hailo15h", False),
    ],
)  # fmt: skip
def test_which_file_fits_which_chip(hef_arch: str, chip_arch: str, fits: bool) -> None:
    """The matrix of HailoRT 4.23."""
    if fits:
        check_chip(HEF, hef_arch, chip_arch)
    else:
        with pytest.raises(DeviceError, match=f"--hw-arch {chip_arch}"):
            check_chip(HEF, hef_arch, chip_arch)


def test_an_unknown_chip_is_left_to_hailort() -> None:
    """A chip that is sold after this table was written must not be refused."""
    assert "hailo99" not in CHIPS
    check_chip(HEF, "hailo8", "hailo99")
    check_chip(HEF, "hailo8", "hailo8_a0")  # in the table, but what it runs is not known


def test_a_newer_hailort_decides_by_itself() -> None:
    """Only 4.x is known to refuse the newer chips."""
    check_runtime(HEF, "hailo10h", "5.2.0")
    check_runtime(HEF, "hailo8_a0", "4.23.0")
    with pytest.raises(DeviceError, match=r"HailoRT 4\.21\.0 does not drive"):
        check_runtime(HEF, "hailo10h", "4.21.0")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param("hailo8", "hailo8", True, id="the same"),
        pytest.param("hailo10h", "hailo15h", True, id="one number in the file"),
        pytest.param("hailo8", "hailo8l", False, id="another layout"),
        pytest.param("hailo15h", "hailo15m", False, id="another size"),
        pytest.param("hailo99", "hailo8", False, id="not in the table"),
    ],
)
def test_which_archs_are_one(one: str, other: str, same: bool) -> None:
    """A spec for the 10H belongs to a file that says 15H, because HailoRT 5 cannot tell them apart either."""
    assert same_arch(one, other) == same == same_arch(other, one)


def test_only_an_8l_file_is_slow_on_a_hailo_8() -> None:
    """It uses a part of the chip."""
    assert [(hef, chip) for chip in CHIPS for hef in CHIPS if is_slow(hef, chip)] == [("hailo8l", "hailo8")]
    assert not is_slow("hailo8l", "hailo99")


@pytest.mark.parametrize(("name", "line_3"), [("hailo8r", True), ("hailo15l", False), (None, False), ("new", False)])
def test_which_compiler(name: str | None, line_3: bool) -> None:
    """DFC 3.x for the Hailo-8 and its variants, whatever the script says about them."""
    assert is_line_3(name) is line_3


@pytest.mark.parametrize(
    ("given", "first", "second"),
    [
        (None, "for the chip hailo8 (the default; ", "hailo8l, hailo10h, hailo15h, hailo15m, hailo15l"),
        ("hailo8l", "for the chip hailo8l", "hailo10h, hailo15h, hailo15m, hailo15l"),
        ("hailo10h", "for the chip hailo10h", "hailo8, hailo8l, hailo15m, hailo15l"),
    ],
)
def test_the_first_lines_of_a_compilation(given: str | None, first: str, second: str) -> None:
    """For which chip, and where the result will not run."""
    from compile_to_hef import target_lines

    lines = target_lines(given)

    assert lines[0].startswith(first) and lines[1] == f"a HEF for it does not run on {second}"
