"""The sinks that write files: JSON lines, a recording, pictures of frames with detections."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import shutil
import sys
from collections import deque
from datetime import datetime, timezone
from pathlib import Path
from typing import BinaryIO

from hefkit.errors import DataError
from hefkit.files import check_writable, explained, sync
from hefkit.live.sinks import ThreadSink, Trouble
from hefkit.live.state import LiveResult, jpeg
from hefkit.pictures.find import SAVED_LIVE
from hefkit.pictures.video import open_video, opencv_path
from hefkit.pictures.writer import VideoWriter, codec
from hefkit.results.formats import ImageInfo, json_line
from hefkit.staging.journal import hold, in_use, let_go
from hefkit.text import counted, log, one_line

LEAST_FREE_BYTES = 256 << 20  # a disk with less counts as full: the system needs some space itself
SEGMENT_S = 300.0  # of a recording; a kill or a power cut loses the file that is not closed yet
LONGEST_GAP_S = 10.0  # longest time for which a recording repeats a frame, even if the camera was away longer


class JsonlSink:
    """`--jsonl`: one flushed line a frame, with the keys of detections.jsonl and the time of capture.

    A file is appended to. Lines that a full disk refuses are lost, which is logged once; later lines are tried again.

    Args:
        target: a file, or "-" for standard output.

    Raises:
        UsageError: the file cannot be written.
    """

    def __init__(self, target: str) -> None:
        self.trouble = Trouble(f"--jsonl {target}")
        self._broken = False  # the last line may be incomplete
        self._file: BinaryIO
        if target == "-":
            self._file = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
        else:
            path = Path(target)
            with explained(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = open(path, "ab", buffering=0)  # noqa: SIM115
                self._broken = _ends_inside_a_line(path)

    def put(self, result: LiveResult) -> None:
        """Write one line; BrokenPipeError when the reader of standard output has gone."""
        if self.trouble.resting:
            return
        line = live_line(result).encode("ascii") + b"\n"
        try:
            self._write(b"\n" + line if self._broken else line)
        except BrokenPipeError:
            raise  # no later line would have a reader either
        except OSError as exc:
            self._broken = True
            self.trouble.failed(exc.strerror)
        else:
            self._broken = False
            self.trouble.worked()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, data: bytes) -> None:
        while data:
            data = data[self._file.write(data) :]


def live_line(result: LiveResult) -> str:
    """The object of `detections.jsonl` with `timestamp` (UTC) and `latency_ms` added; ASCII, without a line end."""
    frame = result.frame
    image = ImageInfo(frame.source, "", "", frame.number, *result.size_wh, result.engine)
    extra = f', "timestamp": "{timestamp(result.wall)}", "latency_ms": {1e3 * result.latency_s:.1f}}}'
    return json_line(image, result.detections, result.names)[:-1] + extra


def timestamp(wall: float) -> str:
    """`time.time()` as text that sorts: 2026-11-25T03:40:55.123Z"""
    return datetime.fromtimestamp(wall, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _ends_inside_a_line(path: Path) -> bool:
    """Whether the last byte of a file is not a line end."""
    with open(path, "rb") as file, contextlib.suppress(OSError):  # empty
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
    return False


def check_free(folder: Path) -> None:
    """Raise OSError when the disk is nearly full: a detector must not fill the last megabytes."""
    usage = shutil.disk_usage(folder)
    least = min(LEAST_FREE_BYTES, usage.total // 20)
    if usage.free < least:
        raise OSError(errno.ENOSPC, f"the disk is full, less than {least / 1e6:.3g} MB are free")


class Recorder(ThreadSink):
    """`--record`: annotated frames in an .mp4, written as NAME.part.mp4 and renamed when it is complete.

    Where a video cannot be written in fragments (see VideoWriter), it can only be played once it is closed; then the
    recording goes on in a new file, NAME-2.mp4 ..., every SEGMENT_S. Files that a killed run left are reported at the
    start. A full disk ends the file, which is kept; when there is space again, the next file begins.

    Args:
        path: the file; if it exists already, NAME-2.mp4 ... is used.
        fps: frames a second of the recording, which repeats or leaves out frames to play in real time; None: every
            frame once, played at `nominal_fps`.

    Raises:
        UsageError: `path` cannot be written.
    """

    def __init__(self, path: Path, fps: float | None, nominal_fps: float = 25.0) -> None:
        opencv_path(fresh_file(path))
        check_writable(path.parent)
        _name_cut_off(path)
        codec()  # now, because it takes a second and no frame waits yet
        self._wanted, self._fps, self._nominal_fps = path, fps, nominal_fps
        self._path = path
        self._video: VideoWriter | None = None
        self._held: int | None = None
        self._begun = 0.0
        self._written = 0
        super().__init__(f"recording {path.name}", lossless=fps is None)

    def handle(self, result: LiveResult) -> None:
        """Write the frame once, or as often as its time on screen needs."""
        if self.trouble.resting:
            return
        self._wanted.parent.mkdir(parents=True, exist_ok=True)
        check_free(self._wanted.parent)
        video = self._video or self._open(result)
        times = 1
        if self._fps:
            due = round((result.frame.captured - self._begun) * self._fps) + 1
            times = min(due - self._written, round(LONGEST_GAP_S * self._fps))
        for _ in range(times):
            video.write(result.annotated)
        self._written += max(times, 0)
        self.trouble.worked()
        if not video.fragmented and result.frame.captured - self._begun >= SEGMENT_S:
            self.finish()

    def _open(self, result: LiveResult) -> VideoWriter:
        self._path = fresh_file(self._wanted)
        self._video = VideoWriter(part_of(self._path), self._fps or self._nominal_fps, result.size_wh)
        self._held = hold(part_of(self._path))
        self._begun, self._written = result.frame.captured, 0
        return self._video

    def failed(self) -> None:
        """End the file, so that what it holds can be played."""
        self.finish()

    def finish(self) -> None:
        """Complete the file and give it its final name."""
        if self._video is not None:
            video, self._video = self._video, None
            part = part_of(self._path)
            video.close()
            if self._held is not None:
                let_go(part, self._held)
            video.check()
            sync(part)
            os.replace(part, self._path)
            sync(self._path.parent)
            log.info("recorded %s, %s", one_line(self._path), counted(self._written, "frame"))


class FrameSaver(ThreadSink):
    """`--save-dir`: annotated pictures of frames with detections; the oldest of ours are deleted first.

    Args:
        folder: made if it does not exist.
        most: pictures that are kept.
        every_s: minimum seconds between two pictures.
    """

    def __init__(self, folder: Path, most: int, every_s: float) -> None:
        self.folder, self._most, self._every_s = folder, most, every_s
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._kept = deque(sorted(name for name in os.listdir(folder) if SAVED_LIVE.fullmatch(name)))
        self._last = float("-inf")
        super().__init__(f"--save-dir {folder.name}")

    def put(self, result: LiveResult) -> None:
        """Take a frame with detections, unless the last one was less than `every_s` ago."""
        if len(result.detections) and result.frame.captured - self._last >= self._every_s:
            self._last = result.frame.captured
            super().put(result)

    def handle(self, result: LiveResult) -> None:
        """Save the frame, unless the last attempt has just failed."""
        if not self.trouble.resting:
            self.save(result)
            self.trouble.worked()

    def save(self, result: LiveResult) -> Path:
        """Write one picture, with or without detections; returns its path."""
        while len(self._kept) >= self._most:
            (self.folder / self._kept.popleft()).unlink(missing_ok=True)
        check_free(self.folder)
        moment = datetime.fromtimestamp(result.wall)
        path = self.folder / f"hefkit-{moment:%Y%m%d-%H%M%S}-{moment.microsecond:06d}.jpg"
        temporary = path.with_name(f".{path.name}")
        temporary.write_bytes(jpeg(result.annotated))
        os.replace(temporary, path)
        self._kept.append(path.name)
        return path


def fresh_file(path: Path) -> Path:
    """NAME.mp4, or NAME-2.mp4 ... if it or its .part file exists already."""
    candidate, number = path, 2
    with explained(path):
        while candidate.exists() or part_of(candidate).exists():
            candidate, number = path.with_name(f"{path.stem}-{number}{path.suffix}"), number + 1
    return candidate


def _name_cut_off(path: Path) -> None:
    """Warn of recordings of this name that a killed run has not closed."""
    for part in sorted(path.parent.glob(f"{glob.escape(path.stem)}*.part.mp4")):
        if part.is_file() and not in_use(part):
            try:
                open_video(part, one_line(part))
                advice = "can be played up to that moment; rename it to keep it"
            except DataError:
                advice = "cannot be played; delete it"
            log.warning("%s was left by a run that was killed; it %s", one_line(part), advice)


def part_of(path: Path) -> Path:
    """NAME.mp4 -> NAME.part.mp4; FFmpeg reads the format from the last suffix."""
    return path.with_name(f"{path.stem}.part.mp4")
