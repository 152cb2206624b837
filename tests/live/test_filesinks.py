"""Files of a live run: nothing stops detection, nothing grows without bound, nothing of the user's is lost."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from hefkit.detect.detections import Detections
from hefkit.errors import UsageError
from hefkit.live import filesinks, sinks
from hefkit.live.filesinks import FrameSaver, JsonlSink, Recorder, fresh_file, part_of, timestamp
from hefkit.live.sinks import ThreadSink
from hefkit.live.state import LiveResult
from hefkit.pictures import writer
from hefkit.pictures.writer import VideoWriter, codec
from tests.conftest import ROOT, fill
from tests.helpers.fake_live import live_result
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.xdist_group("clock")  # it looks at the clock: one process for all such files


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.LogCaptureFixture]:
    """The log; a sink that failed tries again soon; no thread of a sink may be left."""
    monkeypatch.setattr(sinks, "RETRY_S", 0.05)
    caplog.set_level(logging.INFO, "hefkit")
    yield caplog
    assert not [t.name for t in threading.enumerate() if t.name.startswith("sink")]


def put_singly(sink: ThreadSink, *results: LiveResult) -> None:
    """Put results, each after the sink's thread has handled the one before: nothing is dropped."""
    handle = type(sink).handle
    handled: list[LiveResult] = []

    def watched(result: LiveResult) -> None:
        try:
            handle(sink, result)
        finally:
            handled.append(result)

    sink.handle = watched  # type: ignore[method-assign]
    for number, result in enumerate(results, 1):
        sink.put(result)
        wait_for(lambda number=number: len(handled) == number)


