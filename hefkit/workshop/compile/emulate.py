"""The stages of compile_to_hef.py --emulate, and the two files that they write: the emulated model and its spec."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import helper

from hefkit.errors import UsageError
from hefkit.files import explained
from hefkit.results.progress import progress
from hefkit.spec import HeadSpec
from hefkit.staging.stage import Staging
from hefkit.text import counted, log, one_line
from hefkit.workshop.compile.accuracy import emulation_refusal
from hefkit.workshop.compile.forecast import GOOD_RECALL, both_groupings, explain, sentences, told_groupings
from hefkit.workshop.compile.quality import FloatHeads, compare_emulated, no_boxes
from hefkit.workshop.compile.run import Compilation, Options
from hefkit.workshop.emulator.build import Emulator, Precision
from hefkit.workshop.engine import FORMAT
from hefkit.workshop.script.commands import level
from hefkit.workshop.script.lint import not_emulated

EMULATED_LAST = "Writing emulated model"


def emulate(run: Compilation, emulator: Emulator) -> str | None:
    """Measure, quantise and write; returns why the gate refused the result, or None. `emulator` is from `prepare`."""
    assert run.file is not None and run.layout is not None and run.calibration is not None
    train, held_out, in_sample = run.calibration.split()
    calibration = run.calibration

    def pictures() -> Iterator[np.ndarray]:
        return (calibration[i] for i in train)

    def measured_on() -> Iterator[np.ndarray]:
        return (calibration[i] for i in held_out)

    with run.stage(1):
        with progress(len(train), "picture", delay_s=2.0) as bar:
            emulator.measure(lambda: bar.each(pictures()))
        log.info("  %d tensors measured on %s", len(emulator.plan.points), counted(len(train), "picture"))
    with run.stage(2):
        model = emulator.quantize(pictures)
        _log_storage(emulator)
        exact = FloatHeads(run.file, run.layout, measured_on, in_sample=in_sample)
        with progress(len(held_out), "picture", delay_s=2.0) as bar:
            quality = compare_emulated(exact, model, emulator.head_spec(), bar)
        _, wide, weights = emulator.wide_weights()
        quality.update(level=emulator.level, tensors_16bit=emulator.wide_tensors(), weight_bytes=weights + wide)
        run.log_quality(quality)
        if quality["recall"] is None and run.options.gate is None:
            run.warn(no_boxes(quality))
        if emulator.grouped:
            quality["quantization_groups"] = both_groupings(emulator, exact, quality)
            log.info("  %s", told_groupings(quality["quantization_groups"]))
        if quality["recall"] is not None and quality["recall"] < GOOD_RECALL:
            quality.update(explain(emulator, exact, quality))
            for sentence in sentences(quality):
                run.warn(sentence)
    _finish_spec(run, emulator, len(train), quality)
    refused = run.gate(quality) or emulation_refusal(run, model)
    if refused is None:
        with run.stage(3, EMULATED_LAST):
            _write(run, model)
    return refused


def prepare(run: Compilation) -> Emulator:
    """Before the calibration set is opened: warn of script lines that are not emulated; unknown layers are exit 2."""
    assert run.file is not None and run.layout is not None
    options = run.options
    for warning in not_emulated(options.script):
        run.warn(warning)
    mean, std = options.script.normalization()
    asked_level = options.level if options.level is not None else level(options.script)
    if asked_level is None or asked_level > 1:
        reason = "no level is stated" if asked_level is None else f"level {asked_level} trains the weights"
        run.warn(f"{reason}, which --emulate cannot forecast; the figures are those of level 0")
    others = options.script.wide_outputs(len(run.layout.convs))[1]
    if others:
        shown = ", ".join(one_line(o, 60) for o in others[:5])
        run.warn(f"the script asks for 16 bit of {shown}, which are the compiler's names; they are emulated in 8 bit")
    grouped = options.script.weight_groups()[1]
    if grouped:
        shown = ", ".join(one_line(o, 60) for o in grouped[:5])
        run.warn(f"the script groups the weights of {shown}, which are the compiler's names; emulated with one group")
    precision = precision_of(options, len(run.layout.convs))
    emulator = Emulator(run.file, run.layout, mean, std, precision, options.logits, level=1 if asked_level == 1 else 0)
    unknown = emulator.unknown_layers()
    if unknown:
        raise UsageError(
            f"--precision-16: the network has no layer {', '.join(one_line(u, 80) for u in unknown)}; "
            "with --emulate a layer is named by its ONNX node"
        )
    return emulator


def precision_of(options: Options, heads: int) -> Precision:
    """What flags and script store in 16 bit and with several weight scales, without the compiler's layer names."""
    asked, groups = set(options.precision_16), options.script.weight_groups()[0]
    return Precision(
        outputs=frozenset(range(heads) if "outputs" in asked else options.script.wide_outputs(heads)[0]),
        layers=frozenset(asked - {"outputs", "auto"}),
        auto="auto" in asked,
        conv_groups=groups.get("conv*", groups.get("*", 1)),
        depthwise_groups=groups.get("dw*", groups.get("*", 1)),
    )


