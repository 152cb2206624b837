"""Where the live detector serves and publishes: `--web`, `--mqtt` and `--mqtt-topic`, checked; standard library only.

No message repeats a broker's URL: somebody may have put a password in it.
"""

from __future__ import annotations

import os
import re
from argparse import ArgumentTypeError
from dataclasses import dataclass
from pathlib import Path

from hefkit.errors import UsageError

LOOPBACK = "127.0.0.1"
MQTT_PORTS = {"mqtt": 1883, "mqtts": 8883}
MAX_TOPIC_BYTES = 200  # the protocol allows 65535; ours get a few words appended
_HOST = re.compile(r"[A-Za-z0-9_.-]{1,253}")
_IPV6 = re.compile(r"\[([0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9_.-]{1,16})?)\]")


@dataclass(frozen=True)
class WebAddress:
    """Where the web page is served; port 0 (from code only) is any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return host_port(self.host, self.port)


@dataclass(frozen=True)
class Broker:
    """An MQTT broker; its credentials are elsewhere."""

    host: str
    port: int
    tls: bool = False

    def __str__(self) -> str:
        return f"{'mqtts' if self.tls else 'mqtt'}://{host_port(self.host, self.port)}"


def host_port(host: str, port: int) -> str:
    """`HOST:PORT`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_web_address(text: str) -> WebAddress:
    """An argparse type: `PORT` is served on 127.0.0.1, `HOST:PORT` on that address, IPv6 as `[::1]:PORT`."""
    head, colon, port = text.rpartition(":")
    host = _host(head) if colon else LOOPBACK
    if host is None or not _is_port(port):
        raise ArgumentTypeError(
            f"{text!r} is no address to serve on; expected PORT or HOST:PORT with a port from 1 to 65535, "
            "such as 8080, 0.0.0.0:8080 or [::]:8080"
        )
    return WebAddress(host, int(port))


def parse_mqtt_url(text: str) -> Broker:
    """An argparse type: `mqtt://HOST[:PORT]` (1883) or `mqtts://HOST[:PORT]` (8883, TLS).

    A URL with a user or a password is refused, without repeating it: every user of the machine sees command lines.
    """
    if "@" in text:
        raise ArgumentTypeError(
            "a user or a password does not belong on a command line, where everybody on this machine can read it; "
            "expected mqtt://HOST[:PORT]; put them into HEFKIT_MQTT_USERNAME and HEFKIT_MQTT_PASSWORD"
        )
    scheme, _, rest = text.partition("://")
    scheme, rest = scheme.lower(), rest.removesuffix("/")
    host, port = _host(rest), MQTT_PORTS.get(scheme, 0)
    if host is None:
        head, _, digits = rest.rpartition(":")
        host, port = _host(head), int(digits) if _is_port(digits) else 0
    if scheme not in MQTT_PORTS or host is None or not port:
        raise ArgumentTypeError(
            "this is no broker's address; expected mqtt://HOST[:PORT] or, with TLS, mqtts://HOST[:PORT]"
        )
    return Broker(host, port, tls=scheme == "mqtts")


def parse_topic(text: str) -> str:
    """An argparse type: a topic to publish below; levels with `/` between them, without wildcards."""
    if any(c in "+#" or not c.isprintable() for c in text) or len(text.encode("utf-8", "replace")) > MAX_TOPIC_BYTES:
        raise ArgumentTypeError(
            f"this is no topic to publish below; expected printable characters other than + and #, "
            f"at most {MAX_TOPIC_BYTES} bytes"
        )
    if text.startswith("$") or not all(text.split("/")):
        raise ArgumentTypeError(
            f"{text!r} is no topic to publish below; expected words with / between them, the first not beginning with $"
        )
    return text


def _host(text: str) -> str | None:
    """A host's name or address as sockets take it, or None."""
    bracketed = _IPV6.fullmatch(text)
    if bracketed:
        return bracketed[1]
    return text if _HOST.fullmatch(text) else None


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535


MAX_BYTES = 4096


def secret(name: str) -> str | None:
    """The value of the environment variable `name`, or the first line of the file that `name`_FILE names, or None.

    Raises:
        UsageError: both are set, the file cannot be read, or what is there is empty or not printable. No message
            repeats any of it.
    """
    value, file = os.environ.get(name), os.environ.get(f"{name}_FILE")
    if value is not None and file is not None:
        raise UsageError(f"{name} and {name}_FILE are both set; expected one of them")
    where = name
    if file is not None:
        where = f"the file that {name}_FILE names"
        value = _first_line(Path(file), where)
    if value is not None and not (value and value.isprintable()):
        raise UsageError(f"{where} is empty or holds unprintable characters; expected one line of text")
    return value


def _first_line(path: Path, where: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
        text = data.decode("utf-8")
    except (OSError, ValueError) as exc:  # ValueError: no UTF-8, or a NUL in the path
        reason = exc.strerror if isinstance(exc, OSError) else "not text"
        raise UsageError(f"cannot read {where}: {reason}; expected one line of text") from None
    if len(data) > MAX_BYTES:
        raise UsageError(f"{where} is larger than {MAX_BYTES} bytes; expected one line of text")
    return text.split("\n")[0].removesuffix("\r")
