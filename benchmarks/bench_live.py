#!/usr/bin/env python3
"""How old results are in the live loop: a camera, a SIMULATED chip, the detector's own loop between them.

Examples:
  bench_live.py                              a chip of 20 ms; cameras of 30 and 60 frames a second
  bench_live.py --service-ms 10 --fps 30 120 --seconds 20 --json

The camera gives pictures of 1280x720 and never waits. The simulated chip works on one picture after the other, two in
flight. `processed` is the share of the camera's frames that were; `p95_x_service` the 95th percentile of the time from
capture to result over the chip's own time. What cannot be avoided: a frame waits for the one before it and is then
computed, twice the chip's time, and the newest frame is up to one camera interval old when a place becomes free.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # not where a test imports this
    for library in ("OMP", "OPENBLAS", "MKL"):  # read once, when numpy is imported
        os.environ[f"{library}_NUM_THREADS"] = "1"
sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]

from hefkit import cli  # noqa: E402

CLASSES, OBJECTS = 80, 5
WARM_UP_S = 1.0


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = cli.Parser(__doc__)
    parser.add_argument("--service-ms", type=cli.whole_number(1, 10_000), default=20, metavar="MS", help="(20)")
    parser.add_argument(
        "--fps", nargs="+", type=cli.whole_number(1, 1000), default=(30, 60), metavar="N", help="cameras (30 60)"
    )
    parser.add_argument("--seconds", type=cli.seconds, default=10.0, metavar="S", help="for each camera (10)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Every camera in turn; a table or JSON."""
    args = parse_args(argv)
    cli.set_up_logging(True)
    cli.need("numpy", "cv2")
    results = [measured(fps, args.service_ms, args.seconds) for fps in args.fps]
    if args.json:
        cli.print_json({"service_ms": args.service_ms, "results": results})
    else:
        sys.stdout.write(table(results, args.service_ms))
    return 0


def measured(fps: int, service_ms: int, seconds: float) -> dict[str, Any]:
    """One camera."""
    import cv2
    import numpy as np
    from simulated_chip import SimulatedChip

    from hefkit.detect.decode import DecodeSettings
    from hefkit.live.grabber import Grabber
    from hefkit.live.run import Limits, LiveRun
    from hefkit.live.state import Controls, LiveResult, LiveStats

    cv2.setNumThreads(1)
    chip = SimulatedChip(service_ms / 1e3, 2, CLASSES, OBJECTS)
    controls, stats = Controls(), LiveStats("simulated", "simulated camera")
    stats.model(chip.kind, chip.spec.names)
    latencies: list[float] = []
    numbers: list[int] = []
    begun = time.monotonic()

    class Notes:
        def put(self, result: LiveResult) -> None:
            if time.monotonic() - begun > WARM_UP_S:
                latencies.append(result.latency_s)
                numbers.append(result.frame.number or 0)

        def close(self) -> None: ...

    grabber = Grabber(lambda: SimulatedCamera(fps), controls, stats)
    limits = Limits(duration_s=WARM_UP_S + seconds)
    LiveRun(chip, lambda: chip, DecodeSettings(), grabber, Notes(), controls, stats, limits, chip.spec.names).run()
    grabber.close()
    p50, p95 = np.percentile(latencies, [50, 95]) * 1e3
    return {
        "camera_fps": fps,
        "fps": round(len(numbers) / seconds, 2),
        "processed": round(len(numbers) / (numbers[-1] - numbers[0] + 1), 4),
        "in_order": numbers == sorted(set(numbers)),
        "p50_ms": round(float(p50), 2),
        "p95_ms": round(float(p95), 2),
        "p95_x_service": round(float(p95) / service_ms, 3),
    }


class SimulatedCamera:
    """Pictures of 1280x720 at a steady rate, whether anybody looks or not."""

    name = "simulated camera"

    def __init__(self, fps: int) -> None:
        import numpy as np

        self._picture = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)
        self._interval_s, self._due = 1 / fps, time.perf_counter()

    def read(self) -> Any:
        """The next frame, when its time has come."""
        from hefkit.cameras.camera import Shot

        self._due += self._interval_s
        while (left := self._due - time.perf_counter()) > 0:
            time.sleep(left)
        return Shot(self._picture)

    def close(self) -> None:
        """Nothing to give back."""


def table(results: list[dict[str, Any]], service_ms: int) -> str:
    """The results for a person."""
    head = ["camera fps", "fps", "processed", "p50 ms", "p95 ms", "p95 / chip"]
    lines = [f"a SIMULATED chip of {service_ms} ms, two in flight", "".join(f"{h:>12}" for h in head)]
    keys = ("camera_fps", "fps", "processed", "p50_ms", "p95_ms", "p95_x_service")
    lines += ["".join(f"{r[key]:>12}" for key in keys) for r in results]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    cli.run(main)
