"""The parsed network and its final script: from the ONNX, or from a HAR of an earlier run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hefkit import __version__
from hefkit.errors import ModelError
from hefkit.text import log, one_line
from hefkit.workshop.compile import har as hars
from hefkit.workshop.compile.folder import RunFolder
from hefkit.workshop.compile.run import Compilation
from hefkit.workshop.compile.script import calibration_size, final_script, safe_scope, slow_level, statements
from hefkit.workshop.dfc.client import Dfc
from hefkit.workshop.dfc.graph import Output, ParsedGraph
from hefkit.workshop.dfc.ready import Ready
from hefkit.workshop.network.cut import cut
from hefkit.workshop.script.commands import Script, level
from hefkit.workshop.script.lint import refuse_implicit_level
from hefkit.workshop.script.read import parse_script

UNCHECKED = "only the comparison of its boxes shows how good it is"


@dataclass(frozen=True)
class Parsed:
    """The network as the SDK has parsed it, and the script for its quantisation."""

    graph: ParsedGraph
    outputs: tuple[Output, ...]  # of the heads, in contract order
    script: Script
    quantized: bool  # already, in the HAR that the run resumes from
    record: hars.HarRecord | None  # of that HAR
    har: Path  # where the next process starts

    @property
    def order(self) -> list[int]:
        """For every head the index of its output in the graph."""
        return [self.graph.outputs.index(output) for output in self.outputs]


class NetworkSource:
    """Parses the ONNX or resumes from a HAR; `run` has passed its preflight and has a calibration set."""

    def __init__(self, run: Compilation, ready: Ready, folder: RunFolder) -> None:
        assert run.file is not None and run.layout is not None and run.calibration is not None
        self.file, self.layout, self.calibration = run.file, run.layout, run.calibration
        self.run, self.options, self.ready, self.folder = run, run.options, ready, folder
        self.pictures = len(self.calibration.split()[0])

    def parse(self, dfc: Dfc) -> Parsed:
        """The parsed network with its final script, which is also written into the run folder."""
        har = self.options.har
        parsed = self._from_onnx(dfc) if har is None else self._from_har(dfc, har)
        self.folder.write_text(self.folder.file(".alls"), parsed.script.text)
        return parsed

    def calibrated_with(self, script: Script, record: hars.HarRecord | None = None) -> dict[str, Any]:
        """The spec's `calibration`: of this run, or of the run that quantised the HAR."""
        if record is not None and record.calibration is not None:
            return record.calibration
        return {"count": calibration_size(script, self.pictures), "digest": self.calibration.digest}

    def record(self, stage: str, script: Script | None = None, ran: dict[str, Any] | None = None) -> hars.HarRecord:
        """The record of a HAR of this run."""
        return hars.HarRecord(
            stage=stage,
            onnx_sha256=self.file.sha256,
            hw_arch=self.options.hw_arch,
            end_nodes=self.layout.end_nodes,
            sdk=self.ready.version,
            script=None if script is None else script.text,
            calibration=None if script is None else self.calibrated_with(script),
            ran=ran or {},
        )

    def job(self) -> dict[str, Any]:
        """job.json: the inputs and flags of this run, written before anything starts."""
        options = self.options
        train, held_out, in_sample = self.calibration.split()
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
                "count": len(train),
                "measured_on": len(held_out),
                "in_sample": in_sample,
                "digest": self.calibration.digest,
            },
        }

    def _from_onnx(self, dfc: Dfc) -> Parsed:
        target, scope = self.folder.file(".parsed.har"), safe_scope(self.folder.stem)
        network = self.folder.write_network(cut(self.file.model, self.layout.tensors))
        graph = dfc.parse(network, scope, self.layout.end_nodes, self.options.hw_arch, target)
        hars.write_record(target, self.record(hars.PARSED))
        outputs = graph.matched(self.layout, self.file.size)
        return Parsed(graph, outputs, self._composed(graph, outputs), quantized=False, record=None, har=target)

    def _from_har(self, dfc: Dfc, har: Path) -> Parsed:
        graph, facts = dfc.open_har(har.absolute(), self.options.hw_arch)
        stage, noted = hars.stage_of(facts.get("state"), har), hars.read_record(har)
        wanted = replace(self.record(stage), calibration=self.calibrated_with(self.options.script))
        for warning in hars.check_resume(har, noted, wanted, facts.get("hw_arch")):
            self.run.warn(warning)
        log.info("  resumed from %s, a %s network", one_line(har), stage)
        outputs = graph.matched(self.layout, self.file.size)
        if stage == hars.PARSED:
            return Parsed(graph, outputs, self._composed(graph, outputs), quantized=False, record=noted, har=har)
        script = self._quantized_with(har, noted, facts.get("script"), graph, outputs)
        return Parsed(graph, outputs, script, quantized=True, record=noted, har=har)

    def _composed(self, graph: ParsedGraph, outputs: Sequence[Output]) -> Script:
        """The final script; refuses or warns of an optimization level that is known to fail."""
        script = self._final(graph, outputs, self.pictures)
        refuse_implicit_level(script, self.pictures)
        slow = slow_level(level(script), self.ready.has_card)
        if slow is not None and self.options.har is not None:  # else `hef.prepare` has warned already
            self.run.warn(slow)
        return script

    def _quantized_with(
        self, har: Path, noted: hars.HarRecord | None, inside: str | None, graph: ParsedGraph, outputs: Sequence[Output]
    ) -> Script:
        """The script of a quantised HAR. If it differs from the expected one, a HAR with our record is refused."""
        count = self.pictures if noted is None or noted.calibration is None else int(noted.calibration["count"])
        wanted = self._final(graph, outputs, count)
        text = inside if noted is None or noted.script is None else noted.script
        if text is None:
            self.run.warn(f"the script that the HAR {har} was quantised with is not known; {UNCHECKED}")
            return wanted
        found = parse_script(text, str(har))
        differs = hars.differing_script(har, statements(found), statements(wanted))
        if differs is not None and noted is not None:
            raise ModelError(
                f"{differs}; expected the script and flags of the run that wrote it; give the parsed HAR to --har, or "
                "leave it out"
            )
        if differs is not None:
            self.run.warn(f"{differs}; {UNCHECKED}")
        return found

    def _final(self, graph: ParsedGraph, outputs: Sequence[Output], pictures: int) -> Script:
        script = final_script(self.options, graph, outputs, pictures)
        for note in script.notes:
            self.run.warn(note)
        return script
