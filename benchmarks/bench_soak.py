#!/usr/bin/env python3
"""The live detector left alone: memory, order and end of a long run with viewers, a broker and JSON lines.

Examples:
  bench_soak.py best.emulated.onnx flight.mp4                  ten minutes, three viewers
  bench_soak.py best.emulated.onnx flight.mp4 --seconds 6 --every 0.1 --viewers 1 --json

Runs working_hailo_detector.py on the looping video with --web, --jsonl and, where Debian's mosquitto is installed,
--mqtt; reads the page's stream as browsers would; samples the resident memory and the threads every second.
`rss_slope_mb_min` is fitted over what follows the first fifth of the run (of ten minutes: the first two), and the
threads are compared from the sixth second on (of a run below 10 s: in its second half).
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from hefkit import cli  # noqa: E402
from hefkit.errors import HefkitError  # noqa: E402
from hefkit.text import one_line  # noqa: E402

WARM_UP = 0.2  # share of the run before memory is judged
SETTLED_S = 5.0  # until all threads have started, on a busy machine too


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = cli.Parser(__doc__)
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument("video", type=Path, metavar="VIDEO")
    parser.add_argument("--seconds", type=cli.seconds, default=600.0, metavar="S", help="of the run (600)")
    parser.add_argument("--every", type=cli.seconds, default=1.0, metavar="S", help="between two samples (1)")
    parser.add_argument("--viewers", type=cli.whole_number(0, 50), default=3, metavar="N", help="of the page (3)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """One run; a list of figures or JSON."""
    args = parse_args(argv)
    cli.set_up_logging(args.quiet)
    with tempfile.TemporaryDirectory(prefix="hefkit-soak-") as folder, broker(Path(folder)) as mqtt:
        result = soak(args, Path(folder), mqtt)
    if args.json:
        cli.print_json(result)
    else:
        sys.stdout.write("".join(f"{key:24}{value}\n" for key, value in result.items()))
    return 0


def soak(args: argparse.Namespace, folder: Path, mqtt: str | None) -> dict[str, Any]:
    """Run, watch, stop, judge."""
    port, lines = free_port(), folder / "lines.jsonl"
    command = [sys.executable, str(ROOT / "working_hailo_detector.py"), str(args.model), str(args.video), "--loop"]
    command += ["--web", str(port), "--jsonl", str(lines), "--json", *(["--mqtt", mqtt] if mqtt else [])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_for_page(process, port)
        viewers = [Viewer(port) for _ in range(args.viewers)]
        samples = watch(process, args.seconds, args.every)
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
        stopped_s = time.monotonic() - begun
    finally:
        process.kill()
    frames = [json.loads(line)["frame"] for line in lines.read_text().splitlines()]
    summary = json.loads(out.splitlines()[-1])
    threads = [count for passed, _, count in samples if passed >= min(SETTLED_S, args.seconds / 2)]
    return {
        "seconds": args.seconds,
        "mqtt": mqtt is not None,
        "frames": len(frames),
        "dropped": summary["dropped"],
        "in_order": frames == sorted(set(frames)),
        "rss_slope_mb_min": round(slope([s for s in samples if s[0] >= WARM_UP * args.seconds], 1) * 60, 3),
        "rss_mb": [round(samples[0][1], 1), round(samples[-1][1], 1)],
        "threads": [min(threads), max(threads)],
        "viewers_got_pictures": [viewer.pictures for viewer in viewers],
        "latency_ms": summary["stage_ms"]["latency"],
        "stopped_after_s": round(stopped_s, 2),
        "exit_code": process.returncode,
        "warnings": [line for line in err.splitlines() if line.startswith(("warning", "error", "Traceback"))],
    }


def watch(process: subprocess.Popen[str], seconds: float, every: float) -> list[tuple[float, float, int]]:
    """(second, resident MB, threads), `every` so many seconds."""
    samples, begun = [], time.monotonic()
    while (passed := time.monotonic() - begun) < seconds and process.poll() is None:
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if ":" in line
        )
        samples.append((passed, int(status["VmRSS"].split()[0]) * 1024 / 1e6, int(status["Threads"])))
        time.sleep(every)
    return samples


def slope(samples: list[tuple[float, float, int]], column: int) -> float:
    """Least squares of a column over the time."""
    times, values = [s[0] for s in samples], [float(s[column]) for s in samples]
    mean_t, mean_v = sum(times) / len(times), sum(values) / len(values)
    spread = sum((t - mean_t) ** 2 for t in times)
    return sum((t - mean_t) * (v - mean_v) for t, v in zip(times, values, strict=True)) / spread if spread else 0.0


class Viewer(threading.Thread):
    """Reads the page's stream until it ends, and counts pictures."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.pictures = 0
        self._url = f"http://127.0.0.1:{port}/stream.mjpg"
        self.start()

    def run(self) -> None:
        try:
            with urllib.request.urlopen(self._url) as stream:
                while block := stream.read1(1 << 16):
                    self.pictures += block.count(b"\xff\xd8\xff")
        except (OSError, HTTPException):  # the detector has ended
            pass


def wait_for_page(process: subprocess.Popen[str], port: int) -> None:
    """Until the page answers and frames flow."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats", timeout=5) as answer:
                if json.load(answer)["frames"]:
                    return
        except OSError:
            pass
        time.sleep(0.1)
    process.kill()
    raise HefkitError(f"the detector did not start: {one_line(process.communicate()[1], 500)}")


@contextmanager
def broker(folder: Path) -> Iterator[str | None]:
    """A broker of our own on loopback; None where there is no mosquitto."""
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if program is None:
        yield None
        return
    port = free_port()
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    process = subprocess.Popen([program, "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"mqtt://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    """A port of loopback that is free at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    cli.run(main)
