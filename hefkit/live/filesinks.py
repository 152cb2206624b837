"""Sinks of the live detector that need nothing but files: JSON lines, a recording, pictures of what was seen."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
from collections import deque
from datetime import datetime, timezone
from pathlib import Path
from typing import BinaryIO

from hefkit.files import check_writable, explained
from hefkit.live.sinks import ThreadSink, Trouble
from hefkit.live.state import LiveResult, jpeg
from hefkit.pictures.find import SAVED_LIVE
from hefkit.pictures.video import VideoWriter
from hefkit.results.formats import ImageInfo, json_line
from hefkit.text import counted, log, one_line

LEAST_FREE_BYTES = 256 << 20  # a disk with less is full: the system needs some itself
LONGEST_GAP_S = 10.0  # a recording does not stand still for longer, however long the camera was away


class JsonLines:
    """One flushed line a frame: the keys of detections.jsonl, and when the frame was captured.

    A file is appended to. Lines that a full disk refuses are lost, with a word; the next ones are tried again.
    """

    def __init__(self, target: str) -> None:
        self.trouble = Trouble(f"--jsonl {target}")
        self._broken = False  # the last line may be half written
        self._file: BinaryIO
        if target == "-":
            self._file = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
        else:
            path = Path(target)
            with explained(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = open(path, "ab", buffering=0)  # noqa: SIM115
                self._broken = _ends_in_the_middle(path)

    def put(self, result: LiveResult) -> None:
        """Write one line, in one piece."""
        if self.trouble.resting:
            return
        line = live_line(result).encode("ascii") + b"\n"
        try:
            self._write(b"\n" + line if self._broken else line)
        except BrokenPipeError:
            raise  # whoever read standard output has left: nobody wants more
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
    """The object of `detections.jsonl` with `timestamp` (UTC) and `latency_ms`, ASCII, without a line end."""
    frame = result.frame
    image = ImageInfo(frame.source, "", "", frame.number, *result.size_wh, result.engine)
    extra = f', "timestamp": "{timestamp(result.wall)}", "latency_ms": {1e3 * result.latency_s:.1f}}}'
    return json_line(image, result.detections, result.names)[:-1] + extra


def timestamp(wall: float) -> str:
    """2026-11-25T03:40:55.123Z"""
    return datetime.fromtimestamp(wall, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _ends_in_the_middle(path: Path) -> bool:
    """Whether a file that is appended to does not end with a line end."""
    with open(path, "rb") as file, contextlib.suppress(OSError):  # empty
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
    return False


def check_free(folder: Path) -> None:
    """Raise OSError where the disk is nearly full: a detector must not be what fills the last megabytes."""
    usage = shutil.disk_usage(folder)
    least = min(LEAST_FREE_BYTES, usage.total // 20)
    if usage.free < least:
        raise OSError(errno.ENOSPC, f"the disk is full, less than {least / 1e6:.3g} MB are free")


class Recorder(ThreadSink):
    """Annotated frames into an .mp4, written as NAME.part.mp4 and renamed at a clean end.

    A full disk ends the file, which is kept; when there is room again the next one begins.

    Args:
        path: the file; where there is one already, NAME-2.mp4 ... is used.
        fps: of the recording. Frames are repeated or left out so that it plays as time passed; None: every
            frame once, at the rate of `nominal_fps`.

    Raises:
        UsageError: `path` cannot be written.
    """

    def __init__(self, path: Path, fps: float | None, nominal_fps: float = 25.0) -> None:
        fresh_file(path)
        check_writable(path.parent)
        self._wanted, self._fps, self._nominal_fps = path, fps, nominal_fps
        self._path = path
        self._film: VideoWriter | None = None
        self._begun = 0.0
        self._written = 0
        super().__init__(f"recording {path.name}", lossless=fps is None)

    def handle(self, result: LiveResult) -> None:
        """Write the frame as often as it was on."""
        if self.trouble.resting:
            return
        self._wanted.parent.mkdir(parents=True, exist_ok=True)
        check_free(self._wanted.parent)
        film = self._film or self._open(result)
        times = 1
        if self._fps:
            due = round((result.frame.captured - self._begun) * self._fps) + 1
            times = min(due - self._written, round(LONGEST_GAP_S * self._fps))
        for _ in range(times):
            film.write(result.annotated)
        self._written += max(times, 0)
        self.trouble.worked()

    def _open(self, result: LiveResult) -> VideoWriter:
        self._path = fresh_file(self._wanted)
        self._film = VideoWriter(part_of(self._path), self._fps or self._nominal_fps, result.size_wh)
        self._begun, self._written = result.frame.captured, 0
        return self._film

    def failed(self) -> None:
        """What there is, is kept and can be played."""
        self.finish()

    def finish(self) -> None:
        """Close the film and give it its name."""
        if self._film is not None:
            film, self._film = self._film, None
            film.close()
            film.check()
            os.replace(part_of(self._path), self._path)
            log.info("recorded %s, %s", one_line(self._path), counted(self._written, "frame"))


class FrameSaver(ThreadSink):
    """Annotated pictures of frames with detections: at most `most` of them, the oldest of ours go first.

    Args:
        folder: made if it is not there.
        most: pictures kept.
        every_s: least time between two.
    """

    def __init__(self, folder: Path, most: int, every_s: float) -> None:
        self.folder, self._most, self._every_s = folder, most, every_s
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._kept = deque(sorted(name for name in os.listdir(folder) if SAVED_LIVE.fullmatch(name)))
        self._last = float("-inf")
        super().__init__(f"--save-dir {folder.name}")

    def put(self, result: LiveResult) -> None:
        """Take a frame in which something was found, if the last one is long enough ago."""
        if len(result.detections) and result.frame.captured - self._last >= self._every_s:
            self._last = result.frame.captured
            super().put(result)

    def handle(self, result: LiveResult) -> None:
        """Save it."""
        if not self.trouble.resting:
            self.save(result)
            self.trouble.worked()

    def save(self, result: LiveResult) -> Path:
        """Write one picture, whatever is in it; make room first."""
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
    """NAME.mp4, or NAME-2.mp4 ... where it, or a part of it, is there already."""
    candidate, number = path, 2
    with explained(path):
        while candidate.exists() or part_of(candidate).exists():
            candidate, number = path.with_name(f"{path.stem}-{number}{path.suffix}"), number + 1
    return candidate


def part_of(path: Path) -> Path:
    """NAME.mp4 -> NAME.part.mp4, which FFmpeg still takes for an .mp4."""
    return path.with_name(f"{path.stem}.part.mp4")
