"""HailoRT's status numbers -> cause and cure, as one of our errors.

Numbers and names are those of hailort.h in HailoRT 4.23; the causes come from the lines of its source that return
them. A fault of the file is a ModelError (exit 4), everything else a DeviceError (exit 6).
"""

from __future__ import annotations

import contextlib
import re
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hefkit.chips import NEWER_RUNTIME
from hefkit.errors import DeviceError, HefkitError, ModelError
from hefkit.text import one_line

TIMEOUT, INVALID_OPERATION, OUT_OF_PHYSICAL_DEVICES, STREAM_ABORT, OPERATION_ABORTED = 4, 6, 74, 63, 95
SAME_VERSIONS = (
    "bring them to one version and reboot (on a Raspberry Pi: sudo apt update && sudo apt full-upgrade; "
    "after that apt-mark hold keeps them together)"
)
BUG = "this is a bug of hefkit; please report it with this line"
POWER_CYCLE = "switch the machine off and on again, and look at its cooling and power supply"
KERNEL_LOG = "read the kernel's log: dmesg | grep -i hailo"


@dataclass(frozen=True)
class Advice:
    """A status in words for the user."""

    name: str  # without HAILO_
    cause: str
    cure: str
    error: type[HefkitError] = DeviceError


ADVICE = {
    2: Advice("INVALID_ARGUMENT", "HailoRT does not accept a setting", BUG),
    3: Advice("OUT_OF_HOST_MEMORY", "this machine is out of memory", "end other programs, or use a smaller batch"),
    TIMEOUT: Advice(
        "TIMEOUT", "the chip does not answer in time", f"{KERNEL_LOG}; check the flat cable and the power supply"
    ),
    INVALID_OPERATION: Advice("INVALID_OPERATION", "HailoRT does not accept this step here", BUG),
    8: Advice("INTERNAL_FAILURE", "HailoRT has an internal error", "read its log, then update HailoRT"),
    13: Advice(
        "OPEN_FILE_FAILURE",
        "HailoRT cannot open the file, or the device /dev/hailo0",
        "check that this user may read both; the driver's package sets the rights of the device at the next reboot",
    ),
    15: Advice("UNSUPPORTED_CONTROL_PROTOCOL_VERSION", "firmware and library use different protocols", SAME_VERSIONS),
    16: Advice("UNSUPPORTED_FW_VERSION", "the chip's firmware is older than the library", SAME_VERSIONS),
    18: Advice(
        "FW_CONTROL_FAILURE", "the chip's firmware refused a command; the chip may be too hot, or it hangs", POWER_CYCLE
    ),
    25: Advice("INVALID_FRAME", "the data from the chip is damaged", f"{KERNEL_LOG}; check the flat cable"),
    26: Advice(
        "INVALID_HEF",
        "HailoRT cannot use this HEF",
        "compile it again, or update HailoRT (apt) to a newer one",
        ModelError,
    ),
    36: Advice(
        "DRIVER_OPERATION_FAILED",
        "the driver refused an operation",
        f"{KERNEL_LOG}; if it names the page size: put 'options hailo_pci force_desc_page_size=4096' into "
        "/etc/modprobe.d/hailo_pci.conf and reboot",
    ),
    48: Advice("UNSUPPORTED_OPCODE", "the firmware does not know a command of this library", SAME_VERSIONS),
    61: Advice("NOT_FOUND", "HailoRT does not find a name", BUG),
    62: Advice(
        "COMMUNICATION_CLOSED", "the connection to HailoRT's service broke", "sudo systemctl restart hailort.service"
    ),
    STREAM_ABORT: Advice("STREAM_ABORT", "the run ended after an earlier failure", "HailoRT's log names that failure"),
    64: Advice(
        "DRIVER_NOT_INSTALLED",
        "the driver is not loaded",
        "sudo apt install hailo-all dkms, then reboot (dkms status shows whether it was built for this kernel)",
    ),
    69: Advice("NETWORK_GROUP_NOT_ACTIVATED", "the network is not active on the chip", BUG),
    71: Advice("OUT_OF_FW_MEMORY", "the chip is out of memory", "use a smaller batch"),
    73: Advice(
        "DEVICE_IN_USE",
        "another program uses the chip",
        "find it with: sudo lsof /dev/hailo0 (rpicam-apps, Frigate, an older run), and end it",
    ),
    OUT_OF_PHYSICAL_DEVICES: Advice(
        "OUT_OF_PHYSICAL_DEVICES",
        "there is no free chip",
        "hailortcli scan shows whether there is one, sudo lsof /dev/hailo0 which program uses it",
    ),
    75: Advice(
        "INVALID_DEVICE_ARCHITECTURE", "this chip does not support the operation", "compile the model for this chip"
    ),
    76: Advice("INVALID_DRIVER_VERSION", "driver and library of HailoRT are of different versions", SAME_VERSIONS),
    77: Advice("RPC_FAILED", "HailoRT's service does not answer", "sudo systemctl restart hailort.service"),
    78: Advice("INVALID_SERVICE_VERSION", "HailoRT's service is of another version than the library", SAME_VERSIONS),
    79: Advice(
        "NOT_SUPPORTED", "this chip (Hailo-10H, Hailo-15) needs HailoRT 5, and this is HailoRT 4", NEWER_RUNTIME
    ),
    81: Advice(
        "OUT_OF_HOST_CMA_MEMORY",
        "the kernel has no contiguous memory left",
        "run fewer models at once, or give it more: cma=512M in /boot/firmware/cmdline.txt, then reboot",
    ),
    82: Advice("QUEUE_IS_FULL", "more pictures were sent than HailoRT takes", BUG),
    85: Advice("DRIVER_INVALID_RESPONSE", "driver and library do not understand each other", SAME_VERSIONS),
    86: Advice("DRIVER_INVALID_IOCTL", "driver and library do not understand each other", SAME_VERSIONS),
    87: Advice("DRIVER_TIMEOUT", "the chip hangs", POWER_CYCLE),
    88: Advice("DRIVER_INTERRUPTED", "the driver was interrupted", "run it again; if it happens again: reboot"),
    91: Advice(
        "HEF_FILE_CORRUPTED",
        "the HEF is damaged",
        "copy or download it again; a file of a few hundred bytes is a Git LFS pointer or an error page",
        ModelError,
    ),
    92: Advice(
        "HEF_NOT_SUPPORTED",
        "the HEF is newer than this HailoRT",
        "update HailoRT, or compile with an older DFC",
        ModelError,
    ),
    93: Advice(
        "HEF_NOT_COMPATIBLE_WITH_DEVICE",
        "the HEF is for another chip",
        "compile it for this one (--hw-arch hailo8 or hailo8l; validate_hef.py --device says which it is)",
    ),
}
ADVICE_5 = {  # what HailoRT 5 adds
    94: Advice(
        "INVALID_HEF_USE",
        "the HEF does not allow this use",
        "compile it again, or update HailoRT (apt) to a newer one",
        ModelError,
    ),
    OPERATION_ABORTED: Advice(
        "OPERATION_ABORTED", "the run ended after an earlier failure", "HailoRT's log names that failure"
    ),
    96: Advice("DEVICE_NOT_CONNECTED", "the chip is not connected any more", f"{KERNEL_LOG}; check the flat cable"),
    97: Advice("DEVICE_TEMPORARILY_UNAVAILABLE", "the chip is starting or busy", "wait a few seconds and run it again"),
}

