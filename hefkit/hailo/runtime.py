"""The chip: the only room that names HailoRT's Python package, `hailo_platform`, and it imports it late.

    with open_hef(Path("model.hef"), EngineOptions()) as engine:
        engine.infer(pictures)

The asynchronous InferModel path: it is the only one that lets other threads run while the chip computes. Settings go
before `configure()`, the scheduler is named explicitly (Python's default in 4.x is none), paths are texts, and
everything is freed in the order of ownership. Read in the sources of HailoRT 4.23; docs/hailort-assumptions.md lists
what has not met a chip yet.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hefkit.chips import check_chip, check_runtime, is_slow
from hefkit.detect.engine import EngineOptions
from hefkit.errors import DeviceError, HefkitError, ModelError
from hefkit.hailo.codes import OUT_OF_PHYSICAL_DEVICES, failure, import_failure, let_go, status_of, telling
from hefkit.hailo.engine import HailoEngine
from hefkit.hailo.system import DeviceFacts, driver_version, links, three
from hefkit.hef.file import Hef, read_hef
from hefkit.hef.match import Matched, match
from hefkit.spec import NmsSpec
from hefkit.text import log, one_line

COSTLY_CONF = 0.01  # below, nearly every anchor is a candidate


@dataclass(frozen=True)
class Platform:
    """What we use of the package; errors are everything that it raises, wrapped or not."""

    module: Any
    version: str
    errors: tuple[type[BaseException], ...]


def load_platform() -> Platform:
    """Import HailoRT's Python package.

    Raises:
        DeviceError: it is missing or broken; the message has the command that cures it.
    """
    _keep_logs_away()
    try:
        import hailo_platform
        from hailo_platform.pyhailort import _pyhailort
    except Exception as exc:  # numpy's of a wrong numpy is a ValueError or worse, and one is the package's own
        raise import_failure(exc) from exc
    names = ("HailoRTStatusException", "HailoRTCustomException", "HailoRTException")
    unwrapped = [getattr(_pyhailort, name) for name in names if hasattr(_pyhailort, name)]
    return Platform(hailo_platform, hailo_platform.__version__, (hailo_platform.HailoRTException, *unwrapped))


def _keep_logs_away() -> None:
    """libhailort reads these once, when it is loaded; otherwise it writes hailort.log into the working directory."""
    os.environ.setdefault("HAILORT_CONSOLE_LOGGER_LEVEL", "critical")  # we say what it would
    if "HAILORT_LOGGER_PATH" in os.environ:
        return
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "hefkit"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        os.environ["HAILORT_LOGGER_PATH"] = str(cache)
    except OSError:
        os.environ["HAILORT_LOGGER_PATH"] = "NONE"


class Chip:
    """The open chip; one a process, and nobody else can use it meanwhile.

    A chip that does not say what it is may still run: `mute` is why, and HailoRT decides.
    """

    def __init__(self, platform: Platform, sys: Path = Path("/sys")) -> None:
        self.platform, self.errors = platform, platform.errors
        self.facts = DeviceFacts(library=platform.version, driver=driver_version(sys))
        self.mute: HefkitError | None = None
        types = platform.module.FormatType
        self.dtypes = {"uint8": types.UINT8, "uint16": types.UINT16, "float32": types.FLOAT32}
        self.vdevice: Any = None
        self._devices: list[Any] = []
        try:
            self.vdevice = self._open()
            self._identify(sys)
        except BaseException:
            self.close()
            raise

    def _open(self) -> Any:
        module = self.platform.module
        try:
            params = module.VDevice.create_params()
            params.scheduling_algorithm = module.HailoSchedulingAlgorithm.ROUND_ROBIN
            return module.VDevice(params)
        except self.errors as exc:
            raise self._not_opened(exc) from exc

    def _not_opened(self, exc: BaseException) -> Exception:
        """`no free chip` is two different troubles."""
        if status_of(exc) != OUT_OF_PHYSICAL_DEVICES:
            return failure(exc, "open the chip")
        if scan(self.platform):
            return DeviceError(
                "the Hailo chip is in use (status 74); another program has it: find it with sudo lsof /dev/hailo0 "
                "(rpicam-apps, Frigate, an older run) and end it"
            )
        return DeviceError(
            "no Hailo chip was found (status 74); check the flat cable, that PCIe is on (lspci -d 1e60:) and that the "
            "driver is loaded (ls /dev/hailo0, dkms status, dmesg | grep -i hailo); after an upgrade: sudo apt install "
            "hailo-all dkms, then reboot"
        )

    def _identify(self, sys: Path) -> None:
        try:
            self._devices = list(self.vdevice.get_physical_devices())
            for device in self._devices[:1]:
                self.facts = device_facts(self.platform, device, sys)
        except (AttributeError, *self.errors) as exc:  # type: ignore[misc]
            self.mute = failure(exc, "ask the chip what it is")
            let_go(exc)

    def temperature_c(self) -> float | None:
        """Of the chip, in degrees Celsius, the warmer of its two sensors; None where it does not tell."""
        return temperature_c(self.platform, self._devices[0]) if self._devices else None

    def close(self) -> None:
        """Give the chip back; calling it twice is allowed."""
        with contextlib.suppress(*self.errors):
            while self._devices:
                self._devices.pop().release()
        vdevice, self.vdevice = self.vdevice, None
        if vdevice is not None:
            with contextlib.suppress(*self.errors):
                vdevice.release()


def scan(platform: Platform) -> list[str]:
    """Ids of the chips that HailoRT sees, in use or not."""
    with telling(platform.errors, "look for chips"):
        return [str(device) for device in platform.module.Device.scan()]


def device_facts(platform: Platform, device: Any, sys: Path = Path("/sys")) -> DeviceFacts:
    """What an open `Device` and the system tell; raises HailoRT's own errors where it cannot be asked."""
    facts = DeviceFacts(library=platform.version, driver=driver_version(sys))
    board = device.control.identify()
    device_id = str(device.device_id)
    link = next((link for link in links(sys) if link.device_id == device_id), None)
    return replace(
        facts,
        device_id=device_id,
        arch=str(board.device_architecture).rpartition(".")[2].lower(),
        board=one_line(str(board.board_name).rstrip("\0")) or None,
        firmware=three(str(board.firmware_version)),
        link_gt_s=None if link is None else link.gt_s,
        link_width=None if link is None else link.width,
        temperature_c=temperature_c(platform, device),
    )


