"""The stages of compile_to_hef.py with Hailo's SDK: from the ONNX, or a HAR, to the HEF and its spec."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hefkit.errors import HefkitError, ModelError, ToolchainError
from hefkit.files import explained
from hefkit.hef.file import read_hef
from hefkit.spec import HeadSpec
from hefkit.staging.stage import Staging
from hefkit.text import log, one_line
from hefkit.workshop.compile import har as hars
from hefkit.workshop.compile import quality
from hefkit.workshop.compile.accuracy import sdk_refusal
from hefkit.workshop.compile.check import check_hef
from hefkit.workshop.compile.folder import RunFolder, float_bytes
from hefkit.workshop.compile.run import Compilation
from hefkit.workshop.compile.script import slow_level, what_is_asked, what_to_expect, wide_indices
from hefkit.workshop.compile.sdk_engine import emulated_by_sdk
from hefkit.workshop.compile.source import UNCHECKED, NetworkSource, Parsed
from hefkit.workshop.dfc.client import FULL_PRECISION, QUANTIZED, CalibrationFile, Dfc, EmulationError
from hefkit.workshop.dfc.log import RunLog, judge, ruined_pictures
from hefkit.workshop.dfc.ready import Ready, get_ready
from hefkit.workshop.network.operators import opset
from hefkit.workshop.script.commands import level

FP_PICTURES = 8  # enough to see that the parsed network computes what the ONNX computes
PROVEN_OPSET = 17  # no compilation of a newer one is reported
QUANTIZED_NETWORK = "the network that the SDK quantised"


def prepare(run: Compilation) -> Ready:
    """Find the SDK and check it against chip and machine (exit 5, or 3 for a full disk)."""
    assert run.file is not None
    count = 0 if run.calibration is None else len(run.calibration)
    in_memory = float_bytes(count, run.file.size)
    options = run.options
    version = opset(run.file.model)
    if version > PROVEN_OPSET and options.har is None:
        run.warn(
            f"{options.onnx} uses ONNX opset {version}; 11 and 13 are proven with Hailo's SDK, and nothing is known "
            f"above {PROVEN_OPSET}; if the SDK refuses the network, export it again with opset=11"
        )
    ready = get_ready(options.sdk_python, options.hw_arch, options.run_dir, (in_memory // 4, in_memory), run.warn)
    slow = slow_level(level(options.script) if options.level is None else options.level, ready.has_card)
    if slow is not None and options.har is None:
        run.warn(slow)
    return ready


def compile_hef(run: Compilation, ready: Ready) -> str | None:
    """Run all stages, after preflight and with a calibration set; returns why a gate refused the result, or None."""
    return HefRun(run, ready).compile()


class HefRun:
    """One run through the SDK."""

    def __init__(self, run: Compilation, ready: Ready) -> None:
        self.run, self.ready, self.options = run, ready, run.options
        self.folder = RunFolder(self.options.run_dir, self.options.name.name)
        self.source = NetworkSource(run, ready, self.folder)
        self.file, self.layout, self.calibration = self.source.file, self.source.layout, self.source.calibration
        self.train, self.held_out, self.in_sample = self.calibration.split()
        self.ran: dict[str, Any] | None = None  # what the log says about the quantisation
        self.compiled: dict[str, Any] = {"contexts": None, "fps_estimate": None}  # what the HEF says
        self._shown: set[str] = set()  # lines of the SDK that are on the console already
        self._form = ""  # of the calibration pictures, as the SDK accepted it

    def compile(self) -> str | None:
        """See `compile_hef`."""
        self.folder.make()
        self.run.run_dir = self.options.run_dir
        try:
            self.folder.write_json("job.json", self.source.job())
            self.folder.begin_log()
            refused = self._stages()
        except HefkitError as exc:
            self._report(one_line(exc, 2000))
            raise
        finally:
            self.folder.clean()
        self._report(refused)
        return refused

    def _stages(self) -> str | None:
        with self.run.stage(0), self._sdk() as (dfc, facts):
            for warning in self.ready.check_started(facts, self.options.hw_arch):
                self.run.warn(warning)
            log.info("  Hailo's SDK %s on Python %s; %s", self.ready.version, facts.get("python"), self.ready.device)
            parsed = self.source.parse(dfc)
        if self.options.parse_only:
            return None
        with self.run.stage(1):
            calibration = self._optimize(parsed)
        with self.run.stage(2):
            quantized = self._quantize(parsed, calibration)
            with self._sdk(quantized) as (dfc, _):
                measured = self._measure(dfc, QUANTIZED, parsed, len(self.held_out))
                self._finish_spec(parsed, measured)
                refused = self._refusal(measured) or self._by_labels(dfc, parsed)
        if refused is None:
            with self.run.stage(3):
                self._compile(parsed, quantized)
        return refused

    @contextmanager
    def _sdk(self, har: Path | None = None) -> Iterator[tuple[Dfc, dict[str, Any]]]:
        """A fresh process of the SDK, with the HAR of the step before; (the SDK, its version, Python and chips)."""
        with Dfc(self.ready.sdk, self.folder.path, self.ready.settings, self._shown, self._form) as dfc:
            facts = dfc.start()
            if har is not None:
                dfc.open_har(har.absolute(), self.options.hw_arch)
            yield dfc, facts
            self._form = dfc.form

    def _optimize(self, parsed: Parsed) -> CalibrationFile | None:
        """Load the script; in full precision the network must still compute what the ONNX computes."""
        if parsed.quantized:
            log.info("  done when the HAR was made")
            return None
        calibration = self.folder.write_calibration(self.calibration, self.train)
        with self._sdk(parsed.har) as (dfc, _):
            dfc.load_script(self.folder.file(".alls"))
            if dfc.full_precision(calibration):
                ruined = ruined_pictures(dfc.listener.facts)
                if ruined:
                    raise ToolchainError(ruined[0])
                measured = self._measure(dfc, FULL_PRECISION, parsed, FP_PICTURES)
                if measured is not None:
                    quality.check_full_precision(measured)
                    log.info("  in full precision the network agrees with the ONNX on %d pictures", measured["images"])
        return calibration

    def _quantize(self, parsed: Parsed, calibration: CalibrationFile | None) -> Path:
        """Quantise, and check by the log (of a resumed HAR: by its record) what ran. Returns the quantised HAR."""
        if calibration is None:
            log.info("  done when the HAR was made")
            self.ran = None if parsed.record is None else parsed.record.ran or None
            self._judge(parsed, None)
            return parsed.har
        log.info("  %s", what_to_expect(parsed.script, self.layout.family))
        target = self.folder.file(".quantized.har")
        with self._sdk(parsed.har) as (dfc, _):
            dfc.load_script(self.folder.file(".alls"))
            dfc.quantize(calibration, target)
        self.ran = dfc.listener.facts.to_json()
        hars.write_record(target, self.source.record(hars.QUANTIZED, parsed.script, self.ran))
        self._judge(parsed, target)
        return target

    def _judge(self, parsed: Parsed, made: Path | None) -> None:
        """Refuse (exit 5) a quantisation that ruins the model; the HAR just `made` is then renamed to .refused.har."""
        if self.ran is None:
            return
        try:
            ran = RunLog.from_json(self.ran)
        except ValueError as exc:
            self.run.warn(f"what ran when the HAR was made cannot be read ({one_line(exc)}); {UNCHECKED}")
            return
        count = int(self.source.calibrated_with(parsed.script, parsed.record)["count"])
        ruined, known = judge(ran, what_is_asked(parsed.script, count))
        for warning in known:
            self.run.warn(warning)
        if not ruined:
            return
        har = self.options.har
        if made is not None:
            har = self.folder.file(".refused.har")
            hars.move_har(made, har)
        raise ToolchainError(f"{ruined[0]}; the quantised network is {har}")

    def _measure(self, dfc: Dfc, context: str, parsed: Parsed, most: int) -> dict[str, Any] | None:
        """Compare the SDK's emulation with the float network on at most `most` pictures; None if it cannot emulate."""
        chosen = self.held_out[:most]

        def pictures() -> Iterator[np.ndarray]:
            return (self.calibration[i] for i in chosen)

        path = self.folder.write_pictures("measured", self.calibration, chosen)
        try:
            tensors = dfc.infer(context, path, self.folder.scratch("tensor-"))
        except EmulationError as exc:
            self.run.warn(f"the SDK cannot emulate its network ({exc}); how good it is has not been measured")
            return None
        heads = quality.FloatHeads(self.file, self.layout, pictures, in_sample=self.in_sample)
        found = quality.sorted_outputs(tensors, parsed.order, heads.spec)
        return quality.compare_sdk(heads, found, baked=not self.options.logits)

    def _finish_spec(self, parsed: Parsed, measured: dict[str, Any] | None) -> None:
        """Complete the spec; the calibration of a quantised HAR without a record is not known."""
        head = self.layout.to_head_spec()
        named = zip(head.outputs, parsed.outputs, strict=True)
        foreign = parsed.quantized and parsed.record is None
        self.run.finish_spec(
            head=replace(head, outputs=tuple(replace(o, stream=found.producer) for o, found in named)),
            calibration=None if foreign else self.source.calibrated_with(parsed.script, parsed.record),
            target={"arch": self.options.hw_arch, "sdk": self.ready.version},
            script=parsed.script.text,
            quality=None if measured is None else {**measured, "layer_snr_db": (self.ran or {}).get("snr_db", {})},
        )
        if measured is not None:
            self.run.log_quality(measured)

    def _refusal(self, measured: dict[str, Any] | None) -> str | None:
        """Why the long compile must not begin, or None; warns of low agreement."""
        if measured is None:
            if self.options.gate is None:
                return None
            gate = f"--gate {self.options.gate}"
            return f"{gate}: the quality of {QUANTIZED_NETWORK} could not be measured; nothing was written"
        refused = quality.collapsed(measured) or self.run.gate(measured, QUANTIZED_NETWORK)
        if refused is not None:
            har = self.options.har or self.options.run_dir / f"{self.folder.stem}.quantized.har"
            return f"{refused}; the quantised network is kept: {har}"
        warning = quality.low_agreement(measured)
        if warning is not None:
            self.run.warn(warning)
        return None

    def _by_labels(self, dfc: Dfc, parsed: Parsed) -> str | None:
        """Why --gate-kept refuses the network, or None; measures it on --data."""
        spec, gate = self.run.spec, self.options.gate_kept
        assert spec is not None
        if self.options.data is None:
            return None
        if spec.quality is None:
            return None if gate is None else f"--gate-kept {gate}: {QUANTIZED_NETWORK} could not be measured on --data"
        order, folder = parsed.order, self.folder
        return sdk_refusal(self.run, lambda items: emulated_by_sdk(spec, self.layout, items, dfc, folder, order))

    def _compile(self, parsed: Parsed, quantized: Path) -> None:
        """Compile, read the HEF back, then write it with its spec."""
        raw = self.folder.scratch("unchecked.hef")
        with self._sdk(quantized) as (dfc, _):
            dfc.load_script(self.folder.file(".alls"))  # as the Model Zoo does: now its lines for the compiler are used
            dfc.compile(raw)
        with self._kept(raw, ".refused.hef"):
            self.run.finish_head(self._read_back(raw, parsed))
        with self._kept(raw, ".finished.hef"):
            self._write(raw)

    @contextmanager
    def _kept(self, raw: Path, suffix: str) -> Iterator[None]:
        """A HEF may have taken hours: if the block fails, keep it in the run folder as NAME + suffix."""
        try:
            yield
        except HefkitError as exc:
            kept = self.folder.file(suffix)
            raw.replace(kept)
            raise type(exc)(f"{exc}; the HEF is kept as {kept}, without a spec") from exc

    def _read_back(self, raw: Path, parsed: Parsed) -> HeadSpec:
        try:
            found = read_hef(raw)
        except ModelError as exc:
            raise ToolchainError(
                f"the HEF that Hailo's SDK compiled cannot be read back: {one_line(exc, 400)}; try another SDK release"
            ) from exc
        self.compiled = {"contexts": found.groups[0].contexts, "fps_estimate": found.groups[0].fps}
        return check_hef(
            found,
            self.layout.to_head_spec(),
            parsed.outputs,
            arch=self.options.hw_arch,
            size=self.file.size,
            wide=wide_indices(parsed.script, parsed.outputs),
            baked=not self.options.logits,
        )

    def _write(self, raw: Path) -> None:
        assert self.run.spec is not None
        target = self.options.name.with_name(f"{self.folder.stem}.hef")
        spec = json.dumps(self.run.spec.to_json(), indent=1, ensure_ascii=True, allow_nan=False) + "\n"
        if self.folder.path != target.parent.resolve():  # else this file is the spec beside the HEF, written below
            self.folder.write_text(self.folder.file(".json"), spec)
        with Staging(target.parent) as stage:
            with explained(target):
                (stage.path / f"{self.folder.stem}.json").write_text(spec, encoding="ascii")
                shutil.copyfile(raw, stage.path / target.name)
            stage.commit(last=target.name)
        self.run.output = target
        log.info("  %s (%.1f MB) for %s", target, target.stat().st_size / 1e6, self.options.hw_arch)
        if self.compiled["fps_estimate"] is not None:
            log.info("  the compiler estimates %.0f frames/s of the chip alone", self.compiled["fps_estimate"])

    def _report(self, error: str | None) -> None:
        facts = {"sdk": self.ready.to_json(), "sdk_run": self.ran, "error": error}
        self.folder.write_json("report.json", {**self.run.result(), **facts, **self.compiled})
