"""Why the forecast of the INT8 emulation is bad, and what helps: measured, not guessed.

The compiler gives all output channels of a layer one weight scale where a SiLU or a sigmoid follows, so networks with
depthwise convolutions lose most at level 0. It depends on the network which script line helps, so each is tried here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

from hefkit.results.progress import progress
from hefkit.text import one_line
from hefkit.workshop.compile.quality import FloatHeads, emulated_agreement
from hefkit.workshop.emulator.build import Blame, Emulator, Precision

GOOD_RECALL = 0.9
TRIED_ON = 16  # pictures at most
BLAMED_ON = 4  # pictures at most; more than one, because a picture without an object says little about the classes
GROUPS = 4
AS_IT_IS, OUTPUTS, AUTO, GROUPED = (
    "as it is",
    "outputs in 16 bit",
    "the noisiest layers in 16 bit",
    f"{GROUPS} quantization groups",
)
FLAGS = {OUTPUTS: "--precision-16 outputs", AUTO: "--precision-16 auto"}
WEIGHTS = "the weights"
MOSTLY = 2.0  # times the noise of the other kind
DEPTHWISE_TO_BLAME = 0.25  # share of the noise


def explain(emulator: Emulator, exact: FloatHeads, quality: Mapping[str, Any]) -> dict[str, Any]:
    """Why boxes are lost and what each cure keeps of them.

    Args:
        exact: the pictures that agreement is measured on; the first TRIED_ON are used.
        quality: of the emulated model on all of them.

    Returns:
        `causes`: weights and tensors (noise over signal at the heads), depthwise (share), layers (the worst, with
        their shares); `what_if`: what was tried at level 0, with its recall and precision on the same pictures.
    """
    tried = _variants(emulator)
    what_if = []
    with progress(len(tried) + 1, "variant", delay_s=2.0) as bar:
        blame = emulator.blame(lambda: islice(exact.pictures(), BLAMED_ON))
        bar.step()
        for what, variant in tried.items():
            known = what == AS_IT_IS and emulator.level == 0 and quality["images"] <= TRIED_ON
            found = quality if known else _agreement(emulator, variant, exact, TRIED_ON)
            what_if.append({"what": what, "recall": found["recall"], "precision": found["precision"]})
            bar.step()
    return {"causes": _causes(blame), "what_if": what_if}


def sentences(quality: dict[str, Any]) -> list[str]:
    """`explain`'s result in words: the cause, what was tried, and of that what kept more boxes."""
    causes = quality["causes"]
    kind = to_blame(causes["weights"], causes["tensors"])
    worst = ", ".join(f"{one_line(w['layer'], 60)} {100 * w['share']:.0f} %" for w in causes["layers"][:3])
    told = [
        f"only {100 * quality['recall']:.0f} % of the boxes are left; the cause: {kind} lose too much in 8 bit; "
        f"depthwise convolutions bring {100 * causes['depthwise']:.0f} % of the noise; worst layers: {worst}",
        "tried at level 0: " + "; ".join(f"{w['what']} {_percent(w['recall'])}" for w in quality["what_if"]),
    ]
    tried = {w["what"]: w["recall"] or 0.0 for w in quality["what_if"]}
    helped = [what for what, recall in tried.items() if recall > tried[AS_IT_IS]]
    cures = [flag for what, flag in FLAGS.items() if what in helped]
    cures.append("--optimization-level 2 with a GPU (trains, not forecast here)")
    if any(what.startswith(GROUPED) for what in helped):
        cures.append(
            f"the script line quantization_param([{{conv*}}, {{dw*}}], quantization_groups={GROUPS}), which the "
            "compiler may refuse, layer by layer"
        )
    if causes["depthwise"] > DEPTHWISE_TO_BLAME:
        cures.append("a network without depthwise convolutions, such as YOLOv8")
    return [*told, "what helps: " + "; or ".join(cures)]


def to_blame(weights: float, tensors: float) -> str:
    """What loses too much, by the noise that each brings alone: WEIGHTS, the tensors, or both, as words."""
    alike = f"{WEIGHTS} and the tensors between layers alike"
    kind = WEIGHTS if weights > MOSTLY * tensors else "the tensors between layers"
    return kind if max(weights, tensors) > MOSTLY * min(weights, tensors) else alike


def _variants(emulator: Emulator) -> dict[str, Precision]:
    """The variants to try; those that the script or the flags ask for already are left out."""
    precision = emulator.precision
    outputs = frozenset(range(len(emulator.layout.convs)))
    tried = {AS_IT_IS: precision}
    if precision.outputs != outputs:
        tried[OUTPUTS] = replace(precision, outputs=outputs)
    if not precision.auto:
        tried[AUTO] = replace(precision, auto=True)
    if not emulator.grouped:
        groups = replace(precision, conv_groups=GROUPS, depthwise_groups=GROUPS)
        tried[f"{GROUPED}, channels in order"] = groups
        tried[f"{GROUPED}, channels sorted by range"] = replace(groups, groups_by_range=True)
    return tried


def both_groupings(emulator: Emulator, exact: FloatHeads, in_order: Mapping[str, Any]) -> dict[str, Any]:
    """The boxes that quantization_groups keep if the compiler groups channels in order, and if it sorts them by range.

    Args:
        in_order: the `quality` of the emulated model, which groups in order.
    """
    by_range = replace(emulator.precision, groups_by_range=True)
    found = {"in_order": in_order, "sorted": _agreement(emulator, by_range, exact)}
    return {name: {key: q[key] for key in ("recall", "precision")} for name, q in found.items()}


def _agreement(
    emulator: Emulator, precision: Precision, exact: FloatHeads, most: int | None = None
) -> Mapping[str, Any]:
    """Recall and precision, among other figures, of another model from the same measurement."""
    return emulated_agreement(exact, *emulator.variant(precision), most).figures()


def told_groupings(groupings: Mapping[str, Any]) -> str:
    """Both figures in words."""
    shares = [_percent(groupings[name]["recall"]) for name in ("in_order", "sorted")]
    return f"with channels grouped in order {shares[0]}, sorted by range {shares[1]}; the compiler's way is not known"


def _causes(blame: Blame) -> dict[str, Any]:
    return {
        "weights": round(blame.weights, 4),
        "tensors": round(blame.tensors, 4),
        "depthwise": round(blame.depthwise, 4),
        "layers": [{"layer": name, "share": round(share, 4)} for name, share in blame.layers],
    }


def _percent(recall: float | None) -> str:
    return "-" if recall is None else f"{100 * recall:.0f} %"
