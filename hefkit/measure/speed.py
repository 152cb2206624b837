"""How fast an engine is alone, and the share of this rate that the whole pipeline reaches, with reading and writing."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import cv2
import numpy as np

from hefkit.detect.decode import DecodeSettings
from hefkit.detect.detector import Detector
from hefkit.detect.engine import Engine, Slot
from hefkit.pictures.frames import read_photographs
from hefkit.pictures.sources import Item
from hefkit.results.folder import OutputOptions, plan_run
from hefkit.results.outputs import Outputs
from hefkit.results.progress import Progress
from hefkit.results.run import Tally, run

WARM_UP = 50  # pictures before the measurement
DRAWN = 64  # different photographs


class PipelineRun(NamedTuple):
    """The result of a pipeline run; the rate is measured from the end of the warm-up to the last picture."""

    rate: float  # pictures a second, with writing
    tally: Tally
    rss_after_warm_up_mb: float | None  # resident memory; None if the system does not report it
    rss_mb: float | None


def alone_rate(engine: Engine, pictures: int) -> float:
    """Pictures a second with all slots always full, and without reading, decoding or writing.

    The slots' pictures are not changed; results are discarded.
    """
    waiting = deque(engine.slots)
    batch = len(engine.slots[0].inputs)
    for slot in engine.slots:
        engine.submit(slot, batch)
    for _ in range(len(waiting)):  # the first round is not measured
        _next(engine, waiting, batch)
    rounds = max(pictures // batch, 1)
    start = time.perf_counter()
    for _ in range(rounds):
        _next(engine, waiting, batch)
    seconds = time.perf_counter() - start
    for slot in waiting:
        engine.result(slot)
    return rounds * batch / seconds


def _next(engine: Engine, waiting: deque[Slot], batch: int) -> None:
    engine.result(waiting[0])
    engine.submit(waiting[0], batch)
    waiting.rotate(-1)


def pipeline_rate(engine: Engine, items: list[Item], count: int, options: OutputOptions, folder: Path) -> PipelineRun:
    """Run WARM_UP and then `count` pictures, repeating the items, through the pipeline into `folder`."""
    clock = _Clock()
    endless = [items[i % len(items)] for i in range(WARM_UP + count)]
    names = engine.spec.names
    with Outputs(plan_run(folder, endless, options), engine.kind, names) as outputs:
        tally = run(read_photographs(endless), Detector(engine, DecodeSettings()), outputs, clock)
    return PipelineRun(count / (clock.last - clock.begun), tally, clock.rss_mb, resident_mb())


class _Clock(Progress):
    """Replaces the progress bar: notes when pictures are done."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = self.last = 0.0
        self.rss_mb: float | None = None
        self.steps = 0

    def step(self) -> None:
        """One picture is done."""
        self.last = time.perf_counter()
        self.steps += 1
        if self.steps == WARM_UP:
            self.begun, self.rss_mb = self.last, resident_mb()


def drawn_photographs(folder: Path) -> list[Item]:
    """Draw DRAWN different JPEGs of 640x480: soft shapes and noise, with the file size of real photographs."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    grain = np.repeat(rng.normal(0, 6, (480, 640, 1)).round().astype(np.int16), 3, axis=2)
    items = []
    for i in range(DRAWN):
        soft = cv2.resize(rng.integers(0, 256, (15, 20, 3), np.uint8), (640, 480), interpolation=cv2.INTER_CUBIC)
        picture = cv2.add(soft, np.roll(grain, 7 * i, axis=0), dtype=cv2.CV_8U)
        path = folder / f"{i:03d}.jpg"
        cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
        items.append(Item(path, str(path), PurePosixPath(path.name)))
    return items


def resident_mb() -> float | None:
    """Resident memory of this process in MB; None if the system is not Linux."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024 / 1e6
    except OSError:
        pass
    return None


def measure(engine: Engine, items: list[Item], pictures: int, folder: Path) -> dict[str, Any]:
    """What `validate_hef.py --benchmark` prints: rates of engine and pipeline, temperature before and after."""
    before = _temperature_c(engine)
    chip = alone_rate(engine, pictures)
    pipeline = pipeline_rate(engine, items, pictures, OutputOptions(images=False), folder)
    return {
        "engine": engine.kind,
        "pictures": pictures,
        "batch_size": len(engine.slots[0].inputs),
        "in_flight": len(engine.slots),
        "chip_per_second": round(chip, 2),
        "end_to_end_per_second": round(pipeline.rate, 2),
        "share": round(pipeline.rate / chip, 4),
        "stage_ms": pipeline.tally.stage_ms(),
        "rss_mb": pipeline.rss_mb,
        "temperature_c": {"before": before, "after": _temperature_c(engine)},
    }


def _temperature_c(engine: Engine) -> float | None:
    """The temperature of the chip; None for engines without one."""
    ask = getattr(engine, "temperature_c", None)
    return ask() if callable(ask) else None
