"""Secrets come from the environment or a file, and no message repeats them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hefkit.errors import UsageError
from hefkit.live.addresses import MAX_BYTES, secret

NAME = "HEFKIT_TEST_SECRET"


def test_nothing_is_set() -> None:
    """No secret."""
    assert secret(NAME) is None


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is, blanks included."""
    monkeypatch.setenv(NAME, " pass wörd ")

    assert secret(NAME) == " pass wörd "


@pytest.mark.parametrize("written", [b"s3cret", b"s3cret\n", b"s3cret\r\n", b"s3cret\nand more\n"])
def test_from_a_file(written: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The first line, as an editor or a service manager leaves it."""
    (tmp_path / "secret").write_bytes(written)
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
        pytest.param(b"s3cret" * MAX_BYTES, "larger than", id="much too large"),
    ],
)
def test_unusable_files(written: bytes | None, what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One line that says why, without what is in the file."""
    if written is not None:
        (tmp_path / "secret").write_bytes(written)
    monkeypatch.setenv(f"{NAME}_FILE", str(tmp_path / "secret"))

    with pytest.raises(UsageError, match=what) as caught:
        secret(NAME)
    assert "s3c" not in str(caught.value)


def test_unusable_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty, or bytes that are no text."""
    for value in (b"", b"s3cret\xff", b"a\nb"):
        monkeypatch.setitem(os.environb, NAME.encode(), value)
        with pytest.raises(UsageError, match="empty or holds unprintable") as caught:
            secret(NAME)
        assert "s3c" not in str(caught.value)


def test_both_contradict_each_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody can tell which one is meant."""
    monkeypatch.setenv(NAME, "s3cret")
    monkeypatch.setenv(f"{NAME}_FILE", str(tmp_path))

    with pytest.raises(UsageError, match="both set"):
        secret(NAME)
