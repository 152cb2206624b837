"""One sentence: is the quantised model good enough?

The limits and their reasons. Hailo's own compiled YOLOs keep 95 to 98 % of their mAP, and users who calibrated on 128
pictures of their own kept 93 to 100 % of mAP50. So a good conversion reaches a share of 0.95, and below 0.90 there is
a fault that can be cured. The lower end of the interval must not lie below 0.90 either: else the pictures are too few
to say. mAP50-95 is checked as well, because it falls first where boxes become coarse.
Without labels only the agreement is known: the boxes of a float model that are found again at IoU 0.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from hefkit.text import counted

GOOD_KEPT, BAD_KEPT = 0.95, 0.90  # of the float model's mAP
GOOD_RECALL, BAD_RECALL = 0.90, 0.70  # agreement
SAME_SIZE = (0.95, 1.05)  # median width and height ratio
ENOUGH_BOXES = 20  # of the float model, for a word about agreement
HOPELESS = 0.05  # mAP50; a model below it is bad, also without a float model
LEVELS = ("good", "unknown", "look", "bad")  # ascending: the worst of several models is reported


class Verdict(NamedTuple):
    """A level and its sentence."""

    level: str  # "good" | "look" | "bad" | "unknown"
    text: str


def judge(figures: Mapping[str, Any]) -> Verdict:
    """The verdict on one model, from its object of the contract."""
    kept, agreement = figures["kept"], figures["agreement"]
    if kept is not None and kept["map50"] is not None and kept["interval"] is not None:
        return _by_labels(figures, kept, agreement)
    if agreement is not None:
        return _by_agreement(agreement)
    if figures["map50"] is None:
        return Verdict("unknown", "unknown: nothing was measured that shows whether the model is good enough")
    text = f"mAP50 is {figures['map50']:.3f} on {counted(figures['images'], 'picture')}"
    if figures["map50"] < HOPELESS:
        return Verdict("bad", f"bad: {text}: it finds almost none of the labelled objects")
    return Verdict("unknown", f"unknown: {text}; with --reference ONNX it is compared with the float model")


def _by_labels(figures: Mapping[str, Any], kept: Mapping[str, Any], agreement: Mapping[str, Any] | None) -> Verdict:
    share, (low, high) = kept["map50"], kept["interval"]
    pictures = counted(figures["images"], "picture")
    text = (
        f"the model keeps {100 * share:.1f} % of the float model's mAP50 "
        f"(95 % interval {100 * low:.1f} to {100 * high:.1f} %, {pictures})"
    )
    fine = kept["map50_95"]
    if share < BAD_KEPT and high < GOOD_KEPT:
        return Verdict("bad", f"bad: {text}; a good conversion keeps {100 * GOOD_KEPT:.0f} %")
    doubt = None if agreement is None else _doubt(agreement)
    if share >= BAD_KEPT and low < BAD_KEPT and high >= GOOD_KEPT and doubt is None:
        return Verdict("unknown", f"unknown: {text}; {pictures} are too few; take more labelled pictures")
    if share < GOOD_KEPT or low < BAD_KEPT:
        more = f", and {doubt}" if doubt else ""
        return Verdict("look", f"look at it: {text}{more}; a good conversion keeps {100 * GOOD_KEPT:.0f} %")
    if fine is not None and fine < GOOD_KEPT:
        return Verdict("look", f"look at it: {text}, but only {100 * fine:.1f} % of mAP50-95: its boxes are coarser")
    if doubt:
        return Verdict("look", f"look at it: {text}, but {doubt}")
    blind = 100 * max(share - low, 0.0)
    return Verdict("good", f"good: {text}; with {pictures} a loss below {blind:.1f} points cannot be seen")


def _by_agreement(agreement: Mapping[str, Any]) -> Verdict:
    boxes, recall = agreement["boxes_reference"], agreement["recall"]
    if recall is None or boxes < ENOUGH_BOXES:
        return Verdict(
            "unknown",
            f"unknown: the float model finds only {boxes} boxes in "
            f"{counted(agreement['images'], 'picture')}; expected at least {ENOUGH_BOXES}; take pictures with objects",
        )
    precision = agreement["precision"] or 0.0
    text = (
        f"the model finds {100 * recall:.1f} % of the float model's {boxes} boxes, and {100 * precision:.1f} % of its "
        f"own boxes are the float model's ({counted(agreement['images'], 'picture')}, no labels)"
    )
    if recall < BAD_RECALL or precision < BAD_RECALL:
        return Verdict("bad", f"bad: {text}")
    if doubt := _doubt(agreement):
        return Verdict("look", f"look at it: {text}; {doubt}")
    return Verdict("good", f"good: {text}; labels (--data) would show more")


def _doubt(agreement: Mapping[str, Any]) -> str | None:
    """What the agreement shows that average precision may hide, or None."""
    if agreement["boxes_reference"] < ENOUGH_BOXES:
        return None
    for side in ("width", "height"):
        ratio = agreement[f"{side}_ratio"]["median"]
        if ratio is not None and not SAME_SIZE[0] <= ratio <= SAME_SIZE[1]:
            return f"its boxes have {ratio:.2f} times the {side} of the float model's"
    for key, what in (
        ("recall", "the float model's boxes are found"),
        ("precision", "its boxes are the float model's"),
    ):
        share = agreement[key] or 0.0
        if share < GOOD_RECALL:
            return f"only {100 * share:.1f} % of {what} at a score of 0.25"
    return None


def worst(verdicts: list[Verdict]) -> Verdict:
    """The verdict of the validation, where several models were measured."""
    return max(verdicts, key=lambda verdict: LEVELS.index(verdict.level))
