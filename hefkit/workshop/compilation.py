"""The road of compile_to_hef.py: checks, four stages, and what they leave behind."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from hefkit import __version__
from hefkit.cli import one_line
from hefkit.errors import ToolchainError, UsageError
from hefkit.files import Staging
from hefkit.names import model_names
from hefkit.spec import HeadSpec, InputSpec, ModelSpec, class_names
from hefkit.workshop.agreement import measure_agreement
from hefkit.workshop.calibset import CalibrationSet
from hefkit.workshop.emulator import Emulator, Precision
from hefkit.workshop.engine import FORMAT
from hefkit.workshop.heads import HeadLayout, discover
from hefkit.workshop.modelscript import Additions, Script, compose, lint, not_emulated
from hefkit.workshop.onnxfile import OnnxFile, load_onnx
from hefkit.workshop.outputs import EMULATED
from hefkit.workshop.proof import Proof, prove

log = logging.getLogger("hefkit")

STAGES = ("Parsing ONNX model", "Optimizing model", "Quantizing model (calibration)", "Compiling to HEF")
EMULATED_LAST = "Writing emulated model"
FEW_PICTURES = 32
SDK_VENV = Path(".venv_hailo_full", "bin", "python")


@dataclass(frozen=True)
class Options:
    """The flags of compile_to_hef.py, checked and typed."""

    onnx: Path
    name: Path  # output without a suffix
    calib: Path
    script: Script
    run_dir: Path
    hw_arch: str = "hailo8"
    num_samples: int | None = None
    level: int | None = None
    precision_16: tuple[str, ...] = ()
    logits: bool = False
    batch_size: int | None = None
    imgsz: tuple[int, int] | None = None
    end_nodes: tuple[str, ...] | None = None
    names: Mapping[int, str] | None = None
    gate: float | None = None
    emulate: bool = False

    @property
    def emulated_model(self) -> Path:
        """NAME.emulated.onnx; its spec is NAME.emulated.json."""
        return self.name.with_name(self.name.name + EMULATED)


@dataclass
class Compilation:
    """One run, stage by stage; `result()` is what --json prints, at any point."""

    options: Options
    warnings: list[str] = field(default_factory=list)
    stages: list[dict[str, Any]] = field(default_factory=list)
    file: OnnxFile | None = None
    layout: HeadLayout | None = None
    proof: Proof | None = None
    calibration: CalibrationSet | None = None
    spec: ModelSpec | None = None
    output: Path | None = None
    run_dir: Path | None = None

    def preflight(self) -> None:
        """Everything that can be known of the ONNX and the script in seconds, the proof included (exit 4)."""
        for warning in lint(self.options.script, self.options.hw_arch, self.options.level):
            self.warn(warning)
        with self._stage(0, STAGES[0]):
            self.file = load_onnx(self.options.onnx, self.options.imgsz)
            self.warnings += self.file.warnings
            self.layout = discover(self.file, self.options.end_nodes)
            self._tell_layout(self.file, self.layout)
            self.proof = prove(self.file, self.layout)
            log.info(
                "  proof: cut network + decode equal the whole ONNX within %.2g px and %.2g in score (%d pictures)",
                self.proof.max_abs_px,
                self.proof.max_abs_score,
                self.proof.images,
            )
            self.spec = self._draft(self.file, self.layout)

    def open_calibration(self, *, required: bool) -> None:
        """Open and check the calibration set (exit 3); without `required` one that is not there is a warning."""
        assert self.file is not None
        if not required and not self.options.calib.exists():
            self.warn(f"the calibration set {self.options.calib} does not exist yet; make it before compiling")
            return
        self.calibration = CalibrationSet(self.options.calib, self.file.size, self.options.num_samples)
        have, wanted = self.calibration.available, self.options.num_samples
        if wanted is not None and wanted > have:
            self.warn(f"--num-samples {wanted}, but {self.options.calib} has only {have} pictures; using all")
        if len(self.calibration) < FEW_PICTURES:
            self.warn(f"only {len(self.calibration)} calibration pictures; ranges get better with 64 and more")
        if self.calibration.fit == "stretch":
            self.warn("the calibration set was stretched, not letterboxed; the model will expect stretched pictures")

    def emulate(self) -> str | None:
        """Build, measure and write the emulated model; returns why the gate refused it, or None."""
        assert self.file is not None and self.layout is not None and self.calibration is not None
        train, held_out, in_sample = self.calibration.split()
        emulator = self._emulator(self.file, self.layout)
        calibration = self.calibration

        def pictures() -> Iterator[np.ndarray]:
            return (calibration[i] for i in train)

        with self._stage(1, STAGES[1]):
            emulator.measure(pictures)
            log.info("  %d tensors measured on %d pictures", len(emulator.plan.points), len(train))
        with self._stage(2, STAGES[2]):
            model = emulator.quantize(pictures)
            wide = emulator.wide_tensors()
            log.info("  every layer corrected on %d pictures; %d tensors in 16 bit", emulator.corrected_on, len(wide))
            head = emulator.head_spec()
            quality = measure_agreement(
                self.file, self.layout, model, head, (calibration[i] for i in held_out), in_sample=in_sample
            )
            quality["tensors_16bit"] = wide
            self._tell_quality(quality)
        self._finish_spec(emulator, len(train), quality)
        refused = self._gate(quality)
        if refused is None:
            with self._stage(3, EMULATED_LAST):
                self._write(model)
        return refused

    def warn_without_sdk(self) -> None:
        """What --check says instead of refusing."""
        if not self.options.emulate:
            self.warn(no_compiler())

    def refuse_without_sdk(self) -> None:
        """Raise ToolchainError: there is no SDK, or this version cannot drive it."""
        raise ToolchainError(no_compiler())

    def result(self) -> dict[str, Any]:
        """What --json prints: the spec as far as it is known, and the run."""
        assert self.spec is not None
        spec = self.spec.to_json()
        if self.spec.calibration is None:
            _blank_what_quantization_decides(spec, logits=self.options.logits)
        return {
            **spec,
            "output": None if self.output is None else str(self.output),
            "run_dir": None if self.run_dir is None else str(self.run_dir),
            "stages": self.stages,
            "proof": None if self.proof is None else self.proof.to_json(),
            "warnings": self.warnings,
        }

    @contextmanager
    def _stage(self, index: int, title: str) -> Iterator[None]:
        log.info("[%d/4] %s", index + 1, title)
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self.stages.append({"name": title, "seconds": round(seconds, 3)})
        log.info("  %.1f s", seconds)

    def warn(self, text: str) -> None:
        """Tell it now and put it into the result."""
        self.warnings.append(text)
        log.warning("%s", text)

    def _tell_layout(self, file: OnnxFile, layout: HeadLayout) -> None:
        family = f"DFL, reg_max {layout.reg_max}" if layout.family == "dfl" else "direct distances"
        log.info(
            "  %s: input %dx%d, %d classes, %s, strides %s%s",
            one_line(file.file),
            *file.size,
            layout.num_classes,
            family,
            " ".join(map(str, layout.strides)),
            ", NMS-free" if layout.nms_free else "",
        )
        for conv in layout.convs:
            log.info("  end node %s  %s  %s", conv.role, "x".join(map(str, conv.shape)), one_line(conv.node_name))

    def _draft(self, file: OnnxFile, layout: HeadLayout) -> ModelSpec:
        """The spec as far as the ONNX tells it; codes, calibration and quality come later."""
        head = layout.to_head_spec()
        draft = ModelSpec(
            kind="emulated" if self.options.emulate else "hef",
            input=InputSpec(file.size),
            head=head,
            names=class_names(file.names, head.num_classes),
            source={"file": file.file, "sha256": file.sha256},
            target={"arch": self.options.hw_arch, "sdk": None},
            script=self._script(layout, None).text,
            tool=f"hefkit {__version__}",
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )
        return replace(draft, names=model_names(self.options.names, draft))

    def _emulator(self, file: OnnxFile, layout: HeadLayout) -> Emulator:
        mean, std = self.options.script.normalization()
        outputs, others = self.options.script.wide_outputs(len(layout.convs))
        for warning in not_emulated(self.options.script):
            self.warn(warning)
        if others:
            shown = ", ".join(one_line(o, 60) for o in others[:5])
            self.warn(f"the script asks 16 bit of {shown}: names of the compiler's own, emulated in 8 bit")
        asked = set(self.options.precision_16)
        precision = Precision(
            outputs=frozenset(range(len(layout.convs)) if "outputs" in asked else outputs),
            layers=frozenset(asked - {"outputs", "auto"}),
            auto="auto" in asked,
        )
        emulator = Emulator(file, layout, mean, std, precision, self.options.logits)
        unknown = emulator.unknown_layers()
        if unknown:
            raise UsageError(
                f"--precision-16: the network has no layer {', '.join(one_line(u, 80) for u in unknown)}; "
                "with --emulate a layer is named by its ONNX node"
            )
        return emulator

    def _finish_spec(self, emulator: Emulator, calibrated_on: int, quality: dict[str, Any]) -> None:
        assert self.spec is not None and self.calibration is not None
        self.spec = replace(
            self.spec,
            input=replace(self.spec.input, fit=self.calibration.fit or "letterbox"),
            head=_with_streams(emulator),
            calibration={"count": calibrated_on, "digest": self.calibration.digest},
            script=self._final_script(calibrated_on).text,
            quality=quality,
        )

    def _final_script(self, calibrated_on: int) -> Script:
        """The script of the emulation: the compiler's layer names are not known, so their lines are missing."""
        assert self.layout is not None
        script = self._script(self.layout, calibrated_on)
        for note in script.notes:
            self.warn(note)
        return script

    def _script(self, layout: HeadLayout, pictures: int | None) -> Script:
        outputs = range(1, len(layout.convs) + 1) if "outputs" in self.options.precision_16 else ()
        additions = Additions(
            level=self.options.level,
            calibration_batch=self.options.batch_size,
            calibset_size=pictures,
            wide_layers=tuple(f"output_layer{i}" for i in outputs),
            logits=self.options.logits,
        )
        return compose(self.options.script, additions)

    def _tell_quality(self, quality: Mapping[str, Any]) -> None:
        where = "pictures that it was calibrated with (in_sample)" if quality["in_sample"] else "held-out pictures"
        log.info(
            "  agreement with the float model on %d %s: recall %s, precision %s (%d float boxes, conf %.2f, IoU %.1f)",
            quality["images"],
            where,
            _shown(quality["recall"]),
            _shown(quality["precision"]),
            quality["boxes_float"],
            quality["conf"],
            quality["iou"],
        )

    def _gate(self, quality: Mapping[str, Any]) -> str | None:
        gate = self.options.gate
        if gate is None:
            return None
        if quality["recall"] is None:
            return (
                f"--gate {gate}: the float model finds no box in the {quality['images']} pictures that agreement is "
                "measured on; expected pictures with objects; nothing was written"
            )
        if quality["recall"] < gate:
            return (
                f"--gate {gate}: the emulated model keeps {quality['recall']:.3f} of the float model's boxes; nothing "
                "was written; try more and better matching calibration pictures, or --precision-16 auto"
            )
        return None

    def _write(self, model: onnx.ModelProto) -> None:
        """Model and spec appear together; then the run folder with the report and the script."""
        assert self.spec is not None
        target = self.options.emulated_model
        spec = (json.dumps(self.spec.to_json(), indent=1, ensure_ascii=True, allow_nan=False) + "\n").encode()
        helper.set_model_props(
            model,
            {
                "hefkit.kind": "emulated",
                "hefkit.format": FORMAT,
                "hefkit.spec_sha256": hashlib.sha256(spec).hexdigest(),
            },
        )
        with Staging(target.parent) as stage:
            (stage.path / target.with_suffix(".json").name).write_bytes(spec)
            (stage.path / target.name).write_bytes(model.SerializeToString())
            stage.commit(last=target.name)
        self.output, self.run_dir = target, self.options.run_dir
        with Staging(self.options.run_dir) as stage:
            (stage.path / "script.mscript").write_text(self.spec.script, encoding="utf-8")
            (stage.path / "report.json").write_text(json.dumps(self.result(), indent=1) + "\n", encoding="utf-8")
            stage.commit()
        log.info("  %s (%.1f MB): INT8 emulation, not a HEF", target, target.stat().st_size / 1e6)


