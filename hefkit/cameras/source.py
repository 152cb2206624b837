"""SOURCE of the live detector -> which camera it means. Nothing is opened. Standard library only.

    csi            the Pi's camera connector; csi:1 is the second camera
    usb            the first USB camera that gives pictures; 0, /dev/video0 or /dev/v4l/by-id/...: this one
    rtsp://...     a network camera; also rtsps://, http://, https://
    tcp://...      a stream of another program, such as `rpicam-vid -l -o tcp://0.0.0.0:8888`; also udp://
    flight.mp4     a video file

An address may hold a password. `CameraSource.name` never does, and `masked` removes it from any other text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import SplitResult, quote, urlsplit

from hefkit.errors import DataError, UsageError
from hefkit.files import existing, near_path
from hefkit.pictures.find import IMAGE_SUFFIXES
from hefkit.pictures.kinds import PHOTOGRAPH, kind_of
from hefkit.text import one_line

SCHEMES = {
    "rtsp": "rtsp",
    "rtsps": "rtsp",
    "http": "http",
    "https": "http",
    "tcp": "stream",
    "udp": "stream",
}  # of an address -> CameraSource.kind
EXPECTED = (
    "csi or csi:1 (the Pi's camera connector), usb, a number or /dev/videoN (a USB camera), "
    "an address with rtsp://, rtsps://, http://, https://, tcp:// or udp://, or a video file"
)
USERNAME, PASSWORD = "HEFKIT_CAMERA_USERNAME", "HEFKIT_CAMERA_PASSWORD"  # or the same with _FILE
MAX_NUMBER = 255  # of /dev/videoN; the kernel has no more
ENCODE = "in user names and passwords @ is written %40, : %3A, / %2F, # %23, ? %3F and % %25"

_DEVICE = re.compile(r"/dev/(video[0-9]{1,3}|v4l/by-(id|path)/[^/]+)")
_ADDRESS = re.compile(r"\b(?:rtsps?|https?|tcp|udp)://\S+", re.IGNORECASE)
# some cameras take the password in the path or the query: /user=admin&password=..., ?usr=a&pwd=b
_SECRET_VALUE = re.compile(r"([\w-]*(?:pass|pwd|pw|token|secret|key|auth|cred|login|user|usr)[\w-]*=)[^&;/?\s]*", re.I)


@dataclass(frozen=True)
class CameraSource:
    """One camera, stream or video file."""

    kind: str  # "csi" | "usb" | "rtsp" | "http" | "stream" | "file"
    name: str  # for messages and results; without passwords
    number: int = 0  # csi: which camera
    path: Path | None = None  # of the file or the USB device; None: the first USB camera that gives pictures
    url: str = field(default="", repr=False)  # rtsp, http, stream: with its password, so it must never be shown

    @property
    def live(self) -> bool:
        """Whether the source has no end and gives frames at its own rate; a file is not live."""
        return self.kind != "file"


def parse_source(text: str) -> CameraSource:
    """What SOURCE means. Nothing is opened; only whether a file exists is checked.

    Raises:
        UsageError: it is not one of EXPECTED, or an address without a valid host and port.
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


def with_login(source: CameraSource, username: str | None, password: str | None) -> CameraSource:
    """The source with a login that is not on the command line, because every user of the machine can read that.

    Args:
        source: from `parse_source`; cameras without an address stay as they are.
        username, password: as text, not percent-encoded; None: not given.

    Raises:
        UsageError: a password without a user name, or the address has a login of its own.
    """
    if not source.url or (username is None and password is None):
        return source
    if username is None:
        raise UsageError(f"{PASSWORD} is set, but {USERNAME} is not; expected both or neither")
    scheme, _, rest = source.url.partition("://")
    if "@" in rest.partition("/")[0]:
        raise UsageError(
            f"the source {source.name} has a login, and {USERNAME} is set too; expected one of them; remove the login "
            "from the address"
        )
    login = ":".join(quote(text, safe="") for text in (username, password) if text is not None)
    return replace(source, url=f"{scheme}://{login}@{rest}")


def masked(text: str) -> str:
    """The text without the logins of the addresses in it: `rtsp://me:s3cret@host/1` -> `rtsp://***@host/1`."""
    return _ADDRESS.sub(lambda match: _masked_address(match[0]), text)


def _usb(device: str) -> CameraSource:
    return CameraSource("usb", device, path=Path(device))


def _address(text: str) -> CameraSource:
    scheme = text.partition(":")[0].lower()
    if scheme not in SCHEMES:
        raise UsageError(f"the source {one_line(scheme)}:... is not the address of a camera; expected {EXPECTED}")
    _check_address(text, scheme)
    return CameraSource(SCHEMES[scheme], masked(text), url=text)


def _check_address(text: str, scheme: str) -> None:
    """Refuse an invalid address. The message quotes only its scheme: a password may be anywhere in it."""
    if any(c.isspace() or not c.isprintable() for c in text):
        raise UsageError(f"the source {scheme}://... has a space or a control character in it; {ENCODE}")
    parts = _split(text)
    stream = SCHEMES[scheme] == "stream"
    if parts is None or not parts.hostname or "#" in text or (stream and not parts.port):
        raise UsageError(
            f"the source {scheme}://... has no valid host and port; expected {scheme}://host"
            f"{':port' if stream else '/...'}; {ENCODE}"
        )


def _split(text: str) -> SplitResult | None:
    """The parts of an address; None where it has no valid host and port."""
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018 (reading it checks it)
    except ValueError:
        return None
    return parts


def _masked_address(text: str) -> str:
    """Everything before the last @ may be a password that was not encoded, slashes included."""
    scheme, _, rest = text.partition("://")
    host_at = rest.rpartition("@")[2]
    user = "***@" if host_at != rest else ""
    return f"{scheme}://{user}" + _SECRET_VALUE.sub(r"\g<1>***", host_at)


def _file(text: str) -> CameraSource:
    path = Path(text)
    if not text or not existing(path):
        raise _missing(text, path)
    if not path.is_file():
        raise UsageError(
            f"the source {text} is not a file; expected {EXPECTED}; photographs are for hailo_inference.py"
        )
    if path.suffix.lower() in (".yaml", ".yml", ".txt", ".json"):
        raise UsageError(
            f"the source {text} is a text, not a video; expected {EXPECTED}; run hailo_inference.py with a data.yaml "
            "or a list of photographs"
        )
    if path.suffix.lower() in IMAGE_SUFFIXES or kind_of(path) == PHOTOGRAPH:
        raise UsageError(f"the source {text} is a photograph; expected {EXPECTED}; run hailo_inference.py with it")
    return CameraSource("file", text, path=path)


def _missing(text: str, path: Path) -> UsageError | DataError:
    """The error for a file that does not exist: a path is a missing file, a plain word a wrong SOURCE."""
    shown = f"***@{text.rpartition('@')[2]}" if "@" in text else text  # an address that lost its scheme
    if path.suffix or len(path.parts) > 1:
        near = "" if "@" in text else near_path(path)
        return DataError(f"the video file {shown} does not exist{near}; expected {EXPECTED}")
    return UsageError(f"the source {shown!r} is not known; expected {EXPECTED}")
