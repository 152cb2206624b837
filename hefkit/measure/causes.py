"""The likely causes of a bad result, each with its evidence and its cure. A cause without evidence is not named.

| cause | evidence |
|---|---|
| red and blue swapped | the float model with swapped colours agrees better with the quantised one |
| stretched, or letterboxed | the float model with the other fit agrees better; the two models' `fit` differ |
| calibrated on 0..1 | the codes of the box tensors span what the float model gives on nearly black pictures |
| classes in another order | boxes match when classes are ignored, and most boxes of a class have another class |
| clipped box branch | box tensors do not reach the float model's values; all class tensors do |
| few pictures | the number in the spec; tensors that do not reach the float model's values |
| level 1 | the level in the script, and boxes that are worse than the scores |
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from hefkit.measure.evidence import OTHER_FIT, SWAPPED, Evidence
from hefkit.spec import ModelSpec
from hefkit.text import counted, one_line

BETTER = 0.03  # recall by which a changed float model must agree better; equal models differ by less
BELIEVED = 0.7  # recall that the changed float model must reach
DARK = (0.8, 1.25)  # span on nearly black pictures / span of the codes; a healthy model has 0.6 and less
SHORT_REACH = 0.75  # of the float tensor's span; a healthy model reaches 0.9 and more
DEAD = 0.01  # reach; a class tensor below it shows no object in these pictures
FEW_PICTURES = 16
SPREAD = (0.95, 1.05)  # 5th and 95th percentile of width ratios at the same anchors; healthy: 0.98 to 1.02
LEVEL = re.compile(r"optimization_level\s*=\s*(\d)")


def level_of(spec: ModelSpec) -> int | None:
    """The optimization level in the spec's model script; None where it has none."""
    lines = [line for line in spec.script.splitlines() if not line.lstrip().startswith("#")]
    found = LEVEL.findall("\n".join(lines))
    return int(found[-1]) if found else None


def find_causes(
    evidence: Evidence | None, called: Mapping[int, int], reference: ModelSpec | None, spec: ModelSpec
) -> list[str]:
    """The causes that the evidence supports, the surest first.

    Args:
        evidence: None without a float model.
        called: class of the reference or of the labels -> class of most of its boxes in the model; see `other_names`.
        reference: of the float model.
        spec: of the quantised model.
    """
    if evidence is None or reference is None:
        return _order(called, spec)
    causes = _experiments(evidence, reference, spec) or _order(called, spec)
    few = _few(evidence, spec)
    if not causes:
        causes = _ranges(evidence, calibrated_on_few=bool(few))
    return causes + _level(evidence, spec) + few or _noise(evidence)


def _order(called: Mapping[int, int], spec: ModelSpec) -> list[str]:
    if not called:
        return []
    shown = ", ".join(f"{_name(spec, a)} is called {_name(spec, b)}" for a, b in sorted(called.items())[:3])
    return [
        f"wrong class order: {shown}; the boxes fit when classes are ignored; use the names in the order of the "
        "training (--names data.yaml), or the ONNX that this model was made from"
    ]


def _experiments(evidence: Evidence, reference: ModelSpec, spec: ModelSpec) -> list[str]:
    plain = evidence.recall or 0.0
    swapped, fitted = (evidence.experiments.get(name) or 0.0 for name in (SWAPPED, OTHER_FIT))
    best = max(swapped, fitted)
    if best < max(plain + BETTER, BELIEVED):
        return []
    if best == swapped:
        return [
            f"wrong colour order: with red and blue swapped the float model agrees on {_percent(swapped)} of its "
            f"boxes, not swapped on {_percent(plain)}; feed RGB, and remove a bgr conversion from the model script or "
            "the export"
        ]
    ours = "stretched" if reference.input.fit == "letterbox" else "letterboxed"
    known = f" (its spec says {spec.input.fit})" if spec.input.fit != reference.input.fit else ""
    return [
        f"wrong fit: the model is used on {ours} pictures{known}; with {ours} pictures the float model agrees on "
        f"{_percent(fitted)} of its boxes, with the other fit on {_percent(plain)}; make the calibration set with "
        f"--fit {reference.input.fit} and compile again"
    ]


def _ranges(evidence: Evidence, *, calibrated_on_few: bool) -> list[str]:
    """Tensors that cannot hold the float model's values."""
    boxes = [o for o in evidence.outputs if o["role"] == "box" and o["reach"] is not None]
    short = [o for o in boxes if o["reach"] < SHORT_REACH]
    if not short:
        return []
    if evidence.dark is not None and DARK[0] <= evidence.dark <= DARK[1]:
        return [
            "calibrated on 0..1: the ranges of the box tensors are those of nearly black pictures; the calibration set "
            "must hold 0..255, because the model script normalises; make it with prepare_calibration.py"
        ]
    classes = [o for o in evidence.outputs if o["role"] == "cls" and o["reach"] is not None and o["reach"] > DEAD]
    if all(o["reach"] >= SHORT_REACH for o in classes):
        which = ", ".join(f"{o['stride']} ({_percent(o['reach'])})" for o in short)
        return [
            f"clipped box branch: the box tensors of stride {which} do not reach the float model's values, the class "
            "tensors do; scores look right and boxes are wrong; calibrate on pictures with objects of all sizes, then "
            "--precision-16 outputs"
        ]
    if calibrated_on_few:
        return []
    return [
        f"ranges too narrow: {counted(len(short), 'box tensor')} reach at most "
        f"{_percent(max(o['reach'] for o in short))} of the float model's values; calibrate on pictures like these"
    ]


def _level(evidence: Evidence, spec: ModelSpec) -> list[str]:
    if level_of(spec) != 1 or not boxes_ruined(evidence):
        return []
    return [
        "optimization level 1: boxes are worse than scores, and level 1 is known to ruin the boxes of DFL heads with "
        "few pictures (in a public report mAP50 fell from 0.548 to 0.069); compile with --optimization-level 2 and "
        "more pictures, or 0"
    ]


def boxes_ruined(evidence: Evidence) -> bool:
    """Whether box widths at the same anchors spread beyond SPREAD while most scores stay."""
    if not evidence.width_ratio or (evidence.score_drop or 0.0) > 0.5:
        return False
    low, high = np.percentile(evidence.width_ratio, [5, 95])
    return bool(low < SPREAD[0] or high > SPREAD[1])


def _few(evidence: Evidence, spec: ModelSpec) -> list[str]:
    count = None if spec.calibration is None else spec.calibration.get("count")
    if not isinstance(count, int) or count >= FEW_PICTURES:
        return []
    short = [o["reach"] for o in evidence.outputs if (o["reach"] or 0) > DEAD]
    reach = (
        f", and the model's worst tensor reaches {_percent(min(short))} of the float model's values" if short else ""
    )
    return [
        f"too few calibration pictures: {counted(count, 'picture')}{reach}; take 64 and more that differ "
        "(prepare_calibration.py chooses them)"
    ]


def _noise(evidence: Evidence) -> list[str]:
    """The last cause, where nothing else fits: the tensor with the most noise."""
    known = [o for o in evidence.outputs if o["snr_db"]]
    if not known:
        return []
    worst = min(known, key=lambda o: o["snr_db"])
    return [
        f"quantisation noise: the {worst['role']} tensor of stride {worst['stride']} has the most "
        f"({worst['snr_db']:.0f} dB signal to noise); try --precision-16 outputs, then --precision-16 auto, and "
        "--optimization-level 2 with the SDK"
    ]


def _name(spec: ModelSpec, class_id: int) -> str:
    return one_line(spec.names.get(class_id, f"class{class_id}"), 40)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
