"""`validate_hef.py MODEL --device`: a line for each thing needed, ok or what to do; exit 6 if one is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hefkit.errors import DeviceError
from hefkit.hailo.selfcheck import Report, check_device
from hefkit.hef.file import read_hef
from tests.conftest import Finished
from tests.helpers.chip_hef import Recipe, write_hef
from tests.helpers.fake_sys import pci
from tests.helpers.heads import make_head, make_spec

SCRIPT = "validate_hef.py"


@pytest.fixture
def hef(tmp_path: Path) -> Path:
    """A HEF for a Hailo-8."""
    write_hef(tmp_path / "m.hef", make_spec(make_head()), None, beside=True)
    return tmp_path / "m.hef"


def lines(report: Report) -> dict[str, tuple[bool, str]]:
    """Check -> ok and text."""
    return {check.name: (check.ok, check.text) for check in report.checks}


def test_all_is_well(chip: Any, hef: Path, tmp_path: Path) -> None:
    """Each line is ok, with what was found; the chip is free again."""
    report = check_device(read_hef(hef), pci(tmp_path / "sys"))

    assert report.error is None and all(check.ok for check in report.checks)
    found = lines(report)
    assert list(found) == [
        "chip", "link", "driver", "library", "scan", "open", "firmware", "temperature", "HEF", "run", "repeat"
    ]  # fmt: skip
    assert found["link"][1] == "8 GT/s x1" and found["temperature"][1] == "46.5 degrees Celsius"
    assert "HailoRT takes 8 at once, hefkit uses 10 slots" in found["run"][1]
    facts = report.facts
    assert (facts.arch, facts.firmware, facts.library, facts.driver) == ("hailo8", "4.23.0", "4.23.0", "4.23.0")
    assert (facts.device_id, facts.link_gt_s, facts.link_width) == ("0001:01:00.0", 8.0, 1)
    assert chip.events[-1] == "vdevice released"


def test_outputs_that_do_not_follow_the_pictures(
    chip: Any, hef: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory that is used again before its time shows as codes of another picture."""
    from hailo_platform.pyhailort.pyhailort import ConfiguredInferModel

    seen: list[Any] = []
    original = ConfiguredInferModel._compute

    def late(self: Any, picture: Any) -> Any:
        seen.append(original(self, picture.copy()))
        return seen[0]

    monkeypatch.setattr(ConfiguredInferModel, "_compute", late)
    report = check_device(read_hef(hef), pci(tmp_path / "sys"))

    ok, text = lines(report)["repeat"]
    assert not ok and "the outputs do not follow the pictures" in text and report.error is None


def test_nms_inside_is_run_as_well(chip: Any, tmp_path: Path) -> None:
    """Nothing is detected in a gray picture, so nothing is compared."""
    write_hef(tmp_path / "nms.hef", make_spec(make_head()), None, Recipe(nms="host"))

    report = check_device(read_hef(tmp_path / "nms.hef"), tmp_path / "no sys")

    assert report.error is None and report.checks[-1].name == "run"


def test_gen2_is_reported_but_not_a_failure(chip: Any, hef: Path, tmp_path: Path) -> None:
    """An AI Kit runs at half the rate until a line is put into config.txt."""
    report = check_device(read_hef(hef), pci(tmp_path / "sys", speed="5.0 GT/s PCIe"))

    ok, text = lines(report)["link"]
    assert not ok and report.error is None
    assert text.startswith("5 GT/s x1: ") and "dtparam=pciex1_gen=3" in text


def test_an_unknown_speed(chip: Any, hef: Path, tmp_path: Path) -> None:
    """Some bridges do not know."""
    report = check_device(read_hef(hef), pci(tmp_path / "sys", speed="Unknown"))

    assert lines(report)["link"] == (True, "the system does not know its speed")


FAULTS: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    # machine, settings of the double, the check that fails, words
    "no chip": ({"vendor": "0x8086", "driver": None}, {"devices": []}, "chip", "flat cable"),
    "no driver": ({"driver": None}, {"devices": []}, "driver", "hailo-all dkms"),
    "driver blind": ({}, {"devices": []}, "scan", "dmesg"),
    "library broken": ({}, {"faults": {"import": 1}}, "library", "different versions"),
    "scan fails": ({}, {"faults": {"scan": 36}}, "scan", "status 36"),
    "in use": ({}, {"devices": [{"id": "0001:01:00.0", "arch": "HAILO8", "busy": True}]}, "open", "in use"),
    "another chip": ({}, {"devices": [{"id": "0001:01:00.0", "arch": "HAILO8L"}]}, "HEF", "--hw-arch hailo8l"),
    "does not configure": ({}, {"faults": {"configure": 81}}, "run", "cma="),
    "does not run": ({}, {"faults": {"job": 87}}, "run", "the chip hangs"),
}


