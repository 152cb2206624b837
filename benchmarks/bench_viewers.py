#!/usr/bin/env python3
"""What viewers of the web page and MQTT cost the live detector: CPU time a frame, JPEGs a frame, time in `put`.

Examples:
  bench_viewers.py                                30 frames a second of 1280x720; 0, 1 and 10 viewers
  bench_viewers.py --mqtt mqtt://localhost --json

Viewers are another process. Their share beside the baseline `one JPEG`, drawing the boxes of one frame and encoding it:
`x_jpeg`. Frames are noise and gradients, so that a JPEG is as large as that of a photograph with much detail.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

if __name__ == "__main__":  # not where a test imports this
    for library in ("OMP", "OPENBLAS", "MKL"):  # read once, when numpy is imported
        os.environ[f"{library}_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from hefkit import cli
from hefkit.live.addresses import Broker, WebAddress, parse_mqtt_url

OBJECTS, FPS = 5, 30
# reads and forgets what PORT streams, N times
WATCH = """
import selectors, socket, sys
ready = selectors.DefaultSelector()
for _ in range(int(sys.argv[2])):
    sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    sock.sendall(b"GET /stream.mjpg HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
    ready.register(sock, selectors.EVENT_READ)
while all(key.fileobj.recv(1 << 20) for key, _ in ready.select()):
    pass
"""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = cli.Parser(__doc__)
    parser.add_argument("--seconds", type=cli.seconds, default=10.0, metavar="S", help="for each figure (10)")
    parser.add_argument("--viewers", nargs="+", type=cli.whole_number(0, 16), default=(0, 1, 10), metavar="N")
    parser.add_argument("--mqtt", type=parse_mqtt_url, metavar="URL", help="a broker, to measure MQTT as well")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """One case after the other; a table or JSON."""
    args = parse_args(argv)
    cli.set_up_logging(True)
    cli.need("numpy", "cv2", "aiohttp", *(["paho"] if args.mqtt else []))
    one_jpeg_ms, size = one_jpeg()
    idle = measured("no sink", args.seconds, lambda: contextlib.nullcontext())
    results = [idle]
    for count in args.viewers:
        results.append(measured(f"web, {count} viewers", args.seconds, lambda count=count: watched(count)))
    if args.mqtt:
        results.append(measured("mqtt", args.seconds, lambda: published(args.mqtt)))
    for result in results:
        result["ms_a_frame"] = round(result["ms_a_frame"] - (0 if result is idle else idle["ms_a_frame"]), 3)
        result["x_jpeg"] = round(result["ms_a_frame"] / one_jpeg_ms, 2)
    facts = {"one_jpeg_ms": round(one_jpeg_ms, 3), "jpeg_bytes": size, "results": results}
    if args.json:
        cli.print_json(facts)
    else:
        sys.stdout.write(table(facts))
    return 0


def frames() -> Iterator[Any]:
    """Results without end."""
    import numpy as np

    from hefkit.detect.detections import Detections
    from hefkit.detect.detector import Timings
    from hefkit.live.state import LiveResult
    from hefkit.pictures.frames import Frame

    ramp = np.linspace(0, 200, 1280, dtype=np.float32)[None, :, None]
    noise = np.random.default_rng(0).normal(0, 6, (720, 1280, 3))
    picture = np.clip(ramp + noise, 0, 255).astype(np.uint8)
    corners = np.arange(OBJECTS, dtype=np.float32)[:, None] * 120 + np.array([40, 60, 130, 160], np.float32)
    found = Detections(corners, np.linspace(0.9, 0.5, OBJECTS, dtype=np.float32), np.arange(OBJECTS) % 2)
    number = 0
    while True:
        frame = Frame(number, "camera", number, picture, 0.001, time.monotonic())
        yield LiveResult(frame, found, Timings(0, 0, 0), "float", {0: "drone", 1: "bird"}, time.time(), 0.02)
        number += 1


def one_jpeg() -> tuple[float, int]:
    """CPU milliseconds of one frame's boxes and JPEG, and its bytes."""
    import cv2

    from hefkit.live.state import jpeg

    cv2.setNumThreads(1)
    costs, size = [], 0
    for _, result in zip(range(60), frames(), strict=False):
        begun = time.process_time()
        size = len(jpeg(result.annotated))
        costs.append(time.process_time() - begun)
    return 1e3 * median(costs), size


def measured(name: str, seconds: float, case: Callable[[], Any]) -> dict[str, Any]:
    """FPS frames a second into what `case` opens; CPU time of this process."""
    count, puts = int(seconds * FPS), []
    source = frames()
    with case() as sink:
        begun, used = time.monotonic(), time.process_time()
        for number in range(count):
            time.sleep(max(0.0, begun + number / FPS - time.monotonic()))
            result = next(source)
            start = time.perf_counter()
            if sink is not None:
                sink.put(result)
            puts.append(time.perf_counter() - start)
        used = time.process_time() - used
        encodes = getattr(sink, "encodes", lambda: 0)()
    return {
        "case": name,
        "ms_a_frame": 1e3 * used / count,
        "jpegs_a_frame": round(encodes / count, 3),
        "put_us": round(1e6 * median(puts), 1),
    }


@contextlib.contextmanager
def watched(count: int) -> Iterator[Any]:
    """The page with so many viewers of the stream."""
    from hefkit.live.state import Controls, LiveStats
    from hefkit.web.sink import WebSink

    class Sink(WebSink):
        def encodes(self) -> int:
            return int(facts(self.port)["encodes"])

    sink = Sink(WebAddress("127.0.0.1", 0), LiveStats("model", "camera"), Controls())
    watching = subprocess.Popen([sys.executable, "-c", WATCH, str(sink.port), str(count)]) if count else None
    try:
        while facts(sink.port)["viewers"] < count:
            time.sleep(0.05)
        yield sink
    finally:
        sink.close()
        if watching is not None:
            watching.kill()
            watching.wait()


def facts(port: int) -> dict[str, int]:
    """What /stats says of the page itself."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats") as answer:
        found: dict[str, int] = json.load(answer)["web"]
        return found


@contextlib.contextmanager
def published(broker: Broker) -> Iterator[Any]:
    """Every frame to a broker, below a topic of its own."""
    from hefkit.live.state import Controls, LiveStats
    from hefkit.mqtt.sink import MqttSink

    stats = LiveStats("model", "camera")
    sink = MqttSink(broker, f"hefkit-bench/{socket.gethostname()}", stats, Controls(), discovery_prefix=None)
    try:
        time.sleep(1)  # for the connection
        yield sink
    finally:
        sink.close()


def table(facts: dict[str, Any]) -> str:
    """The results for a person."""
    lines = [
        f"one JPEG: {facts['one_jpeg_ms']} ms of CPU, {facts['jpeg_bytes']} bytes; {FPS} frames a second",
        f"{'':20}{'CPU ms / frame':>16}{'x one JPEG':>12}{'JPEGs / frame':>15}{'put us':>10}",
    ]
    for result in facts["results"]:
        figures = f"{result['ms_a_frame']:16}{result['x_jpeg']:12}{result['jpegs_a_frame']:15}{result['put_us']:10}"
        lines.append(f"{result['case']:20}{figures}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    cli.run(main)