# pyhailort's classes whose text has no number (pyhailort.py, create_exception_from_status)
STATUS_OF_CLASS = {
    "HailoRTTimeout": TIMEOUT,
    "HailoRTInvalidArgumentException": 2,
    "HailoRTInvalidOperationException": INVALID_OPERATION,
    "InvalidProtocolVersionException": 15,
    "HailoRTFirmwareControlFailedException": 18,
    "HailoRTEthException": 19,
    "UdpRecvError": 21,
    "HailoRTInvalidFrameException": 25,
    "HailoRTInvalidHEFException": 26,
    "HailoRTDriverOperationFailedException": 36,
    "HailoRTUnsupportedOpcodeException": 48,
    "HailoRTNotFoundException": 61,
    "HailoCommunicationClosedException": 62,
    "HailoRTStreamAborted": STREAM_ABORT,
    "HailoRTNetworkGroupNotActivatedException": 69,
    "HailoRTHEFNotCompatibleWithDevice": 93,
}
# exceptions that pyhailort did not wrap hold the bare number, wrapped ones a sentence with it
NUMBER = re.compile(r"^\s*(\d{1,4})\s*$|error: (\d{1,4})\b")


def status_of(exc: BaseException) -> int | None:
    """The status number of one of pyhailort's exceptions; None where it has none."""
    known = STATUS_OF_CLASS.get(type(exc).__name__)
    if known is not None:
        return known
    found = NUMBER.search(str(exc.args[0]) if exc.args else "")
    return int(found[1] or found[2]) if found else None


