"""Addresses from the command line and secrets: what is meant, and what is refused without repeating a password."""

from __future__ import annotations

import os
import subprocess
import sys
from argparse import ArgumentTypeError
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hefkit import cli
from hefkit.errors import UsageError
from hefkit.live.addresses import (
    MAX_SECRET_FILE_BYTES,
    Broker,
    WebAddress,
    parse_mqtt_url,
    parse_topic,
    parse_web_address,
    secret,
)
from tests.conftest import ROOT

NAME = "HEFKIT_TEST_SECRET"


@pytest.mark.parametrize(
    "text, host, port",
    [
        pytest.param("8080", "127.0.0.1", 8080, id="a port alone stays on this machine"),
        pytest.param("0.0.0.0:8080", "0.0.0.0", 8080, id="every interface"),
        pytest.param("192.168.1.7:1", "192.168.1.7", 1, id="lowest port"),
        pytest.param("localhost:65535", "localhost", 65535, id="a name, highest port"),
        pytest.param("[::1]:8080", "::1", 8080, id="IPv6"),
        pytest.param("[::]:8080", "::", 8080, id="every interface, IPv6"),
        pytest.param("[fe80::1%eth0]:8080", "fe80::1%eth0", 8080, id="IPv6 with a zone"),
        pytest.param("shed-pi.local:8080", "shed-pi.local", 8080, id="a name with a dash and a dot"),
    ],
)
def test_web_addresses(text: str, host: str, port: int) -> None:
    """[HOST:]PORT; printed back as it is read."""
    address = parse_web_address(text)

    assert address == WebAddress(host, port)
    assert parse_web_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("0", id="port 0"),
        pytest.param("65536", id="no port any more"),
        pytest.param("-1", id="negative"),
        pytest.param("\uff18\uff10", id="digits, but not ASCII"),
        pytest.param("http", id="a service"),
        pytest.param(":8080", id="an empty host could mean everywhere or nowhere"),
        pytest.param("localhost", id="no port"),
        pytest.param("localhost:", id="an empty port"),
        pytest.param("::1:8080", id="IPv6 without brackets"),
        pytest.param("[::1]", id="IPv6 without a port"),
        pytest.param("[]:8080", id="empty brackets"),
        pytest.param("http://localhost:8080", id="a URL"),
        pytest.param("localhost:8080/", id="a path"),
        pytest.param("a b:8080", id="a space"),
        pytest.param("a\n:8080", id="a line end"),
        pytest.param("user@host:8080", id="a user"),
    ],
)
def test_no_web_address(text: str) -> None:
    """Refused with what is expected."""
    with pytest.raises(ArgumentTypeError, match="expected PORT or HOST:PORT"):
        parse_web_address(text)


@pytest.mark.parametrize(
    "text, broker",
    [
        pytest.param("mqtt://broker", Broker("broker", 1883), id="the usual port"),
        pytest.param("mqtts://broker", Broker("broker", 8883, tls=True), id="the usual port with TLS"),
        pytest.param("mqtt://broker:1884", Broker("broker", 1884), id="another port"),
        pytest.param("MQTT://broker/", Broker("broker", 1883), id="capitals and a slash"),
        pytest.param("mqtt://10.0.0.2:1883", Broker("10.0.0.2", 1883), id="an address"),
        pytest.param("mqtts://[fd00::2]:8884", Broker("fd00::2", 8884, tls=True), id="IPv6"),
        pytest.param("mqtt://[::1]", Broker("::1", 1883), id="IPv6 on the usual port"),
    ],
)
def test_brokers(text: str, broker: Broker) -> None:
    """mqtt[s]://HOST[:PORT]; printed back as it is read."""
    assert parse_mqtt_url(text) == broker
    assert parse_mqtt_url(str(broker)) == broker


