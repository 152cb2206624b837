"""Where the live detector serves and publishes (`--web`, `--mqtt`, `--mqtt-topic`), and the secrets for that.

    parse_web_address("8080")             WebAddress("127.0.0.1", 8080)
    parse_mqtt_url("mqtts://broker")      Broker("broker", 8883, tls=True)
    parse_topic("garden/cam")             "garden/cam"
    secret("HEFKIT_MQTT_PASSWORD")        from the environment, or the file that HEFKIT_MQTT_PASSWORD_FILE names

Standard library only: `--help` needs the parsers. No message repeats a secret or an address with an @ in it, which
may hold a password.
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
MAX_TOPIC_BYTES = 200  # the protocol allows 65535; we append a few words
MAX_SECRET_FILE_BYTES = 4096  # a larger file cannot be a secret
_HOST = re.compile(r"[A-Za-z0-9_.-]{1,253}")
_IPV6 = re.compile(r"\[([0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9_.-]{1,16})?)\]")


@dataclass(frozen=True)
class WebAddress:
    """Where the web page is served; port 0, which the command line refuses, is any free port."""

    host: str
    port: int

    def __str__(self) -> str:
        return host_port(self.host, self.port)


@dataclass(frozen=True)
class Broker:
    """Where an MQTT broker listens."""

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
            f"{text!r} is not an address to serve on; expected PORT or HOST:PORT with a port from 1 to 65535, "
            "such as 8080, 0.0.0.0:8080 or [::]:8080"
        )
    return WebAddress(host, int(port))


def parse_mqtt_url(text: str) -> Broker:
    """An argparse type: `mqtt://HOST[:PORT]` (1883) or `mqtts://HOST[:PORT]` (8883, TLS).

    A URL with a user or a password is refused: every user of the machine can read command lines.
    """
    if "@" in text:
        raise ArgumentTypeError(
            "the URL holds a user or a password, which every user of this machine could read; "
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
            "this is not the address of a broker; expected mqtt://HOST[:PORT] or, with TLS, mqtts://HOST[:PORT]"
        )
    return Broker(host, port, tls=scheme == "mqtts")


def parse_topic(text: str) -> str:
    """An argparse type: the beginning of our topics, levels with `/` between them, without wildcards."""
    if any(c in "+#" or not c.isprintable() for c in text) or len(text.encode("utf-8", "replace")) > MAX_TOPIC_BYTES:
        raise ArgumentTypeError(
            f"this is not a topic to publish below; expected printable characters other than + and #, "
            f"at most {MAX_TOPIC_BYTES} bytes"
        )
    if text.startswith("$") or not all(text.split("/")):
        raise ArgumentTypeError(
            f"{text!r} is not a topic to publish below; expected words with / between them, no $ at the beginning"
        )
    return text


def secret(name: str) -> str | None:
    """The value of the environment variable `name`, or the first line of the file that `name`_FILE names, or None.

    Raises:
        UsageError: both are set, the file cannot be read, or the value is empty or not printable.
    """
    value, file = os.environ.get(name), os.environ.get(f"{name}_FILE")
    if value is not None and file is not None:
        raise UsageError(f"{name} and {name}_FILE are both set; expected one of them")
    where = name
    if file is not None:
        where = f"the file that {name}_FILE names"
        value = first_line(Path(file), where)
    if value is not None and not (value and value.isprintable()):
        raise UsageError(f"{where} is empty or holds unprintable characters; expected one line of text")
    return value


def _host(text: str) -> str | None:
    """A host name or address in the form that sockets take; None if it is neither."""
    bracketed = _IPV6.fullmatch(text)
    if bracketed:
        return bracketed[1]
    return text if _HOST.fullmatch(text) else None


def _is_port(text: str) -> bool:
    """Whether a text is a port from 1 to 65535, in ASCII digits."""
    return text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535


def first_line(path: Path, where: str) -> str:
    """The first line of a small text file, which messages call `where`; raises UsageError where there is none."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_SECRET_FILE_BYTES + 1)
        text = data.decode("utf-8")
    except (OSError, ValueError) as exc:  # ValueError: not UTF-8, or a NUL in the path
        reason = exc.strerror if isinstance(exc, OSError) else "not text"
        raise UsageError(f"cannot read {where}: {reason}; expected one line of text") from None
    if len(data) > MAX_SECRET_FILE_BYTES:
        raise UsageError(f"{where} is larger than {MAX_SECRET_FILE_BYTES} bytes; expected one line of text")
    return text.split("\n")[0].removesuffix("\r")
