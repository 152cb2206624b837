"""SOURCE of the live detector -> which camera it means, before anything is opened. Standard library only.

    csi            the Pi's camera connector; csi:1 is the second camera
    usb            the first USB camera that delivers; 0, /dev/video0 or /dev/v4l/by-id/... one of them
    rtsp://...     a network camera; also rtsps://, http://, https://
    flight.mp4     a video file

An address may hold a password. `name` never does, and `masked` takes it out of any other text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from hefkit.errors import DataError, UsageError
from hefkit.files import existing
from hefkit.pictures.find import IMAGE_SUFFIXES
from hefkit.text import one_line

SCHEMES = {"rtsp": "rtsp", "rtsps": "rtsp", "http": "http", "https": "http"}  # of an address -> kind of camera
KINDS = (
    "csi or csi:1 (the Pi's camera connector), usb, a number or /dev/videoN (a USB camera), "
    "an address with rtsp://, rtsps://, http:// or https://, or a video file"
)
MAX_NUMBER = 255  # of /dev/videoN: the kernel has no more
ENCODE = "in user names and passwords @ is written %40, : %3A, / %2F, # %23, ? %3F and % %25"

_DEVICE = re.compile(r"/dev/(video[0-9]{1,3}|v4l/by-(id|path)/[^/]+)")
_ADDRESS = re.compile(r"\b(?:rtsps?|https?)://\S+", re.IGNORECASE)
# cameras that take the password as part of the path or the query: /user=admin&password=..., ?usr=a&pwd=b
_SECRET_VALUE = re.compile(r"([\w-]*(?:pass|pwd|pw|token|secret|key|auth|cred|login|user|usr)[\w-]*=)[^&;/?\s]*", re.I)


@dataclass(frozen=True)
class CameraSource:
    """One camera, stream or video file, as the user means it."""

    kind: str  # "csi" | "usb" | "rtsp" | "http" | "file"
    name: str  # as messages and results call it; without passwords
    number: int = 0  # csi: which camera
    path: Path | None = None  # file: which; usb: which device, None for the first that delivers
    url: str = field(default="", repr=False)  # rtsp, http: with its password, so never to be shown

    @property
    def live(self) -> bool:
        """Whether it goes on for ever, and gives frames at its own pace."""
        return self.kind != "file"


def parse_source(text: str) -> CameraSource:
    """What SOURCE means. Nothing is opened; only a file's existence is looked at.

    Raises:
        UsageError: it is none of KINDS, or an address without a valid host and port.
        DataError: a video file that does not exist.
    """
    if csi := re.fullmatch(r"csi(?::([0-9]))?", text):
        return CameraSource("csi", text, number=int(csi[1] or 0))
    if text == "usb":
        return CameraSource("usb", text)
    if re.fullmatch(r"[0-9]{1,3}", text) and int(text) <= MAX_NUMBER:
        return _usb(f"/dev/video{int(text)}")
    if _DEVICE.fullmatch(text):
        return _usb(text)
    if "://" in text or text.partition(":")[0].lower() in SCHEMES:
        return _address(text)
    return _file(text)


def masked(text: str) -> str:
    """Any text, without the credentials of the addresses in it: `rtsp://***@host/stream`."""
    return _ADDRESS.sub(lambda match: _masked_address(match[0]), text)


def _usb(device: str) -> CameraSource:
    return CameraSource("usb", device, path=Path(device))


def _address(text: str) -> CameraSource:
    scheme = text.partition(":")[0].lower()
    if scheme not in SCHEMES:
        raise UsageError(f"the source {one_line(scheme)}:... is no address of a camera; expected {KINDS}")
    _checked(text, scheme)
    return CameraSource(SCHEMES[scheme], masked(text), url=text)


def _checked(text: str, scheme: str) -> None:
    """Refuse what no camera has, without a word of it: wrongly written passwords end up anywhere in an address."""
    if any(c.isspace() or not c.isprintable() for c in text):
        raise UsageError(f"the source {scheme}://... has a space or a control character in it; {ENCODE}")
    parts = _split(text)
    if parts is None or not parts.hostname or "#" in text:
        raise UsageError(
            f"the source {scheme}://... has no valid host and port; expected {scheme}://host/...; {ENCODE}"
        )


def _split(text: str) -> SplitResult | None:
    """The parts of an address; None where it has no valid host and port."""
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018 (it is the reading that checks it)
    except ValueError:
        return None
    return parts


def _masked_address(text: str) -> str:
    """Whatever stands before the last @ may be a password that nobody encoded, slashes and all."""
    scheme, _, rest = text.partition("://")
    host_at = rest.rpartition("@")[2]
    user = "***@" if host_at != rest else ""
    return f"{scheme}://{user}" + _SECRET_VALUE.sub(r"\g<1>***", host_at)


def _file(text: str) -> CameraSource:
    path = Path(text)
    if not text or not existing(path):
        raise _not_there(text, path)
    if not path.is_file():
        raise UsageError(f"the source {text} is no file; expected {KINDS}; photographs are for hailo_inference.py")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise UsageError(f"the source {text} is a photograph; expected {KINDS}; run hailo_inference.py with it")
    return CameraSource("file", text, path=path)


def _not_there(text: str, path: Path) -> UsageError | DataError:
    """A word that is no kind of ours is a slip of the flag; what looks like a path is a missing file."""
    shown = f"***@{text.rpartition('@')[2]}" if "@" in text else text  # an address that lost its scheme
    if path.suffix or len(path.parts) > 1:
        return DataError(f"the video file {shown} does not exist; expected {KINDS}")
    return UsageError(f"the source {shown!r} is not known; expected {KINDS}")
