"""One run of compile_to_hef.py, of either kind: the options, the checks, the stages, the gate and the result."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from hefkit import __version__
from hefkit.names import model_names, wrong_count
from hefkit.spec import HeadSpec, InputSpec, ModelSpec, class_names
from hefkit.text import counted, log, one_line
from hefkit.workshop.calibration.read import CalibrationSet
from hefkit.workshop.compile.paths import EMULATED
from hefkit.workshop.heads.discover import HeadLayout, discover
from hefkit.workshop.heads.proof import Proof, prove
from hefkit.workshop.network.file import OnnxFile, load_onnx
from hefkit.workshop.script.commands import Script
from hefkit.workshop.script.compose import Additions, compose
from hefkit.workshop.script.lint import against_additions, lint, refuse_implicit_level

STAGES = ("Parsing ONNX model", "Optimizing model", "Quantizing model (calibration)", "Compiling to HEF")
FEW_PICTURES = 32
LOW_RECALL = 0.9
CURES = (
    "that is below 90 %; try in this order: more calibration pictures of what the camera will see; "
    "--precision-16 outputs; --precision-16 auto; docs/troubleshooting.md has more"
)


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
    data: str | None = None
    gate_kept: float | None = None
    emulate: bool = False
    har: Path | None = None
    sdk_python: Path | None = None
    parse_only: bool = False

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
    accuracy: dict[str, Any] | None = None  # with --data

    def preflight(self) -> None:
        """Check ONNX and script in seconds (exit 4); cut network + decode are compared with the uncut ONNX."""
        for warning in lint(self.options.script, self.options.hw_arch, self.options.level):
            self.warn(warning)
        with self.stage(0):
            self.file = load_onnx(self.options.onnx, self.options.imgsz)
            self.warnings += self.file.warnings
            self.layout = discover(self.file, self.options.end_nodes)
            self._log_layout(self.file, self.layout)
            if not self.options.emulate:
                for warning in against_additions(self.options.script, len(self.layout.convs), self.options.logits):
                    self.warn(warning)
            self._suggest_wide_outputs(self.layout)
            self.proof = prove(self.file, self.layout)
            log.info(
                "  check passed: same boxes as the original ONNX (largest difference %.2g px, %.2g in score)",
                self.proof.max_abs_px,
                self.proof.max_abs_score,
            )
            self.spec = self._draft(self.file, self.layout)

    def open_calibration(self, *, required: bool) -> None:
        """Open and check the calibration set (exit 3); without `required` a missing set is only a warning."""
        assert self.file is not None and self.layout is not None
        if not required and not self.options.calib.exists():
            self.warn(f"the calibration set {self.options.calib} does not exist yet; make it before compiling")
            return
        self.calibration = CalibrationSet(self.options.calib, self.file.size, self.options.num_samples)
        log.info(
            "  calibration set: %s of %s", counted(len(self.calibration), "picture"), one_line(self.calibration.source)
        )
        have, wanted = self.calibration.available, self.options.num_samples
        if wanted is not None and wanted > have:
            self.warn(f"--num-samples {wanted}, but {self.options.calib} has only {have} pictures; using all")
        if len(self.calibration) < FEW_PICTURES:
            self.warn(f"only {len(self.calibration)} calibration pictures; ranges get better with 64 and more")
        if self.calibration.fit == "stretch":
            self.warn("the calibration set was stretched, not letterboxed; the model will expect stretched pictures")
        if not self.options.emulate and self.options.level is None and self.options.har is None:
            refuse_implicit_level(self.options.script, len(self.calibration.split()[0]))

    def finish_spec(self, **facts: Any) -> None:
        """Complete the spec after quantisation: `head`, `calibration`, `script`, `quality`, `target`."""
        assert self.spec is not None and self.calibration is not None
        fit = self.calibration.fit or "letterbox"
        self.spec = replace(self.spec, input=replace(self.spec.input, fit=fit), **facts)

    def finish_head(self, head: HeadSpec) -> None:
        """Replace the head by that of the compiled model."""
        assert self.spec is not None
        self.spec = replace(self.spec, head=head)

    def result(self) -> dict[str, Any]:
        """What --json prints: the spec as far as it is known, and the run."""
        assert self.spec is not None
        spec = self.spec.to_json()
        if any(output.dtype == "float32" for output in self.spec.head.outputs):
            _blank_codes(spec, logits=self.options.logits)
        return {
            **spec,
            "output": None if self.output is None else str(self.output),
            "run_dir": None if self.run_dir is None else str(self.run_dir),
            "stages": self.stages,
            "proof": None if self.proof is None else self.proof.to_json(),
            "warnings": self.warnings,
            "accuracy": self.accuracy,
        }

    @contextmanager
    def stage(self, index: int, title: str | None = None) -> Iterator[None]:
        """Log the heading and measure the time; a stage that is entered again adds to its time."""
        name = title or STAGES[index]
        entry = next((stage for stage in self.stages if stage["name"] == name), None)
        if entry is None:
            log.info("[%d/4] %s", index + 1, name)
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        if entry is None:
            self.stages.append({"name": name, "seconds": round(seconds, 3)})
        else:
            entry["seconds"] = round(entry["seconds"] + seconds, 3)
        log.info("  %.1f s", seconds)

    def warn(self, text: str) -> None:
        """Log a warning and put it into the result."""
        self.warnings.append(text)
        log.warning("%s", text)

    def composed(self, pictures: int | None) -> Script:
        """The final script without the lines that need the compiler's layer names."""
        assert self.layout is not None
        outputs = range(1, len(self.layout.convs) + 1) if "outputs" in self.options.precision_16 else ()
        additions = Additions(
            level=self.options.level,
            calibration_batch=self.options.batch_size,
            calibset_size=pictures,
            wide_layers=tuple(f"output_layer{i}" for i in outputs),
            logits=self.options.logits,
        )
        return compose(self.options.script, additions)

    def log_quality(self, quality: Mapping[str, Any]) -> None:
        """Log the agreement with the float model; nothing without a float box, because the caller reports that."""
        if quality["recall"] is None:
            return
        optimistic = "optimistic: measured on the calibration pictures"
        log.info(
            "  the INT8 model finds %.1f %% of the float model's boxes (%s)",
            100 * quality["recall"],
            optimistic if quality["in_sample"] else "measured on held-out pictures",
        )
        precision = 0.0 if quality["precision"] is None else quality["precision"]
        log.info(
            "  and %.1f %% of its own boxes are the float model's (%s, %d float boxes, score %.2f, IoU %.1f)",
            100 * precision,
            counted(quality["images"], "picture"),
            quality["boxes_float"],
            quality["conf"],
            quality["iou"],
        )
        if quality["recall"] < LOW_RECALL:
            log.info("  %s", CURES)

    def gate(self, quality: Mapping[str, Any], what: str = "the emulated model") -> str | None:
        """Why --gate refuses the result, or None."""
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
                f"--gate {gate}: {what} keeps {quality['recall']:.3f} of the float model's boxes; nothing "
                "was written; try more and better matching calibration pictures, or --precision-16 auto"
            )
        return None

    def _suggest_wide_outputs(self, layout: HeadLayout) -> None:
        """Warn if boxes are plain distances and get 8 bit; not with --har, because its script is not known yet."""
        nodes = {conv.node_name for conv in layout.convs}
        asked = {"outputs", *nodes} & set(self.options.precision_16) or self.options.script.wide_outputs(len(nodes))[0]
        if layout.family == "ltrb" and not asked and self.options.har is None:
            self.warn(
                "the box outputs are plain distances, as in YOLO26; 8 bit rounds them coarsely; add "
                "--precision-16 outputs"
            )

    def _log_layout(self, file: OnnxFile, layout: HeadLayout) -> None:
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
        """The spec as far as it is known from the ONNX; codes, calibration and quality come later."""
        head = layout.to_head_spec()
        draft = ModelSpec(
            kind="emulated" if self.options.emulate else "hef",
            input=InputSpec(file.size),
            head=head,
            names=class_names(file.names, head.num_classes),
            source={"file": file.file, "sha256": file.sha256},
            target={"arch": self.options.hw_arch, "sdk": None},
            script=self.composed(None).text,
            tool=f"hefkit {__version__}",
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )
        if self.options.names is None and (wrong := wrong_count(file.names, head.num_classes, "the ONNX")):
            self.warn(f"{wrong}; --names gives them")
        return replace(draft, names=model_names(self.options.names, draft))


def _blank_codes(spec: dict[str, Any], *, logits: bool) -> None:
    """Before quantisation the type, scale and zero point of the codes are not known: write null, not a guess."""
    for output in spec["head"]["outputs"]:
        output.update(dtype=None, scale=None, zero_point=None)
        output["activation"] = "sigmoid" if output["role"] == "cls" and not logits else "none"
