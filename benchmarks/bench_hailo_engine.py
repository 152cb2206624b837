#!/usr/bin/env python3
"""What hefkit's own code costs a picture on its way through HailoRT: beside the barest loop that obeys its rules.

Examples:
  bench_hailo_engine.py
  bench_hailo_engine.py --batch-size 8 --frames 20000 --json

No chip and no HailoRT: a SIMULATED model that computes nothing and calls back at once, from a thread of its own, as
HailoRT does. Both loops keep the same number of batches in flight, wait for a free slot before every start and for
every result; they take turns, and the medians of ROUNDS turns are shown. What is left of `ours` beyond `bare` is slots,
checks and the report of failures.
"""

from __future__ import annotations

import argparse
import queue
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from hefkit import cli

SIZE = (640, 640)
ROUNDS = 9


class SimulatedModel:
    """A configured model of HailoRT that has nothing to do."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[..., None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._call_back, daemon=True).start()

    def _call_back(self) -> None:
        class Info:
            exception = None

        info = Info()
        while (callback := self._jobs.get()) is not None:
            callback(completion_info=info)

    def create_bindings(self, input_buffers: Any = None, output_buffers: Any = None) -> object:
        """The buffers of one picture."""
        return input_buffers, output_buffers

    def wait_for_async_ready(self, timeout_ms: int = 1000, frames_count: int = 1) -> None:
        """There is always a free slot."""

    def run_async(self, bindings: list[Any], callback: Callable[..., None]) -> SimulatedModel:
        """The job; it is also its own handle."""
        self._jobs.put(callback)
        return self

    def wait(self, timeout_ms: int) -> None:
        """Nothing is left to wait for."""

    def __exit__(self, *args: object) -> None:
        self._jobs.put(None)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; nothing is opened."""
    parser = cli.Parser(__doc__)
    parser.add_argument("--batch-size", type=cli.whole_number(1, 63), default=1, metavar="N", help="(1)")
    parser.add_argument("--frames", type=cli.whole_number(100), default=5000, metavar="N", help="a turn (5000)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Both loops in turns; microseconds a picture."""
    args = parse_args(argv)
    cli.need("numpy", "cv2")
    from hefkit.hailo.ring import HailoSlot, Ring, slot_count

    model = SimulatedModel()
    outputs = {f"net/conv{i}": ((80 >> i, 80 >> i, 144), "uint8") for i in range(3)}
    count = slot_count(max(8, 2 * args.batch_size), args.batch_size)
    slots = [HailoSlot(model, "net/input", SIZE, outputs, args.batch_size) for _ in range(count)]
    bare = [[slot.bindings, queue.SimpleQueue()] for slot in slots]
    ring = Ring(model, slots, (RuntimeError,))
    batches = args.frames // args.batch_size
    turns = {"bare": lambda: bare_loop(model, bare, batches), "ours": lambda: our_loop(ring, slots, batches)}
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(1 + ROUNDS):  # the first turn warms up
        for name, turn in turns.items():
            start = time.perf_counter()
            turn()
            seconds[name].append(time.perf_counter() - start)
    ring.close()
    us = {name: 1e6 * statistics.median(times[1:]) / (batches * args.batch_size) for name, times in seconds.items()}
    report(args, us)
    return 0


def bare_loop(model: SimulatedModel, slots: list[list[Any]], batches: int) -> None:
    """The least that the rules allow."""
    for i in range(batches + len(slots)):
        bindings, done = slots[i % len(slots)]
        if i >= len(slots):
            done.get()
        if i < batches:
            model.wait_for_async_ready(timeout_ms=500, frames_count=len(bindings))
            model.run_async(bindings, callback=lambda completion_info, done=done: done.put(completion_info.exception))


def our_loop(ring: Any, slots: list[Any], batches: int) -> None:
    """What the pipeline calls."""
    for i in range(batches + len(slots)):
        slot = slots[i % len(slots)]
        if i >= len(slots):
            ring.result(slot)
        if i < batches:
            ring.submit(slot, len(slot.inputs))


def report(args: argparse.Namespace, us: dict[str, float]) -> None:
    """A table, or one object."""
    cost = us["ours"] - us["bare"]
    if args.json:
        cli.print_json({"batch_size": args.batch_size, **{f"{k}_us": round(v, 2) for k, v in us.items()},
                        "cost_us": round(cost, 2)})  # fmt: skip
        return
    sys.stdout.write("SIMULATED HailoRT that computes nothing; microseconds a picture\n")
    sys.stdout.write(f"bare loop {us['bare']:8.1f}\nours      {us['ours']:8.1f}\ncost      {cost:8.1f}\n")


if __name__ == "__main__":
    cli.run(main)
