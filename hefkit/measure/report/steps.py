"""What to do next, as commands: by the verdict, and by the kind of the model."""

from __future__ import annotations

import shlex
from typing import NamedTuple

from hefkit.measure.validate import Validation
from hefkit.measure.verdict import GOOD_KEPT


class Step(NamedTuple):
    """One sentence and its command."""

    text: str
    command: str


def next_steps(result: Validation) -> list[Step]:
    """The commands in the order in which they should be tried."""
    run, figures = result.decisive
    model, onnx = shlex.quote(str(run.model)), None
    if result.reference is not None and result.reference is not run:
        onnx = shlex.quote(str(result.reference.model))
    best = figures["best_f1"]
    conf = f" --conf {best['conf']:.2f}" if best else ""
    steps = []
    if result.verdict.level in ("bad", "look") and onnx is not None:
        steps += _repair(onnx)
    if result.verdict.level == "unknown":
        if onnx is None and result.labelled:
            command = f"python3 validate_hef.py {model} --reference best.onnx --data data.yaml --report report"
            steps.append(Step("Compare with the float model that was exported.", command))
        else:
            command = "python3 validate_hef.py ... --data data.yaml --split train"
            steps.append(Step("Measure on more labelled pictures.", command))
    if result.verdict.level == "good" and run.engine == "emulated" and onnx is not None:
        hef = model
        if run.model.suffix != ".hef":  # else the SDK has emulated what is in that HEF
            hef, compile_ = "best.hef", f"python3 compile_to_hef.py {onnx} --hw-arch hailo8l --output best"
            steps.append(Step("Make the HEF with Hailo's compiler.", compile_))
        gate = f"--gate-map50 {GOOD_KEPT * (figures['map50'] or 0):.3f}"
        command = f"python3 validate_hef.py {hef} --data data.yaml {gate}"
        steps.append(Step("Measure the HEF on the Pi, on the same labels.", command))
    if result.verdict.level != "bad":
        steps.append(Step("See its boxes in your own pictures.", f"python3 hailo_inference.py {model} photos{conf}"))
    return steps


def _repair(onnx: str) -> list[Step]:
    compile_ = f"python3 compile_to_hef.py {onnx} --emulate"
    return [
        Step(
            "Calibrate on 64 and more of your own pictures that differ.",
            "python3 prepare_calibration.py photos --overwrite",
        ),
        Step("Compile again, with 16 bit at the outputs.", f"{compile_} --precision-16 outputs --output best"),
        Step(
            "If that is not enough, with 16 bit where it helps most.", f"{compile_} --precision-16 auto --output best"
        ),
    ]