@pytest.mark.parametrize(("machine", "settings", "name", "words"), FAULTS.values(), ids=FAULTS)
def test_what_is_missing(
    chip: Any, hef: Path, tmp_path: Path, machine: dict[str, Any], settings: dict[str, Any], name: str, words: str
) -> None:
    """The last line says it; no check that depends on it is made; everything opened is released."""
    chip.reset(**settings)

    report = check_device(read_hef(hef), pci(tmp_path / "sys", **machine))

    last = report.checks[-1]
    assert (last.name, last.ok) == (name, False) and words in last.text
    assert isinstance(report.error, DeviceError) and words in str(report.error)
    assert chip.events.count("vdevice created") == chip.events.count("vdevice released")


@pytest.mark.parametrize(
    ("machine", "settings", "name", "words"),
    [
        pytest.param({"driver": "4.20.0"}, {}, "versions", "driver 4.20.0, library 4.23.0", id="driver"),
        pytest.param({}, {"firmware": (4, 20, 0)}, "firmware", "4.20.0; the library is 4.23.0", id="firmware"),
    ],
)
def test_versions_that_differ_are_reported(
    chip: Any, hef: Path, tmp_path: Path, machine: dict[str, Any], settings: dict[str, Any], name: str, words: str
) -> None:
    """Opening the chip shows whether they work together; the difference is reported in any case."""
    chip.reset(**settings)

    report = check_device(read_hef(hef), pci(tmp_path / "sys", **machine))

    ok, text = lines(report)[name]
    assert not ok and words in text
    assert report.error is None and lines(report)["run"][0]


def test_a_chip_that_does_not_say_what_it_is(chip: Any, hef: Path, tmp_path: Path) -> None:
    """Told as its own line; whether it runs is another question, and that is answered too."""
    chip.reset(faults={"identify": 18, "temperature": 18})

    report = check_device(read_hef(hef), pci(tmp_path / "sys"))

    found = lines(report)
    assert not found["identify"][0] and "status 18" in found["identify"][1]
    assert found["run"][0] and report.error is None
    assert not {"firmware", "temperature", "HEF"} & set(found)


def test_script_with_a_chip(run_script: Callable[..., Finished], chip_env: Any, hef: Path) -> None:
    """The table, then a line a check on stdout; `--json` gains the key `device`."""
    done = run_script(SCRIPT, hef, "--device", **chip_env())
    assert done.code == 0, done.err
    assert "ok  HEF          for hailo8, runs on this hailo8" in done.out.splitlines()

    done = run_script(SCRIPT, hef, "--device", "--json", **chip_env())
    device = done.json["device"]
    assert (device["ok"], device["arch"], device["firmware"], device["temperature_c"]) == (
        True,
        "hailo8",
        "4.23.0",
        46.5,
    )
    assert {"device_id", "board", "library", "driver", "link_gt_s", "link_width", "checks"} <= set(device)
    assert "device" not in run_script(SCRIPT, hef, "--json").json


def test_script_without_hailort(run_script: Callable[..., Finished], hef: Path) -> None:
    """The file and every check are shown first; then one line and exit 6. JSON is only printed after success."""
    shown = run_script(SCRIPT, hef, "--device")
    done = run_script(SCRIPT, hef, "--device", "--json", "--quiet")

    assert shown.code == 6 and "arch       hailo8" in shown.out and "\n--  " in shown.out
    assert (done.code, done.out) == (6, "")
    [error] = done.err.splitlines()
    assert error.startswith("error: ") and "sudo apt install hailo-all" in error


def test_script_with_a_damaged_file(run_script: Callable[..., Finished], chip_env: Any, hef: Path) -> None:
    """No device is asked about a file that is not what it was."""
    hef.write_bytes(hef.read_bytes()[:-1] + b"!")

    done = run_script(SCRIPT, hef, "--device", "--json", **chip_env())

    assert done.code == 4 and "device" not in done.json


def test_recipe_for_an_8l(chip: Any, tmp_path: Path) -> None:
    """An 8L's file on an 8L, start to end."""
    chip.reset(devices=[{"id": "0001:01:00.0", "arch": "HAILO8L"}])
    write_hef(tmp_path / "m.hef", make_spec(make_head()), None, Recipe(arch="hailo8l"))

    report = check_device(read_hef(tmp_path / "m.hef"), tmp_path / "no sys")

    assert report.error is None and lines(report)["HEF"][1] == "for hailo8l, runs on this hailo8l"
