"""--sweep auto: chooses the candidates for this network; a quick emulation orders them, the most promising first.

The forecast takes ranges and agreement from a few calibration pictures. It only orders the candidates; the figures that
rank them are measured on each candidate. Level 2 trains, so it takes the forecast of level 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, product

import numpy as np

from hefkit import __version__
from hefkit.files import own_json, replacing
from hefkit.text import counted, log
from hefkit.workshop.compile.emulate import precision_of
from hefkit.workshop.compile.forecast import BLAMED_ON, GOOD_RECALL, GROUPS, WEIGHTS, to_blame
from hefkit.workshop.compile.quality import FloatHeads, emulated_agreement
from hefkit.workshop.compile.run import Compilation
from hefkit.workshop.emulator.build import Emulator
from hefkit.workshop.sweep.settings import Candidate, Settings

PICTURES = 8
RECORD = "forecast.json"
PLAIN = [Settings(precision_16=wide, logits=logits) for logits, wide in product((False, True), ((), ("outputs",)))]
GROUPED = [replace(settings, groups=GROUPS) for settings in PLAIN[:2]]


class Forecast:
    """Quick emulations of one network; `run` has passed its preflight and has a calibration set."""

    def __init__(self, run: Compilation) -> None:
        assert run.file is not None and run.layout is not None and run.calibration is not None
        self._run, self._file, self._layout, self._set = run, run.file, run.layout, run.calibration
        self._heads = FloatHeads(run.file, run.layout, self._pictures, in_sample=True)
        self._measured: dict[bool, Emulator] = {}

    def agreement(self, settings: Settings) -> float:
        """The agreement (F1, 0..1) of the boxes of the float and the emulated model at level 0; 0 without boxes."""
        options = settings.applied(self._run.options)
        emulator = self._emulator(options.logits)
        model, head = emulator.variant(precision_of(options, len(self._layout.convs)))
        return emulated_agreement(self._heads, model, head).f1 or 0.0

    def blames_weights(self) -> bool:
        """Whether the weights lose most in 8 bit, and not the tensors."""
        emulator = self._emulator(self._run.options.logits)
        blame = emulator.blame(lambda: islice(self._pictures(), BLAMED_ON))
        return to_blame(blame.weights, blame.tensors) == WEIGHTS

    def _emulator(self, logits: bool) -> Emulator:
        if logits not in self._measured:
            mean, std = self._run.options.script.normalization()
            emulator = Emulator(self._file, self._layout, mean, std, logits=logits)
            emulator.measure(self._pictures)
            emulator.quantize(self._pictures)
            self._measured[logits] = emulator
        return self._measured[logits]

    def _pictures(self) -> Iterator[np.ndarray]:
        return islice(iter(self._set), PICTURES)


def auto_candidates(run: Compilation, key: str, *, card: bool) -> list[Candidate]:
    """Level 0, and 2 where a graphics card computes; sigmoid baked or logits; outputs in 8 or 16 bit; weight groups
    where weights are to blame. The most promising first; equally good ones in this order.

    Args:
        key: hash of all that decides the forecast; a forecast in the sweep folder with the same key is used again.
        card: whether a worker's SDK computes on a graphics card.
    """
    record = run.options.run_dir / RECORD
    known = own_json(record)
    if known.get("key") != key or not isinstance(known.get("shared"), dict):
        known = {"tool": f"hefkit {__version__}", "key": key, "shared": _forecast(run)}
        with replacing(record) as temporary:
            temporary.write_text(json.dumps(known, indent=1) + "\n", encoding="ascii")
    found = {s: float(known["shared"][s.name()]) for s in [*PLAIN, *GROUPED] if s.name() in known["shared"]}
    for settings, value in found.items():
        log.info("  %-24s %.1f %% of the boxes shared", settings.name(), 100 * value)
    levels = (0, 2) if card and not run.options.emulate else (0,)
    every = [(value, replace(settings, level=level)) for level in levels for settings, value in found.items()]
    every.sort(key=lambda pair: -pair[0])
    return [Candidate(settings.name(), settings) for _, settings in every]


def _forecast(run: Compilation) -> dict[str, float]:
    """Name -> share of the boxes; groups only if it is below GOOD_RECALL and the weights lose most."""
    forecast = Forecast(run)
    log.info("forecast on %s", counted(min(PICTURES, len(run.calibration or [])), "picture"))
    found = {settings.name(): round(forecast.agreement(settings), 4) for settings in PLAIN}
    if found[PLAIN[0].name()] < GOOD_RECALL and forecast.blames_weights():
        found |= {settings.name(): round(forecast.agreement(settings), 4) for settings in GROUPED}
    return found
