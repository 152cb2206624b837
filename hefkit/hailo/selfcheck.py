"""Check what a HEF needs: chip, driver, library, firmware, PCIe link; then run this HEF once.

    report = check_device(hef)
    report.checks[0]  # Check("chip", True, "0001:01:00.0 on the PCIe bus")

Each check is ok or says what to do. After a failed check those that depend on it are left out.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hefkit.chips import check_chip, check_runtime
from hefkit.detect.engine import EngineOptions
from hefkit.errors import DeviceError, HefkitError
from hefkit.hailo.codes import release_frames
from hefkit.hailo.engine import HailoEngine
from hefkit.hailo.runtime import Chip, load_platform, scan
from hefkit.hailo.system import GEN3_GT_S, DeviceFacts, driver_version, links
from hefkit.hef.file import Hef
from hefkit.hef.match import match
from hefkit.text import counted, one_line

GRAY = 114
NO_CHIP = (
    "no Hailo chip on the PCIe bus; check the flat cable, update the bootloader (sudo rpi-eeprom-update -a), and run: "
    "lspci -d 1e60:"
)
NO_DRIVER = "the driver is not loaded; sudo apt install hailo-all dkms, reboot, and run: dkms status"
GEN2 = (
    "the link runs at half the rate of the chip; put dtparam=pciex1_gen=3 into /boot/firmware/config.txt and reboot "
    "(an AI HAT+ sets it by itself)"
)

MIXED_UP = (
    "the outputs do not follow the pictures: the same picture gave other outputs, or another picture gave the same; "
    "please report it with these lines"
)


@dataclass(frozen=True)
class Check:
    """One line of the result."""

    name: str
    ok: bool
    text: str  # what was found, or what is wrong and what to do
    needed: bool = True  # no model runs without it


@dataclass
class Report:
    """All checks, the facts of the device, and the error of the first needed check that failed."""

    checks: list[Check] = field(default_factory=list)
    facts: DeviceFacts = field(default_factory=DeviceFacts)
    error: HefkitError | None = None

    def to_json(self) -> dict[str, Any]:
        """The key `device`."""
        return {"ok": self.error is None, **asdict(self.facts), "checks": [asdict(check) for check in self.checks]}

    def add(self, name: str, ok: bool, text: str, *, needed: bool = True) -> None:
        """Record a check."""
        self.checks.append(Check(name, ok, text, needed))

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A needed check, which fails by raising one of our errors; no more checks are made then."""
        try:
            yield
        except HefkitError as exc:
            self.add(name, False, one_line(exc, 1000))
            self.error = exc
            release_frames(exc)
            raise _Stop from exc


class _Stop(Exception):
    """A needed check has failed."""


def check_device(hef: Hef, sys: Path = Path("/sys")) -> Report:
    """Make all checks with this HEF; the chip is opened, runs three pictures, and is released."""
    report = Report()
    with suppress(_Stop):
        _check(report, hef, sys)
    return report


def _check(report: Report, hef: Hef, sys: Path) -> None:
    found, driver = links(sys), driver_version(sys)
    report.facts = DeviceFacts(driver=driver)
    for link in found:
        report.add("chip", True, f"{link.device_id} on the PCIe bus")
        _check_link(report, link.gt_s, link.width)
    if driver:
        report.add("driver", True, driver)
    with report.step("library"):
        platform = load_platform()
    report.add("library", True, f"HailoRT {platform.version}")
    report.facts = DeviceFacts(driver=driver, library=platform.version)
    with report.step("scan"):
        ids = scan(platform)
    _check_presence(report, ids, found=bool(found), driver=driver)
    if driver and driver != platform.version:
        text = f"driver {driver}, library {platform.version}; bring them to one version and reboot"
        report.add("versions", False, text, needed=False)  # opening the chip shows whether they work together
    with report.step("HEF"):
        check_runtime(hef.path, hef.arch, platform.version)
    with report.step("open"):
        chip = Chip(platform, sys)
    try:
        _check_chip(report, chip, hef)
    finally:
        chip.close()


def _check_link(report: Report, gt_s: float | None, width: int | None) -> None:
    if gt_s is None:
        report.add("link", True, "the system does not know its speed", needed=False)
    elif gt_s < GEN3_GT_S:
        report.add("link", False, f"{gt_s:g} GT/s x{width or '?'}: {GEN2}", needed=False)
    else:
        report.add("link", True, f"{gt_s:g} GT/s x{width or '?'}", needed=False)


def _check_presence(report: Report, ids: list[str], *, found: bool, driver: str | None) -> None:
    """Whether HailoRT sees a chip; where not, the kernel's view decides what to do."""
    if ids:
        report.add("scan", True, f"HailoRT sees {counted(len(ids), 'chip')}: {', '.join(map(one_line, ids))}")
        return
    if not found:
        name, text = "chip", NO_CHIP
    elif driver is None:
        name, text = "driver", NO_DRIVER
    else:
        name, text = "scan", "HailoRT sees no chip, but the kernel does; read the kernel's log: dmesg | grep -i hailo"
    with report.step(name):
        raise DeviceError(text)


def _check_chip(report: Report, chip: Chip, hef: Hef) -> None:
    facts = report.facts = chip.facts
    report.add(
        "open", True, f"{facts.arch or 'a chip'}, board {facts.board or 'without a name'}, no other program uses it"
    )
    if chip.identify_error is not None:
        report.add("identify", False, one_line(chip.identify_error, 1000), needed=False)
    if facts.firmware is not None:
        other = f"; the library is {facts.library}: upgrade both, then switch the machine off and on again"
        same = facts.firmware == facts.library
        report.add("firmware", same, facts.firmware + ("" if same else other), needed=False)
    if facts.temperature_c is not None:
        report.add("temperature", True, f"{facts.temperature_c:g} degrees Celsius", needed=False)
    with report.step("HEF"):
        check_chip(hef.path, hef.arch, facts.arch or "")
    if facts.arch is not None:
        report.add("HEF", True, f"for {hef.arch}, runs on this {facts.arch}")
    with report.step("run"):
        _run(report, chip, hef)


def _run(report: Report, chip: Chip, hef: Hef) -> None:
    """Run a gray picture, a black one and the gray one again in the same buffers; the outputs must follow them."""
    spec = match(hef).spec
    pictures = [np.full((1, *spec.input.size, 3), level, np.uint8) for level in (GRAY, 0)]
    with HailoEngine(chip, hef.path, spec, hef.groups[0].contexts, EngineOptions()) as engine:
        [gray], [black] = (engine.infer(picture) for picture in pictures)
        start = time.perf_counter()
        [again] = engine.infer(pictures[0])
        milliseconds = 1e3 * (time.perf_counter() - start)
        text = (
            f"one picture took {milliseconds:.1f} ms; HailoRT takes {engine.queue_size} at once, hefkit uses "
            f"{len(engine.slots)} slots; pages of {mmap.PAGESIZE >> 10} KiB, numpy {np.__version__}"
        )
    report.add("run", True, text)
    if spec.nms is not None and not spec.nms.boxes_only:
        return  # neither picture has boxes, and the bytes behind the counts are old ones
    ok = _equal(gray, again) and not _equal(gray, black)
    report.add(
        "repeat",
        ok,
        "the same picture gives the same outputs, another picture gives others" if ok else MIXED_UP,
        needed=False,
    )


def _equal(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
