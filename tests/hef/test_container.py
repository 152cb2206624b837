"""The outer layer of a HEF: container versions 0 to 3, lengths, checksums, and files of another kind."""

from __future__ import annotations

import re
import struct
import sys
import tracemalloc
from pathlib import Path

import pytest

from hefkit.errors import ModelError
from hefkit.hef.file import read_hef
from tests.conftest import AsHef
from tests.helpers.tiny_hef import CHECKS_XXH3, YOLO_ORDER, checked, checksum, field, hef_file, yolo_hef

VERSIONS = [0, 1, 2, 3]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_container_version(as_hef: AsHef, version: int) -> None:
    """Message, and behind it weights, where the version has a place for them."""
    extra = {1: {"ccws": b"w" * 99}, 2: {"ccws": b"w" * 99}, 3: {"ccws": b"w" * 99, "padding": 41, "additional": b"x"}}

    found = as_hef(hef_file(yolo_hef(), version, **extra.get(version, {})))

    assert (found.container_version, found.digest_ok, found.arch, found.sdk) == (
        version,
        checked(version, True),
        "hailo8",
        "3.33.1",
    )
    assert [s.name for s in found.groups[0].outputs] == list(YOLO_ORDER)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_wrong_digest_is_told_but_not_refused(as_hef: AsHef, version: int) -> None:
    """The rest of the file is readable."""
    digest = bytes({0: 16, 1: 4}.get(version, 8))

    assert as_hef(hef_file(yolo_hef(), version, digest=digest)).digest_ok is checked(version, False)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_flipped_weight_is_seen(as_hef: AsHef, version: int) -> None:
    """The digest covers the last byte as well."""
    data = hef_file(yolo_hef() + (field(3, b"mapping") if version == 0 else b""), version, **(
        {} if version == 0 else {"ccws": bytes(5000)}))  # fmt: skip

    found = as_hef(data[:-1] + bytes([data[-1] ^ 1]))

    assert found.digest_ok is checked(version, False)


def test_sizes_are_those_of_the_reference(as_hef: AsHef) -> None:
    """32, 28, 44 and 56 bytes before the message (hef-format.md)."""
    proto = yolo_hef()

    assert [len(hef_file(proto, v)) - len(proto) for v in VERSIONS] == [32, 28, 44, 56]


def with_bytes(data: bytes, at: int, new: bytes) -> bytes:
    """Some bytes of a file replaced."""
    return data[:at] + new + data[at + len(new) :]


REFUSED = [
    ("empty", b"", "0 bytes"),
    ("magic", b"\x02" + hef_file(yolo_hef())[1:], "01 48 45 46"),
    ("version 4", with_bytes(hef_file(yolo_hef()), 4, struct.pack(">I", 4)), "version is 4"),
    ("one byte more", hef_file(yolo_hef()) + b"x", "header says"),
    ("one byte less", hef_file(yolo_hef())[:-1], "header says"),
    ("header only half", hef_file(yolo_hef())[:20], "inside its header"),
    ("additional info is missing", with_bytes(hef_file(yolo_hef(), 3), 32, struct.pack(">Q", 1)), "header says"),
    ("lengths that add up modulo 2^64", with_bytes(
        hef_file(yolo_hef(), 3, ccws=b"w"), 20, struct.pack(">QIQ", 2**64 - 1, 0, 2)), "header says"),
    ("more padding than it pads", with_bytes(hef_file(yolo_hef(), 3), 28, struct.pack(">I", 9)), "padding"),
    ("absurd message length", with_bytes(hef_file(yolo_hef()), 8, b"\xff" * 4), "header says"),
    ("absurd weights length", with_bytes(hef_file(yolo_hef()), 20, b"\xff" * 8), "header says"),
    ("git lfs", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    ("web page", b"<!DOCTYPE html><html></html>", "HTML"),
    ("zip", b"PK\x03\x04" + bytes(20), "ZIP"),
    ("gzip", b"\x1f\x8b" + bytes(20), "gzip"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "words"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refused_in_one_sentence(as_hef: AsHef, data: bytes, words: str) -> None:
    """The sentence says what is wrong."""
    with pytest.raises(ModelError, match=re.escape(words)) as caught:
        as_hef(data)

    assert "\n" not in str(caught.value)


def test_folder_and_missing_file(tmp_path: Path) -> None:
    """The operating system's words, in our sentence."""
    for path in (tmp_path, tmp_path / "none.hef"):
        with pytest.raises(ModelError, match="cannot read"):
            read_hef(path)


@pytest.mark.parametrize("version", VERSIONS)
def test_cut_off_at_every_byte(tmp_path: Path, version: int) -> None:
    """Never another exception than ours, whatever is missing."""
    data = hef_file(yolo_hef(), version, **({} if version == 0 else {"ccws": b"weights"}))
    path = tmp_path / "cut.hef"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(ModelError):
            read_hef(path)


@pytest.mark.parametrize("version", VERSIONS)
def test_large_weights_are_not_read_into_memory(as_hef: AsHef, version: int) -> None:
    """They are stepped over, version 0's inside the message, and hashed piece by piece."""
    weights = bytes(24 << 20)
    inside = field(3, weights) if version == 0 else b""
    data = hef_file(yolo_hef() + inside, version, **({} if version == 0 else {"ccws": weights}))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        assert as_hef(data).digest_ok is checked(version, True)
        grown = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()

    assert grown < 4 << 20


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("damage", [False, True])
def test_advice_depends_on_the_digest(as_hef: AsHef, version: int, damage: bool) -> None:
    """A file that was damaged on its way is told apart from one that never was right, where the digest is checked."""
    words = {
        True: "cannot be used: at byte .*; compile it again",
        False: "its checksum does not fit, .*; copy or download it again$",
        None: "cannot be used: at byte .*; copy or download it again; if it stays, compile it again",
    }
    with pytest.raises(ModelError, match=words[checked(version, not damage)]):
        as_hef(hef_file(yolo_hef() + b"\x0e", version, digest=bytes({1: 4, 2: 8}[version]) if damage else None))


@pytest.mark.parametrize("version", VERSIONS)
def test_without_xxhash_an_xxh3_is_not_checked(as_hef: AsHef, monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    """The digest is not known to be right or wrong; MD5 and CRC-32 need no package."""
    monkeypatch.setitem(sys.modules, "xxhash", None)
    digest = bytes({0: 16, 1: 4}.get(version, 8))

    found = [as_hef(hef_file(yolo_hef(), version, digest=d)).digest_ok for d in (digest, None)]

    assert found == ([False, True] if version < 2 else [None, None])


def test_without_xxhash_a_broken_file_may_be_damaged(as_hef: AsHef, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the first advice is to copy it again."""
    monkeypatch.setitem(sys.modules, "xxhash", None)

    with pytest.raises(ModelError, match="copy or download it again; if it stays, compile it again"):
        as_hef(hef_file(yolo_hef() + b"\x0e"))


def test_the_builder_knows_the_checksums() -> None:
    """CRC-32 of its definition's check string, MD5 of nothing (RFC 1321), XXH3 of nothing: big endian in a file."""
    assert checksum(1, b"123456789") == bytes.fromhex("cbf43926")
    assert checksum(0, b"") == bytes.fromhex("d41d8cd98f00b204e9800998ecf8427e")
    assert checksum(2, b"") == bytes.fromhex("2d06800538d394c2" if CHECKS_XXH3 else 16 * "0")
