"""Photograph or video, by content; both detectors give the same answer; recordings that were cut off."""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path

import pytest

from hefkit.cameras.source import parse_source
from hefkit.errors import DataError, UsageError
from hefkit.pictures.kinds import PHOTOGRAPH, VIDEO, cut_off, kind_of
from hefkit.pictures.sources import find_items, is_video
from tests.helpers.pictures import encode, noise, write

JPEG, PNG = encode(noise(40, 30), ".jpg"), encode(noise(40, 30), ".png")
MPO = JPEG[:2] + b"\xff\xe2\x00\x08MPF\0II" + JPEG[2:] + JPEG  # two views in one photograph
TS, M2TS = (b"G" + bytes(187)) * 8, (bytes(4) + b"G" + bytes(187)) * 8


def atom(name: bytes, size: int = 8) -> bytes:
    return struct.pack(">I4s", size, name) + bytes(size - 8)


MP4 = atom(b"ftyp", 24) + atom(b"mdat", 400) + atom(b"moov", 100)
KINDS = {
    # name: (content, suffix, kind)
    "MJPEG": (JPEG * 3, ".mjpeg", VIDEO),
    "MJPEG with another name": (JPEG * 3, ".data", VIDEO),
    "MJPEG with padding": ((JPEG + bytes(16)) * 3, "", VIDEO),
    "one JPEG": (JPEG, ".data", PHOTOGRAPH),
    "a JPEG with a trailer": (JPEG + MP4, ".jpg", PHOTOGRAPH),
    "MPO": (MPO, ".mpo", PHOTOGRAPH),
    "MPO with another name": (MPO, ".data", PHOTOGRAPH),
    "PNG": (PNG, ".data", PHOTOGRAPH),
    "HEIC": (b"\0\0\0\x18ftypheic" + bytes(100), ".data", PHOTOGRAPH),
    "H.264": (b"\0\0\0\1\x67\x64\0\x28" + bytes(90), ".h264", VIDEO),
    "H.264 with another name": (b"\0\0\0\1\x27\x64\0\x28" + bytes(90), ".bin", VIDEO),
    "H.265": (b"\0\0\0\1\x40\x01\x0c" + bytes(90), ".bin", VIDEO),
    "MP4": (MP4, ".bin", VIDEO),
    "3GP": (b"\0\0\0\x18ftyp3gp4" + bytes(100), ".3gp", VIDEO),
    "old QuickTime": (atom(b"moov", 100) + atom(b"mdat", 400), ".bin", VIDEO),
    "Matroska": (b"\x1aE\xdf\xa3" + bytes(90), ".bin", VIDEO),
    "AVI": (b"RIFF\x10\0\0\0AVI " + bytes(90), ".bin", VIDEO),
    "WebP": (b"RIFF\x10\0\0\0WEBP" + bytes(90), ".bin", PHOTOGRAPH),
    "FLV": (b"FLV\x01" + bytes(90), ".bin", VIDEO),
    "MTS": (TS, ".mts", VIDEO),
    "M2TS": (M2TS, ".bin", VIDEO),
    "MPEG": (b"\0\0\1\xba" + bytes(90), ".bin", VIDEO),
    "a text": (b"Good morning", ".bin", None),
    "nothing": (b"", ".bin", None),
}


@pytest.mark.parametrize("content, suffix, kind", KINDS.values(), ids=KINDS.keys())
def test_the_content_tells(tmp_path: Path, content: bytes, suffix: str, kind: str | None) -> None:
    """hailo_inference.py and working_hailo_detector.py agree on every file."""
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content)

    assert kind_of(path) == kind
    assert is_video(str(path)) == (kind == VIDEO)
    with pytest.raises(UsageError, match="is a photograph") if kind == PHOTOGRAPH else contextlib.nullcontext():
        assert parse_source(str(path)).kind == "file"


def test_what_cannot_be_read_has_no_kind(tmp_path: Path) -> None:
    """A pipe is not opened, because that would wait for ever."""
    os.mkfifo(tmp_path / "pipe")

    assert [kind_of(tmp_path / name) for name in ("pipe", "gone", "x" * 300, ".")] == [None] * 4
    assert [cut_off(tmp_path / name) for name in ("gone", ".")] == ["", ""]


CUT = {
    "MP4": (MP4, ""),
    "MP4 with 64 bits": (atom(b"ftyp") + struct.pack(">I4sQ", 1, b"mdat", 116) + bytes(100) + atom(b"moov"), ""),
    "MP4 without its index": (MP4[:-100], "no index"),
    "MP4 whose pictures end early": (MP4[:200], "no index"),
    "MP4 with the index first": (atom(b"ftyp") + atom(b"moov", 50) + atom(b"mdat", 400)[:-30], "shorter than"),
    "MJPEG": (JPEG * 2, ""),
    "MJPEG without its end": ((JPEG * 2)[:-50], "no end"),
    "AVI": (b"RIFF\x10\0\0\0AVI " + bytes(12), ""),
    "AVI without its size": (b"RIFF\0\0\0\0AVI "[:4] + bytes(4) + b"AVI ", ""),
    "AVI that ends early": (b"RIFF\x10\1\0\0AVI " + bytes(12), "not finished"),
    "MTS": (TS, ""),
    "MTS without its end": (TS[:-7], "no end"),
    "M2TS without its end": (M2TS[:-7], "no end"),
    "a text": (b"Good morning", ""),
}


@pytest.mark.parametrize("content, words", CUT.values(), ids=CUT.keys())
def test_recordings_that_were_cut_off(tmp_path: Path, content: bytes, words: str) -> None:
    """The words say why; a complete file has none."""
    path = tmp_path / "file"
    path.write_bytes(content)

    assert bool(cut_off(path)) == bool(words) and words in cut_off(path)


def test_videos_among_photographs_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They are left out, and one line says how many; the cure is to name one as the source."""
    monkeypatch.chdir(tmp_path)
    write(Path("mix/a.jpg"))
    for name in ("b.mp4", "sub/c.mts", "d.h264"):
        Path("mix", name).parent.mkdir(exist_ok=True)
        Path("mix", name).write_bytes(MP4)
    Path("mix/code.ts").write_text("const a = 1\n")  # TypeScript

    for source in ("mix", "mix/**/*"):
        caplog.clear()
        assert [item.source for item in find_items(source, videos=True)] == ["mix/a.jpg"]
        assert "3 videos left out, such as b.mp4; a video must be named as the source itself" in caplog.text
    assert [item.source for item in find_items("mix/b.mp4", videos=True)] == ["mix/b.mp4"]


def test_the_real_folder(shared: Path, caplog: pytest.LogCaptureFixture) -> None:
    """../shared/field: a photograph and a video."""
    folder = shared / "field" / "09-mixed-folder" / "mix"

    assert [item.path.name for item in find_items(str(folder), videos=True)] == ["a.jpg"]
    assert "1 video left out, such as b.mp4" in caplog.text
    assert is_video(str(shared / "field" / "02-mjpeg" / "raw.mjpeg"))
    with pytest.raises(DataError, match="is a video; expected photographs"):
        find_items(str(folder / "b.mp4"))
