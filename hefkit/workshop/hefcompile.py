"""ONNX -> HEF through Hailo's SDK: the stages of compile_to_hef.py without --emulate."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hefkit import __version__
from hefkit.cli import one_line
from hefkit.errors import HefkitError, ModelError, ToolchainError
from hefkit.files import Staging, explained
from hefkit.hef import read_hef
from hefkit.spec import HeadSpec
from hefkit.workshop import har as hars
from hefkit.workshop import sdkquality as quality
from hefkit.workshop.compilation import Compilation
from hefkit.workshop.cut import cut
from hefkit.workshop.dfc import FULL_PRECISION, QUANTIZED, CalibrationFile, Dfc, EmulationError
from hefkit.workshop.dfcgraph import Output, ParsedGraph
from hefkit.workshop.dfclog import judge
from hefkit.workshop.hefcheck import check_hef
from hefkit.workshop.hefscript import final_script, safe_scope, statements, what_is_asked, wide_indices
from hefkit.workshop.modelscript import Script, parse_script
from hefkit.workshop.sdkfolder import SdkFolder, float_bytes
from hefkit.workshop.sdkready import Ready, get_ready

log = logging.getLogger("hefkit")

FP_PICTURES = 8  # enough to see that the parsed network is the ONNX
COMPILED = "the network that the SDK quantised"


def prepare(run: Compilation) -> Ready:
    """Find the SDK and check it against chip and machine (exit 5, or 3 for a full disk)."""
    assert run.file is not None
    count = 0 if run.calibration is None else len(run.calibration)
    in_memory = float_bytes(count, run.file.size)
    options = run.options
    return get_ready(options.sdk_python, options.hw_arch, options.run_dir, (in_memory // 4, in_memory), run.warn)


def compile_hef(run: Compilation, ready: Ready) -> str | None:
    """All stages; returns why a gate refused the result, or None. Raises HefkitError."""
    return HefRun(run, ready).compile()


@dataclass
class HefRun:
    """One run through the SDK, after `Compilation.preflight` and `open_calibration`."""

    run: Compilation
    ready: Ready

    def __post_init__(self) -> None:
        assert self.run.file is not None and self.run.layout is not None and self.run.calibration is not None
        self.file, self.layout, self.calibration = self.run.file, self.run.layout, self.run.calibration
        self.options = self.run.options
        self.folder = SdkFolder(self.options.run_dir, self.options.name.name)
        self.train, self.held_out, self.in_sample = self.calibration.split()
        self.noted: hars.HarRecord | None = None  # beside a HAR that is resumed
        self.ran: dict[str, Any] | None = None

    def compile(self) -> str | None:
        """See `compile_hef`."""
        self.folder.make()
        self.run.run_dir = self.options.run_dir
        try:
            self.folder.write_json("job.json", self._job())
            refused = self._stages()
        except HefkitError as exc:
            self._report(one_line(exc, 2000))
            raise
        finally:
            self.folder.clean()
        self._report(refused)
        return refused

    def _stages(self) -> str | None:
        with Dfc(self.ready.sdk, self.folder.path, self.ready.settings) as dfc:
            with self.run.stage(0):
                self._start(dfc)
                graph, stage = self._graph(dfc)
                outputs = graph.matched(self.layout, self.file.size)
                script = self._script(graph, outputs, stage)
            with self.run.stage(1):
                calibration = self._optimize(dfc, stage, graph, outputs)
            with self.run.stage(2):
                self._quantize(dfc, stage, calibration, script)
                measured = self._measure(dfc, QUANTIZED, graph, outputs, len(self.held_out))
                self.run.finish_spec(**self._facts(outputs, script, measured))
                if measured is not None:
                    self.run.tell_quality(measured)
            refused = self._refusal(measured)
            if refused is None:
                with self.run.stage(3):
                    self._compile(dfc, outputs, script)
        return refused

    # --- 1: parsing

    def _start(self, dfc: Dfc) -> None:
        facts = dfc.start()
        for warning in self.ready.check_started(facts, self.options.hw_arch):
            self.run.warn(warning)
        log.info("  Hailo's SDK %s on Python %s; %s", self.ready.version, facts.get("python"), self.ready.device)

    def _graph(self, dfc: Dfc) -> tuple[ParsedGraph, str]:
        """The parsed network, from the ONNX or from a HAR, and how far that has come."""
        if self.options.har is not None:
            return self._resumed(dfc, self.options.har)
        target, scope = self.folder.file(".parsed.har"), safe_scope(self.folder.stem)
        network = self.folder.write_network(cut(self.file.model, self.layout.tensors))
        graph = dfc.parse(network, scope, self.layout.end_nodes, self.options.hw_arch, target)
        hars.write_record(target, self._record(hars.PARSED))
        return graph, hars.PARSED

    def _resumed(self, dfc: Dfc, har: Path) -> tuple[ParsedGraph, str]:
        graph, facts = dfc.open_har(har.absolute(), self.options.hw_arch)
        stage = hars.stage_of(facts.get("state"), har)
        self.noted = hars.read_record(har)
        for warning in hars.check_resume(har, self.noted, self._record(stage), facts.get("hw_arch")):
            self.run.warn(warning)
        if self.noted is None and stage == hars.QUANTIZED and facts.get("script"):
            self.noted = replace(self._record(stage), script=str(facts["script"]), calibration=None)
        log.info("  resumed from %s, a %s network", one_line(har), stage)
        return graph, stage

    def _script(self, graph: ParsedGraph, outputs: Sequence[Output], stage: str) -> Script:
        """The final script; that of a quantised HAR must be the same."""
        pictures = len(self.train)
        if stage == hars.QUANTIZED and self.noted is not None and self.noted.calibration is not None:
            pictures = int(self.noted.calibration["count"])
        script = final_script(self.options, graph, outputs, pictures)
        for note in script.notes:
            self.run.warn(note)
        if stage == hars.QUANTIZED and self.noted is not None and self.noted.script is not None:
            assert self.options.har is not None
            quantized_with = parse_script(self.noted.script, str(self.options.har))
            hars.check_script(self.options.har, statements(quantized_with), statements(script))
        self.folder.write_text(self.folder.file(".alls"), script.text)
        return script

    # --- 2: optimising

    def _optimize(self, dfc: Dfc, stage: str, graph: ParsedGraph, outputs: Sequence[Output]) -> CalibrationFile | None:
        """The script, and what it changes in floating point; the network must still be the ONNX after that."""
        if stage == hars.QUANTIZED:
            log.info("  done when the HAR was made")
            return None
        calibration = self.folder.write_calibration(self.calibration, self.train)
        dfc.load_script(self.folder.file(".alls"))
        if dfc.full_precision(calibration):
            measured = self._measure(dfc, FULL_PRECISION, graph, outputs, FP_PICTURES)
            if measured is not None:
                quality.check_full_precision(measured)
                log.info(
                    "  in full precision the SDK's network agrees with the ONNX on %d pictures", measured["images"]
                )
        return calibration

    # --- 3: quantising

    def _quantize(self, dfc: Dfc, stage: str, calibration: CalibrationFile | None, script: Script) -> None:
        """Quantise, and read back what really ran."""
        if calibration is None:
            log.info("  done when the HAR was made")
            self.ran = None if self.noted is None else self.noted.ran or None
            return
        target = self.folder.file(".quantized.har")
        dfc.quantize(calibration, target)
        self.ran = dfc.voice.facts.to_json()
        hars.write_record(target, self._record(hars.QUANTIZED, script))
        asked = what_is_asked(script, len(self.train), dfl=self.layout.family == "dfl")
        ruined, known = judge(dfc.voice.facts, asked)
        for warning in known:
            self.run.warn(warning)
        if ruined:
            raise ToolchainError(f"{ruined[0]}; log: {dfc.log}")

    def _measure(
        self, dfc: Dfc, context: str, graph: ParsedGraph, outputs: Sequence[Output], most: int
    ) -> dict[str, Any] | None:
        """The SDK's emulation against the float network, on at most so many pictures; None where it cannot emulate."""
        chosen = self.held_out[:most]

        def pictures() -> Iterator[np.ndarray]:
            return (self.calibration[i] for i in chosen)

        path = self.folder.write_pictures("measured", self.calibration, chosen)
        try:
            tensors = dfc.infer(context, path, self.folder.scratch)
        except EmulationError as exc:
            self.run.warn(f"the SDK cannot emulate its network ({exc}); how good it is has not been measured")
            return None
        order = [graph.outputs.index(output) for output in outputs]
        heads = quality.FloatHeads(self.file, self.layout, pictures, in_sample=self.in_sample)
        found = quality.sorted_outputs(tensors, order, heads.spec)
        return quality.compare(heads, found, baked=not self.options.logits)

    def _refusal(self, measured: dict[str, Any] | None) -> str | None:
        """Why the long compile is not worth its time, or None."""
        if measured is None:
            if self.options.gate is None:
                return None
            return f"--gate {self.options.gate}: the quality of {COMPILED} could not be measured; nothing was written"
        refused = quality.collapsed(measured) or self.run.gate(measured, COMPILED)
        if refused is not None:
            har = self.options.har or self.options.run_dir / f"{self.folder.stem}.quantized.har"
            return f"{refused}; the quantised network is kept: {har}"
        warning = quality.low_agreement(measured)
        if warning is not None:
            self.run.warn(warning)
        return None

    # --- 4: compiling

    def _compile(self, dfc: Dfc, outputs: Sequence[Output], script: Script) -> None:
        """The HEF is read back before it gets its name; model and spec appear together."""
        raw = self.folder.scratch.with_name("scratch-unchecked.hef")
        dfc.compile(raw)
        self.run.finish_head(self._read_back(raw, outputs, script))
        self._write(raw)

    def _read_back(self, raw: Path, outputs: Sequence[Output], script: Script) -> HeadSpec:
        try:
            found = read_hef(raw)
        except ModelError as exc:
            kept = self.folder.file(".unreadable.hef")
            raw.replace(kept)
            raise ToolchainError(
                f"the HEF that Hailo's SDK compiled cannot be read back: {one_line(exc, 400)}; it is kept as {kept}, "
                "without a spec; try another SDK release"
            ) from exc
        return check_hef(
            found,
            self.layout.to_head_spec(),
            outputs,
            arch=self.options.hw_arch,
            size=self.file.size,
            wide=wide_indices(script, outputs),
            baked=not self.options.logits,
        )

    def _write(self, raw: Path) -> None:
        assert self.run.spec is not None
        target = self.options.name.with_name(f"{self.folder.stem}.hef")
        spec = json.dumps(self.run.spec.to_json(), indent=1, ensure_ascii=True, allow_nan=False) + "\n"
        with Staging(target.parent) as stage:
            (stage.path / f"{self.folder.stem}.json").write_text(spec, encoding="ascii")
            with explained(target):
                shutil.copyfile(raw, stage.path / target.name)
            stage.commit(last=target.name)
        self.folder.write_text(self.folder.file(".json"), spec)
        self.run.output = target
        log.info("  %s (%.1f MB) for %s", target, target.stat().st_size / 1e6, self.options.hw_arch)

    # --- what is left behind

    def _facts(self, outputs: Sequence[Output], script: Script, measured: dict[str, Any] | None) -> dict[str, Any]:
        """What the spec learns from quantisation."""
        head = self.layout.to_head_spec()
        named = zip(head.outputs, outputs, strict=True)
        calibration: Any = {"count": len(self.train), "digest": self.calibration.digest}
        if self.noted is not None and self.noted.stage == hars.QUANTIZED:
            calibration = self.noted.calibration
        return {
            "head": replace(head, outputs=tuple(replace(o, stream=found.producer) for o, found in named)),
            "calibration": calibration,
            "target": {"arch": self.options.hw_arch, "sdk": self.ready.version},
            "script": script.text,
            "quality": measured,
        }

    def _record(self, stage: str, script: Script | None = None) -> hars.HarRecord:
        quantized = stage == hars.QUANTIZED
        return hars.HarRecord(
            stage=stage,
            onnx_sha256=self.file.sha256,
            hw_arch=self.options.hw_arch,
            end_nodes=self.layout.end_nodes,
            sdk=self.ready.version,
            script=None if script is None else script.text,
            calibration={"count": len(self.train), "digest": self.calibration.digest} if quantized else None,
            ran=self.ran or {},
        )

    def _job(self) -> dict[str, Any]:
        """How this run was made, written before anything starts."""
        options = self.options
        return {
            "format": 1,
            "tool": f"hefkit {__version__}",
            "onnx": {"file": str(options.onnx), "sha256": self.file.sha256},
            "output": str(options.name.with_name(f"{self.folder.stem}.hef")),
            "sdk": self.ready.to_json(),
            "hw_arch": options.hw_arch,
            "net_name": safe_scope(self.folder.stem),
            "end_nodes": list(self.layout.end_nodes),
            "script": options.script.source,
            "optimization_level": options.level,
            "precision_16": list(options.precision_16),
            "logits": options.logits,
            "batch_size": options.batch_size,
            "gate": options.gate,
            "har": None if options.har is None else str(options.har),
            "calibration": {
                "path": str(options.calib),
                "count": len(self.train),
                "measured_on": len(self.held_out),
                "in_sample": self.in_sample,
                "digest": self.calibration.digest,
            },
        }

    def _report(self, error: str | None) -> None:
        facts = {"sdk": self.ready.to_json(), "sdk_run": self.ran, "error": error}
        self.folder.write_json("report.json", {**self.run.result(), **facts})
