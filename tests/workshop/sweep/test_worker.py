"""The functions of a worker: what arrives is checked, kept by its content, and gone after the run."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from hefkit.workshop.dfc.machine import Gpu
from hefkit.workshop.sweep import worker

JOB = {"inputs": {}, "words": [], "sdk": False, "sdk_python": None, "place": 0}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "hefkit" / "sweep"


def stored(content: bytes) -> str:
    """Its hash, after `store`."""
    digest = hashlib.sha256(content).hexdigest()
    worker.store(digest, content)
    return digest


def test_inputs_are_sent_once() -> None:
    """What is there is not missing; damaged content is refused."""
    digest, other = stored(b"one"), hashlib.sha256(b"two").hexdigest()

    assert worker.missing([digest, other]) == [other]
    with pytest.raises(ValueError, match="damaged"):
        worker.store(other, b"twin")
    assert worker.missing([other]) == [other]


@pytest.mark.parametrize("digest", ["../../x", "a" * 63, "A" * 64, ""])
def test_a_hash_is_not_a_path(digest: str) -> None:
    """Nothing but a sha256 names a file of the cache."""
    with pytest.raises(ValueError, match="is not a sha256"):
        worker.missing([digest])


@pytest.mark.parametrize("place", ["../out.txt", "/etc/passwd", "a/../../b", ""])
def test_a_place_is_inside_of_the_job(place: str, cache: Path) -> None:
    """A job that names a place outside of its folder is refused, and leaves nothing."""
    with pytest.raises(ValueError, match="is not a place"):
        worker.perform({**JOB, "inputs": {place: stored(b"x")}})

    assert list((cache / "jobs").iterdir()) == []


def test_a_wrong_command_is_a_failure_with_its_reason(cache: Path) -> None:
    """The exit code and the text of the error line; the log comes back; the folder is gone."""
    outcome = worker.perform({**JOB, "words": ["gone.onnx", "--emulate"]})

    assert outcome["code"] == 4 and "gone.onnx does not exist" in outcome["error"]
    assert b"error: " in outcome["files"][worker.LOG]
    assert list((cache / "jobs").iterdir()) == []


def test_the_oldest_inputs_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache is bounded; what was linked into a running job survives, because links are files of their own."""
    monkeypatch.setattr(worker, "MAX_CACHE", 8)
    first, second = stored(b"12345"), stored(b"67890")

    assert worker.missing([first, second]) == [first]


def test_describe_says_what_is_lacking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the SDK there is a refusal only where it is asked for."""
    monkeypatch.setenv("HAILO_SDK_PYTHON", str(tmp_path / "gone"))

    assert worker.describe(False, None, "hailo8")["refusal"] is None
    assert "does not exist" in worker.describe(True, None, "hailo8")["refusal"]


def test_every_worker_of_a_machine_takes_another_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cards, three workers; a value that the user has set stays."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(worker, "gpus", lambda: [Gpu("0", "a", 1), Gpu("1", "b", 1)])

    assert [worker.own_card(place)["CUDA_VISIBLE_DEVICES"] for place in range(3)] == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert worker.own_card(0) == {}
