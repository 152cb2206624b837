"""Recordings as cameras and the Pi write them: both detectors read every frame, by content, whatever the name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import hailo_inference
import working_hailo_detector
from hefkit.pictures.kinds import VIDEO, kind_of
from tests.helpers.real_videos import FRAMES, VIDEOS, video
from tests.helpers.toy_emulation import write_emulation


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """An emulated model that sees one drone in every picture."""
    return write_emulation(tmp_path)


def numbers(lines: str) -> list[int]:
    """The frame of each line; each has the one drone."""
    found = [json.loads(line) for line in lines.splitlines()]
    assert all([d["class"] for d in one["detections"]] == ["drone"] and one["width"] == 64 for one in found)
    return [one["frame"] for one in found]


@pytest.mark.parametrize("suffix", [".bin", ".own"])
@pytest.mark.parametrize("kind", VIDEOS)
def test_both_detectors_read_every_frame(toy: Path, tmp_path: Path, kind: str, suffix: str) -> None:
    """With the suffix of its kind, and with one that says nothing."""
    clip = tmp_path / f"clip{suffix if suffix == '.bin' else '.' + kind.lower().replace('.', '')}"
    clip.write_bytes(video(kind))

    assert kind_of(clip) == VIDEO
    assert hailo_inference.main([str(toy), str(clip), "--save-dir", str(tmp_path / "out"), "--no-images"]) == 0
    live = ["--pace", "fast", "--jsonl", str(tmp_path / "live.jsonl")]
    assert working_hailo_detector.main([str(toy), str(clip), *live]) == 0

    for lines in ("out/detections.jsonl", "live.jsonl"):
        assert numbers((tmp_path / lines).read_text()) == list(range(FRAMES))