def failure(exc: BaseException, doing: str) -> HefkitError:
    """One of pyhailort's exceptions -> ours; `doing` completes "HailoRT failed to"."""
    status = status_of(exc)
    advice = {**ADVICE, **ADVICE_5}.get(-1 if status is None else status)
    if status == INVALID_OPERATION and (likely := _numpy_2()):
        return DeviceError(f"HailoRT failed to {doing}: {likely} (status 6, HAILO_INVALID_OPERATION); {NUMPY_1}")
    if advice is None:
        number = "" if status is None else f" (status {status})"
        return DeviceError(f"HailoRT failed to {doing}: {one_line(exc) or type(exc).__name__}{number}; see its log")
    return advice.error(
        f"HailoRT failed to {doing}: {advice.cause} (status {status}, HAILO_{advice.name}); {advice.cure}"
    )


def _numpy_2() -> str:
    """The likely cause of status 6 where numpy is too new for HailoRT 4; else an empty text.

    An extension that was built with an old pybind11 (2.10) can be imported, but with numpy 2 every buffer reaches the
    library with size 0.
    """
    hailort = getattr(sys.modules.get("hailo_platform"), "__version__", "")
    if not hailort.startswith("4.") or int(np.__version__.partition(".")[0]) < 2:
        return ""
    return f"numpy {np.__version__} is the likely cause: HailoRT {hailort} for Python was built for numpy 1"


@contextlib.contextmanager
def translated_errors(errors: tuple[type[BaseException], ...], doing: str) -> Iterator[None]:
    """Turn pyhailort's exceptions that the block raises into ours; `doing` as in `failure`."""
    try:
        yield
    except errors as exc:
        raise failure(exc, doing) from exc


def is_abort(exc: BaseException) -> bool:
    """Whether this exception only follows from another failure."""
    return status_of(exc) in (STREAM_ABORT, OPERATION_ABORTED)


def release_frames(exc: BaseException | None) -> None:
    """Clear the stack frames that a failure holds: their variables keep HailoRT's objects alive, and those must go
    before the chip is released.
    """
    seen: set[int] = set()
    waiting = [exc]
    while waiting:
        exc = waiting.pop()
        if exc is not None and id(exc) not in seen:
            seen.add(id(exc))
            traceback.clear_frames(exc.__traceback__)
            waiting += [exc.__cause__, exc.__context__]


# --- the import ------------------------------------------------------------------------------------------------------

APT = "on Raspberry Pi OS: sudo apt install hailo-all"
VENV = "a virtual environment must be made with the system's python3 and --system-site-packages"
ELSEWHERE = "on a machine without a chip run the .emulated.onnx"
ANOTHER_NUMPY = "HailoRT for Python was built for another numpy"
SYSTEM_NUMPY = "let pip uninstall the numpy that hides the system's, and use the system's python3"
NUMPY_1 = (
    "use the system's numpy: in a virtual environment made with --system-site-packages, pip uninstall numpy; or "
    "pip install 'numpy<2'"
)
# part of the message, cause, cure; the first that fits
IMPORT_FAILURES = (
    (
        "no module named 'hailo_platform'",
        "HailoRT for Python (hailo_platform) is not installed",
        f"{APT}; {VENV}; {ELSEWHERE}",
    ),
    (
        "does not match",
        "the parts of HailoRT are of different versions",
        "upgrade hailort and python3-hailort together (sudo apt full-upgrade), or pip uninstall hailort in this "
        "environment",
    ),
    (
        "libhailort.so",
        "HailoRT for Python needs a library of another version",
        "install hailort and python3-hailort of one version (sudo apt full-upgrade), or pip uninstall hailort in this "
        "environment",
    ),
    ("numpy", ANOTHER_NUMPY, SYSTEM_NUMPY),
    ("_array_api", ANOTHER_NUMPY, SYSTEM_NUMPY),
    ("_pyhailort", "HailoRT for Python was built for another version of Python", f"use the system's python3; {VENV}"),
    (
        "static tls block",
        "a library must be loaded before the others",
        "start with: LD_PRELOAD=/usr/lib/aarch64-linux-gnu/libgomp.so.1 python3 ...",
    ),
)


def import_failure(exc: BaseException) -> DeviceError:
    """Why HailoRT's Python package could not be imported, and what to do."""
    text = f"{type(exc).__name__} {exc}".lower()
    for part, cause, cure in IMPORT_FAILURES:
        if part in text:
            detail = "" if part.startswith("no module") else f" ({one_line(exc, 160)})"
            return DeviceError(f"{cause}{detail}; {cure}")
    return DeviceError(f"HailoRT for Python cannot be imported ({one_line(exc)}); {APT}")