@pytest.mark.parametrize(
    "text",
    ["", "shed", "shed:1883", "http://shed", "mqtt:shed", "mqtt://", "mqtt://:1883", "mqtt://shed:0",
     "mqtt://shed:99999", "mqtt://shed:x", "mqtt://::1", "mqtt://shed/topic", "mqtt://shed?x", "mqtt://a b"],
)  # fmt: skip
def test_no_broker(text: str) -> None:
    """Refused with what is expected, and without repeating it."""
    with pytest.raises(ArgumentTypeError, match="expected mqtt://HOST") as caught:
        parse_mqtt_url(text)
    assert "shed" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "mqtt://ann:s3cret@broker",
        "mqtt://:s3cret@broker",
        "mqtt://ann:s3c:ret@broker:1883",
        "mqtt://ann:s3cret@@broker",
        "ann:s3cret@broker",
        "mqtt://ann:s3cret@[::1",
    ],
)
def test_a_password_is_refused_and_not_repeated(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It ends with exit code 2 and names the variables that do the same safely; not even a part of it is printed."""
    parser = cli.Parser("test")
    parser.add_argument("--mqtt", type=parse_mqtt_url)

    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["--mqtt", text])

    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert "HEFKIT_MQTT_PASSWORD" in printed.err
    assert "s3c" not in printed.err + printed.out and "ann" not in printed.err + printed.out


@pytest.mark.parametrize("text", ["hefkit", "garden/cam 1", "Straße/Übersicht", "a/b/c/d", "x" * 200])
def test_topics(text: str) -> None:
    """Levels with something in each."""
    assert parse_topic(text) == text


@pytest.mark.parametrize(
    "text",
    ["", "/", "/a", "a/", "a//b", "a/+/b", "#", "a#", "$SYS/x", "a\x00b", "a\nb", "\ud800", "ü" * 101, "a\u2028b"],
)
def test_no_topics(text: str) -> None:
    """Wildcards, empty levels, what does not print, what is too long."""
    with pytest.raises(ArgumentTypeError, match="expected"):
        parse_topic(text)


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    """No parser ends with another exception, and what it lets through has a host and a port."""
    for parse in (parse_web_address, parse_mqtt_url):
        for candidate in (text, f"mqtt://{text}", f"{text}:80"):
            try:
                address = parse(candidate)  # type: ignore[operator]
            except ArgumentTypeError:
                continue
            assert address.host and 1 <= address.port <= 65535
            assert not set(address.host) & set("/@[] \n")


def test_needs_nothing_but_the_standard_library() -> None:
    """--help asks for these parsers and must not wait for numpy."""
    code = (
        "import sys, hefkit.live.addresses; sys.exit(any(m in sys.modules for m in ('numpy', 'cv2', 'asyncio', 'ssl')))"
    )

    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0


def test_no_secret_is_set() -> None:
    """No secret."""
    assert secret(NAME) is None


def test_a_secret_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is, blanks included."""
    monkeypatch.setenv(NAME, " pass wörd ")

    assert secret(NAME) == " pass wörd "


@pytest.mark.parametrize("written", [b"s3cret", b"s3cret\n", b"s3cret\r\n", b"s3cret\nand more\n"])
def test_a_secret_from_a_file(written: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The first line, as an editor or a service manager leaves it."""
    (tmp_path / "secret").write_bytes(written)
    monkeypatch.setenv(f"{NAME}_FILE", str(tmp_path / "secret"))

    assert secret(NAME) == "s3cret"


def test_the_largest_file_of_a_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """4096 bytes are accepted; one more is refused, see below."""
    (tmp_path / "secret").write_bytes(b"s3cret\n".ljust(4096, b"x"))
    monkeypatch.setenv(f"{NAME}_FILE", str(tmp_path / "secret"))

    assert secret(NAME) == "s3cret"


@pytest.mark.parametrize(
    "written, what",
    [
        pytest.param(None, "No such file", id="not there"),
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b"\ns3cret", "empty", id="an empty first line"),
        pytest.param(b"s3cret\xff", "not text", id="not UTF-8"),
        pytest.param(b"s3cret\x00", "unprintable", id="a NUL"),
        pytest.param(b"s3cret".ljust(MAX_SECRET_FILE_BYTES + 1), "larger than 4096 bytes", id="one byte too large"),
        pytest.param(b"s3cret" * MAX_SECRET_FILE_BYTES, "larger than 4096 bytes", id="much too large"),
    ],
)
def test_unusable_files_of_secrets(
    written: bytes | None, what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One line that says why, without what is in the file."""
    if written is not None:
        (tmp_path / "secret").write_bytes(written)
    monkeypatch.setenv(f"{NAME}_FILE", str(tmp_path / "secret"))

    with pytest.raises(UsageError, match=what) as caught:
        secret(NAME)
    assert "s3c" not in str(caught.value)


def test_unusable_values_of_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty, or bytes that are not text."""
    for value in (b"", b"s3cret\xff", b"a\nb"):
        monkeypatch.setitem(os.environb, NAME.encode(), value)
        with pytest.raises(UsageError, match="empty or holds unprintable") as caught:
            secret(NAME)
        assert "s3c" not in str(caught.value)


def test_a_secret_from_two_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is unclear which one is meant."""
    monkeypatch.setenv(NAME, "s3cret")
    monkeypatch.setenv(f"{NAME}_FILE", str(tmp_path))

    with pytest.raises(UsageError, match="both set"):
        secret(NAME)
