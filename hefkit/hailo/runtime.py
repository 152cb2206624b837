"""The chip: the only module that imports HailoRT's Python package, `hailo_platform`, and it does so late.

    with open_hef(Path("model.hef"), EngineOptions()) as engine:
        engine.infer(pictures)

It uses the asynchronous InferModel, the only interface that lets other threads run while the chip computes. Settings
are made before `configure()`. The scheduler is named explicitly, because in Python the default of 4.x is no scheduler.
Paths are passed as str. Everything is freed in the order of ownership. Source: HailoRT 4.23;
docs/hailort-assumptions.md lists what has not been tried on a chip.
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
from hefkit.hailo.codes import (
    OUT_OF_PHYSICAL_DEVICES,
    failure,
    import_failure,
    release_frames,
    status_of,
    translated_errors,
)
from hefkit.hailo.engine import HailoEngine
from hefkit.hailo.system import DeviceFacts, driver_version, links, version_number
from hefkit.hef.file import Hef, read_hef
from hefkit.hef.match import Matched, match
from hefkit.spec import NmsSpec
from hefkit.text import log, one_line

COSTLY_CONF = 0.01  # score; below it nearly every anchor is a candidate


@dataclass(frozen=True)
class Platform:
    """HailoRT's Python package; `errors` are all exceptions that it raises, wrapped or not."""

    module: Any
    version: str
    errors: tuple[type[BaseException], ...]


def load_platform() -> Platform:
    """Import HailoRT's Python package.

    Raises:
        DeviceError: it is missing or broken; the message names the command that repairs it.
    """
    _redirect_logs()
    try:
        import hailo_platform
        from hailo_platform.pyhailort import _pyhailort
    except Exception as exc:  # another numpy raises ValueError and others, a missing extension the package's own
        raise import_failure(exc) from exc
    names = ("HailoRTStatusException", "HailoRTCustomException", "HailoRTException")
    unwrapped = [getattr(_pyhailort, name) for name in names if hasattr(_pyhailort, name)]
    return Platform(hailo_platform, hailo_platform.__version__, (hailo_platform.HailoRTException, *unwrapped))


def _redirect_logs() -> None:
    """Keep hailort.log out of the working directory; libhailort reads these variables once, when it is loaded."""
    os.environ.setdefault("HAILORT_CONSOLE_LOGGER_LEVEL", "critical")  # our own messages say the same
    if "HAILORT_LOGGER_PATH" in os.environ:
        return
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "hefkit"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        os.environ["HAILORT_LOGGER_PATH"] = str(cache)
    except OSError:
        os.environ["HAILORT_LOGGER_PATH"] = "NONE"


class Chip:
    """The open chip: one for each process, and no other program can use it meanwhile.

    A chip that cannot be identified may still run the model. `identify_error` then says why, and HailoRT decides.
    """

    def __init__(self, platform: Platform, sys: Path = Path("/sys")) -> None:
        self.platform, self.errors = platform, platform.errors
        self.facts = DeviceFacts(library=platform.version, driver=driver_version(sys))
        self.identify_error: HefkitError | None = None
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
        """The status for `no free chip` has two causes: no chip, or a chip in use."""
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
            self.identify_error = failure(exc, "identify the chip")
            release_frames(exc)

    def temperature_c(self) -> float | None:
        """Temperature of the chip in degrees Celsius, the warmer of its two sensors; None where it is not known."""
        return temperature_c(self.platform, self._devices[0]) if self._devices else None

    def close(self) -> None:
        """Release the chip; a second call does nothing."""
        with contextlib.suppress(*self.errors):
            while self._devices:
                self._devices.pop().release()
        vdevice, self.vdevice = self.vdevice, None
        if vdevice is not None:
            with contextlib.suppress(*self.errors):
                vdevice.release()


def scan(platform: Platform) -> list[str]:
    """Ids of the chips that HailoRT sees, in use or not."""
    with translated_errors(platform.errors, "look for chips"):
        return [str(device) for device in platform.module.Device.scan()]


def device_facts(platform: Platform, device: Any, sys: Path = Path("/sys")) -> DeviceFacts:
    """Facts of an open `Device` and of the system; raises HailoRT's own errors where the device does not answer."""
    facts = DeviceFacts(library=platform.version, driver=driver_version(sys))
    board = device.control.identify()
    device_id = str(device.device_id)
    link = next((link for link in links(sys) if link.device_id == device_id), None)
    return replace(
        facts,
        device_id=device_id,
        arch=str(board.device_architecture).rpartition(".")[2].lower(),
        board=one_line(str(board.board_name).rstrip("\0")) or None,
        firmware=version_number(str(board.firmware_version)),
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
    """Open a HEF on the chip of this machine. The file is checked first, so its faults are reported without HailoRT.

    Raises:
        UsageError: names or other flags that do not fit the model.
        ModelError: the file or its spec cannot be used.
        DeviceError: HailoRT is missing, there is no chip, it is in use, or the HEF is for another chip.
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
        if chip.identify_error is not None:
            log.warning("%s; hefkit tries to run the model anyway", chip.identify_error)
        check_chip(path, hef.arch, chip.facts.arch or "")
        _log_match(hef, matched, chip.facts, options)
        return HailoEngine(chip, path, matched.spec, hef.groups[0].contexts, options)
    except BaseException as exc:
        release_frames(exc)
        chip.close()
        raise


def _log_match(hef: Hef, matched: Matched, facts: DeviceFacts, options: EngineOptions) -> None:
    """Log what was found out, what is assumed, and flags that change or cannot change the file's own thresholds."""
    path = one_line(hef.path)
    for fact in matched.facts:
        log.info("%s: %s", path, fact)
    if matched.assumed:
        log.warning("%s has no spec beside it; assumed: %s", path, "; ".join(matched.assumed))
    if is_slow(hef.arch, facts.arch or ""):
        log.info("%s is compiled for a Hailo-8L; on this Hailo-8 it runs only as fast as on a Hailo-8L", path)
    if matched.spec.nms is not None and not matched.spec.nms.boxes_only:
        _log_thresholds(path, matched.spec.nms, options)


def _log_thresholds(path: str, nms: NmsSpec, options: EngineOptions) -> None:
    if not nms.adjustable:
        log.info("%s: the thresholds of NMS are in the file; a lower --conf or another --iou changes nothing", path)
    elif nms.score_threshold is not None and options.conf < nms.score_threshold:
        floor, conf = nms.score_threshold, options.conf
        log.info("%s: its NMS was compiled for scores from %.3g; set to %.3g by --conf", path, floor, conf)
    if nms.adjustable and options.conf < COSTLY_CONF:
        log.warning("--conf %g: HailoRT compares nearly every anchor with every other, on one core", options.conf)