def temperature_c(platform: Platform, device: Any) -> float | None:
    """The warmer of the two sensors; None where the chip has none or does not answer."""
    try:
        measured = device.control.get_chip_temperature()
        return round(float(max(measured.ts0_temperature, measured.ts1_temperature)), 1)
    except AttributeError:
        return None
    except platform.errors:
        return None


def open_hef(path: Path, options: EngineOptions) -> HailoEngine:
    """A HEF on the chip of this machine; the file is looked at first, so its faults show without HailoRT.

    Raises:
        UsageError: names or other flags that do not fit the model.
        ModelError: the file or its spec cannot be used.
        DeviceError: HailoRT is missing, there is no chip, it is in use, or the HEF is for another one.
    """
    hef = read_hef(path)
    if hef.digest_ok is False:
        raise ModelError(f"{path} is damaged: its checksum does not fit; copy or download it again")
    matched = match(hef, options.names)
    if options.check is not None:
        options.check(matched.spec)
    platform = load_platform()
    check_runtime(path, hef.arch, platform.version)
    chip = Chip(platform)
    try:
        if chip.mute is not None:
            log.warning("%s; trying all the same", chip.mute)
        check_chip(path, hef.arch, chip.facts.arch or "")
        _tell(hef, matched, chip.facts, options)
        return HailoEngine(chip, path, matched.spec, hef.groups[0].contexts, options)
    except BaseException as exc:
        let_go(exc)
        chip.close()
        raise


def _tell(hef: Hef, matched: Matched, facts: DeviceFacts, options: EngineOptions) -> None:
    """What was found out, what is assumed, and where the file and the flags meet."""
    path = one_line(hef.path)
    for fact in matched.facts:
        log.info("%s: %s", path, fact)
    if matched.assumed:
        log.warning("%s has no spec beside it; assumed: %s", path, "; ".join(matched.assumed))
    if is_slow(hef.arch, facts.arch or ""):
        log.info("%s is compiled for a Hailo-8L; on this Hailo-8 it runs, but no faster than there", path)
    if matched.spec.nms is not None and not matched.spec.nms.boxes_only:
        _tell_thresholds(path, matched.spec.nms, options)


def _tell_thresholds(path: str, nms: NmsSpec, options: EngineOptions) -> None:
    if not nms.adjustable:
        log.info("%s: the thresholds of NMS are in the file; a lower --conf or another --iou changes nothing", path)
    elif nms.score_threshold is not None and options.conf < nms.score_threshold:
        floor, conf = nms.score_threshold, options.conf
        log.info("%s: its NMS was compiled for scores from %.3g; set to %.3g by --conf", path, floor, conf)
    if nms.adjustable and options.conf < COSTLY_CONF:
        log.warning("--conf %g: HailoRT compares nearly every anchor with every other, on one core", options.conf)
