"""What is said of a bad forecast: the cause, what was tried, what helps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hefkit.workshop.compile.forecast import explain, sentences
from hefkit.workshop.compile.quality import FloatHeads, compare_emulated
from hefkit.workshop.emulator.build import Emulator, Precision
from hefkit.workshop.heads.discover import discover
from hefkit.workshop.network.file import make_static
from tests.helpers.tiny_onnx import drawn, tiny_yolo

OUTPUTS, AUTO = "outputs in 16 bit", "the noisiest layers in 16 bit"
ORDER, SORTED = "4 quantization groups, channels in order", "4 quantization groups, channels sorted by range"


def quality(
    weights: float = 0.9, tensors: float = 0.1, depthwise: float = 0.6, tried: dict[str, float | None] | None = None
) -> dict[str, Any]:
    """A forecast of 52 %."""
    layers = [{"layer": f"/net/Conv_{i}", "share": share} for i, share in enumerate((0.404, 0.2, 0.1, 0.05, 0.01))]
    figures = {"as it is": 0.5, AUTO: 0.8, ORDER: 0.6, SORTED: None} if tried is None else tried
    return {
        "recall": 0.518,
        "causes": {"weights": weights, "tensors": tensors, "depthwise": depthwise, "layers": layers},
        "what_if": [{"what": what, "recall": recall, "precision": 0.9} for what, recall in figures.items()],
    }


def test_all_three_sentences() -> None:
    """Weights of a depthwise network, with everything worth a trial."""
    assert sentences(quality()) == [
        "only 52 % of the boxes are left; the cause: the weights lose too much in 8 bit; depthwise convolutions bring "
        "60 % of the noise; worst layers: /net/Conv_0 40 %, /net/Conv_1 20 %, /net/Conv_2 10 %",
        "tried at level 0: as it is 50 %; the noisiest layers in 16 bit 80 %; 4 quantization groups, channels in order "
        "60 %; 4 quantization groups, channels sorted by range -",
        "what helps: --precision-16 auto; or --optimization-level 2 with a GPU (trains, not forecast here); or the "
        "script line quantization_param([{conv*}, {dw*}], quantization_groups=4), which the compiler may refuse, "
        "layer by layer; or a network without depthwise convolutions, such as YOLOv8",
    ]


@pytest.mark.parametrize(
    ("weights", "tensors", "cause"),
    [
        (0.9, 0.1, "the weights"),
        (0.1, 0.9, "the tensors between layers"),
        (0.3, 0.2, "the weights and the tensors between layers alike"),
        (0.2, 0.3, "the weights and the tensors between layers alike"),
    ],
)
def test_the_cause(weights: float, tensors: float, cause: str) -> None:
    """More than twice as much noise makes one of them the cause."""
    assert f"the cause: {cause} lose too much in 8 bit" in sentences(quality(weights, tensors))[0]


LEVEL_2 = "--optimization-level 2 with a GPU (trains, not forecast here)"
CURES = {
    "nothing new to try": ({}, [LEVEL_2]),
    "nothing helped": ({OUTPUTS: 0.5, AUTO: 0.4, ORDER: 0.5, SORTED: 0.3}, [LEVEL_2]),
    "outputs": ({OUTPUTS: 0.6, AUTO: 0.5}, ["--precision-16 outputs", LEVEL_2]),
    "auto": ({OUTPUTS: 0.2, AUTO: 0.6}, ["--precision-16 auto", LEVEL_2]),
    "groups, if they are sorted": ({ORDER: 0.4, SORTED: 0.6}, [LEVEL_2, "the script line quantization_param"]),
}


@pytest.mark.parametrize("tried, cures", CURES.values(), ids=CURES.keys())
def test_only_what_kept_more_boxes_is_advised(tried: dict[str, float | None], cures: list[str]) -> None:
    """As it is, half of the boxes are kept; level 2 could not be tried."""
    last = sentences(quality(depthwise=0.2, tried={"as it is": 0.5, **tried}))[-1]
    told = last.removeprefix("what helps: ").split("; or ")

    assert len(told) == len(cures) and all(t.startswith(c) for t, c in zip(told, cures, strict=True)), last


def test_names_of_layers_are_not_trusted() -> None:
    """A node's name comes from the file."""
    bad = quality()
    bad["causes"]["layers"][0]["layer"] = "\x1b[2J" + "x" * 100
    first = sentences(bad)[0]

    assert first.isprintable() and "x" * 61 not in first


# --- measured ---------------------------------------------------------------------------------------------------------


def explained(precision: Precision, level: int = 0) -> dict[str, Any]:
    """The `quality` of the toy with its explanation."""
    file = make_static(Path("toy.onnx"), tiny_yolo(), "")
    layout = discover(file)
    emulator = Emulator(file, layout, (0, 0, 0), (255, 255, 255), precision, level=level)

    def pictures() -> Iterator[np.ndarray]:
        return (drawn((64, 64), i) for i in range(3))

    emulator.measure(pictures)
    exact = FloatHeads(file, layout, pictures, in_sample=True)
    found = compare_emulated(exact, emulator.quantize(pictures), emulator.head_spec())
    return {**found, **explain(emulator, exact, found)}


def test_everything_that_may_help_is_tried() -> None:
    """Each with its figures; the worst layers come first."""
    found = explained(Precision())
    tried = {w["what"]: w for w in found["what_if"]}

    assert list(tried) == ["as it is", OUTPUTS, AUTO, ORDER, SORTED]
    assert all(0 <= w["recall"] <= 1 and 0 <= w["precision"] <= 1 for w in tried.values())
    causes = found["causes"]
    shares = [layer["share"] for layer in causes["layers"]]
    assert len(shares) == 5 and shares == sorted(shares, reverse=True)
    assert 0 < causes["weights"] < 1 and 0 < causes["tensors"] < 1 and 0 < causes["depthwise"] < 1
    assert len(sentences({**found, "recall": 0.5})) == 3


def test_only_what_is_new_is_tried() -> None:
    """A user who has 16-bit outputs, `auto` and groups is shown where they are."""
    every = Precision(outputs=frozenset(range(6)), auto=True, conv_groups=4)

    assert [w["what"] for w in explained(every)["what_if"]] == ["as it is"]
    assert [w["what"] for w in explained(replace(every, auto=False))["what_if"]] == ["as it is", AUTO]


def test_as_it_is_means_level_0() -> None:
    """At level 0 those are the figures of the model itself; at level 1 they are those of level 0."""
    plain, corrected = (explained(Precision(), level) for level in (0, 1))
    shown = [next(w for w in found["what_if"] if w["what"] == "as it is") for found in (plain, corrected)]

    assert shown[0] == shown[1] == {"what": "as it is", **{key: plain[key] for key in ("recall", "precision")}}
    assert corrected["outputs"] != plain["outputs"]