def _log_storage(emulator: Emulator) -> None:
    """Log which tensors and weights are stored in 16 bit, and how many bytes more that takes."""
    wide, (layers, weights, all_weights) = emulator.wide_tensors(), emulator.wide_weights()
    log.info("  forecast for optimization level %d", emulator.level)
    if emulator.corrected_on:
        log.info("  bias correction on %s", counted(emulator.corrected_on, "picture"))
    if not wide:
        log.info("  all layers 8-bit")
        return
    log.info(
        "  16 bit: %d of %d tensors, weights of %s (%.1f %%, %.2f MB more)",
        len(wide),
        len(emulator.plan.points),
        counted(len(layers), "layer"),
        100 * weights / max(all_weights, 1),
        weights / 1e6,
    )
    for name in layers[:8]:
        log.info("    %s", one_line(name, 80))


def _finish_spec(run: Compilation, emulator: Emulator, calibrated_on: int, quality: dict[str, Any]) -> None:
    """Complete the spec; its script lacks the lines that need the compiler's layer names."""
    assert run.calibration is not None
    script = run.composed(calibrated_on)
    for note in script.notes:
        run.warn(note)
    run.finish_spec(
        head=_with_streams(emulator),
        calibration={"count": calibrated_on, "digest": run.calibration.digest},
        script=script.text,
        quality=quality,
    )


def _write(run: Compilation, model: onnx.ModelProto) -> None:
    """Write model and spec together, then the report and the script into the run folder."""
    assert run.spec is not None
    target = run.options.emulated_model
    spec = (json.dumps(run.spec.to_json(), indent=1, ensure_ascii=True, allow_nan=False) + "\n").encode()
    helper.set_model_props(
        model,
        {
            "hefkit.kind": "emulated",
            "hefkit.format": FORMAT,
            "hefkit.spec_sha256": hashlib.sha256(spec).hexdigest(),
        },
    )
    run.output, run.run_dir = target, run.options.run_dir
    report = (json.dumps(run.result(), indent=1) + "\n").encode()
    with Staging(target.parent) as stage, Staging(run.run_dir) as run_stage:
        with explained(target):
            (stage.path / target.with_suffix(".json").name).write_bytes(spec)
            (stage.path / target.name).write_bytes(model.SerializeToString())
        with explained(run.run_dir):
            (run_stage.path / "script.mscript").write_bytes(run.spec.script.encode())
            (run_stage.path / "report.json").write_bytes(report)
        stage.commit(last=target.name)
        run_stage.commit()
    log.info("  %s (%.1f MB): INT8 emulation, not a HEF", target, target.stat().st_size / 1e6)


def _with_streams(emulator: Emulator) -> HeadSpec:
    head = emulator.head_spec()
    named = zip(head.outputs, emulator.output_names(), strict=True)
    return replace(head, outputs=tuple(replace(o, stream=name) for o, name in named))