class SmallDisk(io.FileIO):
    """A file that takes ten more bytes and then reports a full disk, while `full`."""

    full = False

    def write(self, data: Any) -> int:
        if not self.full:
            return super().write(data)
        super().write(data[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class TestJsonlSink:
    """--jsonl FILE and --jsonl -."""

    def test_one_flushed_line_a_frame(self, tmp_path: Path) -> None:
        """The keys of detections.jsonl, the moment of capture in UTC, and the latency."""
        sink = JsonlSink(str(tmp_path / "new" / "out.jsonl"))
        sink.put(live_result(7))
        lines = (tmp_path / "new" / "out.jsonl").read_text().splitlines()  # before it is closed
        sink.close()

        assert json.loads(lines[0]) == {
            "source": "cam",
            "frame": 7,
            "width": 64,
            "height": 48,
            "engine": "float",
            "detections": [{"class_id": 1, "class": "bird", "score": 0.75, "xyxy": [8, 8, 24, 20]}],
            "timestamp": "2025-11-25T03:40:00.250Z",
            "latency_ms": 25.0,
        }

    def test_a_file_is_appended_to(self, tmp_path: Path) -> None:
        """A restart adds to what is there; half a line from a power cut stays alone."""
        path = tmp_path / "out.jsonl"
        path.write_text('{"whole": 1}\n{"half": ')

        for number in (1, 2):
            sink = JsonlSink(str(path))
            sink.put(live_result(number))
            sink.close()

        lines = path.read_text().splitlines()
        assert lines[:2] == ['{"whole": 1}', '{"half": ']
        assert [json.loads(line)["frame"] for line in lines[2:]] == [1, 2]

    def test_a_file_that_cannot_be_written(self, tmp_path: Path) -> None:
        """Told at start, as a usage error."""
        with pytest.raises(UsageError, match="cannot write"):
            JsonlSink(str(tmp_path))

    def test_a_full_disk_loses_lines_and_nothing_else(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: pytest.LogCaptureFixture
    ) -> None:
        """Logged once; when there is space again, lines go on, on a new line, and that is logged too."""
        monkeypatch.setattr(filesinks, "open", lambda path, mode, **more: SmallDisk(path, mode), raising=False)
        sink = JsonlSink(str(tmp_path / "out.jsonl"))
        sink.put(live_result(0))
        monkeypatch.setattr(SmallDisk, "full", True)
        for number in range(1, 20):
            sink.put(live_result(number))
        monkeypatch.setattr(SmallDisk, "full", False)
        time.sleep(0.06)
        sink.put(live_result(20))
        sink.close()

        lines = (tmp_path / "out.jsonl").read_text().splitlines()
        assert json.loads(lines[0])["frame"] == 0 and json.loads(lines[-1])["frame"] == 20 and len(lines) == 3
        assert [m for m in logged.messages if "No space left" in m] == [
            f"--jsonl {tmp_path}/out.jsonl: No space left on device; detection goes on"
        ]
        assert logged.messages[-1].startswith(f"--jsonl {tmp_path}/out.jsonl works again")

    def test_standard_output(self) -> None:
        """`-` is standard output, line by line; BrokenPipeError when the reader has left."""
        program = (
            "from hefkit.live.filesinks import JsonlSink\nfrom tests.helpers.fake_live import live_result\n"
            "sink = JsonlSink('-')\n"
            "try:\n    for i in range(100000): sink.put(live_result(i))\n"
            "except BrokenPipeError: raise SystemExit(9)\n"
        )
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT)
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["frame"] == 0
        process.stdout.close()

        assert process.wait(30) == 9


class Slow(ThreadSink):
    """Takes its time; remembers what it saw."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.seen, self.finished = seconds, [], False
        self.error: Exception | None = None
        super().__init__("slow")

    def handle(self, result: Any) -> None:
        if self.error is not None:
            raise self.error
        time.sleep(self.seconds)
        self.seen.append(result.frame.number)

    def finish(self) -> None:
        self.finished = True


class TestThreadSink:
    """What all sinks with a thread share."""

    def test_a_slow_sink_drops_the_oldest_and_never_waits(self) -> None:
        """A hundred results in a moment: few are handled, in order, the newest among them."""
        sink = Slow(0.02)
        start = time.monotonic()
        for number in range(100):
            sink.put(live_result(number))
        assert time.monotonic() - start < 1

        sink.close()

        assert sink.seen == sorted(sink.seen) and sink.seen[-1] == 99
        assert sink.dropped == 100 - len(sink.seen) and sink.finished

    def test_trouble_is_survived_and_logged_once(self, logged: pytest.LogCaptureFixture) -> None:
        """A sink that fails goes on being asked."""
        sink = Slow()
        sink.error = OSError(errno.EIO, "the stick was pulled out")
        put_singly(sink, *map(live_result, range(5)))
        sink.error = None
        sink.put(live_result(5))
        sink.close()
        sink.close()

        assert sink.seen == [5]
        assert logged.messages == ["slow: the stick was pulled out; detection goes on"]


def frames_in(path: Path) -> list[np.ndarray]:
    """Every frame of a film."""
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (got := capture.read())[0]:
        frames.append(got[1])
    return frames


@pytest.fixture(scope="module", autouse=True)
def the_codec_is_known() -> None:
    """It is looked for, and logged, once in a process; these tests are about later messages."""
    codec()


class TestRecorder:
    """--record FILE.mp4."""

    def put(self, sink: Recorder, *captured: float) -> None:
        """One result for each moment."""
        put_singly(
            sink,
            *(live_result(10 * n, captured=moment, found=Detections.empty()) for n, moment in enumerate(captured)),
        )

    def test_it_plays_as_time_passed(self, tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
        """At 10 frames a second: 0.0, 0.1, a gap to 0.5, and two frames within one tick."""
        sink = Recorder(tmp_path / "new" / "a.mp4", 10.0)
        self.put(sink, 5.0, 5.1, 5.5, 5.52, 5.6)
        assert part_of(tmp_path / "new" / "a.mp4").exists() and not (tmp_path / "new" / "a.mp4").exists()
        sink.close()

        frames = frames_in(tmp_path / "new" / "a.mp4")
        assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.mp4"]
        assert [round(float(f.mean()) / 10) for f in frames] == [0, 1, 2, 2, 2, 2, 4]
        assert logged.messages == [f"recorded {tmp_path}/new/a.mp4, 7 frames"]

    def test_a_long_gap_is_cut(self, tmp_path: Path) -> None:
        """A camera that was away for an hour does not fill the disk with its last picture."""
        sink = Recorder(tmp_path / "a.mp4", 5.0)
        self.put(sink, 0.0, 3600.0)
        sink.close()

        assert len(frames_in(tmp_path / "a.mp4")) == 1 + 5 * filesinks.LONGEST_GAP_S

    def test_every_frame_once(self, tmp_path: Path) -> None:
        """A file that is processed faster than it plays keeps its own rate."""
        sink = Recorder(tmp_path / "a.mp4", None, 12.5)
        self.put(sink, 0.0, 0.001, 0.002)
        sink.close()

        assert len(frames_in(tmp_path / "a.mp4")) == 3
        assert cv2.VideoCapture(str(tmp_path / "a.mp4")).get(cv2.CAP_PROP_FPS) == 12.5

    def test_earlier_recordings_stay(self, tmp_path: Path) -> None:
        """A restart records into the next free name; what a power cut left is not touched either."""
        (tmp_path / "a.mp4").write_text("precious")
        part_of(tmp_path / "a-2.mp4").write_text("half")

        sink = Recorder(tmp_path / "a.mp4", 10.0)
        self.put(sink, 0.0)
        sink.close()

        assert sorted(p.name for p in tmp_path.iterdir()) == ["a-2.part.mp4", "a-3.mp4", "a.mp4"]
        assert (tmp_path / "a.mp4").read_text() == "precious"

    def test_a_long_recording_goes_on_in_new_files(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: pytest.LogCaptureFixture
    ) -> None:
        """OpenCV's closed files can be played whatever happens later; so can those of a video that is read fast."""
        monkeypatch.setattr(filesinks, "SEGMENT_S", 1.0)
        monkeypatch.setattr(writer, "codec", lambda: "mp4v")
        sink = Recorder(tmp_path / "a.mp4", 10.0)
        self.put(sink, *(number / 10 for number in range(25)))
        assert sorted(p.name for p in tmp_path.iterdir()) == ["a-2.mp4", "a-3.part.mp4", "a.mp4"]
        sink.close()
        fast = Recorder(tmp_path / "b.mp4", None)
        self.put(fast, *(number / 50 for number in range(60)))
        fast.close()

        lengths = {path.name: len(frames_in(path)) for path in tmp_path.iterdir()}
        assert lengths == {"a.mp4": 11, "a-2.mp4": 11, "a-3.mp4": 3, "b.mp4": 51, "b-2.mp4": 9}

    def test_what_a_killed_run_left_is_named(self, tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
        """An open file of a dead run is named at the next start, that of a running one is not."""
        part_of(tmp_path / "a-7.mp4").write_text("half")
        first = Recorder(tmp_path / "a.mp4", 10.0)
        self.put(first, 0.0)
        second = Recorder(tmp_path / "a.mp4", 10.0)
        second.close()
        first.close()

        left = f"{tmp_path}/a-7.part.mp4 was left by a run that was killed; it cannot be played; delete it"
        assert [text for text in logged.messages if "killed; it" in text] == [left, left]

        (tmp_path / "a.mp4").rename(part_of(tmp_path / "a-7.mp4"))
        Recorder(tmp_path / "a.mp4", 10.0).close()
        assert "it can be played up to that moment; rename it to keep it" in logged.messages[-1]

    def test_without_frames_there_is_no_file(self, tmp_path: Path) -> None:
        """Nothing recorded, nothing left."""
        Recorder(tmp_path / "a.mp4", 10.0).close()

        assert not list(tmp_path.iterdir())

    def test_a_full_disk_ends_the_file_and_free_space_starts_another(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: pytest.LogCaptureFixture
    ) -> None:
        """What was recorded is kept and can be played; when there is space again, the next recording begins."""
        usage = [shutil._ntuple_diskusage(10**9, 0, 10**9)]  # type: ignore[attr-defined]
        monkeypatch.setattr(filesinks.shutil, "disk_usage", lambda folder: usage[0])
        sink = Recorder(tmp_path / "a.mp4", None)
        self.put(sink, 0.0, 0.1)
        usage[0] = usage[0]._replace(free=10**6)
        self.put(sink, 0.2, 0.3, 0.4)
        wait_for(lambda: (tmp_path / "a.mp4").exists())
        usage[0] = usage[0]._replace(free=10**9)
        time.sleep(0.06)
        self.put(sink, 0.5)
        sink.close()

        assert (len(frames_in(tmp_path / "a.mp4")), len(frames_in(tmp_path / "a-2.mp4"))) == (2, 1)
        assert [m for m in logged.messages if "disk is full" in m] == [
            "recording a.mp4: the disk is full, less than 50 MB are free; detection goes on"
        ]

    def test_a_recording_that_lost_frames_is_reported(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: pytest.LogCaptureFixture
    ) -> None:
        """OpenCV writes into the void without a word; the finished film is counted."""
        monkeypatch.setattr(VideoWriter, "check", lambda self: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        sink = Recorder(tmp_path / "a.mp4", 10.0)
        self.put(sink, 0.0)
        sink.close()

        assert logged.messages == ["recording a.mp4: full; detection goes on"] and not (tmp_path / "a.mp4").exists()


class TestFrameSaver:
    """--save-dir DIR."""

    def test_frames_with_detections_not_too_often(self, tmp_path: Path) -> None:
        """Empty frames are not kept, nor two within `every_s`; names hold the time; the boxes are drawn."""
        sink = FrameSaver(tmp_path / "new", 10, 1.0)
        for tenth in range(40):
            found = {"found": Detections.empty()} if tenth < 10 else {}
            result = live_result(100, captured=tenth / 10, wall=1_764_042_000 + tenth / 10, **found)
            sink.put(result)
            if tenth % 10 == 0:  # the one that is saved
                wait_for(lambda tenth=tenth: len(list((tmp_path / "new").glob("hefkit-*.jpg"))) == tenth // 10)
        sink.close()

        pictures = sorted((tmp_path / "new").iterdir())
        assert len(pictures) == 3 and all(filesinks.SAVED_LIVE.fullmatch(p.name) for p in pictures)
        picture = cv2.imread(str(pictures[0]))
        assert picture.shape == (48, 64, 3) and (np.abs(picture.astype(int) - 100) > 50).any()

    def test_the_oldest_of_ours_go_first(self, tmp_path: Path) -> None:
        """At most `most` pictures, earlier runs' counted; the user's own files stay."""
        for name in ("hefkit-20200101-000000-000000.jpg", "hefkit-20200101-000001-000000.jpg", "holiday.jpg"):
            (tmp_path / name).touch()
        sink = FrameSaver(tmp_path, 3, 0.0)
        put_singly(sink, *(live_result(captured=float(second), wall=1_764_042_000.0 + second) for second in range(4)))
        sink.close()

        names = sorted(p.name for p in tmp_path.iterdir())
        assert len(names) == 4 and names[-1] == "holiday.jpg" and not any("2020" in n for n in names)

    def test_a_full_disk_is_survived(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: pytest.LogCaptureFixture
    ) -> None:
        """Logged once; pictures are saved again when there is space."""
        usage = [shutil._ntuple_diskusage(10**9, 0, 0)]  # type: ignore[attr-defined]
        monkeypatch.setattr(filesinks.shutil, "disk_usage", lambda folder: usage[0])
        sink = FrameSaver(tmp_path, 3, 0.0)
        put_singly(sink, *(live_result(captured=float(second)) for second in range(3)))
        assert not list(tmp_path.iterdir())
        usage[0] = usage[0]._replace(free=10**9)
        time.sleep(0.06)
        sink.put(live_result(captured=9.0))
        sink.close()

        assert len(list(tmp_path.iterdir())) == 1
        assert (
            "disk is full" in logged.messages[0] and "works again" in logged.messages[1] and len(logged.messages) == 2
        )


def test_a_real_full_disk(small_disk: Path, logged: pytest.LogCaptureFixture) -> None:
    """A tmpfs of two megabytes, filled up: every sink logs it once, and none raises or hangs."""
    sinks = [
        JsonlSink(str(small_disk / "a.jsonl")),
        Recorder(small_disk / "a.mp4", None),
        FrameSaver(small_disk, 100, 0.0),
    ]
    fill(small_disk)
    for number in range(400):
        for sink in sinks:
            sink.put(live_result(number, captured=number / 10))
    for sink in sinks:
        sink.close()

    for what in ("--jsonl", "recording a.mp4", "--save-dir small"):
        assert len([m for m in logged.messages if m.startswith(what)]) == 1, logged.messages


def test_timestamps_sort() -> None:
    """UTC with milliseconds, always of the same length."""
    assert timestamp(0) == "1970-01-01T00:00:00.000Z" and timestamp(1_764_042_000.2509) == "2025-11-25T03:40:00.250Z"


def test_fresh_names(tmp_path: Path) -> None:
    """a.mp4, a-2.mp4, a-3.mp4."""
    assert fresh_file(tmp_path / "a.mp4").name == "a.mp4"
    (tmp_path / "a.mp4").touch()
    assert fresh_file(tmp_path / "a.mp4").name == "a-2.mp4"
    part_of(tmp_path / "a-2.mp4").touch()
    assert fresh_file(tmp_path / "a.mp4").name == "a-3.mp4"