def no_compiler() -> str:
    """One sentence: why no HEF can be made here, how that changes, and what works without."""
    if importlib.util.find_spec("hailo_sdk_client") is not None or SDK_VENV.is_file():
        return (
            "this version of hefkit cannot drive Hailo's Dataflow Compiler yet, although it is installed; expected a "
            "later version; until then --emulate makes an INT8 model that runs without it"
        )
    return (
        "Hailo's Dataflow Compiler (the Python package hailo_sdk_client) is not installed, and a HEF comes only from "
        "it; register at https://hailo.ai/developer-zone, download the wheel and install it on x86_64 Linux, or "
        "use --emulate for an INT8 model that runs without it"
    )


def _blank_what_quantization_decides(spec: dict[str, Any], *, logits: bool) -> None:
    """Before there are codes nobody knows their type, scale and zero point: null, not a guess."""
    for output in spec["head"]["outputs"]:
        output.update(dtype=None, scale=None, zero_point=None)
        output["activation"] = "sigmoid" if output["role"] == "cls" and not logits else "none"


def _with_streams(emulator: Emulator) -> HeadSpec:
    head = emulator.head_spec()
    named = zip(head.outputs, emulator.output_names(), strict=True)
    return replace(head, outputs=tuple(replace(o, stream=name) for o, name in named))


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
